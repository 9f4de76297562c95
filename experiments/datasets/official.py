"""The official NSL-KDD files: their hashes, and tables of small checksums that tell where a copy was edited."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np
import numpy.typing as npt

from experiments.datasets.parse import DataFileError, field_name, shown
from experiments.datasets.schema import FIELDS

TABLE = "checksums.npz"
"""Package data: per official file 16 bits a line and 32 bits a column of each block of 256 lines; a hash keeps no
record: 16 bits of about 150 bytes."""

BLOCK = 256


@dataclass(frozen=True)
class Official:
    """An official file: its name, number of records, and the hash that mirrors agree on.

    `hash` is "sha256:<hex>" of the content, or "git:<hex>", the SHA-1 of `blob <size>\\0` and the content.
    """

    name: str
    records: int
    hash: str


TRAIN_20 = Official(
    "KDDTrain+_20Percent.txt", 25_192, "sha256:7ea86479faab5ca2190b7f18b4982fb058ce5bf2b46e0e1017d0d9ef90f9c16e"
)
TRAIN_FULL = Official("KDDTrain+.txt", 125_973, "git:20002897492adc110190a10509aa694f26f7f308")
TEST = Official("KDDTest+.txt", 22_544, "sha256:fa46b0935342616aa83b7c2578db355b6a7aaabbc492248172c7a1e8b7ab8f84")
OFFICIAL: tuple[Official, ...] = (TRAIN_20, TRAIN_FULL, TEST)


def matches(content: bytes, official: Official) -> bool:
    """Whether `content` is that official file, byte for byte (as far as its hash goes)."""
    return content_hash(content, official.hash.partition(":")[0]) == official.hash


def content_hash(content: bytes, kind: str) -> str:
    """The hash of a file's content in the form of `Official.hash`; `kind` is "sha256" or "git"."""
    if kind == "git":
        return f"git:{hashlib.sha1(b'blob %d' % len(content) + bytes(1) + content, usedforsecurity=False).hexdigest()}"
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def identify(content: bytes) -> Official | None:
    """The official file that this content is, or None."""
    return next((official for official in OFFICIAL if matches(content, official)), None)


def line_sums(lines: list[str]) -> npt.NDArray[np.uint16]:
    """(n,) 16 bits of BLAKE2b of each line."""
    digests = b"".join(hashlib.blake2b(line.encode("ascii"), digest_size=2).digest() for line in lines)
    return np.frombuffer(digests, dtype="<u2").astype(np.uint16)


def column_sums(lines: list[str]) -> npt.NDArray[np.uint32]:
    """(ceil(n / 256), 43) 32 bits of BLAKE2b of each column in each block of 256 lines."""
    sums = []
    for start in range(0, len(lines), BLOCK):
        columns = zip(*(line.split(",") for line in lines[start : start + BLOCK]), strict=True)
        joined = ("\n".join(column).encode("ascii") for column in columns)
        sums.append([int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "little") for text in joined])
    return np.array(sums, dtype=np.uint32)


@cache
def _table() -> dict[str, npt.NDArray[np.uint16] | npt.NDArray[np.uint32]]:
    with resources.files(__package__).joinpath(TABLE).open("rb") as file, np.load(file, allow_pickle=False) as table:
        return {name: table[name] for name in table.files}


def edited(content: bytes, path: str, name: str) -> DataFileError:
    """The error for a file that reads as NSL-KDD and yet is none of the official ones: where it departs from them.

    Args:
        content: The bytes, which `parse` has accepted.
        path: The file as the user knows it.
        name: Its bare name: if it is an official one, the file is held against that one, else against the nearest.
    """
    lines = content.decode("ascii").split("\n")
    ended = not lines[-1]
    if ended:
        lines.pop()
    ours = line_sums(lines)
    wanted = next((official for official in OFFICIAL if official.name == name), None) or _nearest(ours)
    if f"{wanted.name}/lines" not in _table():
        return _without_table(content, path, lines, wanted)
    line, column, what = _place(lines, ours, wanted, ended)
    return DataFileError(
        path, f"{what} (compared with {wanted.name}; {wanted.hash} expected)", line=line, column=column
    )


def _nearest(ours: npt.NDArray[np.uint16]) -> Official:
    """The official file with a table whose set of lines this one shares most."""
    with_table = [official for official in OFFICIAL if f"{official.name}/lines" in _table()]
    return max(with_table, key=lambda official: int(np.sum(_same(ours, _table()[f"{official.name}/lines"]))))


def _same(
    ours: npt.NDArray[np.uint16], theirs: npt.NDArray[np.uint16] | npt.NDArray[np.uint32]
) -> npt.NDArray[np.bool_]:
    n = min(len(ours), len(theirs))
    return np.asarray(ours[:n] == theirs[:n])


def _without_table(content: bytes, path: str, lines: list[str], wanted: Official) -> DataFileError:
    found = content_hash(content, wanted.hash.partition(":")[0])
    if len(lines) < wanted.records:
        what = f"the file is cut here: {wanted.records} records are expected"
    elif len(lines) > wanted.records:
        what = f"{len(lines)} records stand where {wanted.records} are expected"
    else:
        what = f"the file has been edited at some line before: its hash is {found}, {wanted.hash} is expected"
    return DataFileError(path, what, line=min(len(lines), wanted.records + 1), column=len(FIELDS))


def _place(lines: list[str], ours: npt.NDArray[np.uint16], wanted: Official, ended: bool) -> tuple[int, int, str]:
    """Line, column and description of the first departure from the official file."""
    theirs = _table()[f"{wanted.name}/lines"]
    different = np.flatnonzero(~_same(ours, theirs))
    last = len(FIELDS)
    if len(different) == 0 and len(lines) < len(theirs):
        return len(lines), last, f"the file is cut after this record: {wanted.records} are expected"
    if len(different) == 0 and len(lines) > len(theirs):
        return len(theirs) + 1, 1, f"{shown(lines[len(theirs)])} stands after the last of {wanted.records} records"
    if len(lines) != len(theirs):
        row = int(different[0])
        return row + 1, 1, _shifted(ours, theirs, row, shown(lines[row]))
    columns = column_sums(lines) != _table()[f"{wanted.name}/columns"]
    blocks = np.flatnonzero(columns.any(axis=1))
    if len(blocks) == 0:
        end = "a line feed is missing after" if not ended else "something was changed in"
        return len(lines), last, f"{end} the last record"
    block = int(blocks[0])
    inside = different[(different >= block * BLOCK) & (different < (block + 1) * BLOCK)]
    changed = [int(column) + 1 for column in np.flatnonzero(columns[block])]
    # One edit in 65,536 leaves the line's sum as it was: the block then says where within 256 lines.
    row = int(inside[0]) if len(inside) else block * BLOCK
    span = "" if len(inside) else f" somewhere in lines {row + 1} to {min(row + BLOCK, len(lines))}"
    return row + 1, changed[0], _describe(lines[row].split(","), changed, span, len(different))


def _describe(fields: list[str], changed: list[int], span: str, lines: int) -> str:
    where = ", ".join(f"{column} ({field_name(column)})" for column in changed[1:4])
    others = f"; edited too: column {where}{' and more' if len(changed) > 4 else ''}" if where else ""
    more = f"; {lines} lines differ" if lines > 1 else ""
    if span:
        return f"the file has been edited{span}{others}{more}"
    return f"{shown(fields[changed[0] - 1])} is not what was published: the file has been edited{others}{more}"


def _shifted(
    ours: npt.NDArray[np.uint16], theirs: npt.NDArray[np.uint16] | npt.NDArray[np.uint32], row: int, text: str
) -> str:
    """What happened at `row`, from which on the lines of both files differ in number."""
    gap = len(ours) - len(theirs)
    if gap < 0 and np.array_equal(ours[row:], theirs[row - gap :]):
        return f"{-gap} of {len(theirs)} records are missing before {text}"
    if gap > 0 and np.array_equal(ours[row + gap :], theirs[row:]):
        return f"{gap} records from {text} on are not in the published file"
    return f"{text} is not what was published, and {len(ours)} records stand where {len(theirs)} are expected"
