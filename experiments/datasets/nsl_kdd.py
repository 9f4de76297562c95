"""NSL-KDD from its official text files (Tavallaee, Bagheri, Lu, Ghorbani, CISDA 2009)."""

from __future__ import annotations

import stat
from pathlib import Path

import numpy as np

from experiments.datasets.official import edited, identify
from experiments.datasets.parse import DataFileError, parse
from experiments.datasets.types import BoolArray, Records

MAX_BYTES = 32 * 2**20
"""The greatest official file has 19 MB."""


def read(path: Path) -> Records:
    """Reads an official file, recognised by its hash whatever its name.

    Returns:
        Its records; `file` is the official name, `line` the line in it.

    Raises:
        DataFileError: The file cannot be read, or is truncated, edited or foreign: with line and column.
    """
    return read_content(read_bytes(path), path)


def read_content(content: bytes, path: Path) -> Records:
    """As `read`, of the content that stands (or stood) at `path`."""
    # Known content is parsed all the same: what follows relies on the bounds, not on the hash.
    records = parse(content, str(path))
    official = identify(content)
    if official is None:
        raise edited(content, str(path), path.name)
    return Records(records.numeric, records.categorical, records.attack, records.line, official.name)


def read_bytes(path: Path) -> bytes:
    """The content of a data file, refused if it is no regular file or larger than any official one.

    Raises:
        DataFileError: Without line and column, for nothing was read.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise DataFileError(str(path), "is no regular file")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataFileError(
            str(path), f"cannot be read: {reason}", hint="Check the path and its permissions."
        ) from None
    if len(content) > MAX_BYTES:
        raise DataFileError(str(path), f"is larger than {MAX_BYTES // 2**20} MiB, more than any official file")
    return content


def duplicates_of(train: Records, test: Records) -> BoolArray:
    """Which test records carry a vector of all 41 features that also stands in the training file.

    Label and difficulty do not count. On the official files 117 distinct vectors of KDDTest+ stand in
    KDDTrain+_20Percent; one of them stands twice in KDDTest+, so that 118 of its records are marked.

    Returns:
        (len(test),) True where the test record's vector stands in `train`.
    """
    seen = set(_vectors(train))
    return np.fromiter((vector in seen for vector in _vectors(test)), dtype=np.bool_, count=len(test))


def _vectors(records: Records) -> list[bytes]:
    # Zero is added so that -0.0 and 0.0, equal numbers, give equal bytes.
    table = np.hstack([records.numeric, records.categorical.astype(np.float64)]) + 0.0
    return [row.tobytes() for row in table]
