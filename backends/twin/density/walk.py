"""A batch of Pauli vectors carried forwards through the blocks of a program, and the hand-written adjoint.

Positions that no block has joined yet stay product factors: the walk keeps *registers*, each the Pauli vectors
(rows, 4^w) of w positions. A block inside one register multiplies it; a block across two multiplies their outer
product, which is one register from then on. Which register meets which is known beforehand, so `Walk` is a list of
steps. With x -> G x the adjoint is cotangent -> G^T cotangent, and the derivative by G is the sum of cotangent x^T
over all other axes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from backends.twin.buffers import BufferPool
from backends.twin.density.arena import Arena
from backends.twin.density.rowwise import apply_rows, outer_rows, swap_pair
from backends.twin.modes import plainly

_BLOCK_BYTES = 2**21
"""On a CPU the rows go through all blocks a few at a time, so that their registers stay in its cache."""
_SPARES = 5
"""Largest registers that the adjoint of one step holds at once: two cotangents, an operand, two rearrangements."""

Matrix = Callable[[int], Tensor]


@dataclass(frozen=True)
class Step:
    """One block: the operands' product, its axes rearranged by `order` (None: as they are), times a 16x16 matrix.

    Registers 0 .. k-1 are the single positions, register k + s is what step s makes. `right` is how many elements
    follow the pair of axes; `swapped` says that the pair stands as (high, low).
    """

    operands: tuple[int, ...]
    order: tuple[int, ...] | None
    width: int
    right: int
    swapped: bool


class Walk:
    """The steps through blocks on `pairs` of k positions.

    Attributes:
        steps: One a block.
        finals: (register, its positions in the order of its axes), which together are all k positions.
    """

    def __init__(self, pairs: Sequence[tuple[int, int]], positions: int) -> None:
        self.positions = positions
        axes: dict[int, tuple[int, ...]] = {p: (p,) for p in range(positions)}
        home = list(range(positions))
        self.steps: list[Step] = []
        self.consumer: dict[int, int] = {}
        for number, pair in enumerate(pairs):
            operands = tuple(sorted({home[p] for p in pair}, key=lambda register: min(axes[register])))
            joined = tuple(p for register in operands for p in axes.pop(register))
            low, high = (joined.index(p) for p in pair)
            after, order = joined, None
            if abs(low - high) > 1:  # gathered at the end, and left there
                after = (*(p for p in joined if p not in pair), *pair)
                order = tuple(joined.index(p) for p in after)
                low, high = len(after) - 2, len(after) - 1
            right = 4 ** (len(after) - 1 - max(low, high))
            self.steps.append(Step(operands, order, len(after), right, low > high))
            self.consumer.update(dict.fromkeys(operands, number))
            axes[positions + number] = after
            for p in after:
                home[p] = positions + number
        self.finals = tuple(axes.items())
        self.widest = max((step.width for step in self.steps), default=1)

    @property
    def tape(self) -> int:
        """Elements a row of all registers that are kept for the adjoint (the last ones are handed out)."""
        return sum(4**s.width for n, s in enumerate(self.steps) if self.positions + n in self.consumer)

    def segments(self, limit: float) -> list[tuple[int, int]]:
        """Cut the steps so that the registers at the cuts and those inside one segment are about `limit` a row."""
        count, tape = len(self.steps), self.tape
        best = max(1, math.isqrt(count))
        for pieces in range(1, best + 1):
            if (pieces - 1) * 4**self.widest + tape / pieces <= limit:
                best = pieces
                break
        length = math.ceil(count / best)
        return [(start, min(start + length, count)) for start in range(0, count, length)]

    def kept(self, limit: float) -> float:
        """Elements a row that the adjoint holds when it recomputes `segments(limit)`."""
        pieces = len(self.segments(limit))
        return (pieces - 1) * 4**self.widest + self.tape / max(pieces, 1)

    def alive(self, start: int) -> set[int]:
        """Registers made before step `start` and not yet used up."""
        made = (self.positions + s for s in range(start))
        return {register for register in made if self.consumer.get(register, start) >= start}

    def rows_at_once(self, like: Tensor, batch: int) -> int:
        """How many rows go through all steps together."""
        if like.device.type != "cpu":
            return batch
        return min(batch, max(1, _BLOCK_BYTES // (like.element_size() * 4**self.widest)))


def walk_forward(
    walk: Walk,
    first: Tensor,
    shared: Tensor,
    by_row: Tensor,
    *,
    where: Sequence[tuple[bool, int]],
    pool: BufferPool,
    keep: bool,
    limit: float,
) -> dict[int, Tensor]:
    """All registers that are left at the end: register -> (batch, 4^w); differentiable.

    Args:
        walk: The steps.
        first: (k, batch, 4) the positions before the first block.
        shared: (s, 16, 16) matrices that are the same for all rows.
        by_row: (t, batch, 16, 16) matrices of each row.
        where: For every step whether it takes one `by_row`, and which.
        pool: Where large buffers come from.
        keep: Whether the adjoint finds the registers kept; else it computes them again.
        limit: Elements a row that it may hold then (`Walk.segments`).
    """
    result = {register: first[register] for register, _ in walk.finals if register < walk.positions}
    if walk.steps:
        made = [register for register, _ in walk.finals if register >= walk.positions]
        results = _Forward.apply(first, shared, by_row, _Job(walk, tuple(where), pool, keep, limit))
        result |= zip(made, results, strict=True)
    return result


@dataclass(frozen=True)
class _Job:
    walk: Walk
    where: tuple[tuple[bool, int], ...]
    pool: BufferPool
    keep: bool
    limit: float

    def parts(self, first: Tensor) -> list[slice]:
        batch = first.shape[1]
        size = self.walk.rows_at_once(first, batch)
        return [slice(start, min(start + size, batch)) for start in range(0, batch, size)]

    def matrices(self, shared: Tensor, by_row: Tensor, part: slice) -> Matrix:
        def matrix(step: int) -> Tensor:
            rows, index = self.where[step]
            found = by_row[index, part] if rows else shared[index]
            if not self.walk.steps[step].swapped:
                return found
            return swap_pair(found)

        return matrix


class _Forward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, first: Tensor, shared: Tensor, by_row: Tensor, job: _Job) -> tuple[Tensor, ...]:
        walk, batch, parts = job.walk, first.shape[1], job.parts(first)
        keep = job.keep and any(ctx.needs_input_grad)
        rows = parts[0].stop
        arena = Arena(job.pool, first, (walk.tape * batch if keep else 0) + _SPARES * rows * 4**walk.widest)
        made = [register for register, _ in walk.finals if register >= walk.positions]
        results = {
            register: first.new_empty(batch, 4 ** walk.steps[register - walk.positions].width) for register in made
        }
        tapes = []
        for part in parts:
            registers = dict(enumerate(first[:, part]))
            outs = {register: result[part] for register, result in results.items()}
            matrix = job.matrices(shared, by_row, part)
            _run(walk, range(len(walk.steps)), registers, matrix, arena, keep=None if keep else set(), outs=outs)
            tapes.append(registers)
        ctx.save_for_backward(first, shared, by_row)
        ctx.job, ctx.arena, ctx.tapes = job, arena if keep else None, tapes if keep else None
        return tuple(results[register] for register in made)

    @staticmethod
    @torch.autograd.function.once_differentiable
    @plainly
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        first, shared, by_row = ctx.saved_tensors
        job: _Job = ctx.job
        walk, parts = job.walk, job.parts(first)
        segments = [(0, len(walk.steps))] if ctx.tapes else walk.segments(job.limit)
        arena = ctx.arena
        if arena is None:
            elements = int(walk.kept(job.limit)) + _SPARES * 4**walk.widest
            arena = Arena(job.pool, first, elements * parts[0].stop)
        by_first, by_shared, by_by_row = torch.zeros_like(first), torch.zeros_like(shared), torch.empty_like(by_row)
        made = [register for register, _ in walk.finals if register >= walk.positions]
        for number, part in enumerate(parts):
            matrix = job.matrices(shared, by_row, part)
            registers = ctx.tapes[number] if ctx.tapes else dict(enumerate(first[:, part]))
            if not ctx.tapes:
                keep = set().union(*(walk.alive(start) for start, _ in segments))
                _run(walk, range(segments[-1][0]), registers, matrix, arena, keep=keep)
            pulls = {r: arena.take(c[part].shape).copy_(c[part]) for r, c in zip(made, cotangents, strict=True)}
            for start, stop in reversed(segments):
                if not ctx.tapes:
                    inner = [s for s in range(start, stop) if walk.consumer.get(walk.positions + s, stop) < stop]
                    _run(walk, inner, registers, matrix, arena, keep=None)
                for s in range(stop - 1, start - 1, -1):
                    derivative = _pull_back(walk, s, registers, pulls, matrix=matrix, arena=arena)
                    rows, index = job.where[s]
                    if walk.steps[s].swapped:
                        derivative = swap_pair(derivative)
                    if rows:
                        by_by_row[index, part] = derivative
                    else:
                        by_shared[index] += derivative.sum(0)
                if not ctx.tapes:
                    for register in [r for r in registers if r >= walk.positions + start]:
                        arena.give(registers.pop(register))
            for position, pull in pulls.items():
                by_first[position, part] = pull
                arena.give(pull)
        return by_first, by_shared, by_by_row, None


def _run(
    walk: Walk,
    steps: Sequence[int],
    registers: dict[int, Tensor],
    matrix: Matrix,
    arena: Arena,
    *,
    keep: set[int] | None,
    outs: dict[int, Tensor] | None = None,
) -> None:
    """Take steps, adding to `registers`; those used up are dropped unless in `keep` (None: all stay)."""
    outs = outs or {}
    for s in steps:
        step, made = walk.steps[s], walk.positions + s
        x = _enter(step, registers, arena)
        out = outs[made] if made in outs else arena.take(x.shape)
        apply_rows(x, matrix(s), step.right, out)
        if x is not registers[step.operands[0]]:
            arena.give(x)
        if keep is not None:
            for register in step.operands:
                if register >= walk.positions and register not in keep:
                    arena.give(registers.pop(register))
        if made not in outs:
            registers[made] = out


def _enter(step: Step, registers: dict[int, Tensor], arena: Arena) -> Tensor:
    """(rows, 4^w): what the step's matrix acts on; the operand itself where nothing has to be done."""
    operands = [registers[register] for register in step.operands]
    if len(operands) == 1 and step.order is None:
        return operands[0]
    x = operands[0]
    rows = len(x)
    if len(operands) == 2:
        a, b = operands
        x = arena.take((rows, a.shape[1] * b.shape[1]))
        torch.mul(a[:, :, None], b[:, None, :], out=x.view(rows, a.shape[1], b.shape[1]))
    if step.order is None:
        return x
    shape = (rows, *(4,) * step.width)
    moved = arena.take(x.shape)
    moved.view(shape).copy_(x.view(shape).permute(0, *(axis + 1 for axis in step.order)))
    if len(operands) == 2:
        arena.give(x)
    return moved


def _pull_back(
    walk: Walk, s: int, registers: dict[int, Tensor], pulls: dict[int, Tensor], *, matrix: Matrix, arena: Arena
) -> Tensor:
    """Replace the cotangent of what step s made by those of its operands; (rows or 1, 16, 16) the derivative by G."""
    step = walk.steps[s]
    x, pull, g = _enter(step, registers, arena), pulls.pop(walk.positions + s), matrix(s)
    derivative = outer_rows(pull, x, step.right, len(x) if g.ndim == 3 else 1)
    if x is not registers[step.operands[0]]:
        arena.give(x)
    back = apply_rows(pull, g.transpose(-1, -2), step.right, arena.take(pull.shape))
    arena.give(pull)
    rows = len(back)
    if step.order is not None:
        moved, shape = arena.take(back.shape), (rows, *(4,) * step.width)
        moved.view(shape).permute(0, *(axis + 1 for axis in step.order)).copy_(back.view(shape))
        arena.give(back)
        back = moved
    if len(step.operands) == 1:
        pulls[step.operands[0]] = back
        return derivative
    a, b = (registers[register] for register in step.operands)
    both = back.view(rows, a.shape[1], b.shape[1])
    for register, left, right, like in (
        (step.operands[0], both, b[:, :, None], a),
        (step.operands[1], a[:, None, :], both, b),
    ):
        pulls[register] = arena.take(like.shape)
        torch.bmm(left, right, out=pulls[register].view(rows, left.shape[1], right.shape[2]))
    arena.give(back)
    return derivative
