"""A file of finished rows, one JSON object a line: what a long table has computed is never computed again.

The first line says what all rows are of. Each row is on disk before the next begins; a line that a kill has torn is
dropped.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

from circuits.errors import QrunError, UsageError

MAX_BYTES = 64 << 20

MAX_BRACKETS = 10_000
"""Of a line. py-evm raises Python's limit of recursion so far that the decoder's own ends the process before."""

Row = TypeVar("Row")


class RowFile(Generic[Row]):
    """Rows by key, held by one process at a time. `None` as a path keeps them in memory only.

    Args:
        path: Made where it is missing.
        about: What all rows are of, with the file's format; has to be the same when a file is gone on with.
        read: An object of a line to its row; raises ValueError, TypeError or KeyError where it is none.
        write: The other way.
        key: What a row is known by.
        row: What a row is called, in errors.

    Raises:
        UsageError: The file holds something else, or rows of another table.
        QrunError: Another process writes it.
    """

    def __init__(
        self,
        path: Path | None,
        about: Mapping[str, Any],
        *,
        read: Callable[[dict[str, Any]], Row],
        write: Callable[[Row], dict[str, Any]],
        key: Callable[[Row], object],
        row: str = "row",
    ) -> None:
        self.path, self._write, self._key = path, write, key
        self.rows: dict[object, Row] = {}
        self._file = None
        if path is None:
            return
        head = json.dumps(about, sort_keys=True).encode() + b"\n"
        try:
            self._file = path.open("a+b")
        except OSError as error:
            raise UsageError(f"--out {path}: {error.strerror}.", "Name a file in a folder that is there.") from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.close()
            raise QrunError(f"another process writes {path}.", "Wait for it, or name another file.") from None
        self._file.seek(0)
        data = self._file.read(MAX_BYTES + 1)
        whole = data[: data.rfind(b"\n") + 1]
        if not whole and head.startswith(data):
            self._file.truncate(0)
            self._append(head)
            return
        first, *rest = whole.split(b"\n")[:-1] or [data]
        if first + b"\n" != head or len(data) > MAX_BYTES:
            self.close()
            raise UsageError(
                f"--out {path} holds something else, or {row}s of another table (other options, or other data).",
                "Give the options that it was begun with, or name another file.",
            )
        for number, text in enumerate(rest, start=2):
            try:
                if text.count(b"[") + text.count(b"{") > MAX_BRACKETS:
                    raise ValueError("nested without end")
                found = read(json.loads(text))
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                self.close()
                raise UsageError(f"--out {path}, line {number}: not a {row}.", "Mend or remove the line.") from None
            self.rows[key(found)] = found
        if len(whole) < len(data):
            self._file.truncate(len(whole))

    def add(self, row: Row) -> None:
        """Keep a row: on disk when this returns."""
        self.rows[self._key(row)] = row
        self._append(json.dumps(self._write(row), allow_nan=False).encode() + b"\n")

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _append(self, data: bytes) -> None:
        if self._file is not None:
            self._file.write(data)
            self._file.flush()
            os.fsync(self._file.fileno())
