"""SQLite files from outside, opened for reading only where they are made as qrun makes them.

A database is also a program: views, triggers and generated columns compute without end, and the pages of a broken one
lead back to each other. So the schema must be the one expected, word for word; the steps of a statement are bounded by
the file's size, and so is each value.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from contracts.errors import LedgerError

_MAX_TABLES = 16
_STEPS = 1000
"""Steps of SQLite's machine between two looks at how many there were."""
_FREE_STEPS = 200_000
_SUPER_JOURNAL = bytes.fromhex("d9d505f920a163d7")
"""Last bytes of a journal that names another file, which SQLite would read and delete."""


def size_of(path: Path) -> int:
    """Bytes of a database, its log included: more cannot be in its rows."""
    sizes = []
    for name in (path, path.with_name(path.name + "-wal")):
        with suppress(OSError):
            sizes.append(name.stat().st_size)
    return sum(sizes)


def check_companions(path: Path) -> None:
    """That what lies beside a database under SQLite's names is SQLite's: it is read, written and deleted on opening.

    Raises:
        LedgerError: a symbolic link, a FIFO, a folder; or a journal that names another file.
    """
    for ending in ("-journal", "-wal", "-shm"):
        beside = path.with_name(path.name + ending)
        if not os.path.lexists(beside):
            continue
        if not stat.S_ISREG(beside.lstat().st_mode):
            raise LedgerError(f"{beside} is no plain file: {path.name} is not opened.", "Remove it.")
        if ending == "-journal":
            with beside.open("rb") as file:
                file.seek(-min(8, beside.stat().st_size), os.SEEK_END)
                if file.read(8) == _SUPER_JOURNAL:
                    raise LedgerError(f"{beside} names another file: {path.name} is not opened.", "Remove it.")


def restrict(sql: sqlite3.Connection, path: Path, tables: Mapping[str, str]) -> None:
    """Make a connection one that only reads, and check that the file holds these tables and nothing else.

    Args:
        sql: Just opened.
        path: Its file.
        tables: The statements that make them, by their names. One that is missing is no error here.

    Raises:
        LedgerError: there is something else in the file.
        sqlite3.Error: it is no database, damaged, or in use.
    """
    size = size_of(path)
    sql.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, max(size, 1 << 20))
    most = (_FREE_STEPS + size) // _STEPS
    steps = 0

    def bounded() -> int:
        nonlocal steps
        steps += 1
        return int(steps > most)

    def reset(_: str) -> None:
        nonlocal steps
        steps = 0

    sql.set_progress_handler(bounded, _STEPS)
    sql.set_trace_callback(reset)  # called as each statement begins
    sql.execute("pragma query_only=on")
    sql.execute("pragma trusted_schema=off")
    sql.execute("pragma cell_size_check=on")
    for kind, name, statement in sql.execute(f"select type, name, sql from sqlite_master limit {2 * _MAX_TABLES}"):
        if kind == "index" and statement is None and str(name).startswith("sqlite_autoindex_"):
            continue
        wanted = tables.get(name)
        if kind != "table" or wanted is None or _words(statement) != _words(wanted):
            raise LedgerError(f"{path} holds {str(kind)[:20]!a} {str(name)[:40]!a}, which is none of qrun's.")


def _words(statement: object) -> str:
    """A statement as SQLite keeps it, whatever the spaces and the case."""
    return " ".join(str(statement).lower().split()).replace("create table if not exists ", "create table ", 1)
