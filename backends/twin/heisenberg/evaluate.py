"""Exact expectation values and gradients of a program, in the Heisenberg picture.

The observables, as real Pauli vectors, are carried backwards through the blocks once per weight vector, on as many
wires as they have spread to. Since the inputs enter only before the first entangling gate on their wire, that part does
not depend on the batch: each sample is a product state, and its values are <O_m, v_1 x ... x v_k>. The gradient is
written by hand: with O_s = G_s^T O_{s+1} and cotangents R_{s+1} = G_s R_s, the derivative by G_s is O_{s+1} R_s^T, so
that the cotangent walks forward through the same channels as a (weighted sum of) state(s).

docs/decisions/0004-the-twin.md derives it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from backends.observables import PauliSum
from backends.twin.buffers import BufferPool
from backends.twin.heisenberg.blocks import Blocks, Matrices
from backends.twin.heisenberg.contraction import Contraction
from backends.twin.heisenberg.plan import Fused, Plan, make_plan, split_sums
from backends.twin.heisenberg.rotations import Rotations
from backends.twin.heisenberg.walk import Cotangents, Itinerary, Walk
from backends.twin.modes import plainly
from backends.twin.program import Program
from circuits.errors import QrunError

_APART = 7
"""From so many wires on each observable is walked by itself: it then has its own light cone, and its own thread."""

_KEEP = 2**28
"""Bytes that a step may keep for its gradient; beyond, the walks are done again, one observable at a time."""

_ALIVE = 2**31
"""Bytes that all graphs of an engine may keep together (a step with mitigation has tens of them); beyond, as above."""

_AT_ONCE = 2**30
"""Bytes that threads may hold together; a single one takes what it needs."""

_CHUNK = 2**24
"""Elements of the largest temporary in the contraction with the batch; larger batches go in parts."""


class Heisenberg:
    """Evaluates one program for one set of observables.

    Args:
        program: From `build_program`; inputs only before the first entangling gate on their wire.
        plans: From `plans_for` the program and the observables.
        owners: Which observable each part of the plans belongs to, where sums were split (`plan.split_sums`).
        n_inputs, n_weights: Lengths of the parameter vectors.
        dtype: torch.float32 or torch.float64.
        device: Where to compute.
        pool: Where large buffers come from; one of its own by default.
        threads: How many of Python's threads share the observables of a large circuit. Results do not depend on it.
        itineraries: What another program of the same shape left for the same plans; filled where it is empty.

    Raises:
        QrunError: Inputs after an entangling gate.
    """

    def __init__(
        self,
        program: Program,
        plans: Sequence[Plan],
        *,
        n_inputs: int,
        n_weights: int,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
        pool: BufferPool | None = None,
        threads: int = 1,
        owners: Sequence[int] | None = None,
        itineraries: list[Itinerary] | None = None,
    ) -> None:
        if not program.inputs_come_first:
            raise QrunError("the Heisenberg path takes inputs before the first entangling gate on their qubit.")
        device = torch.device(device)
        self.width, self.dtype = len(program.first), dtype
        self.threads = shared(plans, dtype.itemsize, threads)
        self.count = sum(len(end.rows) for plan in plans for end in plan.ends)
        self.pool = BufferPool() if pool is None else pool
        self.plans = tuple(plans)
        self.in_order = tuple(range(self.count))
        own = tuple(owners or self.in_order)
        self.observable_count = max(own, default=-1) + 1
        self.owners = None if own == self.in_order else torch.tensor(own, dtype=torch.long, device=device)
        fused: dict[Fused, int] = {}
        like = torch.empty(0, dtype=dtype, device=device)
        numbers = [[fused.setdefault(pair, len(fused)) for pair in plan.fused] for plan in self.plans]
        self.itineraries = [] if itineraries is None else itineraries
        if not self.itineraries:
            self.itineraries += [
                Itinerary(plan, number, self.pool, like) for plan, number in zip(self.plans, numbers, strict=True)
            ]
        self.blocks = Blocks(program, list(fused), n_inputs=n_inputs, n_weights=n_weights, like=like)
        self.first = Rotations(program.first, _ZERO, n_inputs=n_inputs, n_weights=n_weights, like=like)
        readout = torch.as_tensor(program.readout, dtype=dtype, device=device)
        self.readout_scale = readout[:, 1].reshape(-1, 1, 1)
        self.readout_offset = readout[:, 0].reshape(-1, 1, 1) * torch.eye(4, dtype=dtype, device=device)[0]
        self.identity = torch.eye(4, dtype=dtype, device=device)[0].expand(self.width, 1, 4)
        self._kept = sum(i.kept for i in self.itineraries) * dtype.itemsize

    @property
    def keeps(self) -> bool:
        """Whether a walk is kept for its gradient, now that other graphs may keep theirs."""
        return self._kept <= _KEEP and self._kept + self.pool.lent() <= _ALIVE

    def values(self, inputs: Tensor, weights: Tensor) -> Tensor:
        """(batch, n_inputs), (n_weights,) -> (batch, m); differentiable in both."""
        result: Tensor = _Values.apply(inputs, weights, self)
        return result


def plans_for(program: Program, observables: Sequence[PauliSum]) -> tuple[tuple[Plan, ...], tuple[int, ...]]:
    """The plans of a set of observables: one for all in a small circuit, one for each or its parts in a large one.

    Returns:
        The plans, and which observable each part belongs to.
    """
    if len(program.first) < _APART:
        numbers = range(len(observables))
        return (make_plan(program, observables, numbers),), tuple(numbers)
    parts, owners = split_sums(program, observables)
    return tuple(make_plan(program, parts, [number]) for number in range(len(parts))), owners


def chunk(plans: Sequence[Plan]) -> int:
    """How many samples a call without gradient should have at most, so that temporaries stay small."""
    return max(1, _CHUNK // max(len(end.rows) * 4 ** ((len(end.support) + 1) // 2) for p in plans for end in p.ends))


def shared(plans: Sequence[Plan], itemsize: int, threads: int) -> int:
    """How many of the threads may walk at once: each holds all vectors of an observable of its own."""
    largest = max(plan.elements + 4 * plan.largest for plan in plans) * itemsize
    return max(1, min(threads, len(plans), _AT_ONCE // largest))


def bytes_needed(program: Program, plans: Sequence[Plan], batch: int, *, itemsize: int, threads: int) -> int:
    """Memory of a step with gradient: what walks keep at once, their buffers, and what belongs to samples."""
    kept = [(plan.elements + 4 * plan.largest) * itemsize for plan in plans]
    everything = sum(kept)
    walks = everything if everything <= _KEEP else sum(sorted(kept)[-shared(plans, itemsize, threads) :])
    width, steps = len(program.first), max(len(run.angles) for run in program.first)
    ends = [end for plan in plans for end in plan.ends]
    halves = sum(4 ** ((len(support) + 1) // 2) for support in {end.support for end in ends})
    widest = max(len(end.rows) * 4 ** ((len(end.support) + 1) // 2) for end in ends)
    # Matrices and rows of the first runs, products of two halves, and the contraction's temporaries.
    a_sample = 100 * steps * width + 10 * halves + 2 * widest * min(threads, len(plans))
    return walks + batch * a_sample * itemsize


_ZERO = np.array([[1.0], [0.0], [0.0], [1.0]])
"""The Pauli vector of |0>."""


class _Values(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weights: Tensor, kernel: Heisenberg) -> Tensor:
        differentiate = any(ctx.needs_input_grad)
        call = _Call(kernel, inputs, weights, keep=differentiate and kernel.keeps)
        if differentiate:
            ctx.call = call
        # The result knows its graph, and the graph the call: if the call knew the result, it would never go.
        return call.take_values()

    @staticmethod
    @torch.autograd.function.once_differentiable
    @plainly
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, Tensor, None]:
        return (*ctx.call.adjoint(cotangent), None)


class _Call:
    """One evaluation: `values` (batch, m), and what the adjoint needs."""

    def __init__(self, kernel: Heisenberg, inputs: Tensor, weights: Tensor, *, keep: bool) -> None:
        self.kernel = kernel
        self.matrices = Matrices(kernel.blocks, weights)
        measured = torch.addcmul(kernel.readout_offset, kernel.readout_scale, self.matrices.last.transpose(1, 2)[:, 1:])
        self.table = torch.cat([kernel.identity, measured], 1).view(-1, 4)
        self.state_tape = kernel.first.evaluate(weights, inputs)
        self.states = self.state_tape.rows.view(kernel.width, len(inputs), 4).transpose(0, 1)  # (batch, k, 4)
        self.contractions: dict[tuple[int, ...], Contraction] = {}
        for plan in kernel.plans:
            for end in plan.ends:
                if end.support not in self.contractions:
                    self.contractions[end.support] = Contraction(self.states, end.support)
        self.walks: list[Walk | None] = [None] * len(kernel.plans)
        columns: list[Tensor | None] = [None] * kernel.count

        def one(number: int) -> None:
            walk = self._walk(number, keep=keep)
            for end in kernel.plans[number].ends:
                vectors = walk.vectors(end.slot).view(len(end.rows), -1)
                for row, column in zip(end.rows, self.contractions[end.support].values(vectors), strict=True):
                    columns[row] = column
            if keep:
                self.walks[number] = walk

        self._each(one)
        values = torch.stack([column for column in columns if column is not None], 1)
        if kernel.owners is not None:
            sums = values.new_zeros(len(values), kernel.observable_count)
            values = sums.index_add_(1, kernel.owners, values)
        self._values: Tensor | None = values

    def take_values(self) -> Tensor:
        """The values, which are handed out once."""
        values, self._values = self._values, None
        assert values is not None
        return values

    def adjoint(self, cotangent: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, m) -> cotangents of the inputs (batch, n_inputs) and of the weights (n_weights,)."""
        kernel = self.kernel
        if kernel.owners is not None:
            cotangent = cotangent[:, kernel.owners]
        columns = cotangent.T.contiguous()
        parts: list[tuple[Cotangents, list[tuple[tuple[int, ...], Tensor]]] | None] = [None] * len(kernel.plans)

        def one(number: int) -> None:
            walk = self.walks[number]
            if walk is None:
                walk = self._walk(number, keep=True)
            into = Cotangents(self.matrices, self.table)
            by_states: list[tuple[tuple[int, ...], Tensor]] = []
            by_slot: dict[int, Tensor] = {}
            for end in kernel.plans[number].ends:
                vectors = walk.vectors(end.slot).view(len(end.rows), -1)
                outer = columns if end.rows == kernel.in_order else columns[list(end.rows)]
                by_vectors, by_products = self.contractions[end.support].adjoint(vectors, outer)
                by_slot[end.slot] = by_vectors.view(-1)
                by_states.append((end.support, by_products))
            walk.adjoint(by_slot, into)
            parts[number] = (into, by_states)

        self._each(one)
        # Most graphs are differentiated once: their buffers are free for the next step. Where one is walked again
        # (retain_graph), the observables are walked again, too.
        self.walks = [None] * len(kernel.plans)
        # In a fixed order, whichever thread was done first.
        total: Cotangents | None = None
        sums: dict[tuple[int, ...], Tensor] = {}
        for part in parts:
            assert part is not None
            into, by_states = part
            for support, by_products in by_states:
                sums[support] = sums[support] + by_products if support in sums else by_products
            if total is None:
                total = into
            else:
                total.add(into)
        assert total is not None
        by_state = torch.zeros_like(self.states)
        for support, by_products in sums.items():
            self.contractions[support].add_to_states(by_products, by_state)
        by_last = torch.zeros_like(self.matrices.last)
        torch.mul(total.table.view(-1, 4, 4)[:, 1:].transpose(1, 2), kernel.readout_scale, out=by_last[:, :, 1:])
        by_angles = self.matrices.adjoint(total.single, total.fused, by_last)
        by_first = self.state_tape.adjoint(by_state.transpose(0, 1).reshape(-1, 1, 4))
        by_weights = torch.mv(kernel.blocks.rotations.weights.T, by_angles)
        by_weights.addmv_(kernel.first.weights.T, by_first.sum(1))
        return by_first.T @ kernel.first.inputs, by_weights

    def _walk(self, number: int, *, keep: bool) -> Walk:
        kernel = self.kernel
        return Walk(kernel.itineraries[number], self.matrices, self.table, keep=keep)

    def _each(self, one: Callable[[int], None]) -> None:
        """Do one plan after the other, or several at a time."""
        plans = self.kernel.plans
        # The dearest first: buffers then fit all that follow, and threads end together.
        order = iter(sorted(range(len(plans)), key=lambda number: -plans[number].elements))
        if self.kernel.threads == 1:
            for number in order:
                one(number)
            return

        def work() -> None:
            with torch.no_grad():
                while (number := next(order, None)) is not None:
                    one(number)

        with ThreadPoolExecutor(self.kernel.threads - 1) as others:
            waiting = [others.submit(work) for _ in range(self.kernel.threads - 1)]
            work()
            for other in waiting:
                other.result()
