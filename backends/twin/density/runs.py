"""Runs of single-qubit gates (`program.Run`), evaluated many at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from backends.twin.pauli import ROTATION
from backends.twin.program import Run


class Runs:
    """Many runs evaluated at once: their PTMs from the angles.

    Each step F_{j+1} Rz(a) is affine in (1, cos a, sin a): F D_1 + cos a F D_c + sin a F D_s. Runs are padded to the
    longest one with steps that are the identity at any angle.
    """

    def __init__(self, runs: Sequence[Run], n_inputs: int, n_weights: int, dtype: torch.dtype) -> None:
        steps = max((len(run.angles) for run in runs), default=0)
        shape = (len(runs), steps)
        start = np.tile(np.eye(4), (len(runs), 1, 1))
        basis = np.zeros((*shape, 3, 4, 4))
        basis[:, :, 0] = np.eye(4)
        constant, inputs, weights = np.zeros(shape), np.zeros((*shape, n_inputs)), np.zeros((*shape, n_weights))
        for i, run in enumerate(runs):
            start[i] = run.fixed[0]
            for j, angle in enumerate(run.angles):
                basis[i, j] = run.fixed[j + 1] @ ROTATION
                constant[i, j], inputs[i, j], weights[i, j] = angle.constant, angle.inputs, angle.weights
        self.shape = shape
        self.start, self.basis, self.constant, self.inputs, self.weights = (
            torch.as_tensor(array, dtype=dtype)
            for array in (start, basis.reshape(*shape, 3, 16), constant, inputs, weights)
        )

    def channels(self, weights: Tensor) -> Tensor:
        """(n_weights,) -> (runs, 4, 4)."""
        result = self.start
        factors = self._steps(self.constant + self.weights @ weights)
        for step in range(self.shape[1]):
            result = factors[:, step] @ result
        return result

    def states(self, inputs: Tensor, weights: Tensor) -> Tensor:
        """(batch, n_inputs), (n_weights,) -> (batch, runs, 4): the Pauli vectors of the runs on |0>."""
        angles = self.constant + self.weights @ weights
        batch = angles + torch.einsum("skz,bz->bsk", self.inputs, inputs)
        factors = self._steps(batch)
        # |0><0| has the Pauli vector (1, 0, 0, 1).
        result = (self.start[:, :, 0] + self.start[:, :, 3])[None, :, :, None].expand(len(inputs), -1, -1, -1)
        for step in range(self.shape[1]):
            result = factors[:, :, step] @ result
        return result[..., 0]

    def _steps(self, angles: Tensor) -> Tensor:
        """(..., runs, steps) -> (..., runs, steps, 4, 4)."""
        waves = torch.stack([torch.ones_like(angles), torch.cos(angles), torch.sin(angles)], -1)
        return torch.matmul(waves[..., None, :], self.basis).reshape(*angles.shape, 4, 4)
