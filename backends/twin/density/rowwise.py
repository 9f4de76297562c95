"""A 16x16 matrix on two neighbouring axes of a batch of Pauli vectors, one for all rows or one for each row.

With `right` elements after the pair of axes, a row is seen as (left, 16, right).
"""

from __future__ import annotations

import torch
from torch import Tensor


def apply_rows(x: Tensor, matrix: Tensor, right: int, out: Tensor) -> Tensor:
    """(16, 16) or (rows, 16, 16) on the middle axis of every row of x, (rows, left, 16, right)."""
    if matrix.ndim == 2:
        matrix = matrix[None]
    rows = len(matrix)
    left = x.numel() // (rows * 16 * right)
    if right > 4:
        each = matrix[:, None].expand(rows, left, 16, 16).reshape(rows * left, 16, 16)
        shape = (rows * left, 16, right)
        torch.bmm(each, x.view(shape), out=out.view(shape))
        return out
    if right == 4:  # many tiny products are slower than one with four times the work
        one = torch.eye(4, dtype=x.dtype, device=x.device)
        matrix = (matrix[:, :, None, :, None] * one[:, None, :]).reshape(rows, 64, 64)
    shape = (rows, left, 16 * right)
    torch.bmm(x.view(shape), matrix.transpose(1, 2), out=out.view(shape))
    return out


def outer_rows(a: Tensor, b: Tensor, right: int, rows: int) -> Tensor:
    """(rows, 16, 16): sum over all but the middle axis of a[.. i ..] b[.. j ..]; `rows` is their number or 1."""
    left = a.numel() // (rows * 16 * right)
    if right > 4:
        shape = (rows * left, 16, right)
        return torch.bmm(a.view(shape), b.view(shape).transpose(1, 2)).view(rows, left, 16, 16).sum(1)
    shape = (rows, left, 16 * right)
    wide = torch.bmm(a.view(shape).transpose(1, 2), b.view(shape))
    return wide if right == 1 else torch.einsum("nirjr->nij", wide.view(rows, 16, 4, 16, 4))


def swap_pair(matrix: Tensor) -> Tensor:
    """(..., 16, 16) with the two positions exchanged."""
    shape = matrix.shape
    return matrix.reshape(*shape[:-2], 4, 4, 4, 4).transpose(-4, -3).transpose(-2, -1).reshape(shape)
