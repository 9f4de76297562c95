"""Headers, transactions, receipts and accounts of an Ethereum chain, from their bytes (Yellow Paper, 4; EIP-2718)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from eth_utils.crypto import keccak

from contracts.errors import LedgerError
from contracts.rlp import Item, RlpError, decode, encode, number


@dataclass(frozen=True)
class Header:
    """A block's header, by its fields (Yellow Paper, 4.3), and its hash."""

    hash: bytes
    parent: bytes
    state_root: bytes
    transactions_root: bytes
    receipts_root: bytes
    bloom: int
    difficulty: int
    number: int
    gas_limit: int
    gas_used: int
    time: int
    raw: bytes

    @classmethod
    def read(cls, raw: bytes) -> Header:
        """From RLP.

        Raises:
            LedgerError: the bytes are no header.
        """
        fields = _strings(decode(raw), "a header")
        if not 15 <= len(fields) <= 32 or any(len(fields[i]) != 32 for i in (0, 3, 4, 5)):
            raise LedgerError("a header without the fields of one.")
        bloom, difficulty = _int(fields[6], 256), _int(fields[7])
        block, gas_limit, gas_used, time = (_int(field, 8) for field in fields[8:12])
        roots = (fields[3], fields[4], fields[5])
        return cls(keccak(raw), fields[0], *roots, bloom, difficulty, block, gas_limit, gas_used, time, raw)


@dataclass(frozen=True)
class SignedTransaction:
    """A transaction by its bytes; `to` is None where it makes a contract, `chain_id` where it names no chain."""

    raw: bytes
    nonce: int
    to: bytes | None
    value: int
    data: bytes
    signed: bytes
    signature: tuple[int, int, int]
    chain_id: int | None

    @classmethod
    def read(cls, raw: bytes) -> SignedTransaction:
        """From its bytes: legacy, EIP-2930, or EIP-1559.

        Raises:
            LedgerError: another kind, or no transaction.
        """
        kind = raw[0] if raw and raw[0] < 0x80 else 0
        body = decode(raw[1:] if kind else raw)
        places = {0: (0, 3, 9), 1: (1, 4, 11), 2: (1, 5, 12)}.get(kind)
        if places is None or not isinstance(body, list) or len(body) != places[2]:
            raise LedgerError(f"a transaction of a kind that is not read here ({kind}).")
        nonce, to, count = places
        fields = _strings([part if isinstance(part, bytes) else b"" for part in body], "a transaction")
        if len(fields[to]) not in (0, 20):
            raise LedgerError("a transaction to what is no address.")
        v, r, s = (_int(field) for field in fields[count - 3 :])
        chain_id = _int(fields[0]) if kind else (v - 35) // 2 if v >= 35 else None
        if kind:
            signed = bytes([kind]) + encode(body[: count - 3])
        elif v >= 35:  # EIP-155: the chain's id is signed too
            signed = encode([*body[:6], number(chain_id or 0), b"", b""])
            v = (v - 35) % 2
        else:
            signed, v = encode(body[:6]), v - 27
        return cls(
            raw=raw,
            nonce=_int(fields[nonce], 8),
            to=fields[to] or None,
            value=_int(fields[to + 1]),
            data=fields[to + 2],
            signed=signed,
            signature=(v, r, s),
            chain_id=chain_id,
        )

    @classmethod
    def rebuild(cls, fields: Mapping[str, Any]) -> SignedTransaction | None:
        """From what a JSON-RPC node tells of a transaction; None where it is of another kind, or not all is told."""
        try:
            kind = int(fields.get("type", "0x0"), 16)
            common: list[Item] = [
                _quantity(fields["gas"]),
                _bytes(fields.get("to") or "0x"),
                _quantity(fields["value"]),
                _bytes(fields["input"]),
            ]
            signature: list[Item] = [_quantity(fields[name]) for name in ("v", "r", "s")]
            nonce = _quantity(fields["nonce"])
            if kind == 0:
                return cls.read(encode([nonce, _quantity(fields["gasPrice"]), *common, *signature]))
            if kind not in (1, 2):
                return None
            fees = ["gasPrice"] if kind == 1 else ["maxPriorityFeePerGas", "maxFeePerGas"]
            access: list[Item] = [
                [_bytes(entry["address"]), [_bytes(key) for key in entry["storageKeys"]]]
                for entry in fields.get("accessList") or []
            ]
            body = [_quantity(fields["chainId"]), nonce, *(_quantity(fields[f]) for f in fees), *common, access]
            return cls.read(bytes([kind]) + encode([*body, *signature]))
        except (KeyError, TypeError, ValueError, LedgerError):
            return None

    @cached_property
    def hash(self) -> bytes:
        """Keccak-256 of its bytes."""
        return keccak(self.raw)

    @cached_property
    def sender(self) -> bytes:
        """The account whose key signed it, recovered from the signature.

        Raises:
            LedgerError: the signature is none.
        """
        from eth_keys.datatypes import Signature
        from eth_keys.exceptions import BadSignature
        from eth_utils.exceptions import ValidationError

        try:
            return Signature(vrs=self.signature).recover_public_key_from_msg(self.signed).to_canonical_address()
        except (BadSignature, ValidationError, ValueError):
            raise LedgerError(f"transaction 0x{self.hash.hex()} has no valid signature.") from None


@dataclass(frozen=True)
class Log:
    """One event as it stands in a receipt."""

    address: bytes
    topics: tuple[bytes, ...]
    data: bytes


@dataclass(frozen=True)
class TransactionReceipt:
    """What became of a transaction; `gas_total` is the block's sum up to it."""

    ok: bool
    gas_total: int
    bloom: int
    logs: tuple[Log, ...]

    @classmethod
    def read(cls, raw: bytes) -> TransactionReceipt:
        """From its bytes, of any kind of transaction.

        Raises:
            LedgerError: no receipt.
        """
        body = decode(raw[1:] if raw and raw[0] < 0x80 else raw)
        if not isinstance(body, list) or len(body) != 4 or not isinstance(body[3], list):
            raise LedgerError("a receipt without the fields of one.")
        status, total, bloom = _strings(body[:3], "a receipt")
        logs = []
        for log in body[3]:
            if not isinstance(log, list) or len(log) != 3 or not isinstance(log[1], list):
                raise LedgerError("an event in a receipt without the fields of one.")
            address, data = _strings([log[0], log[2]], "an event")
            topics = tuple(_strings(log[1], "an event's topics"))
            if len(address) != 20 or len(topics) > 4 or any(len(topic) != 32 for topic in topics):
                raise LedgerError("an event in a receipt without the fields of one.")
            logs.append(Log(address, topics, data))
        return cls(status == b"\x01", _int(total, 8), _int(bloom, 256), tuple(logs))


@dataclass(frozen=True)
class Account:
    """What the state holds of an account."""

    nonce: int
    balance: int
    storage_root: bytes
    code_hash: bytes

    @classmethod
    def read(cls, raw: bytes) -> Account:
        """From RLP.

        Raises:
            LedgerError: no account.
        """
        fields = _strings(decode(raw), "an account")
        if len(fields) != 4 or len(fields[2]) != 32 or len(fields[3]) != 32:
            raise LedgerError("an account without the fields of one.")
        return cls(_int(fields[0]), _int(fields[1]), fields[2], fields[3])


def _strings(item: Item, what: str) -> list[bytes]:
    if not isinstance(item, list):
        raise RlpError(f"{what} is no list.")
    out = []
    for part in item:
        if not isinstance(part, bytes):
            raise RlpError(f"{what} has a list where a string belongs.")
        out.append(part)
    return out


def _int(field: bytes, most: int = 32) -> int:
    """A number of at most so many bytes: far longer ones cannot even be shown."""
    if len(field) > most:
        raise RlpError(f"a number of {len(field)} bytes, where at most {most} belong.")
    return int.from_bytes(field, "big")


def _quantity(text: str) -> bytes:
    return number(int(text, 16))


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))
