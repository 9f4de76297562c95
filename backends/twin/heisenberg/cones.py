"""What a Jacobian's sweep does at each block: which observables it meets there, and on which wires states are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from backends.observables import PauliSum
from backends.twin.heisenberg.plan import Apply, Join, Plan, Start, make_plan
from backends.twin.program import Program


@dataclass(frozen=True)
class Visit:
    """A block comes to a slot: the step, the one before it on the slot, the slot's rows and its support after it."""

    before: int
    step: Apply
    rows: tuple[int, ...]
    support: tuple[int, ...]


@dataclass(frozen=True)
class Ahead:
    """A block on the states, as a step of one row that is taken the other way; on which wires they are read later."""

    step: Apply
    wires: tuple[int, ...]


class Cone:
    """Some of the observables: their walk, and what it asks of the states.

    Attributes:
        plan: The walk, block by block.
        starts: Where observables come to life, with the number of the step.
        visits: For each block the slots that it comes to.
        ahead: For each block what it does to the states; None where nobody reads it.
        wires, read: Those that the states are read on in the beginning, and in the end.
    """

    def __init__(self, program: Program, plan: Plan) -> None:
        self.plan = plan
        self.starts = [(index, step) for index, step in enumerate(plan.steps) if isinstance(step, Start)]
        self.visits: list[list[Visit]] = [[] for _ in program.blocks]
        slots: dict[int, tuple[int, tuple[int, ...], tuple[int, ...]]] = {}
        for index, step in enumerate(plan.steps):
            if isinstance(step, Start | Join):
                slots[step.slot] = index, step.rows, step.support
                continue
            last, rows, support = slots[step.slot]
            block = program.blocks[step.matrix]
            support = tuple(sorted({*support, block.low, block.high}))
            self.visits[step.matrix].append(Visit(last, step, rows, support))
            slots[step.slot] = index, rows, support
        self.ahead: list[Ahead | None] = [None] * len(program.blocks)
        wires = tuple(sorted({position for _, start in self.starts for position in start.support}))
        self.read = wires
        for number in range(len(program.blocks) - 1, -1, -1):
            low, high = program.blocks[number].low, program.blocks[number].high
            if low not in wires and high not in wires:
                continue
            before = tuple(sorted({*wires, low, high}))
            a, b = before.index(low), before.index(high)
            step = Apply(
                slot=0,
                matrix=number,
                left=4**a,
                low=4 if low in wires else 1,
                middle=4 ** (b - a - 1),
                high=4 if high in wires else 1,
                right=4 ** (len(before) - b - 1),
                is_fused=False,
                elements=4 ** len(before),
            )
            self.ahead[number], wires = Ahead(step, wires), before
        self.wires = wires


def cones_of(program: Program, observables: Sequence[PauliSum], most: int) -> list[Cone]:
    """Cones whose walks keep at most so many elements each, or have one observable; the observables in order."""
    waiting, cones = [list(range(len(observables)))], []
    while waiting:
        numbers = waiting.pop()
        plan = make_plan(program, observables, numbers, by_block=True)
        if plan.elements <= most or len(numbers) == 1:
            cones.append(Cone(program, plan))
        else:
            half = len(numbers) // 2
            waiting += [numbers[half:], numbers[:half]]
    return cones
