"""How a peer grades another: does its model move as the others' do, by as much, and does it know my own records?

For grader i and peer j after a round; D is the discriminator block, G the generator block, and thresholds are the
config's [grades] (the defaults are shown):

    a      the aggregate that i started the round from,   p_k   the published models,   u_k = (p_k - a) / |p_k - a|
    m_k  = 0.7 m_k + u_k                                  running sum of the unit movements of k, over the rounds
    s    = median_k median_{l != k} cos(u_k, u_l)         what is usual now; the same of m: s'
    c    = min(cos(m_i, m_j) / max(s', 0.2), 0.3 + cos(u_i, u_j) / max(s, 0.2), 1)
    b    = 1 + cos(m_i, m_j) / max(s', 0.3) on G,         within [0, 1]: below 1 for a generator that moves backwards
    rho  = |p_j - a| / median_k |p_k - a|
    v    = mean softplus(-D_j(x)) - median over the peers of the same,
           x being 128 of i's own benign validation records
    l    = 0.25 (v - 1), within [0, 0.7]:                 who moves along may know other traffic
    e    = (c - l - 0.1) / (0.5 - 0.1),                   within [0, 1]
    g    = 100 e b / max(1, rho / 1.5)^2,                 an integer in 1..100

Zero is kept for hard faults: rho of D outside [0.35, 3], rho of G outside [0.15, 6], less than 0.35 of the median
change since j's last model (a stale copy), or closer to another node's last model than 0.1 of the median movement (a
copy of a neighbour). Whoever has a hard fault, or e = 0, has no weight in i's next aggregate, whatever the contract
says.

Derived and measured in docs/decisions/0005-grades-that-separate.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from runner.settings import GradeSettings

FloatArray = npt.NDArray[np.float64]


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
        settings: The thresholds.
    """

    me: int
    settings: GradeSettings = field(default_factory=GradeSettings)
    _moved: dict[int, FloatArray] = field(default_factory=dict)
    _moved_g: dict[int, FloatArray] = field(default_factory=dict)
    _last: dict[int, Flat] = field(default_factory=dict)

    def review(self, start: Flat, models: Mapping[int, Flat], losses: Mapping[int, float]) -> dict[int, Grade]:
        """Grade all peers of a round and remember their movements.

        Args:
            start: The aggregate that this node started the round from.
            models: Node -> published model of the round, this node's included; who is absent is missing.
            losses: Node -> mean softplus(-D(x)) of its model on this node's validation records.
        """
        s = self.settings
        nodes = sorted(models)
        steps = {k: models[k].discriminator - start.discriminator for k in nodes}
        steps_g = {k: models[k].generator - start.generator for k in nodes}
        size, size_g = _sizes(steps), _sizes(steps_g)
        median, median_g = _median(size.values()), _median(size_g.values())
        units = {k: _unit(step) for k, step in steps.items()}
        for memory, now in ((self._moved, units), (self._moved_g, {k: _unit(step) for k, step in steps_g.items()})):
            for k, unit in now.items():
                memory[k] = s.memory * memory.get(k, np.zeros_like(unit)) + unit
        along = self._relative(units, s.floor)
        along_all = self._relative({k: self._moved[k] for k in nodes}, s.floor)
        along_g = self._relative({k: self._moved_g[k] for k in nodes}, s.generator_floor)
        changes = {k: _distance(models[k], self._last[k]) for k in nodes if k in self._last}
        usual_change = _median(changes.values())
        peers = [k for k in nodes if k != self.me]
        usual_loss = _median(losses[k] for k in peers)

        grades: dict[int, Grade] = {}
        for j in peers:
            rho, rho_g = _ratio(size[j], median), _ratio(size_g[j], median_g)
            fault = ""
            if not s.discriminator_range[0] <= rho <= s.discriminator_range[1]:
                fault = f"discriminator moved {rho:.2f} times the median"
            elif not s.generator_range[0] <= rho_g <= s.generator_range[1]:
                fault = f"generator moved {rho_g:.2f} times the median"
            elif j in changes and changes[j] < s.stale * usual_change:
                fault = "hardly differs from its last model"
            elif any(_distance(models[j], m) < s.copy_distance * median for k, m in self._last.items() if k != j):
                fault = "copies another node's last model"
            if fault:
                grades[j] = Grade(0, gated=True, fault=fault)
                continue
            c = min(along_all[j], s.sudden + along[j], 1.0)
            low, high = s.alignment
            price = min(s.loss_most, s.loss_price * max(0.0, losses[j] - usual_loss - s.loss_free))
            e = float(np.clip((c - price - low) / (high - low), 0, 1))
            b = float(np.clip(1.0 + along_g[j], 0, 1))
            g = 100 * e * b / max(1.0, rho / s.free_ratio) ** 2
            grades[j] = Grade(int(np.clip(round(g), 1, 100)), gated=e == 0)
        self._last = dict(models)
        return grades

    def _relative(self, vectors: Mapping[int, FloatArray], floor: float) -> dict[int, float]:
        """Cosine of each node's vector with this node's, over what is usual among all, or over `floor` if that is less.

        Usual is the median over the nodes of each one's median cosine with the others: whoever is fewer than half
        cannot move it out of the range of the honest nodes' own.
        """
        nodes = sorted(vectors)
        if self.me not in vectors or len(nodes) < 2:
            return dict.fromkeys(nodes, 0.0)
        rows = np.stack([_unit(vectors[k]) for k in nodes])
        cosines = rows @ rows.T
        others = ~np.eye(len(nodes), dtype=np.bool_)
        usual = float(np.median([np.median(row[mask]) for row, mask in zip(cosines, others, strict=True)]))
        mine = cosines[nodes.index(self.me)] / max(usual, floor)
        return {k: float(value) for k, value in zip(nodes, mine, strict=True)}


def _sizes(vectors: Mapping[int, FloatArray]) -> dict[int, float]:
    return {k: float(np.linalg.norm(v)) for k, v in vectors.items()}


def _unit(vector: FloatArray) -> FloatArray:
    size = float(np.linalg.norm(vector))
    return vector / size if size > 0 else np.zeros_like(vector)


def _median(values: Iterable[float]) -> float:
    known = list(values)
    return float(np.median(known)) if known else 0.0


def _distance(a: Flat, b: Flat) -> float:
    return float(np.linalg.norm(a.discriminator - b.discriminator))


def _ratio(value: float, median: float) -> float:
    if median > 0:
        return value / median
    return 1.0 if value == 0 else np.inf
