"""A run's job ledger on disk: rows in RUN/state.sqlite, results as they came in RUN/jobs/.

A result's file is there, whole, before its row says `done`: a kill between the two leaves a file that nobody names, and
the service is asked for the result again.
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar, get_args

from backends.runtime.ledger import Job, SessionEntry, State, spent
from circuits.errors import QrunError
from runner.store import RunStore, write_durably

FOLDER = "jobs"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_Row = TypeVar("_Row", Job, SessionEntry)


class RunLedger:
    """The job ledger of a run (`backends.runtime.ledger.JobLedger`). Every write is on disk when it returns.

    Args:
        store: The run's state, open. The ledger is used by the thread that has opened it.
    """

    def __init__(self, store: RunStore) -> None:
        self.store = store
        self.folder = store.path / FOLDER
        self._db = store.database

    def write(self, job: Job) -> None:
        """Write a job down, or what has become of it (by its tag)."""
        job = job if job.created else replace(job, created=time.time())
        self._db.execute(
            "insert into jobs(tag, key, request, state, body) values(?, ?, ?, ?, ?) on conflict(tag) do update set "
            "key = excluded.key, request = excluded.request, state = excluded.state, body = excluded.body",
            (job.tag, job.key, job.request, job.state, json.dumps(asdict(job))),
        )

    def keep(self, job: Job, result: bytes) -> Job:
        """Keep a result as it came, and the job as done with it; the job as it stands now."""
        digest = hashlib.sha256(result).hexdigest()
        self.folder.mkdir(exist_ok=True)
        write_durably(self._file(digest), result)
        done = replace(job, state="done", result=digest)
        self.write(done)
        return done

    def result(self, job: Job) -> bytes:
        """The kept result of a job that is done.

        Raises:
            QrunError: it is gone or damaged.
        """
        data = self.find(job.result or "")
        if data is None:
            raise QrunError(
                f"the result of job {job.job_id or job.tag} is missing from {self.folder}, or is damaged.",
                "Put the file back; `qrun jobs show` tells its name.",
            )
        return data

    def find(self, digest: str) -> bytes | None:
        """A kept result by its SHA-256, hex; None where it is gone or damaged."""
        if not _SHA256.fullmatch(digest):
            return None
        try:
            data = self._file(digest).read_bytes()
        except FileNotFoundError:
            return None
        return data if hashlib.sha256(data).hexdigest() == digest else None

    def live(self, key: str) -> Job | None:
        """The live job of a key."""
        row = self._db.execute(
            "select body from jobs where key = ? and state != 'failed' order by rowid desc limit 1", (key,)
        ).fetchone()
        return None if row is None else self._job(row[0])

    def answer(self, request: str) -> Job | None:
        """A job that is done and answers this request."""
        row = self._db.execute(
            "select body from jobs where request = ? and state = 'done' order by rowid limit 1", (request,)
        ).fetchone()
        return None if row is None else self._job(row[0])

    def jobs(self) -> list[Job]:
        """All jobs, in the order of their intents."""
        return [self._job(row[0]) for row in self._db.execute("select body from jobs order by rowid").fetchall()]

    def write_session(self, session: SessionEntry) -> None:
        """Write a session down, or what has become of it."""
        self._db.execute(
            "insert into sessions(id, body) values(?, ?) on conflict(id) do update set body = excluded.body",
            (session.session_id, json.dumps(asdict(session))),
        )

    def sessions(self) -> list[SessionEntry]:
        """All sessions, in the order of opening."""
        rows = self._db.execute("select body from sessions order by rowid").fetchall()
        return [_read(SessionEntry, row[0], self.store.path) for row in rows]

    def _job(self, body: str) -> Job:
        return _read(Job, body, self.store.path)

    def _file(self, digest: str) -> Path:
        return self.folder / f"{digest}.json"


def read_ledger(folder: Path) -> tuple[list[Job], list[SessionEntry]]:
    """The jobs and sessions of a run's folder, in the order of their intents; nothing there is written.

    Raises:
        QrunError: a line is damaged.
        sqlite3.Error: the state cannot be read.
    """
    file = folder / "state.sqlite"
    if not file.is_file():
        return [], []
    sql = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=5)
    try:
        tables = {row[0] for row in sql.execute("select name from sqlite_master where type = 'table'")}
        if not {"jobs", "sessions"} <= tables:
            return [], []  # of a version of qrun that knew no jobs
        jobs = [_read(Job, row[0], folder) for row in sql.execute("select body from jobs order by rowid")]
        sessions = [
            _read(SessionEntry, row[0], folder) for row in sql.execute("select body from sessions order by rowid")
        ]
        return jobs, sessions
    finally:
        sql.close()


def _read(kind: type[_Row], body: str, where: Path) -> _Row:
    try:
        values = json.loads(body)
        if set(values) != {f.name for f in fields(kind)}:
            raise ValueError
        if "tags" in values:
            values["tags"] = tuple(values["tags"])
        return kind(**values)
    except (ValueError, TypeError):
        raise QrunError(f"{where / 'state.sqlite'} has a damaged line in its jobs.", "Start the run anew.") from None


@dataclass(frozen=True)
class Account:
    """What a run's jobs come to.

    Attributes:
        states: State -> number of jobs; every state is there.
        local: How many of them the local testing mode ran.
        qpu_seconds: Charged, or possibly charged (`backends.runtime.ledger.spent`).
        measured: QPU seconds that the service has told of jobs that ended.
    """

    states: Mapping[str, int]
    local: int
    qpu_seconds: float
    measured: float

    @classmethod
    def of(cls, jobs: Iterable[Job], sessions: Iterable[SessionEntry]) -> Account:
        """From all jobs and sessions of a run."""
        known = list(jobs)
        return cls(
            {state: sum(job.state == state for job in known) for state in get_args(State)},
            sum(job.local for job in known),
            spent(known, sessions),
            sum(job.qpu_seconds or 0.0 for job in known if not job.local),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain types, ready for JSON."""
        return asdict(self)
