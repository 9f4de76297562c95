"""Large buffers that are used again. Fresh memory costs more (page faults) than the arithmetic on it."""

from __future__ import annotations

import threading

from torch import Tensor

_KEPT = 4
"""How many idle buffers a pool keeps; the oldest goes first."""


class BufferPool:
    """Idle buffers of an engine, shared by its programs."""

    def __init__(self) -> None:
        self._idle: list[Tensor] = []
        self._lock = threading.Lock()

    def lease(self, shape: tuple[int, ...], like: Tensor) -> Lease:
        """A buffer of that shape, with the dtype and device of `like`; its contents are arbitrary."""
        with self._lock:
            for index in range(len(self._idle) - 1, -1, -1):
                free = self._idle[index]
                if free.shape == shape and free.dtype == like.dtype and free.device == like.device:
                    return Lease(self, self._idle.pop(index))
        return Lease(self, like.new_empty(shape))

    def give_back(self, buffer: Tensor) -> None:
        """Keep a buffer for the next one who asks."""
        with self._lock:
            self._idle.append(buffer)
            del self._idle[:-_KEPT]

    def clear(self) -> None:
        """Free the idle buffers."""
        with self._lock:
            self._idle.clear()


class Lease:
    """Holds a buffer; it goes back to the pool when the lease, and with it the graph that needs it, is gone."""

    def __init__(self, pool: BufferPool, buffer: Tensor) -> None:
        self.buffer = buffer
        self._pool = pool

    def __del__(self) -> None:
        self._pool.give_back(self.buffer)
