"""The device stage at the service (its stand-in): sent and left, resumed, paid for, and verified without it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from backends.runtime.errors import Detached
from backends.runtime.standin import Settings, StandIn
from runner.access import Said
from runner.audit.audit import Audit, WithData, audit
from runner.audit.sources import gather
from runner.config import RunConfig
from runner.options import config_from
from runner.places import Places
from runner.run import go_on, start
from runner.schema import schema

TINY: dict[str, Any] = {
    "backend": "fake_manila",
    "nodes": 2,
    "rounds": 1,
    "qubits": 3,
    "reps": 1,
    "steps_per_epoch": 2,
    "batch": 4,
    "test": False,
}

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """The stand-in with ibm_manila."""
    monkeypatch.setenv("QRUN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HOME", str(tmp_path))
    with StandIn(Settings(devices=("fake_manila",))) as made:
        for name, value in made.environment().items():
            monkeypatch.setenv(name, value)
        yield made


def config(**runtime: Any) -> RunConfig:
    return config_from("nsl-kdd", {**TINY, "runtime": {"run_on": "ibm_manila", "shots": 32, "samples": 16, **runtime}})


def verified(folder: Path) -> Audit:
    with gather(str(folder)) as evidence:
        return audit(evidence, data=WithData())


def test_all_nodes_jobs_are_sent_and_left_and_collected_later(service: StandIn, tmp_path: Path) -> None:
    service.settings.plan = "open"
    service.settings.queue = 8.0
    with pytest.raises(Detached) as left:
        start(config(), Places(), out=tmp_path / "run", said=Said(detach=True))
    assert len(left.value.jobs) == 2
    assert len(service.accepted()) == 2
    service.settings.queue = 0.0
    result = go_on(left.value.run).result
    assert len(service.accepted()) == 2, "a job was sent twice"
    run = result["device_run"]
    assert (run["engine"], run["mode"], run["ignored"]) == ("service", "batch", [])
    assert {job["job_id"] for job in result["jobs"]} == set(left.value.jobs)
    assert run["qpu_seconds"] == pytest.approx(sum(job["qpu_seconds"] for job in result["jobs"]))
    assert run["qpu_seconds"] > 0
    assert result["qpu"]["by_purpose"] == {"device": pytest.approx(run["qpu_seconds"])}
    assert [n["resources"]["qpu_seconds"] for n in result["rounds"][0]["nodes"]] == [0.0, 0.0]


# Two jobs are expected to take 2.1 s each, and may take 6: both at once are more than 8.
ENOUGH_ONE_AFTER_THE_OTHER = 8.0


def test_a_bound_that_is_enough_one_after_the_other_is_enough(service: StandIn, tmp_path: Path) -> None:
    service.settings.plan = "open"
    result = start(
        config(), Places(), out=tmp_path / "run", said=Said(max_qpu_seconds=ENOUGH_ONE_AFTER_THE_OTHER)
    ).result
    assert len(service.accepted()) == len(result["jobs"]) == 2
    assert 0 < result["qpu"]["total"] <= ENOUGH_ONE_AFTER_THE_OTHER


def test_it_is_left_after_what_the_bound_allows_and_the_rest_is_sent_later(service: StandIn, tmp_path: Path) -> None:
    service.settings.plan = "open"
    service.hold()
    said = Said(max_qpu_seconds=ENOUGH_ONE_AFTER_THE_OTHER, detach=True)
    with pytest.raises(Detached) as left:
        start(config(), Places(), out=tmp_path / "run", said=said)
    assert len(left.value.jobs) == len(service.accepted()) == 1
    service.release()
    result = go_on(left.value.run).result
    assert len(service.accepted()) == len(result["jobs"]) == 2
    assert 0 < result["qpu"]["total"] <= ENOUGH_ONE_AFTER_THE_OTHER


def test_what_was_paid_is_stated_and_a_stranger_verifies_it_without_the_service(
    service: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = start(config(fine_tune=1), Places(), out=tmp_path / "run").result
    assert not list(Draft202012Validator(schema()).iter_errors(result))
    assert len(service.accepted()) == len(result["jobs"]) == 4
    assert result["device_run"]["mode"] == "session"
    # A session a node and piece of work; what a session waited is paid by whom it was opened for.
    assert len({job["session_id"] for job in result["jobs"]}) == len(result["sessions"]) == 4
    charged = {s["session_id"]: s["qpu_seconds"] for s in result["sessions"]}
    for node, job in zip(result["rounds"][0]["nodes"], result["jobs"][:2], strict=True):
        assert (job["purpose"], job["node"]) == ("fine-tune", node["id"])
        assert node["resources"]["qpu_seconds"] == pytest.approx(charged[job["session_id"]], abs=1e-3)
        assert job["counted"] == job["qpu_seconds"] > 0
    assert result["qpu"]["total"] == pytest.approx(sum(charged.values()), abs=1e-5)

    for name in service.environment():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("QRUN_HOME", str(tmp_path / "another home"))
    here = Path(shutil.copytree(tmp_path / "run", tmp_path / "copy"))
    for file in here.glob("calibration-*"):
        file.unlink()  # the store has the calibration too
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("backends.runtime.account.connect", lambda *_, **__: pytest.fail("the service was asked"))
        found = verified(here)
    assert found.findings.of("false") == []
    assert found.sound

    lied = json.loads((here / "result.json").read_bytes())
    lied["jobs"][0]["qpu_seconds"] += 1
    lied["device_run"]["snapshot_sha256"] = "0" * 64
    (here / "result.json").write_text(json.dumps(lied))
    with gather(str(here)) as evidence:
        false = {check.id for check in audit(evidence).findings.of("false")}
    assert {"jobs/1/0/seconds", "jobs/qpu", "jobs/device_run/calibration"} <= false
