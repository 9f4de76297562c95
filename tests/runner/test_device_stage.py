"""A run whose final model goes to a device, in the Runtime's local testing mode: killed, resumed, verified, damaged."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from backends.runtime.ledger import Job
from circuits.errors import QrunError
from runner import ledger as ledger_module
from runner.schema import schema
from tests.runner.device_runs import ON_DEVICE, ON_RUNTIME, TINY, Played, false_ids, play, resume, verified

pytestmark = pytest.mark.filterwarnings("ignore")


def purposes(result: dict[str, Any]) -> list[tuple[str, int, int, int]]:
    return [(j["purpose"], j["round"], j["base"], j["node"]) for j in result["jobs"]]


def what_repeats(result: dict[str, Any]) -> Any:
    """All of a result that does not hang on keys, tags and time."""
    run = copy.deepcopy(result["device_run"] or {})
    for node in run.get("nodes", []):
        node["jobs"] = len(node["jobs"])
    jobs = [(j["key"], j["request"], j["result"], j["circuits"]) for j in result["jobs"]]
    return [run, sorted(jobs), result["metrics"], result["final"], [n["metrics"] for n in result["nodes"]]]


# -- what a result says ------------------------------------------------------------------------------------------------


def test_the_final_model_is_scored_beside_its_twin(on_device: Played) -> None:
    folder, result = on_device
    assert not list(Draft202012Validator(schema()).iter_errors(result))
    run = result["device_run"]
    assert (run["backend"], run["engine"], run["samples"], run["shots"]) == ("fake_lima", "local", 17, 64)
    assert [(n["id"], n["samples"]) for n in run["nodes"]] == [(0, 9), (1, 8)]
    assert run["metrics"]["test"]["device"] is None
    scored = run["metrics"]["holdout"]
    assert scored["twin"] == result["metrics"]["holdout"]
    assert scored["device"]["threshold"] == scored["twin"]["threshold"] == scored["same_latents"]["threshold"]
    assert scored["device"] != scored["same_latents"]
    assert scored["recalibrated"]["threshold"] != scored["twin"]["threshold"]
    assert run["agreement"]["from_shots"] > 0
    assert run["ignored"]
    assert result["backend"]["engine"] == "twin"
    assert "mode" not in result["backend"]
    # Steps on the device are labelled, counted and told; everything else was done on the exact twin.
    tuned = [("fine-tune", 1, 0, node) for node in (0, 0, 1, 1)]
    assert purposes(result) == [*tuned, ("device", 1, 0, 0), ("device", 1, 0, 1)]
    for node in result["rounds"][0]["nodes"]:
        assert node["resources"]["circuits"] == 2 * 3 * 8
        assert node["resources"]["shots"] == 2 * 3 * 8 * 64
        assert {"generator_on_device", "discriminator_on_device"} < set(node["losses"])
    shown = json.loads((folder / "result.json").read_bytes())
    assert shown == result


def test_every_piece_of_work_on_the_engine_is_labelled(on_runtime: Played) -> None:
    _, result = on_runtime
    assert not list(Draft202012Validator(schema()).iter_errors(result))
    nodes = [[("train", 1, 0, i)] * 3 + [("measure", 1, 0, i)] for i in (0, 1)]
    # The final model and the nodes' last ones were measured in their round: those jobs answer.
    assert purposes(result) == [*nodes[0], *nodes[1], ("aggregate", 1, 0, -1)]
    backend = result["backend"]
    assert (backend["engine"], backend["local"], backend["mode"]) == ("runtime", True, "session")
    assert backend["options"]["shots"] == 32
    assert backend["ignored"]
    assert result["device_run"] is None
    # 3 steps of a batch at three points, and the samples that the model is measured with.
    assert result["rounds"][0]["nodes"][0]["resources"]["circuits"] == 3 * 3 * 8 + 16


def test_a_run_without_jobs_says_so_and_its_models_are_those_without_a_device(tmp_path: Path) -> None:
    result = play(tmp_path / "run", TINY)
    assert (result["jobs"], result["sessions"], result["device_run"]) == ([], [], None)
    assert result["qpu"] == {"total": 0, "jobs": 0, "idle": 0, "by_purpose": {}}
    assert verified(tmp_path / "run").sound


def test_the_final_table_shows_the_device_beside_its_twin(
    on_device: Played, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from runner.view import show_result

    folder, result = on_device
    monkeypatch.setenv("COLUMNS", "160")
    show_result(result, folder)
    shown = capsys.readouterr().out
    scored = result["device_run"]["metrics"]["holdout"]
    for name in ("twin", "twin, same latents", "device", "device, recalibrated"):
        assert name in shown
    for figures in scored.values():
        assert f"{figures['auroc']:.4f}" in shown
    assert "fake_lima, local testing mode: 17 samples of 64 shots" in shown
    assert f"{result['device_run']['agreement']['mean_absolute_difference']:.4f} +- " in shown
    assert "6, mode local session; 0.0 QPU seconds" in shown
    assert "max_execution_time" in shown  # what the local mode ignores
    assert "\noptions" not in shown  # none was in force
    run = result["device_run"]
    for options, said in (
        ({"twirling": "all", "resilience_level": 2}, "gates and readout twirled, resilience level 2"),
        ({"dynamical_decoupling": "XX", "twirling": "measure"}, "dynamical decoupling XX, readout twirled"),
        ({"resilience_level": 0}, "resilience level 0"),
    ):
        show_result({**result, "device_run": {**run, "options": {**run["options"], **options}}}, folder)
        assert re.search(rf"^options +{said}$", capsys.readouterr().out, re.MULTILINE)


def test_a_result_of_the_format_before_is_read_and_shown_and_verified(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from runner.run_folder import read_result
    from runner.view import show_result

    folder = tmp_path / "run"
    earlier = play(folder, {**TINY, "steps_per_epoch": 1})
    earlier = {k: v for k, v in earlier.items() if k not in ("device_run", "jobs", "sessions", "qpu", "detection")}
    del earlier["backend"]["snapshot_cid"]
    (folder / "result.json").write_text(json.dumps({**earlier, "format": "qrun-result/2"}))
    found = read_result(folder)
    assert (found["format"], found["jobs"], found["device_run"]) == ("qrun-result/2", [], None)
    assert found["detection"] is None
    show_result(found, folder)
    assert "hold-out" in capsys.readouterr().out
    # The nodes stated the digest of the file that was there; of this one everything else holds.
    assert false_ids(verified(folder, data=True)) == {"end/0/report", "end/1/report"}
    for broken in ({"format": "qrun-result/3"}, {"format": "qrun-result/4"}, {"metrics": None}):
        (folder / "result.json").write_text(json.dumps({**earlier, "format": "qrun-result/2", **broken}))
        with pytest.raises(QrunError, match="damaged"):
            read_result(folder)


# -- killed and resumed ------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """What no code may catch, as it may not catch a kill."""


def dies(patch: pytest.MonkeyPatch, purpose: str, nth: int) -> None:
    """Die after the nth job of a purpose is kept."""
    kept: Callable[..., Job] = ledger_module.RunLedger.keep
    seen = 0

    def keep(self: Any, job: Job, result: bytes) -> Job:
        nonlocal seen
        done = kept(self, job, result)
        seen += job.key.startswith(f"{purpose}/")
        if seen == nth and job.key.startswith(f"{purpose}/"):
            raise Killed
        return done

    patch.setattr(ledger_module.RunLedger, "keep", keep)


@pytest.mark.parametrize(("purpose", "nth"), [("fine-tune", 1), ("fine-tune", 4), ("device", 1), ("device", 2)])
def test_killed_on_the_device_it_goes_on_to_the_same_end(
    on_device: Played, tmp_path: Path, purpose: str, nth: int
) -> None:
    whole = on_device[1]
    folder = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        dies(patch, purpose, nth)
        with pytest.raises(Killed):
            play(folder, ON_DEVICE)
    result = resume(folder, whole["run"])
    assert what_repeats(result) == what_repeats(whole)
    took = [[n["resources"][k] for k in ("circuits", "shots", "qpu_seconds")] for n in result["rounds"][0]["nodes"]]
    assert took == [
        [n["resources"][k] for k in ("circuits", "shots", "qpu_seconds")] for n in whole["rounds"][0]["nodes"]
    ]
    assert len({j["key"] for j in result["jobs"]}) == len(result["jobs"]), "a job was sent twice"


@pytest.mark.parametrize(("purpose", "nth"), [("train", 5), ("measure", 1), ("aggregate", 1)])
def test_killed_on_the_engine_it_goes_on_to_the_same_end(
    on_runtime: Played, tmp_path: Path, purpose: str, nth: int
) -> None:
    whole = on_runtime[1]
    with pytest.MonkeyPatch.context() as patch:
        dies(patch, purpose, nth)
        with pytest.raises(Killed):
            play(tmp_path / "run", ON_RUNTIME)
    result = resume(tmp_path / "run", whole["run"])
    assert what_repeats(result) == what_repeats(whole)
    assert [n["resources"]["circuits"] for n in result["rounds"][0]["nodes"]] == [88, 88]
