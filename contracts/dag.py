"""Read a file back from its blocks, believing none of them: every block is hashed, every size bounded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from contracts.cid import RAW, Cid, from_binary
from contracts.errors import ContentError

MAX_BLOCK = 2 << 20
"""Bytes of the largest block that IPFS nodes exchange."""
_MAX_DEPTH = 16
_FILE_TYPES = (0, 2)
"""UnixFS: Raw and File. Directories and symlinks are no files."""


@dataclass(frozen=True)
class _Node:
    links: tuple[Cid, ...]
    data: bytes


def read_file(root: Cid, fetch: Callable[[Cid], bytes], *, max_bytes: int) -> bytes:
    """The file under `root`.

    Args:
        fetch: Gives a block; it need not be the right one.
        max_bytes: Largest file taken. Blocks fetched are bounded too, so that a small file in a huge or looping tree
            is refused.

    Raises:
        ContentError: a block does not hash to its CID, is no UnixFS file, or the file is larger than `max_bytes`.
    """
    return b"".join(data for _, _, data in _walk(root, fetch, max_bytes))


def file_blocks(root: Cid, fetch: Callable[[Cid], bytes], *, max_bytes: int) -> Iterator[tuple[Cid, bytes]]:
    """The blocks of the file under `root`, each parent before its children, in the file's order; as `read_file`."""
    for cid, block, _ in _walk(root, fetch, max_bytes):
        yield cid, block


def _walk(root: Cid, fetch: Callable[[Cid], bytes], max_bytes: int) -> Iterator[tuple[Cid, bytes, bytes]]:
    """CID, block, and the file's bytes in that block."""
    blocks_left = max_bytes // 1024 + 1024
    bytes_left = 2 * max_bytes + 2 * MAX_BLOCK
    size = 0
    stack = [(root, 0)]
    while stack:
        cid, depth = stack.pop()
        blocks_left -= 1
        if blocks_left < 0 or bytes_left < 0 or depth > _MAX_DEPTH:
            raise ContentError(f"{root} has far more blocks than a file of {max_bytes} bytes needs.")
        block = fetch(cid)
        bytes_left -= len(block)
        if len(block) > MAX_BLOCK:
            raise ContentError(f"block {cid} has {len(block)} bytes; none has more than {MAX_BLOCK}.")
        if not cid.matches(block):
            raise ContentError(f"block {cid} is damaged: what came does not hash to it.")
        node = _Node((), block) if cid.codec == RAW else _parse(cid, block)
        size += len(node.data)
        if size > max_bytes:
            raise ContentError(f"{root} is larger than the {max_bytes} bytes that are taken.")
        yield cid, block, node.data
        stack.extend((child, depth + 1) for child in reversed(node.links))


def _parse(cid: Cid, block: bytes) -> _Node:
    """A dag-pb node holding a UnixFS file."""
    links: list[Cid] = []
    data = b""
    file_type = None
    for number, value in _fields(cid, block):
        if number == 2 and isinstance(value, bytes):
            hashes = [v for n, v in _fields(cid, value) if n == 1 and isinstance(v, bytes)]
            if len(hashes) != 1:
                raise ContentError(f"block {cid} has a link without a hash.")
            links.append(from_binary(hashes[0]))
        elif number == 1 and isinstance(value, bytes):
            for inner, content in _fields(cid, value):
                if inner == 1 and isinstance(content, int):
                    file_type = content
                elif inner == 2 and isinstance(content, bytes):
                    data += content
    if file_type not in _FILE_TYPES:
        raise ContentError(f"{cid} is no file (UnixFS type {file_type}).")
    return _Node(tuple(links), data)


def _fields(cid: Cid, message: bytes) -> Iterator[tuple[int, bytes | int]]:
    """The fields of a protobuf message: number, and an integer (varint) or bytes."""
    position = 0

    def varint() -> int:
        nonlocal position
        number = 0
        for shift in range(0, 64, 7):
            if position >= len(message):
                break
            byte = message[position]
            position += 1
            number |= (byte & 127) << shift
            if byte < 128:
                return number
        raise ContentError(f"block {cid} is no dag-pb node: a number is cut off.")

    while position < len(message):
        key = varint()
        if key & 7 == 0:
            yield key >> 3, varint()
        elif key & 7 == 2:
            length = varint()
            body = message[position : position + length]
            if len(body) != length:
                raise ContentError(f"block {cid} is no dag-pb node: a field is cut off.")
            position += length
            yield key >> 3, body
        else:
            raise ContentError(f"block {cid} is no dag-pb node: wire type {key & 7}.")
