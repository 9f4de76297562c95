"""All derivatives of all observables in all samples, from one sweep.

The m observables are walked back once and kept, O_s after block s; the B states are walked forth, rho_s before it. With
G_s(a) the block's channel behind its runs, and a one of their angles,

    d<O_m>_b / da = <(dG_s/da)^T O_m,s , rho_b,s>,

so that all samples and observables share one product of (angles * rows, 4^k) and (4^k, B) a block, where an adjoint
walk gives one observable at a time. Before and after the blocks stand product states and measured Paulis: there the
derivatives by angles are small contractions. Everything is restricted to the observables' light cones: a state is
traced out (component 0 of its Pauli vector) on the wires that no observable reads any more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import count

import torch
from torch import Tensor

from backends.observables import PauliSum
from backends.twin.heisenberg.apply import Block, Views, apply_adjoint, apply_block
from backends.twin.heisenberg.blocks import Matrices
from backends.twin.heisenberg.cones import Ahead, Cone, Visit, cones_of
from backends.twin.heisenberg.evaluate import Heisenberg
from backends.twin.heisenberg.plan import Apply
from backends.twin.heisenberg.products import Products
from backends.twin.heisenberg.rotations import Tape
from backends.twin.heisenberg.starts import StartVectors
from backends.twin.heisenberg.walk import Itinerary, Walk
from backends.twin.program import Program

_KEEP = 2**28
"""Bytes of walked observables that are kept at once; more observables go in parts."""

_STATES = 2**27
"""Bytes of states that are carried at once; larger batches go in parts."""


class Jacobian:
    """Differentiates one program's values of one set of observables.

    Args:
        kernel: Evaluates the same program and observables; its runs, readout and buffers are shared.
        program: From `build_program`; inputs only before the first entangling gate on their wire.
        observables: Pauli sums over the virtual qubits.
    """

    def __init__(self, kernel: Heisenberg, program: Program, observables: Sequence[PauliSum]) -> None:
        self._kernel, self._count = kernel, len(observables)
        self._like = torch.empty(0, dtype=kernel.dtype, device=kernel.readout_scale.device)
        self._cones = cones_of(program, observables, _KEEP // kernel.dtype.itemsize)
        self._itineraries = [Itinerary(cone.plan, (), kernel.pool, self._like) for cone in self._cones]
        rotations, blocks = kernel.blocks.rotations, len(program.blocks)
        moving = rotations.weights.any(1).view(rotations.steps, rotations.count).T.tolist()
        by_run = [[(step, run) for step, moves in enumerate(of_run) if moves] for run, of_run in enumerate(moving)]
        # Of each block, and of each position's last run, the angles that move with a weight, with their columns.
        column = count()
        self._of_block = [
            [(next(column), angle) for angle in (*by_run[block], *by_run[blocks + block])] for block in range(blocks)
        ]
        self._of_last = [[(next(column), angle) for angle in angles] for angles in by_run[2 * blocks :]]
        flat = [angle for angles in (*self._of_block, *self._of_last) for _, angle in angles]
        chosen = [step * rotations.count + run for step, run in flat]
        self._weights = rotations.weights[torch.tensor(chosen, dtype=torch.long, device=self._like.device)]

    def bytes_needed(self, batch: int) -> int:
        """Bytes that a call takes at its peak: observables kept, states, what stands between them, and the result."""
        kernel, samples = self._kernel, self._samples(batch)
        kept = max(cone.plan.elements for cone in self._cones)
        wide = samples * 4 ** max(len(cone.wires) for cone in self._cones)
        # States: two to walk with, one on a narrower support, one being made; of the ends: halves of the wires.
        halves = 8 * samples * self._count * 4 ** ((kernel.width + 1) // 2)
        first = kernel.first
        columns = (
            2 * len(first.weights) + 2 * len(self._weights) + 2 * first.inputs.shape[1] + 6 * self._weights.shape[1]
        )
        elements = kept + 4 * wide + self._scratch(samples) + halves + batch * self._count * columns
        return elements * kernel.dtype.itemsize

    @torch.no_grad()
    def __call__(self, inputs: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(batch, n_inputs), (n_weights,) -> values (batch, m), derivatives (batch, m, n_inputs), (batch, m, nw)."""
        kernel, batch, size = self._kernel, len(inputs), self._samples(len(inputs))
        here = _Here(kernel, weights)
        values = inputs.new_empty(self._count, batch)
        by_first = inputs.new_zeros(len(kernel.first.weights), self._count, batch)
        by_angles = inputs.new_zeros(len(self._weights), self._count, batch)
        parts = [slice(start, min(start + size, batch)) for start in range(0, batch, size)]
        tapes = [kernel.first.evaluate(weights, inputs[part]) for part in parts]
        widest = max(4 ** len(cone.wires) for cone in self._cones)
        lease = kernel.pool.lease((2 * size * widest + self._scratch(size),), self._like)
        buffers = lease.buffer.split((size * widest, size * widest, self._scratch(size)))
        for cone, itinerary in zip(self._cones, self._itineraries, strict=True):
            walk = Walk(itinerary, here.matrices, here.table, keep=True)
            for part, tape in zip(parts, tapes, strict=True):
                self._at_first(cone, walk, tape, (values[:, part], by_first[..., part]))
                states = self._through(cone, walk, tape, here=here, by_angles=by_angles[..., part], buffers=buffers)
                self._at_last(cone, walk, itinerary.starts, here=here, states=states, by_angles=by_angles[..., part])
            del walk  # the next one takes its buffer
        slopes, others = by_first.permute(2, 1, 0), by_angles.permute(2, 1, 0)
        by_weights = slopes @ kernel.first.weights + others @ self._weights
        return values.T, slopes @ kernel.first.inputs, by_weights

    def _samples(self, batch: int) -> int:
        widest = max(len(cone.wires) for cone in self._cones)
        return max(1, min(batch, _STATES // (self._kernel.dtype.itemsize * 4**widest)))

    def _scratch(self, samples: int) -> int:
        """Elements of the largest observables or states that derivatives were applied to."""
        return max(
            (
                len(angles) * _moved(visit, samples)
                for cone in self._cones
                for angles, visits in zip(self._of_block, cone.visits, strict=True)
                for visit in visits
            ),
            default=0,
        )

    def _at_first(self, cone: Cone, walk: Walk, tape: Tape, into: tuple[Tensor, Tensor]) -> None:
        """Fill the values (m, b) and the derivatives (angles of first runs, m, b)."""
        values, by_first = into
        steps, width, samples = tape.of.steps, self._kernel.width, values.shape[1]
        states = tape.rows.view(width, samples, 4).transpose(0, 1)
        moves = _slopes_of(tape).view(steps, width, samples, 4)
        by_run = by_first.view(steps, width, self._count, samples)
        for end in cone.plan.ends:
            rows, support = list(end.rows), list(end.support)
            vectors = walk.vectors(end.slot).view(len(rows), -1)
            values[rows], by_states = _contract(vectors, states[:, support])
            found = torch.einsum("rbki,akbi->akrb", by_states, moves[:, support])
            for place, position in enumerate(support):
                by_run[:, position, rows] = found[:, place]

    def _through(
        self, cone: Cone, walk: Walk, tape: Tape, *, here: _Here, by_angles: Tensor, buffers: Sequence[Tensor]
    ) -> Tensor:
        """Fill the derivatives (angles, m, b) by the angles of blocks; the states (4^w, b) after the last one."""
        samples, wires = by_angles.shape[2], cone.wires
        now, then, scratch = buffers
        product = _whole(tape.rows.view(-1, samples, 4).transpose(0, 1)[:, list(wires)])
        states = now[: product.numel()].view(-1, samples).copy_(product.T)
        for number, angles in enumerate(self._of_block):
            if angles:
                derivatives = [here.slopes.block(angle) for _, angle in angles]
                columns = slice(angles[0][0], angles[-1][0] + 1)
                for visit in cone.visits[number]:
                    seen = _restricted(states, wires, visit.support)
                    found = _products(walk.outputs[visit.before], seen, visit, derivatives, scratch)
                    by_angles[columns, list(visit.rows)] = found
            if (ahead := cone.ahead[number]) is not None:
                states, wires = _forth(states, ahead, here.matrices.single[number], then), ahead.wires
                now, then = then, now
        return states

    def _at_last(
        self,
        cone: Cone,
        walk: Walk,
        starts: Mapping[int, StartVectors],
        *,
        here: _Here,
        states: Tensor,
        by_angles: Tensor,
    ) -> None:
        """Fill the derivatives (angles, m, b) by the angles of last runs.

        What is read is linear in the table at one position: a difference of two is its derivative.
        """
        for index, start in cone.starts:
            seen, vectors = _restricted(states, cone.read, start.support), walk.outputs[index]
            moved = torch.empty_like(vectors)
            for position in start.support:
                for column, angle in self._of_last[position]:
                    starts[index].write(here.moved_table(position, angle), moved)
                    moved -= vectors
                    by_angles[column, list(start.rows)] = moved.view(len(start.rows), -1) @ seen


class _Here:
    """The kernel's matrices for some weights, the table of measured Paulis (see `starts`), and their derivatives."""

    def __init__(self, kernel: Heisenberg, weights: Tensor) -> None:
        self.matrices = Matrices(kernel.blocks, weights)
        self.slopes = _Slopes(kernel, kernel.blocks.rotations.evaluate(weights))
        last = self.matrices.last.transpose(1, 2)[:, 1:]
        measured = torch.addcmul(kernel.readout_offset, kernel.readout_scale, last)
        self.table = torch.cat([kernel.identity, measured], 1).view(-1, 4)

    def moved_table(self, position: int, angle: tuple[int, int]) -> Tensor:
        """The table and its derivative by an angle of the last run at a position."""
        moved = self.table.clone()
        moved.view(-1, 4, 4)[position] += self.slopes.measured(angle)
        return moved


class _Slopes:
    """Derivatives of blocks and of last runs by their angles, named by (step, run) of the kernel's rotations."""

    def __init__(self, kernel: Heisenberg, tape: Tape) -> None:
        blocks = kernel.blocks
        self._count, slopes = blocks.count, _slopes_of(tape)
        shape = (len(slopes), blocks.count)
        low, high = tape.rows[: blocks.count], tape.rows[blocks.count : 2 * blocks.count]
        by_low, by_high, self._last = slopes.split((blocks.count, blocks.count, kernel.width), 1)
        moved = torch.stack(
            [
                by_low.view(*shape, 4, 1, 4, 1) * high.view(blocks.count, 1, 4, 1, 4),
                low.view(blocks.count, 4, 1, 4, 1) * by_high.view(*shape, 1, 4, 1, 4),
            ],
            1,
        )
        self._blocks = moved.view(len(slopes), 2, blocks.count, 16, 16) @ blocks.channels
        self._scale = kernel.readout_scale

    def block(self, angle: tuple[int, int]) -> Block:
        """Of the block before which the run stands."""
        step, run = angle
        matrix = self._blocks[step, run // self._count, run % self._count]
        return Block(matrix, matrix.mT)

    def measured(self, angle: tuple[int, int]) -> Tensor:
        """(4, 4): of the table of measured Paulis at the position of a last run."""
        step, run = angle
        position = run - 2 * self._count
        slope = self._last[step, position].T * self._scale[position]
        slope[0] = 0.0  # the identity is read as such
        return slope


def _slopes_of(tape: Tape) -> Tensor:
    """(K, ...) in the shape of `tape.rows`: its derivatives by the K angles of each run."""
    of, (cosine, sine) = tape.of, tape.waves
    moved = (of.odd * cosine - of.even * sine).view_as(tape.matrices)
    result = tape.rows.new_empty(of.steps, *tape.rows.shape)
    after: Tensor | None = None
    for step in range(of.steps - 1, -1, -1):
        here = torch.bmm(tape.kept[step], moved[step])
        result[step] = here if after is None else torch.bmm(here, after)
        after = tape.matrices[step] if after is None else torch.bmm(tape.matrices[step], after)
    return result


def _for_samples(step: Apply, samples: int) -> Apply:
    """A step of one row as one of states (4^w, b): the samples are the columns, so that products stay wide."""
    return replace(step, right=step.right * samples, elements=step.elements * samples)


def _forth(states: Tensor, ahead: Ahead, block: Block, out: Tensor) -> Tensor:
    """The states (4^w, b) after a block, on the wires that are read later, in the flat buffer `out`."""
    samples = states.shape[1]
    step, elements = _for_samples(ahead.step, samples), samples * 4 ** len(ahead.wires)
    apply_adjoint(Views(step, out[:elements], states.view(-1)), block, step)
    return out[:elements].view(-1, samples)


def _moved(visit: Visit, samples: int) -> int:
    """Elements of what one derivative is applied to, see `_products`."""
    step, rows = visit.step, len(visit.rows)
    if _on_states(step, rows, samples):
        return samples * step.elements * step.low * step.high // (16 * rows)
    return step.elements


def _on_states(step: Apply, rows: int, samples: int) -> bool:
    """Whether a derivative costs less on the states than on the observables, see `_products`."""
    width = step.low * step.high
    return rows * (width + samples) > samples * (width + rows * width / 16)


def _products(vectors: Tensor, seen: Tensor, visit: Visit, derivatives: Sequence[Block], scratch: Tensor) -> Tensor:
    """Observables, flat, and states (4^support, b) -> (angles, rows, b): the products through each derivative.

    It is applied to the observables or to the states, whichever costs less; the result of that is in `scratch`, flat.
    """
    step, rows, samples, angles = visit.step, len(visit.rows), seen.shape[1], len(derivatives)
    if _on_states(step, rows, samples):
        here = _for_samples(replace(step, left=step.left // rows, elements=len(seen)), samples)
        inner = vectors.numel() // rows
        out = scratch[: angles * inner * samples].view(angles, -1)
        for derivative, part in zip(derivatives, out.unbind(), strict=True):
            apply_adjoint(Views(here, part, seen.view(-1)), derivative, here)
        return vectors.view(rows, inner) @ out.view(angles, inner, samples)
    out = scratch[: angles * step.elements].view(angles, -1)
    for derivative, part in zip(derivatives, out.unbind(), strict=True):
        apply_block(Views(step, vectors, part), derivative, step)
    return (out.view(angles * rows, -1) @ seen).view(angles, rows, samples)


def _restricted(states: Tensor, wires: tuple[int, ...], support: tuple[int, ...]) -> Tensor:
    """(4^w, b) on the wires -> (4^|support|, b): traced out elsewhere."""
    if wires == support:
        return states
    where = [slice(None) if wire in support else 0 for wire in wires]
    samples = states.shape[1]
    return states.view(*[4] * len(wires), samples)[tuple(where)].reshape(-1, samples).contiguous()


def _whole(factors: Tensor) -> Tensor:
    """(b, k, 4) -> (b, 4^k), k >= 0."""
    return Products(factors).result if factors.shape[1] else factors.new_ones(len(factors), 1)


def _contract(vectors: Tensor, factors: Tensor) -> tuple[Tensor, Tensor]:
    """Observables (rows, 4^k), product states (b, k, 4) -> values (rows, b), slopes by the factors (rows, b, k, 4).

    The derivatives by the products of either half of the factors are those of the factors by the products' adjoint.
    """
    rows, (samples, width, _) = len(vectors), factors.shape
    half = (width + 1) // 2
    left, right = _whole(factors[:, :half]), _whole(factors[:, half:])
    cube = vectors.view(rows, left.shape[1], right.shape[1])
    by_left, by_right = (cube @ right.T).transpose(1, 2), left @ cube
    slopes = [
        Products(part.repeat(rows, 1, 1)).adjoint(by.reshape(rows * samples, -1)).view(rows, samples, -1, 4)
        for part, by in ((factors[:, :half], by_left), (factors[:, half:], by_right))
        if part.shape[1]
    ]
    return (by_left * left).sum(2), torch.cat([factors.new_zeros(rows, samples, 0, 4), *slopes], 2)


@torch.enable_grad()
def one_by_one(kernel: Heisenberg, inputs: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(batch, n_inputs), (n_weights,) or (batch, n_weights) -> values and derivatives as `Jacobian` has them.

    One backward pass for every value: slow, and in no need of more memory than a step. It is for wide circuits whose
    light cones are small, where neither a sweep nor density matrices fit.
    """
    batch, results = len(inputs), []
    rows = weights.detach().expand(batch, weights.shape[-1])
    for row in range(batch):
        z, theta = inputs[row : row + 1].detach().clone().requires_grad_(), rows[row].clone().requires_grad_()
        values = kernel.values(z, theta)[0]
        slopes = [torch.autograd.grad(value, (z, theta), retain_graph=True) for value in values]
        results.append((values.detach(), *(torch.stack(column) for column in zip(*slopes, strict=True))))
    m = kernel.observable_count
    shapes = (m,), (m, inputs.shape[1]), (m, weights.shape[-1])
    found = [
        torch.stack([result[part].view(shape) for result in results]) if results else inputs.new_zeros(0, *shape)
        for part, shape in enumerate(shapes)
    ]
    return found[0], found[1], found[2]
