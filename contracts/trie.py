"""Merkle Patricia tries, read from a store of nodes (Yellow Paper, appendix D); every node is under its own hash."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from eth_utils.crypto import keccak

from contracts.errors import LedgerError
from contracts.rlp import Item, decode

EMPTY_ROOT = keccak(b"\x80")
"""Root of a trie with nothing in it."""

Fetch = Callable[[bytes], bytes]
"""A node by its hash; raises LedgerError where it is missing."""


def walk(root: bytes, fetch: Fetch, seen: set[bytes] | None = None) -> Iterator[tuple[bytes, bytes]]:
    """All keys (as nibbles, one a byte) and values, in the order of keys.

    Args:
        root: The trie's root hash.
        fetch: Gives a node by its hash.
        seen: Hashes of nodes that are passed over, with all below them; those that are read are added.

    Raises:
        LedgerError: a node is missing, or is none.
    """
    if root == EMPTY_ROOT:
        return
    stack: list[tuple[Item, bytes]] = [(root, b"")]
    while stack:
        reference, path = stack.pop()
        if reference == b"":
            continue
        if isinstance(reference, bytes) and seen is not None:
            if reference in seen:
                continue
            seen.add(reference)
        node = _node(reference, fetch)
        if len(path) > 64:
            raise LedgerError("a path in a trie is longer than any key.")
        if len(node) == 17:
            if not isinstance(node[16], bytes):
                raise LedgerError("the value in a trie's branch is a list.")
            if node[16]:
                yield path, node[16]
            stack.extend((node[i], path + bytes([i])) for i in range(15, -1, -1))
            continue
        more, is_leaf = _path(node[0])
        if not is_leaf:
            stack.append((node[1], path + more))
        elif isinstance(node[1], bytes):
            yield path + more, node[1]
        else:
            raise LedgerError("the value in a trie's leaf is a list.")


def find(root: bytes, key: bytes, fetch: Fetch) -> bytes | None:
    """The value under a key; None where there is none.

    Raises:
        LedgerError: a node is missing, or is none.
    """
    path = nibbles(key)
    reference: Item = root if root != EMPTY_ROOT else b""
    while reference != b"":
        node = _node(reference, fetch)
        if len(node) == 17:
            if not path:
                return node[16] if isinstance(node[16], bytes) and node[16] else None
            reference, path = node[path[0]], path[1:]
            continue
        more, is_leaf = _path(node[0])
        if is_leaf:
            return node[1] if path == more and isinstance(node[1], bytes) else None
        if not more or not path.startswith(more):
            return None
        reference, path = node[1], path[len(more) :]
    return None


def _node(reference: Item, fetch: Fetch) -> list[Item]:
    """A node by what its parent has of it: its hash, or itself where it is shorter than that."""
    if isinstance(reference, bytes):
        if len(reference) != 32:
            raise LedgerError(f"a link of {len(reference)} bytes in a trie; it has 32.")
        reference = decode(fetch(reference))
    if not isinstance(reference, list) or len(reference) not in (2, 17):
        raise LedgerError("a node of a trie has neither 2 nor 17 parts.")
    return reference


def nibbles(key: bytes) -> bytes:
    """A key as nibbles, one a byte."""
    return bytes(half for byte in key for half in (byte >> 4, byte & 15))


def _path(item: Item) -> tuple[bytes, bool]:
    """The nibbles of a leaf's or an extension's path, and whether it is a leaf's (hex-prefix encoding)."""
    if not isinstance(item, bytes) or not item or item[0] >> 4 > 3:
        raise LedgerError("the path of a trie's node is in no known form.")
    all_nibbles = nibbles(item)
    odd = all_nibbles[0] & 1
    return all_nibbles[1 if odd else 2 :], bool(all_nibbles[0] & 2)
