"""Many registers in one leased buffer: fresh memory costs more (page faults) than the arithmetic on it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from backends.twin.buffers import BufferPool


class Arena:
    """Registers cut from one leased buffer and used again by size; beyond it, memory of their own."""

    def __init__(self, pool: BufferPool, like: Tensor, elements: int) -> None:
        self._lease = pool.lease((elements,), like)
        self._used = 0
        self._idle: dict[int, list[Tensor]] = {}

    def take(self, shape: Sequence[int]) -> Tensor:
        """A register with arbitrary contents."""
        elements = math.prod(shape)
        if idle := self._idle.get(elements):
            return idle.pop().view(*shape)
        flat = self._lease.buffer
        if self._used + elements > flat.numel():
            return flat.new_empty(*shape)
        self._used += elements
        return flat[self._used - elements : self._used].view(*shape)

    def give(self, register: Tensor) -> None:
        """Back, to be taken again; nobody may hold it any more."""
        self._idle.setdefault(register.numel(), []).append(register.view(-1))
