"""From the text of an NSL-KDD file to columns, strictly: a record is taken exactly as published or refused by place."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from circuits.errors import QrunError
from experiments.datasets.schema import (
    ATTACKS,
    CATEGORICAL,
    COLUMNS,
    DIFFICULTY_MAX,
    FIELDS,
    NUMERIC,
    VOCABULARIES,
    Column,
)
from experiments.datasets.types import FloatArray, IntArray, Records

MAX_LINES = 150_000
"""More than the greatest official file (125,973 records): a longer one is refused before it is taken apart."""

HINT = "Take the file as it was published (KDDTrain+_20Percent.txt, KDDTrain+.txt, KDDTest+.txt) and change nothing."

_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ", "an xz archive"),
    (b"\xef\xbb\xbf", "a byte order mark (some editor saved the file again)"),
    (b"\xff\xfe", "UTF-16 text (some editor saved the file again)"),
    (b"<", "a web page (HTML), not the data"),
    (b"version https://git-lfs", "a Git LFS pointer, not the data"),
    (b"@", "an ARFF header (the .arff form of the file)"),
)


class DataFileError(QrunError):
    """A data file is truncated, edited, foreign or unreadable.

    Args:
        file: The file as the user knows it.
        what: What stood there and what was expected.
        line: 1-based line, 0 if the file could not be read at all.
        column: 1-based column, 0 as for `line`.
        hint: What to do next.
    """

    def __init__(self, file: str, what: str, *, line: int = 0, column: int = 0, hint: str = HINT) -> None:
        place = f", line {line}, column {column} ({field_name(column)})" if line else ""
        super().__init__(f"{shown(file, 200, quote=False)}{place}: {what}.", hint)
        self.file, self.line, self.column = file, line, column


def field_name(column: int) -> str:
    """Name of the 1-based column of a line."""
    return FIELDS[column - 1] if 1 <= column <= len(FIELDS) else "past the last one"


def shown(text: str, limit: int = 40, *, quote: bool = True) -> str:
    """`text` for one line of an error message: no control or non-ASCII characters, at most about `limit` long."""
    cut = text if len(text) <= limit else text[: limit - 3] + "..."
    escaped = cut.encode("unicode_escape").decode("ascii") if not (cut.isascii() and cut.isprintable()) else cut
    return f"'{escaped}'" if quote else escaped


def parse(content: bytes, file: str) -> Records:
    """Reads the text of an NSL-KDD file, whole.

    Every field has to stand as the published files write it: whole numbers without sign or leading zero, rates with
    two decimals, words of the vocabularies, each in its public bounds. A line therefore has one reading, and
    `to_text` gives it back.

    Args:
        content: The bytes of the file.
        file: Name for messages and for `Records.file`.

    Returns:
        The records, `line` counting from 1.

    Raises:
        DataFileError: With line and column of the first thing that is no NSL-KDD.
    """
    rows = [line.split(",") for line in _lines(content, file)]
    numeric = np.empty((len(rows), len(NUMERIC)))
    categorical = np.empty((len(rows), len(CATEGORICAL)), dtype=np.int64)
    first_bad: tuple[int, int] | None = None
    attack: IntArray = np.zeros(len(rows), dtype=np.int64)
    n_numeric = n_categorical = 0
    for position, tokens in enumerate(zip(*rows, strict=True)):
        values, bad = _values(tokens, position)
        if bad is not None:
            first_bad = min(first_bad or (bad, position), (bad, position))
        if position == len(COLUMNS):
            attack = values.astype(np.int64)
        elif position < len(COLUMNS):
            if COLUMNS[position].is_numeric:
                numeric[:, n_numeric] = values
                n_numeric += 1
            else:
                categorical[:, n_categorical] = values
                n_categorical += 1
    if first_bad is not None:
        row, position = first_bad
        what = f"{shown(rows[row][position])} stands where {_EXPECTED[position]} is expected"
        raise DataFileError(file, what, line=row + 1, column=position + 1)
    return Records(numeric, categorical, attack, np.arange(1, len(rows) + 1), file)


def to_text(records: Records, difficulty: int = DIFFICULTY_MAX) -> str:
    """The records as lines of an NSL-KDD file; `difficulty` fills the last column, which `Records` does not hold."""
    columns: list[list[str]] = []
    numeric, categorical = iter(records.numeric.T), iter(zip(records.categorical.T, VOCABULARIES, strict=True))
    for column in COLUMNS:
        if column.kind == "rate":
            columns.append([f"{value:.2f}" for value in next(numeric).tolist()])
        elif column.is_numeric:
            columns.append([str(int(value)) for value in next(numeric).tolist()])
        else:
            codes, words = next(categorical)
            columns.append([words[code] for code in codes.tolist()])
    columns.append([ATTACKS[code] for code in records.attack.tolist()])
    columns.append([str(difficulty)] * len(records))
    return "".join(",".join(row) + "\n" for row in zip(*columns, strict=True))


def _lines(content: bytes, file: str) -> list[str]:
    """The lines of a file that is ASCII, ends its lines with LF and has 43 fields in each."""
    if not content:
        raise DataFileError(file, "the file is empty", line=1, column=1)
    for magic, meaning in _MAGIC:
        if content.startswith(magic):
            raise DataFileError(file, f"the file begins like {meaning}", line=1, column=1)
    if content.count(b"\n") > MAX_LINES:
        what = f"more lines than any official file has (at most {MAX_LINES} are read)"
        raise DataFileError(file, what, line=MAX_LINES + 1, column=1)
    try:
        text = content.decode("ascii")
    except UnicodeDecodeError as error:
        what = f"byte 0x{content[error.start]:02x} stands where ASCII text is expected"
        raise _at(content, error.start, file, what) from None
    if (position := text.find("\r")) >= 0:
        raise _at(content, position, file, "a carriage return (Windows line ends) stands where a line feed is expected")
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    for number, line in enumerate(lines, start=1):
        fields = line.count(",") + 1
        if fields != len(FIELDS):
            _refuse_width(line, fields, number, len(lines), file)
    return lines


def _refuse_width(line: str, fields: int, number: int, total: int, file: str) -> None:
    if fields > len(FIELDS):
        what = f"{fields} columns stand where {len(FIELDS)} are expected ({shown(line)})"
        raise DataFileError(file, what, line=number, column=len(FIELDS) + 1)
    cut = "; the file is cut here" if number == total and number > 1 else ""
    what = f"the line ends after {fields} of {len(FIELDS)} columns ({shown(line)}){cut}"
    raise DataFileError(file, what, line=number, column=fields)


def _at(content: bytes, position: int, file: str, what: str) -> DataFileError:
    start = content.rfind(b"\n", 0, position) + 1
    line, column = content.count(b"\n", 0, position) + 1, content.count(b",", start, position) + 1
    return DataFileError(file, what, line=line, column=column)


def _values(tokens: Sequence[str], position: int) -> tuple[FloatArray, int | None]:
    """The values of a column, and the first row that has none."""
    # A column holds few distinct tokens: each is judged once.
    known = {token: _PARSERS[position](token) for token in set(tokens)}
    values = np.fromiter(map(known.__getitem__, tokens), dtype=np.float64, count=len(tokens))
    if any(map(math.isnan, known.values())):
        return np.zeros(len(tokens)), int(np.flatnonzero(np.isnan(values))[0])
    return values, None


_NAN = float("nan")


def _whole(minimum: int, maximum: int) -> Callable[[str], float]:
    digits = len(str(maximum))

    def read(token: str) -> float:
        if not (token.isascii() and token.isdigit() and len(token) <= digits) or (token[0] == "0" and len(token) > 1):
            return _NAN
        value = int(token)
        return float(value) if minimum <= value <= maximum else _NAN

    return read


def _word(codes: Mapping[str, float]) -> Callable[[str], float]:
    return lambda token: codes.get(token, _NAN)


_RATE = _word({f"{i / 100:.2f}": i / 100 for i in range(101)})


def _parser(column: Column) -> tuple[Callable[[str], float], str]:
    if column.kind == "rate":
        return _RATE, "a rate with two decimals in 0.00..1.00"
    if column.is_numeric:
        expected = f"a whole number in {column.minimum}..{column.maximum}"
        return _whole(column.minimum, column.maximum), "0 or 1" if column.kind == "flag" else expected
    words = VOCABULARIES[[other.name for other in CATEGORICAL].index(column.name)]
    listed = ", ".join(words) if len(words) <= 11 else f"{words[0]}, {words[1]}, ..., {words[-1]}"
    return _word({word: float(code) for code, word in enumerate(words)}), f"one of the {len(words)} words {listed}"


_RULES: tuple[tuple[Callable[[str], float], str], ...] = (
    *(_parser(column) for column in COLUMNS),
    (
        _word({word: float(code) for code, word in enumerate(ATTACKS)}),
        f"normal or one of the {len(ATTACKS) - 1} attack names of NSL-KDD",
    ),
    (_whole(0, DIFFICULTY_MAX), f"a difficulty level in 0..{DIFFICULTY_MAX}"),
)
_PARSERS = tuple(rule for rule, _ in _RULES)
_EXPECTED = tuple(expected for _, expected in _RULES)
