"""A comparison of seconds, made once: ideal and a small device, two seeds, with and without mitigation."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.compare.compare import Compared, compare
from runner.compare.grid import Grid, grid_of

TINY = """rounds = 2
device = "cpu"
[model]
qubits = 3
reps = 1
steps_per_epoch = 6
samples = 64
"""


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("config") / "tiny.toml"
    file.write_text(TINY)
    return file


@pytest.fixture(scope="session")
def runs_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the comparison's runs are."""
    return tmp_path_factory.mktemp("compare") / "home"


@pytest.fixture
def at_home(runs_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, as QRUN_HOME."""
    monkeypatch.setenv("QRUN_HOME", str(runs_home))
    return runs_home


def grid(tiny: Path, **options: object) -> Grid:
    given = {"backends": ["fake_manila"], "stacks": ["zne"], "seeds": 2, **options}
    return grid_of("nsl-kdd", {}, file=tiny, **given)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def compared(tiny: Path, runs_home: Path, data_dir: Path) -> Iterator[Compared]:
    before = os.environ.get("QRUN_HOME")
    os.environ["QRUN_HOME"] = str(runs_home)
    try:
        yield played(grid(tiny), data_dir)
    finally:
        if before is None:
            del os.environ["QRUN_HOME"]
        else:
            os.environ["QRUN_HOME"] = before


def played(asked: Grid, data: Path, *, cluster: str | None = None, told: list[str] | None = None) -> Compared:
    said = [] if told is None else told
    return compare(
        asked,
        data=data,
        workers=1,
        cluster=cluster,
        notify=lambda title, text: said.append(f"{title}: {text}"),
        foresee=lambda forecast: said.append(forecast.sentence),
        progress=lambda done, total, text: said.append(text),
    )
