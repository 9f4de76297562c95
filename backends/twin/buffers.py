"""Large buffers that are used again. Fresh memory costs more (page faults) than the arithmetic on it."""

from __future__ import annotations

import math
import threading
from typing import Any

from torch import Tensor

_KEPT, _BYTES = 64, 2**32
"""How many idle buffers, and bytes of them, a pool keeps at most; the oldest go first."""


class BufferPool:
    """Idle buffers of an engine, shared by its programs. They are flat, and lent to whoever needs no more."""

    def __init__(self) -> None:
        self._idle: list[Tensor] = []
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """A copy of a pool is an empty one."""
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]

    def lease(self, shape: tuple[int, ...], like: Tensor) -> Lease:
        """A buffer of that shape, with the dtype and device of `like`; its contents are arbitrary."""
        needed = math.prod(shape)
        with self._lock:
            alike = [i for i, free in enumerate(self._idle) if free.dtype == like.dtype and free.device == like.device]
            fitting = [i for i in alike if self._idle[i].numel() >= needed]
            if fitting:
                return Lease(self, self._idle.pop(min(fitting, key=lambda i: self._idle[i].numel())), shape)
            if alike:
                # A larger one takes the place of the largest that is too small: else every size would be kept.
                del self._idle[max(alike, key=lambda i: self._idle[i].numel())]
        return Lease(self, like.new_empty(needed), shape)

    def give_back(self, buffer: Tensor) -> None:
        """Keep a buffer for the next one who asks."""
        with self._lock:
            self._idle.append(buffer)
            while len(self._idle) > _KEPT or sum(b.numel() * b.element_size() for b in self._idle) > _BYTES:
                del self._idle[0]

    def clear(self) -> None:
        """Free the idle buffers."""
        with self._lock:
            self._idle.clear()


class Lease:
    """Holds a buffer; it goes back to the pool when the lease, and with it the graph that needs it, is gone."""

    def __init__(self, pool: BufferPool, whole: Tensor, shape: tuple[int, ...]) -> None:
        self._pool, self._whole = pool, whole
        self.buffer = whole[: math.prod(shape)].view(shape)

    def __del__(self) -> None:
        self._pool.give_back(self._whole)
