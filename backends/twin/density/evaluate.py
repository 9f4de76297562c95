"""A program forwards in time, for a batch of density matrices: inputs anywhere, weights shared or of each row.

A state on k positions is its real Pauli vector of 4^k expectation values tr(P_j rho). Runs whose angles are the same
for all rows are evaluated once; a block is then one 16x16 matrix for all rows, or one for each. Observables and
probabilities read few elements of the last states: a Pauli string takes index 0 on every position outside it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from backends.observables import PauliSum
from backends.twin.buffers import BufferPool
from backends.twin.density.matrices import Matrices, runs_of
from backends.twin.density.readings import Reading
from backends.twin.density.walk import Walk, walk_forward
from backends.twin.pauli import Array
from backends.twin.program import Program
from circuits.errors import QrunError

_BUDGET = 2**30
"""Bytes of states that are kept for the gradient; beyond, they are computed again."""
_PART = 2**28
"""Bytes of last states that are held at once; the rows are cut into parts beyond."""
_READINGS = 64
"""How many sets of observables a density keeps the reading of."""


class Density:
    """Evaluates one program forwards.

    Args:
        program: From `build_program`.
        n_inputs, n_weights: Lengths of the parameter vectors.
        dtype: torch.float32 or torch.float64.
        device: Where to compute.
        pool: Where large buffers come from; one of its own by default.
    """

    def __init__(
        self,
        program: Program,
        *,
        n_inputs: int,
        n_weights: int,
        dtype: torch.dtype,
        device: str | torch.device = "cpu",
        pool: BufferPool | None = None,
    ) -> None:
        self.program, self.width = program, len(program.first)
        self.n_inputs, self.n_weights = n_inputs, n_weights
        self.dtype, self.device = dtype, torch.device(device)
        self.pool = BufferPool() if pool is None else pool
        self.walk = Walk([(block.low, block.high) for block in program.blocks], self.width)
        self._readout = torch.as_tensor(_readout_matrices(program.readout), dtype=dtype, device=self.device)
        self._matrices: dict[bool, Matrices] = {}
        self._readings: OrderedDict[tuple[PauliSum, ...], Reading] = OrderedDict()

    def values(self, observables: Sequence[PauliSum], inputs: Tensor, weights: Tensor) -> Tensor:
        """m Pauli sums, (B, n_inputs), (n_weights,) or (B, n_weights) -> (B, m), with readout errors.

        Differentiable in inputs and weights.
        """
        reading = self._reading(tuple(observables))
        inputs, weights = self._cast(inputs, weights)
        batch, gradient = len(inputs), torch.is_grad_enabled() and (inputs.requires_grad or weights.requires_grad)
        parts = [inputs.new_zeros(0, len(observables))]
        for part in self._parts(batch):
            mine = weights[part] if weights.ndim == 2 else weights
            states, last = self._states(inputs[part], mine, gradient=gradient, batch=batch)
            parts.append(reading.values(states, self._readout @ last))
        return _tied(torch.cat(parts), inputs, weights)

    @torch.no_grad()
    def probabilities(self, inputs: Tensor, weights: Tensor, basis: Sequence[int] | None = None) -> Tensor:
        """(B, n_inputs), (n_weights,) or (B, n_weights) -> (B, 2^n): how likely each bitstring is read.

        Bit v of the index is virtual qubit v. With P_v the Pauli that is measured on it and E_v its readout,
        p(x) = 2^-n sum_s (-1)^(s . x) <prod_v E_v(P_v^s_v)>. Outside autograd.

        Args:
            inputs: Radians.
            weights: Radians.
            basis: 1, 2 or 3 for every virtual qubit measured in the eigenbasis of X, Y or Z; Z by default. The change
                of basis counts as free of errors.

        Raises:
            QrunError: Rounding moved the probabilities by more than it should.
        """
        inputs, weights = self._cast(inputs, weights)
        outputs = self.program.outputs
        kinds = dict(zip(outputs, (3,) * len(outputs) if basis is None else basis, strict=True))
        parts = [inputs.new_zeros(0, 2 ** len(outputs))]
        for part in self._parts(len(inputs)):
            mine = weights[part] if weights.ndim == 2 else weights
            states, last = self._states(inputs[part], mine, gradient=False, batch=len(inputs))
            parts.append(self._read_out(states, self._readout @ last, kinds))
        return _proper(torch.cat(parts))

    def bytes_needed(self, batch: int, *, gradient: bool) -> int:
        """Bytes that one step of `values` takes at its peak for a batch, parameters by row included."""
        part = self._parts(batch)[0].stop if batch else 0
        blocks, runs = len(self.walk.steps), 2 * len(self.walk.steps) + 2 * self.width
        elements = part * 4**self.width * (2 if gradient else 1)
        rows = self.walk.rows_at_once(self._readout, part)
        elements += 6 * rows * 4**self.walk.widest
        steps = self._steps_of_runs()
        small = 3 * 256 * blocks + (16 * 3 * steps + 32) * runs  # matrices by row, and what autograd keeps of them
        elements += (batch if gradient else part) * small * (2 if gradient else 1)
        if gradient:
            limit = self._limit(rows)
            elements += int(batch * self.walk.tape if self._keeps(batch) else rows * self.walk.kept(limit))
        return elements * self.dtype.itemsize

    def _steps_of_runs(self) -> int:
        return max(len(run.angles) for run in runs_of(self.program))

    def _keeps(self, batch: int) -> bool:
        return batch * self.walk.tape * self.dtype.itemsize <= _BUDGET - self.pool.lent()

    def _limit(self, rows: int) -> float:
        return _BUDGET / (self.dtype.itemsize * max(rows, 1))

    def _parts(self, batch: int) -> list[slice]:
        small = 1024 * max(1, len(self.walk.steps))
        size = max(1, _PART // (self.dtype.itemsize * (4**self.width + small)))
        return [slice(start, min(start + size, batch)) for start in range(0, batch, size)]

    def _cast(self, inputs: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        return inputs.to(self.device, self.dtype), weights.to(self.device, self.dtype)

    def _reading(self, observables: tuple[PauliSum, ...]) -> Reading:
        if observables not in self._readings:
            axes = tuple(positions for _, positions in self.walk.finals)
            self._readings[observables] = Reading(observables, self.program.outputs, axes, self.dtype, self.device)
            if len(self._readings) > _READINGS:
                self._readings.popitem(last=False)
        return self._readings[observables]

    def _states(self, inputs: Tensor, weights: Tensor, *, gradient: bool, batch: int) -> tuple[list[Tensor], Tensor]:
        """The final registers (rows, 4^w) in the order of `walk.finals`, and (rows or 1, k, 4, 4) the last runs."""
        by_row = weights.ndim == 2
        if by_row not in self._matrices:
            self._matrices[by_row] = Matrices(
                self.program,
                n_inputs=self.n_inputs,
                n_weights=self.n_weights,
                dtype=self.dtype,
                device=self.device,
                weights_by_row=by_row,
            )
        matrices = self._matrices[by_row]
        first, shared, rows, last = matrices(inputs, weights)
        size = self.walk.rows_at_once(first, len(inputs))
        states = walk_forward(
            self.walk,
            first,
            shared,
            rows,
            where=matrices.where,
            pool=self.pool,
            keep=gradient and self._keeps(batch),
            limit=self._limit(size),
        )
        return [states[register] for register, _ in self.walk.finals], last

    def _read_out(self, states: Sequence[Tensor], measured: Tensor, kinds: dict[int, int]) -> Tensor:
        """(B, 2^n) from the final registers and (B or 1, k, 4, 4) last runs with readout; `kinds` by position."""
        rows = len(states[0])
        result, order = states[0].new_ones(rows, 1), []
        signs = torch.tensor([[0.5, 0.5], [0.5, -0.5]], dtype=self.dtype, device=self.device)
        for state, (_, positions) in zip(states, self.walk.finals, strict=True):
            here, axis = state, 0
            for position in positions:
                if position in kinds:
                    matrix = signs @ measured[:, position][:, [0, kinds[position]]]
                    here, axis = _on_axis(here, matrix, 2**axis), axis + 1
                    order.append(position)
                else:  # traced out: every later matrix has (1, 0, 0, 0) as its first row
                    left = 2**axis
                    here = here.reshape(rows, left, 4, here.shape[1] // (4 * left))[:, :, 0].reshape(rows, -1)
            result = (result[:, :, None] * here[:, None, :]).reshape(rows, result.shape[1] * here.shape[1])
        by_qubit = [order.index(position) + 1 for position in reversed(self.program.outputs)]
        return result.reshape(rows, *(2,) * len(order)).permute(0, *by_qubit).reshape(rows, 2 ** len(order))


def _readout_matrices(readout: Array) -> Array:
    """(k, 2) -> (k, 4, 4): a measured Pauli P is readout[0] I + readout[1] P, whichever it is."""
    matrices = np.zeros((len(readout), 4, 4))
    matrices[:, 0, 0] = 1.0
    matrices[:, 1:, 0] = readout[:, :1]
    matrices[:, [1, 2, 3], [1, 2, 3]] = readout[:, 1:]
    return matrices


def _on_axis(vectors: Tensor, matrix: Tensor, left: int) -> Tensor:
    """(B, left * 4 * right), (B or 1, r, 4) -> (B, left * r * right)."""
    rows, right = len(vectors), vectors.shape[1] // (4 * left)
    result = matrix[:, None] @ vectors.reshape(rows, left, 4, right)
    return result.reshape(rows, left * matrix.shape[1] * right)


def _tied(values: Tensor, inputs: Tensor, weights: Tensor) -> Tensor:
    """The same values, with both parameters in their graph, also where a circuit does not depend on them."""
    if not torch.is_grad_enabled() or not (inputs.requires_grad or weights.requires_grad):
        return values
    return values + 0.0 * (inputs.sum() + weights.sum()).to(values)


def _proper(probabilities: Tensor) -> Tensor:
    """Clip what rounding made negative, and let each row sum to 1."""
    allowed = 1e-9 if probabilities.dtype == torch.float64 else 1e-6
    if probabilities.numel():
        off = max(float(-probabilities.min()), float((probabilities.sum(1) - 1.0).abs().max()))
        if not off <= allowed:
            raise QrunError(
                f"the probabilities of this circuit are off by {off:.1e}, more than rounding explains.",
                "Check the device's calibration: a gate's noise may be no channel.",
            )
    clipped = probabilities.clamp(min=0.0)
    return clipped / clipped.sum(1, keepdim=True)
