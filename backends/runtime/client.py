"""What the engine needs of a service that runs jobs, and how each of its answers is to be understood.

The line that matters is drawn at sending: either the service surely has no job (`Rejected`), or it may have one
(`Unclear`). Everything that cannot be told apart counts as unclear.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from backends.runtime.pubs import Part

Kind = Literal["session", "batch", "job"]
JobState = Literal["queued", "running", "done", "failed", "cancelled"]


class Rejected(Exception):
    """The service surely did not accept what was sent: it said so (4xx), or nothing was sent at all.

    Args:
        reason: In the service's words.
        status: HTTP status; None where nothing was sent.
        transient: Whether the same may be accepted later (no network, 429).
    """

    def __init__(self, reason: str, *, status: int | None = None, transient: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.status, self.transient = reason, status, transient


class Unclear(Exception):
    """What was sent may have arrived: 5xx, a timeout, a connection that was lost on the way."""


class Lost(Exception):
    """A question has no answer for now (no network, 429, 5xx): asking again does no harm."""


class NotShown(Lost):
    """The service does not know the job (yet: it may show one late), or not under this account."""


@dataclass(frozen=True)
class Status:
    """What has become of a job; `reason` is the service's for a job that failed."""

    state: JobState
    reason: str = ""

    @property
    def final(self) -> bool:
        """Whether it stays so."""
        return self.state in ("done", "failed", "cancelled")


@dataclass(frozen=True)
class SessionStatus:
    """Of a session or batch: whether it takes more jobs, and the QPU seconds charged so far, where known."""

    accepting: bool
    usage: float | None = None


@dataclass(frozen=True)
class Place:
    """Where a job goes, and under which bounds.

    Attributes:
        backend: Name of the device.
        kind: "session", "batch" or "job".
        session_id: None in job mode, and in local testing mode.
        tags: Of the job.
        max_seconds: `max_execution_time`, QPU seconds; None locally.
    """

    backend: str
    kind: Kind
    session_id: str | None
    tags: tuple[str, ...]
    max_seconds: int | None


class JobClient(Protocol):
    """A service that runs jobs. Every method that asks may raise `Lost`; ServiceError where asking again is no use."""

    local: bool
    """Whether nothing is paid and no job outlives the process."""

    def submit(self, part: Part, place: Place) -> str:
        """Send a job; its id. Raises Rejected or Unclear."""
        ...

    def find(self, tag: str) -> list[str]:
        """Ids of the jobs with this tag, the oldest first."""
        ...

    def status(self, job_id: str) -> Status:
        """What has become of a job; may raise NotShown."""
        ...

    def result(self, job_id: str) -> bytes:
        """The result of a job that is done, as it comes."""
        ...

    def usage(self, job_id: str) -> float | None:
        """QPU seconds that a job was charged; None while that is not settled."""
        ...

    def estimate(self, job_id: str) -> float | None:
        """QPU seconds that the service expects of a job, where it says."""
        ...

    def cancel(self, job_id: str) -> bool:
        """Cancel a job; whether it was still there to be cancelled."""
        ...

    def open_session(self, kind: Kind, backend: str, max_time: int) -> str | None:
        """Open a session or batch; its id (None locally). Raises Rejected or Unclear."""
        ...

    def session(self, session_id: str) -> SessionStatus:
        """How a session stands."""
        ...

    def close_session(self, session_id: str) -> None:
        """Let it take no more jobs; those that it has still run."""
        ...

    def plan(self) -> str | None:
        """Name of the plan, where known; never raises."""
        ...


@dataclass(frozen=True)
class Clock:
    """Time, handed in so that tests need none."""

    now: Callable[[], float] = field(default=time.time)
    sleep: Callable[[float], None] = field(default=time.sleep)
