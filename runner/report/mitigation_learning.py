"""What mitigation does to learning: the same federations with and without it, at training and at evaluation.

Each federation is played without chain and store (`runner/attack/simulate.py`, all nodes honest). Its final model is
scored as a run scores it. Training without mitigation is the same with and without mitigation at evaluation, and so is
training with it: each is played once and scored twice. Beside them stands the same federation on the ideal target: what
mitigation that left no error would come to.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from backends.catalog import get_target
from backends.mitigation.make import Mitigation
from circuits.errors import QrunError, UsageError
from experiments.base import find
from experiments.models.qgan import QGAN
from experiments.models.score import Calibration
from runner.attack.attacks import ATTACKS
from runner.attack.simulate import simulate
from runner.attack.world import World
from runner.config import RunConfig, read_toml
from runner.mitigated import is_exact
from runner.options import config_from
from runner.row_file import RowFile
from runner.seeds import derive
from runner.update import Blocks, dequantise

FORMAT = "qrun-mitigation-learning/1"
BACKENDS = ("fake_kyiv", "fake_torino", "fake_fez")
STACK = "readout+zne"
SEEDS = (0, 1, 2, 3, 4)

ARMS = ("none", "training", "evaluation", "both")
"""Where mitigation is applied."""

IDEAL = "ideal"
"""The target without errors: there is one arm, none."""

METRICS = ("holdout_auroc", "holdout_f1", "test_auroc", "test_f1")
"""Of the hold-out part of the training file, and of the test file; F1 at the label-free threshold."""


@dataclass(frozen=True)
class Line:
    """One federation's final model, scored.

    Attributes:
        backend, seed: Which federation.
        arm: Where it is mitigated.
        holdout_auroc, holdout_f1, test_auroc, test_f1: See METRICS; those of the test None where it is not scored.
        seconds: Training and scoring; of what two arms share, each says all.
    """

    backend: str
    seed: int
    arm: str
    holdout_auroc: float
    holdout_f1: float
    test_auroc: float | None
    test_f1: float | None
    seconds: float


@dataclass(frozen=True)
class Asked:
    """What is played; every name checked.

    Attributes:
        configs: With the mitigation, one a device; the seed is each federation's own.
        seeds: Each with each device is a federation.
        jobs: Worker processes.
    """

    configs: tuple[RunConfig, ...]
    seeds: tuple[int, ...]
    jobs: int

    @property
    def federations(self) -> list[RunConfig]:
        """One config each, the first seed on all devices and on the ideal target first."""
        without = {"backend": IDEAL, "snapshot_sha256": None, "idle_noise": False, "mitigation": None}
        everywhere = *self.configs, self.configs[0].model_copy(update=without)
        return [config.model_copy(update={"seed": seed}) for seed in self.seeds for config in everywhere]


def asked(
    experiment: str,
    options: dict[str, Any],
    *,
    file: Path | None,
    stack: str | None,
    backends: Sequence[str] = (),
    seeds: Sequence[int] = (),
    jobs: int,
) -> Asked:
    """Check what is asked for.

    Raises:
        UsageError: Unknown names, impossible numbers; in one line.
    """
    if stack is not None and stack.strip().lower() in ("none", "auto"):
        raise UsageError(
            f"--mitigation {stack}: the table sets a stack against none.", f"Name techniques, for example {STACK}."
        )
    for seed in seeds:
        if seed < 0:
            raise UsageError(f"--seeds {seed}: 0 or more.")
    if jobs < 1:
        raise UsageError(f"--jobs {jobs}: at least 1.")
    said = (read_toml(file) if file is not None else {}).get("mitigation")
    of_file = said if isinstance(said, str) else said.get("stack") if isinstance(said, dict) else None
    chosen = stack or (None if of_file is not None else STACK)
    values = {**options} if chosen is None else {**options, "mitigation": {"stack": chosen}}
    names = tuple(dict.fromkeys(backends)) or BACKENDS
    if IDEAL in names:
        raise UsageError(
            "the ideal target has no errors to mitigate.",
            "Name devices (`qrun backends list`); it stands in the table by itself.",
        )
    configs = [config_from(experiment, {**values, "backend": name}, file) for name in names]
    for config in configs:
        if config.mitigation is None:
            raise UsageError("there is no mitigation to set against none.", f"Give --mitigation {STACK}.")
        if config.engine == "runtime" or config.runtime is not None:
            raise UsageError("the table is played on twins: nothing is sent to a device.", "Take --engine twin or aer.")
    return Asked(tuple(configs), tuple(dict.fromkeys(seeds)) or SEEDS, jobs)


def arms(config: RunConfig) -> tuple[str, ...]:
    """Of one federation."""
    return ARMS[:1] if config.mitigation is None else ARMS


@dataclass(frozen=True)
class Table:
    """All lines, and the data that they are of ("official", "stand-in")."""

    lines: list[Line]
    source: str


def learn(
    asked: Asked,
    *,
    data: Path | None,
    out: Path | None,
    notify: Callable[[str], None],
    progress: Callable[[int, int, str], None],
) -> Table:
    """Play all federations that are not in the file yet.

    Args:
        asked: From `asked`.
        data: Folder of the data set's files.
        out: File of finished lines; made, or gone on with.
        notify: Told what the user should know, e.g. that a stand-in is used.
        progress: Told of (federations done, in all, what came of the last one).
    """
    config = asked.configs[0]
    study = find(config.experiment).load(
        config.data, nodes=config.nodes, seeds=lambda p, *parts: derive(0, p, *parts), folder=data, notify=notify
    )
    anywhere = config.model_copy(update={"seed": 0, "backend": BACKENDS[0], "snapshot_sha256": None})
    about = {"format": FORMAT, "config": anywhere.digest.hex(), "data": study.dataset.sha256}
    file: RowFile[Line] = RowFile(
        out, about, read=_read, write=asdict, key=lambda line: (line.backend, line.seed, line.arm)
    )
    try:
        wanted = asked.federations
        missing = [f for f in wanted if not all((f.backend, f.seed, arm) in file.rows for arm in arms(f))]
        done = len(wanted) - len(missing)
        progress(done, len(wanted), "playing federations")
        for lines in _play_all(missing, data, asked.jobs):
            for line in lines:
                file.add(line)
            done += 1
            progress(done, len(wanted), _said(lines))
        return Table([file.rows[f.backend, f.seed, arm] for f in wanted for arm in arms(f)], study.dataset.source)
    finally:
        file.close()


def _said(lines: Sequence[Line]) -> str:
    first = lines[0]
    scores = ", ".join(f"{line.arm} {line.holdout_auroc:.4f}" for line in lines)
    return f"{first.backend}, seed {first.seed}: AUROC {scores}; {lines[-1].seconds:.0f} s"


def _play_all(federations: Sequence[RunConfig], data: Path | None, jobs: int) -> Iterator[list[Line]]:
    """The lines of each federation, by so many processes, as they come."""
    if jobs == 1 or len(federations) <= 1:
        for config in federations:
            yield play(config, data)
        return
    # The workers' numbers of threads are read when they start.
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    workers = min(jobs, len(federations))
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_interruptible) as pool:
        waiting = [pool.submit(play, config, data) for config in federations]
        try:
            for future in as_completed(waiting):
                yield future.result()
        except BrokenProcessPool as error:
            raise QrunError(
                "a worker was killed, for want of memory perhaps.", "Start the command again: it goes on with --out."
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _interruptible() -> None:
    """A worker ends with Ctrl-C at once: it would play on else, and the command wait for it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def play(config: RunConfig, data: Path | None) -> list[Line]:
    """One federation, trained without mitigation and with it, and each scored without it and with it.

    Args:
        config: With the mitigation; where it has none, the federation has one arm.
        data: Folder of the data set's files.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _play(config, data)
    finally:
        torch.set_num_threads(threads)


def _play(config: RunConfig, data: Path | None) -> list[Line]:
    world = World.build(config.model_copy(update={"mitigation": None}), data)
    target = get_target(config.backend)

    def model(training: bool, evaluation: bool) -> QGAN:
        plain = world.model
        if config.mitigation is None or not (training or evaluation):
            return plain
        options, exact = config.mitigation.options(derive(config.seed, "mitigation")), is_exact(config)
        how = Mitigation(target, options, exact, training=training, evaluation=evaluation)
        return QGAN(plain.settings, plain.executor, plain.circuit, how)

    found = {}
    both = (False,) if config.mitigation is None else (False, True)
    try:
        for training in both:
            begin = time.perf_counter()
            own = replace(world, model=model(training, False), trained={})
            outcome = simulate(own, ATTACKS["none"], frozenset(), "reputation")
            trained = time.perf_counter() - begin
            for evaluation in both:
                begin = time.perf_counter()
                figures = _score(replace(world, model=model(False, evaluation)), outcome.final)
                arm = ARMS[training + 2 * evaluation]
                seconds = round(trained + time.perf_counter() - begin, 2)
                found[arm] = Line(config.backend, config.seed, arm, *figures, seconds)
    finally:
        world.model.executor.__exit__(None, None, None)
    return [found[arm] for arm in arms(config)]


def _score(world: World, blocks: Blocks) -> tuple[float, float, float | None, float | None]:
    """METRICS of a final aggregate, calibrated on all nodes' benign validation records, as in a run."""
    peer = world.peers(world.config.federation)[0]
    scorer = peer.scorer(dequantise(blocks), world.config.rounds)
    benign = np.concatenate([features[1] for features in world.features])
    parts = scorer.part_counts(benign)
    found = world.judge.score(scorer, Calibration(parts, scorer.score_counts(benign, parts)))
    holdout, test = found["holdout"], found["test"]
    if holdout is None:
        raise ValueError("there is always a hold-out part")
    return holdout.auroc, holdout.f1, None if test is None else test.auroc, None if test is None else test.f1


def _read(values: dict[str, Any]) -> Line:
    line = Line(**values)
    if not isinstance(line.backend, str) or type(line.seed) is not int or line.arm not in ARMS:
        raise ValueError("not a line")
    figures = [getattr(line, name) for name in METRICS]
    if not all(isinstance(f, float) and 0 <= f <= 1 for f in figures[:2]):
        raise ValueError("not a line")
    if not all(f is None or (isinstance(f, float) and 0 <= f <= 1) for f in figures[2:]):
        raise ValueError("not a line")
    if not isinstance(line.seconds, float | int):
        raise ValueError("not a line")
    return line
