"""Read a file back from its blocks, believing none of them: every block is hashed, every size bounded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
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
    blocks_left = max_bytes // 1024 + 1024
    bytes_left = 2 * max_bytes + 2 * MAX_BLOCK
    size = 0
    out = []
    stack = [(root, 0)]
    while stack:
        cid, depth = stack.pop()
        blocks_left -= 1
        if blocks_left < 0 or bytes_left < 0 or depth > _MAX_DEPTH:
            raise ContentError(f"{root} has far more blocks than a file of {max_bytes} bytes needs.")
        block = _checked(cid, fetch)
        bytes_left -= len(block)
        node = _node(cid, block)
        size += len(node.data)
        if size > max_bytes:
            raise ContentError(f"{root} is larger than the {max_bytes} bytes that are taken.")
        out.append(node.data)
        stack.extend((child, depth + 1) for child in reversed(node.links))
    return b"".join(out)


def distinct_blocks(roots: Iterable[Cid], fetch: Callable[[Cid], bytes]) -> Iterator[tuple[Cid, bytes]]:
    """The blocks of files, each once however often it is linked to; parents before children, in the files' order.

    Raises:
        ContentError: as `read_file`, but for sizes.
    """
    seen: set[bytes] = set()
    for root in roots:
        stack = [root.binary]
        while stack:
            cid = from_binary(stack.pop())
            if cid.v1.binary in seen:
                continue
            seen.add(cid.v1.binary)
            block = _checked(cid, fetch)
            yield cid, block
            stack.extend(child.binary for child in reversed(_node(cid, block).links))


def links_of(cid: Cid, block: bytes) -> tuple[Cid, ...]:
    """What a block of a file links to.

    Raises:
        ContentError: it is no UnixFS file.
    """
    return _node(cid, block).links


def broken_files(
    roots: Iterable[Cid], fetch: Callable[[Cid], bytes], *, max_bytes: int, most: int | None = None
) -> dict[Cid, str]:
    """Which files cannot be read whole, and why. Every block is fetched once, and no file is put together, so that the
    time is that of the blocks there are, however often they are linked to.

    Args:
        roots: The files.
        fetch: Gives a block; it need not be the right one.
        max_bytes: Largest file.
        most: Bytes of blocks that are fetched in all, each counted as a KiB at least; None where the blocks lie here.

    Raises:
        ContentError: more than `most`.
    """
    survey = _Survey(fetch, max_bytes, most)
    return {root: reason for root in roots if (reason := survey.problem(root))}


@dataclass
class _Visit:
    """A block whose links are being followed; links as bytes, for there may be many."""

    key: bytes
    links: list[bytes]
    size: int
    height: int = 0
    position: int = 0


class _Survey:
    """What is known of blocks: height and size of the file below, or why there is none."""

    def __init__(self, fetch: Callable[[Cid], bytes], max_bytes: int, most: int | None) -> None:
        self._fetch = fetch
        self._max_bytes = max_bytes
        self._left = most
        self._known: dict[bytes, tuple[int, int] | str] = {}

    def problem(self, root: Cid) -> str:
        """Why the file under `root` cannot be read; nothing where it can."""
        stack: list[_Visit] = []
        self._enter(root.v1.binary, stack)
        while stack:
            visit = stack[-1]
            if visit.position == len(visit.links):
                self._leave(stack.pop(), "")
                continue
            child = visit.links[visit.position]
            found = self._known.get(child)
            if found is None:
                self._enter(child, stack)
            elif isinstance(found, str):
                self._leave(stack.pop(), found)
            else:
                visit.height = max(visit.height, found[0] + 1)
                visit.size += found[1]
                visit.position += 1
        found = self._known[root.v1.binary]
        return found if isinstance(found, str) else ""

    def _enter(self, key: bytes, stack: list[_Visit]) -> None:
        if key in self._known:
            return
        cid = from_binary(key)
        try:
            block = _checked(cid, self._fetch)
            node = _node(cid, block)
        except ContentError as error:
            self._known[key] = error.message
            return
        if self._left is not None:
            self._left -= max(len(block), 1024)
            if self._left < 0:
                raise ContentError(f"{cid} is of a file of far more blocks than are taken.")
        stack.append(_Visit(key, [link.v1.binary for link in node.links], len(node.data)))

    def _leave(self, visit: _Visit, problem: str) -> None:
        if not problem and (visit.height > _MAX_DEPTH or visit.size > self._max_bytes):
            problem = (
                f"{from_binary(visit.key)} is larger than the {self._max_bytes} bytes that are taken, or too deep."
            )
        self._known[visit.key] = problem or (visit.height, visit.size)


def _checked(cid: Cid, fetch: Callable[[Cid], bytes]) -> bytes:
    block = fetch(cid)
    if len(block) > MAX_BLOCK:
        raise ContentError(f"block {cid} has {len(block)} bytes; none has more than {MAX_BLOCK}.")
    if not cid.matches(block):
        raise ContentError(f"block {cid} is damaged: what came does not hash to it.")
    return block


def _node(cid: Cid, block: bytes) -> _Node:
    return _Node((), block) if cid.codec == RAW else _parse(cid, block)


def _parse(cid: Cid, block: bytes) -> _Node:
    """A dag-pb node holding a UnixFS file."""
    links: list[Cid] = []
    bodies: list[bytes] = []
    for number, value in _fields(cid, block):
        if number == 2 and isinstance(value, bytes):
            hashes = [v for n, v in _fields(cid, value) if n == 1 and isinstance(v, bytes)]
            if len(hashes) != 1:
                raise ContentError(f"block {cid} has a link without a hash.")
            links.append(from_binary(hashes[0]))
        elif number == 1 and isinstance(value, bytes):
            bodies.append(value)
    file_type = None
    contents: list[bytes] = []
    for number, value in _fields(cid, bodies[0]) if len(bodies) == 1 else ():
        if number == 1 and isinstance(value, int):
            file_type = value
        elif number == 2 and isinstance(value, bytes):
            contents.append(value)
    if len(bodies) > 1 or len(contents) > 1:
        # Protobuf lets the last one count; no writer of UnixFS has more than one.
        raise ContentError(f"block {cid} is no dag-pb node of a file: its data stands in it more than once.")
    if file_type not in _FILE_TYPES:
        raise ContentError(f"{cid} is no file (UnixFS type {file_type}).")
    return _Node(tuple(links), b"".join(contents))


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
