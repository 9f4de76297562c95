"""Jobs over all runs: listed, found, shown with what the service says, cancelled; in words and in JSON."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from backends.runtime.client import Lost, Status
from backends.runtime.errors import ServiceError
from backends.runtime.ledger import Job, SessionEntry
from circuits.errors import UsageError
from runner import jobs
from runner.access import to_json
from runner.cli import app
from runner.ledger import RunLedger
from runner.options import config_from
from runner.places import Places
from runner.store import RunIndex, RunStore, locked, state_of

CLI = CliRunner()


class Service:
    """What a service knows: states by job id, ids by tag."""

    local = False

    def __init__(self, states: dict[str, str], tags: dict[str, list[str]] | None = None, *, away: bool = False) -> None:
        self.states, self.tags, self.away = states, tags or {}, away
        self.cancelled: list[str] = []
        self.closed: list[str] = []

    def find(self, tag: str) -> list[str]:
        self._there()
        return self.tags.get(tag, [])

    def status(self, job_id: str) -> Status:
        self._there()
        if job_id not in self.states:
            raise ServiceError(f"no job {job_id}.")
        return Status(self.states[job_id], "why" if self.states[job_id] == "failed" else "")  # type: ignore[arg-type]

    def cancel(self, job_id: str) -> bool:
        self._there()
        if self.states[job_id] in ("queued", "running"):
            self.cancelled.append(job_id)
            return True
        return False

    def close_session(self, session_id: str) -> None:
        self._there()
        self.closed.append(session_id)

    def _there(self) -> None:
        if self.away:
            raise Lost("no network")


def made(tag: str, **values: Any) -> Job:
    job = Job(f"qrun-{tag}", "train/1/0/2/5", "ab" * 32, "ibm_torino", 3, 64, 7.0, 2.0, mode="batch", created=1.0)
    return replace(job, **values)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A run with a job of each kind."""
    monkeypatch.setenv("QRUN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    config = config_from("nsl-kdd", {"engine": "runtime", "backend": "fake_manila"})
    from backends.runtime.types import Access

    manifest = {
        "config": config.model_dump(mode="json"),
        "config_digest": config.digest.hex(),
        "places": Places().to_json(),
        "device": "cpu",
        "created": "2026-01-01T00:00:00+00:00",
        "versions": {},
        "access": to_json(Access()),
    }
    index = RunIndex()
    info = index.create("nsl-kdd-1234", None, manifest)
    index.create("nsl-kdd-empty", None, manifest)
    index.close()
    (info.path / "config.json").write_text(json.dumps({**manifest, "run": info.run}))
    store = RunStore(info.run, info.path)
    ledger = RunLedger(store)
    for name, is_open in (("s-open", True), ("s-closed", False), ("s-local", True)):
        ledger.write_session(SessionEntry(name, "batch", "ibm_torino", 0, 7200, open=is_open))
    ledger.write(made("aa1", state="sent", job_id="d5run", session_id="s-open"))
    ledger.write(made("aa2", state="sending"))
    ledger.write(made("bb3", state="intended"))
    ledger.keep(made("cc4", job_id="d5done", qpu_seconds=1.5, session_id="s-closed"), b"{}")
    ledger.write(made("dd5", state="sent", job_id="local-1", local=True, session_id="s-local"))
    ledger.write(made("ee6", state="failed", job_id="d6bad", reason="calibration"))
    store.close()
    return info.run


def by(monkeypatch: pytest.MonkeyPatch, service: Service) -> Service:
    monkeypatch.setattr(jobs, "_client", lambda job: service)
    return service


def test_the_jobs_of_all_runs_or_of_one(run: str) -> None:
    for arguments in (["jobs", "list", "--json"], ["jobs", "list", run[:10], "--json"]):
        out = CLI.invoke(app, arguments if arguments[2] == "--json" else ["jobs", "list", run, "--json"])
        assert out.exit_code == 0
        told = json.loads(out.stdout)
        assert [job["state"] for job in told] == ["sent", "sending", "intended", "done", "sent", "failed"]
        first = told[0]
        assert (first["run"], first["tag"], first["job_id"]) == (run, "qrun-aa1", "d5run")
        assert (first["purpose"], first["round"], first["base"], first["node"]) == ("train", 1, 0, 2)
        assert first["created"] == "1970-01-01T00:00:01+00:00"
    assert json.loads(CLI.invoke(app, ["jobs", "list", "nsl-kdd-empty", "--json"]).stdout) == []
    shown = CLI.invoke(app, ["jobs", "list"])
    assert shown.exit_code == 0
    for text in ("d5done", "ibm_torino", "1.5"):
        assert text in shown.stdout


def test_a_run_that_cannot_be_read_hides_no_other(run: str) -> None:
    index = RunIndex()
    other = index.find("nsl-kdd-empty")
    index.close()
    (other.path / "state.sqlite").write_bytes(b"no database at all, but long enough to be taken for one" * 99)
    out = CLI.invoke(app, ["jobs", "list", "--json"])
    assert out.exit_code == 0
    assert len(json.loads(out.stdout)) == 6
    assert "nsl-kdd-empty cannot be read" in out.stderr
    alone = CLI.invoke(app, ["jobs", "list", "nsl-kdd-empty"])
    assert alone.exit_code == 1
    assert "Traceback" not in alone.stderr


@pytest.mark.parametrize(
    ("name", "tag"),
    [("qrun-aa1", "qrun-aa1"), ("aa1", "qrun-aa1"), ("bb", "qrun-bb3"), ("d5run", "qrun-aa1"), ("d6", "qrun-ee6")],
)
def test_a_job_is_found_by_tag_id_or_beginning(run: str, name: str, tag: str) -> None:
    assert jobs.find_job(name, jobs.list_jobs()[0]).job.tag == tag


@pytest.mark.parametrize(("name", "said"), [("d5", "ambiguous: d5run, d5done"), ("zz", "no job 'zz'"), ("", "no job")])
def test_a_name_that_means_no_job_or_several(run: str, name: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        jobs.find_job(name, jobs.list_jobs()[0])
    for command in ("show", "cancel"):
        out = CLI.invoke(app, ["jobs", command, name])
        assert out.exit_code == 2
        assert said.split(":", maxsplit=1)[0] in out.stderr


@pytest.mark.parametrize(
    ("job", "service", "expected"),
    [
        ("aa1", Service({"d5run": "running"}), ({"job_id": "d5run", "state": "running", "reason": ""}, "running")),
        ("ee6", Service({"d6bad": "failed"}), ({"job_id": "d6bad", "state": "failed", "reason": "why"}, "failed why")),
        (
            "aa2",
            Service({"x": "queued"}, {"qrun-aa2": ["x"]}),
            ({"job_id": "x", "state": "queued", "reason": ""}, "queued"),
        ),
        ("aa2", Service({}), (None, "shows no such job")),
        ("bb3", Service({}), (None, "never sent")),
        ("dd5", Service({}), (None, "local testing mode")),
        ("aa1", Service({}, away=True), ({"unreachable": "no network"}, "cannot be asked: no network")),
        ("aa1", Service({}), ({"unreachable": "no job d5run."}, "cannot be asked")),
    ],
)
def test_a_job_is_shown_with_what_the_service_says(
    run: str, monkeypatch: pytest.MonkeyPatch, job: str, service: Service, expected: tuple[object, str]
) -> None:
    there, words = expected
    by(monkeypatch, service)
    out = CLI.invoke(app, ["jobs", "show", job, "--json"])
    assert out.exit_code == 0
    told = json.loads(out.stdout)
    assert told["service"] == there
    assert told["tag"] == f"qrun-{job}"
    assert words in CLI.invoke(app, ["jobs", "show", job]).stdout


def test_without_an_account_a_job_is_shown_and_not_cancelled(
    run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("TOKEN", "CHANNEL", "INSTANCE", "URL"):
        monkeypatch.delenv(f"QISKIT_IBM_{name}", raising=False)
    told = json.loads(CLI.invoke(app, ["jobs", "show", "aa1", "--json"]).stdout)
    assert "no account" in told["service"]["unreachable"]
    out = CLI.invoke(app, ["jobs", "cancel", "aa1", "--yes"])
    assert out.exit_code == 1
    assert "no account" in out.stderr


def test_a_runs_jobs_are_cancelled_and_nothing_else(run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    service = by(monkeypatch, Service({"d5run": "queued", "x": "done"}, {"qrun-aa2": ["x"]}))
    before = jobs.list_jobs()
    no = CLI.invoke(app, ["jobs", "cancel", run], input="n\n")
    assert no.exit_code == 1
    assert "Cancel 2 job(s): d5run, qrun-aa2?" in no.stderr
    assert service.cancelled == []
    out = CLI.invoke(app, ["jobs", "cancel", run, "--yes", "--json"])
    assert out.exit_code == 0
    nothing = ["qrun-bb3", "d5done", "local-1", "d6bad"]
    told = {"cancelled": ["d5run"], "ended": ["x"], "unclear": [], "nothing": nothing, "closed": ["s-open"]}
    assert json.loads(out.stdout) == told
    assert (service.cancelled, service.closed) == (["d5run"], ["s-open"])
    assert jobs.list_jobs() == before  # what has become of them, the run itself finds out


@pytest.mark.parametrize("name", ["cc4", "dd5", "bb3", "ee6", "nsl-kdd-empty"])
def test_there_is_nothing_to_cancel(run: str, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    service = by(monkeypatch, Service({}, away=True))
    out = CLI.invoke(app, ["jobs", "cancel", name])
    assert out.exit_code == 0
    assert "nothing to cancel" in out.stdout
    assert service.cancelled == []


def test_what_the_service_does_not_show_or_answer(run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    by(monkeypatch, Service({}))
    assert "may have it all the same" in CLI.invoke(app, ["jobs", "cancel", "aa2", "--yes"]).stdout
    by(monkeypatch, Service({}, away=True))
    out = CLI.invoke(app, ["jobs", "cancel", "aa1", "--yes"])
    assert out.exit_code == 1
    assert "does not answer (no network)" in out.stderr


def test_the_sessions_of_a_run_that_is_played_and_of_single_jobs_stay_open(
    run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = by(monkeypatch, Service({"d5run": "queued"}))
    assert CLI.invoke(app, ["jobs", "cancel", "d5run", "--yes"]).exit_code == 0
    index = RunIndex()
    with locked(index.find(run).path):
        assert json.loads(CLI.invoke(app, ["jobs", "cancel", run, "--yes", "--json"]).stdout)["closed"] == []
    index.close()
    assert service.closed == []
    assert "session s-open: closed" in CLI.invoke(app, ["jobs", "cancel", run, "--yes"]).stdout


def test_a_run_shows_its_jobs_by_state(run: str) -> None:
    told = json.loads(CLI.invoke(app, ["runs", "show", run, "--json"]).stdout)["jobs"]
    assert told["states"] == {"intended": 1, "sending": 1, "sent": 2, "done": 1, "failed": 1}
    assert (told["local"], told["measured"]) == (1, 1.5)
    assert told["qpu_seconds"] == 7.0 + 7.0 + 1.5 + 7.0  # what has not ended, and what failed untold, at its most
    shown = CLI.invoke(app, ["runs", "show", run]).stdout
    assert "1 intended, 1 sending, 2 sent, 1 done, 1 failed; at most 22.5 QPU seconds" in shown
    assert json.loads(CLI.invoke(app, ["runs", "show", "nsl-kdd-empty", "--json"]).stdout)["jobs"] is None


def test_removing_a_run_says_which_jobs_are_lost_and_removes_them(run: str) -> None:
    index = RunIndex()
    path = index.find(run).path
    index.close()
    (path / f"calibration-{'a' * 64}.json").write_text("{}")
    (path / "calibration-mine.json").write_text("not a run's")
    no = CLI.invoke(app, ["runs", "rm", run], input="n\n")
    assert "2 job(s) of this run may still run" in no.stderr
    assert f"qrun jobs cancel {run}" in no.stderr
    assert CLI.invoke(app, ["runs", "rm", run, "--yes"]).exit_code == 0
    assert [file.name for file in path.iterdir()] == ["calibration-mine.json"]
    assert state_of(path) == "interrupted"


def test_looking_at_jobs_writes_nothing(run: str) -> None:
    """A run of a version that knew no jobs keeps the tables that it has."""
    index = RunIndex()
    other = index.find("nsl-kdd-empty")
    index.close()
    with sqlite3.connect(other.path / "state.sqlite") as sql:
        sql.execute("create table facts(key text primary key, value text not null)")
    sql.close()
    before = (other.path / "state.sqlite").read_bytes()
    assert json.loads(CLI.invoke(app, ["jobs", "list", other.run, "--json"]).stdout) == []
    assert (other.path / "state.sqlite").read_bytes() == before


@pytest.mark.parametrize("damage", ["gone", "changed"])
@pytest.mark.parametrize("given", [b"{}", b"{ }", None])
def test_a_kept_result_is_fetched_anew_where_it_is_damaged(run: str, damage: str, given: bytes | None) -> None:
    """From the service, if it gives the same; it is never sent anew."""

    class Results(Service):
        def result(self, job_id: str) -> bytes:
            asked.append(job_id)
            if given is None:
                raise Lost("no network")
            return given

    asked: list[str] = []
    told: list[str] = []
    info = RunIndex().find(run)
    store = RunStore(run, info.path)
    try:
        ledger = RunLedger(store)
        (done,) = [job for job in ledger.jobs() if job.state == "done"]
        jobs.mend_results(ledger, lambda *_: told.append("told"), Results({}))  # type: ignore[arg-type]
        assert (asked, told) == ([], [])
        (file,) = ledger.folder.glob("*.json")
        file.unlink() if damage == "gone" else file.write_bytes(b"{")
        jobs.mend_results(ledger, lambda *_: told.append("told"), Results({}))  # type: ignore[arg-type]
        assert asked == ["d5done"]
        mended = given == b"{}"
        assert bool(told) == mended
        assert (ledger.find(str(done.result)) == b"{}") == mended
        assert [job for job in ledger.jobs() if job.tag == done.tag] == [done]
    finally:
        store.close()
