"""A small run that takes seconds, in a home of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.preloaded import Preloaded, preloaded
from tests.runner.device_runs import on_device, on_runtime

__all__ = ["on_device", "on_runtime"]

SMALL = ["--qubits", "3", "--reps", "1", "--rounds", "2", "--nodes", "3", "--backend", "fake_manila"]
"""Options of a run that is whole, but small."""

STARTED_WITH = dict(os.environ)
"""The environment before any test has changed it for itself."""

Qrun = Callable[..., "subprocess.CompletedProcess[str]"]


def environment(home: Path, base: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of a user who has never run qrun, without colour."""
    kept = {k: v for k, v in base.items() if not k.startswith("QRUN_") or k == "QRUN_DATA"}
    return {**kept, "QRUN_HOME": str(home), "NO_COLOR": "1", "OMP_NUM_THREADS": "1"}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture(scope="session")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Preloaded]:
    """What commands are forked from."""
    with preloaded(environment(tmp_path_factory.getbasetemp(), STARTED_WITH)) as made:
        yield made


@pytest.fixture
def fresh(home: Path) -> Qrun:
    """Run the command line as a user does, by starting Python: where the seconds that imports take count."""

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


@pytest.fixture
def qrun(home: Path, loaded: Preloaded, fresh: Qrun) -> Qrun:
    """Run the command line in a process of its own; a fresh one where the environment matters to imports."""

    def call(*args: str, timeout: float = 300, **env: str) -> subprocess.CompletedProcess[str]:
        wanted = {**environment(home), **env}
        if loaded.takes(wanted):
            return loaded.run(*args, env=wanted, timeout=timeout)
        return fresh(*args, timeout=timeout, **env)

    return call
