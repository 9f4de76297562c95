"""tests/hardware costs nothing unless it is asked for, and works: it is run here against the stand-in."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from backends.runtime.standin import Settings, StandIn
from tests.hardware.budget import MOST, ONE_JOB, SMALL_RUN

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def service() -> Iterator[StandIn]:
    with StandIn(Settings(devices=("fake_torino", "fake_kyiv"), plan="open")) as made:
        yield made


def hardware_tests(home: Path, account: dict[str, str], *options: str) -> tuple[dict[str, int], str]:
    """Run tests/hardware in a process of its own: how many passed, were skipped ..., and all that it said."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("QISKIT_IBM_", "PYTEST_"))}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "tests/hardware", "-p", "no:cacheprovider", *options],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        cwd=ROOT,
        env={**kept, **account, "HOME": str(home), "NO_COLOR": "1"},
    )
    last = done.stdout.strip().splitlines()[-1]
    return {word: int(count) for count, word in re.findall(r"(\d+) (\w+)", last)}, done.stdout + done.stderr


def test_the_bounds_that_the_tests_hand_to_qrun_are_within_60_seconds() -> None:
    assert ONE_JOB + SMALL_RUN <= MOST <= 60


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [(), ("-m", "not slow and not server"), ("-m", "hardware or slow"), ("-m", "not slow or not hardware")],
    ids=lambda options: " ".join(options) or "make test",
)
def test_an_account_alone_sends_nothing(service: StandIn, tmp_path: Path, options: tuple[str, ...]) -> None:
    counts, said = hardware_tests(tmp_path, service.environment(), *options)
    assert counts["skipped"] == 3, said
    assert "passed" not in counts
    assert "asked for by `-m hardware` alone" in said
    assert service.requests() == []


@pytest.mark.slow
def test_without_an_account_they_are_skipped_with_what_to_do(tmp_path: Path) -> None:
    counts, said = hardware_tests(tmp_path, {}, "-m", "hardware")
    assert counts["skipped"] == 3, said
    assert "passed" not in counts
    assert "qrun login" in said


@pytest.mark.slow
def test_asked_for_they_pass_and_stay_within_the_budget(service: StandIn, tmp_path: Path) -> None:
    counts, said = hardware_tests(tmp_path, service.environment(), "-m", "hardware")
    assert counts["passed"] == 3, said
    assert set(counts) <= {"passed", "warnings", "warning"} | {"in"}
    jobs = service.accepted()
    assert len(jobs) == 1 + 2  # one job of the second test, one a node of the third
    assert all(job.state == "Completed" for job in jobs), jobs
    # What they took, and what the service was told that they may take at most.
    assert 0 < service.spent() <= MOST
    assert sum(job.cost or MOST for job in jobs) <= MOST
    assert service.settings.token not in said
