"""A block on two axes of a batch of Pauli vectors, backwards, its adjoint, and its gradient.

A slot is seen as (left, low, middle, high, right), see `plan.Apply`; a block is the transposed channel (16, 16), rows
the Pauli pair that comes out. Where a wire is not in the support yet (low or high is 1), only the columns with the
identity on it count. Two fused blocks are (64, 64), rows the Pauli triple that goes in.

In small circuits a call to torch, and even a view, costs more than the arithmetic: views are made once (`Views`) for
buffers that are used again.
"""

from __future__ import annotations

import torch
from torch import Tensor

from backends.twin.heisenberg.plan import Apply


class Views:
    """A step's input and output in a buffer, in the shapes that its product takes, and transposed.

    (left, j) where nothing stands to the right, (j, right) where nothing stands to the left, else (left, j, right),
    with j what the block acts on. Distant axes have no such view: `inside` and `outside` then have all five axes.
    """

    def __init__(self, step: Apply, inside: Tensor, outside: Tensor) -> None:
        width = 64 if step.is_fused else step.low * step.high
        if step.is_fused or step.middle == 1:
            out = 64 if step.is_fused else 16
            self.inside, self.outside = _shape(step, inside, width), _shape(step, outside, out)
            self.inside_back, self.outside_back = self.inside.mT, self.outside.mT
        else:
            self.inside = self.inside_back = inside.view(step.left, step.low, step.middle, step.high, step.right)
            self.outside = self.outside_back = outside.view(step.left, 4, step.middle, 4, step.right)


class Block:
    """One block's matrix and its transposition, and the parts of them that count where it adds a wire."""

    def __init__(self, matrix: Tensor, back: Tensor) -> None:
        self._whole = (matrix, back)

    def of(self, step: Apply) -> tuple[Tensor, Tensor]:
        """The columns that count, and their transposition."""
        whole, back = self._whole
        if step.is_fused or step.low * step.high == 16:
            return whole, back
        return (whole[:, ::4], back[::4]) if step.high == 1 else (whole[:, :4], back[:4])


def apply_block(views: Views, block: Block, step: Apply) -> None:
    """Write the block times the input to the output."""
    matrix, back = block.of(step)
    if step.is_fused:
        torch.mm(views.inside, matrix, out=views.outside)
    elif step.middle == 1:
        _multiply(views.inside, matrix, back, step, views.outside)
    else:
        near = views.inside.transpose(1, 2).reshape(step.left * step.middle, -1, step.right)
        moved = near.new_empty(len(near), 16, step.right)
        torch.bmm(matrix.expand(len(near), -1, -1), near, out=moved)
        views.outside.copy_(_apart(moved, views.outside))


def apply_adjoint(views: Views, block: Block, step: Apply) -> None:
    """Write the cotangent of the input, from that of the output; the views are of a buffer of cotangents."""
    matrix, back = block.of(step)
    if step.is_fused:
        torch.mm(views.outside, back, out=views.inside)
    elif step.middle == 1:
        _multiply(views.outside, back, matrix, step, views.inside)
    else:
        near = views.outside.transpose(1, 2).reshape(step.left * step.middle, 16, step.right)
        moved = near.new_empty(len(near), step.low * step.high, step.right)
        torch.bmm(back.expand(len(near), -1, -1), near, out=moved)
        views.inside.copy_(_apart(moved, views.inside))


def add_outer(vectors: Views, cotangents: Views, step: Apply, gradient: Tensor) -> None:
    """Add the gradient by the block's matrix to `gradient`: the sum over all other axes of out[i] in[j]."""
    if step.is_fused:
        gradient.addmm_(vectors.inside_back, cotangents.outside)
        return
    width = step.low * step.high
    if width != 16:
        gradient = gradient[:, ::4] if step.high == 1 else gradient[:, :4]
    if step.middle != 1:
        near = vectors.inside.transpose(1, 2).reshape(-1, width, step.right)
        out = cotangents.outside.transpose(1, 2).reshape(-1, 16, step.right)
        gradient += torch.bmm(out, near.mT).sum(0)
    elif step.right == 1:
        gradient.addmm_(cotangents.outside_back, vectors.inside)
    elif step.left == 1:
        gradient.addmm_(cotangents.outside, vectors.inside_back)
    elif step.right == 4 and step.left > _MANY:
        wide = cotangents.outside.view(step.left, 64).T @ vectors.inside.view(step.left, 4 * width)
        gradient += wide.view(16, 4, width, 4).diagonal(dim1=1, dim2=3).sum(-1)
    else:
        gradient += torch.bmm(cotangents.outside, vectors.inside_back).sum(0)


_MANY = 16
"""More tiny products than this are slower than a single one with four times the work."""


def _shape(step: Apply, flat: Tensor, width: int) -> Tensor:
    if step.right == 1:
        return flat.view(step.left, width)
    return flat.view(width, step.right) if step.left == 1 else flat.view(step.left, width, step.right)


def _multiply(vectors: Tensor, matrix: Tensor, back: Tensor, step: Apply, out: Tensor) -> None:
    """`matrix` (i, j) on the axis j of the vectors."""
    if step.right == 1:
        torch.mm(vectors, back, out=out)
    elif step.left == 1:
        torch.mm(matrix, vectors, out=out)
    elif step.right == 4 and step.left > _MANY:
        wide = torch.kron(back.contiguous(), torch.eye(4, dtype=matrix.dtype, device=matrix.device))
        torch.mm(vectors.view(step.left, -1), wide, out=out.view(step.left, -1))
    else:
        torch.bmm(matrix.expand(step.left, -1, -1), vectors, out=out)


def _apart(moved: Tensor, like: Tensor) -> Tensor:
    """(left * middle, low * high, right) -> (left, low, middle, high, right)."""
    left, low, middle, high, right = like.shape
    return moved.view(left, middle, low, high, right).transpose(1, 2)
