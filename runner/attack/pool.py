"""Cells played by worker processes: each takes all cells of one federation, for they have much in common."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from multiprocessing import get_context
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, Thread

from circuits.errors import QrunError
from runner.attack import asynchronous
from runner.attack.attacks import ATTACKS
from runner.attack.cells import ALONE, Cell, Line
from runner.attack.simulate import simulate
from runner.attack.world import World
from runner.config import RunConfig


@dataclass(frozen=True)
class Job:
    """What all cells are of.

    Attributes:
        config: Without seed and partition, which are the cell's.
        bad: Hostile nodes: the last ones.
        data: Folder of the data set's files.
    """

    config: RunConfig
    bad: int
    data: Path | None

    @property
    def hostile(self) -> frozenset[int]:
        """Their indices."""
        return frozenset(range(self.config.nodes - self.bad, self.config.nodes))


@lru_cache(maxsize=1)
def _world(job: Job, partition: str, seed: int) -> World:
    data = job.config.data.model_copy(update={"partition": partition})
    return World.build(job.config.model_copy(update={"seed": seed, "data": data}), job.data)


def play(job: Job, cell: Cell) -> Line:
    """One cell."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    begin = time.perf_counter()
    try:
        world = _world(job, cell.partition, cell.seed)
        alone = cell.attack == ALONE
        attack = ATTACKS["none" if alone else cell.attack]
        played = asynchronous.simulate if job.config.federation.asynchronous else simulate
        outcome = played(world, attack, job.hostile, cell.aggregation, alone=alone)
    finally:
        torch.set_num_threads(threads)
    hostile = [] if alone or attack.honest_throughout else sorted(job.hostile)
    return Line(
        cell,
        tuple(outcome.flagged.get(i) for i in hostile),
        tuple(outcome.excluded.get(i) for i in hostile),
        outcome.honest_flagged,
        outcome.honest_excluded,
        outcome.votes,
        outcome.auroc,
        round(time.perf_counter() - begin, 2),
        outcome.slow,
    )


def play_all(job: Job, cells: Sequence[Cell], jobs: int, done: Callable[[Line], None]) -> None:
    """All cells, by so many processes; `done` is called with each as soon as it is there, in this thread.

    Raises:
        QrunError: a worker was killed. What is done is done.
    """
    groups = [list(group) for _, group in groupby(cells, key=lambda c: (c.partition, c.seed))]
    if jobs == 1 or len(groups) <= 1:
        for cell in cells:
            done(play(job, cell))
        return
    for line in _in_workers(job, groups, min(jobs, len(groups))):
        done(line)


def _in_workers(job: Job, groups: list[list[Cell]], jobs: int) -> Iterator[Line]:
    """A thread a worker gives it a group at a time, cell by cell; what comes back is handed over here."""
    waiting: SimpleQueue[list[Cell]] = SimpleQueue()
    for group in groups:
        waiting.put(group)
    found: SimpleQueue[Line | BaseException | None] = SimpleQueue()
    stop = Event()

    def feed(pool: ProcessPoolExecutor) -> None:
        try:
            while not stop.is_set():
                for cell in waiting.get_nowait():
                    if stop.is_set():
                        break
                    found.put(pool.submit(play, job, cell).result())
        except Empty:
            found.put(None)
        except BaseException as error:
            found.put(error)

    # The workers' numbers of threads are read when they start.
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    with ExitStack() as stack:
        stack.callback(stop.set)
        left = 0
        for _ in range(jobs):
            pool = stack.enter_context(ProcessPoolExecutor(1, mp_context=get_context("spawn")))
            stack.callback(stop.set)
            Thread(target=feed, args=(pool,), daemon=True).start()
            left += 1
        while left:
            item = found.get()
            if item is None:
                left -= 1
            elif isinstance(item, BrokenProcessPool):
                raise QrunError(
                    "a worker was killed, for want of memory perhaps.", "Start the command again: it goes on."
                ) from item
            elif isinstance(item, BaseException):
                raise item
            else:
                yield item
