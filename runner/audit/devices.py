"""Jobs and the device against the config that the chain fixes, and what the nodes stated of circuits. No data needed.

The task's config says which device, which options, how many shots and samples, and how many steps of training: whoever
tells of other jobs, of fewer or of more, of another device or of the service where it was the local testing mode, is
found here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from backends.live import is_concrete, plain_name
from backends.runtime.local import ignored
from backends.runtime.types import RuntimeOptions
from contracts.records import Submission
from runner.audit.checks import Findings
from runner.audit.figures import FILE
from runner.audit.jobs import KeptJobs, close
from runner.audit.task_state import TaskState
from runner.config import RunConfig
from runner.device_stage import shares
from runner.job_record import OF_A_NODE, purpose_of

STATES = ("sending", "sent", "done", "failed")
ENGINE_WORK = ("train", "measure", "aggregate", "final")
DEVICE_WORK = ("fine-tune", "device")
_Job = Mapping[str, Any]


@dataclass(frozen=True)
class _Device:
    """Where jobs of a kind of work go.

    Attributes:
        name: Of the device; None where it was read from a file, and the name is the file's.
        local: Whether the local testing mode runs them.
        options: In force.
        sha256: Of its calibration, None for one that came with qrun.
    """

    name: str | None
    local: bool
    options: RuntimeOptions
    sha256: str | None

    @classmethod
    def of(cls, name: str, options: RuntimeOptions, sha256: str | None) -> _Device:
        return cls(None if name == FILE else plain_name(name), not is_concrete(name), options, sha256)


def _devices(config: RunConfig) -> dict[str, _Device]:
    """Work -> the device of its jobs; what is not in it has none."""
    runtime = config.runtime
    if runtime is None:
        return {}
    if config.engine == "runtime":
        device = _Device.of(config.backend, runtime.options(config.shots or 0), config.snapshot_sha256)
        return dict.fromkeys(ENGINE_WORK, device)
    if runtime.run_on is None:
        return {}
    return dict.fromkeys(DEVICE_WORK, _Device.of(runtime.run_on, runtime.options(runtime.shots), runtime.run_on_sha256))


def check_devices(
    findings: Findings, config: RunConfig, state: TaskState, result: Mapping[str, Any], kept: KeptJobs
) -> None:
    """Everything about jobs and devices that follows from the config and the chain."""
    if config.runtime is not None:
        findings.test(
            "jobs" in result, "jobs/told", "the result of a run with jobs on devices tells of them",
            "it is of a format that knew no jobs", "result.json",
        )  # fmt: skip
    if "jobs" not in result or not kept.whole:
        return  # of an earlier format, or told as damaged already
    devices = _devices(config)
    jobs, sessions = kept.jobs or [], kept.sessions or []
    _check_places(findings, devices, state, result, jobs)
    _check_sessions(findings, devices, jobs, sessions)
    for number, round_ in sorted(state.rounds.items()):
        for node, submission in sorted(round_.submissions.items()):
            work = (number, round_.base, node)
            own = [job for job in jobs if (job["round"], job["base"], job["node"]) == work and job["state"] == "done"]
            _check_steps(findings, config, number, node, own)
            if config.runtime is not None and (config.engine == "runtime" or config.shots is None):
                _check_circuits(findings, submission, own)
    _check_backend(findings, config, devices.get("train"), result)
    _check_device_run(findings, config, state, result, jobs)


def _check_places(
    findings: Findings,
    devices: Mapping[str, _Device],
    state: TaskState,
    result: Mapping[str, Any],
    jobs: Sequence[_Job],
) -> None:
    """Every job is of this run: of work that it has, on the device that the config names for it, once."""
    done = [job["key"] for job in jobs if job["state"] == "done"]
    findings.test(
        len(set(done)) == len(done), "jobs/once", "no two jobs gave results for the same", "two did", "result.json"
    )
    for job in jobs:
        device = devices.get(job["purpose"])
        wrong = ""
        if device is None:
            wrong = f"the run has no work {job['purpose'][:20]!r} for a device"
        elif not (0 <= job["round"] <= state.spec.max_rounds and -1 <= job["node"] < len(state.accounts)):
            wrong = "the run has no such round, or no such node"
        else:
            named = device.name or _name(result, "device_run" if job["purpose"] in DEVICE_WORK else "backend")
            wanted = {"backend": named, "local": device.local, "shots": device.options.shots}
            told = {"backend": plain_name(job["backend"]), "local": job["local"], "shots": job["shots"]}
            wrong = "; ".join(f"{k}: it says {told[k]}, the config {v}" for k, v in wanted.items() if told[k] != v)
            if not wrong and (job["state"] not in STATES or job["circuits"] < 1):
                wrong = "its state or number of circuits is none that a job has"
        findings.test(
            not wrong, f"jobs/{job['tag']}/place", f"job {job['job_id'] or job['tag']}: device, shots and work are the "
            "run's", wrong, "result.json",
        )  # fmt: skip


def _check_sessions(
    findings: Findings, devices: Mapping[str, _Device], jobs: Sequence[_Job], sessions: Sequence[_Job]
) -> None:
    """Whatever a session was charged is counted once: none is left out, none told twice."""
    ids = [s["session_id"] for s in sessions]
    named = {d.name for d in devices.values() if not d.local}
    wrong = ""
    if len(set(ids)) != len(ids):
        wrong = "one is told twice"
    for session in sessions:
        if session["kind"] not in ("session", "batch") or plain_name(str(session["backend"])) not in named:
            wrong = f"{session['session_id'][:60]} is none of a device of this run"
    for job in jobs:
        inside = job["session_id"] is not None
        if inside and (job["local"] or job["session_id"] not in ids):
            wrong = f"job {job['tag'][:60]} names one that is not told of"
        elif not job["local"] and job["state"] == "done" and inside != (job["mode"] in ("session", "batch")):
            wrong = (
                f"job {job['tag'][:60]} says mode {job['mode'][:20]!r}, and {'names one' if inside else 'names none'}"
            )
    findings.test(not wrong, "jobs/sessions", "sessions are those of the jobs, each told once", wrong, "result.json")


def _check_steps(findings: Findings, config: RunConfig, number: int, node: int, own: Sequence[_Job]) -> None:
    """As many steps of training as the config has, each with its job."""
    wanted: dict[str, int] = {}
    if config.engine == "runtime":
        wanted["train"] = config.model.epochs * config.model.steps_per_epoch
    elif config.runtime is not None and number == config.rounds:
        wanted["fine-tune"] = config.runtime.fine_tune
    for purpose, count in wanted.items():
        keys = [purpose_of(j["key"]) for j in own if j["purpose"] == purpose]
        steps = {key.step for key in keys if key is not None}
        missing = set(range(count)) - steps
        findings.test(
            steps == set(range(count)), f"jobs/{number}/{node}/{purpose}", f"round {number}, node {node}: there is a "
            f"job for each step of {purpose}, and no other", f"the config has {count} steps; jobs are of {len(steps)}"
            + (f", without step {min(missing)}" if missing else ""),
        )  # fmt: skip


def _check_circuits(findings: Findings, submission: Submission, own: Sequence[_Job]) -> None:
    """Circuits and shots that the node stated are those of its jobs: nothing else of it samples."""
    number, node, stated = submission.round, submission.node, submission.resources
    done = [job for job in own if job["purpose"] in OF_A_NODE]
    made = {
        "circuits": float(sum(job["circuits"] for job in done)),
        "shots": float(sum(job["circuits"] * job["shots"] for job in done)),
    }
    told = {name: float(stated.get(name, 0.0)) for name in made}
    findings.test(
        told == made, f"jobs/{number}/{node}/circuits", f"round {number}, node {node}: the circuits and shots that it "
        "stated are those of its jobs", f"it stated {told}; its jobs have {made}",
    )  # fmt: skip


def _check_backend(findings: Findings, config: RunConfig, device: _Device | None, result: Mapping[str, Any]) -> None:
    told = _mapping(result.get("backend"))
    wanted: dict[str, Any] = {
        "engine": config.engine,
        "shots": config.shots,
        "idle_noise": config.idle_noise,
        "snapshot_sha256": config.snapshot_sha256,
    }
    if device is not None:
        wanted |= {"local": device.local, "options": asdict(device.options.in_force()), "ignored": _ignored(device)}
    _compare(findings, "backend", told, wanted, config.backend)


def _check_device_run(
    findings: Findings, config: RunConfig, state: TaskState, result: Mapping[str, Any], jobs: Sequence[_Job]
) -> None:
    told, device, runtime = result.get("device_run"), _devices(config).get("device"), config.runtime
    there = findings.test(
        isinstance(told, dict) == (device is not None), "jobs/device/there", "the final model was run on a device "
        "where the config asks for it, and nowhere else", "nothing is told of it" if device else "it is told of",
    )  # fmt: skip
    if not there or device is None or runtime is None or not isinstance(told, dict):
        return
    wanted = {
        "engine": "local" if device.local else "service",
        "shots": device.options.shots,
        "options": asdict(device.options.in_force()),
        "ignored": _ignored(device),
        "snapshot_sha256": device.sha256,
    }
    _compare(findings, "device_run", told, wanted, runtime.run_on or "")
    entries = told.get("nodes")
    entries = [e for e in entries if isinstance(e, dict)] if isinstance(entries, list) else []
    here = [node for node in sorted(state.registered) if not state.standings[node].excluded]
    made = [(entry.get("id"), entry.get("samples")) for entry in entries]
    due = sorted(shares(runtime.samples, here).items()) if here else []
    findings.test(
        made == due, "jobs/device/shares", "device: the nodes that are not excluded share the config's samples",
        f"it says {made}; it is {due}"[:300],
    )  # fmt: skip
    base = _mapping(result.get("final")).get("round")
    for entry in entries:
        work = ("device", base, 0, entry.get("id"))
        own = [j for j in jobs if (j["purpose"], j["round"], j["base"], j["node"]) == work and j["state"] == "done"]
        named, circuits = entry.get("jobs"), sum(j["circuits"] for j in own)
        whole = isinstance(named, list) and sorted(map(str, named)) == sorted(j["tag"] for j in own)
        claim = f"device, node {entry.get('id')}: all its jobs are named, and have a circuit a sample"
        samples, fits = entry.get("samples"), circuits == entry.get("samples")
        if config.mitigation is not None and config.mitigation.apply != "training":
            # How many more is seen where the circuits are made again (`check_asked`).
            claim += " at least, and no more than the mitigation may take"
            fits = isinstance(samples, int) and samples <= circuits <= samples * config.mitigation.budget
        findings.test(
            whole and fits,
            f"jobs/device/{entry.get('id')}/all",
            claim,
            f"it has {len(own)} jobs of {circuits} circuits",
        )
    metrics, twin = _mapping(told.get("metrics")), _mapping(result.get("metrics"))
    same = metrics.keys() == twin.keys() and all(close(_mapping(metrics[p]).get("twin"), twin[p]) for p in twin)
    findings.test(
        same, "jobs/device/twin", "device: the twin's metrics are those of the final model", "they are others"
    )


def _compare(findings: Findings, where: str, told: Mapping[str, Any], wanted: Mapping[str, Any], name: str) -> None:
    """What a device is told to be, against the config."""
    wrong = [
        f"{k}: it says {str(told.get(k))[:100]}, the config has {v}" for k, v in wanted.items() if told.get(k) != v
    ]
    said = _name({where: told}, where)
    if name != FILE and said != plain_name(name):
        wrong.append(f"the device: it says {said[:60]}, the config has {name}")
    if wanted["snapshot_sha256"] is not None and told.get("snapshot_cid") is None:
        wrong.append("its calibration is named nowhere")
    findings.test(
        not wrong, f"jobs/{where}/config", f"{where}: device, calibration, engine, shots and options are the config's",
        "; ".join(wrong), "result.json",
    )  # fmt: skip


def _ignored(device: _Device) -> list[str]:
    return ignored(device.options) if device.local else []


def _name(result: Mapping[str, Any], where: str) -> str:
    """The name of the device that the result tells, in the service's spelling."""
    told = _mapping(result.get(where))
    return plain_name(str(told.get("name") or told.get("backend") or ""))


def check_asked(
    findings: Findings, jobs: Iterable[_Job], asked: Mapping[str, int], works: Iterable[tuple[str, int, int, int]]
) -> None:
    """That jobs of work that was replayed are those that it asks for, with as many circuits.

    Args:
        findings: Where statements are noted.
        jobs: The result's.
        asked: Digest of a request -> parameter sets, as the replay made them.
        works: (purpose, round, base, node) that were replayed.
    """
    replayed = set(works)
    for job in jobs:
        if job["state"] == "done" and (job["purpose"], job["round"], job["base"], job["node"]) in replayed:
            rows = asked.get(job["request"])
            reason = f"it says {job['circuits']} circuits; it has {rows}"
            findings.test(
                rows == job["circuits"], f"jobs/{job['tag']}/request", f"job {job['job_id'] or job['tag']} asked for "
                "what the published model, the seed and the compiled circuit make",
                "what they make is another request" if rows is None else reason,
            )  # fmt: skip


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
