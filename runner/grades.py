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

Where nobody waits for anybody (`review_new`), each model names its own start and only new ones are graded, each once:

    a_k      the join of the inputs that k's model names, checked,        u_k = (p_k - a_k) / |p_k - a_k|
    k        in all of the above runs over j's newest model and, of every other active node, the one of its last twelve
             that was begun nearest to where j's was (by view, then by how many there were before): movements are long
             and alike at first, short and less alike later, and an honest slow node is one of its own time
    stale    closer to any earlier model of anybody, its own included, than 0.1 of the median movement
    far      trained from its own last model alone, and more than 3 median movements away from half of the others

Who has not submitted anything yet has no movement to hold the others' against, and grades nobody.

Derived and measured in docs/decisions/0005-grades-that-separate.md and 0009-peers-on-several-machines.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from runner.settings import GradeSettings
from runner.shelf import Shelf

FloatArray = npt.NDArray[np.float64]

KEPT = 12
"""So many submissions of a node are kept as a measure for those that began at the same time."""


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


@dataclass(frozen=True)
class _Submission:
    """What a grader keeps of a submission.

    Attributes:
        view: The last settled round when training began; 0 throughout where all train in lockstep.
        count: Which of its node's submissions it is, from 1.
        vectors: The model's D and G; the movement of D as a unit vector; the running sums of those, of D and of G, up
            to this one. On the disk: of ten nodes there are a hundred, and each is looked at once a round.
        change: Distance from the node's model before; None of a first one.
        alone: Whether it was trained from that model, and nobody else's.
    """

    view: int
    count: int
    vectors: Sequence[FloatArray]
    size: float
    size_g: float
    loss: float
    change: float | None
    alone: bool

    @property
    def model(self) -> Flat:
        return Flat(self.vectors[0], self.vectors[1])

    @property
    def unit(self) -> FloatArray:
        return self.vectors[2]

    @property
    def moved(self) -> FloatArray:
        return self.vectors[3]

    @property
    def moved_g(self) -> FloatArray:
        return self.vectors[4]


@dataclass
class Grader:
    """One node's view of its peers over the rounds. Fed every round in order, it depends on published models only.

    Attributes:
        me: Index of the grading node.
        settings: The thresholds.
    """

    me: int
    settings: GradeSettings = field(default_factory=GradeSettings)
    _newest: dict[int, _Submission] = field(default_factory=dict)
    """Of every node, active or not."""
    _known: dict[int, list[_Submission]] = field(default_factory=dict)
    _shelf: Shelf = field(default_factory=Shelf)

    def review(self, start: Flat, models: Mapping[int, Flat], losses: Mapping[int, float]) -> dict[int, Grade]:
        """Grade all peers of a round and remember their movements.

        Args:
            start: The aggregate that this node started the round from.
            models: Node -> published model of the round, this node's included; who is absent is missing.
            losses: Node -> mean softplus(-D(x)) of its model on this node's validation records.
        """
        before = {k: known[-1:] for k, known in self._known.items()}  # for copies
        self._feed(dict.fromkeys(models, (0, start)), models, losses)
        # All train in every round: a model of another round is no measure of this one.
        self._known = {k: self._known[k][-1:] for k in models}
        changes = [change for known in self._known.values() if (change := known[-1].change) is not None]
        stale = self.settings.stale * _median(changes)
        return self._grades(models, lambda j: self._fault(j, before, stale))

    def review_new(
        self,
        starts: Mapping[int, tuple[int, Flat]],
        models: Mapping[int, Flat],
        losses: Mapping[int, float],
        among: Collection[int],
    ) -> dict[int, Grade]:
        """Grade those peers who submitted to a window where nobody waits for anybody; remember their movements.

        None are graded by a node that has submitted nothing yet: it has nothing to hold them against.

        Args:
            starts: Node -> the view that its model was trained from, and the join of the inputs that it names, checked.
            models: Node -> published model of the window, this node's too if it has one.
            losses: Node -> mean softplus(-D(x)) of its model on this node's validation records.
            among: The nodes whose submissions are the measure: those that are active.
        """
        self._known = {k: known for k, known in self._known.items() if k in among}
        before = {k: list(known) for k, known in self._known.items()}
        self._feed(starts, models, losses)
        return self._grades(models, lambda j: self._fault_new(j, before)) if self.has_moved else {}

    @property
    def has_moved(self) -> bool:
        """Whether the node has a movement of its own to hold the others' against."""
        return self.me in self._known

    def _feed(
        self, starts: Mapping[int, tuple[int, Flat]], models: Mapping[int, Flat], losses: Mapping[int, float]
    ) -> None:
        """Take in new submissions, each once."""
        for k in sorted(models):
            (view, start), model, known = starts[k], models[k], self._known.setdefault(k, [])
            step, step_g = model.discriminator - start.discriminator, model.generator - start.generator
            unit, unit_g = _unit(step), _unit(step_g)
            moved, moved_g, keep = unit, unit_g, self.settings.memory
            if k in self._newest:
                moved, moved_g = keep * self._newest[k].moved + unit, keep * self._newest[k].moved_g + unit_g
            last = known[-1] if known else None
            change = None if last is None else _distance(model, last.model)
            alone = last is not None and _distance(start, last.model) == 0
            count = 1 if last is None else last.count + 1
            size, size_g = _norm(step), _norm(step_g)
            vectors = self._shelf.put([model.discriminator, model.generator, unit, moved, moved_g])
            self._newest[k] = _Submission(view, count, vectors, size, size_g, losses[k], change, alone)
            known.append(self._newest[k])
            del known[:-KEPT]

    def _measure(self, j: int) -> dict[int, _Submission]:
        """What the newest submission of j is held against: of every node that which began nearest to where j's did.

        Movements are long and alike at first, short and less alike later: a slow node's has to be compared with those
        of its own time. In lockstep that is the round's.
        """
        mine = self._known[j][-1]

        def apart(other: _Submission) -> tuple[int, int, int]:
            return abs(other.view - mine.view), abs(other.count - mine.count), -other.count

        return {k: mine if k == j else min(known, key=apart) for k, known in sorted(self._known.items())}

    def _fault(self, j: int, before: Mapping[int, Sequence[_Submission]], stale: float) -> str:
        """What is impossible for an honest model, in words; empty if nothing.

        Args:
            j: Whose newest submission it is.
            before: Node -> its submissions before; being near to another node's is a copy.
            stale: A change since its own last model that is less is none.
        """
        s, measure = self.settings, self._measure(j)
        mine, median = measure[j], _median(one.size for one in measure.values())
        rho, rho_g = _ratio(mine.size, median), _ratio(mine.size_g, _median(one.size_g for one in measure.values()))
        if not s.discriminator_range[0] <= rho <= s.discriminator_range[1]:
            return f"discriminator moved {rho:.2f} times the median"
        if not s.generator_range[0] <= rho_g <= s.generator_range[1]:
            return f"generator moved {rho_g:.2f} times the median"
        if mine.change is not None and mine.change < stale:
            return "hardly differs from its last model"
        others, model = (one for k, known in before.items() if k != j for one in known), mine.model
        if any(_distance(model, one.model) < s.copy_distance * median for one in others):
            return "copies another node's last model"
        return ""

    def _fault_new(self, j: int, before: Mapping[int, Sequence[_Submission]]) -> str:
        """The same where nobody waits: a copy of any model before, its own too, and a model far from all others.

        Who is fast among slow ones begins where it began before, and comes near its own last model by honest work: the
        change between two models says nothing here, only being the same does. And who goes on from its own model alone
        may be far away while it moves as others do: what it has done before is in its start, and not in its movement.
        """
        s, measure = self.settings, self._measure(j)
        mine, median = measure[j], _median(one.size for one in measure.values())
        model = mine.model
        if any(_distance(model, one.model) < s.copy_distance * median for one in before.get(j, ())):
            return "is one of its own models before"
        if mine.alone:
            apart = sorted(_distance(model, one.model) for k, one in measure.items() if k != j)
            # The lower median: half of the others may be hostile where they are fewer than half of all.
            away = _ratio(apart[(len(apart) - 1) // 2], median) if apart else 0.0
            if away > s.discriminator_range[1]:
                return f"is {away:.2f} times the median movement away from the others, by itself"
        return self._fault(j, before, 0.0)

    def _grades(self, models: Iterable[int], fault: Callable[[int], str]) -> dict[int, Grade]:
        """Grades of the newest submissions of some nodes; `fault` says what is hard about one."""
        s = self.settings
        grades: dict[int, Grade] = {}
        for j in sorted(models):
            if j == self.me:
                continue
            said = fault(j)
            if said:
                grades[j] = Grade(0, gated=True, fault=said)
                continue
            measure = self._measure(j)
            rho = _ratio(measure[j].size, _median(one.size for one in measure.values()))
            along = self._relative({k: one.unit for k, one in measure.items()}, s.floor)[j]
            along_all = self._relative({k: one.moved for k, one in measure.items()}, s.floor)[j]
            along_g = self._relative({k: one.moved_g for k, one in measure.items()}, s.generator_floor)[j]
            usual_loss = _median(one.loss for k, one in measure.items() if k != self.me)
            c = min(along_all, s.sudden + along, 1.0)
            low, high = s.alignment
            price = min(s.loss_most, s.loss_price * max(0.0, measure[j].loss - usual_loss - s.loss_free))
            e = float(np.clip((c - price - low) / (high - low), 0, 1))
            b = float(np.clip(1.0 + along_g, 0, 1))
            g = 100 * e * b / max(1.0, rho / s.free_ratio) ** 2
            grades[j] = Grade(int(np.clip(round(g), 1, 100)), gated=e == 0)
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


def _norm(vector: FloatArray) -> float:
    """L2 norm, not by BLAS: that splits the sum over threads, which rounds as there are cores and waits for them."""
    return math.sqrt(float(np.square(vector).sum()))


def _unit(vector: FloatArray) -> FloatArray:
    size = _norm(vector)
    return vector / size if size > 0 else np.zeros_like(vector)


def _median(values: Iterable[float]) -> float:
    known = list(values)
    return float(np.median(known)) if known else 0.0


def _distance(a: Flat, b: Flat) -> float:
    return _norm(a.discriminator - b.discriminator)


def _ratio(value: float, median: float) -> float:
    if median > 0:
        return value / median
    return 1.0 if value == 0 else np.inf
