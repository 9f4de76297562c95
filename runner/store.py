"""What a run remembers on disk: its folder, its state, its steps. SQLite, one file a run, and an index of all runs.

RUN/config.json     what was asked (canonical config and where it ran; no secrets)
RUN/keys.json       the nodes' keys, mode 0600
RUN/state.sqlite    steps done, results of rounds, seconds by phase, jobs on devices
RUN/jobs/           what devices gave, as it came
RUN/calibration-SHA256.json  a hardware device's calibration, as it was when the run began
RUN/chain.sqlite    the embedded chain           RUN/blocks/    the content store
RUN/result.json     the finished run             RUN/models/    the models by round and node
RUN/convergence.png                              RUN/evaluations/  what comparisons and reports made of its model
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator, Mapping
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


OTHER_PLACE = "Choose another place with --out DIR."
OTHER_HOME = "Set QRUN_HOME to a folder that you may write."


def disk_errors(error: OSError | sqlite3.Error, where: Path, mend: str = OTHER_PLACE) -> QrunError:
    """A full disk, a folder without permission or a damaged database, as one line that says what to do."""
    text = str(error)
    if (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)) or "is full" in text:
        return QrunError(
            f"the disk that holds {where} is full.",
            f"Free some space. {mend}",
        )
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return QrunError(f"cannot write to {where}: {error.strerror}.", mend)
    reason = (error.strerror or text) if isinstance(error, OSError) else text
    return QrunError(f"cannot use {where}: {reason}.", mend)


class on_disk:
    """Turn trouble with the files under a folder, wherever it strikes inside, into one line.

    Other errors of the system (a network, a closed stdout) are not the disk's, and pass.
    """

    def __init__(self, where: Path, mend: str = OTHER_PLACE) -> None:
        self.where = where
        self.mend = mend

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, sqlite3.Error):
            raise disk_errors(error, self.where, self.mend) from None
        if isinstance(error, OSError) and isinstance(error.filename, (str, bytes, os.PathLike)):
            name = Path(os.fsdecode(error.filename))
            if name == self.where or self.where in name.parents:
                raise disk_errors(error, self.where, self.mend) from None
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT) and not error.filename:
            # Writing to an open file gives no name; stdout is never written in here.
            raise disk_errors(error, self.where, self.mend) from None


TABLES = {
    "facts": "create table if not exists facts(key text primary key, value text not null)",
    "phases": "create table if not exists phases(name text primary key, seconds real not null)",
    # The audit takes tables alone, so that what finds a job by key or request is a constraint.
    "jobs": "create table if not exists jobs(tag text primary key, key text not null, request text not null, "
    "state text not null, body text not null, unique(key, tag), unique(request, tag))",
    "sessions": "create table if not exists sessions(id text primary key, body text not null)",
}
"""What a run's state.sqlite holds."""


@dataclass(frozen=True)
class RunInfo:
    """A line of `qrun runs list`."""

    run: str
    path: Path
    created: float
    state: str


class RunStore:
    """One run's folder and its state. Every `put` is on disk when it returns.

    Args:
        run: Its name.
        path: Its folder.
        spent: Seconds of this attempt before the store was opened.
        threads: Whether several threads use it; SQLite takes their statements one after the other.
    """

    def __init__(self, run: str, path: Path, *, spent: float = 0.0, threads: bool = False) -> None:
        self.run = run
        self.path = path
        self._begun = time.perf_counter() - spent
        self._before = 0.0
        self._db = sqlite3.connect(
            path / "state.sqlite", isolation_level=None, timeout=5, check_same_thread=not threads
        )
        self._db.execute("pragma journal_mode=wal")
        self._db.execute("pragma synchronous=full")
        for statement in TABLES.values():
            self._db.execute(statement)
        self._before = float(self.get("seconds") or 0.0)

    @property
    def database(self) -> sqlite3.Connection:
        """The open database, each statement a transaction of its own."""
        return self._db

    def put(self, key: str, value: Any) -> None:
        """Remember a JSON value under a key."""
        self._db.execute("insert or replace into facts values(?, ?)", (key, json.dumps(value)))

    def get(self, key: str) -> Any:
        """The value of a key, None where there is none."""
        row = self._db.execute("select value from facts where key = ?", (key,)).fetchone()
        return None if row is None else json.loads(row[0])

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the seconds spent inside to a phase, also to those of earlier attempts; a kill loses the last phase."""
        begin, worked = time.perf_counter(), time.thread_time()
        try:
            yield
        finally:
            known = self.work()
            self.put("work", {**known, name: known.get(name, 0.0) + time.thread_time() - worked})
            self.add_seconds(name, time.perf_counter() - begin)

    def add_seconds(self, name: str, seconds: float) -> None:
        """Add seconds to a phase, and remember how long all attempts took until now."""
        self._db.execute(
            "insert into phases values(?, ?) on conflict(name) do update set seconds = seconds + excluded.seconds",
            (name, seconds),
        )
        self.put("seconds", self.total())

    def total(self) -> float:
        """Wall-clock seconds of this attempt, and of earlier ones up to the end of their last phase."""
        return self._before + time.perf_counter() - self._begun

    def work(self) -> dict[str, float]:
        """Processor seconds by phase, of the thread that was in it: without what it waited for."""
        return dict(self.get("work") or {})

    def phases(self) -> dict[str, float]:
        """Seconds by phase."""
        return dict(self._db.execute("select name, seconds from phases order by rowid").fetchall())

    def close(self) -> None:
        """Close the database."""
        self._db.close()


class RunIndex:
    """All runs of this user, by name. A run exists once its line is here: the line holds all that is needed to play."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or home()
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self.root / "index.sqlite", isolation_level=None, timeout=10)
            self._db.execute("pragma journal_mode=wal")
            self._db.execute("pragma synchronous=full")
            self._db.execute(
                "create table if not exists runs("
                "run text primary key, path text not null unique, created real not null, manifest text not null)"
            )
        except (OSError, sqlite3.Error) as error:
            raise disk_errors(error, self.root, OTHER_HOME) from None

    def create(self, name: str, out: Path | None, manifest: Mapping[str, Any]) -> RunInfo:
        """Enter a new run: in the folder `out`, or in one named after the run. A name in use gets a number behind it.

        Raises:
            UsageError: `out` is a file, holds something already, or is another run's.
            QrunError: disk full, no permission.
        """
        path = self.root
        try:
            self._db.execute("begin immediate")
            taken = {row[0] for row in self._db.execute("select run from runs")}
            run, k = name, 1
            while run in taken or (out is None and (self.root / "runs" / run).exists()):
                k += 1
                run = f"{name}.{k}"
            path = (out.expanduser() if out is not None else self.root / "runs" / run).absolute()
            used = self._db.execute("select run from runs where path = ?", (str(path),)).fetchone()
            if out is not None and used and not path.exists():
                raise UsageError(
                    f"--out {out}: the folder of run {used[0]}, which is gone.",
                    f"Name another folder, or forget that run with `qrun runs rm {used[0]}`.",
                )
            if out is not None and (used or (path.exists() and (not path.is_dir() or any(path.iterdir())))):
                resume = f" To go on with the run there: `qrun runs resume {used[0]}`." if used else ""
                raise UsageError(
                    f"--out {out}: exists and is not an empty folder.", f"Name a new or an empty folder.{resume}"
                )
            path.mkdir(parents=True, exist_ok=True)
            created = time.time()
            self._db.execute(
                "insert into runs values(?, ?, ?, ?)", (run, str(path), created, json.dumps({**manifest, "run": run}))
            )
            self._db.execute("commit")
        except BaseException as error:
            if self._db.in_transaction:
                self._db.execute("rollback")
            if isinstance(error, (OSError, sqlite3.Error)):
                raise disk_errors(error, path) from None
            raise
        return RunInfo(run, path, created, "interrupted")

    def manifest(self, run: str) -> dict[str, Any]:
        """What the run was entered with."""
        row = self._db.execute("select manifest from runs where run = ?", (run,)).fetchone()
        value: dict[str, Any] = json.loads(row[0])
        return value

    def find(self, run: str, *, exact: bool = False) -> RunInfo:
        """The run of that name, or unless `exact` of an unambiguous beginning of it.

        Raises:
            UsageError: none, or several.
        """
        rows = self.list()
        same = [r for r in rows if r.run == run]
        near = same or [r for r in rows if run and not exact and r.run.startswith(run)]
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
        """Delete a run's folder and its line in the index, while nobody works on it.

        Only what a run writes is deleted, so that a wrong --out cannot take other files with it.

        Raises:
            QrunError: the run is being worked on, or a file cannot be deleted.
        """
        if info.path.is_dir():
            with on_disk(info.path, "Delete the folder by hand."), locked(info.path):
                for name in (*RUN_FILES, *(file.name for file in info.path.glob(CALIBRATIONS))):
                    # A kill inside write_durably leaves the temporary file, keys and all.
                    for target in (info.path / name, *info.path.glob(f".{name}.*")):
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
    "jobs",
    "evaluations",
    *(f"{db}.sqlite{tail}" for db in ("state", "chain") for tail in ("", "-wal", "-shm", "-journal")),
)
CALIBRATIONS = f"calibration-{'[0-9a-f]' * 64}.json"
"""Names of the calibrations that a run's folder keeps, as a glob."""


def state_of(path: Path) -> str:
    """finished, running, interrupted or missing, read from the folder itself."""
    if not path.is_dir():
        return "missing"
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
        for attempt in range(5):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                # Whoever lists runs holds a shared lock for an instant.
                if attempt == 4:
                    raise QrunError(
                        f"another process works on the run in {path}.", "Wait for it, or stop it first."
                    ) from None
                time.sleep(0.05)
        yield
    finally:
        file.close()
