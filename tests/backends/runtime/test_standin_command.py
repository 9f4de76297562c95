"""`python -m backends.runtime.standin`, and what importing the package loads."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from backends.runtime.standin.__main__ import main

ROOT = Path(__file__).parents[3]


def test_it_serves_what_it_prints_until_interrupted() -> None:
    command = [sys.executable, "-m", "backends.runtime.standin", "--device", "fake_torino", "--plan", "open"]
    # A shell's background job ignores Ctrl-C, and so would what it starts.
    earlier = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    finally:
        signal.signal(signal.SIGINT, earlier)
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(9)]
        pairs = dict(shlex.split(line)[1].split("=", 1) for line in lines)
        assert {"QISKIT_IBM_TOKEN", "QISKIT_IBM_INSTANCE", "QISKIT_IBM_CHANNEL", "QISKIT_IBM_URL", "IAM_URL"} < set(
            pairs
        )
        script = (
            "from qiskit_ibm_runtime import QiskitRuntimeService as S\n"
            "s = S(url_resolver=lambda url, *_: url)\n"
            "print([b.name for b in s.backends()], s.instances()[0]['plan'], s.usage()['usage_limit_seconds'])\n"
        )
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", script],
            env={**os.environ, **pairs},
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        assert done.stdout.split("\n")[-2] == "['ibm_torino'] open 600.0"
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.communicate()


def test_what_cannot_be_served(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--device", "fake_nowhere"]) == 2
    assert "unknown device 'fake_nowhere'" in capsys.readouterr().err
    assert main(["--port", "99999"]) != 0
    assert "error" in capsys.readouterr().err


def test_importing_the_package_loads_neither_qiskit_nor_pytest() -> None:
    script = (
        "import sys, backends.runtime.standin\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'qiskit', 'pytest', 'torch', 'qiskit_aer'}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"
