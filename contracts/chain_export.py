"""A task's part of a chain as one JSON object, with what is needed to check it elsewhere (schema: docs/audit.md).

From an embedded chain: every block's header, all transactions and receipts as bytes, so that hashes, links and roots
can be computed again with any Ethereum library. From a JSON-RPC node: the task's transactions, as signed, and their
events; that they were mined stays the node's word.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contracts.block_file import BlockFile
from contracts.errors import LedgerError
from contracts.history import Call, History

FORMAT = "qrun-chain/1"


def export_chain(history: History, path: Path | None) -> dict[str, Any]:
    """The task's log as plain JSON types.

    Args:
        history: The log.
        path: The embedded chain's file that it is from; None for a JSON-RPC node.

    Raises:
        LedgerError: the file is damaged.
    """
    return {
        "format": FORMAT,
        "source": "json-rpc" if path is None else "embedded",
        "chain_id": history.chain_id,
        "contract": history.address,
        "code": _hex(history.code),
        "head": {"number": history.head, "hash": history.head_hash, "time": history.head_time},
        "complete": history.complete,
        "transactions": [_call(call) for call in history.calls],
        "blocks": None if path is None else _blocks(path, history.head),
    }


def _call(call: Call) -> dict[str, Any]:
    function = call.function
    try:
        sender = call.sender
    except LedgerError:
        sender = None
    return {
        "hash": call.tx,
        "block": call.block,
        "position": call.position,
        "time": call.time,
        "sender": sender,
        "to": call.to,
        "value": str(call.value),
        "gas_used": call.gas,
        "ok": call.ok,
        "raw": None if call.signed is None else _hex(call.signed.raw),
        "data": _hex(call.data),
        "function": None if function is None else function[0],
        "arguments": None if function is None else _plain(function[1]),
        "events": [{"name": e.name, "index": e.index, "arguments": _plain(dict(e.args))} for e in call.entries],
    }


def _blocks(path: Path, head: int) -> list[dict[str, Any]]:
    out = []
    with BlockFile(path) as file:
        for number in range(head + 1):
            header = file.header(number)
            out.append(
                {
                    "number": number,
                    "hash": _hex(header.hash),
                    "header": _hex(header.raw),
                    "transactions": [_hex(raw) for raw in file.values(header.transactions_root)],
                    "receipts": [_hex(raw) for raw in file.values(header.receipts_root)],
                }
            )
    return out


def _plain(value: Any) -> Any:
    """Bytes as hex, numbers beyond 53 bits as text: JSON readers round those."""
    if isinstance(value, bytes):
        return _hex(value)
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 1 << 53:
        return str(value)
    return value


def _hex(data: bytes) -> str:
    return "0x" + data.hex()
