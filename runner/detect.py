"""`qrun detect`: a finished run's model scores flows from a stream, batch by batch."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from circuits.errors import QrunError, UsageError
from contracts.errors import ContentError
from contracts.store import BlockStore
from experiments.datasets.flows import Batch, flows
from experiments.datasets.types import Records
from experiments.detection import THRESHOLDS
from experiments.features.map import MAX_BYTES as MAX_MAP
from experiments.features.map import FeatureMap
from experiments.metrics import FloatArray
from experiments.models.score import Scorer
from experiments.reliability import isotonic, probability
from runner.audit.models import skeleton
from runner.audit.sources import run_folder
from runner.detector import MAX_BYTES, Detector
from runner.run_folder import read_manifest, read_result
from runner.update import MAX_BYTES as MAX_MODEL
from runner.update import parse_update

Form = Literal["text", "csv", "json"]
HEADS = ("line", "score", "probability", "verdict")
CHUNK = 1 << 18
"""Bytes a read takes at most; a pipe gives what there is."""


@dataclass(frozen=True)
class Model:
    """A run's model, ready to score.

    Attributes:
        run: The run's name.
        detector: Its calibration and thresholds.
        feature_map: From records to features.
        scorer: For which no circuit is run.
    """

    run: str
    detector: Detector
    feature_map: FeatureMap
    scorer: Scorer

    @cached_property
    def _by_bin(self) -> FloatArray:
        return isotonic(self.detector.score, self.detector.attacks)

    def scores(self, records: Records) -> FloatArray:
        """(N,) anomaly scores."""
        return self.scorer.scores(self.feature_map.apply(records), self.detector.parts)

    def probabilities(self, scores: FloatArray) -> FloatArray:
        """(N,) of an attack, given scores (experiments/reliability.py)."""
        return probability(self._by_bin, scores, *self.scorer.score_range(self.detector.parts))


def load(target: str) -> Model:
    """The model of a finished run.

    Args:
        target: The run's name, or its folder.

    Raises:
        UsageError: there is no such run.
        QrunError: it is not finished, has no detector (an earlier version made it), or a file of it is damaged.
    """
    folder = run_folder(target)
    if not (folder / "result.json").is_file():
        raise QrunError(
            f"run {folder.name} is not finished: it has no final model.", f"`qrun runs resume {folder.name}`."
        )
    config, _ = read_manifest(folder)
    result = read_result(folder)
    if result["detection"] is None:
        raise QrunError(
            f"run {folder.name} was made by a version of qrun that kept no detector.", "Run its config again."
        )
    store = BlockStore(folder / "blocks", read_only=True)
    try:
        detector = Detector.from_bytes(store.get(result["detection"]["detector_cid"], max_bytes=MAX_BYTES))
        names = (config.digest.hex(), result["final"]["cid"], result["feature_map"]["cid"])
        if (detector.config, detector.model, detector.feature_map) != names:
            raise QrunError(
                f"the detector of run {folder.name} is of another run or model.", "`qrun verify` says more."
            )
        feature_map = FeatureMap.from_bytes(store.get(detector.feature_map, max_bytes=MAX_MAP))
        model = skeleton(config)
        update = parse_update(store.get(detector.model, max_bytes=MAX_MODEL), model.shapes())
    except ContentError as error:
        raise QrunError(
            f"the store of run {folder.name} is damaged: {error.message}", "`qrun verify` says what is missing."
        ) from None
    scorer = detector.scorer(model, update.blocks)
    if len(feature_map.low) != model.features or len(detector.parts) != len(scorer.ranges):
        raise QrunError(f"the detector of run {folder.name} does not fit its model.", "`qrun verify` says more.")
    return Model(str(result["run"]), detector, feature_map, scorer)


def threshold_of(model: Model, name: str) -> float:
    """The threshold of that name: label-free or validated.

    Raises:
        UsageError: neither.
    """
    key = name.strip().lower().replace("-", "_")
    if key not in THRESHOLDS:
        known = " and ".join(t.replace("_", "-") for t in THRESHOLDS)
        raise UsageError(f"--threshold {name}: there are {known}.")
    return model.detector.thresholds[key]


@dataclass
class Tally:
    """What came of a stream."""

    attacks: int = 0
    benign: int = 0
    malformed: int = 0

    @property
    def flows(self) -> int:
        """Flows that were scored."""
        return self.attacks + self.benign

    def sentence(self) -> str:
        """In words."""
        lines = "line" if self.malformed == 1 else "lines"
        flows_ = "flow" if self.flows == 1 else "flows"
        return (
            f"{self.flows:,} {flows_} scored: {self.attacks:,} called attacks, {self.benign:,} benign; "
            f"{self.malformed:,} malformed {lines} skipped."
        )


def run(
    model: Model,
    threshold: float,
    read: Callable[[], bytes],
    *,
    form: Form,
    write: Callable[[str], None],
    tell: Callable[[str], None],
) -> Iterator[Tally]:
    """Score a stream; gives the tally after every batch, and once for an empty stream.

    Args:
        model: From `load`.
        threshold: A score above it is called an attack.
        read: Gives some bytes as soon as there are some, and none at the end.
        form: How a flow is written: text, csv (with a first line of names), json (one object a line).
        write: Takes the lines of a batch, and has them out when it returns.
        tell: Takes a line about each malformed one.
    """
    import torch

    tally = Tally()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the tensors are small
    try:
        if form == "csv":
            write(",".join(HEADS) + "\n")
        for batch in flows(read):
            if batch.malformed:
                tell("".join(f"line {m.line}: {m.why}\n" for m in batch.malformed))
                tally.malformed += len(batch.malformed)
            if len(batch.flows):
                write(_lines(model, threshold, batch, form, tally))
            yield tally
        yield tally
    finally:
        torch.set_num_threads(threads)


def _lines(model: Model, threshold: float, batch: Batch, form: Form, tally: Tally) -> str:
    scores = model.scores(batch.flows)
    chances = model.probabilities(scores)
    called = scores > threshold
    tally.attacks += int(np.count_nonzero(called))
    tally.benign += int(np.count_nonzero(~called))
    rows = [
        (line, round(score, 6), round(chance, 6), "attack" if attack else "benign")
        for line, score, chance, attack in zip(
            batch.flows.line.tolist(), scores.tolist(), chances.tolist(), called.tolist(), strict=True
        )
    ]
    if form == "json":
        return "".join(json.dumps(dict(zip(HEADS, row, strict=True)), allow_nan=False) + "\n" for row in rows)
    if form == "csv":
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows(rows)
        return out.getvalue()
    return "".join(f"{line:>8}  {score:10.4f}  {chance:6.4f}  {verdict}\n" for line, score, chance, verdict in rows)
