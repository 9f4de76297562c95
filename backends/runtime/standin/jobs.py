"""A job of the stand-in, and how the service shows it."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any, Literal

from backends.runtime.standin.encoding import Program, decode
from backends.runtime.standin.replies import Call, Refused
from backends.runtime.standin.settings import Settings
from backends.runtime.standin.stamps import moment, stamp

State = Literal["Queued", "Running", "Completed", "Failed", "Cancelled"]
PENDING: tuple[State, ...] = ("Queued", "Running")
PROGRAM = "executor"
MAX_SECONDS = 10_800
"""The service's own bound on a job."""


@dataclass
class Job:
    """A job. Times are those of `time.time`.

    Attributes:
        params: As they came.
        program: The same, decoded.
        cost: `max_execution_time`, QPU seconds; None: the service's own bound.
        seconds: QPU seconds that it takes if it is run to its end.
        charged: QPU seconds that it took.
        result: What it gave, or why it failed, as text.
        cancelling: A client has cancelled it while it ran.
        deleted: A client has deleted it.
    """

    job_id: str
    backend: str
    params: dict[str, Any]
    program: Program
    tags: list[str]
    session_id: str | None
    cost: int | None
    private: bool
    created: float
    seconds: float
    state: State = "Queued"
    reason: str = ""
    reason_code: int | None = None
    started: float | None = None
    ended: float | None = None
    charged: float = 0.0
    result: str = ""
    cancelling: bool = False
    deleted: bool = False

    @property
    def pending(self) -> bool:
        """Whether it waits or runs."""
        return self.state in PENDING

    def entry(self, *, params: bool = False) -> dict[str, Any]:
        """How the service shows it, with what it asked if wanted."""
        state: dict[str, Any] = {"status": self.state}
        if self.reason:
            state["reason"] = self.reason
        if self.reason_code:
            state["reason_code"] = self.reason_code
        shown: dict[str, Any] = {
            "id": self.job_id,
            "backend": self.backend,
            "state": state,
            "status": self.state,
            "program": {"id": PROGRAM},
            "created": stamp(self.created),
            "ended": stamp(self.ended),
            "tags": list(self.tags),
            "session_id": self.session_id,
            "cost": self.cost or MAX_SECONDS,
            "private": self.private,
            "estimated_running_time_seconds": self.seconds,
            "usage": {"seconds": self.charged},
        }
        if params:
            shown["params"] = self.params
        return shown

    def metrics(self, *, final: bool) -> dict[str, Any]:
        """Times and use; `final` says whether the use is reckoned up already."""
        usage = self.charged if final else 0.0
        return {
            "timestamps": {
                "created": stamp(self.created),
                "running": stamp(self.started),
                "finished": stamp(self.ended),
            },
            "bss": {"seconds": usage},
            "usage": {
                "quantum_seconds": usage,
                "seconds": usage,
                "qpu_charge_time_seconds": usage,
                "status": "final" if final else "pending",
            },
            "estimated_start_time": None,
            "estimated_completion_time": None,
            "position_in_queue": None,
        }


def new_job(document: dict[str, Any], settings: Settings, served: set[str], now: float) -> Job:
    """A job as a client sends it; its session is not looked at.

    Raises:
        Refused: No such program or device, something malformed, or more than a job may hold.
    """
    program_id, backend = document.get("program_id"), document.get("backend")
    if program_id != PROGRAM:
        raise Refused(404, f"Program not found: {program_id}; the stand-in knows {PROGRAM!r} alone.")
    if backend not in served:
        raise Refused(404, f"Backend {backend} not found.")
    tags, cost, session = document.get("tags", []), document.get("cost"), document.get("session_id")
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise Refused(400, "Request validation of body failed, because: tags must be strings.", 1208)
    if cost is not None and (not isinstance(cost, int) or cost < 1):
        raise Refused(400, "Request validation of body failed, because: cost must be seconds.", 1208)
    if session is not None and not isinstance(session, str):
        raise Refused(400, "Request validation of body failed, because: session_id must be a string.", 1208)
    params = document.get("params")
    program = decode(params)
    executions = program.circuits * program.shots
    for what, has, most in (
        ("circuits", program.circuits, settings.circuits),
        ("executions", executions, settings.executions),
    ):
        if has > most:
            raise Refused(
                400, f"Request validation of body failed, because: {has} {what} in one job; at most {most}.", 1208
            )
    delay = settings.repetition_delay if program.repetition_delay is None else program.repetition_delay
    return Job(
        job_id=secrets.token_hex(10),
        backend=str(backend),
        params=params if isinstance(params, dict) else {},
        program=program,
        tags=list(tags),
        session_id=session,
        cost=cost,
        private=bool(document.get("private", False)),
        created=now,
        seconds=round(settings.overhead + executions * delay, 6),
    )


def listed(jobs: list[Job], call: Call) -> dict[str, Any]:
    """A page of jobs as a client asks for it: filters, order, offset, limit, and how many there are in all.

    Args:
        jobs: Those that may be seen, oldest first.
        call: With tags (all of which a job must have), session_id, backend, program, pending, created_after,
            created_before, sort, limit, offset.

    Raises:
        Refused: 400, a filter that cannot be read.
    """
    try:
        limit, offset = int(call.one("limit", "200")), int(call.one("offset", "0"))
        after, before = call.one("created_after"), call.one("created_before")
        earliest = moment(after) if after else float("-inf")
        latest = moment(before) if before else float("inf")
    except ValueError:
        raise Refused(400, "Request validation of query failed.", 1208) from None
    wanted, pending = set(call.query.get("tags", [])), call.one("pending")
    kept = [
        job
        for job in jobs
        if wanted <= set(job.tags)
        and call.one("session_id", job.session_id or "") == (job.session_id or "")
        and call.one("backend", job.backend) == job.backend
        and call.one("program", PROGRAM) == PROGRAM
        and (not pending or job.pending == (pending == "true"))
        and earliest <= job.created <= latest
    ]
    if call.one("sort") != "ASC":
        kept.reverse()
    page = [job.entry() for job in kept[offset : offset + limit]]
    return {"jobs": page, "count": len(kept), "limit": limit, "offset": offset}
