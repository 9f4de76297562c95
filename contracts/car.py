"""CARv1: blocks and the roots they belong to, in one file, as IPFS tools export and import them.

Format (ipld.io/specs/transport/car/carv1): a header and the blocks, each after a varint of its length; the header is
dag-cbor of {"roots": [CIDs], "version": 1}, a block is its CID and its bytes. Only CIDs of raw and dag-pb blocks with a
SHA-256 are read, for that is all that a file is made of. A file is hostile until read: every length is bounded before
anything of it is read, every block is hashed, and the header has the one form that dag-cbor allows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from contracts.cid import Cid, from_binary
from contracts.dag import MAX_BLOCK
from contracts.errors import ContentError

MAX_ROOTS = 100_000
"""Files in one CAR file; more are neither written nor read."""
MAX_HEADER = 64 + 41 * MAX_ROOTS
"""Bytes of a header with so many roots, each a CIDv1 in CBOR."""
_V0, _V1 = 34, 36
"""Bytes of a CID of version 0 and 1."""
_TAG = b"\xd8\x2a\x58"
"""CBOR of a CID: tag 42, a byte string with its length in one byte, and (after that) a zero byte before the CID."""


def write_car(file: BinaryIO, roots: Sequence[Cid], blocks: Iterable[tuple[Cid, bytes]]) -> int:
    """Write a CARv1 file; each CID once, though it may come twice. How many blocks that were.

    Raises:
        ContentError: a block does not hash to its CID, or is larger than any that IPFS takes; too many roots.
    """
    if len(roots) > MAX_ROOTS:
        raise ContentError(f"{len(roots)} files are more than the {MAX_ROOTS} that go into one CAR file.")
    header = _header(roots)
    file.write(_varint(len(header)) + header)
    seen: set[bytes] = set()
    for cid, block in blocks:
        if cid.binary in seen:
            continue
        seen.add(cid.binary)
        _check(cid, block)
        file.write(_varint(len(cid.binary) + len(block)) + cid.binary + block)
    return len(seen)


@dataclass(frozen=True)
class Car:
    """A CARv1 file that is being read: its roots, and its blocks, each hashed as it comes."""

    roots: tuple[Cid, ...]
    blocks: Iterator[tuple[Cid, bytes]]


def read_car(file: BinaryIO) -> Car:
    """Read a CARv1 file's header, and its blocks as they are asked for.

    Raises:
        ContentError: not CARv1, cut off, or a length beyond all bounds; from `blocks` too, where a block does not hash
            to its CID, or its CID is none of a raw or dag-pb block with a SHA-256.
    """
    length = _read_varint(file, "its header")
    if not length:
        raise ContentError("no CARv1 file: it begins with nothing.")
    if length > MAX_HEADER:
        raise ContentError(f"no CARv1 file: a header of {length} bytes; at most {MAX_HEADER} are read.")
    return Car(_parse_header(_read(file, length, "its header")), _blocks(file))


def _blocks(file: BinaryIO) -> Iterator[tuple[Cid, bytes]]:
    number = 0
    while True:
        number += 1
        what = f"block {number}"
        length = _read_varint(file, what)
        if length is None:
            return
        if not _V0 <= length <= _V1 + MAX_BLOCK:
            raise ContentError(
                f"{what} of the CAR file has {length} bytes with its CID; {_V0} to {_V1 + MAX_BLOCK} are read."
            )
        body = _read(file, length, what)
        size = _V0 if body[:1] == b"\x12" else _V1
        try:
            cid = from_binary(body[:size])
        except ContentError as error:
            raise ContentError(f"{what} of the CAR file is of no kind that is read here: {error.message}") from None
        block = body[size:]
        _check(cid, block)
        yield cid, block


def _check(cid: Cid, block: bytes) -> None:
    if len(block) > MAX_BLOCK:
        raise ContentError(f"block {cid} has {len(block)} bytes; none has more than {MAX_BLOCK}.")
    if not cid.matches(block):
        raise ContentError(f"block {cid} is damaged: its bytes do not hash to it.")


# -- header -----------------------------------------------------------------------------------------------------------


def _head(major: int, number: int) -> bytes:
    """The head of a CBOR item: its kind and its number, in the shortest form."""
    if number < 24:
        return bytes([major << 5 | number])
    size = 1 if number < 1 << 8 else 2 if number < 1 << 16 else 4
    return bytes([major << 5 | {1: 24, 2: 25, 4: 26}[size]]) + number.to_bytes(size, "big")


def _header(roots: Sequence[Cid]) -> bytes:
    """dag-cbor's one form: keys by length."""
    links = b"".join(_TAG + bytes([len(root.binary) + 1, 0]) + root.binary for root in roots)
    return b"\xa2\x65roots" + _head(4, len(roots)) + links + b"\x67version\x01"


def _parse_header(header: bytes) -> tuple[Cid, ...]:
    """The roots. The header is what `_header` makes of them, or it is refused: there is one form."""
    if b"\x67version\x02" in header and b"roots" not in header:
        raise ContentError("a CARv2 file; CARv1 is read.", "`ipfs dag export` and `car get-dag --version 1` write it.")
    begin = b"\xa2\x65roots"
    known = len(header) > len(begin) and header.startswith(begin) and header[len(begin)] >> 5 == 4
    if not known:
        raise ContentError("no CARv1 file: its header is not dag-cbor of {roots, version}.")
    number = header[len(begin)] & 31
    position = len(begin) + 1 + {24: 1, 25: 2, 26: 4}.get(number, 0)
    roots = []
    while header.startswith(_TAG, position):
        size = header[position + len(_TAG)] if position + len(_TAG) < len(header) else 0
        start = position + len(_TAG) + 1
        try:
            roots.append(from_binary(header[start + 1 : start + size]))
        except ContentError as error:
            raise ContentError(f"a root of the CAR file is of no kind that is read here: {error.message}") from None
        position = start + size
        if len(roots) > MAX_ROOTS:
            raise ContentError(f"the CAR file has more than {MAX_ROOTS} roots.")
    if _header(roots) != header:
        raise ContentError("no CARv1 file: its header is not version 1 with roots, and nothing else, in dag-cbor.")
    return tuple(roots)


# -- lengths ----------------------------------------------------------------------------------------------------------


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def _read_varint(file: BinaryIO, what: str) -> int | None:
    """An unsigned varint in its shortest form; None at the end of the file."""
    number = 0
    for shift in range(0, 63, 7):
        byte = file.read(1)
        if not byte:
            if shift == 0:
                return None
            break
        number |= (byte[0] & 127) << shift
        if byte[0] < 128:
            if byte[0] == 0 and shift:
                raise ContentError(f"the length of {what} in the CAR file is not in its shortest form.")
            return number
    raise ContentError(f"the CAR file is cut off, or broken, in the length of {what}.")


def _read(file: BinaryIO, length: int, what: str) -> bytes:
    body = file.read(length)
    if len(body) != length:
        raise ContentError(f"the CAR file is cut off in {what}: {len(body)} of {length} bytes.")
    return body
