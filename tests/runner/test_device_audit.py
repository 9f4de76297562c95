"""The audit of jobs and devices: what follows from results, config and chain, and what a run's owner could claim."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from contracts.cid import cid_of
from contracts.store import BlockStore
from tests.runner.device_runs import Played, false_ids, verified

pytestmark = pytest.mark.filterwarnings("ignore")


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


def test_another_result_under_a_jobs_name_is_found(on_runtime: Played, tmp_path: Path) -> None:
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


CLAIMS: list[tuple[str, tuple[Any, ...], Any, str]] = [
    # Another device, other options, the service instead of the local mode: of the device stage ...
    ("on_device", ("device_run", "backend"), "ibm_lima", "jobs/device_run/config"),
    ("on_device", ("device_run", "engine"), "service", "jobs/device_run/config"),
    ("on_device", ("device_run", "shots"), 4096, "jobs/device_run/config"),
    ("on_device", ("device_run", "options", "twirling"), "all", "jobs/device_run/config"),
    ("on_device", ("device_run", "ignored"), [], "jobs/device_run/config"),
    ("on_device", ("device_run", "snapshot_sha256"), "0" * 64, "jobs/device_run/config"),
    ("on_device", ("device_run",), None, "jobs/device/there"),
    ("on_runtime", ("device_run",), {}, "jobs/device/there"),
    # ... of the engine ...
    ("on_runtime", ("backend", "name"), "ibm_manila", "jobs/backend/config"),
    ("on_runtime", ("backend", "local"), False, "jobs/backend/config"),
    ("on_runtime", ("backend", "options", "resilience_level"), 2, "jobs/backend/config"),
    ("on_device", ("backend", "engine"), "runtime", "jobs/backend/config"),
    # ... and of a job.
    ("on_device", ("jobs", 0, "backend"), "ibm_lima", "jobs/{tag}/place"),
    ("on_device", ("jobs", 0, "local"), False, "jobs/{tag}/place"),
    ("on_device", ("jobs", 0, "shots"), 4096, "jobs/{tag}/place"),
    ("on_device", ("jobs", 0, "state"), "perfect", "jobs/{tag}/place"),
    ("on_runtime", ("jobs", 0, "circuits"), 1, "jobs/1/0/circuits"),
    ("on_device", ("jobs", 4, "circuits"), 1, "jobs/device/0/all"),
    ("on_device", ("jobs", 0, "session_id"), "cr7", "jobs/sessions"),
    # Shares of the samples, and the twin's figures beside the device's.
    ("on_device", ("device_run", "nodes", 0, "id"), 7, "jobs/device/shares"),
    ("on_device", ("device_run", "metrics", "holdout", "twin", "auroc"), 0.1, "jobs/device/twin"),
    ("on_device", ("device_run", "metrics", "holdout"), None, "jobs/device/twin"),
]


@pytest.mark.parametrize(("which", "claim"), [(which, tuple(claim)) for which, *claim in CLAIMS])
def test_what_the_config_does_not_say_is_found_without_the_data(
    which: str, claim: tuple[tuple[Any, ...], Any, str], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    place, value, id_ = claim
    here, result = copied(request.getfixturevalue(which), tmp_path)
    spot: Any = result
    for key in place[:-1]:
        spot = spot[key]
    assert spot[place[-1]] != value
    spot[place[-1]] = value
    assert id_.format(tag=result["jobs"][0]["tag"]) in false_after(here, result)


def copied(played: Played, tmp_path: Path) -> Played:
    """A copy of a run, whose result may be edited."""
    here = Path(shutil.copytree(played[0], tmp_path / "run"))
    return here, json.loads((here / "result.json").read_bytes())


def false_after(here: Path, result: dict[str, Any], *, data: bool = False) -> set[str]:
    """What is false once the run tells this result."""
    (here / "result.json").write_text(json.dumps(result))
    return false_ids(verified(here, data=data))


@pytest.mark.parametrize(
    ("which", "purpose", "ids"),
    [
        ("on_runtime", "train", {"jobs/1/0/train", "jobs/1/0/circuits"}),
        ("on_runtime", "measure", {"jobs/1/0/circuits"}),
        ("on_device", "fine-tune", {"jobs/1/0/fine-tune", "jobs/1/0/circuits"}),
        ("on_device", "device", {"jobs/device/0/all"}),
    ],
)
def test_a_job_that_is_left_out_or_added_is_found(
    which: str, purpose: str, ids: set[str], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Of the local mode, where no job takes a QPU second that would be missed."""
    here, result = copied(request.getfixturevalue(which), tmp_path)
    jobs = result["jobs"]
    place = [job["purpose"] for job in jobs].index(purpose)
    result["jobs"] = jobs[:place] + jobs[place + 1 :]
    assert ids <= false_after(here, result)
    parts = jobs[place]["key"].split("/")
    another = {**jobs[place], "tag": "qrun-another", "key": "/".join([*parts[:4], "9", *parts[5:]])}
    result["jobs"] = [*jobs, another]
    assert ids <= false_after(here, result)
    result["jobs"] = [*jobs, {**jobs[place], "tag": "qrun-another"}]
    assert "jobs/once" in false_after(here, result)


def test_work_that_the_run_has_not_is_found(on_device: Played, tmp_path: Path) -> None:
    here, result = copied(on_device, tmp_path)
    first = result["jobs"][0]
    added = [
        {**first, "tag": f"qrun-{n}", "key": f"{purpose}/{round_}/0/{node}/0/0", "purpose": purpose, "round": round_}
        | {"base": 0, "node": node}
        for n, (purpose, round_, node) in enumerate([("train", 1, 0), ("fine-tune", 2, 0), ("device", 1, 2)])
    ]
    result["jobs"] += added
    found = false_after(here, result)
    assert {f"jobs/{job['tag']}/place" for job in added} <= found
    assert f"jobs/{first['tag']}/place" not in found


def test_a_session_that_the_run_has_not_is_found(on_device: Played, tmp_path: Path) -> None:
    here, result = copied(on_device, tmp_path)
    result["sessions"] = [
        {"session_id": "cr7", "kind": "session", "backend": "ibm_lima", "node": 0, "qpu_seconds": 100.0}
    ]
    assert "jobs/sessions" in false_after(here, result)


def test_results_of_two_jobs_that_are_swapped_are_found_with_the_data(on_device: Played, tmp_path: Path) -> None:
    """The requests with them, so that each result answers something: each job asked for what its node would."""
    here, result = copied(on_device, tmp_path)
    one, other = (job for job in result["jobs"] if job["purpose"] == "device")
    for name in ("result", "cid"):
        one[name], other[name] = other[name], one[name]
    assert "metrics/device/samples" in false_after(here, result, data=True)
    one["request"], other["request"] = other["request"], one["request"]
    assert {f"jobs/{one['tag']}/request", f"jobs/{other['tag']}/request"} <= false_after(here, result, data=True)
    # A job that nothing asked for, whole, and with the node's circuits.
    one["request"] = "f" * 64
    assert f"jobs/{one['tag']}/request" in false_after(here, result, data=True)


@pytest.mark.parametrize("which", ["on_device", "on_runtime"])
def test_a_format_that_knows_no_jobs_hides_none(which: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    here, result = copied(request.getfixturevalue(which), tmp_path)
    bare = {k: v for k, v in result.items() if k not in ("device_run", "jobs", "sessions", "qpu", "detection")}
    assert "jobs/told" in false_after(here, {**bare, "format": "qrun-result/2"})


def test_samples_of_another_model_are_found(on_device: Played, tmp_path: Path) -> None:
    here, result = copied(on_device, tmp_path)
    store = BlockStore(here / "blocks")
    samples = json.loads(store.get(result["device_run"]["samples_cid"], max_bytes=1 << 20))
    for body in ({**samples, "model": "another"}, {**samples, "nodes": [*samples["nodes"], samples["nodes"][0]]}):
        result["device_run"]["samples_cid"] = store.put(json.dumps(body).encode())
        assert "jobs/device/samples_file" in false_after(here, result)


@pytest.mark.parametrize(("place", "value", "id_"), EDITS)
def test_an_edited_figure_of_the_device_is_named(
    on_device: Played, tmp_path: Path, place: tuple[Any, ...], value: Any, id_: str
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


def test_metrics_that_the_device_did_not_give_are_found_with_the_data(on_device: Played, tmp_path: Path) -> None:
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


def test_hostile_samples_give_no_traceback(on_device: Played, tmp_path: Path) -> None:
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
