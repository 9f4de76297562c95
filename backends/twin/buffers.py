"""Large buffers that are used again. Fresh memory costs more (page faults) than the arithmetic on it."""

from __future__ import annotations

import math
import threading
from collections import deque
from typing import Any

from torch import Tensor

_KEPT, _BYTES = 512, 2**32
"""How many idle buffers, and bytes of them, a pool keeps at most; the oldest go first."""


class BufferPool:
    """Idle buffers of an engine, shared by its programs. They are flat, and lent to whoever needs no more.

    A lease ends wherever the garbage collector finds it, in the middle of `lease` too: what comes back is put down
    without a lock (adding to a deque is atomic), and sorted in when the next one asks.
    """

    def __init__(self) -> None:
        self._idle: list[Tensor] = []
        self._returned: deque[Tensor] = deque()
        self._lent = 0
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
            self._sort_in()
            alike = [i for i, free in enumerate(self._idle) if free.dtype == like.dtype and free.device == like.device]
            fitting = [i for i in alike if self._idle[i].numel() >= needed]
            if fitting:
                found = self._idle.pop(min(fitting, key=lambda i: self._idle[i].numel()))
                self._lent += _bytes(found)
                return Lease(self, found, shape)
            if alike:
                # A larger one takes the place of the largest that is too small: else every size would be kept.
                del self._idle[max(alike, key=lambda i: self._idle[i].numel())]
            self._lent += needed * like.element_size()
        return Lease(self, like.new_empty(needed), shape)

    def give_back(self, buffer: Tensor) -> None:
        """Keep a buffer for the next one who asks."""
        self._returned.append(buffer)

    def clear(self) -> None:
        """Free the idle buffers."""
        with self._lock:
            self._sort_in()
            self._idle.clear()

    def lent(self) -> int:
        """Bytes that are lent."""
        with self._lock:
            self._sort_in()
            return self._lent

    def idle(self) -> list[int]:
        """How many elements the idle buffers have, the one that came back first in front."""
        with self._lock:
            self._sort_in()
            return [buffer.numel() for buffer in self._idle]

    def _sort_in(self) -> None:
        while self._returned:
            self._idle.append(self._returned.popleft())
            self._lent -= _bytes(self._idle[-1])
        while len(self._idle) > _KEPT or sum(map(_bytes, self._idle)) > _BYTES:
            del self._idle[0]


class Lease:
    """Holds a buffer; it goes back to the pool when the lease, and with it the graph that needs it, is gone."""

    def __init__(self, pool: BufferPool, whole: Tensor, shape: tuple[int, ...]) -> None:
        self._pool, self._whole = pool, whole
        self.buffer = whole[: math.prod(shape)].view(shape)

    def __del__(self) -> None:
        self._pool.give_back(self._whole)


def _bytes(buffer: Tensor) -> int:
    return buffer.numel() * buffer.element_size()
