"""What a peer needs once and in bulk, in a process that takes its memory with it: the compiler, and the data set.

A peer trains for hours with some hundred megabytes; the transpiler, the devices' calibrations and the whole data set,
of which it keeps one share, would stay in its memory besides.
"""

from __future__ import annotations

import ctypes
import gc
import linecache
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

from circuits.errors import QrunError

if TYPE_CHECKING:
    from backends.target import Target
    from experiments.base import NodeShare, Study
    from runner.config import RunConfig
    from runner.prepare import Prepared
    from runner.progress import Reporter, RoundResult


@dataclass(frozen=True)
class Ready:
    """What the other process made.

    Attributes:
        prepared: Target and compiled generator.
        study: The data, without the nodes' shares and the training file.
        share: This node's.
        notices: What the user has to know.
    """

    prepared: Prepared
    study: Study
    share: NodeShare
    notices: tuple[tuple[str, str], ...]


@dataclass
class _Told:
    """A Reporter that keeps notices."""

    notices: list[tuple[str, str]] = field(default_factory=list)

    def notice(self, title: str, text: str) -> None:
        self.notices.append((title, text))

    def stage(self, text: str) -> None: ...

    def begin(self, steps: int) -> None: ...

    def step(self, round_: int, node: int, epoch: int, generator_loss: float, discriminator_loss: float) -> None: ...

    def skip(self, steps: int) -> None: ...

    def round_done(self, result: RoundResult) -> None: ...


def get_ready(config: RunConfig, data: Path | None, node: int, reporter: Reporter) -> Ready:
    """Compile the generator and read the data, elsewhere.

    Args:
        config: The task's.
        data: Folder of the data set's files; None to look for them.
        node: Whose share is kept.
        reporter: Told of what has to be known.

    Raises:
        QrunError: as `prepare` and the experiment's `load`.
    """
    reporter.stage(f"compiling {config.model.qubits} qubits for {config.backend}, and reading the data")
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            made = pool.submit(_work, config, data, node).result()
        except BrokenProcessPool:
            raise QrunError(
                "the process that compiles and reads the data was killed.", "Is there enough memory (1 GB)? Try again."
            ) from None
    if isinstance(made, _Failed):
        raise made.error()
    for title, text in made.notices:
        reporter.notice(title, text)
    return made


_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
"""Of glibc's malloc.h."""
_LARGE = 1 << 18
"""Bytes: above a model's vectors, of which a grader makes thousands; each would be mapped anew."""


def keep_little() -> None:
    """Let glibc hand back what is large as soon as it is free, and keep one heap for all threads: before others start.

    Else every thread that ever graded has a heap of its own, and the largest array there was raises what is kept.
    """
    mallopt = _of_glibc("mallopt")
    if mallopt is not None:
        mallopt(_ARENA_MAX, 1)
        mallopt(_MMAP_THRESHOLD, _LARGE)
        mallopt(_TRIM_THRESHOLD, _LARGE)


def return_memory() -> None:
    """Give the operating system what is free: glibc keeps freed pages for later, and a peer runs for hours."""
    linecache.clearcache()
    gc.collect()
    trim()


def trim() -> None:
    """The same without looking for what is free: a few milliseconds."""
    malloc_trim = _of_glibc("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(0)


def _of_glibc(name: str) -> Callable[..., int] | None:
    """A function of glibc; None with another C library."""
    if sys.platform != "linux":
        return None
    return getattr(ctypes.CDLL(None), name, None)


@dataclass(frozen=True)
class _Failed:
    """An error on its way between processes: what it says, and how the command ends."""

    message: str
    hint: str
    usage: bool

    def error(self) -> QrunError:
        from circuits.errors import UsageError

        return (UsageError if self.usage else QrunError)(self.message, self.hint)


def _work(config: RunConfig, data: Path | None, node: int) -> Ready | _Failed:
    """In the other process."""
    import torch

    from circuits.errors import UsageError
    from experiments.base import find
    from runner.prepare import prepare
    from runner.seeds import derive

    torch.set_num_threads(1)
    told, said = _Told(), [""]
    try:
        prepared = prepare(config, told)
        study = find(config.experiment).load(
            config.data,
            nodes=config.nodes,
            seeds=lambda purpose, *parts: derive(config.seed, purpose, *parts),
            folder=data,
            notify=said.append,
        )
    except QrunError as error:
        return _Failed(error.message, error.hint or "", isinstance(error, UsageError))
    if study.dataset.source != "official":
        told.notice("Stand-in data", f"{said[-1]} Figures stand in for the real ones.")
    share = study.shares[node]
    nothing = study.dataset.train.take(study.dataset.train.line[:0])
    dataset = replace(study.dataset, train=nothing, test=None)
    return Ready(
        replace(prepared, target=_alone(prepared.target)),
        replace(study, dataset=dataset, shares=()),
        share,
        tuple(told.notices),
    )


def _alone(target: Target) -> Target:
    """The target without the Runtime's own classes, which take a package of 70 MB to be read back."""
    from backends.target import DeviceBackend
    from circuits.targets import copy_target

    if target.backend is None:
        return target
    return replace(target, backend=DeviceBackend(target.backend.name, copy_target(target.backend.target)))
