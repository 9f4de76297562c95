"""How a peer grades another: does its model move as my own does, by as much, and does it do no harm on my data?

For grader i and peer j after a round, on the discriminator block D (the generator block is G):

    a      the aggregate that i started the round from,   p   a published model
    m_k  = 0.7 m_k + (p_k - a) / |p_k - a|                 running mean of the unit movements of k, over the rounds
    c    = cos(m_i, m_j)
    rho  = |p_j - a| / median_k |p_k - a|                  (over all nodes, i included)
    v    = mean softplus(-D_j(x)) - mean softplus(-D_a(x)) - median over the peers of the same,
           x being 128 of i's own benign validation records
    g    = 100 max(0, c) / max(1, rho)^2 clip(1 - max(0, v), 0, 1),  an integer in 1..100

Zero is kept for hard faults: rho of D outside [0.35, 3], rho of G outside [0.15, 6], less than 0.35 of the median
change since j's last model (a stale copy), or closer to another node's last model than 0.1 of the median movement (a
copy of a neighbour). A peer that does harm (v > 0.15 and rho > 1.3) gets 1 and no weight in i's next aggregate.

The study that the rule comes from, with what it separates and what it does not, is in docs/decisions/0003-grades.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

MEMORY = 0.7
RHO_DISCRIMINATOR = (0.35, 3.0)
RHO_GENERATOR = (0.15, 6.0)
STALE = 0.35
COPY = 0.1
HARM_LOSS, HARM_RHO = 0.15, 1.3


@dataclass(frozen=True)
class Flat:
    """A model as two vectors: the discriminator's parameters and the generator's."""

    discriminator: FloatArray
    generator: FloatArray

    @classmethod
    def of(cls, parameters: Mapping[str, FloatArray]) -> Flat:
        """Concatenate the blocks in the order of their names; blocks named generator* are G, the others D."""

        def join(names: list[str]) -> FloatArray:
            return np.concatenate([parameters[n].reshape(-1) for n in names]) if names else np.zeros(0)

        names = sorted(parameters)
        return cls(
            join([n for n in names if not n.startswith("generator")]),
            join([n for n in names if n.startswith("generator")]),
        )


@dataclass(frozen=True)
class Grade:
    """An integer 0..100, whether the peer stays out of the grader's next aggregate, and the reason for a zero."""

    value: int
    gated: bool = False
    fault: str = ""


@dataclass
class Grader:
    """One node's view of its peers over the rounds. Fed every round in order, it depends on published models only.

    Attributes:
        me: Index of the grading node.
    """

    me: int
    _movement: dict[int, FloatArray] = field(default_factory=dict)
    _last: dict[int, Flat] = field(default_factory=dict)

    def review(
        self, start: Flat, models: Mapping[int, Flat], losses: Mapping[int, float], start_loss: float
    ) -> dict[int, Grade]:
        """Grade all peers of a round and remember their movements.

        Args:
            start: The aggregate that this node started the round from.
            models: Node -> published model of the round, this node's included; who is absent is missing.
            losses: Node -> mean softplus(-D(x)) of its model on this node's validation records.
            start_loss: The same of the aggregate.
        """
        moved = {k: m.discriminator - start.discriminator for k, m in models.items()}
        sizes = {k: float(np.linalg.norm(d)) for k, d in moved.items()}
        sizes_g = {k: float(np.linalg.norm(m.generator - start.generator)) for k, m in models.items()}
        for k, step in moved.items():
            unit = step / sizes[k] if sizes[k] > 0 else np.zeros_like(step)
            self._movement[k] = MEMORY * self._movement.get(k, np.zeros_like(step)) + unit
        median = float(np.median(list(sizes.values()))) if sizes else 0.0
        median_g = float(np.median(list(sizes_g.values()))) if sizes_g else 0.0
        peers = [k for k in models if k != self.me]
        harm = {k: losses[k] - start_loss for k in peers}
        usual = float(np.median(list(harm.values()))) if harm else 0.0
        changes = {k: _distance(models[k], self._last[k]) for k in models if k in self._last}
        usual_change = float(np.median(list(changes.values()))) if changes else 0.0

        grades: dict[int, Grade] = {}
        for j in peers:
            rho, rho_g = _ratio(sizes[j], median), _ratio(sizes_g[j], median_g)
            fault = ""
            if not RHO_DISCRIMINATOR[0] <= rho <= RHO_DISCRIMINATOR[1]:
                fault = f"discriminator moved {rho:.2f} times the median"
            elif not RHO_GENERATOR[0] <= rho_g <= RHO_GENERATOR[1]:
                fault = f"generator moved {rho_g:.2f} times the median"
            elif j in changes and changes[j] < STALE * usual_change:
                fault = "hardly differs from its last model"
            elif any(_distance(models[j], m) < COPY * median for k, m in self._last.items() if k != j):
                fault = "copies another node's last model"
            v = harm[j] - usual
            if fault:
                grades[j] = Grade(0, gated=True, fault=fault)
            elif v > HARM_LOSS and rho > HARM_RHO:
                grades[j] = Grade(1, gated=True)
            else:
                c = _cosine(self._movement.get(self.me), self._movement[j])
                g = 100 * max(0.0, c) / max(1.0, rho) ** 2 * float(np.clip(1 - max(0.0, v), 0, 1))
                grades[j] = Grade(int(np.clip(round(g), 1, 100)))
        self._last = dict(models)
        return grades


def _distance(a: Flat, b: Flat) -> float:
    return float(np.linalg.norm(a.discriminator - b.discriminator))


def _ratio(value: float, median: float) -> float:
    if median > 0:
        return value / median
    return 1.0 if value == 0 else np.inf


def _cosine(a: FloatArray | None, b: FloatArray) -> float:
    if a is None:
        return 0.0
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norm if norm > 0 else 0.0
