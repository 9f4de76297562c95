"""Merkle Patricia tries, read from a store of nodes (Yellow Paper, appendix D); every node is under its own hash."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from eth_utils.crypto import keccak

from contracts.errors import LedgerError
from contracts.rlp import Item, decode, encode, number

EMPTY_ROOT = keccak(b"\x80")
"""Root of a trie with nothing in it."""

Fetch = Callable[[bytes], bytes]
"""A node by its hash; raises LedgerError where it is missing."""


def walk(
    root: bytes, fetch: Fetch, seen: set[bytes] | None = None, *, longest: int = 64, again: bool = True
) -> Iterator[tuple[bytes, bytes]]:
    """All keys (as nibbles, one a byte) and values, in the order of keys.

    Nodes may be shared, and a trie in which each names the next sixteen times has more keys than can be counted: who
    walks a trie from outside gives `seen`.

    Args:
        root: The trie's root hash.
        fetch: Gives a node by its hash.
        seen: Hashes of nodes that are passed over, with all below them; those that are read are added.
        longest: Nibbles of the longest key.
        again: Whether a node in `seen` may be met; False where each value is another, so that no node stands twice.

    Raises:
        LedgerError: a node is missing, is none, or is none that such a trie has.
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
                if not again:
                    raise LedgerError("a node stands twice in a trie whose values all differ.")
                continue
            seen.add(reference)
        value, below = _open(_node(reference, fetch), path, longest)
        if value is not None:
            yield value
        stack.extend(reversed(below))


def _open(node: list[Item], path: bytes, longest: int) -> tuple[tuple[bytes, bytes] | None, list[tuple[Item, bytes]]]:
    """The key and value in a node, and what is below it. All paths lead to values, and soon, or it is no node."""
    if len(node) == 17:
        value = node[16]
        if not isinstance(value, bytes):
            raise LedgerError("the value in a trie's branch is a list.")
        if sum(part != b"" for part in node) < 2:
            raise LedgerError("a branch of a trie leads nowhere, or one way only.")
        if len(path) >= longest:  # there is at least one way on
            raise LedgerError("a path in a trie is longer than any key.")
        return (path, value) if value else None, [(node[i], path + bytes([i])) for i in range(16)]
    more, is_leaf = _path(node[0])
    if len(path) + len(more) > longest:
        raise LedgerError("a path in a trie is longer than any key.")
    if not is_leaf:
        if not more or node[1] == b"":
            raise LedgerError("an extension in a trie leads nowhere.")
        return None, [(node[1], path + more)]
    if not isinstance(node[1], bytes):
        raise LedgerError("the value in a trie's leaf is a list.")
    return (path + more, node[1]), []


_LIST_KEY = 8
"""Nibbles of the longest key in a list: RLP of an index below 2^24."""


def values(root: bytes, fetch: Fetch, seen: set[bytes] | None = None, *, most: int | None = None) -> list[bytes]:
    """The values of a list, i.e. of a trie whose keys are 0, 1, ... in RLP, as blocks have of what differs.

    Args:
        root: The trie's root hash.
        fetch: Gives a node by its hash.
        seen: Nodes of other lists, of which none may be in this one; its own are added.
        most: Longest list.

    Raises:
        LedgerError: a node is missing, is none, or stands twice; the list has gaps, or is too long.
    """
    found: dict[bytes, bytes] = {}
    for key, value in walk(root, fetch, set() if seen is None else seen, longest=_LIST_KEY, again=False):
        found[key] = value
        if most is not None and len(found) > most:
            raise LedgerError(f"a list of transactions or receipts has more than the {most} that belong there.")
    keys = [nibbles(encode(number(i))) for i in range(len(found))]
    if set(keys) != set(found):
        raise LedgerError("a list of transactions or receipts has gaps.")
    return [found[key] for key in keys]


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
