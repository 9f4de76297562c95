"""Small runs with jobs in the Runtime's local testing mode, played once a session; and what is done with them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

from runner.audit.audit import Audit, WithData, audit
from runner.audit.sources import gather

Played = tuple[Path, dict[str, Any]]

TINY: dict[str, Any] = {
    "backend": "fake_manila",
    "nodes": 2,
    "rounds": 1,
    "qubits": 3,
    "reps": 1,
    "steps_per_epoch": 3,
    "detector_steps": 5,
    "batch": 8,
    "test": False,
}
ON_DEVICE: dict[str, Any] = {**TINY, "runtime": {"run_on": "fake_lima", "shots": 64, "samples": 17, "fine_tune": 2}}
ON_RUNTIME: dict[str, Any] = {
    **TINY,
    "engine": "runtime",
    "shots": 32,
    # By distance alone: what was sampled on the device decides the metrics.
    "model": {"samples": 16, "score": {"distance": 1.0}, "generator_rate": 0.7},
}


def play(folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Play a run, with a home beside its folder."""
    import qrun

    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setenv("QRUN_HOME", str(folder.parent / "home"))
        return dict(qrun.run("nsl-kdd", out=folder, **options))


def resume(folder: Path, run: str) -> dict[str, Any]:
    """Go on with it."""
    from runner.run import resume as go_on

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QRUN_HOME", str(folder.parent / "home"))
        return go_on(run)


@pytest.fixture(scope="session")
def on_device(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """Trained on the exact twin, tuned and sampled on fake_lima: the folder, and the result."""
    folder = tmp_path_factory.mktemp("device") / "run"
    return folder, play(folder, ON_DEVICE)


@pytest.fixture(scope="session")
def on_runtime(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """Trained in the local testing mode: the folder, and the result."""
    folder = tmp_path_factory.mktemp("runtime") / "run"
    return folder, play(folder, ON_RUNTIME)


def verified(folder: Path, *, data: bool = False) -> Audit:
    """Audit it."""
    with gather(str(folder)) as evidence:
        return audit(evidence, data=WithData() if data else None)


def false_ids(found: Audit) -> set[str]:
    """What the audit found false."""
    return {check.id for check in found.findings.of("false")}
