"""Sessions and batches: how long they live, what they are charged."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any, Literal

from backends.runtime.standin.replies import Refused
from backends.runtime.standin.settings import Settings
from backends.runtime.standin.stamps import stamp

Mode = Literal["dedicated", "batch"]


@dataclass
class Session:
    """A session ("dedicated") or a batch. Times are those of `time.time`.

    Attributes:
        usage: QPU seconds of its jobs.
        idle: QPU seconds between them that a session is charged as well.
        free: When it last had no job to run, None while it has one or before the first.
        waiting: Jobs that are queued or run.
    """

    session_id: str
    mode: Mode
    backend: str
    max_ttl: int
    interactive_ttl: float
    created: float
    accepting: bool = True
    activated: float | None = None
    closed: float | None = None
    last_started: float | None = None
    last_completed: float | None = None
    usage: float = 0.0
    idle: float = 0.0
    free: float | None = None
    waiting: int = 0
    timestamps: list[dict[str, str]] = field(default_factory=list)

    def state(self, now: float) -> str:
        """Its state: "open" before the first job, "active", "inactive" after the interactive TTL, "closed"."""
        if self.closed is not None:
            return "closed"
        if self.activated is None:
            return "open"
        if self.free is not None and now - self.free > self.interactive_ttl:
            return "inactive"
        return "active"

    def details(self, now: float, rate: float) -> dict[str, Any]:
        """How the service shows it.

        Args:
            now: The time.
            rate: `Settings.idle`.
        """
        return {
            "id": self.session_id,
            "backend_name": self.backend,
            "mode": self.mode,
            "max_ttl": self.max_ttl,
            "interactive_ttl": self.interactive_ttl,
            "active_ttl": self.max_ttl,
            "state": self.state(now),
            "accepting_jobs": self.accepting,
            "created_at": stamp(self.created),
            "activated_at": stamp(self.activated),
            "started_at": stamp(self.activated),
            "closed_at": stamp(self.closed),
            "last_job_started": stamp(self.last_started),
            "last_job_completed": stamp(self.last_completed),
            "elapsed_time": self.elapsed(now, rate),
            "timestamps": list(self.timestamps),
        }

    def elapsed(self, now: float, rate: float) -> float:
        """QPU seconds that it is charged: its jobs', and for a session what it held the device for between them."""
        if self.mode == "batch":
            return self.usage
        return self.usage + self.idle + (self._gap(now) * rate if self.closed is None else 0.0)

    def _gap(self, now: float) -> float:
        return 0.0 if self.free is None else min(max(now - self.free, 0.0), self.interactive_ttl)

    def take(self, now: float, rate: float) -> None:
        """A job is accepted."""
        self.idle += self._gap(now) * rate
        self.free = None
        self.waiting += 1

    def started(self, now: float) -> None:
        """One of its jobs starts."""
        self.last_started = now
        if self.activated is None:
            self.activated = now
            self.timestamps.append({"status": "active", "timestamp": stamp(now) or ""})

    def ended(self, now: float, seconds: float, rate: float) -> None:
        """One of its jobs has ended, and took so many QPU seconds."""
        self.usage += seconds
        self.waiting -= 1
        self.last_completed = now
        if self.waiting == 0:
            self.free = now if self.activated is not None else None
            if not self.accepting:
                self.close(now, rate)

    def stop(self, now: float, rate: float) -> None:
        """Take no more jobs; closed once the last has ended."""
        self.accepting = False
        if self.waiting == 0:
            self.close(now, rate)

    def close(self, now: float, rate: float) -> None:
        """Close it."""
        if self.closed is None:
            self.idle += self._gap(now) * rate
            self.accepting, self.closed, self.free = False, now, None
            self.timestamps.append({"status": "closed", "timestamp": stamp(now) or ""})

    def overdue(self, now: float) -> bool:
        """Whether its longest life is over."""
        return self.closed is None and self.activated is not None and now - self.activated > self.max_ttl


def open_session(document: dict[str, Any], settings: Settings, served: set[str], now: float) -> Session:
    """A session as a client asks for it.

    Raises:
        Refused: No such mode, no such device, or a plan without sessions.
    """
    mode, backend = document.get("mode"), document.get("backend")
    if mode not in {"dedicated", "batch"}:
        raise Refused(400, "Request validation of body failed, because: mode must be dedicated or batch.", 1208)
    if mode == "dedicated" and settings.plan == "open":
        raise Refused(
            400,
            "You are not authorized to run a session when using the open plan.",
            1352,
            "Create an instance of a different plan type or use a different execution mode.",
        )
    if backend not in served:
        raise Refused(404, f"Backend {backend} not found.")
    wanted = document.get("max_ttl", settings.session_seconds)
    if not isinstance(wanted, int) or wanted < 1:
        raise Refused(400, "Request validation of body failed, because: max_ttl must be seconds.", 1208)
    session_id = str(uuid.uuid4())
    ttl = min(wanted, settings.session_seconds)
    opened = [{"status": "open", "timestamp": stamp(now) or ""}]
    return Session(session_id, mode, str(backend), ttl, settings.interactive_seconds, now, timestamps=opened)
