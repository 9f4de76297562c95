"""Jobs on devices, over the ledgers of all runs: listed, shown, cancelled."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from backends.runtime.client import JobClient, Lost
from backends.runtime.errors import ServiceError
from backends.runtime.ledger import Job, SessionEntry
from backends.runtime.types import Tell
from circuits.errors import QrunError, UsageError
from runner.ledger import RunLedger, read_ledger
from runner.store import RunIndex, RunInfo, on_disk


@dataclass(frozen=True)
class RunJob:
    """A job, and the run that it is of."""

    run: str
    job: Job

    def to_dict(self) -> dict[str, Any]:
        """Plain types, ready for JSON."""
        job = self.job
        purpose, *numbers = job.key.split("/")
        named = dict(zip(("round", "base", "node"), numbers, strict=False))
        return {
            "run": self.run,
            "tag": job.tag,
            "job_id": job.job_id,
            "session_id": job.session_id,
            "state": job.state,
            "reason": job.reason,
            "key": job.key,
            "purpose": purpose,
            **{name: int(value) if value.lstrip("-").isdigit() else None for name, value in named.items()},
            "backend": job.backend,
            "mode": job.mode,
            "local": job.local,
            "circuits": job.circuits,
            "shots": job.shots,
            "qpu_seconds": job.qpu_seconds,
            "estimate": job.estimate,
            "reserve": job.reserve,
            "service_estimate": job.service_estimate,
            "created": datetime.fromtimestamp(job.created, UTC).isoformat(timespec="seconds"),
            "request": job.request,
            "result": job.result,
        }

    @property
    def on_its_way(self) -> bool:
        """Whether a device may still run it."""
        return self.job.state in ("sending", "sent") and not self.job.local


def ledger_of(info: RunInfo) -> tuple[list[Job], list[SessionEntry]]:
    """A run's jobs and sessions, in the order of their intents; none where it has no state yet.

    Raises:
        QrunError: its state cannot be read.
    """
    with on_disk(info.path, "Is its folder whole, and may you read it?"):
        return read_ledger(info.path)


def on_their_way(run: str) -> int:
    """How many jobs of a run may still run on a device; 0 where its state cannot be read."""
    try:
        return sum(found.on_its_way for found in list_jobs(run)[0])
    except QrunError:
        return 0


def list_jobs(run: str | None = None) -> tuple[list[RunJob], list[str]]:
    """The jobs of one run, or of all, oldest run first; and what could not be read, a line each.

    Args:
        run: Its name, or an unambiguous beginning of it.

    Raises:
        UsageError: no such run.
        QrunError: the state of the run that was named cannot be read.
    """
    index = RunIndex()
    try:
        infos = index.list() if run is None else [index.find(run)]
    finally:
        index.close()
    found, unread = list[RunJob](), list[str]()
    for info in infos:
        try:
            jobs, _ = ledger_of(info)
        except QrunError as error:
            if run is not None:
                raise
            unread.append(f"the jobs of run {info.run} cannot be read: {error.message}")
            continue
        found += [RunJob(info.run, job) for job in jobs]
    return found, unread


def find_job(name: str, jobs: Sequence[RunJob]) -> RunJob:
    """The job of that tag or id, or of an unambiguous beginning of one (of a tag, also without its `qrun-`).

    Raises:
        UsageError: none, or several.
    """
    found = _matching(name, jobs)
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(f.job.job_id or f.job.tag for f in found[:5])
        raise UsageError(f"job {name!r} is ambiguous: {names}{' ...' if len(found) > 5 else ''}.", "Give more of it.")
    raise UsageError(f"no job {name!r}.", "`qrun jobs list` shows the jobs of all runs.")


def _matching(name: str, jobs: Iterable[RunJob]) -> list[RunJob]:
    known = [(found, (found.job.tag, found.job.tag.removeprefix("qrun-"), found.job.job_id or "")) for found in jobs]
    same = [found for found, names in known if name and name in names]
    return same or [found for found, names in known if name and any(n.startswith(name) for n in names)]


def show_job(name: str, client: JobClient | None = None) -> dict[str, Any]:
    """A job as it was written down, and under "service" how it stands there now.

    Args:
        name: Its tag, its id, or a beginning of one.
        client: Asked; by default the service of the account in force.

    Returns:
        `RunJob.to_dict`, and "service": None where the service has no such job, else {"state", "reason"}, or
        {"unreachable": why}.

    Raises:
        UsageError: no such job, or several.
    """
    found = find_job(name, list_jobs()[0])
    return {**found.to_dict(), "service": _at_the_service(found.job, client)}


def _at_the_service(job: Job, client: JobClient | None) -> dict[str, str] | None:
    if job.local or job.state == "intended":
        return None
    try:
        client = client or _client(job)
        ids = [job.job_id] if job.job_id is not None else client.find(job.tag)
        if not ids:
            return None
        status = client.status(str(ids[0]))
    except (QrunError, Lost) as error:
        return {"unreachable": str(error)}
    return {"job_id": str(ids[0]), "state": status.state, "reason": status.reason}


def to_cancel(name: str) -> tuple[list[RunJob], str | None]:
    """The jobs that a name means, a run's (its name or the beginning of it) or one job; and the run, if it is one.

    Raises:
        UsageError: neither a run nor a job.
    """
    index = RunIndex()
    try:
        runs = [info.run for info in index.list()]
    finally:
        index.close()
    jobs, _ = list_jobs()
    # Names in full first, then beginnings: a job may not hide a run, nor the other way round.
    if name in runs or (not _matching(name, jobs) and any(run.startswith(name) for run in runs if name)):
        found, _ = list_jobs(name)
        return found, found[0].run if found else None
    return [find_job(name, jobs)], None


def cancel(jobs: Iterable[RunJob], client: JobClient | None = None) -> dict[str, list[str]]:
    """Cancel jobs at the service. The run finds out for itself when it goes on, and sends anew with --resubmit alone.

    Args:
        jobs: Those that are not on their way are left alone.
        client: Asked; by default the service of the account in force.

    Returns:
        Ids (tags, where there is none) by what has become of them: "cancelled", "ended" (before it could be cancelled),
        "unclear" (the service does not show it: it may come yet), "nothing" (local, finished, or never sent).

    Raises:
        ServiceError: the service cannot be asked, or refuses.
    """
    told: dict[str, list[str]] = {"cancelled": [], "ended": [], "unclear": [], "nothing": []}
    for found in jobs:
        job = found.job
        if not found.on_its_way:
            told["nothing"].append(job.job_id or job.tag)
            continue
        service = client or _client(job)
        try:
            ids = [job.job_id] if job.job_id is not None else service.find(job.tag)
            for job_id in ids:
                told["cancelled" if service.cancel(str(job_id)) else "ended"].append(str(job_id))
        except Lost as error:
            raise ServiceError(
                f"the service does not answer ({error}); {len(told['cancelled'])} job(s) were cancelled before.",
                "Try again in a while.",
            ) from None
        if not ids:
            told["unclear"].append(job.tag)
    return told


def close_sessions(run: str, client: JobClient | None = None) -> list[str]:
    """Close what a process that was killed has left open, for an idle session is paid too; ids of what was closed.

    A run that is being played closes its sessions itself.

    Raises:
        ServiceError: the service cannot be asked, or refuses.
    """
    index = RunIndex()
    try:
        info = index.find(run, exact=True)
    finally:
        index.close()
    jobs, sessions = ledger_of(info)
    if info.state == "running":
        return []
    of_jobs = {job.session_id: job for job in jobs if not job.local}
    closed = []
    for session in sessions:
        job = of_jobs.get(session.session_id)
        if session.open and job is not None:
            try:
                (client or _client(job)).close_session(session.session_id)
            except Lost as error:
                raise ServiceError(
                    f"the session {session.session_id} is not closed: the service does not answer ({error}).",
                    "Try again in a while.",
                ) from None
            closed.append(session.session_id)
    return closed


def mend_results(ledger: RunLedger, tell: Tell, client: JobClient | None = None) -> None:
    """Fetch kept results that are gone or damaged once more from the service, which charges nothing for that.

    What cannot be had stays damaged, and is told by whoever needs it.

    Args:
        ledger: A run's.
        tell: Told what was mended.
        client: Asked; by default the service of the account in force.
    """
    for job in ledger.jobs():
        if job.state != "done" or job.local or job.job_id is None or ledger.find(job.result or "") is not None:
            continue
        try:
            raw = (client or _client(job)).result(job.job_id)
        except (QrunError, Lost):
            continue
        if hashlib.sha256(raw).hexdigest() == job.result:
            ledger.keep(job, raw)
            tell("Result mended", f"the kept result of job {job.job_id} was gone or damaged, and is fetched anew.")


def _client(job: Job) -> JobClient:
    from backends.runtime.service_client import ServiceClient

    return ServiceClient(backend=job.backend)
