"""Runs of single-qubit gates, many at once, with the adjoint by hand: autograd's overhead would exceed the arithmetic.

Pauli vectors are in the order I, Z, X, Y here, so that a rotation about Z multiplies the complex number x + i y, which
lies in the last two entries, by exp(i a).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

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
        dtype: torch.float32 or torch.float64.
        device: Where the tensors live.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        starts: np.ndarray,
        n_inputs: int,
        n_weights: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        # A rotation right at the start that does nothing to the columns (a state without X and Y) is left out.
        cut = [_without_idle_start(run, starts) for run in runs]
        steps = max((len(run.angles) for run in cut), default=0)
        first = np.zeros((len(cut), starts.shape[1], 4))
        fixed = np.tile(np.eye(4), (steps, len(cut), 1, 1))
        constant, inputs = np.zeros((steps, len(cut))), np.zeros((steps, len(cut), n_inputs))
        weights = np.zeros((steps, len(cut), n_weights))
        for i, run in enumerate(cut):
            first[i] = (run.fixed[0] @ starts).T[:, ORDER]
            for j, angle in enumerate(run.angles):
                fixed[j, i] = run.fixed[j + 1][np.ix_(ORDER, ORDER)].T
                constant[j, i], inputs[j, i], weights[j, i] = angle.constant, angle.inputs, angle.weights
        self.steps, self.count, self.columns = steps, len(cut), starts.shape[1]
        self.first, self.fixed, self.back, self.constant, self.inputs, self.weights = (
            torch.as_tensor(np.ascontiguousarray(array), dtype=dtype, device=device)
            for array in (
                first,
                fixed,
                fixed.transpose(0, 1, 3, 2),
                constant.reshape(-1),
                inputs.reshape(-1, n_inputs),
                weights.reshape(-1, n_weights),
            )
        )
        self.takes_inputs = bool(inputs.any())

    def evaluate(self, weights: Tensor, inputs: Tensor | None = None) -> Tape:
        """(n_weights,) and, for a batch of states, (b, n_inputs): columns are then samples, with one start column."""
        angles = torch.addmv(self.constant, self.weights, weights)
        if inputs is not None:
            angles = torch.addmm(angles[:, None], self.inputs, inputs.T)
        columns = 1 if inputs is None else len(inputs)
        phases = torch.polar(torch.ones_like(angles), angles).view(self.steps, self.count, columns, 1)
        rows = self.first
        if inputs is not None:
            rows = rows.expand(self.count, len(inputs), 4)
        kept = []
        for step in range(self.steps):
            rows = rows.clone() if step == 0 else rows
            turned = torch.view_as_complex(rows[..., 2:].unflatten(-1, (1, 2)))
            turned.mul_(phases[step])
            kept.append(rows)
            rows = rows @ self.fixed[step]
        return Tape(self, rows, phases, kept)


class Tape:
    """The result of `Rotations.evaluate`, and what its adjoint needs.

    `rows` is (S, c, 4): the columns of each run's product, written as rows, in the order I, Z, X, Y.
    """

    def __init__(self, rotations: Rotations, rows: Tensor, phases: Tensor, kept: list[Tensor]) -> None:
        self._of, self.rows, self._phases, self._kept = rotations, rows, phases, kept

    def adjoint(self, cotangent: Tensor) -> Tensor:
        """(S, c, 4) -> (K * S, c): the cotangent of the angles, one column if they are common to all columns."""
        of = self._of
        columns = cotangent.shape[1]
        by_angle = cotangent.new_empty(of.steps, of.count, columns, 1)
        for step in range(of.steps - 1, -1, -1):
            cotangent = cotangent @ of.back[step]
            slope = torch.view_as_complex(cotangent[..., 2:].unflatten(-1, (1, 2)))
            here = torch.view_as_complex(self._kept[step][..., 2:].unflatten(-1, (1, 2)))
            by_angle[step] = (here.conj() * slope).imag
            slope.mul_(self._phases[step].conj())
        by_angle = by_angle.view(of.steps * of.count, columns)
        return by_angle if self._phases.shape[2] == columns else by_angle.sum(1, keepdim=True)


def _without_idle_start(run: Run, starts: np.ndarray) -> Run:
    """Drop the rotations that act on columns without X and Y: they change nothing."""
    while run.angles and not (run.fixed[0] @ starts)[1:3].any():
        run = Run((run.fixed[1] @ run.fixed[0], *run.fixed[2:]), run.angles[1:])
    return run
