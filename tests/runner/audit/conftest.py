"""One good run, made once, and copies of it to damage."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from runner.audit.audit import Audit, WithData, audit
from runner.audit.sources import gather


@pytest.fixture(scope="session")
def good_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run: three nodes, two rounds, a noisy twin of three qubits, stand-in data if need be."""
    import qrun

    folder = tmp_path_factory.mktemp("good") / "run"
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setenv("QRUN_HOME", str(folder.parent / "home"))
        qrun.run("nsl-kdd", out=folder, backend="fake_manila", qubits=3, reps=1, nodes=3, rounds=2, steps_per_epoch=5)
    return folder


@pytest.fixture
def run(good_run: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(good_run, tmp_path / "run"))


Audits = Callable[..., Audit]


@pytest.fixture
def verified() -> Audits:
    """Audit a folder."""

    def call(target: Path | str, *, data: WithData | None = None, **places: object) -> Audit:
        with gather(str(target), **places) as evidence:  # type: ignore[arg-type]
            return audit(evidence, data=data)

    return call
