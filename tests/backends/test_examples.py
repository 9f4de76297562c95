"""Every example runs as it stands, and prints what its text promises."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
SAYS = {
    "estimator.py": "4096 shots; exact values by",
    "sampler.py": "with noise of waiting qubits",
    "qnn_torch.py": "step 20  loss",
    "module.py": "step 40  loss",
    "mitigation.py": "gradient by 24 angles",
}


ELSEWHERE = {"three_parties.py"}
"""Run by tests/runner/peers/test_example.py: it starts servers."""


def test_every_example_is_run() -> None:
    assert {path.name for path in EXAMPLES.glob("[!_]*.py")} == set(SAYS) | ELSEWHERE


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SAYS))
def test_runs(name: str, tmp_path: Path) -> None:
    path = [str(EXAMPLES.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", str(EXAMPLES / name)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert SAYS[name] in done.stdout
    losses = [float(line.split("loss")[1]) for line in done.stdout.splitlines() if "loss" in line]
    assert not losses or losses[-1] < 0.6 * losses[0]
