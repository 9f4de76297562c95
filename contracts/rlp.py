"""RLP, Ethereum's encoding of nested byte strings (Yellow Paper, appendix B): strict, for what is read is hostile."""

from __future__ import annotations

from typing import TypeAlias

from contracts.errors import LedgerError

Item: TypeAlias = bytes | list["Item"]
_DEPTH = 16


class RlpError(LedgerError):
    """Bytes that are no RLP in its one form."""


def encode(item: Item | tuple[Item, ...]) -> bytes:
    """Byte strings and lists of them as RLP."""
    if isinstance(item, bytes):
        if len(item) == 1 and item[0] < 0x80:
            return item
        return _head(len(item), 0x80) + item
    body = b"".join(encode(part) for part in item)
    return _head(len(body), 0xC0) + body


def number(value: int) -> bytes:
    """A number as RLP takes it: big-endian, without leading zeros."""
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


def decode(data: bytes) -> Item:
    """One item, and nothing after it.

    Raises:
        RlpError: cut off, followed by something, nested without end, or a length that is not in its shortest form.
    """
    item, end = _decode(data, 0, len(data), 0)
    if end != len(data):
        raise RlpError(f"{len(data) - end} bytes stand behind an RLP item.")
    return item


def _head(length: int, base: int) -> bytes:
    if length < 56:
        return bytes([base + length])
    size = number(length)
    return bytes([base + 55 + len(size)]) + size


def _decode(data: bytes, start: int, end: int, depth: int) -> tuple[Item, int]:
    if start >= end:
        raise RlpError("an RLP item is cut off.")
    first = data[start]
    if first < 0x80:
        return data[start : start + 1], start + 1
    is_list = first >= 0xC0
    length = first - (0xC0 if is_list else 0x80)
    begin = start + 1
    if length > 55:
        size = length - 55
        begin += size
        length = int.from_bytes(data[start + 1 : begin], "big")
        if begin > end or length < 56 or data[start + 1] == 0:
            raise RlpError("a length in RLP is cut off or not in its shortest form.")
    stop = begin + length
    if stop > end:
        raise RlpError("an RLP item is cut off.")
    if not is_list:
        if length == 1 and data[begin] < 0x80:
            raise RlpError("a byte in RLP is not in its shortest form.")
        return data[begin:stop], stop
    if depth >= _DEPTH:
        raise RlpError(f"RLP lists nested more than {_DEPTH} deep.")
    parts: list[Item] = []
    while begin < stop:
        part, begin = _decode(data, begin, stop, depth + 1)
        parts.append(part)
    return parts, stop
