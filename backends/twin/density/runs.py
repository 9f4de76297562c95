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

    def __init__(
        self, runs: Sequence[Run], *, n_inputs: int, n_weights: int, dtype: torch.dtype, device: torch.device
    ) -> None:
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
        self._start, self._basis, self._constant, self._inputs, self._weights = (
            torch.as_tensor(array, dtype=dtype, device=device)
            for array in (start, basis.reshape(*shape, 3, 16), constant, inputs, weights)
        )

    def __call__(self, inputs: Tensor, weights: Tensor) -> Tensor:
        """(B, n_inputs), (n_weights,) or (B, n_weights) -> (S, B, 4, 4).

        No rows of inputs and one vector of weights: (S, 1, 4, 4).
        """
        count, steps = self._constant.shape
        angles = self._constant[..., None]
        angles = angles + self._weights @ (weights.T if weights.ndim == 2 else weights[:, None])
        if len(inputs):
            angles = angles + self._inputs @ inputs.T
        waves = torch.stack([torch.ones_like(angles), torch.cos(angles), torch.sin(angles)], -1)  # (S, K, B, 3)
        factors = (waves @ self._basis).reshape(count, steps, angles.shape[2], 4, 4)
        result = self._start[:, None].expand(-1, angles.shape[2], -1, -1)
        for step in range(steps):
            result = factors[:, step] @ result
        return result
