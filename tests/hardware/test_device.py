"""Three tests on IBM's own service, together at most 60 QPU seconds (tests/hardware/budget.py).

Against the stand-in they are run by tests/test_hardware_guard.py; on hardware queues may take hours.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from backends import live
from backends.observables import single_z
from backends.protocol import Request
from backends.runtime import account
from backends.runtime.executor import RuntimeExecutor
from backends.runtime.ledger import MemoryLedger
from backends.runtime.types import Access, RuntimeContext, RuntimeOptions
from backends.twin.executor import TwinExecutor
from circuits.compile import compile_ansatz
from circuits.qgan import generator
from tests.hardware.budget import MOST, ONE_JOB, SMALL_RUN
from tests.runner.conftest import environment

HOURS = 3600.0
pytestmark = [pytest.mark.hardware, pytest.mark.timeout(int(12 * HOURS)), pytest.mark.filterwarnings("ignore")]

SMALL = """
rounds = 1
nodes = 2
[data]
test = false
[model]
qubits = 3
reps = 1
steps_per_epoch = 5
batch = 4
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Calibrations and runs go into a folder of the test; the saved account stays where it is."""
    monkeypatch.setenv("QRUN_HOME", str(tmp_path / "home"))
    assert ONE_JOB + SMALL_RUN <= MOST
    return tmp_path / "home"


def test_the_account_its_devices_a_calibration_and_an_estimate() -> None:
    """No QPU time: nothing is sent."""
    from runner.estimate import compiled_for, estimate, share_of
    from runner.options import config_from

    plan = account.allowance(account.connect())
    assert plan.remaining is None or plan.remaining >= 0
    found = live.devices()
    assert any(device.operational for device in found)
    name, why = live.pick("least-busy", generator(3, reps=1))
    assert name in why
    snapshot = live.fetch(name)
    target = live.hardware_target(snapshot)
    assert (target.name, target.kind) == (name, "hardware")
    assert target.num_qubits == next(device.qubits for device in found if device.name == name)
    config = config_from("nsl-kdd", {"qubits": 3, "runtime": {"run_on": name, "samples": 64, "shots": 128}})
    there, circuit = compiled_for(config)
    told = estimate(config, circuit, there)
    # At 64 x 128 shots and 3 jobs: between a microsecond and 10 ms a shot, and two seconds a job.
    assert 6.0 < told.total.qpu_seconds < 90.0
    assert share_of(told, there).seconds >= 0


def test_one_job_agrees_with_the_twin_and_is_found_by_its_tag() -> None:
    """Two circuits of 128 shots: all angles zero, where the device has to read +1 on every qubit, and random ones."""
    ansatz = generator(3, reps=1)
    name, _ = live.pick("least-busy", ansatz)
    target = live.hardware_target(live.fetch(name))
    compiled = compile_ansatz(ansatz, target.backend, seed=1)
    rng = np.random.default_rng(7)
    inputs, weights = np.zeros((2, 3)), np.zeros((2, len(compiled.weights)))
    inputs[1], weights[1] = rng.uniform(-1, 1, 3), rng.uniform(-1, 1, len(compiled.weights))
    request = Request(compiled, tuple(single_z(3)), inputs, weights)
    ledger = MemoryLedger()
    context = RuntimeContext(
        RuntimeOptions(shots=128), Access(mode="job", max_qpu_seconds=ONE_JOB), run="qrun-hardware-test"
    )
    with RuntimeExecutor(target, context, ledger) as executor:
        (result,) = executor.run([request])
    (exact,) = TwinExecutor(target, dtype=torch.float64).run([request])
    # Five standard errors of 128 shots at most, and as much drift since the calibration as leaves a device useful.
    assert np.abs(result.values - exact.values).max() < 5 / np.sqrt(128) + 0.3
    assert result.values[0].mean() > 0.5
    (job,) = ledger.jobs()
    assert (job.state, job.circuits, job.shots, job.local) == ("done", 2, 128, False)
    assert (job.qpu_seconds or job.estimate) <= ONE_JOB
    assert found_by_tag(job.tag) == [job.job_id]


def found_by_tag(tag: str, seconds: float = 60.0) -> list[str]:
    """Ids of the jobs with a tag; a job may show late."""
    until = time.monotonic() + seconds
    while True:
        jobs = [job.job_id() for job in account.connect().jobs(job_tags=[tag], limit=5)]
        if jobs or time.monotonic() > until:
            return jobs
        time.sleep(3)


def test_a_small_run_on_the_device_is_paid_within_its_bound_and_verified(home: Path, tmp_path: Path) -> None:
    file, out = tmp_path / "small.toml", tmp_path / "run"
    file.write_text(SMALL)

    def qrun(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "runner.cli", *words],
            capture_output=True,
            text=True,
            timeout=11 * HOURS,
            check=False,
            env=environment(home),
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    options = ["--train-on", "twin", "--run-on", "least-busy", "--shots", "128", "--device-samples", "32"]
    options += ["--max-qpu-seconds", str(SMALL_RUN), "--config", str(file), "--out", str(out), "--json"]
    result = json.loads(qrun("experiment", "nsl-kdd", *options))
    run = result["device_run"]
    assert (run["engine"], run["samples"], run["shots"]) == ("service", 32, 128)
    assert 0 < result["qpu"]["total"] <= SMALL_RUN
    # Shots alone make 0.05 to 0.09; a device that gives noise is 0.5 off.
    assert run["agreement"]["mean_absolute_difference"] < 0.35
    audit = json.loads(qrun("verify", str(out), "--json"))
    assert audit["sound"] is True, [check for check in audit["checks"] if check["verdict"] == "false"]
    assert audit["counts"]["jobs"]["holds"] > 0
