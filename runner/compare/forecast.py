"""How long a comparison will take, said before it begins.

A run of the same kind (all that seconds hang on: engine, circuit, mitigation, steps) that this machine has finished
says it best; else a few steps are tried. Trainings and evaluations share the workers evenly.
"""

from __future__ import annotations

import json
import statistics
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circuits.errors import QrunError, QrunWarning
from runner.compare.grid import IDEAL, Job
from runner.config import RunConfig
from runner.run_folder import read_manifest, read_result
from runner.store import RunInfo

FIXED = 8.0
"""Seconds of a run besides its steps: compiling, data, chain, feature map, validation, measuring."""
EVALUATION = 0.8
"""Seconds of a profile: compiling, samples, scores, distances."""
STEPS = 3
LOST = 8.0
"""Seconds in which a worker imports what it needs."""


@dataclass(frozen=True)
class Forecast:
    """What is still to be done, and about how long it takes.

    Attributes:
        trainings: Runs to play, interrupted ones included.
        evaluations: Profiles of models.
        reused: Runs that are there already.
        seconds: About; of `workers` together.
        workers: Processes.
    """

    trainings: int
    evaluations: int
    reused: int
    seconds: float
    workers: int

    @property
    def sentence(self) -> str:
        """In words."""
        if not self.trainings and not self.evaluations:
            return f"All {self.reused} runs are there, and evaluated: nothing is to be done but the report."
        what = [f"{self.trainings} trainings"] if self.trainings else []
        what += [f"{self.evaluations} evaluations"] if self.evaluations else []
        reused = f"; {self.reused} finished runs are reused" if self.reused else ""
        workers = f"{self.workers} processes" if self.workers > 1 else "one process"
        return f"{' and '.join(what)} to do{reused}. About {_long(self.seconds)} with {workers}."


def _long(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min" if seconds < 7200 else _hours(seconds)


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h"


def forecast(
    jobs: Sequence[Job],
    left: Mapping[str, int],
    known: Mapping[str, Sequence[RunInfo]],
    *,
    workers: int,
    reused: int,
) -> Forecast:
    """What jobs will take.

    Args:
        jobs: Those that are not done.
        left: Digest of a job's config -> evaluations that are missing, where its run is finished.
        known: All runs by digest.
        workers: Processes.
        reused: Finished runs of the grid.
    """
    seen = _seen(known)
    tried: dict[str, float] = {}
    seconds = trainings = 0.0
    evaluations = 0
    for job in jobs:
        number = left.get(job.config.digest.hex())
        evaluations += len(job.profiles) if number is None else number
        seconds += EVALUATION * (len(job.profiles) if number is None else number)
        if number is not None:
            continue
        trainings += 1
        kind = kind_of(job.config)
        if kind in seen:
            seconds += statistics.median(seen[kind])
        else:
            if kind not in tried:
                tried[kind] = try_steps(job.config)
            seconds += FIXED + tried[kind] * steps_of(job.config)
    share = max(1, min(workers, len(jobs) or 1))
    return Forecast(round(trainings), evaluations, reused, seconds / share + (LOST if share > 1 else 0.0), share)


def steps_of(config: RunConfig) -> int:
    """Generator steps of a run."""
    return config.rounds * config.nodes * config.model.epochs * config.model.steps_per_epoch


def kind_of(config: RunConfig) -> str:
    """Configs of the same kind take as long: they differ in seed and device alone."""
    values = config.model_dump(mode="json")
    noisy = values["backend"] != IDEAL and values.get("noise_scale") != 0
    for name in ("seed", "backend", "snapshot_sha256", "noise_scale", "layout"):
        values.pop(name, None)
    return json.dumps({**values, "noisy": noisy}, sort_keys=True)


def _seen(known: Mapping[str, Sequence[RunInfo]]) -> dict[str, list[float]]:
    """Seconds of finished runs, by kind."""
    out: dict[str, list[float]] = {}
    for infos in known.values():
        for info in infos:
            if info.state != "finished":
                continue
            try:
                config, _ = read_manifest(info.path)
                result: dict[str, Any] = read_result(info.path)
            except QrunError:
                continue
            out.setdefault(kind_of(config), []).append(float(result["seconds"]["total"]))
    return out


def try_steps(config: RunConfig, folder: Path | None = None) -> float:
    """Seconds of one training step, tried; the first one, which makes things ready, is not counted."""
    import numpy as np
    import torch

    from experiments.models.private import Private
    from runner.calibration import target_for
    from runner.compiled import generator_for
    from runner.models import model_for
    from runner.seeds import generator

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", QrunWarning)
            target = target_for(config, folder)
            model = model_for(config, target, generator_for(config, target), "cpu")
            rng = generator(config.seed, "initial")
            start, records = model.initial(rng), np.clip(rng.normal(size=(64, model.features)), -1, 1)
            private = None if config.model.dp is None else Private(1.0)
            with model.executor:
                model.train(start, records, epochs=1, steps=1, seed=0, private=private)
                begin = time.perf_counter()
                model.train(start, records, epochs=1, steps=STEPS, seed=0, private=private)
                return (time.perf_counter() - begin) / STEPS
    finally:
        torch.set_num_threads(threads)
