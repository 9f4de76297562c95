"""Built as a wheel, installed into an empty environment and started from another folder, it works the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import jsonschema
import pytest

from runner.schema import schema

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", str(out), str(ROOT)],
        check=True,
        capture_output=True,
        text=True,
    )
    return next(out.glob("*.whl"))


@pytest.mark.slow
def test_the_wheel_holds_what_it_needs_and_no_tests(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for needed in (
        "qrun.py",
        "contracts/FederatedRounds.json",
        "contracts/FederatedRounds.sol",
        "experiments/datasets/standin.npz",
        "experiments/datasets/checksums.npz",
        "runner/result.schema.json",
        "runner/py.typed",
        "runner/report/page/report.html.j2",
        "runner/report/page/style.css",
    ):
        assert needed in names
    assert not [n for n in names if n.startswith(("tests/", "docs/"))]
    assert wheel.stat().st_size < 2_000_000


@pytest.mark.slow
def test_the_wheel_runs_from_another_folder(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "venv"
    venv.create(environment, with_pip=False, system_site_packages=False)
    python = environment / "bin" / "python"
    # The dependencies are those of the environment under test (2 GB need not be fetched again); qrun itself is not:
    # a path file names their folder, and the wheel is installed beside it.
    site = next(environment.glob("lib/python*/site-packages"))
    dependencies = next(p for p in map(Path, sys.path) if p.name == "site-packages")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel)], check=True
    )
    (site / "dependencies.pth").write_text(f"{dependencies}\n")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    env = {
        **os.environ,
        "QRUN_HOME": str(tmp_path / "home"),
        "QRUN_DATA": "",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    env.pop("PYTHONPATH", None)

    def run(*args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(python), *args], capture_output=True, text=True, check=False, cwd=elsewhere, env=env, timeout=300
        )

    where = run("-c", "import qrun, runner, contracts; print(qrun.__file__, runner.__file__, contracts.__file__)")
    assert where.stdout.count(str(site)) == 3, where.stdout + where.stderr
    done = run(
        "-c",
        "from runner.cli import main; main()",
        *("experiment", "nsl-kdd", "--backend", "fake_manila", "--qubits", "3", "--reps", "1", "--rounds", "1"),
        *("--nodes", "2", "--json"),
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    jsonschema.validate(result, schema())
    assert result["dataset"]["source"] == "stand-in"
    assert result["versions"]["git_commit"] is None
