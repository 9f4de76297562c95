"""The embedded chain's file, read without an EVM: headers, transactions, receipts and accounts, each from its bytes.

What is read is hostile: a damaged file gives a LedgerError that names the block. Nothing is written.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from eth_utils.crypto import keccak

from contracts import trie
from contracts.blocks import Account, Header, SignedTransaction, TransactionReceipt
from contracts.errors import LedgerBusy, LedgerError
from contracts.rlp import decode, encode, number

HEAD_KEY = b"v1:canonical_head_hash"
NUMBER_KEY = b"block-number-to-hash:"


def number_key(block: int) -> bytes:
    """Where py-evm keeps the hash of the canonical block with a number."""
    return NUMBER_KEY + str(block).encode()


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
        return [SignedTransaction.read(raw) for raw in self.values(header.transactions_root)]

    def receipts(self, header: Header) -> list[TransactionReceipt]:
        """Their receipts."""
        return [TransactionReceipt.read(raw) for raw in self.values(header.receipts_root)]

    def account(self, header: Header, address: bytes) -> Account | None:
        """An account (20 bytes) as a block left it."""
        raw = trie.find(header.state_root, keccak(address), self.node)
        return None if raw is None else Account.read(raw)

    def code(self, header: Header, address: bytes) -> bytes:
        """The code at an address, empty where there is none."""
        account = self.account(header, address)
        empty = account is None or account.code_hash == keccak(b"")
        return b"" if empty or account is None else self.node(account.code_hash)

    def values(self, root: bytes) -> list[bytes]:
        """The transactions or receipts under a root, as bytes: the values of a trie whose keys are 0, 1, ... in RLP."""
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
