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
from contracts.rlp import decode
from contracts.sqlite_file import check_companions, restrict, size_of

HEAD_KEY = b"v1:canonical_head_hash"
NUMBER_KEY = b"block-number-to-hash:"
TABLE = "create table if not exists state(key blob primary key, value blob not null) without rowid"
"""What the chain's rows stand in."""
_PASSES = 16
"""How often the bytes of the file may be read as lists of transactions and receipts, while it is open. Blocks may share
receipts, but ten thousand headers that all name one long list are a trap."""


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
        self._size = size_of(self.path)
        self._list_bytes = _PASSES * self._size + (1 << 20)

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
            LedgerError: SQLite cannot read the file through, or it gives more than the file can hold, for pages of it
                stand in several places.
        """
        total = 0
        try:
            for key, value in self._sql.execute("select key, value from state"):
                total += 1 + sum(len(part) for part in (key, value) if isinstance(part, bytes | str))
                if total > self._size:
                    raise LedgerError(f"the chain {self.path} is damaged: it has more in its rows than it is long.")
                yield key, value
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
        try:
            return trie.values(root, self._list_node)
        except LedgerError as error:
            raise LedgerError(f"the chain {self.path} is damaged: {error.message}", error.hint) from None

    def _list_node(self, digest: bytes) -> bytes:
        node = self.node(digest)
        self._list_bytes -= len(node)
        if self._list_bytes < 0:
            raise LedgerError("its blocks name the same transactions or receipts again and again.")
        return node


def _open(path: Path) -> sqlite3.Connection:
    """Open for reading; where the folder may be written SQLite also takes its lock and tidies up behind itself."""
    quoted = path.absolute().as_uri()
    problem = ""
    check_companions(path)
    for mode in ("mode=rw", "mode=ro", "mode=ro&immutable=1"):
        sql = None
        try:
            sql = sqlite3.connect(f"{quoted}?{mode}", uri=True, isolation_level=None, timeout=0.5)
            restrict(sql, path, {"state": TABLE})
            sql.execute("select count(*) from (select key from state limit 1)").fetchone()
            return sql
        except LedgerError as error:
            if sql is not None:
                sql.close()
            raise LedgerError(f"{path} is no chain: {error.message}", "Name another file or folder.") from None
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
