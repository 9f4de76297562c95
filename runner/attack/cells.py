"""The table's cells, and the file that they are kept in: one line a cell, on disk before the next begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from runner.row_file import RowFile
from runner.settings import AGGREGATIONS

FORMAT = "qrun-attacks/1"

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
    """What came of a cell: `Outcome` without its settlements. Lists have one entry a hostile node, None for never.

    `slow` is there where nobody waits, and left out of the file elsewhere.
    """

    cell: Cell
    flagged: tuple[int | None, ...]
    excluded: tuple[int | None, ...]
    honest_flagged: int
    honest_excluded: int
    votes: int
    auroc: float
    seconds: float
    slow: tuple[int, int, int] | None = None

    @classmethod
    def read(cls, found: Mapping[str, Any]) -> Self:
        """The object of a line of the file, checked.

        Raises:
            ValueError, TypeError, KeyError: it is none.
        """
        body = {**found}
        cell = Cell(**body.pop("cell"))
        flagged, excluded = (_rounds(body.pop(name)) for name in ("flagged", "excluded"))
        slow = _slow(body.pop("slow")) if "slow" in body else None
        line = cls(cell, flagged, excluded, **body, slow=slow)
        counts = (cell.seed, line.honest_flagged, line.honest_excluded, line.votes)
        names = (cell.partition, cell.attack, cell.aggregation)
        if not all(type(n) is int and n >= 0 for n in counts) or not all(isinstance(n, str) for n in names):
            raise ValueError("not a cell")
        if not (isinstance(line.auroc, float) and 0 <= line.auroc <= 1) or not isinstance(line.seconds, float | int):
            raise ValueError("not a cell")
        return line


def _slow(value: Any) -> tuple[int, int, int]:
    if not isinstance(value, list) or len(value) != 3 or not all(type(v) is int and v >= 0 for v in value):
        raise ValueError("not three numbers of nodes")
    return value[0], value[1], value[2]


def _written(line: Line) -> dict[str, Any]:
    return {name: value for name, value in asdict(line).items() if name != "slow" or value is not None}


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


class CellFile(RowFile[Line]):
    """The file of finished cells, as `RowFile` keeps rows; `rows` has a line for each cell.

    Args:
        path: Made where it is missing; None keeps cells in memory only.
        about: What all cells are of; has to be the same when a file is gone on with.

    Raises:
        UsageError, QrunError: As `RowFile`.
    """

    def __init__(self, path: Path | None, about: Mapping[str, Any]) -> None:
        super().__init__(
            path, {"format": FORMAT, **about}, read=Line.read, write=_written, key=lambda line: line.cell, row="cell"
        )
