"""Runs of single-qubit gates, many at once, with the adjoint by hand: autograd's overhead would exceed the arithmetic.

Pauli vectors are in the order I, Z, X, Y in this engine's torch parts, and stand in rows, so that matrices are
transposed. A step F Rz(a) is affine in cos a and sin a: all its matrices are made in two operations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from backends.twin.pauli import ROTATION, Array
from backends.twin.program import Run

ORDER = (0, 3, 1, 2)
"""Where I, Z, X, Y stand in the order I, X, Y, Z."""


class Rotations:
    """Evaluates runs F_K Rz(a_K) ... Rz(a_1) F_0 on some columns, and differentiates by the angles.

    Runs are padded to the longest one with identities, whose angles do not matter.

    Args:
        runs: S of them.
        starts: The columns that the first F acts on: (4, c) in the order I, X, Y, Z; the identity for whole matrices.
        n_inputs, n_weights: Lengths of the parameter vectors.
        like: Gives the dtype and the device.
    """

    def __init__(self, runs: Sequence[Run], starts: Array, *, n_inputs: int, n_weights: int, like: Tensor) -> None:
        # A rotation right at the start that does nothing to the columns (a state without X and Y) is left out.
        cut = [_without_idle_start(run, starts) for run in runs]
        steps, count = max((len(run.angles) for run in cut), default=0), len(cut)
        first = np.zeros((count, starts.shape[1], 4))
        basis = np.zeros((3, steps, count, 1, 4, 4))
        basis[0] = np.eye(4)
        constant, inputs = np.zeros((steps, count)), np.zeros((steps, count, n_inputs))
        weights = np.zeros((steps, count, n_weights))
        for i, run in enumerate(cut):
            first[i] = (run.fixed[0] @ starts).T[:, ORDER]
            for j, angle in enumerate(run.angles):
                step = run.fixed[j + 1] @ ROTATION
                basis[:, j, i, 0] = step[:, ORDER][:, :, ORDER].transpose(0, 2, 1)
                constant[j, i], inputs[j, i], weights[j, i] = angle.constant, angle.inputs, angle.weights
        self.steps, self.count = steps, count
        self.first, affine, self.constant, self.inputs, self.weights = (
            torch.as_tensor(np.ascontiguousarray(array), dtype=like.dtype, device=like.device)
            for array in (
                first,
                basis.reshape(3, steps, count, 1, 16),
                constant.reshape(-1),
                inputs.reshape(steps * count, n_inputs),
                weights.reshape(steps * count, n_weights),
            )
        )
        self.fixed, self.even, self.odd = affine.unbind()

    def evaluate(self, weights: Tensor, inputs: Tensor | None = None) -> Tape:
        """(n_weights,) and, for a batch of states (one start column), (b, n_inputs)."""
        angles = torch.addmv(self.constant, self.weights, weights)
        samples = 1
        if inputs is not None:
            samples = len(inputs)
            angles = torch.addmm(angles[:, None], self.inputs, inputs.T)
        shape = (self.steps, self.count, samples, 1)
        cosine, sine = torch.cos(angles).view(shape), torch.sin(angles).view(shape)
        matrices = torch.addcmul(self.fixed, self.even, cosine).addcmul_(self.odd, sine)
        matrices = matrices.view(self.steps, self.count * samples, 4, 4)
        rows = self.first
        if inputs is not None:
            rows = rows.expand(self.count, samples, 4).reshape(-1, 1, 4)
        kept = []
        for matrix in matrices.unbind():
            kept.append(rows)
            rows = torch.bmm(rows, matrix)
        return Tape(self, rows, matrices, (cosine, sine), kept)


@dataclass(frozen=True)
class Tape:
    """The result of `Rotations.evaluate`, and what its adjoint needs.

    `rows` is (S, c, 4), or (S * b, 1, 4) for a batch: the columns of each run's product, written as rows.
    """

    of: Rotations
    rows: Tensor
    matrices: Tensor
    waves: tuple[Tensor, Tensor]
    kept: list[Tensor]

    def adjoint(self, cotangent: Tensor) -> Tensor:
        """In the shape of `rows` -> (K * S, b): the cotangent of the angles; b is 1 without a batch."""
        of, (cosine, sine) = self.of, self.waves
        by_matrices = torch.empty_like(self.matrices)
        for step in range(of.steps - 1, -1, -1):
            torch.bmm(self.kept[step].transpose(1, 2), cotangent, out=by_matrices[step])
            if step:
                cotangent = torch.bmm(cotangent, self.matrices[step].transpose(1, 2))
        slopes = torch.mul(of.odd, cosine).addcmul_(of.even, sine, value=-1)
        samples = cosine.shape[2]
        return (slopes.view_as(by_matrices) * by_matrices).sum((2, 3)).view(of.steps * of.count, samples)


def _without_idle_start(run: Run, starts: Array) -> Run:
    """Drop the rotations that act on columns without X and Y: they change nothing."""
    while run.angles and not (run.fixed[0] @ starts)[1:3].any():
        run = Run((run.fixed[1] @ run.fixed[0], *run.fixed[2:]), run.angles[1:])
    return run
