"""Who sees which record: training, validation and hold-out, and the shares of the nodes."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from circuits.errors import UsageError
from experiments.datasets.schema import PROTOCOLS, SERVICES
from experiments.datasets.types import FloatArray, IntArray, Records

MIN_RECORDS = 64
"""Benign training records that each node must get: two batches."""

REDRAWS = 100

_GROUPS = len(PROTOCOLS) * len(SERVICES)
_SPEC = re.compile(r"dirichlet:([0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)")
_ALPHAS = (0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0, 100.0, 1000.0)


@dataclass(frozen=True)
class Parts:
    """Index arrays into the training file's records; together they hold each record once, ascending."""

    train: IntArray
    validation: IntArray
    holdout: IntArray


def split(records: Records, rng: np.random.Generator) -> Parts:
    """Deals records 70/15/15 to training, validation and hold-out, at random within each attack name.

    A name's own counts are those shares rounded, so that benign records (the only ones trained on) are dealt exactly,
    and an attack of one record goes to training.
    """
    parts: tuple[list[IntArray], list[IntArray], list[IntArray]] = ([], [], [])
    for code in np.unique(records.attack):
        index = rng.permutation(np.flatnonzero(records.attack == code))
        # In integers, half up: no rounding of floats decides where a record goes.
        cuts = [(len(index) * 70 + 50) // 100, (len(index) * 85 + 50) // 100]
        for part, piece in zip(parts, np.split(index, cuts), strict=True):
            part.append(piece)
    train, validation, holdout = (np.sort(np.concatenate(part or [np.zeros(0, np.int64)])) for part in parts)
    return Parts(train, validation, holdout)


def parse_partition(spec: str) -> float | None:
    """The alpha of "dirichlet:ALPHA", or None for "iid".

    Raises:
        UsageError: The text is neither.
    """
    if spec == "iid":
        return None
    found = _SPEC.fullmatch(spec)
    alpha = float(found.group(1)) if found else math.nan
    if not (0.001 <= alpha <= 1e6):
        cut = spec if len(spec) <= 40 else spec[:37] + "..."
        raise UsageError(
            f"Unknown partition {cut!r}.",
            'Say "iid", or "dirichlet:ALPHA" with ALPHA in 0.001..1000000, as "dirichlet:0.5" (lower is more uneven).',
        )
    return alpha


@dataclass(frozen=True)
class Partition:
    """How records are shared among nodes.

    Attributes:
        nodes: Number of nodes K.
        shares: (210, K) share of each node in the benign records of each group (protocol, service), rows summing to
            one, or None for "iid": everything is dealt evenly at random.
        parts: Per node the ascending indices into the records that the partition was drawn on.
    """

    nodes: int
    shares: FloatArray | None
    parts: tuple[IntArray, ...]

    def assign(self, records: Records, rng: np.random.Generator) -> tuple[IntArray, ...]:
        """Deals other records (those of validation) in the same proportions.

        Benign ones go by the shares of their group; attacks, which serve only to measure, evenly at random.

        Returns:
            Per node the ascending indices into `records`; each record stands in one.
        """
        return _deal(records, self.shares, self.nodes, rng)


def partition(records: Records, nodes: int, spec: str, rng: np.random.Generator) -> Partition:
    """Draws who gets which training records.

    For "dirichlet:ALPHA" each group of records with the same protocol and service is shared in proportions drawn from
    a symmetric Dirichlet distribution (Hsu, Qi, Brown 2019, with groups in place of labels, for training is
    benign-only). Draws that leave a node fewer than 64 benign records are repeated, up to 100 times.

    Args:
        records: Training records, benign ones or all.
        nodes: Number of nodes, at least 1.
        spec: "iid" or "dirichlet:ALPHA".
        rng: Source of all randomness.

    Raises:
        UsageError: The spec is malformed, or no draw gives every node enough records: names what would do.
    """
    alpha = parse_partition(spec)
    counts = np.bincount(_groups(records)[~records.is_attack], minlength=_GROUPS)
    total = int(counts.sum())
    if nodes < 1 or total < nodes * MIN_RECORDS:
        raise UsageError(
            f"{nodes} nodes cannot share {total} benign training records: each needs {MIN_RECORDS}.",
            f"Take 1 to {total // MIN_RECORDS} nodes." if total >= MIN_RECORDS else "Take a larger data set.",
        )
    for _ in range(REDRAWS):
        shares = _draw(alpha, nodes, rng)
        parts = _deal(records, shares, nodes, rng)
        if min(int(np.sum(~records.is_attack[part])) for part in parts) >= MIN_RECORDS:
            return Partition(nodes, shares, parts)
    raise _too_uneven(counts, nodes, alpha or 0.0, rng)


def _groups(records: Records) -> IntArray:
    return records.categorical[:, 0] * len(SERVICES) + records.categorical[:, 1]


def _draw(alpha: float | None, nodes: int, rng: np.random.Generator) -> FloatArray | None:
    return None if alpha is None else rng.dirichlet(np.full(nodes, alpha), size=_GROUPS)


def _deal(records: Records, shares: FloatArray | None, nodes: int, rng: np.random.Generator) -> tuple[IntArray, ...]:
    owner = np.empty(len(records), dtype=np.int64)
    attacks = np.flatnonzero(records.is_attack)
    owner[rng.permutation(attacks)] = np.arange(len(attacks)) % nodes
    benign = np.flatnonzero(~records.is_attack)
    if shares is None:
        owner[rng.permutation(benign)] = np.arange(len(benign)) % nodes
    else:
        groups = _groups(records)[benign]
        sizes = rng.multinomial(np.bincount(groups, minlength=_GROUPS), shares)
        for group in np.unique(groups):
            members = rng.permutation(benign[groups == group])
            owner[members] = np.repeat(np.arange(nodes), sizes[group])
    return tuple(np.flatnonzero(owner == node) for node in range(nodes))


def _suffices(counts: npt.NDArray[np.int64], nodes: int, alpha: float, rng: np.random.Generator) -> bool:
    """Whether one of a few draws gives every node enough: what is advised should then work."""
    for _ in range(REDRAWS // 10):
        shares = _draw(alpha, nodes, rng)
        if rng.multinomial(counts, shares if shares is not None else 1.0).sum(axis=0).min() >= MIN_RECORDS:
            return True
    return False


def _too_uneven(counts: npt.NDArray[np.int64], nodes: int, alpha: float, rng: np.random.Generator) -> UsageError:
    flatter = next((a for a in _ALPHAS if a > alpha and _suffices(counts, nodes, a, rng)), None)
    fewer = next((k for k in range(nodes - 1, 0, -1) if _suffices(counts, k, alpha, rng)), 1)
    advice = f"dirichlet:{flatter:g} would do for {nodes} nodes" if flatter else "iid would do"
    return UsageError(
        f"dirichlet:{alpha:g} leaves one of {nodes} nodes fewer than {MIN_RECORDS} benign training records "
        f"in each of {REDRAWS} draws.",
        f"{advice[0].upper()}{advice[1:]}; with dirichlet:{alpha:g}, {fewer} node{'s' * (fewer > 1)} would.",
    )
