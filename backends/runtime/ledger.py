"""The job ledger: what was sent to a device, written down before it is sent. `runner` keeps it on disk.

States of a job, in order; every change is on disk before the next thing happens:

    intended     written down, not sent: surely unknown to the service
    sending      about to be sent: from here on it may be there, whatever happens to us
    sent         the service has given it an id
    done         its result is kept, as it came
    failed       the service failed or cancelled it (or --resubmit gave it up); `reason` says why

A key (`labels.Label.key`, and the part where a call was split) has one live job at a time. `request` is the digest of
all that defines the result: a job that is done answers every later call that asks for the same.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, Protocol

State = Literal["intended", "sending", "sent", "done", "failed"]


@dataclass(frozen=True)
class Job:
    """One job.

    Attributes:
        tag: Its own, "qrun-" and a UUID: by it the service finds the job again.
        key: What it is for.
        request: SHA-256, hex, of all that defines its result.
        backend: Name of the device.
        circuits: Parameter sets in all PUBs.
        shots: A circuit.
        reserve: QPU seconds that it can take at most (`max_execution_time`); counts against the budget until it ends.
        estimate: QPU seconds that it was expected to take.
        tags: All its tags, `tag` among them.
        mode: "session", "batch" or "job", once sent.
        local: Whether the Runtime's local testing mode runs it: nothing is paid, and nothing outlives the process.
        created: Unix time of the intent.
        job_id: The service's, once sent.
        session_id: Of its session or batch, None in job mode.
        qpu_seconds: What it took, once known.
        service_estimate: The service's own estimate of QPU seconds, where it gives one.
        result: SHA-256, hex, of the kept result.
        reason: Why it failed.
    """

    tag: str
    key: str
    request: str
    backend: str
    circuits: int
    shots: int
    reserve: float
    estimate: float
    tags: tuple[str, ...] = ()
    mode: str = ""
    local: bool = False
    created: float = 0.0
    state: State = "intended"
    job_id: str | None = None
    session_id: str | None = None
    qpu_seconds: float | None = None
    service_estimate: float | None = None
    result: str | None = None
    reason: str = ""

    @property
    def live(self) -> bool:
        """Whether it may still give a result, or has given one."""
        return self.state != "failed"


@dataclass(frozen=True)
class SessionEntry:
    """A session or batch that was opened.

    Attributes:
        kind: "session" or "batch".
        backend: Name of the device.
        node: Whose it is.
        max_time: Its longest life, seconds.
        usage: QPU seconds charged for it, once closed and known.
        open: Whether we have not closed it.
    """

    session_id: str
    kind: str
    backend: str
    node: int
    max_time: int
    usage: float | None = None
    open: bool = True


def new_tag() -> str:
    """A tag that no other job has."""
    return f"qrun-{uuid.uuid4()}"


class JobLedger(Protocol):
    """Where jobs are written down. Every write is on disk when it returns."""

    def write(self, job: Job) -> None:
        """Write a job down, or what has become of it (by its tag)."""
        ...

    def keep(self, job: Job, result: bytes) -> Job:
        """Keep a result as it came, and the job as done with it, in one step; the job as it stands now."""
        ...

    def result(self, job: Job) -> bytes:
        """The kept result of a job that is done; raises QrunError where it is gone or damaged."""
        ...

    def live(self, key: str) -> Job | None:
        """The live job of a key."""
        ...

    def answer(self, request: str) -> Job | None:
        """A job that is done and answers this request."""
        ...

    def jobs(self) -> list[Job]:
        """All jobs, in the order of their intents."""
        ...

    def write_session(self, session: SessionEntry) -> None:
        """Write a session down, or what has become of it."""
        ...

    def sessions(self) -> list[SessionEntry]:
        """All sessions, in the order of opening."""
        ...


def spent(jobs: Iterable[Job], sessions: Iterable[SessionEntry]) -> float:
    """QPU seconds that are charged, or may be: a session's usage where it is known and more, else its jobs'.

    A job that has not ended counts with its reserve; one whose use the service does not tell, with its estimate.
    """
    total, by_session = 0.0, dict[str, float]()
    for job in jobs:
        if job.local or job.state == "intended":
            continue
        if job.qpu_seconds is not None:
            charge = job.qpu_seconds
        elif job.state == "failed" and job.job_id is None:
            charge = 0.0  # never arrived, as far as anybody can tell
        else:
            charge = job.estimate if job.state == "done" else job.reserve
        if job.session_id is None:
            total += charge
        else:
            by_session[job.session_id] = by_session.get(job.session_id, 0.0) + charge
    usage = {s.session_id: s.usage or 0.0 for s in sessions}
    return total + sum(max(by_session.get(i, 0.0), usage.get(i, 0.0)) for i in by_session.keys() | usage.keys())


def at_most(jobs: Iterable[Job], sessions: Iterable[SessionEntry]) -> float:
    """QPU seconds that may be charged in the end, for the budget: what is unknown counts with the most that it may be.

    Beyond `spent`, a job whose use is not told (yet), or that was given up while nobody knew whether it had arrived,
    counts with its reserve; and what a session was charged so far does not hold what its jobs have still to take.
    """
    total, ended, going = 0.0, dict[str, float](), dict[str, float]()
    for job in jobs:
        if job.local or job.state == "intended":
            continue
        charge = job.reserve if job.qpu_seconds is None else job.qpu_seconds
        if job.session_id is None:
            total += charge
        else:
            where = going if job.state in ("sending", "sent") else ended
            where[job.session_id] = where.get(job.session_id, 0.0) + charge
    usage = {s.session_id: s.usage or 0.0 for s in sessions}
    total += sum(max(ended.get(i, 0.0), usage.get(i, 0.0)) for i in ended.keys() | usage.keys())
    return total + sum(going.values())


class MemoryLedger:
    """A ledger that lives as long as the process: for Python users, and tests."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._results: dict[str, bytes] = {}
        self._sessions: dict[str, SessionEntry] = {}

    def write(self, job: Job) -> None:
        """As the protocol's."""
        self._jobs[job.tag] = job if job.created else replace(job, created=time.time())

    def keep(self, job: Job, result: bytes) -> Job:
        """As the protocol's."""
        import hashlib

        digest = hashlib.sha256(result).hexdigest()
        done = replace(job, state="done", result=digest)
        self._results[digest] = result
        self._jobs[job.tag] = done
        return done

    def result(self, job: Job) -> bytes:
        """As the protocol's."""
        return self._results[job.result or ""]

    def live(self, key: str) -> Job | None:
        """As the protocol's."""
        return next((job for job in reversed(self._jobs.values()) if job.key == key and job.live), None)

    def answer(self, request: str) -> Job | None:
        """As the protocol's."""
        return next((j for j in self._jobs.values() if j.request == request and j.state == "done"), None)

    def jobs(self) -> list[Job]:
        """As the protocol's."""
        return list(self._jobs.values())

    def write_session(self, session: SessionEntry) -> None:
        """As the protocol's."""
        self._sessions[session.session_id] = session

    def sessions(self) -> list[SessionEntry]:
        """As the protocol's."""
        return list(self._sessions.values())
