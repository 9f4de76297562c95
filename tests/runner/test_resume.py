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
from pathlib import Path
from typing import Any

import pytest
import torch

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


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_killed_at_ten_random_instants(qrun: Qrun, home: Path, tmp_path: Path) -> None:
    begin = time.monotonic()
    whole = qrun("experiment", "nsl-kdd", *SMALL, "--out", str(tmp_path / "whole"), "--json")
    assert whole.returncode == 0, whole.stderr
    took = time.monotonic() - begin
    undisturbed = json.loads(whole.stdout)
    rng = random.Random(20260101)
    killed = 0
    for k in range(KILLS):
        # Imports take the first part of a run: killing there is dull, but it counts.
        instant = took * (k + rng.random()) / KILLS
        # How fast a run goes varies by a third on a shared machine: one that ended too early to be
        # killed says nothing, so another is killed earlier, until one was.
        for attempt in range(10):
            out = tmp_path / f"killed-{k}-{attempt}"
            if kill_after(instant, home, "experiment", "nsl-kdd", *SMALL, "--out", str(out)):
                killed += 1
                break
            instant *= 0.8
        else:
            pytest.fail(f"no run lasted {instant:.2f} s")
        runs = {Path(r["path"]): r for r in json.loads(qrun("runs", "list", "--json").stdout)}
        if out not in runs:
            continue  # It was killed before there was a run.
        run = runs[out]["run"]
        # The resumed run is killed too, half the time.
        if rng.random() < 0.5:
            kill_after(took * rng.random(), home, "runs", "resume", run)
        resumed = qrun("runs", "resume", run, "--json")
        assert resumed.returncode == 0, f"killed after {instant:.2f} s: {resumed.stderr}"
        result = json.loads(resumed.stdout)
        assert what_repeats(result) == what_repeats(undisturbed), f"killed after {instant:.2f} s"
        assert transactions(out, result) == transactions(tmp_path / "whole", undisturbed), "nothing was sent twice"
    assert killed == KILLS


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_says_how_to_go_on(home: Path, qrun: Qrun, tmp_path: Path, stop: signal.Signals) -> None:
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
def test_what_a_run_cannot_go_on_with(home: Path, qrun: Qrun, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    interrupted(home, folder, "--rounds", "4")
    run = json.loads(qrun("runs", "list", "--json").stdout)[0]
    assert run["state"] == "interrupted"

    def refused(*said: str, **env: str) -> None:
        done = qrun("runs", "resume", run["run"], **env)
        assert done.returncode == 1, done.stderr
        assert "Traceback" not in done.stderr
        for text in said:
            assert text in done.stderr

    # Other data: the stand-in where the official files were, or the other way round.
    if os.environ.get("QRUN_DATA"):
        refused("differs", QRUN_DATA="", XDG_CACHE_HOME=str(tmp_path / "cache"), https_proxy="http://127.0.0.1:9")

    # Another chain: nothing is deployed, nothing is paid for again.
    chain = folder / "chain.sqlite"
    for tail in ("", "-wal", "-shm"):
        if (folder / f"chain.sqlite{tail}").exists():
            (folder / f"chain.sqlite{tail}").rename(tmp_path / f"chain.sqlite{tail}")
    refused("which is not on the chain given now")
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
        refused("began on a CUDA device")
        config.write_text(manifest.replace('"device": "cpu"', '"device": "tpu"'))
        refused("damaged")
    config.write_text(manifest)

    # A lost block is made again, the same; a whole run comes of it.
    state = sqlite3.connect(folder / "state.sqlite")
    cid = json.loads(state.execute("select value from facts where key = 'trained/1/0'").fetchone()[0])["cid"]
    state.close()
    block = next(folder.joinpath("blocks").rglob(f"{cid}*"))
    block.unlink()
    done = qrun("runs", "resume", run["run"], "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rounds"][0]["nodes"][0]["cid"] == cid

    # A damaged result is said to be so, and does not spoil the list of all runs.
    (folder / "result.json").write_text('{"format": "qrun-result/1", "metrics": {"test": {"x": 1}}}')
    shown = qrun("runs", "show", run["run"])
    assert shown.returncode == 1
    assert "damaged" in shown.stderr
    assert qrun("runs", "list").returncode == 0


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
