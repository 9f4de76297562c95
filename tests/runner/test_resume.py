"""kill -9 at any instant, then `qrun runs resume`: the same CIDs and metrics as an undisturbed run."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from circuits.errors import QrunError
from contracts.errors import LedgerError
from runner.run import resume
from tests.runner.conftest import SMALL, Qrun, environment
from tests.runner.test_main_job import what_repeats

KILLS = 10


def kill_after(seconds: float, home: Path, *args: str) -> bool:
    """Start qrun and kill -9 it after so long; whether it was still alive."""
    process = subprocess.Popen(
        [sys.executable, "-m", "runner.cli", *args],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(home),
    )
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        return True
    return False


def transactions(folder: Path, result: dict[str, Any]) -> int:
    """How many transactions the embedded chain holds."""
    from contracts.chain import connect

    with connect(folder / "chain.sqlite", []) as chain:
        return chain.head_number()


@dataclass(frozen=True)
class Whole:
    """A run that nobody disturbed: its result, its folder, and the seconds it took."""

    result: dict[str, Any]
    folder: Path
    seconds: float


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    root = tmp_path_factory.mktemp("undisturbed")
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "runner.cli", "experiment", "nsl-kdd", *SMALL, "--out", str(root / "run"), "--json"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=environment(root / "home"),
    )
    assert done.returncode == 0, done.stderr
    return Whole(json.loads(done.stdout), root / "run", time.monotonic() - begin)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(KILLS))
def test_killed_at_a_random_instant(qrun: Qrun, home: Path, tmp_path: Path, undisturbed: Whole, part: int) -> None:
    """Each kill in a part of the run of its own, so that together they cover it; a test each, so that cores share."""
    rng = random.Random(20260101 + part)
    # Imports take the first part of a run: killing there is dull, but it counts.
    instant = undisturbed.seconds * (part + rng.random()) / KILLS
    # How fast a run goes varies by a third on a shared machine: one that ended too early to be
    # killed says nothing, so another is killed earlier, until one was.
    for attempt in range(10):
        out = tmp_path / f"killed-{attempt}"
        if kill_after(instant, home, "experiment", "nsl-kdd", *SMALL, "--out", str(out)):
            break
        instant *= 0.8
    else:
        pytest.fail(f"no run lasted {instant:.2f} s")
    runs = {Path(r["path"]): r for r in json.loads(qrun("runs", "list", "--json").stdout)}
    if out not in runs:
        return  # It was killed before there was a run.
    run = runs[out]["run"]
    # The resumed run is killed too, half the time.
    if rng.random() < 0.5:
        kill_after(undisturbed.seconds * rng.random(), home, "runs", "resume", run)
    resumed = qrun("runs", "resume", run, "--json")
    assert resumed.returncode == 0, f"killed after {instant:.2f} s: {resumed.stderr}"
    result = json.loads(resumed.stdout)
    assert what_repeats(result) == what_repeats(undisturbed.result), f"killed after {instant:.2f} s"
    assert transactions(out, result) == transactions(undisturbed.folder, undisturbed.result), "nothing was sent twice"


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_says_how_to_go_on(home: Path, qrun: Qrun, tmp_path: Path, stop: signal.Signals) -> None:
    # Where the tests run in the background of a shell, SIGINT is ignored, and a child would inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "runner.cli",
            "experiment",
            "nsl-kdd",
            *SMALL,
            "--rounds",
            "30",
            "--out",
            str(tmp_path / "run"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(home),
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "run" / "chain.sqlite").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(2)
    process.send_signal(stop)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in said
    assert "qrun runs resume" in said
    listed = json.loads(qrun("runs", "list", "--json").stdout)
    assert listed[0]["state"] == "interrupted"
    assert "qrun runs resume" in qrun("runs", "show", listed[0]["run"]).stdout
    assert qrun("runs", "rm", listed[0]["run"], "--yes").returncode == 0


def interrupted(home: Path, folder: Path, *options: str) -> None:
    """A run of many rounds, killed once its first model is on the chain."""
    process = subprocess.Popen(
        [sys.executable, "-m", "runner.cli", "experiment", "nsl-kdd", *SMALL, *options, "--out", str(folder)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(home),
    )
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline and process.poll() is None:
        if len(list((folder / "blocks").rglob("b*"))) > 8:
            break
        time.sleep(0.05)
    assert process.poll() is None, "the run ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.slow
def test_what_a_run_cannot_go_on_with(home: Path, qrun: Qrun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    interrupted(home, folder, "--rounds", "4")
    run = json.loads(qrun("runs", "list", "--json").stdout)[0]
    assert run["state"] == "interrupted"

    def refused(*said: str, **env: str) -> None:
        # In this process: what the command line makes of an error is tested by itself, and starting it takes seconds.
        with monkeypatch.context() as patch:
            for name, value in {"QRUN_HOME": str(home), **env}.items():
                patch.setenv(name, value)
            with pytest.raises((QrunError, LedgerError)) as caught:
                resume(run["run"])
        assert caught.value.exit_code == 1
        for text in said:
            assert text in str(caught.value)

    # Other data: the stand-in where the official files were, or the other way round.
    if os.environ.get("QRUN_DATA"):
        refused("differs", QRUN_DATA="", XDG_CACHE_HOME=str(tmp_path / "cache"), https_proxy="http://127.0.0.1:9")

    # Another chain: nothing is deployed, nothing is paid for again.
    chain = folder / "chain.sqlite"
    for tail in ("", "-wal", "-shm"):
        if (folder / f"chain.sqlite{tail}").exists():
            (folder / f"chain.sqlite{tail}").rename(tmp_path / f"chain.sqlite{tail}")
    done = qrun("runs", "resume", run["run"])
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "which is not on the chain given now" in done.stderr
    for file in folder.glob("chain.sqlite*"):
        file.unlink()
    for tail in ("", "-wal", "-shm"):
        if (tmp_path / f"chain.sqlite{tail}").exists():
            (tmp_path / f"chain.sqlite{tail}").rename(folder / f"chain.sqlite{tail}")
    assert chain.exists()

    # An edited config.
    config = folder / "config.json"
    manifest = config.read_text()
    config.write_text(manifest.replace('"rounds": 4', '"rounds": 2'))
    refused("was changed")
    config.write_text("[" * 100_000)
    refused("damaged")

    # Another kind of device: it would round otherwise.
    if not torch.cuda.is_available():
        assert '"device": "cpu"' in manifest
        config.write_text(manifest.replace('"device": "cpu"', '"device": "cuda"'))
        refused("began on a CUDA device", "start it anew with --device cpu")
        config.write_text(manifest.replace('"device": "cpu"', '"device": "tpu"'))
        refused("was changed")
    config.write_text(manifest)

    # A lost block is made again, the same; a whole run comes of it.
    state = sqlite3.connect(folder / "state.sqlite")
    cid = json.loads(state.execute("select value from facts where key = 'trained/1/0/0'").fetchone()[0])["cid"]
    state.close()
    block = next(folder.joinpath("blocks").rglob(f"{cid}*"))
    block.unlink()
    done = qrun("runs", "resume", run["run"], "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rounds"][0]["nodes"][0]["cid"] == cid

    # A damaged result is said to be so, and does not spoil the list of all runs.
    report = (folder / "result.json").read_bytes()
    for named, said in (("qrun-result/4", "damaged"), ("qrun-result/1", "this version reads qrun-result/4")):
        (folder / "result.json").write_text('{"format": "' + named + '", "metrics": {"test": {"x": 1}}}')
        shown = qrun("runs", "show", run["run"])
        assert shown.returncode == 1
        assert said in shown.stderr
    assert qrun("runs", "list").returncode == 0
    # Removed and resumed, it is the one whose digest the nodes stated.
    (folder / "result.json").unlink()
    assert qrun("runs", "resume", run["run"], "--json").returncode == 0
    assert (folder / "result.json").read_bytes() == report


@pytest.mark.slow
def test_a_reader_that_goes_away_does_not_stop_a_run(home: Path, qrun: Qrun, tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "runner.cli", "experiment", "nsl-kdd", *SMALL, "--out", str(tmp_path / "run")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(home),
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        said = process.stderr.read()
    assert "the run goes on without tables" in said
    assert (tmp_path / "run" / "result.json").exists()
