"""kill -9 at any instant, then `qrun runs resume`: the same CIDs and metrics as an undisturbed run."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

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
        out = tmp_path / f"killed-{k}"
        # Imports take the first part of a run: killing there is dull, but it counts.
        instant = took * (k + rng.random()) / KILLS
        if not kill_after(instant, home, "experiment", "nsl-kdd", *SMALL, "--out", str(out)):
            continue
        killed += 1
        runs = {Path(r["path"]): r for r in json.loads(qrun("runs", "list", "--json").stdout)}
        if out not in runs or runs[out]["state"] == "not started":
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
    assert killed >= KILLS - 2


@pytest.mark.slow
def test_an_interrupted_run_says_how_to_go_on(home: Path, qrun: Qrun, tmp_path: Path) -> None:
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
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in said
    assert "qrun runs resume" in said
    listed = json.loads(qrun("runs", "list", "--json").stdout)
    assert listed[0]["state"] == "interrupted"
    assert "qrun runs resume" in qrun("runs", "show", listed[0]["run"]).stdout
    assert qrun("runs", "rm", listed[0]["run"], "--yes").returncode == 0


@pytest.mark.slow
def test_resuming_on_other_data_is_refused(home: Path, qrun: Qrun, tmp_path: Path) -> None:
    while not kill_after(6, home, "experiment", "nsl-kdd", *SMALL, "--rounds", "50", "--out", str(tmp_path / "run")):
        pytest.fail("a run of 50 rounds ended within six seconds")
    listed = json.loads(qrun("runs", "list", "--json").stdout)
    if listed[0]["state"] != "interrupted":
        pytest.skip("the machine is too slow: the run had not begun")
    config = tmp_path / "run" / "config.json"
    manifest = json.loads(config.read_text())
    manifest["config"]["rounds"] = 2
    config.write_text(json.dumps(manifest))
    done = qrun("runs", "resume", listed[0]["run"])
    assert done.returncode == 1
    assert "was changed" in done.stderr
