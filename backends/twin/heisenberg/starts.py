"""Observables as measured, as vectors on their support, from the table of measured Paulis; and the adjoint.

The table is (positions * 4, 4): entry 4 p + P is what the Pauli P (in the order I, Z, X, Y) read at position p is
before the last run there.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from backends.twin.heisenberg.plan import Start
from backends.twin.heisenberg.products import Products

_INDEX = (0, 2, 3, 1)
"""Where I, X, Y, Z stand in the order I, Z, X, Y."""


class StartVectors(Protocol):
    """The observables of a `plan.Start`."""

    def write(self, table: Tensor, out: Tensor) -> None:
        """Write the vectors, (rows * 4^|support|,), to `out`."""
        ...

    def add_adjoint(self, cotangent: Tensor, table: Tensor, into: Tensor) -> None:
        """Add the cotangent of the table to `into`, from that of the vectors."""
        ...


def start_of(step: Start, dtype: torch.dtype, device: torch.device) -> StartVectors:
    """The quick way where no term has more than one factor, as with Z on each qubit; else products."""
    thin = all(sum(pauli != 0 for pauli in paulis) <= 1 for _, _, paulis in step.terms)
    return _Thin(step, dtype, device) if thin else _Dense(step, dtype, device)


class _Thin:
    """Terms of one factor: its four entries are written where all other axes have the identity."""

    def __init__(self, step: Start, dtype: torch.dtype, device: torch.device) -> None:
        width = len(step.support)
        entries, places, coefficients = [], [], []
        for row, coefficient, paulis in step.terms:
            # The identity is at home on any wire; without one it has a single entry, which is 1.
            axis = next((axis for axis, pauli in enumerate(paulis) if pauli), 0)
            for component in range(4 if width else 1):
                pauli = _INDEX[paulis[axis]] if width else 0
                position = step.support[axis] if width else 0
                entries.append(4 * (4 * position + pauli) + component)
                places.append(row * 4**width + (component * 4 ** (width - 1 - axis) if width else 0))
                coefficients.append(coefficient)
        self.entries, self.places = (
            torch.tensor(index, dtype=torch.long, device=device) for index in (entries, places)
        )
        self.coefficients = torch.tensor(coefficients, dtype=dtype, device=device)

    def write(self, table: Tensor, out: Tensor) -> None:
        out.zero_().index_add_(0, self.places, table.view(-1)[self.entries] * self.coefficients)

    def add_adjoint(self, cotangent: Tensor, table: Tensor, into: Tensor) -> None:
        into.view(-1).index_add_(0, self.entries, cotangent[self.places] * self.coefficients)


class _Dense:
    """sum_t c_t f_t1 x f_t2 x ... for each row, as a product of the sums' two halves."""

    def __init__(self, step: Start, dtype: torch.dtype, device: torch.device) -> None:
        rows, width = len(step.rows), len(step.support)
        by_row: list[list[tuple[float, tuple[int, ...]]]] = [[] for _ in range(rows)]
        for row, coefficient, paulis in step.terms:
            by_row[row].append((coefficient, paulis))
        # Rows are padded to the one with the most terms, with coefficients of zero.
        terms = max(1, *(len(row) for row in by_row))
        coefficients = torch.zeros(rows, terms, dtype=dtype)
        entries = torch.zeros(rows, terms, width, dtype=torch.long)
        for row, of_row in enumerate(by_row):
            for term, (coefficient, paulis) in enumerate(of_row):
                coefficients[row, term] = coefficient
                for axis, (position, pauli) in enumerate(zip(step.support, paulis, strict=True)):
                    entries[row, term, axis] = 4 * position + _INDEX[pauli]
        half = (width + 1) // 2
        self.coefficients = coefficients.to(device)
        self.entries = tuple(part.contiguous().to(device) for part in (entries[..., :half], entries[..., half:]))
        self.shape = (rows, terms)

    def write(self, table: Tensor, out: Tensor) -> None:
        (left, _), (right, _) = self._halves(table)
        shape = (self.shape[0], left.shape[2], right.shape[2])
        torch.bmm((self.coefficients[..., None] * left).transpose(1, 2), right, out=out.view(shape))

    def add_adjoint(self, cotangent: Tensor, table: Tensor, into: Tensor) -> None:
        (left, left_of), (right, right_of) = self._halves(table)
        scale = self.coefficients[..., None]
        cotangent = cotangent.view(self.shape[0], left.shape[2], right.shape[2])
        by_left = scale * torch.bmm(right, cotangent.transpose(1, 2))
        by_right = scale * torch.bmm(left, cotangent)
        for entries, products, part in zip(self.entries, (left_of, right_of), (by_left, by_right), strict=True):
            if products is not None:
                by_factors = products.adjoint(part.view(-1, part.shape[2]))
                into.index_add_(0, entries.view(-1), by_factors.view(-1, 4))

    def _halves(self, table: Tensor) -> list[tuple[Tensor, Products | None]]:
        halves: list[tuple[Tensor, Products | None]] = []
        for entries in self.entries:
            if entries.shape[2]:
                products = Products(table[entries.view(-1, entries.shape[2])])
                halves.append((products.result.view(*self.shape, -1), products))
            else:
                halves.append((table.new_ones(*self.shape, 1), None))
        return halves
