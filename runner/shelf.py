"""Vectors on the disk instead of in memory: what a node looks at once a round, and keeps for many."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from typing import IO

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

SMALL = 2**15
"""Bytes up to which they stay in memory: less than a file would be worth."""


class Shelf:
    """A file without a name, which goes with the last who holds any of it."""

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None
        self._end = 0
        self._free: dict[int, list[int]] = {}
        """Offsets of places that nobody holds any more, by their bytes."""

    def put(self, vectors: Sequence[FloatArray]) -> Sequence[FloatArray]:
        """Put float64 vectors away; each is read again, bit for bit, when it is asked for by its number.

        Where nothing can be written (a full disk, no place for temporary files), they stay in memory.
        """
        data = np.concatenate(vectors).astype(np.float64, copy=False)
        if data.nbytes <= SMALL:
            return tuple(vectors)
        free = self._free.setdefault(data.nbytes, [])
        if not free:
            free.append(self._end)
            self._end += data.nbytes
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
            _write(self._file.fileno(), data.tobytes(), free[-1])
        except OSError:
            return tuple(vectors)
        return _Shelved(self._file, free.pop(), [vector.size for vector in vectors], free)


class _Shelved(Sequence[FloatArray]):
    """Vectors at a place in a shelf's file, which is free again once nobody holds this."""

    def __init__(self, file: IO[bytes], offset: int, sizes: Sequence[int], free: list[int]) -> None:
        self._file, self._offset, self._sizes, self._free = file, offset, tuple(sizes), free

    def __del__(self) -> None:
        self._free.append(self._offset)

    def __len__(self) -> int:
        return len(self._sizes)

    def __getitem__(self, number: int) -> FloatArray:  # type: ignore[override]
        size, before = self._sizes[number], sum(self._sizes[:number])
        return np.frombuffer(_read(self._file.fileno(), 8 * size, self._offset + 8 * before))


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
