"""How detection is measured: by records where they are, by counts where records must not leave their node."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from circuits.errors import QrunError

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Metrics:
    """Detection of attacks (the positive class) by "score > threshold"; all but the threshold lie in [0, 1].

    Attributes:
        accuracy: Share of records judged rightly.
        precision: Attacks among the records called attacks; 0 if none is.
        recall: Attacks found; 0 if there are none.
        f1: Harmonic mean of precision and recall; 0 if both are.
        auroc: Chance that an attack scores above a benign record, ties counting half; 0.5 if a class is absent.
        threshold: What scores were compared with.
    """

    accuracy: float
    precision: float
    recall: float
    f1: float
    auroc: float
    threshold: float

    def to_dict(self) -> dict[str, float]:
        """Name -> value, every value finite, so that JSON and chain can hold it."""
        return asdict(self)


def evaluate(scores: FloatArray, is_attack: BoolArray, threshold: float) -> Metrics:
    """Measures scores against labels.

    Args:
        scores: (N,) finite, higher is more anomalous; N at least one.
        is_attack: (N,) the labels.
        threshold: A record is called an attack if its score lies above it, not at it.

    Raises:
        QrunError: No records, or a score or the threshold is not finite.
        ValueError: Shapes differ.
    """
    scores = np.asarray(scores, dtype=np.float64)
    attack = np.asarray(is_attack, dtype=np.bool_)
    if scores.ndim != 1 or scores.shape != attack.shape:
        raise ValueError(f"{scores.shape} scores do not go with {attack.shape} labels")
    if len(scores) == 0:
        raise QrunError("there are no records to measure on.", "Use fewer nodes, or a data set with more records.")
    broken = int(np.count_nonzero(~np.isfinite(scores)))
    if broken or not np.isfinite(threshold):
        what = f"{broken} of {len(scores)} scores" if broken else "the threshold"
        raise QrunError(f"{what} cannot be measured: not a finite number.", "Training diverged: lower its step sizes.")

    called = scores > threshold
    hit = int(np.count_nonzero(called & attack))
    attacks, calls = int(np.count_nonzero(attack)), int(np.count_nonzero(called))
    return _metrics((len(scores), attacks, calls, hit), _auroc(scores, attack), threshold)


def evaluate_counts(benign: IntArray, attack: IntArray, low: float, high: float, threshold: float) -> Metrics:
    """The same from counts in bins, which is all that nodes hand over where records must not leave them.

    Scores within a bin count as tied, and a bin is called an attack if its centre lies above the threshold: with a
    threshold at an edge of the bins the counts are those of the records. AUROC is within half a bin's share of pairs
    of the exact one.

    Args:
        benign: (bins,) counts of benign scores over [low, high].
        attack: (bins,) counts of attack scores over the same bins.
        low: Lower bound of the first bin.
        high: Upper bound of the last bin.
        threshold: As for `evaluate`.

    Raises:
        QrunError: no records.
        ValueError: the histograms differ in shape.
    """
    if benign.shape != attack.shape or benign.ndim != 1:
        raise ValueError(f"histograms of shapes {benign.shape} and {attack.shape} do not go together")
    benigns, attacks = int(benign.sum()), int(attack.sum())
    if benigns + attacks == 0:
        raise QrunError("there are no records to measure on.", "Use fewer nodes, or a data set with more records.")
    centres = low + (np.arange(len(benign)) + 0.5) * (high - low) / len(benign)
    called = centres > threshold
    hit = int(attack[called].sum())
    calls = hit + int(benign[called].sum())
    auroc = 0.5
    if benigns and attacks:
        below = np.cumsum(benign) - benign
        auroc = int((attack * (2 * below + benign)).sum()) / (2 * benigns * attacks)
    return _metrics((benigns + attacks, attacks, calls, hit), auroc, threshold)


def _metrics(counts: tuple[int, int, int, int], auroc: float, threshold: float) -> Metrics:
    records, attacks, calls, hit = counts
    right = records - attacks - (calls - hit) + hit
    return Metrics(
        accuracy=right / records,
        precision=hit / calls if calls else 0.0,
        recall=hit / attacks if attacks else 0.0,
        # 2 P R / (P + R) in counts, which needs no special case for P + R = 0 beyond no calls and no attacks.
        f1=2 * hit / (calls + attacks) if calls + attacks else 0.0,
        auroc=auroc,
        threshold=float(threshold),
    )


def _auroc(scores: FloatArray, attack: BoolArray) -> float:
    """Mann-Whitney: (rank sum of attacks - a (a + 1) / 2) / (a b), tied scores at the mean of their ranks."""
    attacks = int(np.count_nonzero(attack))
    benign = len(attack) - attacks
    if attacks == 0 or benign == 0:
        return 0.5
    _, group, size = np.unique(scores, return_inverse=True, return_counts=True)
    # Twice the mid-rank of a group of ties is an integer, so the sum is exact.
    twice_rank = 2 * np.cumsum(size) - size + 1
    twice_sum = int(twice_rank[group[attack]].sum())
    return (twice_sum - attacks * (attacks + 1)) / (2 * attacks * benign)
