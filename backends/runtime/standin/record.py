"""What was received: every request, and every job that was accepted."""

from __future__ import annotations

import threading
from dataclasses import asdict, dataclass
from typing import Any

from backends.runtime.standin.queue import Queue
from backends.runtime.standin.simulate import seed_of


@dataclass(frozen=True)
class Entry:
    """A request.

    Attributes:
        status: What was answered; 0 where the connection was dropped.
        fault: What went wrong on purpose, None where nothing did.
        done: Whether the work was done: a request with an error status after the work was.
    """

    method: str
    path: str
    status: int
    fault: dict[str, Any] | None
    done: bool


@dataclass(frozen=True)
class Accepted:
    """A job that was accepted, whether or not the client was told.

    Attributes:
        digest: SHA-256, hex, of all that defines its counts: two jobs that ask the same have the same.
        seed: Of its shots; follows from the digest.
        circuits: Parameter sets, randomizations included.
        cost: `max_execution_time`, QPU seconds.
        charged: QPU seconds that it took.
        created: Unix time.
    """

    job_id: str
    backend: str
    tags: tuple[str, ...]
    session_id: str | None
    state: str
    digest: str
    seed: int
    circuits: int
    shots: int
    cost: int | None
    charged: float
    created: float


class Record:
    """Requests in the order in which they were answered."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self._lock = threading.Lock()

    def add(self, entry: Entry) -> None:
        """Write a request down."""
        with self._lock:
            self._entries.append(entry)

    def entries(self) -> list[Entry]:
        """All requests so far."""
        with self._lock:
            return list(self._entries)


def jobs_of(queue: Queue) -> list[Accepted]:
    """Every accepted job, oldest first; deleted ones too."""
    with queue.changed:
        return [
            Accepted(
                job_id=job.job_id,
                backend=job.backend,
                tags=tuple(job.tags),
                session_id=job.session_id,
                state=job.state,
                digest=job.program.digest.hex(),
                seed=seed_of(job.program),
                circuits=job.program.circuits,
                shots=job.program.shots,
                cost=job.cost,
                charged=job.charged,
                created=job.created,
            )
            for job in queue.jobs
        ]


def accepted(queue: Queue) -> list[dict[str, Any]]:
    """The same in JSON's types."""
    return [asdict(job) for job in jobs_of(queue)]
