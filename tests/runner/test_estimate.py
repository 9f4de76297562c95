"""What a run is said to send, and what it sends: the estimate against the ledger of small runs, job by job."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from backends.runtime import account
from backends.runtime.standin import Fault, StandIn
from backends.runtime.standin.fixture import runtime_standin
from backends.runtime.types import JobLimits, RuntimeOptions
from circuits.errors import UsageError
from runner.cli import app
from runner.estimate import OPEN_PLAN_SECONDS, Estimate, compiled_for, estimate, share_of, split
from runner.options import config_from

__all__ = ["runtime_standin"]

CLI = CliRunner()
PURPOSES = {
    "training": "train",
    "validation": "measure",
    "aggregates": "aggregate",
    "final": "final",
    "fine-tuning": "fine-tune",
    "device run": "device",
}
TINY = {"steps_per_epoch": 2, "batch": 2, "samples": 16, "qubits": 3, "reps": 1}
"""A model whose run takes seconds."""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home of its own for what runs in this process."""
    monkeypatch.setenv("QRUN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NO_COLOR", "1")


def asked(*args: str) -> dict[str, Any]:
    """What a command says with --json, in this process."""
    done = CLI.invoke(app, [*args, "--json"])
    assert done.exit_code == 0, done.stderr
    return dict(json.loads(done.stdout))


def estimated(**options: Any) -> Estimate:
    config = config_from("nsl-kdd", options)
    target, circuit = compiled_for(config)
    return estimate(config, circuit, target)


def toml(path: Path, tables: dict[str, dict[str, Any]]) -> Path:
    """A config file of these tables, and no test file."""
    lines = ["[data]", "test = false"]
    for name, table in tables.items():
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
    path.write_text("\n".join(lines))
    return path


def check(found: Estimate, jobs: list[dict[str, Any]]) -> None:
    """Every stage has the jobs, circuits and shots that the run's result tells, and no job is of another stage."""
    sent = Counter(job["purpose"] for job in jobs)
    assert sent == +Counter({PURPOSES[stage.name]: stage.jobs for stage in found.stages})
    for stage in found.stages:
        mine = [job for job in jobs if job["purpose"] == PURPOSES[stage.name]]
        assert sum(job["circuits"] for job in mine) == stage.circuits, stage.name
        assert sum(job["circuits"] * job["shots"] for job in mine) == stage.shots, stage.name
    assert len(jobs) == found.total.jobs


@pytest.mark.slow
@pytest.mark.parametrize(
    ("nodes", "more"),
    [
        (2, {}),
        (1, {}),  # the common model is the node's own: it is not measured twice
        (3, {"federation": {"aggregation": "krum"}}),  # and so is krum's, which picks one
        (2, {"model": {"gradient": "parameter-shift"}}),
    ],
)
def test_a_run_on_the_device_sends_what_was_estimated(
    mine: None, tmp_path: Path, nodes: int, more: dict[str, dict[str, Any]]
) -> None:
    tables = {**more, "model": {**TINY, **more.get("model", {})}}
    options = ["--backend", "fake_manila", "--engine", "runtime", "--nodes", str(nodes), "--rounds", "2"]
    file = toml(tmp_path / "tiny.toml", tables)
    done = asked("experiment", "nsl-kdd", *options, "--shots", "32", "--config", str(file))
    found = estimated(backend="fake_manila", engine="runtime", nodes=nodes, rounds=2, shots=32, **tables)
    assert found.total.jobs > 0
    check(found, done["jobs"])
    told = asked("estimate", "nsl-kdd", *options, "--shots", "32", "--config", str(file))
    assert told["estimates"][0]["total"] == found.total.to_dict()


@pytest.mark.slow
@pytest.mark.usefixtures("mine")
def test_a_run_that_trains_on_the_twin_sends_what_was_estimated_to_the_service(
    runtime_standin: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs, circuits, shots, and to the last digit the QPU seconds that each job was expected to take."""
    tables: dict[str, dict[str, Any]] = {"model": TINY, "runtime": {"run_on": "ibm_torino", "shots": 64}}
    file = toml(tmp_path / "tiny.toml", tables)
    options = ["--nodes", "2", "--rounds", "1", "--fine-tune", "2", "--device-samples", "17"]
    monkeypatch.setenv("HOME", str(tmp_path))
    account.disconnect()
    done = CLI.invoke(app, ["experiment", "nsl-kdd", *options, "--config", str(file), "--json"])
    assert done.exit_code == 0, done.stderr
    jobs = json.loads(done.stdout)["jobs"]
    told = CLI.invoke(app, ["estimate", "nsl-kdd", *options, "--config", str(file), "--json"])
    assert told.exit_code == 0, told.stderr
    (found,) = json.loads(told.stdout)["estimates"]
    assert [(s["name"], s["jobs"], s["circuits"]) for s in found["stages"]] == [
        ("fine-tuning", 4, 24),
        ("device run", 2, 17),
    ]
    for stage in found["stages"]:
        mine = [job for job in jobs if job["purpose"] == PURPOSES[stage["name"]]]
        assert len(mine) == stage["jobs"]
        assert sum(job["circuits"] * job["shots"] for job in mine) == stage["shots"]
        assert sum(job["estimate"] for job in mine) == pytest.approx(stage["qpu_seconds"], abs=2e-3)
    assert len(runtime_standin.accepted()) == found["total"]["jobs"] == len(jobs)
    assert runtime_standin.settings.token not in done.stdout + done.stderr + told.stdout + told.stderr


def test_both_ways_side_by_side(mine: None) -> None:
    told = asked("estimate", "nsl-kdd", "--backend", "fake_torino")
    direct, after = told["estimates"]
    assert (direct["way"], after["way"]) == ("on the device", "trained on the twin")
    # 5 rounds, 3 nodes, 60 steps; 256 samples for 15 own and 5 common models; none is asked for twice.
    assert [(s["name"], s["jobs"], s["circuits"]) for s in direct["stages"]] == [
        ("training", 900, 900 * 96),
        ("validation", 15, 15 * 256),
        ("aggregates", 5, 5 * 256),
        ("final", 0, 0),
    ]
    assert (after["total"]["jobs"], after["total"]["circuits"], after["total"]["shots"]) == (3, 256, 262_144)
    assert direct["plan"]["share"] > 10  # ten minutes are for the other way
    assert after["plan"]["share"] < 0.2
    assert after["plan"]["seconds"] == OPEN_PLAN_SECONDS
    table = CLI.invoke(app, ["estimate", "nsl-kdd", "--backend", "fake_torino"]).stdout
    assert "times the Open plan's 10 minutes" in table
    assert "trained on the twin" in table


def test_a_real_plan_is_asked_for_what_it_has_left(
    runtime_standin: StandIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("QRUN_HOME", str(tmp_path / "home"))
    account.disconnect()
    runtime_standin.settings.plan, runtime_standin.settings.spent = "open", 500.0
    config = config_from("nsl-kdd", {"runtime": {"run_on": "ibm_kyiv"}, **TINY})
    target, circuit = compiled_for(config)
    found = estimate(config, circuit, target)
    share = share_of(found, target)
    assert share.seconds == 100.0
    assert share.share == pytest.approx(found.total.qpu_seconds / 100.0)
    assert "the open plan has left" in share.of
    runtime_standin.settings.spent = 600.0
    assert share_of(found, target).share is None
    runtime_standin.faults.add(Fault("GET", r"/instances/usage$", status=403, times=9))
    assert share_of(found, target).seconds == OPEN_PLAN_SECONDS
    assert "does not tell its usage" in share_of(found, target).of


@given(
    circuits=st.integers(0, 5000),
    most=st.integers(1, 300),
    shots=st.integers(1, 4096),
    executions=st.integers(4096, 10_000_000),
)
def test_splitting_loses_nothing_and_keeps_the_limits(circuits: int, most: int, shots: int, executions: int) -> None:
    jobs = list(split(circuits, RuntimeOptions(shots=shots), JobLimits(most, executions)))
    assert sum(jobs) == circuits
    assert all(1 <= rows <= most and (rows * shots <= executions or rows == 1) for rows in jobs)


def test_splitting_is_that_of_the_engine() -> None:
    """The same halves, in the same order."""
    import numpy as np

    from backends.catalog import get_target
    from backends.protocol import Request
    from backends.runtime.pubs import parts
    from circuits.compile import compile_ansatz
    from circuits.qgan import generator
    from experiments.models.outputs import z_strings

    target = get_target("fake_manila")
    compiled = compile_ansatz(generator(2, 1), target.backend, seed=0)
    options, limits = RuntimeOptions(shots=100, twirling="all"), JobLimits(50, 3000)
    for rows in (1, 23, 24, 97, 512):
        request = Request(compiled, z_strings(2, 2), np.zeros((rows, 2)), np.zeros(len(compiled.weights)))
        jobs = parts([request], target, options, 0, local=False, limits=limits)
        assert [job.rows for job in jobs] == list(split(rows, options, limits))


def test_more_of_anything_takes_more() -> None:
    base = estimated(backend="fake_torino", engine="runtime", **TINY)
    for more in ({"rounds": 6}, {"nodes": 4}, {"shots": 2048}, {"epochs": 2}, {"runtime": {"resilience_level": 1}}):
        assert estimated(backend="fake_torino", engine="runtime", **{**TINY, **more}).total.qpu_seconds > (
            base.total.qpu_seconds
        )


def test_what_sends_nothing_is_refused(mine: None) -> None:
    config = config_from("nsl-kdd", {"backend": "fake_manila", **TINY})
    with pytest.raises(UsageError, match="sends no jobs"):
        compiled_for(config)
    done = CLI.invoke(app, ["estimate", "nsl-kdd", "--backend", "ideal"])
    assert done.exit_code == 2
    assert "ideal is no device" in done.stderr
    two = CLI.invoke(app, ["estimate", "nsl-kdd", "--engine", "runtime", "--train-on", "twin"])
    assert two.exit_code == 2
    assert "name two engines" in two.stderr
    for option in (["--engine", "aer"], ["--engine", "twin"], ["--train-on", "twin"], ["--engine", "warp"]):
        nothing = CLI.invoke(app, ["estimate", "nsl-kdd", *option])
        assert nothing.exit_code == 2
        assert f"{' '.join(option)}: such a run sends nothing" in nothing.stderr
        assert len(nothing.stderr.splitlines()) == 1
    small = CLI.invoke(app, ["estimate", "nsl-kdd", "--backend", "fake_manila"])
    assert small.exit_code == 2
    assert "fake_manila has 5" in small.stderr
