"""One walk of a set of observables back through a program, and the way forth of its adjoint."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from backends.twin.apply import add_outer, apply_adjoint, apply_block
from backends.twin.blocks import Matrices
from backends.twin.buffers import BufferPool, Lease
from backends.twin.plan import Apply, Join, Plan, Start
from backends.twin.starts import start_of


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
            index: start_of(step, dtype, device) for index, step in enumerate(plan.steps) if isinstance(step, Start)
        }
        self.offsets, offset = [], 0
        for step in plan.steps:
            self.offsets.append(offset)
            offset += 0 if isinstance(step, Start) else step.elements
        self.kept = offset


class Cotangents:
    """What an adjoint walk adds to: by `Matrices.stacked`, by `Matrices.fused`, and by the table of measured Paulis."""

    def __init__(self, matrices: Matrices, table: Tensor) -> None:
        self.single = torch.zeros_like(matrices.stacked)
        self.fused = table.new_zeros(len(matrices.fused), 64, 64)
        self.table = torch.zeros_like(table)
        self.of_single, self.of_fused = self.single.unbind(), self.fused.unbind()

    def add(self, other: Cotangents) -> None:
        """Add another walk's."""
        self.single += other.single
        self.fused += other.fused
        self.table += other.table


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
        self._inputs: list[Tensor | None] = []
        """What went into each step, where it is kept and needed."""
        self.vectors: dict[int, Tensor] = {}
        """By slot: what is there at the end, flat."""
        slots = self.vectors
        for index, step in enumerate(plan.steps):
            if isinstance(step, Start):
                self._inputs.append(None)
                slots[step.slot] = itinerary.starts[index].vectors(table)
                continue
            assert self._lease is not None
            offset = (index % 2) * plan.largest if in_turn else itinerary.offsets[index]
            out = self._lease.buffer[offset : offset + step.elements]
            if isinstance(step, Apply):
                vectors = slots[step.slot]
                apply_block(vectors, self._matrix(step), step, out)
                self._inputs.append(vectors if keep else None)
            else:
                _join([slots.pop(slot) for slot in step.slots], step, out)
                self._inputs.append(None)
            slots[step.slot] = out

    def adjoint(self, cotangents: dict[int, Tensor], into: Cotangents) -> None:
        """Carry the cotangents of `vectors` (by slot, flat, contiguous) forth, and add what they give on the way."""
        plan = self._of.plan
        lease = self._pool.lease((2 * plan.largest,), self._table) if plan.is_chain and self._of.kept else None
        for index in range(len(plan.steps) - 1, -1, -1):
            step = plan.steps[index]
            cotangent = cotangents.pop(step.slot)
            if isinstance(step, Start):
                self._of.starts[index].add_adjoint(cotangent, self._table, into.table)
            elif isinstance(step, Apply):
                vectors = self._inputs[index]
                assert vectors is not None
                fused = step.is_fused
                gradient = into.of_fused[self._of.fused[step.matrix]] if fused else into.of_single[step.matrix]
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
