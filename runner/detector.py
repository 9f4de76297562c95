"""What scores records with a finished run's model, in a file of its own in the store (`qrun-detector/1`).

Model and feature map are published; what is missing to score with them are the generated samples that distances are
taken to, which only the run's device gives, and the calibration, which is sums over all nodes. The file holds both,
names the two others by CID, and has the thresholds. It is canonical: the same detector gives the same bytes.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from circuits.errors import QrunError
from circuits.hostile import load_json
from experiments.detection import THRESHOLDS
from experiments.models.qgan import QGAN
from experiments.models.score import Calibration, Scorer
from runner.update import Blocks, dequantise

FORMAT = "qrun-detector/1"
MAX_BYTES = 64 << 20
MOST = 1 << 24
"""Numbers in an array, and the greatest count: the records that a federation may have."""

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
_KEYS = {"format", "config", "model", "feature_map", "samples", "parts", "score", "attacks", "thresholds"}
_CID = re.compile(r"[a-zA-Z0-9]{10,120}")


@dataclass(frozen=True, eq=False)
class Detector:
    """A model's samples and calibration.

    Attributes:
        config: SHA-256 of the run's config, hex.
        model: CID of the model that scores.
        feature_map: CID of the map that its inputs are features of.
        samples: (M, d) generated samples.
        parts: (K, bins) counts of the score's parts over all nodes' benign validation records.
        score: (bins,) counts of their scores.
        attacks: (bins,) counts of the scores of all nodes' labelled attack records of the validation part.
        thresholds: By name: label_free, validated.
    """

    config: str
    model: str
    feature_map: str
    samples: FloatArray
    parts: IntArray
    score: IntArray
    attacks: IntArray
    thresholds: Mapping[str, float]

    @property
    def calibration(self) -> Calibration:
        """What scores are calibrated on."""
        return Calibration(self.parts, self.score)

    def scorer(self, model: QGAN, blocks: Blocks) -> Scorer:
        """The scorer, for which no circuit is run.

        Args:
            model: The run's; its engine is not asked.
            blocks: The parameters of `model` (the CID).
        """
        return Scorer(model, dequantise(blocks), samples=self.samples)

    def to_bytes(self) -> bytes:
        """Canonical JSON; floats stand in it with every bit."""
        body = {
            "format": FORMAT,
            "config": self.config,
            "model": self.model,
            "feature_map": self.feature_map,
            "samples": {
                "shape": list(self.samples.shape),
                "values": base64.b64encode(np.ascontiguousarray(self.samples, "<f8").tobytes()).decode("ascii"),
            },
            "parts": self.parts.tolist(),
            "score": self.score.tolist(),
            "attacks": self.attacks.tolist(),
            "thresholds": {name: float(value).hex() for name, value in self.thresholds.items()},
        }
        return json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")

    @classmethod
    def from_bytes(cls, data: bytes) -> Detector:
        """Back from a file, hostile until checked.

        Raises:
            QrunError: too large, not canonical, of another format, or no detector.
        """
        try:
            body = load_json(data, max_bytes=MAX_BYTES, what="it")
        except QrunError as error:
            raise _refused(error.message.rstrip(".")) from None
        try:
            if set(body) != _KEYS or body["format"] != FORMAT or set(body["thresholds"]) != set(THRESHOLDS):
                raise ValueError
            rows, width = body["samples"]["shape"]
            raw = base64.b64decode(body["samples"]["values"], validate=True)
            values = np.frombuffer(raw, "<f8") if raw else np.zeros(0)  # a score without distances has no samples
            found = cls(
                config=str(body["config"]),
                model=str(body["model"]),
                feature_map=str(body["feature_map"]),
                samples=values.reshape(rows, width).astype(np.float64),
                parts=_counts(body["parts"], 2),
                score=_counts(body["score"], 1),
                attacks=_counts(body["attacks"], 1),
                thresholds={name: float.fromhex(body["thresholds"][name]) for name in THRESHOLDS},
            )
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
            raise _refused("it is malformed") from None
        sound = bool(np.isfinite(found.samples).all() and np.isfinite(list(found.thresholds.values())).all())
        sound = sound and found.score.shape == found.attacks.shape
        sound = sound and bool((found.parts.sum(1) == found.score.sum()).all() and found.score.sum() > 0)
        if not sound or not all(_CID.fullmatch(cid) for cid in (found.model, found.feature_map)):
            raise _refused("its numbers do not fit together")
        if found.to_bytes() != data:
            raise _refused("its bytes are not canonical")
        return found


def _counts(values: Any, dimensions: int) -> IntArray:
    """An array of counts."""
    array = np.array(values)
    if array.dtype != np.int64 or array.ndim != dimensions or not 0 < array.size <= MOST:
        raise ValueError
    if (array < 0).any() or int(array.max()) > MOST:
        raise ValueError
    return cast("IntArray", array)


def _refused(why: str) -> QrunError:
    return QrunError(f"the detector file is refused: {why}.", "It is damaged, or another version of qrun made it.")
