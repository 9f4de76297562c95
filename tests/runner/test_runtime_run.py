"""Runs on the Runtime: local testing mode, and a stand-in for IBM's service that the real client reaches."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from backends.runtime.account import disconnect
from backends.runtime.errors import BudgetError, Detached
from backends.runtime.standin import Settings, StandIn
from backends.runtime.types import Access
from circuits.errors import QrunError, UsageError
from runner import calibration
from runner.access import Said, is_sound, to_json
from runner.cli import app
from runner.options import config_from
from runner.places import Places
from runner.run import Outcome, go_on, start
from runner.store import RunIndex
from tests.runner.conftest import environment
from tests.runner.test_main_job import what_repeats

CLI = CliRunner()
TOKEN = "a-token-that-must-never-be-written-7c1e"
TINY = {"qubits": 3, "reps": 1, "steps_per_epoch": 2, "batch": 2, "samples": 16, "neighbours": 3, "rounds": 1}
TINY |= {"nodes": 1, "shots": 32, "test": False}
TOML = """
rounds = 2
nodes = 3
shots = 32
engine = "runtime"
backend = "fake_manila"
[data]
test = false
[model]
qubits = 3
reps = 1
steps_per_epoch = 2
batch = 2
samples = 16
neighbours = 3
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own for what runs in this process."""
    monkeypatch.setenv("QRUN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NO_COLOR", "1")
    return tmp_path / "home"


@pytest.fixture
def service(mine: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """The stand-in, with one small device, ibm_manila."""
    with StandIn(Settings(devices=("fake_manila",), token=TOKEN)) as made:
        for name, value in made.environment().items():
            monkeypatch.setenv(name, value)
        yield made


def on_device(**options: Any) -> Any:
    return config_from("nsl-kdd", {**TINY, "engine": "runtime", "backend": "ibm_manila", **options})


def rows(folder: Path) -> list[dict[str, Any]]:
    with sqlite3.connect(folder / "state.sqlite") as sql:
        return [json.loads(row[0]) for row in sql.execute("select body from jobs order by rowid")]


# -- local testing mode ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """The config file of a run, and the run as nothing disturbed it."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "run.toml").write_text(TOML)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QRUN_HOME", str(folder / "home"))
        return folder / "run.toml", start(config_from("nsl-kdd", {}, folder / "run.toml"), Places())


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 5, 11])
def test_killed_and_resumed_it_ends_as_undisturbed_and_no_answer_is_asked_for_twice(
    mine: Path, whole: tuple[Path, Outcome], tmp_path: Path, jobs: int
) -> None:
    file, undisturbed = whole
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "runner.cli", "experiment", "nsl-kdd", "--config", str(file), "--out", str(out)]
    process = subprocess.Popen(command, env=environment(mine), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while len(list((out / "jobs").glob("*.json"))) < jobs and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "result.json").exists()
    kept = {row["tag"] for row in rows(out) if row["state"] == "done"}
    assert len(kept) >= jobs - 1  # a result is kept before its row says so
    listed = CLI.invoke(app, ["runs", "list", "--json"])
    (run,) = [r["run"] for r in json.loads(listed.stdout) if Path(r["path"]) == out]
    assert what_repeats(go_on(run).result) == what_repeats(undisturbed.result)
    done = [row for row in rows(out) if row["state"] == "done"]
    assert kept <= {row["tag"] for row in done}
    requests = sorted(row["request"] for row in done)
    assert requests == sorted(row["request"] for row in rows(undisturbed.path))


def test_what_is_said_now_wins_and_is_kept(mine: Path) -> None:
    first = Said("batch", max_qpu_seconds=50.0).access()
    assert first == Access(mode="batch", max_qpu_seconds=50.0)
    kept = to_json(first)
    assert is_sound(kept)
    second = Said(max_qpu_seconds=90.0, max_time="90m", resubmit=True).access(kept)
    assert second == Access("batch", 90.0, 5400, resubmit=True)
    third = Said(patience=3).access(kept, to_json(second))
    assert third == Access("batch", 90.0, 5400, 3.0)


@pytest.mark.parametrize(
    "values",
    [None, {}, [], {"mode": "auto"}, *({**to_json(Access()), **wrong} for wrong in (
        {"mode": "fast"}, {"patience": -1}, {"patience": "1"}, {"session_seconds": 1.5}, {"session_seconds": 10**9},
        {"max_qpu_seconds": True}, {"max_qpu_seconds": 0}, {"resubmit": True},
    ))],
)  # fmt: skip
def test_what_was_kept_is_checked(values: object) -> None:
    assert not is_sound(values)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--mode", "session"], "sends none"),
        (["--max-qpu-seconds", "3"], "sends none"),
        (["--detach"], "sends none"),
        (["--engine", "runtime", "--detach"], "ends with this process"),
        (["--engine", "runtime", "--mode", "fast"], "--mode fast"),
        (["--engine", "runtime", "--max-time", "3d"], "--max-time 3d"),
        (["--engine", "runtime", "--max-time", "25h"], "--max-time 25h"),
        (["--engine", "runtime", "--patience", "nan"], "--patience nan"),
        (["--engine", "runtime", "--max-qpu-seconds", "0"], "--max-qpu-seconds 0"),
        (["--engine", "runtime", "--device-samples", "20"], "--run-on"),
        (["--engine", "runtime", "--fine-tune", "2"], "--run-on"),
        (["--engine", "runtime", "--backend", "ideal"], "ideal"),
        (["--engine", "runtime", "--run-on", "fake_manila"], "--backend"),
        (["--engine", "runtime", "--dd", "XYZ"], "dynamical_decoupling"),
        (["--engine", "runtime", "--twirling", "yes"], "twirling"),
        (["--engine", "runtime", "--resilience-level", "4"], "resilience_level"),
        (["--train-on", "twin"], "--run-on"),
        (["--train-on", "aer", "--run-on", "fake_manila"], "--engine twin"),
        (["--train-on", "aer", "--engine", "twin", "--run-on", "fake_manila"], "two engines"),
        (["--run-on", "fake_manilla"], "manila"),
        (["--run-on", "ideal"], "no device"),
        (["--run-on", "fake_manila", "--device-samples", "2"], "samples"),
        (["--dry-run"], "sends no jobs"),
    ],
)
def test_each_wrong_option_is_one_line(mine: Path, options: list[str], said: str) -> None:
    out = CLI.invoke(app, ["experiment", "nsl-kdd", *options])
    assert out.exit_code == 2, out.output
    assert said in out.stderr
    assert len(out.stderr.splitlines()) == 1
    assert out.stdout == ""
    assert RunIndex().list() == []


@pytest.mark.parametrize("command", ["resume", "detach"])
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--mode", "fast"], "--mode fast"),
        (["--max-qpu-seconds", "nan"], "--max-qpu-seconds nan"),
        (["--max-time", "0"], "--max-time 0"),
        (["--patience", "-1"], "--patience -1"),
        ([], "no run 'none'"),
    ],
)
def test_a_wrong_option_of_a_run_that_goes_on_is_told_first(
    mine: Path, command: str, options: list[str], said: str
) -> None:
    out = CLI.invoke(app, ["runs", command, "none", *options])
    assert out.exit_code == 2, out.output
    assert said in out.stderr
    assert len(out.stderr.splitlines()) == 1


def test_a_dry_run_writes_and_sends_nothing(mine: Path) -> None:
    out = CLI.invoke(app, ["experiment", "nsl-kdd", "--run-on", "fake_manila", "--qubits", "3", "--dry-run", "--json"])
    assert out.exit_code == 0
    (told,) = json.loads(out.stdout)["estimates"]
    assert told["total"]["circuits"] == 256
    assert told["total"]["qpu_seconds"] > 0
    assert RunIndex().list() == []


def test_shots_are_the_devices_where_models_go_to_one(mine: Path, tmp_path: Path) -> None:
    file = tmp_path / "on.toml"
    file.write_text('[runtime]\nrun_on = "fake_manila"\n')
    for options in (["--run-on", "fake_manila"], ["--config", str(file)]):
        out = CLI.invoke(
            app, ["experiment", "nsl-kdd", *options, "--qubits", "3", "--shots", "64", "--dry-run", "--json"]
        )
        assert json.loads(out.stdout)["estimates"][0]["shots_per_circuit"] == 64


# -- the service -------------------------------------------------------------------------------------------------------


def test_a_run_on_a_device_keeps_its_calibration_its_jobs_and_no_token(
    service: StandIn, mine: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = on_device()
    assert config.backend == "ibm_manila"
    sha256 = str(config.snapshot_sha256)
    assert calibration.find("ibm_manila", sha256).sha256 == sha256
    outcome = start(config, Places(), said=Said("job", max_qpu_seconds=400.0))
    jobs = rows(outcome.path)
    assert {row["state"] for row in jobs} == {"done"}
    assert len(service.accepted()) == len(jobs)
    assert (outcome.path / f"calibration-{sha256}.json").is_file()
    assert {file.stem for file in (outcome.path / "jobs").iterdir()} == {row["result"] for row in jobs}
    assert json.loads((outcome.path / "config.json").read_text())["access"]["mode"] == "job"
    # Everything but the account is there: the calibration is found in the run's folder too.
    assert calibration.find("ibm_manila", sha256, outcome.path).sha256 == sha256
    for path in [p for p in mine.rglob("*") if p.is_file()]:
        assert TOKEN.encode() not in path.read_bytes(), path
    for command in (["runs", "show", outcome.run], ["jobs", "list"], ["jobs", "show", jobs[0]["tag"]]):
        shown = CLI.invoke(app, [*command, "--json"])
        assert shown.exit_code == 0
        assert TOKEN not in shown.output
    assert TOKEN not in "".join(capfd.readouterr())


def test_it_is_left_and_taken_up_again_and_nothing_is_sent_twice(service: StandIn, mine: Path) -> None:
    service.hold()
    with pytest.raises(Detached) as left:
        start(on_device(), Places(), said=Said(max_qpu_seconds=300.0, detach=True))
    run = left.value.run
    index = RunIndex()
    folder = index.find(run).path
    index.close()
    assert [(row["state"], row["job_id"]) for row in rows(folder)] == [("sent", left.value.jobs[0])]
    for _ in range(2):
        out = CLI.invoke(app, ["runs", "detach", run, "--json"])
        assert out.exit_code == 0
        told = json.loads(out.stdout)
        assert told == {
            "run": run,
            "detached": True,
            "jobs": list(left.value.jobs),
            "resume": f"qrun runs resume {run}",
        }
    words = CLI.invoke(app, ["runs", "detach", run])
    assert words.exit_code == 0
    assert f"Go on with: qrun runs resume {run}" in words.stdout
    assert len(service.accepted()) == 1
    shown = json.loads(CLI.invoke(app, ["jobs", "show", left.value.jobs[0][:8], "--json"]).stdout)
    assert shown["service"]["state"] == "queued"
    service.release()
    outcome = go_on(run)
    assert len(service.accepted()) == len(rows(folder)) > 1
    assert {row["state"] for row in rows(folder)} == {"done"}
    with sqlite3.connect(outcome.path / "state.sqlite") as sql:
        kept = json.loads(sql.execute("select value from facts where key = 'access'").fetchone()[0])
    assert kept == to_json(Access(max_qpu_seconds=300.0))


def test_a_job_that_is_cancelled_is_sent_anew_when_told_and_not_before(service: StandIn, mine: Path) -> None:
    service.hold()
    with pytest.raises(Detached) as left:
        start(on_device(), Places(), said=Said("batch", detach=True))
    run = left.value.run
    listed = json.loads(CLI.invoke(app, ["runs", "list", "--json"]).stdout)
    assert [entry["state"] for entry in listed if entry["run"] == run] == ["waiting"]
    assert f"qrun runs resume {run}" in " ".join(CLI.invoke(app, ["runs", "show", run]).stdout.split())
    out = CLI.invoke(app, ["jobs", "cancel", run, "--yes", "--json"])
    assert json.loads(out.stdout)["cancelled"] == list(left.value.jobs)
    service.release()
    for _ in range(2):
        again = CLI.invoke(app, ["runs", "resume", run])
        assert again.exit_code == 1
        assert "--resubmit" in again.stderr
    assert len(service.accepted()) == 1
    done = CLI.invoke(app, ["runs", "resume", run, "--resubmit", "--json"])
    assert done.exit_code == 0, done.output
    jobs = json.loads(CLI.invoke(app, ["jobs", "list", run, "--json"]).stdout)
    assert [job["state"] for job in jobs[:2]] == ["failed", "done"]
    assert jobs[0]["key"] == jobs[1]["key"]
    assert len(service.accepted()) == len(jobs)
    gone = CLI.invoke(app, ["jobs", "cancel", run])
    assert gone.exit_code == 0
    assert "nothing to cancel" in gone.stdout


def test_what_cannot_be_paid_is_refused_before_anything_is_sent(service: StandIn, mine: Path) -> None:
    with pytest.raises(BudgetError, match=r"--max-qpu-seconds is 1;.*--train-on twin --run-on ibm_manila"):
        start(on_device(), Places(), said=Said(max_qpu_seconds=1.0))
    service.settings.plan = "open"
    disconnect()  # the plan is asked once a connection
    with pytest.raises(UsageError, match=r"--mode session: the plan .*allows no sessions"):
        start(on_device(), Places(), said=Said(mode="session"))
    with pytest.raises(BudgetError, match=r"the plan has 600 left"):
        start(on_device(steps_per_epoch=5000), Places())
    out = CLI.invoke(
        app, ["experiment", "nsl-kdd", "--run-on", "ibm_manila", "--qubits", "3", "--max-qpu-seconds", "1"]
    )
    assert out.exit_code == 1
    assert "--device-samples" in out.stderr
    assert service.accepted() == []
    assert RunIndex().list() == []


@pytest.mark.parametrize("name", ["least-busy", "best"])
def test_a_device_that_is_chosen_becomes_a_name(service: StandIn, mine: Path, name: str) -> None:
    told: list[tuple[str, str]] = []
    direct = config_from(
        "nsl-kdd", {**TINY, "engine": "runtime", "backend": name}, tell=lambda *said: told.append(said)
    )
    assert (direct.backend, [title for title, _ in told]) == ("ibm_manila", ["Device"])
    told.clear()
    config = config_from("nsl-kdd", {**TINY, "run_on": name}, tell=lambda *said: told.append(said))
    assert config.runtime is not None
    assert (config.backend, config.runtime.run_on) == ("ibm_manila", "ibm_manila")
    assert config.snapshot_sha256 == config.runtime.run_on_sha256 is not None
    assert told[0][0] == "Device"
    assert len(told) == 1
    assert config_from("nsl-kdd", {**TINY, "run_on": "IBM-Manila"}).digest == config.digest


def test_a_calibration_that_is_gone_or_another_is_told(service: StandIn, mine: Path) -> None:
    config = on_device()
    sha256 = str(config.snapshot_sha256)
    same = config_from("nsl-kdd", {**TINY, "engine": "runtime", "backend": "ibm_manila", "snapshot_sha256": sha256})
    assert same.digest == config.digest
    with pytest.raises(UsageError, match="no such calibration of ibm_manila is kept here"):
        on_device(snapshot_sha256="0" * 64)
    (mine / "calibrations" / f"{sha256}.json").unlink()
    with pytest.raises(QrunError, match="is not here any more"):
        start(config, Places())


def test_a_calibration_that_was_changed_in_the_runs_folder_is_taken_from_the_home(
    service: StandIn, mine: Path, tmp_path: Path
) -> None:
    config = on_device()
    sha256 = str(config.snapshot_sha256)
    kept = tmp_path / calibration.file_name(sha256)
    whole = (mine / "calibrations" / f"{sha256}.json").read_bytes()
    for damaged in (whole[:-100], whole.replace(b"ibm_manila", b"ibm_manilb"), b""):
        kept.write_bytes(damaged)
        assert calibration.find("ibm_manila", sha256, tmp_path).content == whole


def test_without_an_account_a_device_is_no_choice(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("QISKIT_IBM_")]:
        monkeypatch.delenv(name)
    out = CLI.invoke(app, ["experiment", "nsl-kdd", "--backend", "ibm_torino"])
    assert out.exit_code == 2
    assert "qrun login" in out.stderr
    assert len(out.stderr.splitlines()) == 1
