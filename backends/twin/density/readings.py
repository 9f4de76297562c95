"""Pauli sums read off final states: only the elements that a sum's strings touch.

The strings' supports are gathered into as few reads as pay: a read takes index 0 outside its support S, which leaves
(rows, 4^|S|), puts the last runs and the readout on every axis, and has all Pauli strings within S as its elements.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from backends.observables import PauliSum


class Reading:
    """How to read some observables off registers.

    Args:
        observables: m sums on virtual qubits.
        outputs: Tensor position of each virtual qubit.
        registers: The positions of every register, in the order of its axes.
        dtype: Of the states.
        device: Of the states.
    """

    def __init__(
        self,
        observables: Sequence[PauliSum],
        outputs: Sequence[int],
        registers: Sequence[tuple[int, ...]],
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        strings: dict[tuple[tuple[int, int], ...], int] = {}
        entries = []
        for row, observable in enumerate(observables):
            for coefficient, factors in observable:
                string = tuple(sorted((outputs[qubit], kind) for qubit, kind in factors))
                entries.append((row, strings.setdefault(string, len(strings)), coefficient))
        coefficients = np.zeros((len(observables), len(strings)))
        for row, column, coefficient in entries:
            coefficients[row, column] += coefficient
        self._coefficients = torch.as_tensor(coefficients, dtype=dtype, device=device)
        self._reads: list[_Read] = []
        self._columns: list[Tensor] = []
        start = 1  # column 0 of the table is 1, for a string that leaves a register alone
        for number, positions in enumerate(registers):
            parts = [{p: kind for p, kind in string if p in positions} for string in strings]
            where: dict[frozenset[int], int] = {}
            supports = _supports([frozenset(part) for part in parts if part])
            for size in sorted({len(support) for support in supports}):
                group = [tuple(p for p in positions if p in s) for s in supports if len(s) == size]
                where |= {frozenset(s): start + i * 4**size for i, s in enumerate(group)}
                start += len(group) * 4**size
                self._reads.append(_Read(number, positions, group, device))
            if supports:
                columns = [_column(part, where, positions) for part in parts]
                self._columns.append(torch.tensor(columns, dtype=torch.long, device=device))

    def values(self, states: Sequence[Tensor], measured: Tensor) -> Tensor:
        """Registers (B, 4^w), (B or 1, k, 4, 4) last runs with readout -> (B, m); differentiable."""
        rows = len(states[0])
        table = torch.cat([states[0].new_ones(rows, 1), *(read(states, measured) for read in self._reads)], 1)
        strings = table.new_ones(rows, self._coefficients.shape[1])
        for columns in self._columns:
            strings = strings * table.index_select(1, columns)
        return strings @ self._coefficients.T


class _Read:
    """All Pauli strings within supports of one size of one register: (B, supports * 4^size)."""

    def __init__(
        self, register: int, positions: tuple[int, ...], supports: Sequence[tuple[int, ...]], device: torch.device
    ) -> None:
        self.register, self.size = register, len(supports[0])
        self.supports = torch.tensor(supports, dtype=torch.long, device=device)
        elements = np.zeros((len(supports), 1), dtype=np.int64)
        strides = {p: 4 ** (len(positions) - 1 - axis) for axis, p in enumerate(positions)}
        for axis in range(self.size):
            steps = np.array([strides[support[axis]] for support in supports])[:, None, None] * np.arange(4)
            elements = (elements[:, :, None] + steps).reshape(len(supports), -1)
        self.elements = torch.as_tensor(elements.reshape(-1), device=device)

    def __call__(self, states: Sequence[Tensor], measured: Tensor) -> Tensor:
        state, count = states[self.register], len(self.supports)
        rows = len(state)
        part = state.index_select(1, self.elements)
        for axis in range(self.size):
            matrix = measured[:, self.supports[:, axis], None]  # (B or 1, supports, 1, 4, 4)
            part = matrix @ part.reshape(rows, count, 4**axis, 4, 4 ** (self.size - 1 - axis))
        return part.reshape(rows, count * 4**self.size)


def _supports(wanted: Sequence[frozenset[int]]) -> list[frozenset[int]]:
    """The supports to read: those that lie in no other, or their union where that is less work."""
    largest: list[frozenset[int]] = []
    for support in sorted(set(wanted), key=lambda s: (-len(s), sorted(s))):
        if not any(support <= other for other in largest):
            largest.append(support)
    if not largest:
        return []
    union = frozenset().union(*largest)
    if len(largest) > 1 and sum(len(s) * 4 ** len(s) for s in largest) >= len(union) * 4 ** len(union):
        return [union]
    return largest


def _column(part: dict[int, int], where: dict[frozenset[int], int], positions: tuple[int, ...]) -> int:
    if not part:
        return 0
    support, start = next((s, first) for s, first in where.items() if part.keys() <= s)
    digits = [part.get(p, 0) for p in positions if p in support]
    return start + int(sum(digit * 4 ** (len(digits) - 1 - axis) for axis, digit in enumerate(digits)))
