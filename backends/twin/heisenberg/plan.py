"""In which order, and on how many wires, a set of observables is carried back through a program.

A channel keeps the trace, so that the identity stays the identity when carried backwards. An observable therefore
lives on the wires that a block has connected it to so far, its light cone, and a block outside leaves it alone. The
plan follows the supports block by block from the end: a *slot* is a set of observables (rows) on one support, stored
as (rows, 4^|support|), positions ascending. A block with both wires in the support is a 16x16 product, with one of
them it adds the other (4 -> 16). Small slots are joined, since a call then costs more than its arithmetic; where two
blocks meet on the last three axes, they are one 64x64 product, since a 16x16 one over four columns is slow.

This module knows no torch; `heisenberg` executes the plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from backends.observables import PauliSum
from backends.twin.program import Program

_SMALL = 2**14
"""Up to so many elements, joining two slots saves more in calls than it costs in arithmetic."""


_WORTH_FUSING = 2**12
"""From so many elements on, fusing two blocks saves more than making their matrix costs."""


@dataclass(frozen=True)
class Start:
    """A slot comes to life: its observables as measured, before the last runs.

    `terms` are the rows' (row, coefficient, Pauli by position of the support).
    """

    slot: int
    rows: tuple[int, ...]
    support: tuple[int, ...]
    terms: tuple[tuple[int, float, tuple[int, ...]], ...]
    elements: int


@dataclass(frozen=True)
class Apply:
    """One block, or two fused ones, on a slot seen as (left, low, middle, high, right).

    low and high are 4 where the wire is in the support, else 1: there the block adds it. `matrix` is the block's
    number, or the number of the pair in `Plan.fused` where `is_fused`; then the slot is (left, 64).
    """

    slot: int
    matrix: int
    left: int
    low: int
    middle: int
    high: int
    right: int
    is_fused: bool
    elements: int

    @property
    def flops(self) -> int:
        """Of the product: two for each multiply and add."""
        return 2 * self.elements * (64 if self.is_fused else self.low * self.high)


@dataclass(frozen=True)
class Join:
    """Slots become one on a common support: rows in order, identity on the wires that a slot did not have.

    `supports` and `heights` are the supports and numbers of rows of the parts.
    """

    slots: tuple[int, ...]
    slot: int
    supports: tuple[tuple[int, ...], ...]
    heights: tuple[int, ...]
    rows: tuple[int, ...]
    support: tuple[int, ...]
    elements: int


Step = Start | Apply | Join


@dataclass(frozen=True)
class Fused:
    """Two blocks as one 64x64 matrix on three neighbouring axes; `first` is applied first (it is the later in time).

    `first_is_low`: the first block is on the lower two axes, the second on the upper two; else the other way round.
    """

    first: int
    second: int
    first_is_low: bool


@dataclass(frozen=True)
class End:
    """What is left of a slot when all blocks are done: rows (observable numbers) and support."""

    slot: int
    rows: tuple[int, ...]
    support: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """How a set of observables is evaluated.

    Attributes:
        steps: In the order of execution, backwards in time.
        ends: The slots that are contracted with the product states.
        fused: Pairs of blocks that are one matrix.
        elements: Of all slots after all steps: what a gradient keeps.
        largest: Elements of the largest slot.
        flops: Of all products of one walk (a gradient takes three).
        is_chain: There is one slot, so that a walk needs two buffers only.
    """

    steps: tuple[Step, ...]
    ends: tuple[End, ...]
    fused: tuple[Fused, ...]
    elements: int
    largest: int
    flops: int
    is_chain: bool


class _Slot:
    def __init__(self, number: int, rows: tuple[int, ...], support: tuple[int, ...]) -> None:
        self.number, self.rows, self.support = number, rows, support

    @property
    def elements(self) -> int:
        return len(self.rows) * 4 ** len(self.support)


class _Planner:
    def __init__(self, *, join_alike: bool) -> None:
        self.join_alike = join_alike
        self.steps: list[Step] = []
        self.slots: list[_Slot] = []
        self.count = 0

    def start(self, number: int, observable: Sequence[tuple[float, tuple[tuple[int, int], ...]]]) -> None:
        support = tuple(sorted({position for _, factors in observable for position, _ in factors}))
        slot = self._new((number,), support)
        paulis = [dict(factors) for _, factors in observable]
        terms = tuple(
            (0, coefficient, tuple(of.get(position, 0) for position in support))
            for (coefficient, _), of in zip(observable, paulis, strict=True)
        )
        self.steps.append(Start(slot.number, slot.rows, support, terms, slot.elements))

    def apply(self, number: int, low: int, high: int) -> None:
        for slot in self.slots:
            if low not in slot.support and high not in slot.support:
                continue
            before, after = set(slot.support), tuple(sorted({*slot.support, low, high}))
            a, b = after.index(low), after.index(high)
            width = len(after)
            slot.support = after
            self.steps.append(
                Apply(
                    slot=slot.number,
                    matrix=number,
                    left=len(slot.rows) * 4**a,
                    low=4 if low in before else 1,
                    middle=4 ** (b - a - 1),
                    high=4 if high in before else 1,
                    right=4 ** (width - b - 1),
                    is_fused=False,
                    elements=slot.elements,
                )
            )

    def join_small(self) -> None:
        """Join small slots, and of equal support also large ones where that is wanted, greedily."""
        again = True
        while again:
            again = False
            by_size = sorted(self.slots, key=lambda slot: (slot.elements, slot.number))
            for i, a in enumerate(by_size):
                for b in by_size[i + 1 :]:
                    union = tuple(sorted({*a.support, *b.support}))
                    elements = (len(a.rows) + len(b.rows)) * 4 ** len(union)
                    if elements <= _SMALL or (self.join_alike and a.support == b.support):
                        self._join(a, b, union)
                        again = True
                        break
                if again:
                    break

    def _join(self, a: _Slot, b: _Slot, support: tuple[int, ...]) -> None:
        a, b = sorted((a, b), key=lambda slot: slot.rows)
        self.slots = [slot for slot in self.slots if slot is not a and slot is not b]
        new = self._new((*a.rows, *b.rows), support)
        self.steps.append(
            Join(
                slots=(a.number, b.number),
                slot=new.number,
                supports=(a.support, b.support),
                heights=(len(a.rows), len(b.rows)),
                rows=new.rows,
                support=support,
                elements=new.elements,
            )
        )

    def _new(self, rows: tuple[int, ...], support: tuple[int, ...]) -> _Slot:
        slot = _Slot(self.count, rows, support)
        self.count += 1
        self.slots.append(slot)
        return slot


def make_plan(
    program: Program, observables: Sequence[PauliSum], numbers: Sequence[int], *, by_block: bool = False
) -> Plan:
    """Plan the walk of some of the observables (`numbers`) back through a program.

    The observables are given on virtual qubits; positions are looked up in `program.outputs`. With `by_block` every
    block is a step of its own, and slots of equal support are one: what a Jacobian takes.
    """
    planner = _Planner(join_alike=by_block)
    for number in numbers:
        planner.start(
            number,
            [
                (coefficient, tuple((program.outputs[qubit], pauli) for qubit, pauli in factors))
                for coefficient, factors in observables[number]
            ],
        )
    planner.join_small()
    for index in range(len(program.blocks) - 1, -1, -1):
        planner.apply(index, program.blocks[index].low, program.blocks[index].high)
        planner.join_small()
    joined = _join_starts(planner.steps)
    steps, fused = (tuple(joined), ()) if by_block else _fuse(joined)
    applied = [step for step in steps if isinstance(step, Apply)]
    return Plan(
        steps=steps,
        ends=tuple(End(slot.number, slot.rows, slot.support) for slot in planner.slots),
        fused=fused,
        elements=sum(step.elements for step in steps),
        largest=max(step.elements for step in steps),
        flops=sum(step.flops for step in applied),
        is_chain=sum(isinstance(step, Start) for step in steps) == 1,
    )


def split_sums(program: Program, observables: Sequence[PauliSum]) -> tuple[tuple[PauliSum, ...], tuple[int, ...]]:
    """Take sums apart whose terms have small light cones, but a large one together (a chain's energy, say).

    Returns:
        The parts, and for each the number of its observable.
    """
    parts: list[PauliSum] = []
    owners: list[int] = []
    for number, observable in enumerate(observables):
        groups = _by_support(observable)
        if 1 < len(groups) <= _GROUPS:
            together, apart = _work(program, observable), sum(_work(program, group) for group in groups)
            if together <= apart:
                groups = [observable]
        elif len(groups) != 1:
            groups = [observable]
        parts += groups
        owners += [number] * len(groups)
    return tuple(parts), tuple(owners)


_GROUPS = 1024
"""Sums with more different supports are not taken apart: planning each takes about a millisecond."""


def _by_support(observable: PauliSum) -> list[PauliSum]:
    """The terms by support; a support inside another one joins it."""
    groups: dict[frozenset[int], list[tuple[float, tuple[tuple[int, int], ...]]]] = {}
    by_size = sorted(observable, key=lambda term: (-len(term[1]), term[1]))
    for term in by_size:
        support = frozenset(qubit for qubit, _ in term[1])
        home = next((known for known in groups if support <= known), support)
        groups.setdefault(home, []).append(term)
    return [tuple(terms) for terms in groups.values()]


def _work(program: Program, observable: PauliSum) -> int:
    return make_plan(program, [observable], [0]).flops


def _join_starts(steps: Sequence[Step]) -> list[Step]:
    """Where slots are joined before anything happened to them, start with the joined one."""
    starts: dict[int, Start] = {}
    rest: list[Step] = []
    for step in steps:
        if isinstance(step, Start):
            starts[step.slot] = step
        elif isinstance(step, Join) and all(slot in starts for slot in step.slots):
            terms: list[tuple[int, float, tuple[int, ...]]] = []
            first_row = 0
            for slot in step.slots:
                start = starts.pop(slot)
                where = {position: axis for axis, position in enumerate(start.support)}
                terms += [
                    (
                        first_row + row,
                        coefficient,
                        tuple(paulis[where[position]] if position in where else 0 for position in step.support),
                    )
                    for row, coefficient, paulis in start.terms
                ]
                first_row += len(start.rows)
            starts[step.slot] = Start(step.slot, step.rows, step.support, tuple(terms), step.elements)
        else:
            used = step.slots if isinstance(step, Join) else (step.slot,)
            rest += [starts.pop(slot) for slot in used if slot in starts]
            rest.append(step)
    return [*rest, *starts.values()]


def _fuse(steps: Sequence[Step]) -> tuple[tuple[Step, ...], tuple[Fused, ...]]:
    """Make one step of two neighbouring ones on the last three axes of a slot."""
    result: list[Step] = []
    pairs: dict[Fused, int] = {}
    last: dict[int, int] = {}  # slot -> where its last step stands in `result`
    for step in steps:
        if not isinstance(step, Apply):
            for slot in step.slots if isinstance(step, Join) else ():
                last.pop(slot, None)
            result.append(step)
            last[step.slot] = len(result) - 1
            continue
        index = last.get(step.slot)
        before = None if index is None else result[index]
        if isinstance(before, Apply) and index is not None and _meet(before, step):
            pair = Fused(before.matrix, step.matrix, before.right == 4)
            number = pairs.setdefault(pair, len(pairs))
            result[index] = replace(
                before, matrix=number, left=before.elements // 64, low=4, middle=4, high=4, right=1, is_fused=True
            )
            continue
        result.append(step)
        last[step.slot] = len(result) - 1
    return tuple(result), tuple(pairs)


def _meet(a: Apply, b: Apply) -> bool:
    """Both full, on neighbouring axes, one with four columns to its right and one with none."""
    if a.elements < _WORTH_FUSING:
        return False
    whole = all(step.low == step.high == 4 and step.middle == 1 and not step.is_fused for step in (a, b))
    return whole and {a.right, b.right} == {1, 4}
