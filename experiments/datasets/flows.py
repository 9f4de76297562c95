"""Flows from a stream, in NSL-KDD's columns: chunk by chunk in constant memory, what is no flow named by its line.

A line has the 41 features, and behind them, where it has them, a label and a difficulty, which nothing looks at. Where
`parse.py` takes files exactly as they were published, here rates may have any number of decimals, lines may end with
CRLF, and a first line may name the columns. Bounds and vocabularies are the same.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from experiments.datasets.parse import shown
from experiments.datasets.schema import ATTACKS, CATEGORICAL, COLUMNS, FIELDS, NUMERIC, VOCABULARIES, Column
from experiments.datasets.types import Records

MAX_LINE = 4096
"""Bytes. The longest line that the schema allows has fewer than 400."""

WIDTHS = (len(COLUMNS), len(COLUMNS) + 1, len(FIELDS))

_RATE = re.compile(r"[01](?:\.[0-9]{1,20})?|0?\.[0-9]{1,20}")
_COUNT = re.compile(r"[0-9]{1,10}(?:\.0{1,20})?")


class MalformedError(Exception):
    """A line that is no flow."""


@dataclass(frozen=True)
class Malformed:
    """A line that is no flow: its number, and why."""

    line: int
    why: str


@dataclass(frozen=True)
class Batch:
    """What came with one read: its flows, `line` counting the lines of the stream, and the lines that are none."""

    flows: Records
    malformed: list[Malformed]


def _number(column: Column) -> Callable[[str], float]:
    rate, low, high = column.kind == "rate", column.minimum, column.maximum
    form = _RATE if rate else _COUNT
    wanted = f"a rate in {low}..{high}" if rate else f"a whole number in {low}..{high}"

    def read(token: str) -> float:
        value = float(token) if form.fullmatch(token) else math.nan
        if not low <= value <= high:
            raise MalformedError(f"{shown(token)} stands where {wanted} is expected")
        return value

    return read


def _word(column: Column) -> Callable[[str], float]:
    words = VOCABULARIES[[other.name for other in CATEGORICAL].index(column.name)]
    codes = {word: float(code) for code, word in enumerate(words)}

    def read(token: str) -> float:
        if token not in codes:
            raise MalformedError(f"{shown(token)} is none of the {len(words)} words that are known")
        return codes[token]

    return read


_READERS = tuple(_number(c) if c.is_numeric else _word(c) for c in COLUMNS)
_IS_NUMERIC = np.array([column.is_numeric for column in COLUMNS])


def read_line(line: bytes) -> list[float]:
    """The 41 values of a line without its line feed, vocabularies as codes.

    Raises:
        MalformedError: It is no flow; says what stands where, and what should.
    """
    if len(line) > MAX_LINE:
        raise MalformedError(f"the line is longer than {MAX_LINE} bytes")
    try:
        tokens = line.decode("ascii").removesuffix("\r").split(",")
    except UnicodeDecodeError as error:
        raise MalformedError(f"byte 0x{line[error.start]:02x} stands where ASCII text is expected") from None
    if len(tokens) not in WIDTHS:
        wanted = ", ".join(map(str, WIDTHS[:-1]))
        raise MalformedError(f"it has {len(tokens)} columns; {wanted} or {WIDTHS[-1]} are expected")
    out = []
    for position, (token, read) in enumerate(zip(tokens, _READERS, strict=False)):
        try:
            out.append(read(token))
        except MalformedError as error:
            raise MalformedError(f"column {position + 1} ({FIELDS[position]}): {error}") from None
    return out


def flows(read: Callable[[], bytes]) -> Iterator[Batch]:
    """Batches of a stream: one for every read that ends a line, and one for the rest.

    Args:
        read: Gives some bytes as soon as there are some, and none at the end.
    """
    number, rest, skipping = 0, b"", False
    ended = False
    while not ended:
        data = read()
        ended = not data
        *lines, rest = (rest + data).split(b"\n")
        if ended and (rest or skipping):
            lines, rest = [*lines, rest], b""
        rows: list[list[float]] = []
        places: list[int] = []
        bad: list[Malformed] = []
        for line in lines:
            number += 1
            if skipping:  # the end of a line that was too long, and told
                skipping = False
                continue
            if not line.strip(b"\r ") or (number == 1 and _is_header(line)):
                continue
            try:
                rows.append(read_line(line))
                places.append(number)
            except MalformedError as error:
                bad.append(Malformed(number, str(error)))
        if len(rest) > MAX_LINE:
            if not skipping:
                bad.append(Malformed(number + 1, f"the line is longer than {MAX_LINE} bytes"))
            rest, skipping = b"", True
        if rows or bad:
            yield Batch(_records(rows, places), bad)


def _is_header(line: bytes) -> bool:
    return line.removesuffix(b"\r").split(b",")[: len(COLUMNS)] == [c.name.encode() for c in COLUMNS]


def _records(rows: list[list[float]], places: list[int]) -> Records:
    table = np.array(rows, dtype=np.float64).reshape(len(rows), len(COLUMNS))
    return Records(
        table[:, _IS_NUMERIC].reshape(len(rows), len(NUMERIC)),
        table[:, ~_IS_NUMERIC].astype(np.int64),
        np.full(len(rows), ATTACKS.index("normal"), dtype=np.int64),
        np.array(places, dtype=np.int64),
        "the stream",
    )
