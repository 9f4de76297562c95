"""Runs with mitigation: as many jobs as without, the same from the same seed, resumed and verified as any other."""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from typer.testing import CliRunner

from backends.runtime.local import LocalClient
from runner.audit.mitigation import says_worse
from runner.calibration import target_of
from runner.cli import app
from runner.compiled import generator_for
from runner.estimate import compiled_for, estimate
from runner.mitigated import PURPOSES
from runner.models import model_for
from runner.options import config_from
from runner.schema import schema
from runner.store import RunIndex
from tests.runner.conftest import environment
from tests.runner.device_runs import Played, false_ids, play, resume, verified
from tests.runner.test_estimate import check
from tests.runner.test_main_job import what_repeats

pytestmark = pytest.mark.filterwarnings("ignore")

TINY: dict[str, Any] = {
    "backend": "fake_manila",
    "nodes": 2,
    "rounds": 1,
    "qubits": 4,
    "reps": 1,
    "steps_per_epoch": 2,
    "batch": 2,
    "neighbours": 3,
    "test": False,
    "mitigation": "readout+zne",
}
ON_RUNTIME: dict[str, Any] = {**TINY, "engine": "runtime", "shots": 32, "model": {"samples": 16}}
ON_DEVICE: dict[str, Any] = {
    **TINY,
    "runtime": {"run_on": "fake_belem", "shots": 64, "samples": 17, "fine_tune": 2},
    "mitigation": {"stack": "readout+twirl", "twirl_circuits": 2},
}


def played(factory: pytest.TempPathFactory, options: dict[str, Any]) -> Played:
    folder = factory.mktemp("mitigated") / "run"
    return folder, play(folder, options)


@pytest.fixture(scope="module")
def on_runtime(tmp_path_factory: pytest.TempPathFactory) -> Played:
    return played(tmp_path_factory, ON_RUNTIME)


@pytest.fixture(scope="module")
def on_device(tmp_path_factory: pytest.TempPathFactory) -> Played:
    return played(tmp_path_factory, ON_DEVICE)


def requests(folder: Path) -> Counter[str]:
    """What the jobs with a result asked for."""
    with sqlite3.connect(folder / "state.sqlite") as sql:
        rows = [json.loads(row[0]) for row in sql.execute("select body from jobs")]
    return Counter(row["request"] for row in rows if row["state"] == "done")


@pytest.mark.parametrize(("which", "options"), [("on_runtime", ON_RUNTIME), ("on_device", ON_DEVICE)])
def test_a_step_stays_one_job_of_as_many_circuits_as_was_estimated(
    which: str, options: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    _, result = request.getfixturevalue(which)
    assert not list(Draft202012Validator(schema()).iter_errors(result))
    config = config_from("nsl-kdd", options)
    target, circuit = compiled_for(config)
    found = estimate(config, circuit, target)
    check(found, result["jobs"])
    plain = config_from("nsl-kdd", {**options, "mitigation": "none"})
    without = estimate(plain, circuit, target)
    assert [stage.jobs for stage in found.stages] == [stage.jobs for stage in without.stages]
    each = 3 if which == "on_runtime" else 2
    assert found.total.circuits == each * without.total.circuits
    assert found.total.qpu_seconds > 2 * without.total.qpu_seconds - 2.0 * without.total.jobs
    assert found.to_dict()["overhead"] == {"training": each, "evaluation": each}
    assert "mitigation" not in without.to_dict()


@pytest.mark.parametrize("which", ["on_runtime", "on_device"])
def test_it_is_verified_without_a_job(which: str, request: pytest.FixtureRequest) -> None:
    folder, result = request.getfixturevalue(which)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalClient, "submit", lambda *_: pytest.fail("a job was sent"))
        found = verified(folder, data=True)
    assert found.findings.of("false") == []
    assert not found.findings.of("not checked")
    held = {entry.id for entry in found.findings.of("holds")}
    assert {"result/mitigation", "result/mitigation/stack", "result/mitigation/forecast"} <= held
    assert {f"jobs/{job['tag']}/result" for job in result["jobs"]} <= held
    if which == "on_device":
        assert {"metrics/device/samples", "result/mitigation/device"} <= held
        assert {f"jobs/{job['tag']}/request" for job in result["jobs"] if job["purpose"] == "device"} <= held


CLAIMS: dict[str, tuple[tuple[str, ...], Any]] = {
    "result/mitigation/stack": (("stack",), "readout"),
    "result/mitigation/apply": (("apply",), "training"),
    "result/mitigation": ((), None),
    "result/mitigation/circuits": (("circuits", "training"), 2.0),
    "result/mitigation/forecast": (("forecast", "error_with"), 0.0),
}


@pytest.mark.parametrize("id_", CLAIMS)
def test_what_a_result_claims_of_mitigation_is_checked(on_runtime: Played, tmp_path: Path, id_: str) -> None:
    here = Path(shutil.copytree(on_runtime[0], tmp_path / "run"))
    result = json.loads((here / "result.json").read_bytes())
    place, value = CLAIMS[id_]
    if place:
        spot = result["mitigation"]
        for key in place[:-1]:
            spot = spot[key]
        assert spot[place[-1]] != value
        spot[place[-1]] = value
    else:
        del result["mitigation"]
    (here / "result.json").write_text(json.dumps(result))
    assert id_ in false_ids(verified(here, data=id_.endswith(("circuits", "forecast"))))


@pytest.mark.parametrize("where", ["forecast", "device"])
@pytest.mark.parametrize(
    ("error", "uncertainty", "worse"),
    [(0.03, 0.002, False), (0.05, 0.002, True), (0.05, 0.02, False), (0.04, 0.0, True), (0.04, 0.0, False)],
)
def test_a_forecast_says_worse_where_its_figures_do(where: str, error: float, uncertainty: float, worse: bool) -> None:
    figures = {"error_with": error, "error_without": 0.04, "uncertainty": uncertainty}

    def holds(said: object) -> bool:
        told = {**figures, "worse": said}
        return says_worse(told if where == "forecast" else {"circuits": {}, "forecast": told})

    assert holds(worse)
    assert holds(not worse) == (error == 0.04)  # at the bound a digit that was rounded off decides
    assert says_worse(None)


def test_a_result_without_mitigation_must_not_tell_of_one(on_runtime: Played, tmp_path: Path) -> None:
    folder = tmp_path / "plain" / "run"
    plain = play(folder, {**TINY, "mitigation": "none"})
    assert "mitigation" not in plain
    assert plain["final"]["cid"] != on_runtime[1]["final"]["cid"]
    (folder / "result.json").write_text(json.dumps({**plain, "mitigation": on_runtime[1]["mitigation"]}))
    assert "result/mitigation" in false_ids(verified(folder))


def test_the_same_seed_gives_the_same_models_on_the_twin(tmp_path: Path) -> None:
    stack = {"stack": "twirl+zne", "twirl_circuits": 2, "scale_factors": [1, 3], "apply": "training"}
    one, two = (play(tmp_path / name / "run", {**TINY, "nodes": 1, "mitigation": stack}) for name in ("a", "b"))
    assert what_repeats(one) == what_repeats(two)
    assert one["mitigation"] == two["mitigation"]
    assert one["mitigation"]["circuits"] == {"training": 4.0}


@pytest.mark.parametrize("apply", ["both", "training", "evaluation"])
def test_what_is_mitigated_is_what_was_asked_for(apply: str) -> None:
    config = config_from("nsl-kdd", {**TINY, "mitigation": {"stack": "readout", "apply": apply}})
    target = target_of(config.backend, None)
    model = model_for(config, target, generator_for(config, target), "cpu")
    for purpose in PURPOSES:
        assert (model.engine(purpose) is model.executor) == (apply not in ("both", purpose))


@pytest.fixture
def stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Counter[str]]:
    """A run that was interrupted as its fourth job was to be sent, and what it had sent by then."""
    sent: Counter[str] = Counter()
    submit = LocalClient.submit

    def some(client: LocalClient, part: Any, *args: Any, **options: Any) -> Any:
        if sent.total() == 3 and not resumed:
            raise KeyboardInterrupt
        sent[part.digest] += 1
        return submit(client, part, *args, **options)

    resumed: list[bool] = []
    monkeypatch.setattr(LocalClient, "submit", some)
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        play(folder, ON_RUNTIME)
    resumed.append(True)
    return folder, sent


def test_interrupted_and_resumed_no_job_is_sent_twice_and_the_end_is_the_same(
    stopped: tuple[Path, Counter[str]], on_runtime: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, sent = stopped
    assert sent.total() == 3
    monkeypatch.setenv("QRUN_HOME", str(folder.parent / "home"))
    (run,) = [info.run for info in RunIndex().list()]
    again = resume(folder, run)
    assert what_repeats(again) == what_repeats(on_runtime[1])
    assert again["mitigation"] == on_runtime[1]["mitigation"]
    assert sent.most_common(1)[0][1] == 1
    assert requests(folder) == requests(on_runtime[0]) == sent
    assert verified(folder, data=True).findings.of("false") == []


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [4])
def test_killed_and_resumed_no_answer_is_asked_for_twice(on_runtime: Played, tmp_path: Path, jobs: int) -> None:
    out, home = tmp_path / "killed", tmp_path / "home"
    file = tmp_path / "run.toml"
    file.write_text(
        'engine = "runtime"\nbackend = "fake_manila"\nnodes = 2\nrounds = 1\nshots = 32\nmitigation = "readout+zne"\n'
        "[data]\ntest = false\n[model]\nqubits = 4\nreps = 1\nsteps_per_epoch = 2\nbatch = 2\nneighbours = 3\n"
        "samples = 16\n"
    )
    command = [sys.executable, "-m", "runner.cli", "experiment", "nsl-kdd", "--config", str(file), "--out", str(out)]
    process = subprocess.Popen(command, env=environment(home), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while len(list((out / "jobs").glob("*.json"))) < jobs and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "result.json").exists()
    kept = requests(out)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QRUN_HOME", str(home))
        (run,) = [info.run for info in RunIndex().list()]
    assert what_repeats(resume(out, run)) == what_repeats(on_runtime[1])
    assert kept <= requests(out) == requests(on_runtime[0])


def test_the_summary_and_runs_show_tell_of_it(on_runtime: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, result = on_runtime
    monkeypatch.setenv("QRUN_HOME", str(folder.parent / "home"))
    monkeypatch.setenv("COLUMNS", "160")
    shown = " ".join(CliRunner().invoke(app, ["runs", "show", result["run"]]).stdout.split())
    assert "mitigation.stack readout+zne" in shown
    assert (
        "readout+zne at training and evaluation; circuits for each unmitigated one: training 3, evaluation 3" in shown
    )
    assert result["mitigation"]["forecast"]["sentence"][:60] in shown
    told = json.loads(CliRunner().invoke(app, ["runs", "show", result["run"], "--json"]).stdout)
    assert told["result"]["mitigation"] == result["mitigation"]


def test_what_auto_chose_and_why_stands_in_the_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import qrun
    from backends.mitigation.calibrate import Choice

    monkeypatch.setattr(
        "backends.mitigation.calibrate.choose", lambda *_, **__: Choice("readout", "readout: it was best.", ())
    )
    monkeypatch.setenv("QRUN_HOME", str(tmp_path / "home"))
    result = qrun.run("nsl-kdd", out=tmp_path / "run", **{**TINY, "mitigation": "auto"})
    assert result["config"]["mitigation"] == {
        "stack": "readout", "apply": "both", "budget": 100.0, "readout": "calibration",
    }  # fmt: skip
    assert "readout: it was best." in result["mitigation"]["chosen"]
    assert result["mitigation"]["circuits"] == {"training": 1.0, "evaluation": 1.0}
    found = verified(tmp_path / "run", data=True)
    assert found.findings.of("false") == []
    assert "result/mitigation/chosen" in {entry.id for entry in found.findings.of("attested")}


def test_that_auto_chose_none_stands_in_the_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from backends.mitigation.calibrate import Choice

    monkeypatch.setattr(
        "backends.mitigation.calibrate.choose", lambda *_, **__: Choice("none", "none: it is best.", ())
    )
    folder = tmp_path / "run"
    result = play(folder, {**TINY, "nodes": 1, "mitigation": "auto"})
    assert "mitigation" not in result
    assert "none: it is best." in json.loads((folder / "config.json").read_bytes())["chosen"]
    assert verified(folder).findings.of("false") == []


def test_the_loss_with_infidelity_is_part_of_a_run(tmp_path: Path) -> None:
    options = {**ON_RUNTIME, "nodes": 1, "infidelity_weight": 0.5}
    folder = tmp_path / "run"
    result = play(folder, options)
    assert not list(Draft202012Validator(schema()).iter_errors(result))
    config = config_from("nsl-kdd", options)
    target, circuit = compiled_for(config)
    check(estimate(config, circuit, target), result["jobs"])
    (lost,) = result["rounds"][0]["nodes"][0]["losses"]["infidelity"]
    assert 0.0 < lost < 1.0
    assert verified(folder, data=True).findings.of("false") == []


def test_a_depth_is_kept_in_a_run_and_one_that_cannot_be_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {**TINY, "nodes": 1, "mitigation": "none"}
    config = config_from("nsl-kdd", small)
    plain = generator_for(config, target_of(config.backend, None))
    result = play(tmp_path / "run", {**small, "max_depth": plain.depth - 1})
    assert result["backend"]["depth"] < plain.depth
    assert result["config"]["model"]["max_depth"] == plain.depth - 1
    assert verified(tmp_path / "run", data=True).findings.of("false") == []
    monkeypatch.setenv("QRUN_HOME", str(tmp_path / "other"))
    out = CliRunner().invoke(
        app, ["experiment", "nsl-kdd", "--backend", "fake_manila", "--qubits", "4", "--max-depth", "2"]
    )
    assert out.exit_code == 1, out.output
    (said,) = [line for line in out.stderr.splitlines() if line.startswith("qrun: ")]
    assert "depth" in said
    assert RunIndex().list() == []
