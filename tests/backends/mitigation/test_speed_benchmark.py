"""The benchmark that the page quotes runs with the model of today."""

import re
import subprocess
import sys
from pathlib import Path


def test_the_speed_of_stacks_is_printed() -> None:
    command = [sys.executable, "-m", "tests.benchmarks.mitigation_speed", "--device", "fake_manila", "--qubits", "2"]
    options = ["--rounds", "1", "--shots", "16", "--stack", "readout+zne"]
    root = Path(__file__).parents[3]
    done = subprocess.run([*command, *options], cwd=root, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = re.findall(r"^ +(none|readout\+zne) +(\d+) +[\d.]+s" + r" +([\d.]+)" * 6 + r" +1 ", done.stdout, re.M)
    assert [(name, circuits) for name, circuits, *_ in rows] == [("none", "1"), ("readout+zne", "3")]
    assert all(float(figure) > 0 for row in rows for figure in row[2:])
