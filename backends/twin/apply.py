"""A 16x16 matrix on two axes of a batch of Pauli vectors, and its adjoint.

Pauli vectors on k positions are rows of length 4^k, position 0 slowest. For axes low < high a row is seen as
(4^low, 4, 4^(high-low-1), 4, 4^(k-high-1)).
"""

from __future__ import annotations

import torch
from torch import Tensor


def apply_pair(vectors: Tensor, matrix: Tensor, axes: tuple[int, int], width: int, out: Tensor) -> Tensor:
    """(m, 4^width), (16, 16) -> (m, 4^width): `matrix` on the axes (low, high) of every row, written to `out`.

    Outside autograd; `out` is contiguous and not `vectors`.
    """
    rows, (low, high) = vectors.shape[0], axes
    if high == low + 1:
        _adjacent(vectors, matrix, rows * 4**low, 4 ** (width - high - 1), out)
        return out
    left, middle, right = rows * 4**low, 4 ** (high - low - 1), 4 ** (width - high - 1)
    gathered = vectors.reshape(left, 4, middle, 4, right).transpose(1, 2).contiguous()
    moved = torch.empty_like(gathered)
    _adjacent(gathered, matrix, left * middle, right, moved)
    out.view(left, 4, middle, 4, right).copy_(moved.view(left, middle, 4, 4, right).transpose(1, 2))
    return out


def outer_pair(a: Tensor, b: Tensor, axes: tuple[int, int], width: int) -> Tensor:
    """(m, 4^width) twice -> (16, 16): sum over rows and all other axes of a[.. i ..] b[.. j ..]."""
    rows, (low, high) = a.shape[0], axes
    if high == low + 1:
        return _outer(a, b, rows * 4**low, 4 ** (width - high - 1))
    left, middle, right = rows * 4**low, 4 ** (high - low - 1), 4 ** (width - high - 1)
    a, b = (x.reshape(left, 4, middle, 4, right).transpose(1, 2).reshape(-1, right) for x in (a, b))
    return _outer(a, b, left * middle, right)


def _adjacent(vectors: Tensor, matrix: Tensor, left: int, right: int, out: Tensor) -> None:
    """`matrix` on the middle axis of (left, 16, right)."""
    if right == 1:
        torch.mm(vectors.view(left, 16), matrix.T, out=out.view(left, 16))
    elif right >= 16:
        shape = (left, 16, right)
        torch.bmm(matrix.expand(left, 16, 16), vectors.view(shape), out=out.view(shape))
    else:  # right is 4: many tiny products are slower than one with four times the work
        wide = torch.kron(matrix.contiguous(), torch.eye(right, dtype=matrix.dtype, device=matrix.device))
        torch.mm(vectors.view(left, 16 * right), wide.T, out=out.view(left, 16 * right))


def _outer(a: Tensor, b: Tensor, left: int, right: int) -> Tensor:
    if right == 1:
        return a.reshape(left, 16).T @ b.reshape(left, 16)
    if right == 4:
        wide = a.reshape(left, 64).T @ b.reshape(left, 64)
        return torch.einsum("aibi->ab", wide.reshape(16, 4, 16, 4))
    return torch.matmul(a.reshape(left, 16, right), b.reshape(left, 16, right).transpose(1, 2)).sum(0)
