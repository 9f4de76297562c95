"""A comparison from its grid to its figures: what is there is reused, what was stopped goes on."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from circuits.errors import QrunError
from runner.compare.compare import Compared
from runner.compare.evaluate import evaluate, open_run
from runner.compare.evaluation import FOLDER, recall
from runner.compare.work import known_runs
from runner.report.build import build
from runner.report.document import interval
from runner.report.material import check_same_data, from_comparison
from runner.report.runs import find_runs, material_of
from runner.run_folder import read_result
from runner.store import RunIndex
from tests.runner.compare.conftest import grid, played

pytestmark = pytest.mark.slow


def test_a_model_where_it_was_trained_has_the_figures_of_its_run(compared: Compared) -> None:
    checked = 0
    for cell, evaluation in compared.evaluations:
        if evaluation["as_trained"] is None:
            result = compared.results[cell.run.digest.hex()]
            assert evaluation["metrics"] == result["metrics"]
            checked += 1
    assert checked == 2 * 3  # ideal twice (a model run once, and its own), the device once


def test_noise_moves_expectation_values_and_mitigation_moves_them_back(compared: Compared) -> None:
    apart = {
        (cell.question, cell.point.label, cell.stack, cell.seed): e["expectations"]["mean"]
        for cell, e in compared.evaluations
    }
    for seed in (0, 1):
        assert apart["once", "ideal", "none", seed] == 0
        assert apart["once", "fake_manila", "none", seed] > apart["once", "fake_manila", "zne", seed] > 0


def test_what_is_there_is_not_made_again(compared: Compared, at_home: Path, tiny: Path, data_dir: Path) -> None:
    told: list[str] = []
    again = played(grid(tiny), data_dir, told=told)
    assert again.seconds == 0
    assert any("nothing is to be done but the report" in text for text in told)
    assert [e for _, e in again.evaluations] == [e for _, e in compared.evaluations]


def test_a_damaged_evaluation_is_made_again_and_is_the_same(
    compared: Compared, at_home: Path, tiny: Path, data_dir: Path
) -> None:
    path = next(iter(compared.paths.values()))
    file = next((path / FOLDER).iterdir())
    before = json.loads(file.read_text())
    for damaged in (b"{", json.dumps({**before, "distances": {"mmd2": "x"}}).encode(), b"[" * 100):
        file.write_bytes(damaged)
        told: list[str] = []
        played(grid(tiny), data_dir, told=told)
        assert any(re.search(r"evaluations to do; 4 finished runs are reused", text) for text in told)
        after = json.loads(file.read_text())
        assert {k: v for k, v in after.items() if k != "seconds"} == {k: v for k, v in before.items() if k != "seconds"}


def test_an_interrupted_run_goes_on(compared: Compared, at_home: Path, tiny: Path, data_dir: Path) -> None:
    digest, path = next(iter(compared.paths.items()))
    before = read_result(path)
    (path / "result.json").unlink()
    shutil.rmtree(path / FOLDER)
    again = played(grid(tiny), data_dir)
    assert again.paths[digest] == path
    assert again.results[digest]["final"] == before["final"]
    assert len(known_runs()[digest]) == 1


def test_other_seeds_play_only_what_is_new(compared: Compared, at_home: Path, tiny: Path, data_dir: Path) -> None:
    told: list[str] = []
    found = played(grid(tiny, seeds=[1]), data_dir, told=told)
    assert found.seconds == 0
    report = build(from_comparison(found))
    assert "One seed" in report.notices[0]
    rows = next(t for t in report.tables() if t.id == "detection-holdout").rows
    assert all(row["auroc"]["low"] is None for row in rows)
    assert all(row.get("auroc_p_holm") is None for row in rows)
    assert interval(rows[0]["auroc"]) == f"{rows[0]['auroc']['mean']:.4f}"


def test_the_sentences_name_figures_of_the_tables(compared: Compared) -> None:
    report = build(from_comparison(compared))
    asked, once, each = report.sentences
    assert "fake_manila" in asked
    assert "4 trainings over 2 seeds" in asked
    rows = {
        (r["models"], r["place"], r["mitigation"]): r
        for r in next(t for t in report.tables() if t.id == "detection-holdout").rows
    }
    ideal = rows["trained on ideal", "ideal", "none"]["auroc"]["mean"]
    there = rows["trained there", "fake_manila", "none"]
    assert f"hold-out AUROC, {ideal:.4f} without noise" in once
    assert f"hold-out AUROC is {there['auroc']['mean']:.4f} on fake_manila" in each
    apart = np.subtract(
        [r["metrics"]["holdout"]["auroc"] for r in _results(compared, "fake_manila")],
        [r["metrics"]["holdout"]["auroc"] for r in _results(compared, "ideal")],
    )
    assert there["auroc_apart"]["mean"] == pytest.approx(apart.mean())


def _results(compared: Compared, backend: str) -> list[dict[str, object]]:
    found = [r for r in compared.results.values() if r["config"]["backend"] == backend]
    return sorted(found, key=lambda r: r["config"]["seed"])


def test_a_report_on_runs_tests_them_against_ideal(compared: Compared, at_home: Path, data_dir: Path) -> None:
    names = sorted(r["run"] for r in compared.results.values())
    found, notices = find_runs(names)
    material = material_of(found, notices, data=data_dir, workers=1, evaluates=False, progress=lambda *_: None)
    report = build(material)
    rows = next(t for t in report.tables() if t.id == "detection-holdout").rows
    mine = {row["place"]: row for row in rows}
    theirs = {
        r["place"]: r
        for r in next(t for t in build(from_comparison(compared)).tables() if t.id == "detection-holdout").rows
        if r["mitigation"] == "none" and (r["models"] == "trained there" or r["place"] == "ideal")
    }
    for place in ("ideal", "fake_manila"):
        assert mine[place]["auroc"] == theirs[place]["auroc"]
    assert mine["fake_manila"]["auroc_apart"] == theirs["fake_manila"]["auroc_apart"]


def test_runs_on_different_data_are_refused_with_what_differs(compared: Compared) -> None:
    one = next(iter(compared.results.values()))
    name = next(iter(one["dataset"]["sha256"]))
    other = {
        **one,
        "run": "other",
        "dataset": {**one["dataset"], "sha256": {**one["dataset"]["sha256"], name: "0" * 64}},
    }
    with pytest.raises(QrunError, match="are on different data") as error:
        check_same_data([one, other])
    assert name in str(error.value)
    stand_in = {**one, "run": "other", "dataset": {**one["dataset"], "source": "stand-in"}}
    with pytest.raises(QrunError, match="data source: official and stand-in"):
        check_same_data([one, stand_in])


def test_a_half_finished_run_is_left_out_and_alone_refused(compared: Compared, at_home: Path, data_dir: Path) -> None:
    index = RunIndex()
    try:
        manifest = index.manifest(index.list()[0].run)
        info = index.create("half", None, manifest)
    finally:
        index.close()
    try:
        finished = next(iter(compared.results.values()))["run"]
        found, notices = find_runs([finished, "half"])
        assert [result["run"] for _, result in found] == [finished]
        assert "`qrun runs resume half`" in notices[0]
        with pytest.raises(QrunError, match="interrupted, not finished"):
            find_runs(["half"])
    finally:
        index = RunIndex()
        index.remove(index.find("half"))
        index.close()
        assert not info.path.exists()


def test_a_run_whose_model_was_changed_is_not_evaluated(compared: Compared, tmp_path: Path, data_dir: Path) -> None:
    path = next(iter(compared.paths.values()))
    copy = tmp_path / "copy"
    shutil.copytree(path, copy)
    file = copy / "models" / "final.json"
    file.write_bytes(file.read_bytes().replace(b"1", b"2", 1))
    with pytest.raises(QrunError, match="not the model that the result names"):
        open_run(copy, data_dir)


def test_evaluations_can_be_moved_with_the_folder(compared: Compared, tmp_path: Path) -> None:
    cell, evaluation = compared.evaluations[0]
    copy = tmp_path / "copy"
    shutil.copytree(compared.paths[cell.run.digest.hex()], copy)
    found = recall(copy, read_result(copy), cell.profile)
    assert found is not None
    assert {**found, "seconds": 0} == {**evaluation, "seconds": 0}
    runs, _ = find_runs([str(copy)])
    assert runs[0][1]["run"] == evaluation["run"]


def test_shots_and_scaled_noise_are_profiles_too(compared: Compared, data_dir: Path, at_home: Path) -> None:
    cell = next(c for c, _ in compared.evaluations if c.question == "each" and c.point.label == "fake_manila")
    run = open_run(compared.paths[cell.run.digest.hex()], data_dir)
    values = {
        name: evaluate(run, [cell.run.model_copy(update=update)])[0]["expectations"]["mean"]
        for name, update in {
            "quiet": {"noise_scale": 0.0},
            "plain": {},
            "loud": {"noise_scale": 3.0},
            "shots": {"noise_scale": 0.0, "shots": 64},
        }.items()
    }
    assert values["quiet"] < 1e-5
    assert values["quiet"] < values["plain"] < values["loud"]
    assert 0.01 < values["shots"] < 0.2  # sqrt(2 / pi) / 8 at most


@pytest.mark.server
def test_a_dask_cluster_of_two_workers_gives_the_same(
    compared: Compared, tiny: Path, tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distributed = pytest.importorskip("distributed")
    monkeypatch.setenv("QRUN_HOME", str(tmp_path / "home"))
    told: list[str] = []
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0", host="127.0.0.1"
    ) as local:
        found = played(grid(tiny), data_dir, cluster=local.scheduler_address, told=told)
    assert any("with 2 processes" in text for text in told)
    assert len(RunIndex().list()) == 4
    for digest, result in found.results.items():
        assert result["final"] == compared.results[digest]["final"]
        assert result["metrics"] == compared.results[digest]["metrics"]
        assert not (found.paths[digest] / "keys.json").exists()
    without = [{k: v for k, v in e.items() if k not in ("seconds", "run")} for _, e in found.evaluations]
    expected = [{k: v for k, v in e.items() if k not in ("seconds", "run")} for _, e in compared.evaluations]
    assert without == expected
    # They are runs like any other: the same command goes on from them, without the cluster.
    assert played(grid(tiny), data_dir).seconds == 0


def test_a_scheduler_that_is_not_there_is_told(tiny: Path, data_dir: Path) -> None:
    pytest.importorskip("distributed")
    with pytest.raises(QrunError, match="no address of a Dask scheduler"):
        played(grid(tiny), data_dir, cluster="somewhere")


def test_a_comparison_that_was_killed_goes_on(compared: Compared, tiny: Path, tmp_path: Path, data_dir: Path) -> None:
    home = tmp_path / "home"
    command = [
        sys.executable, "-m", "runner.cli", "compare", "nsl-kdd", "--config", str(tiny), "--backends", "fake_manila",
        "--seeds", "2", "--jobs", "2", "--data", str(data_dir), "--out", str(tmp_path / "report"),
    ]  # fmt: skip
    environment = {**os.environ, "QRUN_HOME": str(home), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    end = time.monotonic() + 600
    while not list(home.glob("runs/*/chain.sqlite")):  # it is in the middle of its first runs
        assert process.poll() is None, "it has ended"
        assert time.monotonic() < end
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not list(home.glob("runs/*/result.json"))
    begun = {path.name for path in home.glob("runs/*")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    assert begun <= {path.name for path in home.glob("runs/*")}
    finals = {(r["config"]["backend"], r["config"]["seed"]): r["final"]["cid"] for r in compared.results.values()}
    for path in home.glob("runs/*"):
        result = read_result(path)
        assert result["final"]["cid"] == finals[result["config"]["backend"], result["config"]["seed"]]
    assert (tmp_path / "report" / "report.html").is_file()
    assert "1. Asked: does the noise of fake_manila" in done.stdout
    assert "to do" in done.stderr  # a time is said beforehand


def test_removing_a_run_takes_its_evaluations(
    compared: Compared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QRUN_HOME", str(tmp_path / "home"))
    path = next(iter(compared.paths.values()))
    index = RunIndex()
    info = index.create("gone", None, {})
    shutil.copytree(path, info.path, dirs_exist_ok=True)
    assert (info.path / FOLDER).is_dir()
    index.remove(index.find("gone"))
    index.close()
    assert not info.path.exists()
