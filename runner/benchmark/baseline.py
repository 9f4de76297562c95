"""A baseline on a bench: trained in one place on all nodes' records, and by every node alone; judged as a run is."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from circuits.errors import QrunError
from experiments.datasets.types import FloatArray
from experiments.detection import Detection, Scored, detect, label_free, parts_of, validated
from experiments.models.baselines.base import Baseline, Training
from experiments.models.baselines.registry import Spec
from runner.benchmark.bench import Bench, Tables
from runner.seeds import derive

ALONE = ("accuracy", "f1", "auroc")
"""What is told of nodes alone: the mean over them, at their own label-free thresholds."""


@dataclass(frozen=True)
class Judged:
    """What came of a baseline.

    Attributes:
        detection: Of the one that is trained on all nodes' records.
        isolated: By part, the mean over nodes of ALONE; None with one node.
        parameters: Of its generator, where it has one.
        seconds: Training and scoring of the first; of all nodes alone.
    """

    detection: Detection
    isolated: dict[str, dict[str, float]] | None
    parameters: int | None
    seconds: float
    seconds_isolated: float


def judge(bench: Bench, spec: Spec, *, isolated: bool = True) -> Judged:
    """Fit and measure.

    Args:
        bench: The data.
        spec: Which baseline.
        isolated: Whether nodes alone are asked for, too.

    Raises:
        QrunError: it is supervised, and the experiment has no attacks of its training part.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _judge(bench, spec, isolated)
    finally:
        torch.set_num_threads(threads)


def _judge(bench: Bench, spec: Spec, isolated: bool) -> Judged:
    config, tables = bench.config, bench.tables(spec.features)
    if spec.supervised and tables.training_attacks is None:
        raise QrunError(f"{spec.name} is supervised, and {config.experiment} has no attacks to train on.")
    quantile = config.model.threshold_quantile
    begin = time.perf_counter()
    benign = np.concatenate(tables.benign)
    whole = _fitted(bench, spec, np.concatenate(tables.train), benign, derive(config.seed, "baseline"))
    known = whole.scores(benign)
    thresholds = {
        "label_free": label_free(known, quantile),
        "validated": validated(known, whole.scores(tables.attacks)),
    }
    detection = _detect(bench, whole, tables, thresholds)
    seconds = time.perf_counter() - begin
    begin = time.perf_counter()
    alone: list[Detection] = []
    for i, (train, own) in enumerate(zip(tables.train, tables.benign, strict=True)):
        if not isolated or len(tables.train) == 1 or not len(own):
            continue
        one = _fitted(bench, spec, train, own, derive(config.seed, "baseline", i))
        alone.append(_detect(bench, one, tables, {"label_free": label_free(one.scores(own), quantile)}))
    return Judged(
        detection,
        _mean(alone),
        getattr(whole, "parameters", None),
        round(seconds, 2),
        round(time.perf_counter() - begin, 2),
    )


def _fitted(bench: Bench, spec: Spec, train: FloatArray, benign: FloatArray, seed: int) -> Baseline:
    config = bench.config
    made = spec.make(bench.model, config.rounds * config.model.epochs)
    known = bench.tables(spec.features).training_attacks if spec.supervised else None
    made.fit(Training(train, benign, np.zeros((0, train.shape[1])) if known is None else known, seed))
    return made


def _detect(bench: Bench, model: Baseline, tables: Tables, thresholds: dict[str, float]) -> Detection:
    study = bench.study
    holdout = Scored(model.scores(tables.holdout), study.holdout.attack)
    test = None
    if tables.test is not None and study.test is not None:
        test = Scored(model.scores(tables.test), study.test.attack)
    return detect(parts_of(holdout, test, study.seen), thresholds)


def _mean(alone: list[Detection]) -> dict[str, dict[str, float]] | None:
    if not alone:
        return None
    out: dict[str, dict[str, float]] = {}
    for part in alone[0]:
        found: list[dict[str, Any]] = [d["label_free"].to_dict() for one in alone if (d := one[part]) is not None]
        if found:
            out[part] = {name: float(np.mean([f[name] for f in found])) for name in ALONE}
    return out
