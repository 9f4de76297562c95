"""One walk of a set of observables back through a program, and the way forth of its adjoint."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from backends.twin.buffers import BufferPool, Lease
from backends.twin.heisenberg.apply import Block, Views, add_outer, apply_adjoint, apply_block
from backends.twin.heisenberg.blocks import Matrices
from backends.twin.heisenberg.plan import Apply, Join, Plan, Start
from backends.twin.heisenberg.starts import start_of

_OWN = 2**20
"""Bytes up to which a plan's workspaces are its own and keep their views; larger ones are leased from the pool."""


_SPARE = 2**24
"""Bytes of idle workspaces that a plan keeps of each kind: all circuits of a step that share it hold one each."""

_STEP = 2**11
"""Bytes that a step's views take."""


class Itinerary:
    """A plan with what it needs on a device: starts, offsets of every step's output in a buffer, workspaces.

    Args:
        plan: From `make_plan`.
        fused: The number of each of the plan's fused pairs in `Matrices.fused`.
        pool: Where large buffers come from.
        like: Gives the dtype and the device.
    """

    def __init__(self, plan: Plan, fused: Sequence[int], pool: BufferPool, like: Tensor) -> None:
        self.plan, self.fused = plan, tuple(fused)
        self.starts = {
            index: start_of(step, like.dtype, like.device)
            for index, step in enumerate(plan.steps)
            if isinstance(step, Start)
        }
        offsets = [0]
        for step in plan.steps:
            offsets.append(offsets[-1] + step.elements)
        self._apart, self._in_turn = offsets, [(index % 2) * plan.largest for index in range(len(plan.steps))]
        self._pool, self._like = pool, like
        self._idle: dict[bool, list[Workspace]] = {False: [], True: []}
        views = _STEP * len(plan.steps)
        self._bytes = {
            in_turn: views + like.element_size() * (2 * plan.largest if in_turn else offsets[-1])
            for in_turn in (False, True)
        }

    @property
    def kept(self) -> int:
        """Elements that a walk keeps for its gradient."""
        return self._apart[-1]

    def workspace(self, *, keep: bool) -> Workspace:
        """A buffer for one walk: with a place for every step, or, of a chain that is not kept, two places in turn."""
        in_turn = self.plan.is_chain and not keep
        try:
            return self._idle[in_turn].pop()
        except IndexError:
            pass  # Asked this way, since threads may ask at once.
        offsets = self._in_turn if in_turn else self._apart
        size = 2 * self.plan.largest if in_turn else self.kept
        if size * self._like.element_size() > _OWN:
            lease = self._pool.lease((size,), self._like)
            return Workspace(self.plan, lease.buffer, offsets, lease=lease, in_turn=in_turn)
        return Workspace(self.plan, self._like.new_empty(size), offsets, lease=None, in_turn=in_turn)

    def give_back(self, workspace: Workspace) -> None:
        """Keep a small workspace for the next walk."""
        idle = self._idle[workspace.in_turn]
        if workspace.lease is None and len(idle) * self._bytes[workspace.in_turn] < _SPARE:
            idle.append(workspace)


class Workspace:
    """A buffer with a place for every step's output.

    Attributes:
        outputs: Of every step, flat.
        inputs: Of every step, by slot: outputs of earlier steps.
        views: Of blocks, in the shapes that their products take.
        ends: The last output of every slot.
    """

    def __init__(
        self, plan: Plan, buffer: Tensor, offsets: Sequence[int], *, lease: Lease | None, in_turn: bool
    ) -> None:
        self.lease, self.in_turn = lease, in_turn
        self.outputs: list[Tensor] = []
        self.inputs: list[list[Tensor]] = []
        self.views: list[Views | None] = []
        self.ends: dict[int, Tensor] = {}
        for index, step in enumerate(plan.steps):
            out = buffer[offsets[index] : offsets[index] + step.elements]
            self.outputs.append(out)
            self.inputs.append([self.ends.pop(slot) for slot in step.slots] if isinstance(step, Join) else [])
            self.views.append(Views(step, self.ends[step.slot], out) if isinstance(step, Apply) else None)
            self.ends[step.slot] = out


class Cotangents:
    """What an adjoint walk adds to: by `Matrices.stacked`, by `Matrices.fused`, and by the table of measured Paulis."""

    def __init__(self, matrices: Matrices, table: Tensor) -> None:
        self.single = torch.zeros_like(matrices.stacked)
        self.fused = table.new_zeros(len(matrices.fused), 64, 64)
        self.table = torch.zeros_like(table)
        self.of_single = self.single.unbind()
        self.of_fused = self.fused.unbind() if matrices.fused else ()

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
        keep: Keep all that `adjoint` needs; without it a chain takes two buffers.
    """

    def __init__(self, itinerary: Itinerary, matrices: Matrices, table: Tensor, *, keep: bool) -> None:
        self._of, self._matrices, self._table = itinerary, matrices, table
        self._space = space = itinerary.workspace(keep=keep)
        for index, step in enumerate(itinerary.plan.steps):
            if isinstance(step, Apply):
                apply_block(_known(space.views[index]), self._block(step), step)
            elif isinstance(step, Start):
                itinerary.starts[index].write(table, space.outputs[index])
            else:
                _join(space.inputs[index], step, space.outputs[index])

    def vectors(self, slot: int) -> Tensor:
        """What is there at the end, flat."""
        return self._space.ends[slot]

    @property
    def outputs(self) -> Sequence[Tensor]:
        """What every step gave, flat; only of a walk that keeps."""
        return self._space.outputs

    def adjoint(self, cotangents: dict[int, Tensor], into: Cotangents) -> None:
        """Carry the cotangents of `vectors` (by slot, flat) forth, and add what they give on the way."""
        plan = self._of.plan
        space = self._of.workspace(keep=False)
        for slot, cotangent in cotangents.items():
            space.ends[slot].copy_(cotangent)
        for index in range(len(plan.steps) - 1, -1, -1):
            step = plan.steps[index]
            if isinstance(step, Apply):
                views, fused = _known(space.views[index]), step.is_fused
                gradient = into.of_fused[self._of.fused[step.matrix]] if fused else into.of_single[step.matrix]
                add_outer(_known(self._space.views[index]), views, step, gradient)
                apply_adjoint(views, self._block(step), step)
            elif isinstance(step, Start):
                self._of.starts[index].add_adjoint(space.outputs[index], self._table, into.table)
            else:
                _split(space.outputs[index], step, space.inputs[index])
        self._of.give_back(space)

    def _block(self, step: Apply) -> Block:
        if step.is_fused:
            return self._matrices.fused[self._of.fused[step.matrix]]
        return self._matrices.single[step.matrix]

    def __del__(self) -> None:
        space = getattr(self, "_space", None)
        if space is not None:
            self._of.give_back(space)


def _known(views: Views | None) -> Views:
    assert views is not None
    return views


def _join(parts: Sequence[Tensor], step: Join, out: Tensor) -> None:
    out.zero_()
    whole, row = out.view(-1, *[4] * len(step.support)), 0
    for part, support, height in zip(parts, step.supports, step.heights, strict=True):
        whole[(slice(row, row + height), *_where(step, support))] = part.view(-1, *[4] * len(support))
        row += height


def _split(cotangent: Tensor, step: Join, parts: Sequence[Tensor]) -> None:
    whole, row = cotangent.view(-1, *[4] * len(step.support)), 0
    for part, support, height in zip(parts, step.supports, step.heights, strict=True):
        part.view(-1, *[4] * len(support)).copy_(whole[(slice(row, row + height), *_where(step, support))])
        row += height


def _where(step: Join, support: tuple[int, ...]) -> list[slice | int]:
    return [slice(None) if position in support else 0 for position in step.support]
