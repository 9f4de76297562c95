"""The run's jobs on devices: their kept results, and what they took. Nothing is run, and no service is asked."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from contracts.errors import ContentError
from runner.audit.checks import Findings
from runner.audit.samples import read_samples
from runner.audit.sources import Reader
from runner.audit.task_state import TaskState
from runner.device_report import agreement, rounded_figures
from runner.job_record import OF_A_NODE, describe_qpu, mode_of, purpose_of, seconds_of
from runner.run_folder import MAX_BYTES

TOLERANCE = 0.002
"""Seconds: on the chain they are rounded to milliseconds."""
FIGURES = 1e-5
"""Figures of the twin may differ by so much between machines, and sums by less."""
_SHA256 = re.compile(r"[0-9a-f]{64}")
_TEXT = ("tag", "key", "purpose", "state", "backend", "mode", "request", "reason")
_WHOLE = ("round", "base", "node", "circuits", "shots")
_MAYBE = ("job_id", "session_id", "result", "cid")
_JOB = {*_TEXT, *_WHOLE, *_MAYBE, "local", "qpu_seconds", "estimate", "counted"}
_SESSION = {"session_id", "kind", "backend", "node", "qpu_seconds"}

FloatArray = npt.NDArray[np.float64]


class KeptJobs:
    """The jobs and sessions of a result, checked.

    Attributes:
        jobs: As the result has them.
        sessions: The same.
        asked: Digest of a request -> parameter sets, of what a replay has asked for.
    """

    def __init__(self, findings: Findings, result: Mapping[str, Any], store: Reader) -> None:
        self.findings = findings
        self.store = store
        self.jobs = _sound(result.get("jobs", []), _is_job)
        self.sessions = _sound(result.get("sessions", []), _is_session)
        self.asked: dict[str, int] = {}
        self.whole = self.jobs is not None and self.sessions is not None

    def check(self, state: TaskState, result: Mapping[str, Any]) -> None:
        """Every statement about jobs, sessions and the device."""
        if "jobs" not in result:
            return  # of an earlier format: it knew no jobs
        findings = self.findings
        findings.test(
            self.whole, "jobs/form", "jobs and sessions are listed with what belongs to each",
            "an entry lacks something, or holds what it cannot", "result.json",
        )  # fmt: skip
        if not self.whole:
            return
        tags = [job["tag"] for job in self.jobs or []]
        findings.test(len(set(tags)) == len(tags), "jobs/tags", "no two jobs have the same tag", "two have")
        for job in self.jobs or []:
            self._check_job(job)
        self._check_nodes(state)
        told, made = result.get("qpu"), describe_qpu(self.jobs or [], self.sessions or [])
        findings.test(
            close(told, made), "jobs/qpu", "the run's QPU seconds are those of its jobs and sessions",
            f"it says {str(told)[:200]}; they come to {made}",
        )  # fmt: skip
        _check_snapshot(findings, self.store, "backend", result.get("backend"))
        if isinstance(result.get("device_run"), dict):
            self._check_device(result["device_run"], result)

    def bytes_of(self, request: str) -> bytes | None:
        """The kept result that answers a request, where one is whole: for the replay."""
        for job in self.jobs or []:
            if job["request"] == request and job["cid"] is not None:
                data = self._read(job)[0]
                if data is not None:
                    return data
        return None

    def _read(self, job: Mapping[str, Any]) -> tuple[bytes | None, str]:
        """A job's kept result, or why there is none."""
        try:
            data = self.store.get(job["cid"], max_bytes=MAX_BYTES)
        except ContentError as error:
            return None, error.message
        digest = hashlib.sha256(data).hexdigest()
        if digest != job["result"]:
            return None, f"its SHA-256 is {digest[:16]}…, and the job's result has {str(job['result'])[:16]}…"
        return data, ""

    def _check_job(self, job: Mapping[str, Any]) -> None:
        name = f"job {job['job_id'] or job['tag']}"
        of = purpose_of(job["key"])
        said = (job["purpose"], job["round"], job["base"], job["node"])
        self.findings.test(
            of is not None and (of.name, of.round, of.base, of.node) == said, f"jobs/{job['tag']}/key",
            f"{name} was for what its key says", f"its key is {job['key'][:80]!r}, and it says {said}",
        )  # fmt: skip
        claim = f"{name}: its result is in the store, as it came"
        if job["state"] != "done":
            self.findings.test(
                job["result"] is None and job["cid"] is None, f"jobs/{job['tag']}/result",
                f"{name} has no result: it is {job['state']}", "it names one",
            )  # fmt: skip
            return
        if job["cid"] is None or job["result"] is None:
            self.findings.false(f"jobs/{job['tag']}/result", claim, "the result names none")
            return
        data, reason = self._read(job)
        self.findings.test(data is not None, f"jobs/{job['tag']}/result", claim, reason, job["cid"])

    def _check_nodes(self, state: TaskState) -> None:
        """What the nodes stated on the chain, against their jobs."""
        for number, round_ in sorted(state.rounds.items()):
            for node, submission in sorted(round_.submissions.items()):
                stated = float(submission.resources.get("qpu_seconds", 0.0))
                self._check_statement(number, node, stated, (number, round_.base, node))

    def _check_statement(self, number: int, node: int, stated: float, work: tuple[int, int, int]) -> None:
        jobs, sessions = self.jobs or [], self.sessions or []
        seconds = seconds_of(jobs, sessions, OF_A_NODE, work)
        told = {job["tag"]: job["counted"] for job in jobs if job["tag"] in seconds.jobs}
        estimates = {job["tag"]: 0.0 if job["local"] else job["estimate"] for job in jobs}
        reason = ""
        for tag, known in seconds.jobs.items():
            # A job that was not settled when the node stated it counts with its estimate.
            if told[tag] is None or min(abs(told[tag] - known), abs(told[tag] - estimates[tag])) > FIGURES:
                reason = f"job {tag} is in it with {told[tag]}; it took {known:.6f}"
        counted = sum(value for value in told.values() if value is not None)
        if not reason and not counted - TOLERANCE <= stated <= counted + seconds.idle + TOLERANCE:
            reason = f"it stated {stated:.3f}; its jobs come to {counted:.3f}, and {seconds.idle:.3f} of idle sessions"
        self.findings.test(
            not reason, f"jobs/{number}/{node}/seconds", f"round {number}, node {node}: the QPU seconds that it stated "
            "are those of its jobs, and of their idle sessions", reason,
        )  # fmt: skip

    # -- the device ---------------------------------------------------------------------------------------------------

    def _check_device(self, told: Mapping[str, Any], result: Mapping[str, Any]) -> None:
        findings, jobs = self.findings, self.jobs or []
        _check_snapshot(findings, self.store, "device_run", told)
        final = result.get("final")
        base = final.get("round") if isinstance(final, dict) else None
        by_tag = {job["tag"]: job for job in jobs}
        nodes = _sound(told.get("nodes"), _is_share)
        if nodes is None or not isinstance(base, int):
            findings.false("jobs/device/form", "who ran the final model on the device is told", "it is not")
            return
        total = 0.0
        for entry in nodes:
            node, own = entry["id"], [by_tag.get(tag) for tag in entry["jobs"]]
            fits = [j is not None and (j["purpose"], j["round"], j["node"]) == ("device", base, node) for j in own]
            findings.test(
                all(fits) and bool(fits), f"jobs/device/{node}/jobs", f"device, node {node}: its jobs are those of the "
                "final model", "one is of something else, or is not listed",
            )  # fmt: skip
            seconds = seconds_of(jobs, self.sessions or [], ["device"], (base, 0, node))
            findings.test(
                close(entry["qpu_seconds"], float(seconds.total)), f"jobs/device/{node}/seconds",
                f"device, node {node}: the QPU seconds are those of its jobs",
                f"it says {entry['qpu_seconds']}; they come to {seconds.total:.6f}",
            )  # fmt: skip
            total += float(entry["qpu_seconds"])
        listed = [by_tag[tag] for entry in nodes for tag in entry["jobs"] if tag in by_tag]
        figures = {
            "qpu_seconds": round(total, 6),
            "samples": sum(entry["samples"] for entry in nodes),
            "mode": mode_of(listed, str(told.get("backend"))),
        }
        for name, value in figures.items():
            findings.test(close(told.get(name), value), f"jobs/device/{name}", f"device: {name} is that of its jobs",
                          f"it says {str(told.get(name))[:60]}; it is {value}")  # fmt: skip
        self._check_samples(told, nodes, result)

    def _check_samples(self, told: Mapping[str, Any], nodes: list[dict[str, Any]], result: Mapping[str, Any]) -> None:
        """That the published samples are there, and give the agreement of device and twin that is told."""
        findings, cid = self.findings, str(told.get("samples_cid"))
        claim = "the samples of device and twin are in the store, and are as many as is told"
        final = result.get("final")
        samples = read_samples(self.store, cid, model=str(final.get("cid")) if isinstance(final, dict) else "")
        if isinstance(samples, str):
            findings.false("jobs/device/samples_file", claim, samples, cid)
            return
        counts = {node: len(values["device"]) for node, values in samples.items()}
        findings.test(counts == {entry["id"]: entry["samples"] for entry in nodes}, "jobs/device/samples_file", claim,
                      f"the file has {counts}", cid)  # fmt: skip
        order = sorted(samples)
        made = agreement(
            *(np.concatenate([samples[n][k] for n in order]) for k in ("device", "twin", "standard_errors"))
        )
        findings.test(
            close(told.get("agreement"), rounded_figures(made)), "jobs/device/agreement",
            "how far the device is from its twin follows from the samples", "other figures follow", cid,
        )  # fmt: skip


def close(told: Any, made: Any, within: float = FIGURES) -> bool:
    """Whether figures are the same, name by name: numbers with a fraction within a bound, all others as they are."""
    if isinstance(made, dict):
        alike = isinstance(told, dict) and told.keys() == made.keys()
        return alike and all(close(told[name], value, within) for name, value in made.items())
    if isinstance(made, list):
        alike = isinstance(told, list) and len(told) == len(made)
        return alike and all(close(one, other, within) for one, other in zip(told, made, strict=True))
    if isinstance(made, float):
        return _is_number(told) and abs(told - made) <= within
    return json.dumps(told, sort_keys=True) == json.dumps(made, sort_keys=True)


def _check_snapshot(findings: Findings, store: Reader, where: str, told: Any) -> None:
    """That the calibration in the store is the one that is named by its hash."""
    if not isinstance(told, dict) or told.get("snapshot_cid") is None:
        return
    cid, claim = str(told["snapshot_cid"]), f"the calibration that {where} names is in the store"
    try:
        digest = hashlib.sha256(store.get(cid, max_bytes=MAX_BYTES)).hexdigest()
    except ContentError as error:
        findings.false(f"jobs/{where}/calibration", claim, error.message, cid)
        return
    findings.test(digest == told.get("snapshot_sha256"), f"jobs/{where}/calibration", claim,
                  f"its SHA-256 is {digest[:16]}…, not {str(told.get('snapshot_sha256'))[:16]}…", cid)  # fmt: skip


def _sound(entries: Any, is_one: Any) -> list[dict[str, Any]] | None:
    """A list of entries of which each is one; None where it is none."""
    return entries if isinstance(entries, list) and all(isinstance(e, dict) and is_one(e) for e in entries) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_seconds(value: Any) -> bool:
    return _is_number(value) and 0 <= value < 1e12


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -1 <= value < 2**53


def _is_job(entry: dict[str, Any]) -> bool:
    return (
        set(entry) == _JOB
        and all(isinstance(entry[name], str) for name in _TEXT)
        and all(_is_whole(entry[name]) for name in _WHOLE)
        and all(entry[name] is None or isinstance(entry[name], str) for name in _MAYBE)
        and isinstance(entry["local"], bool)
        and all(entry[name] is None or _is_seconds(entry[name]) for name in ("qpu_seconds", "counted"))
        and _is_seconds(entry["estimate"])
        and bool(_SHA256.fullmatch(entry["request"]))
    )


def _is_session(entry: dict[str, Any]) -> bool:
    return (
        set(entry) == _SESSION
        and isinstance(entry["session_id"], str)
        and (entry["qpu_seconds"] is None or _is_seconds(entry["qpu_seconds"]))
    )


def _is_share(entry: dict[str, Any]) -> bool:
    return (
        _is_whole(entry.get("id"))
        and _is_whole(entry.get("samples"))
        and isinstance(entry.get("jobs"), list)
        and all(isinstance(tag, str) for tag in entry["jobs"])
        and _is_seconds(entry.get("qpu_seconds"))
    )
