"""A block on two axes of a batch of Pauli vectors, backwards, its adjoint, and its gradient.

A slot is seen as (left, low, middle, high, right), see `plan.Apply`; `matrix` is the transposed block (16, 16), rows
the Pauli pair that comes out. Where a wire is not in the support yet (low or high is 1), only the columns with the
identity on it count. Two fused blocks are (64, 64), rows the Pauli triple that goes in.
"""

from __future__ import annotations

import torch
from torch import Tensor

from backends.twin.plan import Apply


def apply_block(vectors: Tensor, matrix: Tensor, step: Apply, out: Tensor) -> None:
    """Write `matrix` times the slot to `out`; both contiguous, flat or not, and not the same memory."""
    if step.is_fused:
        torch.mm(vectors.view(step.left, 64), matrix, out=out.view(step.left, 64))
        return
    matrix = _columns(matrix, step)
    if step.middle == 1:
        _multiply(vectors, matrix, step.left, step.right, out)
        return
    moved = vectors.new_empty(step.elements)
    _multiply(_gather(vectors, step, step.low, step.high), matrix, step.left * step.middle, step.right, moved)
    _scatter(moved, step, 4, 4, out)


def apply_adjoint(cotangent: Tensor, matrix: Tensor, step: Apply, out: Tensor) -> None:
    """The cotangent of the slot before `apply_block`, from that after it, written to `out`."""
    if step.is_fused:
        torch.mm(cotangent.view(step.left, 64), matrix.T, out=out.view(step.left, 64))
        return
    matrix = _columns(matrix, step).T
    if step.middle == 1:
        _multiply(cotangent, matrix, step.left, step.right, out)
        return
    moved = torch.empty_like(out)
    _multiply(_gather(cotangent, step, 4, 4), matrix, step.left * step.middle, step.right, moved)
    _scatter(moved, step, step.low, step.high, out)


def add_outer(vectors: Tensor, cotangent: Tensor, step: Apply, gradient: Tensor) -> None:
    """Add the gradient by `matrix` to `gradient`: the sum over all other axes of out[i] in[j]."""
    if step.is_fused:
        gradient.addmm_(vectors.view(step.left, 64).T, cotangent.view(step.left, 64))
        return
    left, right = step.left, step.right
    if step.middle != 1:
        vectors, cotangent = _gather(vectors, step, step.low, step.high), _gather(cotangent, step, 4, 4)
        left *= step.middle
    width, gradient = step.low * step.high, _columns(gradient, step)
    if right == 1:
        gradient.addmm_(cotangent.view(left, 16).T, vectors.view(left, width))
    elif right == 4 and left > 16:
        wide = cotangent.view(left, 64).T @ vectors.view(left, 4 * width)
        gradient += wide.view(16, 4, width, 4).diagonal(dim1=1, dim2=3).sum(-1)
    else:
        gradient += torch.bmm(cotangent.view(left, 16, right), vectors.view(left, width, right).transpose(1, 2)).sum(0)


def _columns(matrix: Tensor, step: Apply) -> Tensor:
    """The columns (pairs that go in) that count; a view."""
    if step.high == 1:
        return matrix[:, ::4]
    return matrix[:, :4] if step.low == 1 else matrix


def _multiply(vectors: Tensor, matrix: Tensor, left: int, right: int, out: Tensor) -> None:
    """(left, j, right), (i, j) -> (left, i, right)."""
    rows, columns = matrix.shape
    if right == 1:
        torch.mm(vectors.view(left, columns), matrix.T, out=out.view(left, rows))
    elif right == 4 and left > 16:  # Many tiny products are slower than one with four times the work.
        wide = torch.kron(matrix.T.contiguous(), torch.eye(right, dtype=matrix.dtype, device=matrix.device))
        torch.mm(vectors.view(left, columns * right), wide, out=out.view(left, rows * right))
    else:
        torch.bmm(
            matrix.expand(left, rows, columns), vectors.view(left, columns, right), out=out.view(left, rows, right)
        )


def _gather(vectors: Tensor, step: Apply, low: int, high: int) -> Tensor:
    """(left, low, middle, high, right) -> (left * middle, low * high, right), a copy."""
    return vectors.view(step.left, low, step.middle, high, step.right).transpose(1, 2).contiguous()


def _scatter(moved: Tensor, step: Apply, low: int, high: int, out: Tensor) -> None:
    """The way back, into `out`."""
    shape = (step.left, low, step.middle, high, step.right)
    out.view(shape).copy_(moved.view(step.left, step.middle, low, high, step.right).transpose(1, 2))
