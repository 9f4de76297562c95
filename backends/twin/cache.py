"""What was made of circuits, kept for when they come again.

A training step with mitigation runs the same tens or hundreds of circuits again and again, in the same order. A cache
of a fixed number is then of no use at all as soon as there is one circuit more: each one is dropped shortly before it
comes again. What is scarce is memory, and circuits differ in it a thousandfold: so that is what is counted.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Cache(Generic[Value]):
    """The values that were asked for last, up to so many bytes; the newest one stays, however large it is.

    Args:
        most: Bytes that all values may take together.
    """

    def __init__(self, most: int) -> None:
        self._most, self._bytes = most, 0
        self._known: OrderedDict[Hashable, tuple[Value, int]] = OrderedDict()

    def get(self, key: Hashable) -> Value | None:
        """The value, which is then the newest."""
        known = self._known.get(key)
        if known is None:
            return None
        self._known.move_to_end(key)
        return known[0]

    def put(self, key: Hashable, value: Value, size: int) -> None:
        """Keep a value of about so many bytes; what was longest unused goes."""
        self._bytes -= self._known.pop(key, (None, 0))[1]
        self._known[key] = value, size
        self._bytes += size
        while self._bytes > self._most and len(self._known) > 1:
            _, (_, gone) = self._known.popitem(last=False)
            self._bytes -= gone

    def values(self) -> list[Value]:
        """All of them, the one that was longest unused first."""
        return [value for value, _ in self._known.values()]

    def clear(self) -> None:
        """Forget all."""
        self._known.clear()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._known)
