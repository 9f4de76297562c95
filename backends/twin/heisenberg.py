"""Exact expectation values and gradients of a program, in the Heisenberg picture.

The m observables, as real Pauli vectors, are carried backwards through the blocks once per weight vector. Since the
inputs enter only before the first entangling gate on their wire, that part does not depend on the batch: each sample
is a product state, and its values are <O_m, v_1 x ... x v_k>. The gradient of the backward walk is written by hand:
with O_s = G_s^T O_{s+1} and cotangents R_{s+1} = G_s R_s, the derivative by G_s is O_{s+1} R_s^T, so that the cotangent
walks forward through the same channels as a (weighted sum of) state(s).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from backends.observables import ZString
from backends.twin.apply import apply_pair, outer_pair
from backends.twin.buffers import BufferPool
from backends.twin.program import Program, Run
from backends.twin.runs import Runs
from circuits.errors import QrunError

_CHUNK = 2**22
"""Elements of the largest temporary in the contraction with the batch (16 MiB in float32)."""


class Heisenberg:
    """Evaluates one program for one set of observables.

    Args:
        program: From `build_program`; inputs only before the first entangling gate on their wire.
        observables: (m) sums of Z-strings on virtual qubits.
        n_inputs, n_weights: Lengths of the parameter vectors.
        dtype: torch.float32 or torch.float64.
        pool: Where large buffers come from; one of its own by default.

    Raises:
        QrunError: Inputs after an entangling gate.
    """

    def __init__(
        self,
        program: Program,
        observables: Sequence[Sequence[ZString]],
        *,
        n_inputs: int,
        n_weights: int,
        dtype: torch.dtype,
        pool: BufferPool | None = None,
    ) -> None:
        if not program.inputs_come_first:
            raise QrunError(
                "this engine takes inputs before the first entangling gate on their qubit, and this circuit has some "
                "after it.",
                "Put the inputs first, or use --engine aer.",
            )
        self.width = len(program.first)
        self.dtype = dtype
        self.first = Runs(program.first, n_inputs, n_weights, dtype)
        inner = [run for block in program.blocks for run in (block.before_low, block.before_high) if run is not None]
        last = [run for run in program.last if run is not None]
        self.runs = Runs([*inner, *last, _NOTHING], n_inputs, n_weights, dtype)
        nothing, number = len(inner) + len(last), iter(range(len(inner) + len(last)))
        pairs = [
            [nothing if run is None else next(number) for run in (block.before_low, block.before_high)]
            for block in program.blocks
        ]
        self.pairs = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2)
        self.last = torch.tensor([nothing if run is None else next(number) for run in program.last])
        self.blocks = torch.as_tensor(np.array([b.channel for b in program.blocks]).reshape(-1, 16, 16), dtype=dtype)
        self.axes = tuple((block.low, block.high) for block in program.blocks)
        self.readout = torch.as_tensor(program.readout, dtype=dtype)
        self.coefficients, self.masks = _pad(observables, program.outputs, self.width, dtype)
        self.pool = BufferPool() if pool is None else pool

    def observables_at_start(self, weights: Tensor) -> Tensor:
        """(n_weights,) -> (m, 4^k): the observables just after the first runs; differentiable."""
        channels = self.runs.channels(weights)
        vectors = self._measured(channels[self.last])
        if not self.axes:
            return vectors
        low, high = channels[self.pairs[:, 0]], channels[self.pairs[:, 1]]
        before = torch.einsum("sij,skl->sikjl", low, high).reshape(-1, 16, 16)
        result: Tensor = _Chain.apply(vectors, self.blocks @ before, self)
        return result

    def values(self, vectors: Tensor, inputs: Tensor, weights: Tensor) -> Tensor:
        """(m, 4^k) of `observables_at_start`, (batch, n_inputs), (n_weights,) -> (batch, m); differentiable."""
        states = self.first.states(inputs, weights)
        half = (self.width + 1) // 2
        left, right = _products(states[:, :half]), _products(states[:, half:])
        result: Tensor = _Contract.apply(vectors.reshape(len(vectors), 4**half, -1), left, right)
        return result

    def _measured(self, last: Tensor) -> Tensor:
        """(k, 4, 4) last runs -> (m, 4^k): the observables as measured, before the last runs."""
        # Row p: what position p's measured Z is before its last run. A position without Z has I, which every
        # trace-preserving run leaves as it is.
        measured = self.readout[:, :1] * last[:, 0] + self.readout[:, 1:] * last[:, 3]
        identity = torch.zeros(4, dtype=self.dtype)
        identity[0] = 1.0
        m, terms = self.coefficients.shape
        factors = torch.where(self.masks[..., None], measured, identity).reshape(m * terms, self.width, 4)
        half = (self.width + 1) // 2
        left = self.coefficients[..., None] * _products(factors[:, :half]).reshape(m, terms, -1)
        right = _products(factors[:, half:]).reshape(m, terms, -1)
        return torch.bmm(left.transpose(1, 2), right).reshape(m, -1)


_NOTHING = Run((np.eye(4),), ())


def _pad(
    observables: Sequence[Sequence[ZString]], outputs: tuple[int, ...], width: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Coefficients (m, t) and masks (m, t, width) of the positions that carry a Z, padded with zeros."""
    terms = max(len(strings) for strings in observables)
    coefficients = torch.zeros(len(observables), terms, dtype=dtype)
    masks = torch.zeros(len(observables), terms, width, dtype=torch.bool)
    for m, strings in enumerate(observables):
        for t, (coefficient, qubits) in enumerate(strings):
            coefficients[m, t] = coefficient
            masks[m, t, [outputs[qubit] for qubit in qubits]] = True
    return coefficients, masks


def _products(factors: Tensor) -> Tensor:
    """(n, k, 4) -> (n, 4^k): row-wise tensor products, position 0 slowest; (n, 1) of ones for k = 0."""
    result = torch.ones(len(factors), 1, dtype=factors.dtype)
    for position in range(factors.shape[1]):
        result = (result[:, :, None] * factors[:, position, None, :]).reshape(len(factors), 4 ** (position + 1))
    return result


class _Chain(torch.autograd.Function):
    """Observables (m, 4^k) back through the blocks (S, 16, 16), and the adjoint."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, blocks: Tensor, kernel: Heisenberg) -> Tensor:
        axes, width = kernel.axes, kernel.width
        differentiable = any(ctx.needs_input_grad)
        # after[s] are the observables just after block s; without a gradient two buffers in turn are enough.
        slots = len(axes) if differentiable else 2
        lease = kernel.pool.lease((slots, *vectors.shape), vectors)
        after = lease.buffer
        after[(len(axes) - 1) % slots] = vectors
        for s in range(len(axes) - 1, -1, -1):
            out = after[(s - 1) % slots] if s else torch.empty_like(vectors)
            vectors = apply_pair(after[s % slots], blocks[s].T, axes[s], width, out)
        if differentiable:
            ctx.save_for_backward(blocks)
            ctx.lease, ctx.axes, ctx.width = lease, axes, width
        return vectors

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, Tensor, None]:
        (blocks,) = ctx.saved_tensors
        after, gradient = ctx.lease.buffer, torch.empty_like(blocks)
        cotangent = cotangent.contiguous()
        spare = [torch.empty_like(cotangent), torch.empty_like(cotangent)]
        for s, axes in enumerate(ctx.axes):
            gradient[s] = outer_pair(after[s], cotangent, axes, ctx.width)
            cotangent = apply_pair(cotangent, blocks[s], axes, ctx.width, spare[s % 2])
        return cotangent, gradient, None


class _Contract(torch.autograd.Function):
    """values[b, m] = sum_ij left[b, i] vectors[m, i, j] right[b, j], in chunks of the batch."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, left: Tensor, right: Tensor) -> Tensor:
        ctx.save_for_backward(vectors, left, right)
        values = left.new_empty(len(left), len(vectors))
        for part in _chunks(vectors, left):
            half = left[part] @ vectors
            values[part] = torch.einsum("mbj,bj->bm", half, right[part])
        return values

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        vectors, left, right = ctx.saved_tensors
        by_vectors, by_left, by_right = torch.zeros_like(vectors), torch.empty_like(left), torch.empty_like(right)
        for part in _chunks(vectors, left):
            scaled = cotangent[part].T[:, :, None] * right[part]  # (m, b, j)
            by_vectors += left[part].T @ scaled
            by_left[part] = torch.bmm(scaled, vectors.transpose(1, 2)).sum(0)
            by_right[part] = torch.einsum("mbj,bm->bj", left[part] @ vectors, cotangent[part])
        return by_vectors, by_left, by_right


def _chunks(vectors: Tensor, left: Tensor) -> list[slice]:
    size = max(1, _CHUNK // (vectors.shape[0] * max(vectors.shape[1:])))
    return [slice(start, start + size) for start in range(0, len(left), size)]
