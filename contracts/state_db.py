"""The embedded chain's state on the disk: py-evm's key-value store in one SQLite file."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from eth.db.backends.base import BaseDB

from contracts.errors import LedgerBusy, LedgerError


class SqliteDB(BaseDB):
    """py-evm's key-value store in SQLite. Writes gather in one transaction until `commit`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._sql = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=0.5)
            self._sql.execute("pragma locking_mode=exclusive")
            self._sql.execute("pragma journal_mode=wal")
            self._sql.execute("pragma synchronous=full")
            # Taking the write lock now tells a second process at once, and keeps it out to the end.
            self._sql.execute("begin exclusive")
            self._sql.execute(
                "create table if not exists state(key blob primary key, value blob not null) without rowid"
            )
            self._sql.execute("commit")
        except sqlite3.Error as error:
            raise self._explain(error) from None

    def _explain(self, error: sqlite3.Error) -> LedgerError:
        text = str(error)
        if "locked" in text or "busy" in text:
            return LedgerBusy(
                f"the chain {self._path} is in use by another process.",
                "Wait until that one ends, or name another folder; to share a chain, start a node (anvil, geth) and "
                "give its URL with --chain.",
            )
        if "full" in text or "I/O" in text:
            return LedgerError(
                f"the disk is full: the chain {self._path} cannot be written.",
                "Make room, or begin elsewhere (--out DIR).",
            )
        if "not a database" in text or "malformed" in text:
            return LedgerError(f"{self._path} is no chain, or is damaged ({text}).", "Name another file or folder.")
        return LedgerError(f"the chain {self._path} cannot be opened or written ({text}).", "Name another folder.")

    def __getitem__(self, key: bytes) -> bytes:
        row = self._run("select value from state where key=?", key).fetchone()
        if row is None:
            raise KeyError(key)
        value: bytes = row[0]
        return value

    def __setitem__(self, key: bytes, value: bytes) -> None:
        self._begin()
        self._run("insert or replace into state values(?,?)", key, value)

    def __delitem__(self, key: bytes) -> None:
        self._begin()
        if self._run("delete from state where key=?", key).rowcount == 0:
            raise KeyError(key)

    def _exists(self, key: bytes) -> bool:
        return self._run("select 1 from state where key=?", key).fetchone() is not None

    def _begin(self) -> None:
        if not self._sql.in_transaction:
            self._run("begin immediate")

    def _run(self, statement: str, *values: bytes) -> sqlite3.Cursor:
        try:
            return self._sql.execute(statement, values)
        except sqlite3.Error as error:
            raise self._explain(error) from None

    def commit(self) -> None:
        """Make what was written since the last commit durable, all of it or nothing."""
        if self._sql.in_transaction:
            self._run("commit")

    def rollback(self) -> None:
        """Drop what was written since the last commit."""
        if self._sql.in_transaction:
            self._run("rollback")

    def close(self) -> None:
        """Give the file free; what was not committed is dropped."""
        self.rollback()
        self._sql.close()
