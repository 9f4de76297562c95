"""What logs and calldata of the contract mean, by its interface (ABI), without web3."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from contracts.build import load_artefact
from contracts.errors import LedgerError
from contracts.event_log import Entry


@cache
def _events() -> dict[bytes, dict[str, Any]]:
    found = (item for item in load_artefact()["abi"] if item["type"] == "event")
    return {keccak(_signature(item).encode()): item for item in found}


@cache
def _functions() -> dict[bytes, dict[str, Any]]:
    found = (item for item in load_artefact()["abi"] if item["type"] == "function")
    return {keccak(_signature(item).encode())[:4]: item for item in found}


def topic_of(name: str) -> bytes:
    """The first topic of an event's logs."""
    return next(topic for topic, event in _events().items() if event["name"] == name)


def _signature(item: Mapping[str, Any]) -> str:
    return f"{item['name']}({','.join(_type(part) for part in item['inputs'])})"


def _type(part: Mapping[str, Any]) -> str:
    if not part["type"].startswith("tuple"):
        return str(part["type"])
    inner = ",".join(_type(component) for component in part["components"])
    return f"({inner}){part['type'][5:]}"


def _named(part: Mapping[str, Any], value: Any) -> Any:
    """A value with structs as dicts and addresses checksummed."""
    if part["type"] == "tuple":
        return {c["name"]: _named(c, v) for c, v in zip(part["components"], value, strict=True)}
    if part["type"] == "address":
        return str(to_checksum_address(value))
    if part["type"] == "address[]":
        return [str(to_checksum_address(one)) for one in value]
    return list(value) if isinstance(value, tuple) else value


def decode_log(topics: tuple[bytes, ...], data: bytes, tx: str, block: int, index: int) -> Entry | None:
    """One of the contract's events from topics and data; None where it is none of them.

    Raises:
        LedgerError: the topic is that of an event, and the data are not.
    """
    from eth_abi.abi import decode
    from eth_abi.exceptions import DecodingError

    event = _events().get(topics[0]) if topics else None
    if event is None:
        return None
    indexed = [part for part in event["inputs"] if part["indexed"]]
    plain = [part for part in event["inputs"] if not part["indexed"]]
    try:
        if len(indexed) != len(topics) - 1:
            raise LedgerError(f"an event {event['name']} with {len(topics)} topics (transaction {tx}).")
        values = [decode([_type(part)], topic)[0] for part, topic in zip(indexed, topics[1:], strict=True)]
        values += decode([_type(part) for part in plain], data)
    except (DecodingError, OverflowError, UnicodeDecodeError) as error:
        raise LedgerError(f"an event {event['name']} that cannot be read ({error}; transaction {tx}).") from None
    found = {part["name"]: _named(part, value) for part, value in zip(indexed + plain, values, strict=True)}
    return Entry(event["name"], {part["name"]: found[part["name"]] for part in event["inputs"]}, tx, block, index)


@cache
def _constructor() -> tuple[bytes, list[dict[str, Any]]]:
    """The code that makes the contract, and what its constructor takes."""
    inputs = next(item["inputs"] for item in load_artefact()["abi"] if item["type"] == "constructor")
    return bytes.fromhex(load_artefact()["bytecode"][2:]), inputs


def encode_opening(args: Mapping[str, Any]) -> bytes | None:
    """The data of the transaction that makes the contract with the arguments of this name; None where none fits."""
    from eth_abi.abi import encode
    from eth_abi.exceptions import EncodingError

    code, inputs = _constructor()
    try:
        return code + encode([_type(part) for part in inputs], [_unnamed(part, args[part["name"]]) for part in inputs])
    except (EncodingError, KeyError, TypeError, ValueError):
        return None


def decode_opening(data: bytes) -> dict[str, Any] | None:
    """What a task was opened with, by the data of the transaction that made its contract; None where it is another."""
    from eth_abi.abi import decode
    from eth_abi.exceptions import DecodingError

    code, inputs = _constructor()
    if not data.startswith(code):
        return None
    try:
        values = decode([_type(part) for part in inputs], data[len(code) :])
    except (DecodingError, OverflowError, UnicodeDecodeError):
        return None
    return {part["name"]: _named(part, value) for part, value in zip(inputs, values, strict=True)}


def _unnamed(part: Mapping[str, Any], value: Any) -> Any:
    """A value with structs as tuples, in the order of their fields."""
    if part["type"] == "tuple":
        return tuple(_unnamed(c, value[c["name"]]) for c in part["components"])
    return value


def decode_call(data: bytes) -> tuple[str, dict[str, Any]] | None:
    """The contract's function that calldata call, and the arguments by name; None where it is none of them."""
    from eth_abi.abi import decode
    from eth_abi.exceptions import DecodingError

    function = _functions().get(data[:4])
    if function is None:
        return None
    try:
        values = decode([_type(part) for part in function["inputs"]], data[4:])
    except (DecodingError, OverflowError):
        return None
    pairs = zip(function["inputs"], values, strict=True)
    return str(function["name"]), {part["name"]: _named(part, value) for part, value in pairs}
