"""The embedded chain's file, read without an EVM: headers, transactions, receipts and accounts, each from its bytes.

What is read is hostile: a damaged file gives a LedgerError that names the block. Nothing is written.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self

from eth_utils.crypto import keccak

from contracts import trie
from contracts.errors import LedgerBusy, LedgerError
from contracts.rlp import Item, RlpError, decode, encode, number

HEAD_KEY = b"v1:canonical_head_hash"
NUMBER_KEY = b"block-number-to-hash:"


def number_key(block: int) -> bytes:
    """Where py-evm keeps the hash of the canonical block with a number."""
    return NUMBER_KEY + str(block).encode()


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
        bloom, difficulty, block, gas_limit, gas_used, time = (_int(field) for field in fields[6:12])
        roots = (fields[3], fields[4], fields[5])
        return cls(keccak(raw), fields[0], *roots, bloom, difficulty, block, gas_limit, gas_used, time, raw)


@dataclass(frozen=True)
class SignedTransaction:
    """A transaction by its bytes; `to` is None where it makes a contract."""

    raw: bytes
    nonce: int
    to: bytes | None
    value: int
    data: bytes
    signed: bytes
    signature: tuple[int, int, int]

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
        v, r, s = (_int(field) for field in fields[count - 3 :])
        if kind:
            signed = bytes([kind]) + encode(body[: count - 3])
        elif v >= 35:  # EIP-155: the chain's id is signed too
            signed = encode([*body[:6], number((v - 35) // 2), b"", b""])
            v = (v - 35) % 2
        else:
            signed, v = encode(body[:6]), v - 27
        return cls(
            raw, _int(fields[nonce]), fields[to] or None, _int(fields[to + 1]), fields[to + 2], signed, (v, r, s)
        )

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
        return cls(status == b"\x01", _int(total), _int(bloom), tuple(logs))


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


class BlockFile:
    """An embedded chain's file, open for reading; a context manager.

    Raises:
        LedgerBusy: a process works on it.
        LedgerError: there is none, or it is no chain.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise LedgerError(f"there is no chain {path}.", "Name the folder of a run, or give --chain.")
        self._sql = _open(self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the file free."""
        self._sql.close()

    def rows(self) -> Iterator[tuple[object, object]]:
        """All keys and values, as they lie in the file.

        Raises:
            LedgerError: SQLite cannot read the file through.
        """
        try:
            yield from self._sql.execute("select key, value from state")
        except sqlite3.Error as error:
            raise LedgerError(f"the chain {self.path} is damaged: {error}.") from None

    def get(self, key: bytes) -> bytes:
        """The value under a key.

        Raises:
            LedgerError: there is none, or the file is damaged.
        """
        try:
            row = self._sql.execute("select value from state where key=?", (key,)).fetchone()
        except sqlite3.Error as error:
            raise LedgerError(f"the chain {self.path} is damaged: {error}.") from None
        if row is None or not isinstance(row[0], bytes):
            shown = f"0x{key.hex()}" if len(key) == 32 else ascii(key.decode(errors="replace"))
            raise LedgerError(f"the chain {self.path} has nothing under {shown}.")
        value: bytes = row[0]
        return value

    def node(self, digest: bytes) -> bytes:
        """The value under its own hash.

        Raises:
            LedgerError: there is none, or it does not hash to it.
        """
        value = self.get(digest)
        if keccak(value) != digest:
            raise LedgerError(f"the chain {self.path} is damaged: what it has under 0x{digest.hex()} hashes otherwise.")
        return value

    def head(self) -> Header:
        """The last block's header."""
        return Header.read(self.node(self.get(HEAD_KEY)))

    def header(self, block: int) -> Header:
        """A canonical block's header, by its number."""
        found = decode(self.get(number_key(block)))
        if not isinstance(found, bytes) or len(found) != 32:
            raise LedgerError(f"the chain {self.path} is damaged: block {block} has no hash.")
        header = Header.read(self.node(found))
        if header.number != block:
            raise LedgerError(f"the chain {self.path} is damaged: block {header.number} stands under number {block}.")
        return header

    def transactions(self, header: Header) -> list[SignedTransaction]:
        """A block's transactions, in order."""
        return [SignedTransaction.read(raw) for raw in self._list(header.transactions_root)]

    def receipts(self, header: Header) -> list[TransactionReceipt]:
        """Their receipts."""
        return [TransactionReceipt.read(raw) for raw in self._list(header.receipts_root)]

    def account(self, header: Header, address: bytes) -> Account | None:
        """An account (20 bytes) as a block left it."""
        raw = trie.find(header.state_root, keccak(address), self.node)
        return None if raw is None else Account.read(raw)

    def code(self, header: Header, address: bytes) -> bytes:
        """The code at an address, empty where there is none."""
        account = self.account(header, address)
        empty = account is None or account.code_hash == keccak(b"")
        return b"" if empty or account is None else self.node(account.code_hash)

    def _list(self, root: bytes) -> list[bytes]:
        """The values of a trie whose keys are 0, 1, ... in RLP."""
        found = dict(trie.walk(root, self.node))
        keys = [trie.nibbles(encode(number(i))) for i in range(len(found))]
        if set(keys) != set(found):
            raise LedgerError(f"the chain {self.path} is damaged: a list of transactions or receipts has gaps.")
        return [found[key] for key in keys]


def _open(path: Path) -> sqlite3.Connection:
    """Open for reading; where the folder may be written SQLite also takes its lock and tidies up behind itself."""
    quoted = path.absolute().as_uri()
    problem = ""
    for mode in ("mode=rw", "mode=ro", "mode=ro&immutable=1"):
        sql = None
        try:
            sql = sqlite3.connect(f"{quoted}?{mode}", uri=True, isolation_level=None, timeout=0.5)
            sql.execute("pragma query_only=on")
            sql.execute("select count(*) from (select key from state limit 1)").fetchone()
            return sql
        except sqlite3.Error as error:
            problem = str(error)
            if sql is not None:
                with suppress(sqlite3.Error):
                    sql.close()
            if "locked" in problem or "busy" in problem:
                raise LedgerBusy(
                    f"the chain {path} is in use by another process.", "Wait until that one ends, or stop it."
                ) from None
            if "readonly" not in problem and "unable to open" not in problem:
                break
    raise LedgerError(f"{path} is no chain, or is damaged ({problem}).", "Name another file or folder.")


def _strings(item: Item, what: str) -> list[bytes]:
    if not isinstance(item, list):
        raise RlpError(f"{what} is no list.")
    out = []
    for part in item:
        if not isinstance(part, bytes):
            raise RlpError(f"{what} has a list where a string belongs.")
        out.append(part)
    return out


def _int(field: bytes) -> int:
    return int.from_bytes(field, "big")
