"""Detection in detail: by threshold, by part of the data, by family of attacks; the same for runs and baselines.

Thresholds, fixed before anything is tuned:

    label_free   a quantile of benign validation scores; no label is used (the default, and the headline)
    validated    the one of best F1 on the labelled validation records of the nodes: the 15 % of the training file that
                 `datasets/split.py` deals to validation. No model is trained on them, and none is reported on them:
                 what is reported is on hold-out and test records. Attacks of that part serve nothing else at the end.

Both are one number for all records of all parts: a threshold is never set on what it is reported on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments.datasets.schema import ATTACKS, FAMILIES, FAMILY_OF
from experiments.metrics import FloatArray, IntArray, Metrics, evaluate

ATTACK_FAMILIES = tuple(name for name in FAMILIES if name != "normal")
THRESHOLDS = ("label_free", "validated")
PARTS = ("holdout", "test", "test_without_seen")

_FAMILY = np.array([FAMILIES.index(FAMILY_OF[name]) for name in ATTACKS])


@dataclass(frozen=True)
class Figures:
    """Metrics at a threshold, and where they come from.

    Attributes:
        metrics: All records of the part together.
        false_positive_rate: Share of benign records that are called attacks; 0 if there are none.
        recall_by_family: Share of a family's records that are called attacks; None where the part has none.
    """

    metrics: Metrics
    false_positive_rate: float
    recall_by_family: dict[str, float | None]

    def to_dict(self) -> dict[str, Any]:
        """As plain values, the metrics' names beside the two others."""
        return {
            **self.metrics.to_dict(),
            "false_positive_rate": self.false_positive_rate,
            "recall_by_family": dict(self.recall_by_family),
        }


def figures(scores: FloatArray, attack: IntArray, threshold: float) -> Figures:
    """Measure scores.

    Args:
        scores: (N,) finite, N at least one.
        attack: (N,) codes of the attack name as in `Records`; 0 is benign.
        threshold: A record is called an attack if its score lies above it.
    """
    called, family = scores > threshold, _FAMILY[attack]
    rates: dict[str, float | None] = {}
    for number, name in enumerate(FAMILIES):
        own = called[family == number]
        rates[name] = float(own.mean()) if len(own) else None
    return Figures(
        evaluate(scores, attack != 0, threshold),
        rates["normal"] or 0.0,
        {name: rates[name] for name in ATTACK_FAMILIES},
    )


@dataclass(frozen=True)
class Scored:
    """Scores of a part's records, (N,), and the codes of their attacks, (N,)."""

    scores: FloatArray
    attack: IntArray


Detection = dict[str, dict[str, Figures] | None]
"""By part, then by threshold; None where a part is not scored."""


def detect(scored: Mapping[str, Scored | None], thresholds: Mapping[str, float]) -> Detection:
    """Every part at every threshold."""
    return {
        part: None if found is None else {n: figures(found.scores, found.attack, t) for n, t in thresholds.items()}
        for part, found in scored.items()
    }


def parts_of(holdout: Scored, test: Scored | None, seen: np.ndarray[Any, Any] | None) -> dict[str, Scored | None]:
    """The parts that are reported, by name: the hold-out, the test file, and what of it is not in the training file."""
    out: dict[str, Scored | None] = {"holdout": holdout, "test": test, "test_without_seen": None}
    if test is not None and seen is not None:
        out["test_without_seen"] = Scored(test.scores[~seen], test.attack[~seen])
    return out


def label_free(benign: FloatArray, quantile: float) -> float:
    """The least benign score that at least a share `quantile` of the benign scores is at or below."""
    rank = max(1, math.ceil(quantile * len(benign) - 1e-9))
    return float(np.sort(benign)[rank - 1])


def validated(benign: FloatArray, attack: FloatArray) -> float:
    """The threshold of best F1 on labelled scores, halfway between two of them.

    Where several are equally good, it is the middle one of the lowest run of such.
    """
    values = np.unique(np.concatenate([benign, attack]))
    edges = np.append(values[0] - 1.0, (values[1:] + values[:-1]) / 2)
    calls = [len(x) - np.searchsorted(np.sort(x), edges, side="right") for x in (benign, attack)]
    return float(edges[_best(calls[0], calls[1], len(attack))])


def validated_counts(benign: IntArray, attack: IntArray, low: float, high: float) -> float:
    """The same from counts in bins over [low, high]: the threshold is an edge of the bins."""
    above = [np.append(np.cumsum(counts[::-1])[::-1], 0) for counts in (benign, attack)]
    place = _best(above[0], above[1], int(attack.sum()))
    return low + place * (high - low) / len(benign)


def _best(false: IntArray, hits: IntArray, attacks: int) -> int:
    """Of thresholds in ascending order, the one of best F1, given benign and attack records above each."""
    f1 = 2 * hits / np.maximum(hits + false + attacks, 1)
    equal = f1 == f1.max()
    first = int(np.argmax(equal))
    length = int(np.argmin(np.append(equal[first:], False)))
    return first + (length - 1) // 2
