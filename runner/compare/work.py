"""The runs of a comparison: found where they were made before, gone on with where they stopped, else played; then their
models are evaluated. By worker processes of this machine, or by a Dask cluster (`runner.compare.cluster`).
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from circuits.errors import QrunError
from contracts.errors import LedgerError
from runner.compare.evaluation import Evaluation, recall
from runner.compare.grid import Job
from runner.config import RunConfig
from runner.places import Places
from runner.progress import RoundResult
from runner.run_folder import read_result
from runner.store import RunIndex, RunInfo

WAITS = 2.0
"""Seconds between two looks at a run that another process plays."""

Data = Mapping[str, Any]
"""{"source", "sha256"} of the data that all runs have to be on."""


@dataclass(frozen=True)
class Done:
    """A run that is finished, its model evaluated.

    Attributes:
        run: Its name.
        path: Its folder.
        digest: Of its config, hex.
        played: Whether anything of it was played now.
        seconds: That this took.
        notices: (title, text) that the run told.
    """

    run: str
    path: Path
    digest: str
    played: bool
    seconds: float
    notices: tuple[tuple[str, str], ...] = ()


class Quiet:
    """Keeps what the user has to know, and shows nothing."""

    def __init__(self) -> None:
        self.notices: list[tuple[str, str]] = []

    def notice(self, title: str, text: str) -> None:
        """Keep it."""
        self.notices.append((title, text))

    def stage(self, text: str) -> None:
        """Ignore."""

    def begin(self, steps: int) -> None:
        """Ignore."""

    def step(self, round_: int, node: int, epoch: int, generator_loss: float, discriminator_loss: float) -> None:
        """Ignore."""

    def skip(self, steps: int) -> None:
        """Ignore."""

    def round_done(self, result: RoundResult) -> None:
        """Ignore."""


def known_runs() -> dict[str, list[RunInfo]]:
    """All runs of this user, by the digest of their config, newest last."""
    index = RunIndex()
    try:
        out: dict[str, list[RunInfo]] = {}
        for info in index.list():
            out.setdefault(str(index.manifest(info.run).get("config_digest")), []).append(info)
        return out
    finally:
        index.close()


def finished(infos: Sequence[RunInfo], data: Data) -> tuple[RunInfo, dict[str, Any]] | None:
    """The newest finished run on these data, with its result."""
    for info in reversed(infos):
        if info.state == "finished":
            try:
                result = read_result(info.path)
            except QrunError:
                continue
            if (result["dataset"]["source"], result["dataset"]["sha256"]) == (data["source"], data["sha256"]):
                return info, result
    return None


def is_done(job: Job, infos: Sequence[RunInfo], data: Data) -> Done | None:
    """The job's run, where it is finished and nothing is left to evaluate."""
    found = finished(infos, data)
    if found is None:
        return None
    info, result = found
    if any(recall(info.path, result, profile) is None for profile in job.profiles):
        return None
    return Done(info.run, info.path, job.config.digest.hex(), False, 0.0)


def do(job: Job, folder: Path | None, data: Data) -> Done:
    """A job, whole.

    Args:
        job: What to do.
        folder: Of the data set's files.
        data: What they have to be.

    Raises:
        QrunError: The run cannot be played, or the data are others.
    """
    begin, quiet = time.perf_counter(), Quiet()
    info, played = _made(job.config, folder, data, quiet)
    evaluate_missing(info, job.profiles, folder)
    seconds = round(time.perf_counter() - begin, 2)
    return Done(info.run, info.path, job.config.digest.hex(), played, seconds, tuple(quiet.notices))


def evaluate_missing(info: RunInfo, profiles: Sequence[RunConfig], folder: Path | None) -> list[Evaluation]:
    """A finished run's model under all profiles; the data are read where something is missing alone."""
    result = read_result(info.path)
    known = [recall(info.path, result, profile) for profile in profiles]
    if all(one is not None for one in known):
        return [one for one in known if one is not None]
    from runner.compare.evaluate import evaluate, open_run

    return evaluate(open_run(info.path, folder), profiles)


def _made(config: RunConfig, folder: Path | None, data: Data, quiet: Quiet) -> tuple[RunInfo, bool]:
    """The finished run of a config, and whether anything was played."""
    from runner.run import go_on, start

    while True:
        infos = known_runs().get(config.digest.hex(), [])
        found = finished(infos, data)
        if found is not None:
            return found[0], False
        if not any(info.state == "running" for info in infos):
            break
        time.sleep(WAITS)  # another comparison plays it
    places = Places(folder)
    for info in reversed(infos):
        if info.state == "interrupted":
            try:
                outcome = go_on(info.run, places=places, reporter=quiet)
            except (QrunError, LedgerError):
                continue  # begun on other data, or by another version: it stays as it is
            return _checked(RunInfo(outcome.run, outcome.path, info.created, "finished"), outcome.result, data), True
    outcome = start(config, places, reporter=quiet)
    return _checked(RunInfo(outcome.run, outcome.path, time.time(), "finished"), outcome.result, data), True


def _checked(info: RunInfo, result: Mapping[str, Any], data: Data) -> RunInfo:
    if (result["dataset"]["source"], result["dataset"]["sha256"]) != (data["source"], data["sha256"]):
        raise QrunError(
            f"run {info.run} found other data than the comparison is of.", "Give the folder of the files with --data."
        )
    return info


def do_all(jobs: Sequence[Job], workers: int, folder: Path | None, data: Data) -> Iterator[Done]:
    """All jobs, by so many processes, as they come.

    Raises:
        QrunError: A worker was killed, or a job failed: what is done stays done.
    """
    if workers == 1 or len(jobs) <= 1:
        for job in jobs:
            yield do(job, folder, data)
        return
    # The workers' numbers of threads are read when they start.
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    count = min(workers, len(jobs))
    with ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_interruptible) as pool:
        waiting: set[Future[Done]] = {pool.submit(do, job, folder, data) for job in jobs}
        try:
            while waiting:
                ready, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in ready:
                    yield future.result()
        except BrokenProcessPool as error:
            raise QrunError(
                "a worker was killed, for want of memory perhaps.", "Start the command again: it goes on."
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def evaluate_in(
    runs: Sequence[tuple[RunInfo, Job]], workers: int, folder: Path | None
) -> Iterator[tuple[str, Evaluation | None, str]]:
    """(run, its evaluation under the job's first profile, why there is none) of finished runs, as they come."""
    if workers == 1 or len(runs) <= 1:
        for info, job in runs:
            yield _try(info, job, folder)
        return
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    count = min(workers, len(runs))
    with ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_interruptible) as pool:
        waiting = {pool.submit(_try, info, job, folder) for info, job in runs}
        try:
            while waiting:
                ready, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in ready:
                    yield future.result()
        except BrokenProcessPool as error:
            raise QrunError(
                "a worker was killed, for want of memory perhaps.", "Start the command again: it goes on."
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _try(info: RunInfo, job: Job, folder: Path | None) -> tuple[str, Evaluation | None, str]:
    try:
        return info.run, evaluate_missing(info, job.profiles, folder)[0], ""
    except QrunError as error:
        return info.run, None, f"Run {info.run} was not evaluated: {error}"


def _interruptible() -> None:
    """A worker ends with Ctrl-C at once: it would play on else, and the command wait for it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


Told = Callable[[int, int, str], None]
"""Told of (done, in all, what came last)."""
