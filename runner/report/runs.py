"""`qrun report RUN...`: finished runs, found by name or folder, evaluated where that is still to be done."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from circuits.errors import QrunError, UsageError
from runner.compare.evaluation import Evaluation, recall
from runner.compare.grid import Job
from runner.compare.work import evaluate_in
from runner.report.material import Material, check_same_data, from_runs
from runner.run_folder import read_manifest, read_result
from runner.store import RunIndex, RunInfo, home, state_of

Found = tuple[RunInfo, dict[str, Any]]


def find_runs(names: Sequence[str]) -> tuple[list[Found], list[str]]:
    """The finished ones among runs that are named, and what is to be said of the others.

    Args:
        names: Names of runs, beginnings of them, or folders.

    Raises:
        UsageError: There is no such run.
        QrunError: None of them is finished.
    """
    index = RunIndex()
    try:
        infos: dict[Path, RunInfo] = {}
        for name in names:
            folder = Path(name)
            info = _of_folder(folder) if folder.is_dir() else index.find(name)
            infos.setdefault(info.path.resolve(), info)
    finally:
        index.close()
    found: list[Found] = []
    notices = []
    for info in infos.values():
        if info.state == "finished":
            found.append((info, read_result(info.path)))
        else:
            notices.append(unfinished(info))
    if not found:
        raise QrunError(*notices[0].split("; ", 1))
    return found, notices


def _of_folder(folder: Path) -> RunInfo:
    """A run's folder that was copied here, perhaps."""
    _, manifest = read_manifest(folder)
    return RunInfo(str(manifest.get("run", folder.name)), folder.absolute(), 0.0, state_of(folder))


def unfinished(info: RunInfo) -> str:
    """Why a run is left out, and how it ends."""
    if info.state == "missing":
        return f"Run {info.run} is left out: its folder is gone; `qrun runs rm {info.run}`."
    return f"Run {info.run} is left out: it is {info.state}, not finished; `qrun runs resume {info.run}`."


def material_of(
    found: Sequence[Found],
    notices: Sequence[str],
    *,
    data: Path | None,
    workers: int,
    evaluates: bool,
    progress: Callable[[int, int, str], None],
) -> Material:
    """What a report on finished runs is made from.

    Args:
        found: From `find_runs`.
        notices: The same.
        data: Folder of the data set's files, for what is not evaluated yet.
        workers: Processes.
        evaluates: Whether to do that.
        progress: Told of (runs done, in all, what came last).

    Raises:
        QrunError: The runs are on different data.
    """
    check_same_data([result for _, result in found])
    said = list(notices)
    missing = []
    known: dict[str, Evaluation] = {}
    for info, result in found:
        one = recall(info.path, result, read_manifest(info.path)[0]) if _can(result) else None
        if one is not None:
            known[result["run"]] = one
        elif _can(result):
            missing.append((info, Job(read_manifest(info.path)[0], (read_manifest(info.path)[0],))))
    if missing and evaluates:
        for done, (name, evaluation, why) in enumerate(evaluate_in(missing, workers, data), start=1):
            progress(done, len(missing), f"{name} evaluated" if evaluation is not None else why)
            if evaluation is not None:
                known[name] = evaluation
            elif why not in said:
                said.append(why)
    return from_runs([(result, info.path) for info, result in found], known, said)


def _can(result: dict[str, Any]) -> bool:
    """Whether a run's samples can be made again here: what a device gave cannot."""
    return bool(result["config"]["engine"] != "runtime")


def default_folder(found: Sequence[Found]) -> Path:
    """Where a report goes unless told."""
    if len(found) == 1:
        return home() / "reports" / str(found[0][1]["run"])
    names = "\n".join(sorted(str(result["run"]) for _, result in found))
    return home() / "reports" / f"runs-{hashlib.sha256(names.encode()).hexdigest()[:8]}"


def check_jobs(jobs: int | None) -> int:
    """Worker processes: one a core unless told.

    Raises:
        UsageError: Fewer than one.
    """
    import os

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if jobs is not None and jobs < 1:
        raise UsageError(f"--jobs {jobs}: at least 1.")
    return cores if jobs is None else jobs
