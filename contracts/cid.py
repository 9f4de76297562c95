"""Content identifiers of files, as Kubo's `ipfs add --cid-version=1 --raw-leaves` gives them.

A file is cut into chunks of 256 KiB, each a raw block; where there is more than one, nodes of up to 174 links (dag-pb
holding UnixFS) stand above them. A file of one chunk is its raw block, so that its SHA-256 alone gives the CID.
Sources: the CID, dag-pb and UnixFS specifications (specs.ipfs.tech, ipld.io/specs/codecs/dag-pb).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from contracts.errors import ContentError

RAW = 0x55
DAG_PB = 0x70
CHUNK = 262_144
"""Bytes of a leaf."""
WIDTH = 174
"""Links of a node."""

_SHA2_256 = b"\x12\x20"
"""Multihash prefix: SHA2-256, 32 bytes."""
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_V1_LENGTH = 59
"""Characters of a CIDv1 with a SHA-256 in base32: b, and 36 bytes."""
_V0_LENGTH = 46


@dataclass(frozen=True)
class Cid:
    """A content identifier with a SHA-256 digest: of a raw block or of a dag-pb node.

    `version` 0 (always dag-pb, base58) is read only; what is made here is version 1 (base32).
    """

    codec: int
    digest: bytes
    version: int = 1

    def __post_init__(self) -> None:
        if self.codec not in (RAW, DAG_PB):
            raise ContentError(f"codec {self.codec:#x} of a CID is neither raw (0x55) nor dag-pb (0x70).")
        if len(self.digest) != 32:
            raise ContentError(f"a CID's digest has {len(self.digest)} bytes, not 32.")
        if self.version not in (0, 1) or (self.version == 0 and self.codec != DAG_PB):
            raise ContentError(f"there is no CID of version {self.version} and codec {self.codec:#x}.")

    @property
    def binary(self) -> bytes:
        """The CID's bytes, as they stand in links."""
        multihash = _SHA2_256 + self.digest
        return multihash if self.version == 0 else bytes([1, self.codec]) + multihash

    @property
    def v1(self) -> Cid:
        """The same block under its CIDv1."""
        return self if self.version == 1 else Cid(self.codec, self.digest)

    def __str__(self) -> str:
        if self.version == 1:
            return "b" + base64.b32encode(self.binary).decode().lower().rstrip("=")
        number, text = int.from_bytes(self.binary, "big"), ""
        while number:
            number, digit = divmod(number, 58)
            text = _BASE58[digit] + text
        return text

    def matches(self, block: bytes) -> bool:
        """Whether `block` hashes to this CID."""
        return hashlib.sha256(block).digest() == self.digest


def of_block(codec: int, block: bytes) -> Cid:
    """The CIDv1 of one block."""
    return Cid(codec, hashlib.sha256(block).digest())


def parse_cid(text: str) -> Cid:
    """Read a CIDv1 in lower-case base32 or a CIDv0. Strict: one text for one CID.

    Raises:
        ContentError: anything else, however hostile.
    """
    if not isinstance(text, str):
        raise ContentError(f"a CID is text, not {type(text).__name__}.")
    shown = ascii(text[:64])
    if len(text) == _V0_LENGTH and text.startswith("Qm"):
        number = 0
        for character in text:
            digit = _BASE58.find(character)
            if digit < 0:
                raise ContentError(f"{shown} is not a CIDv0: {character!a} is no base58 digit.")
            number = number * 58 + digit
        if number >> 272 or (number >> 256) != int.from_bytes(_SHA2_256, "big"):
            raise ContentError(f"{shown} is not a CIDv0: not a SHA-256.")
        return Cid(DAG_PB, (number & (2**256 - 1)).to_bytes(32, "big"), 0)
    if len(text) != _V1_LENGTH or text[0] != "b":
        raise ContentError(f"{shown} is not a CID: neither base32 of version 1 (59 characters) nor version 0 (46).")
    body = text[1:]
    if not body.isascii() or body != body.lower():
        raise ContentError(f"{shown} is not a CID: base32 is a-z and 2-7.")
    try:
        raw = base64.b32decode(body.upper() + "=" * (-len(body) % 8))
    except (binascii.Error, ValueError):
        raise ContentError(f"{shown} is not a CID: base32 is a-z and 2-7.") from None
    cid = from_binary(raw)
    if str(cid) != text:  # unused bits of the last character must be zero
        raise ContentError(f"{shown} is not a CID in its one form.")
    return cid


def from_binary(raw: bytes) -> Cid:
    """Read a CID's bytes.

    Raises:
        ContentError: not a CID of version 0 or 1 with a SHA-256 and a codec that is known here.
    """
    if len(raw) == 34 and raw[:2] == _SHA2_256:
        return Cid(DAG_PB, raw[2:], 0)
    if len(raw) == 36 and raw[0] == 1 and raw[2:4] == _SHA2_256:
        return Cid(raw[1], raw[4:])
    raise ContentError(f"{raw[:40].hex()} are not the bytes of a CID with a SHA-256.")


# -- making blocks ----------------------------------------------------------------------------------------------------


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def _field(number: int, body: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(body)) + body


@dataclass(frozen=True)
class _Part:
    cid: Cid
    file_size: int
    total_size: int  # of the block and all below it


def _join(parts: Sequence[_Part]) -> tuple[bytes, _Part]:
    """The dag-pb node above `parts`: links first, then the UnixFS header, as Kubo writes it."""
    size = sum(part.file_size for part in parts)
    header = b"\x08\x02\x18" + _varint(size) + b"".join(b"\x20" + _varint(part.file_size) for part in parts)
    links = b"".join(
        _field(2, _field(1, part.cid.binary) + _field(2, b"") + b"\x18" + _varint(part.total_size)) for part in parts
    )
    block = links + _field(1, header)
    return block, _Part(of_block(DAG_PB, block), size, len(block) + sum(part.total_size for part in parts))


def build(data: bytes, *, chunk: int = CHUNK, width: int = WIDTH) -> Iterator[tuple[Cid, bytes]]:
    """The blocks of a file, children before parents: the last one is the root, and its CID is the file's."""
    level: list[_Part] = []
    for start in range(0, max(len(data), 1), chunk):
        block = data[start : start + chunk]
        cid = of_block(RAW, block)
        yield cid, block
        level.append(_Part(cid, len(block), len(block)))
    while len(level) > 1:
        above: list[_Part] = []
        for start in range(0, len(level), width):
            block, part = _join(level[start : start + width])
            yield part.cid, block
            above.append(part)
        level = above


def cid_of(data: bytes) -> Cid:
    """The CID of a file."""
    *_, (root, _) = build(data)
    return root
