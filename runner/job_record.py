"""What a run's jobs were, as its result tells it: every job with its kept result in the content store, so that anybody
replays the run without sending one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from backends.runtime.ledger import Job, JobLedger, SessionEntry
from backends.runtime.local import ignored
from backends.runtime.types import RuntimeOptions
from backends.target import Target

DIGITS = 6
"""QPU seconds are rounded to microseconds."""
OF_A_NODE = ("train", "fine-tune", "measure")
"""Purposes that a node states in its submission's resources; other work is nobody's own, or comes after it."""
_KEY = re.compile(r"([a-z][a-z -]*)/(\d{1,7})/(\d{1,7})/(-1|\d{1,6})/(\d{1,9})(/.*)?", re.DOTALL)


class Puts(Protocol):
    """The half of a content store that is needed here."""

    def put(self, data: bytes) -> str:
        """Keep a file; its CID."""
        ...


@dataclass(frozen=True)
class Purpose:
    """What a job was for, as its key says: `backends.runtime.labels.Label.key`."""

    name: str
    round: int
    base: int
    node: int
    step: int


def purpose_of(key: str) -> Purpose | None:
    """What a key says; None where it is no key of a run's work."""
    found = _KEY.fullmatch(key)
    if found is None:
        return None
    return Purpose(found[1], *(int(found[i]) for i in range(2, 6)))


def describe_jobs(jobs: Iterable[Job]) -> list[dict[str, Any]]:
    """Every job that was sent, in the order of the intents."""
    return [_describe(job) for job in jobs if job.state != "intended"]


def keep_results(jobs: Iterable[dict[str, Any]], ledger: JobLedger, content: Puts) -> None:
    """Put the kept results into the store, and their CIDs into the description of their jobs.

    Raises:
        QrunError: a kept result is gone or damaged.
    """
    kept = {job.tag: job for job in ledger.jobs()}
    for job in jobs:
        if job["result"] is not None:
            job["cid"] = content.put(ledger.result(kept[job["tag"]]))


def tell_counted(jobs: Iterable[dict[str, Any]], counted: Callable[[int, int, int], Mapping[str, float]]) -> None:
    """Put into the description of the jobs what their nodes' statements counted them with.

    Args:
        jobs: As `describe_jobs` gives them.
        counted: (round, base, node) -> tag -> QPU seconds; empty where the node has stated nothing.
    """
    for job in jobs:
        if job["purpose"] in OF_A_NODE:
            job["counted"] = counted(job["round"], job["base"], job["node"]).get(job["tag"])


def _describe(job: Job) -> dict[str, Any]:
    of = purpose_of(job.key) or Purpose("call", 0, 0, -1, 0)
    return {
        "tag": job.tag,
        "job_id": job.job_id,
        "session_id": job.session_id,
        "key": job.key,
        "purpose": of.name,
        "round": of.round,
        "base": of.base,
        "node": of.node,
        "state": job.state,
        "backend": job.backend,
        "mode": job.mode,
        "local": job.local,
        "circuits": job.circuits,
        "shots": job.shots,
        "qpu_seconds": None if job.qpu_seconds is None else round(job.qpu_seconds, DIGITS),
        "estimate": round(job.estimate, DIGITS),
        "counted": None,
        "request": job.request,
        "result": job.result if job.state == "done" else None,
        "cid": None,
        "reason": job.reason,
    }


def describe_sessions(sessions: Iterable[SessionEntry]) -> list[dict[str, Any]]:
    """Every session and batch, in the order of opening, and what was charged for it."""
    return [
        {
            "session_id": s.session_id,
            "kind": s.kind,
            "backend": s.backend,
            "node": s.node,
            "qpu_seconds": None if s.usage is None else round(s.usage, DIGITS),
        }
        for s in sessions
    ]


def charge(job: Mapping[str, Any]) -> float:
    """QPU seconds of a job of the result: what the service told, else its estimate where it is done."""
    if job["local"]:
        return 0.0
    if job["qpu_seconds"] is not None:
        return float(job["qpu_seconds"])
    return float(job["estimate"]) if job["state"] == "done" else 0.0


def idle(jobs: Sequence[Mapping[str, Any]], sessions: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Session -> QPU seconds that it was charged beyond its jobs."""
    own: dict[str, float] = {}
    for job in jobs:
        if job["session_id"] is not None:
            own[job["session_id"]] = own.get(job["session_id"], 0.0) + charge(job)
    return {s["session_id"]: max(0.0, float(s["qpu_seconds"] or 0.0) - own.get(s["session_id"], 0.0)) for s in sessions}


@dataclass(frozen=True)
class Seconds:
    """QPU seconds of some work, as they are known now: of its jobs by their tags, and what their sessions waited.

    What a job took is settled some time after it has ended, and what a session was charged after it was closed.
    """

    jobs: Mapping[str, float]
    idle: float

    @property
    def total(self) -> float:
        """All of them."""
        return sum(self.jobs.values()) + self.idle


def seconds_of(
    jobs: Sequence[Mapping[str, Any]],
    sessions: Sequence[Mapping[str, Any]],
    purposes: Iterable[str],
    work: tuple[int, int, int],
) -> Seconds:
    """QPU seconds of a node's work.

    Args:
        jobs: As the result has them.
        sessions: The same.
        purposes: What the work was for.
        work: Round, its base, node.
    """
    wanted = set(purposes)
    own = [j for j in jobs if j["purpose"] in wanted and (j["round"], j["base"], j["node"]) == work]
    waited = idle(jobs, sessions)
    of_sessions = sum(waited.get(i, 0.0) for i in {j["session_id"] for j in own if j["session_id"] is not None})
    return Seconds({j["tag"]: charge(j) for j in own}, of_sessions)


def ledger_seconds(ledger: JobLedger, purposes: Iterable[str], work: tuple[int, int, int]) -> Seconds:
    """QPU seconds of a node's work (round, base, node) as the ledger knows them now."""
    jobs, sessions = describe_jobs(ledger.jobs()), describe_sessions(ledger.sessions())
    return seconds_of(jobs, sessions, purposes, work)


def describe_qpu(jobs: Sequence[Mapping[str, Any]], sessions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """QPU seconds of a whole run: of all jobs, of sessions that waited, and of the jobs by what they were for."""
    by_purpose: dict[str, float] = {}
    for job in jobs:
        by_purpose[job["purpose"]] = by_purpose.get(job["purpose"], 0.0) + charge(job)
    of_jobs, waited = sum(map(charge, jobs)), sum(idle(jobs, sessions).values())
    return {
        "total": round(of_jobs + waited, DIGITS),
        "jobs": round(of_jobs, DIGITS),
        "idle": round(waited, DIGITS),
        "by_purpose": {name: round(seconds, DIGITS) for name, seconds in by_purpose.items()},
    }


def mode_of(jobs: Iterable[Mapping[str, Any]], backend: str) -> str:
    """How the jobs on a device were run: "session", "batch", "job", or several where the plan changed."""
    return ", ".join(sorted({str(j["mode"]) for j in jobs if j["backend"] == backend and j["mode"]}))


def snapshot_bytes(target: Target | None) -> bytes | None:
    """The calibration that a target was built from, where it came as a file or from the service."""
    content = getattr(getattr(getattr(target, "backend", None), "snapshot", None), "content", None)
    return content if isinstance(content, bytes) else None


def describe_options(options: RuntimeOptions, target: Target) -> dict[str, Any]:
    """Whether a target's jobs run in the local testing mode, the options in force, and what that mode ignores."""
    local = target.kind != "hardware"
    return {"local": local, "options": asdict(options.in_force()), "ignored": ignored(options) if local else []}
