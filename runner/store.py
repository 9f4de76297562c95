"""What a run remembers on disk: its folder, its state, its steps. SQLite, one file a run, and an index of all runs.

RUN/config.json     what was asked (canonical config and where it ran; no secrets)
RUN/keys.json       the nodes' keys, mode 0600
RUN/state.sqlite    steps done, results of rounds, seconds by phase
RUN/chain.sqlite    the embedded chain           RUN/blocks/    the content store
RUN/result.json     the finished run             RUN/models/    the models by round and node
RUN/convergence.png
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import platformdirs

from circuits.errors import QrunError, UsageError


def home() -> Path:
    """Where runs and their index live: QRUN_HOME, else the platform's folder for user data."""
    return Path(os.environ.get("QRUN_HOME") or platformdirs.user_data_dir("qrun")).expanduser()


def write_durably(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write a file whole or not at all: temporary file, fsync, rename, fsync of the folder."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def disk_errors(error: OSError | sqlite3.Error, where: Path) -> QrunError:
    """A full disk or a folder without permission, as one line that says what to do."""
    text = str(error)
    if (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)) or "disk is full" in text:
        return QrunError(
            f"the disk that holds {where} is full.",
            "Free some space and continue with `qrun runs resume`, or choose another place with --out DIR.",
        )
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return QrunError(f"cannot write to {where}: {error.strerror}.", "Choose another place with --out DIR.")
    reason = (error.strerror or text) if isinstance(error, OSError) else text
    return QrunError(f"cannot use {where}: {reason}.", "Choose another place with --out DIR.")


@dataclass(frozen=True)
class RunInfo:
    """A line of `qrun runs list`."""

    run: str
    path: Path
    created: float
    state: str


class RunStore:
    """One run's folder and its state. Every `put` is on disk when it returns."""

    def __init__(self, run: str, path: Path) -> None:
        self.run = run
        self.path = path
        self._db = sqlite3.connect(path / "state.sqlite", isolation_level=None, timeout=5)
        self._db.execute("pragma journal_mode=wal")
        self._db.execute("pragma synchronous=full")
        self._db.execute("create table if not exists facts(key text primary key, value text not null)")
        self._db.execute("create table if not exists phases(name text primary key, seconds real not null)")

    def put(self, key: str, value: Any) -> None:
        """Remember a JSON value under a key."""
        self._db.execute("insert or replace into facts values(?, ?)", (key, json.dumps(value)))

    def get(self, key: str) -> Any:
        """The value of a key, None where there is none."""
        row = self._db.execute("select value from facts where key = ?", (key,)).fetchone()
        return None if row is None else json.loads(row[0])

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the seconds spent inside to a phase; what earlier, killed attempts took is in the sum."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self._db.execute(
                "insert into phases values(?, ?) on conflict(name) do update set seconds = seconds + excluded.seconds",
                (name, time.perf_counter() - begin),
            )

    def phases(self) -> dict[str, float]:
        """Seconds by phase."""
        return dict(self._db.execute("select name, seconds from phases order by rowid").fetchall())

    def close(self) -> None:
        """Close the database."""
        self._db.close()


class RunIndex:
    """All runs of this user, by name."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or home()
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self.root / "index.sqlite", isolation_level=None, timeout=10)
            self._db.execute("pragma journal_mode=wal")
            self._db.execute(
                "create table if not exists runs(run text primary key, path text not null, created real not null)"
            )
        except (OSError, sqlite3.Error) as error:
            raise disk_errors(error, self.root) from None

    def create(self, name: str, out: Path | None) -> RunStore:
        """A new run's folder: `out`, or one named after the run. A name in use gets a number behind it.

        Raises:
            UsageError: `out` is a file, or a folder that holds something already.
            QrunError: disk full, no permission.
        """
        try:
            self._db.execute("begin immediate")
            try:
                taken = {row[0] for row in self._db.execute("select run from runs")}
                run, k = name, 1
                while run in taken or (out is None and (self.root / "runs" / run).exists()):
                    k += 1
                    run = f"{name}.{k}"
                path = (out.expanduser() if out is not None else self.root / "runs" / run).absolute()
                if out is not None and path.exists() and (not path.is_dir() or any(path.iterdir())):
                    raise UsageError(
                        f"--out {out}: exists and is not an empty folder.",
                        "Name a new folder; to go on with a run that stopped: `qrun runs resume RUN`.",
                    )
                path.mkdir(parents=True, exist_ok=True)
                self._db.execute("insert into runs values(?, ?, ?)", (run, str(path), time.time()))
                self._db.execute("commit")
            except BaseException:
                self._db.execute("rollback")
                raise
            return RunStore(run, path)
        except (OSError, sqlite3.Error) as error:
            raise disk_errors(error, out or self.root) from None

    def find(self, run: str) -> RunInfo:
        """The run of that name (or unambiguous beginning of it).

        Raises:
            UsageError: none, or several.
        """
        rows = self.list()
        exact = [r for r in rows if r.run == run]
        near = exact or [r for r in rows if r.run.startswith(run)]
        if len(near) == 1:
            return near[0]
        if near:
            raise UsageError(f"run {run!r} is ambiguous: {', '.join(r.run for r in near[:5])}.", "Give more of it.")
        raise UsageError(f"no run {run!r}.", "`qrun runs list` shows the runs.")

    def list(self) -> list[RunInfo]:
        """All runs, newest last. A folder that somebody removed shows as missing."""
        rows = self._db.execute("select run, path, created from runs order by created, run").fetchall()
        return [RunInfo(run, Path(path), created, state_of(Path(path))) for run, path, created in rows]

    def remove(self, info: RunInfo) -> None:
        """Delete a run's folder and its line in the index.

        Only what a run writes is deleted, so that a wrong --out cannot take other files with it.
        """
        if info.path.is_dir():
            for name in RUN_FILES:
                target = info.path / name
                if target.is_dir():
                    shutil.rmtree(target)
                else:
                    target.unlink(missing_ok=True)
            if not any(info.path.iterdir()):
                info.path.rmdir()
        self._db.execute("delete from runs where run = ?", (info.run,))

    def close(self) -> None:
        """Close the database."""
        self._db.close()


RUN_FILES = (
    "config.json",
    "keys.json",
    "result.json",
    "convergence.png",
    "lock",
    "blocks",
    "models",
    *(f"{db}.sqlite{tail}" for db in ("state", "chain") for tail in ("", "-wal", "-shm", "-journal")),
)


def state_of(path: Path) -> str:
    """finished, running, interrupted or missing, read from the folder itself."""
    if not (path / "config.json").is_file():
        return "missing" if not path.is_dir() else "not started"
    if (path / "result.json").is_file():
        return "finished"
    try:
        with (path / "lock").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        pass
    except OSError:
        return "running"
    return "interrupted"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a run's lock; the system frees it when the process dies, however it dies.

    Raises:
        QrunError: another process works on this run.
    """
    file: BinaryIO = (path / "lock").open("ab")
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise QrunError(f"another process works on the run in {path}.", "Wait for it, or stop it first.") from None
        yield
    finally:
        file.close()
