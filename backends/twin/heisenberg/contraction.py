"""Values of observables in a batch of product states, and the adjoint."""

from __future__ import annotations

import torch
from torch import Tensor

from backends.twin.heisenberg.products import Products

_WHOLE = 4
"""Up to so many wires the product states are written out; beyond, as two halves."""


class Contraction:
    """Product states (batch, k, 4), seen on a support, against observables on it.

    Between `values` and `adjoint` stand products: (batch, 4^|support|) up to 4 wires, else those of the two halves
    beside each other, (batch, 4^half + 4^rest).
    """

    def __init__(self, states: Tensor, support: tuple[int, ...]) -> None:
        self.support = support
        whole = len(support) <= _WHOLE
        half = len(support) if whole else (len(support) + 1) // 2
        self._parts = [_index(part) for part in (support[:half], support[half:]) if part]
        self._products = [Products(states[:, part]) for part in self._parts]
        self._is_whole, self._states = whole, states

    def values(self, vectors: Tensor) -> Tensor:
        """(rows, 4^|support|) -> (rows, batch)."""
        if not self._products:
            return vectors.expand(-1, len(self._states))
        left = self._products[0].result
        if self._is_whole:
            return vectors @ left.T
        right = self._products[1].result
        result: Tensor = ((left @ self._cube(vectors)) * right).sum(-1)
        return result

    def adjoint(self, vectors: Tensor, cotangent: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors, (rows, batch) -> the cotangents of the vectors and of the products."""
        if not self._products:
            return cotangent.sum(1, keepdim=True), cotangent.new_zeros(cotangent.shape[1], 0)
        left = self._products[0].result
        if self._is_whole:
            return cotangent @ left, cotangent.T @ vectors
        right, cube, outer = self._products[1].result, self._cube(vectors), cotangent[..., None]
        scaled = outer * right
        by_left = (scaled @ cube.transpose(1, 2)).sum(0)
        by_right = ((left @ cube) * outer).sum(0)
        return (left.T @ scaled).view_as(vectors), torch.cat([by_left, by_right], 1)

    def add_to_states(self, by_products: Tensor, by_states: Tensor) -> None:
        """Add the cotangent of the states to `by_states` (batch, k, 4), from that of the products."""
        start = 0
        for part, products in zip(self._parts, self._products, strict=True):
            width = products.result.shape[1]
            by_states[:, part] += products.adjoint(by_products[:, start : start + width])
            start += width

    def _cube(self, vectors: Tensor) -> Tensor:
        return vectors.view(len(vectors), self._products[0].result.shape[1], -1)


def _index(part: tuple[int, ...]) -> slice | list[int]:
    """Neighbouring positions as a slice, which makes a view."""
    if part[-1] - part[0] == len(part) - 1:
        return slice(part[0], part[-1] + 1)
    return list(part)
