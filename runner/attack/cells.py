"""The table's cells, and the file that they are kept in: one line a cell, on disk before the next begins.

The file begins with a line that says what all cells are of. A line that a kill has torn is dropped; what is whole is
never computed again.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from circuits.errors import QrunError, UsageError
from runner.settings import AGGREGATIONS

FORMAT = "qrun-attacks/1"
MAX_BYTES = 64 << 20

ALONE = "honest-alone"
"""Not an attack: the honest nodes by themselves, joined by the plain mean. What all others are held against."""


@dataclass(frozen=True)
class Cell:
    """One simulated federation.

    Attributes:
        partition: Of the data.
        seed: Of the run.
        attack: A name of ATTACKS, or ALONE.
        aggregation: How models are joined; all but "reputation" without grades.
    """

    partition: str
    seed: int
    attack: str
    aggregation: str


@dataclass(frozen=True)
class Line:
    """What came of a cell: `Outcome` without its settlements. Lists have one entry a hostile node, None for never."""

    cell: Cell
    flagged: tuple[int | None, ...]
    excluded: tuple[int | None, ...]
    honest_flagged: int
    honest_excluded: int
    votes: int
    auroc: float
    seconds: float

    @classmethod
    def read(cls, text: bytes) -> Self:
        """A line of the file, checked.

        Raises:
            ValueError, TypeError, KeyError: it is none.
        """
        body = json.loads(text)
        cell = Cell(**body.pop("cell"))
        flagged, excluded = (_rounds(body.pop(name)) for name in ("flagged", "excluded"))
        line = cls(cell, flagged, excluded, **body)
        counts = (cell.seed, line.honest_flagged, line.honest_excluded, line.votes)
        names = (cell.partition, cell.attack, cell.aggregation)
        if not all(type(n) is int and n >= 0 for n in counts) or not all(isinstance(n, str) for n in names):
            raise ValueError("not a cell")
        if not (isinstance(line.auroc, float) and 0 <= line.auroc <= 1) or not isinstance(line.seconds, float | int):
            raise ValueError("not a cell")
        return line


def _rounds(value: Any) -> tuple[int | None, ...]:
    if not isinstance(value, list) or not all(v is None or (type(v) is int and v >= 1) for v in value):
        raise ValueError("not a list of rounds")
    return tuple(value)


def plan(
    partitions: Sequence[str], seeds: range, attacks: Sequence[str], aggregations: Sequence[str], *, others: int
) -> list[Cell]:
    """All cells, those of one federation together: they share its data and what its nodes trained.

    Aggregations other than "reputation" are played on the first `others` seeds.
    """
    out = []
    for place, seed in enumerate(seeds):
        for partition in partitions:
            out.append(Cell(partition, seed, ALONE, "mean"))
            for attack in attacks:
                wanted = [a for a in AGGREGATIONS if a in aggregations and (a == "reputation" or place < others)]
                out += [Cell(partition, seed, attack, a) for a in wanted]
    return out


class CellFile:
    """The file of finished cells, held by one process at a time. `None` as a path keeps them in memory only.

    Args:
        path: Made where it is missing.
        about: What all cells are of; has to be the same when a file is gone on with.

    Raises:
        UsageError: the file holds something else, or cells of another table.
        QrunError: another process writes it.
    """

    def __init__(self, path: Path | None, about: dict[str, Any]) -> None:
        self.path = path
        self.lines: dict[Cell, Line] = {}
        self._file = None
        if path is None:
            return
        head = json.dumps({"format": FORMAT, **about}, sort_keys=True).encode() + b"\n"
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
        if not whole and (not data or head.startswith(data)):
            self._file.truncate(0)
            self._append(head)
            return
        first, *rest = whole.split(b"\n")[:-1] or [data]
        if first + b"\n" != head or len(data) > MAX_BYTES:
            self.close()
            raise UsageError(
                f"--out {path} holds something else, or cells of another config or data set.",
                "Give the options that it was begun with, or name another file.",
            )
        for number, text in enumerate(rest, start=2):
            try:
                line = Line.read(text)
            except (ValueError, TypeError, KeyError, AttributeError):
                self.close()
                raise UsageError(f"--out {path}, line {number}: not a cell.", "Mend or remove the line.") from None
            self.lines[line.cell] = line
        if len(whole) < len(data):
            self._file.truncate(len(whole))

    def add(self, line: Line) -> None:
        """Keep a cell: on disk when this returns."""
        self.lines[line.cell] = line
        self._append(json.dumps(asdict(line), allow_nan=False).encode() + b"\n")

    def _append(self, data: bytes) -> None:
        if self._file is not None:
            self._file.write(data)
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None
