"""The matrices of a program for a batch: its runs, evaluated once or for every row, put together with its blocks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from backends.twin.density.runs import Runs
from backends.twin.program import Program, Run


class Matrices:
    """Turns parameters into first states, matrices of the blocks and last runs.

    With `weights_by_row` all runs that have an angle differ from row to row, else only those that take inputs.
    """

    def __init__(
        self,
        program: Program,
        *,
        n_inputs: int,
        n_weights: int,
        dtype: torch.dtype,
        device: torch.device,
        weights_by_row: bool,
    ) -> None:
        self._n_weights = n_weights
        channels = np.array([block.channel for block in program.blocks]).reshape(-1, 16, 16)
        runs = runs_of(program)
        varies = [bool(run.angles) if weights_by_row else run.takes_inputs for run in runs]
        self.shared, self.rows = (
            Runs(
                [run for run, v in zip(runs, varies, strict=True) if v == which],
                n_inputs=n_inputs,
                n_weights=n_weights,
                dtype=dtype,
                device=device,
            )
            for which in (False, True)
        )
        # Where each run stands: behind the shared ones, those of each row.
        place: dict[int, int] = {}
        for which in (False, True):
            for run, v in zip(runs, varies, strict=True):
                if v == which:
                    place[id(run)] = len(place)
        kept = {id(run): v for run, v in zip(runs, varies, strict=True)}

        def index(which: Sequence[Run | None]) -> Tensor:
            return torch.tensor([place[id(run or _NOTHING)] for run in which], dtype=torch.long, device=device)

        self.first, self.last = index(program.first), index(program.last)
        self.last_varies = any(run is not None and kept[id(run)] for run in program.last)
        self.where: list[tuple[bool, int]] = []
        blocks: dict[bool, list[int]] = {False: [], True: []}
        for number, block in enumerate(program.blocks):
            rows = any(run is not None and kept[id(run)] for run in (block.before_low, block.before_high))
            self.where.append((rows, len(blocks[rows])))
            blocks[rows].append(number)
        self.blocks = {
            rows: (
                torch.as_tensor(channels[np.array(numbers, dtype=np.int64)], dtype=dtype, device=device),
                index([program.blocks[number].before_low for number in numbers]),
                index([program.blocks[number].before_high for number in numbers]),
            )
            for rows, numbers in blocks.items()
        }

    def __call__(self, inputs: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """-> first (k, B, 4), shared (s, 16, 16), by row (t, B, 16, 16), last (B or 1, k, 4, 4)."""
        alike = weights if weights.ndim == 1 else weights.new_zeros(self._n_weights)
        shared = self.shared(inputs[:0], alike)  # (S, 1, 4, 4)
        rows = self.rows(inputs, weights)  # (R, B, 4, 4)
        both = torch.cat([shared.expand(-1, len(inputs), -1, -1), rows])
        # |0><0| has the Pauli vector (1, 0, 0, 1).
        first = (both[..., 0] + both[..., 3])[self.first]
        last = (both if self.last_varies else shared)[self.last].transpose(0, 1)
        matrices = []
        for by_row, of in ((False, shared), (True, both)):
            channel, low, high = self.blocks[by_row]
            pairs = torch.einsum("sbij,sbkl->sbikjl", of[low], of[high]).reshape(len(low), of.shape[1], 16, 16)
            matrices.append(channel[:, None] @ pairs)
        return first, matrices[0][:, 0], matrices[1], last


_NOTHING = Run((np.eye(4),), ())


def runs_of(program: Program) -> list[Run]:
    """All runs of a program, each once, and the identity."""
    runs = [*program.first, *program.last]
    for block in program.blocks:
        runs += [block.before_low, block.before_high]
    return [*{id(run): run for run in runs if run is not None}.values(), _NOTHING]
