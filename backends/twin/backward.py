"""One walk of a set of observables back through a program, and the way forth of its adjoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from backends.twin.apply import add_outer, apply_adjoint, apply_block
from backends.twin.blocks import Matrices
from backends.twin.buffers import BufferPool, Lease
from backends.twin.plan import Apply, Join, Plan, Start
from backends.twin.products import Products


class Itinerary:
    """A plan with what it needs on a device: indices, coefficients, offsets in the kept buffer.

    Args:
        plan: From `make_plan`.
        fused: The number of each of the plan's fused pairs in `Matrices.fused`.
        dtype: torch.float32 or torch.float64.
        device: Where the tensors live.
    """

    def __init__(self, plan: Plan, fused: Sequence[int], dtype: torch.dtype, device: torch.device) -> None:
        self.plan, self.fused = plan, tuple(fused)
        self.starts = {
            index: _StartData(step, dtype, device) for index, step in enumerate(plan.steps) if isinstance(step, Start)
        }
        self.offsets, offset = [], 0
        for step in plan.steps:
            self.offsets.append(offset)
            offset += 0 if isinstance(step, Start) else step.elements
        self.kept = offset


@dataclass
class Cotangents:
    """What an adjoint walk adds to: by `Matrices.single`, by `Matrices.fused`, and by the table of measured Paulis."""

    single: Tensor
    fused: Tensor
    table: Tensor


class Walk:
    """The vectors of one plan for given matrices.

    Args:
        itinerary: What to walk.
        matrices: The blocks for the weights.
        table: (positions * 4, 4): by position and Pauli (I, Z, X, Y), what a measured one is before the last runs.
        pool: Where large buffers come from.
        keep: Keep all that `adjoint` needs; without it a chain takes two buffers.
    """

    def __init__(
        self, itinerary: Itinerary, matrices: Matrices, table: Tensor, pool: BufferPool, *, keep: bool
    ) -> None:
        self._of, self._matrices, self._table = itinerary, matrices, table
        plan = itinerary.plan
        in_turn = plan.is_chain and not keep
        size = 2 * plan.largest if in_turn else itinerary.kept
        self._lease: Lease | None = pool.lease((size,), table) if size else None
        self._pool = pool
        self._inputs: list[tuple[Tensor, ...]] = []
        """What went into each step."""
        self._starts: dict[int, _StartVectors] = {}
        self.vectors: dict[int, Tensor] = {}
        """By slot: what is there at the end, flat."""
        slots = self.vectors
        for index, step in enumerate(plan.steps):
            if isinstance(step, Start):
                start = self._starts[index] = _StartVectors(itinerary.starts[index], table)
                self._inputs.append(())
                slots[step.slot] = start.vectors
                continue
            assert self._lease is not None
            offset = (index % 2) * plan.largest if in_turn else itinerary.offsets[index]
            out = self._lease.buffer[offset : offset + step.elements]
            if isinstance(step, Apply):
                vectors = slots[step.slot]
                apply_block(vectors, self._matrix(step), step, out)
                self._inputs.append((vectors,) if keep else ())
            else:
                parts = tuple(slots.pop(slot) for slot in step.slots)
                _join(parts, step, out)
                self._inputs.append(())
            slots[step.slot] = out

    def adjoint(self, cotangents: dict[int, Tensor], into: Cotangents) -> None:
        """Carry the cotangents of `vectors` (by slot, flat, contiguous) forth, and add what they give on the way."""
        plan = self._of.plan
        lease = self._pool.lease((2 * plan.largest,), self._table) if plan.is_chain and self._of.kept else None
        for index in range(len(plan.steps) - 1, -1, -1):
            step = plan.steps[index]
            cotangent = cotangents.pop(step.slot)
            if isinstance(step, Start):
                self._starts[index].add_adjoint(cotangent, into.table)
            elif isinstance(step, Apply):
                (vectors,) = self._inputs[index]
                gradient = into.fused[self._of.fused[step.matrix]] if step.is_fused else into.single[step.matrix]
                add_outer(vectors, cotangent, step, gradient)
                if lease is None:
                    before = torch.empty_like(vectors)
                else:
                    offset = (index % 2) * plan.largest
                    before = lease.buffer[offset : offset + vectors.numel()]
                apply_adjoint(cotangent, self._matrix(step), step, before)
                cotangents[step.slot] = before
            else:
                for slot, part in zip(step.slots, _split(cotangent, step), strict=True):
                    cotangents[slot] = part

    def _matrix(self, step: Apply) -> Tensor:
        if step.is_fused:
            return self._matrices.fused[self._of.fused[step.matrix]]
        return self._matrices.single[step.matrix]


class _StartData:
    """Which entries of the table the terms of a start multiply, padded to the row with the most terms."""

    def __init__(self, step: Start, dtype: torch.dtype, device: torch.device) -> None:
        rows, width = len(step.rows), len(step.support)
        by_row: list[list[tuple[float, tuple[int, ...]]]] = [[] for _ in range(rows)]
        for row, coefficient, paulis in step.terms:
            by_row[row].append((coefficient, paulis))
        terms = max(1, *(len(row) for row in by_row))
        coefficients = torch.zeros(rows, terms, dtype=dtype)
        entries = torch.zeros(rows, terms, width, dtype=torch.long)
        for row, of_row in enumerate(by_row):
            for term, (coefficient, paulis) in enumerate(of_row):
                coefficients[row, term] = coefficient
                for axis, (position, pauli) in enumerate(zip(step.support, paulis, strict=True)):
                    entries[row, term, axis] = 4 * position + _INDEX[pauli]
        self.coefficients = coefficients.to(device)
        half = (width + 1) // 2
        self.entries = (entries[..., :half].contiguous().to(device), entries[..., half:].contiguous().to(device))
        self.halves = (half, width - half)
        self.shape = (rows, terms)


class _StartVectors:
    """sum_t c_t f_t1 x f_t2 x ... for each row, as a product of two halves."""

    def __init__(self, data: _StartData, table: Tensor) -> None:
        self._data = data
        self._products = [
            Products(table[entries.view(-1, width)]) if width else None
            for entries, width in zip(data.entries, data.halves, strict=True)
        ]
        rows, terms = data.shape
        left, right = (
            data.coefficients.new_ones(rows, terms, 1) if p is None else p.result.view(rows, terms, -1)
            for p in self._products
        )
        self._left, self._right = data.coefficients[..., None] * left, right
        self.vectors = torch.bmm(self._left.transpose(1, 2), right).view(-1)

    def add_adjoint(self, cotangent: Tensor, table: Tensor) -> None:
        """Add to the cotangent of the table."""
        data = self._data
        rows, terms = data.shape
        cotangent = cotangent.view(rows, self._left.shape[2], self._right.shape[2])
        left, right = self._products
        if left is not None:
            by_left = data.coefficients[..., None] * torch.bmm(self._right, cotangent.transpose(1, 2))
            table.index_add_(0, data.entries[0].view(-1), left.adjoint(by_left.view(rows * terms, -1)).view(-1, 4))
        if right is not None:
            by_right = torch.bmm(self._left, cotangent)
            table.index_add_(0, data.entries[1].view(-1), right.adjoint(by_right.view(rows * terms, -1)).view(-1, 4))


_INDEX = (0, 2, 3, 1)
"""Where I, X, Y, Z stand in the order I, Z, X, Y."""


def _join(parts: Sequence[Tensor], step: Join, out: Tensor) -> None:
    out.zero_()
    whole, row = out.view(-1, *[4] * len(step.support)), 0
    for part, support, height in zip(parts, step.supports, step.heights, strict=True):
        whole[(slice(row, row + height), *_where(step, support))] = part.view(-1, *[4] * len(support))
        row += height


def _split(cotangent: Tensor, step: Join) -> list[Tensor]:
    whole, row, parts = cotangent.view(-1, *[4] * len(step.support)), 0, []
    for support, height in zip(step.supports, step.heights, strict=True):
        parts.append(whole[(slice(row, row + height), *_where(step, support))].reshape(-1))
        row += height
    return parts


def _where(step: Join, support: tuple[int, ...]) -> list[slice | int]:
    return [slice(None) if position in support else 0 for position in step.support]
