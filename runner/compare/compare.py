"""A comparison from what is asked to what came of it: nothing that is there is made again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circuits.errors import QrunError
from runner.compare.evaluation import Evaluation, recall
from runner.compare.forecast import Forecast, forecast
from runner.compare.grid import Cell, Grid
from runner.compare.work import Done, Told, do_all, finished, is_done, known_runs
from runner.run_folder import read_result


@dataclass(frozen=True)
class Compared:
    """All figures of a comparison.

    Attributes:
        grid: What was asked.
        results: Digest of a run's config -> its result.
        paths: The same -> its folder.
        evaluations: One a cell, in the grid's order.
        dataset: What all runs are on.
        seconds: That were played and evaluated now, all processes together.
    """

    grid: Grid
    results: Mapping[str, dict[str, Any]]
    paths: Mapping[str, Path]
    evaluations: list[tuple[Cell, Evaluation]]
    dataset: dict[str, Any]
    seconds: float


def compare(
    grid: Grid,
    *,
    data: Path | None,
    workers: int,
    cluster: str | None = None,
    notify: Callable[[str, str], None],
    foresee: Callable[[Forecast], None],
    progress: Told,
) -> Compared:
    """Play and evaluate what is missing, and gather all figures.

    Args:
        grid: From `grid_of`.
        data: Folder of the data set's files.
        workers: Processes on this machine.
        cluster: Address of a Dask scheduler that plays the runs instead.
        notify: Told (title, text) of what the user should know.
        foresee: Told what is to be done and how long it will take, before it begins.
        progress: Told of (runs done, in all, what came last).

    Raises:
        QrunError: A run failed, or a worker was killed: what is done stays done.
    """
    from runner.compare.evaluate import load_study

    at_once = workers
    if cluster is not None:  # first: a wrong address is told at once
        from runner.compare.cluster import workers_of

        at_once = workers_of(cluster)
    jobs = grid.jobs()
    progress(0, len(jobs), "reading the data")
    study = load_study(jobs[0].config, data, lambda text: notify("Data", text))
    dataset = {"source": study.dataset.source, "sha256": dict(study.dataset.sha256)}
    if study.dataset.source != "official":
        notify("Stand-in data", "Figures stand in for the real ones, and the report says so. Files: --data DIR.")
    known = known_runs()
    done: dict[str, Done] = {}
    left: dict[str, int] = {}
    for job in jobs:
        digest = job.config.digest.hex()
        infos = known.get(digest, [])
        found = is_done(job, infos, dataset)
        if found is not None:
            done[digest] = found
        there = finished(infos, dataset)
        if there is not None:
            left[digest] = sum(recall(there[0].path, there[1], profile) is None for profile in job.profiles)
    missing = [job for job in jobs if job.config.digest.hex() not in done]
    progress(len(done), len(jobs), "trying a few steps" if missing else "")
    foresee(forecast(missing, left, known, workers=at_once, reused=len(left)))
    # Where many profiles hang on a model, it is begun with: the last runs should be short ones.
    missing.sort(key=lambda job: -len(job.profiles))
    told: set[tuple[str, str]] = set()
    seconds = 0.0
    if cluster is not None:
        from runner.compare.cluster import do_all_on

        found_ones = do_all_on(cluster, missing, set(left), data, dataset)
    else:
        found_ones = do_all(missing, workers, data, dataset)
    for one in found_ones:
        done[one.digest] = one
        seconds += one.seconds
        for notice in one.notices:
            if notice not in told and notice[0] not in ("Stand-in data", "Mitigation"):
                told.add(notice)
                notify(*notice)
        what = "played" if one.played else "evaluated"
        progress(len(done), len(jobs), f"{one.run} {what} in {one.seconds:.0f} s")
    results = {digest: read_result(one.path) for digest, one in done.items()}
    return Compared(
        grid,
        results,
        {digest: one.path for digest, one in done.items()},
        [(cell, _evaluation(cell, done, results)) for cell in grid.cells()],
        dataset,
        seconds,
    )


def _evaluation(cell: Cell, done: Mapping[str, Done], results: Mapping[str, dict[str, Any]]) -> Evaluation:
    digest = cell.run.digest.hex()
    found = recall(done[digest].path, results[digest], cell.profile)
    if found is None:
        raise QrunError(f"the evaluations of run {done[digest].run} are gone.", "Start the command again: it goes on.")
    return found
