"""The blocks of a program as matrices for given weights, single and fused, and the way back to the runs.

Everything is in the order I, Z, X, Y (see `rotations`), and transposed: row the Pauli that comes out when an observable
is carried backwards.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from backends.twin.heisenberg.apply import Block
from backends.twin.heisenberg.plan import Fused
from backends.twin.heisenberg.rotations import ORDER, Rotations
from backends.twin.program import Program, Run

_PAIR_ORDER = np.array([4 * a + b for a in ORDER for b in ORDER])

# Index order of a fused matrix's two factors and of their product, see `_Fusion`.
_LOW_FIRST = ((0, 1, 3, 4, 2), (0, 3, 1, 2, 4), (0, 2, 3, 6, 1, 4, 5))
_HIGH_FIRST = ((0, 2, 3, 4, 1), (0, 4, 1, 2, 3), (0, 6, 2, 3, 4, 5, 1))


class Blocks:
    """The two-qubit channels of a program, each behind its runs, and the runs at the end.

    Args:
        program: From `build_program`.
        fused: Pairs of blocks that are wanted as one matrix.
        n_inputs, n_weights: Lengths of the parameter vectors.
        like: Gives the dtype and the device.
    """

    def __init__(
        self, program: Program, fused: Sequence[Fused], *, n_inputs: int, n_weights: int, like: Tensor
    ) -> None:
        blocks = program.blocks
        runs = [*(b.before_low for b in blocks), *(b.before_high for b in blocks), *program.last]
        self.rotations = Rotations(
            [_NOTHING if run is None else run for run in runs],
            np.eye(4)[:, ORDER],
            n_inputs=n_inputs,
            n_weights=n_weights,
            like=like,
        )
        self.count = len(blocks)
        channels = [block.channel[np.ix_(_PAIR_ORDER, _PAIR_ORDER)].T for block in blocks]
        stacked = np.array(channels).reshape(len(blocks), 16, 16)
        self.channels = torch.as_tensor(stacked, dtype=like.dtype, device=like.device)
        self.channels_back = self.channels.transpose(1, 2).contiguous()
        self.fusions = [
            _Fusion([(n, pair) for n, pair in enumerate(fused) if pair.first_is_low is low], *order, like.device)
            for low, order in ((True, _LOW_FIRST), (False, _HIGH_FIRST))
        ]
        self.fused_count = len(fused)


class Matrices:
    """`Blocks` for given weights.

    Attributes:
        stacked: (blocks, 16, 16).
        single: The same, one by one.
        fused: By number, (64, 64), row the triple that goes in.
        last: (positions, 4, 4): the runs at the end, transposed.
    """

    def __init__(self, blocks: Blocks, weights: Tensor) -> None:
        self._blocks = blocks
        self._tape = blocks.rotations.evaluate(weights)
        count, rows = blocks.count, self._tape.rows
        self._low = rows[:count].view(count, 4, 1, 4, 1)
        self._high = rows[count : 2 * count].view(count, 1, 4, 1, 4)
        self.last = rows[2 * count :]
        self.stacked = (self._low * self._high).view(count, 16, 16) @ blocks.channels
        self.single = [
            Block(matrix, back) for matrix, back in zip(self.stacked.unbind(), self.stacked.mT.unbind(), strict=True)
        ]
        self.fused: dict[int, Block] = {}
        self._factors = [fusion.evaluate(self.stacked, self.fused) for fusion in blocks.fusions]

    def adjoint(self, single: Tensor, fused: Tensor, last: Tensor) -> Tensor:
        """Cotangents of `stacked`, of `fused` stacked (n, 64, 64), and of `last` -> that of the angles, (K * S,)."""
        blocks = self._blocks
        for fusion, factors in zip(blocks.fusions, self._factors, strict=True):
            fusion.add_adjoint(factors, fused, single)
        # stacked = before @ channels with before[s, (c1, c2), (r1, r2)] = low[s, c1, r1] high[s, c2, r2]
        before = (single @ blocks.channels_back).view(blocks.count, 4, 4, 4, 4)
        by_low, by_high = (before * self._high).sum((2, 4)), (before * self._low).sum((1, 3))
        return self._tape.adjoint(torch.cat([by_low, by_high, last]))[:, 0]


class _Fusion:
    """All fused pairs of one kind at once.

    Low first: F[a b c, x z w] = sum_y first[x y, a b] second[z w, y c]; else
    F[a b c, x z w] = sum_y first[y w, b c] second[x z, a y]. The sum is one product of (64, 4) and (4, 64), between
    transpositions given by the orders of the axes.
    """

    def __init__(
        self,
        pairs: Sequence[tuple[int, Fused]],
        first: Sequence[int],
        second: Sequence[int],
        product: Sequence[int],
        device: torch.device,
    ) -> None:
        self.numbers = torch.tensor([number for number, _ in pairs], dtype=torch.long, device=device)
        self.first = torch.tensor([pair.first for _, pair in pairs], dtype=torch.long, device=device)
        self.second = torch.tensor([pair.second for _, pair in pairs], dtype=torch.long, device=device)
        self.orders = (tuple(first), tuple(second), tuple(product))
        self.backs = tuple(tuple(int(i) for i in np.argsort(order)) for order in self.orders)
        self.pairs = [number for number, _ in pairs]

    def evaluate(self, single: Tensor, fused: dict[int, Block]) -> tuple[Tensor, Tensor]:
        """Set the fused matrices; returns the factors, which the adjoint needs."""
        if not self.pairs:
            return single, single
        shape = (len(self.pairs), 4, 4, 4, 4)
        left = single[self.first].view(shape).permute(self.orders[0]).reshape(-1, 64, 4)
        right = single[self.second].view(shape).permute(self.orders[1]).reshape(-1, 4, 64)
        product = (left @ right).view(-1, *[4] * 6).permute(self.orders[2]).reshape(-1, 64, 64)
        for number, matrix in zip(self.pairs, product.unbind(), strict=True):
            fused[number] = Block(matrix, matrix.mT)
        return left, right

    def add_adjoint(self, factors: tuple[Tensor, Tensor], fused: Tensor, single: Tensor) -> None:
        """Add to the cotangent of the single blocks what comes from the fused ones."""
        if not self.pairs:
            return
        left, right = factors
        product = fused[self.numbers].view(-1, *[4] * 6).permute(self.backs[2]).reshape(-1, 64, 64)
        shape = (len(self.pairs), 4, 4, 4, 4)
        by_left = (product @ right.transpose(1, 2)).view(shape).permute(self.backs[0])
        by_right = (left.transpose(1, 2) @ product).view(shape).permute(self.backs[1])
        single.index_add_(0, self.first, by_left.reshape(-1, 16, 16))
        single.index_add_(0, self.second, by_right.reshape(-1, 16, 16))


_NOTHING = Run((np.eye(4),), ())
