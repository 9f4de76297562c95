"""A small run that takes seconds, in a home of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.runner.device_runs import on_device, on_runtime

__all__ = ["on_device", "on_runtime"]

SMALL = ["--qubits", "3", "--reps", "1", "--rounds", "2", "--nodes", "3", "--backend", "fake_manila"]
"""Options of a run that is whole, but small."""

Qrun = Callable[..., "subprocess.CompletedProcess[str]"]


def environment(home: Path) -> dict[str, str]:
    """The environment of a user who has never run qrun, without colour."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("QRUN_") or k == "QRUN_DATA"}
    return {**kept, "QRUN_HOME": str(home), "NO_COLOR": "1", "OMP_NUM_THREADS": "1"}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def qrun(home: Path) -> Qrun:
    """Run the command line in a process of its own."""

    def call(*args: str, timeout: float = 300, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "runner.cli", *args],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env={**environment(home), **env},
        )

    return call
