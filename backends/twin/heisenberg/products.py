"""Row-wise tensor products of small vectors, and the adjoint of taking them."""

from __future__ import annotations

import torch
from torch import Tensor


class Products:
    """(n, k, 4) -> (n, 4^k): row i is factors[i, 0] x ... x factors[i, k-1], position 0 slowest; k >= 1.

    `result` is the product; `adjoint` takes a cotangent of its shape to one of the factors' shape.
    """

    def __init__(self, factors: Tensor) -> None:
        self._factors = factors
        rows, count, _ = factors.shape
        prefix = factors[:, 0]
        self._prefixes = [prefix]
        for position in range(1, count):
            prefix = (prefix[:, :, None] * factors[:, position, None, :]).view(rows, 4 ** (position + 1))
            self._prefixes.append(prefix)
        self.result = prefix

    def adjoint(self, cotangent: Tensor) -> Tensor:
        """(n, 4^k) -> (n, k, 4)."""
        factors, rows = self._factors, len(cotangent)
        result = factors.new_empty(factors.shape)
        for position in range(factors.shape[1] - 1, 0, -1):
            by_prefix = cotangent.reshape(rows, 4**position, 4)
            result[:, position, None] = torch.bmm(self._prefixes[position - 1][:, None, :], by_prefix)
            cotangent = torch.bmm(by_prefix, factors[:, position, :, None])[..., 0]
        result[:, 0] = cotangent
        return result
