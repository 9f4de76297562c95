"""A run whose final model goes to a device, in the Runtime's local testing mode: killed, resumed, verified, damaged."""

from __future__ import annotations

import copy
import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from backends.runtime.ledger import Job
from circuits.errors import QrunError
from contracts.cid import cid_of
from contracts.store import BlockStore
from runner import ledger as ledger_module
from runner.audit.audit import Audit, WithData, audit
from runner.audit.sources import gather
from runner.schema import schema

TINY: dict[str, Any] = {
    "backend": "fake_manila",
    "nodes": 2,
    "rounds": 1,
    "qubits": 3,
    "reps": 1,
    "steps_per_epoch": 3,
    "batch": 8,
    "test": False,
}
ON_DEVICE: dict[str, Any] = {**TINY, "runtime": {"run_on": "fake_lima", "shots": 64, "samples": 17, "fine_tune": 2}}
ON_RUNTIME: dict[str, Any] = {**TINY, "engine": "runtime", "shots": 32, "model": {"samples": 16}}

pytestmark = pytest.mark.filterwarnings("ignore")


def play(folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    import qrun

    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setenv("QRUN_HOME", str(folder.parent / "home"))
        return dict(qrun.run("nsl-kdd", out=folder, **options))


def resume(folder: Path, run: str) -> dict[str, Any]:
    from runner.run import resume as go_on

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QRUN_HOME", str(folder.parent / "home"))
        return go_on(run)


@pytest.fixture(scope="module")
def on_device(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("device") / "run"
    return folder, play(folder, ON_DEVICE)


@pytest.fixture(scope="module")
def on_runtime(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("runtime") / "run"
    return folder, play(folder, ON_RUNTIME)


def verified(folder: Path, *, data: bool = False) -> Audit:
    with gather(str(folder)) as evidence:
        return audit(evidence, data=WithData() if data else None)


def false_ids(found: Audit) -> set[str]:
    return {check.id for check in found.findings.of("false")}


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


def test_the_final_model_is_scored_beside_its_twin(on_device: tuple[Path, dict[str, Any]]) -> None:
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


def test_every_piece_of_work_on_the_engine_is_labelled(on_runtime: tuple[Path, dict[str, Any]]) -> None:
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
    on_device: tuple[Path, dict[str, Any]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
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


def test_a_result_of_the_format_before_is_read_and_shown_and_verified(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from runner.run_folder import read_result
    from runner.view import show_result

    folder = tmp_path / "run"
    earlier = play(folder, {**TINY, "steps_per_epoch": 1})
    earlier = {k: v for k, v in earlier.items() if k not in ("device_run", "jobs", "sessions", "qpu")}
    del earlier["backend"]["snapshot_cid"]
    (folder / "result.json").write_text(json.dumps({**earlier, "format": "qrun-result/2"}))
    found = read_result(folder)
    assert (found["format"], found["jobs"], found["device_run"]) == ("qrun-result/2", [], None)
    show_result(found, folder)
    assert "hold-out" in capsys.readouterr().out
    # The nodes stated the digest of the file that was there; of this one everything else holds.
    assert false_ids(verified(folder, data=True)) == {"end/0/report", "end/1/report"}
    for broken in ({"format": "qrun-result/3"}, {"metrics": None}):
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
    on_device: tuple[Path, dict[str, Any]], tmp_path: Path, purpose: str, nth: int
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
    on_runtime: tuple[Path, dict[str, Any]], tmp_path: Path, purpose: str, nth: int
) -> None:
    whole = on_runtime[1]
    with pytest.MonkeyPatch.context() as patch:
        dies(patch, purpose, nth)
        with pytest.raises(Killed):
            play(tmp_path / "run", ON_RUNTIME)
    result = resume(tmp_path / "run", whole["run"])
    assert what_repeats(result) == what_repeats(whole)
    assert [n["resources"]["circuits"] for n in result["rounds"][0]["nodes"]] == [88, 88]


# -- verified ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["on_device", "on_runtime"])
def test_the_figures_follow_from_the_kept_results(which: str, request: pytest.FixtureRequest) -> None:
    folder, result = request.getfixturevalue(which)
    with pytest.MonkeyPatch.context() as patch:
        # Nothing is run again, not even locally.
        patch.setattr("backends.runtime.local.LocalClient.submit", lambda *_: pytest.fail("a job was sent"))
        found = verified(folder, data=True)
    assert found.findings.of("false") == []
    assert found.sound
    assert not found.findings.of("not checked")
    held = {check.id for check in found.findings.of("holds")}
    assert {f"jobs/{job['tag']}/result" for job in result["jobs"]} <= held
    assert {"jobs/1/0/seconds", "jobs/1/1/seconds", "jobs/qpu", "metrics/final/holdout"} <= held
    if which == "on_device":
        assert {"metrics/device/metrics", "metrics/device/samples", "jobs/device/agreement"} <= held


def block_of(folder: Path, cid: str) -> Path:
    return next((folder / "blocks").rglob(f"{cid}*"))


@pytest.mark.parametrize(
    ("which", "purpose", "ids"),
    [("on_device", "device", {"metrics/device/samples"}), ("on_runtime", "measure", {"metrics/1/0"})],
)
def test_damage_to_a_kept_result_is_found_and_named(
    which: str, purpose: str, ids: set[str], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    folder, result = request.getfixturevalue(which)
    here = Path(shutil.copytree(folder, tmp_path / "run"))
    job = next(j for j in result["jobs"] if j["purpose"] == purpose)
    block = block_of(here, job["cid"])
    raw = bytearray(block.read_bytes())
    raw[len(raw) // 2] ^= 1
    block.write_bytes(bytes(raw))
    assert f"jobs/{job['tag']}/result" in false_ids(verified(here))
    assert ids <= false_ids(verified(here, data=True))
    block.unlink()
    assert f"jobs/{job['tag']}/result" in false_ids(verified(here))


def test_another_result_under_a_jobs_name_is_found(on_runtime: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """Whole, well formed, and of another job: the digest of the request is what tells."""
    here = Path(shutil.copytree(on_runtime[0], tmp_path / "run"))
    result = json.loads((here / "result.json").read_bytes())
    one, other = (j for j in result["jobs"] if j["purpose"] == "measure")
    one["cid"], one["result"] = other["cid"], other["result"]
    (here / "result.json").write_text(json.dumps(result))
    assert {"metrics/1/0"} <= false_ids(verified(here, data=True))
    one["result"] = "0" * 64
    (here / "result.json").write_text(json.dumps(result))
    assert f"jobs/{one['tag']}/result" in false_ids(verified(here))


EDITS: list[tuple[tuple[Any, ...], Any, str]] = [
    (("jobs", 0, "qpu_seconds"), 5.0, "jobs/1/0/seconds"),
    (("jobs", 0, "counted"), 5.0, "jobs/1/0/seconds"),
    (("jobs", 0, "counted"), None, "jobs/1/0/seconds"),
    (("jobs", 0, "qpu_seconds"), "a lot", "jobs/form"),
    (("jobs", 0, "node"), 1, "jobs/{tag}/key"),
    (("jobs", 4, "node"), 1, "jobs/device/0/jobs"),
    (("jobs", 0, "extra"), 1, "jobs/form"),
    (("sessions",), [{}], "jobs/form"),
    (("qpu", "total"), 1.0, "jobs/qpu"),
    (("device_run", "qpu_seconds"), 1.0, "jobs/device/qpu_seconds"),
    (("device_run", "nodes", 0, "qpu_seconds"), 1.0, "jobs/device/0/seconds"),
    (("device_run", "nodes", 1, "jobs"), ["qrun-other"], "jobs/device/1/jobs"),
    (("device_run", "nodes", 1, "samples"), 9, "jobs/device/samples_file"),
    (("device_run", "nodes"), [{}], "jobs/device/form"),
    (("device_run", "agreement", "mean_absolute_difference"), 0.0, "jobs/device/agreement"),
    (("device_run", "mode"), "job", "jobs/device/mode"),
    (("device_run", "samples_cid"), str(cid_of(b"none")), "jobs/device/samples_file"),
    (("device_run", "snapshot_cid"), str(cid_of(b"none")), "jobs/device_run/calibration"),
]


@pytest.mark.parametrize(("place", "value", "id_"), EDITS)
def test_an_edited_figure_of_the_device_is_named(
    on_device: tuple[Path, dict[str, Any]], tmp_path: Path, place: tuple[Any, ...], value: Any, id_: str
) -> None:
    here = Path(shutil.copytree(on_device[0], tmp_path / "run"))
    result = json.loads((here / "result.json").read_bytes())
    if place[:1] == ("jobs",) and place[-1] == "qpu_seconds" and isinstance(value, float):
        result["jobs"][0] |= {"local": False, "estimate": 2.0}
    spot: Any = result
    for key in place[:-1]:
        spot = spot[key]
    spot[place[-1]] = value
    (here / "result.json").write_text(json.dumps(result))
    assert id_.format(tag=result["jobs"][0]["tag"]) in false_ids(verified(here))


def test_metrics_that_the_device_did_not_give_are_found_with_the_data(
    on_device: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    here = Path(shutil.copytree(on_device[0], tmp_path / "run"))
    result = json.loads((here / "result.json").read_bytes())
    result["device_run"]["metrics"]["holdout"]["device"]["auroc"] += 0.01
    result["device_run"]["depth"] += 1
    (here / "result.json").write_text(json.dumps(result))
    assert {"metrics/device/metrics", "metrics/device/depth"} <= false_ids(verified(here, data=True))
    # Samples that fit what is told, and are not those of the kept results.
    store = BlockStore(here / "blocks")
    samples = json.loads(store.get(result["device_run"]["samples_cid"], max_bytes=1 << 20))
    samples["nodes"][0]["device"][0][0] += 0.01
    result["device_run"]["samples_cid"] = store.put(json.dumps(samples).encode())
    (here / "result.json").write_text(json.dumps(result))
    assert "metrics/device/samples" in false_ids(verified(here, data=True))


def test_hostile_samples_give_no_traceback(on_device: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    here = Path(shutil.copytree(on_device[0], tmp_path / "run"))
    result = json.loads((here / "result.json").read_bytes())
    store = BlockStore(here / "blocks")
    good = json.loads(store.get(result["device_run"]["samples_cid"], max_bytes=1 << 20))
    entry = good["nodes"][0]
    for body in (
        b"",
        b"[]",
        b'{"format": "qrun-samples/1"}',
        json.dumps({**good, "nodes": []}).encode(),
        json.dumps({**good, "nodes": 7}).encode(),
        json.dumps({**good, "nodes": [{**entry, "twin": [["x"]]}]}).encode(),
        json.dumps({**good, "nodes": [{**entry, "twin": entry["twin"][:-1]}]}).encode(),
        json.dumps({**good, "nodes": [{**entry, "device": [[1.0], [1.0, 2.0]]}]}).encode(),
        json.dumps({**good, "nodes": [{**entry, "id": "0"}]}).encode(),
    ):
        result["device_run"]["samples_cid"] = store.put(body)
        (here / "result.json").write_text(json.dumps(result))
        assert "jobs/device/samples_file" in false_ids(verified(here))
