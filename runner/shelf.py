"""Arrays on the disk instead of in memory: what a node looks at once a round, and keeps for many."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

SMALL = 2**15
"""Bytes up to which they stay in memory: less than a file would be worth."""


class Shelf:
    """A file without a name, which goes with the last who holds any of it. A forked process begins one of its own."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._file: IO[bytes] | None = None
        self._process = os.getpid()
        self._end = 0
        self._free: dict[int, list[int]] = {}
        """Offsets of places that nobody holds any more, by their bytes."""

    def put(self, arrays: Sequence[Array]) -> Sequence[Array]:
        """Put arrays away; each is read again, bit for bit, when it is asked for by its number.

        Where nothing can be written (a full disk, no place for temporary files), they stay in memory.
        """
        size = sum(array.nbytes for array in arrays)
        if size <= SMALL:
            return tuple(arrays)
        if self._process != os.getpid():
            self._begin()
        free = self._free.setdefault(size, [])
        if not free:
            free.append(self._end)
            self._end += size
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
            _write(self._file.fileno(), b"".join(array.tobytes() for array in arrays), free[-1])
        except OSError:
            return tuple(arrays)
        return _Shelved(self._file, free.pop(), [(array.dtype, array.shape) for array in arrays], free)

    def put_named(self, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        """The same by name."""
        return _Named({name: k for k, name in enumerate(arrays)}, self.put(list(arrays.values())))


class _Shelved(Sequence[Array]):
    """Arrays at a place in a shelf's file, which is free again once nobody holds this."""

    def __init__(
        self, file: IO[bytes], offset: int, forms: Sequence[tuple[np.dtype[Any], tuple[int, ...]]], free: list[int]
    ) -> None:
        self._file, self._offset, self._forms, self._free = file, offset, forms, free
        self._sizes = [dtype.itemsize * int(np.prod(shape)) for dtype, shape in forms]

    def __del__(self) -> None:
        self._free.append(self._offset)

    def __len__(self) -> int:
        return len(self._forms)

    def __getitem__(self, number: int) -> Array:  # type: ignore[override]
        dtype, shape = self._forms[number]
        data = _read(self._file.fileno(), self._sizes[number], self._offset + sum(self._sizes[:number]))
        return np.frombuffer(data, dtype).reshape(shape)


class _Named(Mapping[str, Array]):
    def __init__(self, numbers: Mapping[str, int], arrays: Sequence[Array]) -> None:
        self._numbers, self._arrays = numbers, arrays

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[str]:
        return iter(self._numbers)

    def __getitem__(self, name: str) -> Array:
        return self._arrays[self._numbers[name]]


def _write(file: int, data: bytes, offset: int) -> None:
    left = memoryview(data)
    while left:
        done = os.pwrite(file, left, offset)
        left, offset = left[done:], offset + done


def _read(file: int, size: int, offset: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        more = os.pread(file, size - len(data), offset + len(data))
        if not more:
            raise OSError("a temporary file of this process was cut short.")
        data += more
    return bytes(data)
