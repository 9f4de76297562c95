"""The main job on the stack that users know: slow, so as small as it gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.runner.conftest import Qrun
from tests.runner.test_main_job import run, what_repeats

CONFIG = Path(__file__).parents[2] / "examples" / "qml.toml"


@pytest.mark.slow
def test_runs_and_repeats(qrun: Qrun, tmp_path: Path) -> None:
    options = ("--engine", "qml", "--shots", "64", "--config", str(CONFIG), "--no-test")
    # Options of the command win over the file, and those of a small run ask for more of everything.
    options += ("--qubits", "2", "--rounds", "1", "--nodes", "1", "--seed", "3")
    first = run(qrun, *options, "--out", str(tmp_path / "first"))
    assert (first["backend"]["engine"], first["backend"]["shots"]) == ("qml", 64)
    assert first["config"]["model"]["steps_per_epoch"] == 3
    assert what_repeats(first) == what_repeats(run(qrun, *options, "--out", str(tmp_path / "second")))
