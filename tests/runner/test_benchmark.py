"""`qrun benchmark`, `qrun ablate`, `qrun experiment --model`: wrong input in a line, rows made once, statistics."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from experiments.detection import ATTACK_FAMILIES, PARTS, THRESHOLDS
from runner.benchmark.ablation import ARMS
from runner.benchmark.ablation import Table as Ablation
from runner.benchmark.ablation_table import sentence
from runner.benchmark.compare import Table, timed
from runner.benchmark.rows import RATES, Row
from runner.benchmark.stats import Mean, holm, paired, power
from runner.benchmark.table import interval, sentences
from runner.cli import app
from runner.report.figure4 import Curves, picture
from tests.experiments.test_qgan import benign, model

TINY = "rounds = 1\nbackend = 'fake_manila'\n[model]\nqubits = 2\nreps = 1\nsteps_per_epoch = 2\n[data]\ntest = false\n"


def call(*options: str) -> Any:
    return CliRunner().invoke(app, list(options))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["experiment", "nsl-kdd", "--model", "gausian-mixture"], "Did you mean 'gaussian-mixture'"),
        (["experiment", "nsl-kdd", "--model", "pca", "--chain", "http://x"], "--chain does nothing with --model pca"),
        (["experiment", "nsl-kdd", "--model", "pca", "--dry-run"], "--dry-run does nothing"),
        (["experiment", "nsl-kdd", "--model", "pca", "--qubits", "1"], "qubits = 1"),
        (["benchmark", "nsl-kdd", "--models", "pca,qgam"], "Did you mean 'qgan'"),
        (["benchmark", "nsl-kdd", "--seeds", "0"], "--seeds 0"),
        (["benchmark", "nsl-kd"], "Did you mean 'nsl-kdd'"),
        (["benchmark", "nsl-kdd", "--preset", "bset"], "unknown preset 'bset'"),
        (["ablate", "nsl-kdd", "--preset", "bset"], "unknown preset 'bset'"),
        (["benchmark", "nsl-kdd", "--models", "pca", "--seeds", "1", "--out", "/nowhere/at/all"], "/nowhere/at/all"),
        (["ablate", "nsl-kdd", "--seeds", "-1"], "--seeds -1"),
        (["ablate", "nsl-kdd", "--records", "3"], "at least a batch"),
    ],
    ids=lambda v: " ".join(v)[:50],
)
def test_wrong_input_is_bad_usage(options: list[str], said: str) -> None:
    done = call(*options)
    assert done.exit_code == 2, done.output
    assert said in done.stderr
    assert "internal error" not in done.stderr
    assert done.stdout == ""


@pytest.mark.slow
def test_a_baseline_is_run_in_place_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QRUN_HOME", str(tmp_path / "home"))
    config = tmp_path / "tiny.toml"
    config.write_text(TINY)
    done = call("experiment", "nsl-kdd", "--model", "gaussian-mixture", "--config", str(config), "--json")
    assert done.exit_code == 0, done.stderr
    body = json.loads(done.stdout)
    assert (body["format"], body["model"], body["features"], body["parameters"]) == (
        "qrun-baseline/1",
        "gaussian-mixture",
        "agreed",
        None,
    )
    assert "rounds" not in body
    assert "chain" not in body
    assert body["detection"]["test"] is None
    assert set(body["detection"]["holdout"]) == set(THRESHOLDS)
    assert set(body["isolated"]["holdout"]) == {"accuracy", "f1", "auroc"}
    assert not (tmp_path / "home" / "runs").exists()
    shown = call("experiment", "nsl-kdd", "--model", "classical-gan", "--config", str(config))
    assert shown.exit_code == 0, shown.stderr
    assert "Recall by family" in shown.stdout
    assert "(generator)" in shown.stdout


def test_time_is_told_apart_by_kinds_of_steps() -> None:
    """However many discriminator steps follow a round, none of them counts as one with the circuit."""
    known = model(detector_steps=20_000)
    bench: Any = SimpleNamespace(model=lambda: known, tables=lambda name: SimpleNamespace(train=[benign()]))
    with known.executor:
        step, detector = timed(bench)
    assert 0 < step < 0.5
    assert 0 <= detector < 0.1


@pytest.mark.slow
def test_the_benchmark_reuses_runs_and_goes_on_with_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QRUN_HOME", str(tmp_path / "home"))
    config, out, figure = tmp_path / "tiny.toml", tmp_path / "rows.jsonl", tmp_path / "figure.png"
    config.write_text(TINY)
    options = ["benchmark", "nsl-kdd", "--seeds", "2", "--models", "qgan,qgan-central", "--models", "classical-gan"]
    options += ["--config", str(config), "--out", str(out)]
    first = call(*options, "--json", "--figure", str(figure))
    assert first.exit_code == 0, first.stderr
    assert "6 rows to make: about" in first.stderr
    body = json.loads(first.stdout)
    order = [(r["model"], r["seed"]) for r in body["rows"]]
    assert order == [(m, s) for m in ("qgan", "qgan-central", "classical-gan") for s in (0, 1)]
    assert {d["part"] for d in body["differences"]} == {"holdout"}
    assert len(body["sentences"]) == 2
    assert "Membership inference" in body["sentences"][1]
    for one in body["rows"][:2]:
        assert 0.4 < one["membership"]["final"] < 0.6  # two steps learn nobody by heart
        assert len(one["membership"]["rounds"]) == 1
    assert figure.read_bytes().startswith(b"\x89PNG")
    runs = sorted((tmp_path / "home" / "runs").iterdir())
    assert len(runs) == 2
    # A torn row is made again, from the run that is there; the others are not.
    kept = out.read_bytes().splitlines(keepends=True)
    out.write_bytes(b"".join(kept[:-1]) + kept[-1][:40])
    again = call(*options, "--json")
    assert again.exit_code == 0, again.stderr
    assert "1 rows to make" in again.stderr
    rows = [{k: v for k, v in r.items() if k != "seconds"} for r in json.loads(again.stdout)["rows"]]
    assert rows == [{k: v for k, v in r.items() if k != "seconds"} for r in body["rows"]]
    out.unlink()
    anew = call(*options[:-2], "--json")
    assert "(2 finished runs reused)" in anew.stderr
    assert sorted((tmp_path / "home" / "runs").iterdir()) == runs
    # The same file with other options is refused, and a damaged row is named.
    assert call(*options, "--json").exit_code == 0
    other = call(*options, "--qubits", "3")
    assert other.exit_code == 2
    assert "rows of another table" in other.stderr
    text = out.read_text().replace('"accuracy": 0.', '"accuracy": 7.', 1)
    out.write_text(text)
    assert "line 2: not a row" in call(*options).stderr
    shown = call(*options[:-2])
    assert "Label-free threshold, hold-out" in shown.stdout
    assert call(*options[:-2], "--markdown").stdout.startswith("**Label-free threshold")


@pytest.mark.slow
def test_the_ablation_plays_every_arm_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QRUN_HOME", str(tmp_path / "home"))
    config, out = tmp_path / "tiny.toml", tmp_path / "rows.jsonl"
    config.write_text(TINY)
    options = ["ablate", "nsl-kdd", "--seeds", "2", "--records", "100", "--config", str(config), "--out", str(out)]
    first = call(*options, "--json")
    assert first.exit_code == 0, first.stderr
    body = json.loads(first.stdout)
    assert [(r["model"], r["seed"]) for r in body["rows"]] == [(a, s) for a in ARMS for s in (0, 1)]
    assert len(body["differences"]) == (len(ARMS) - 1) * 2
    assert body["records"] == 100
    again = call(*options)
    assert again.exit_code == 0
    assert "Detection by generator" in again.stdout
    assert "Holm's rule" in again.stdout
    mitigated = call(*options, "--markdown")
    assert mitigated.stdout.startswith("| generator |")


# -- statistics --------------------------------------------------------------------------------------------------------


def test_the_interval_is_students() -> None:
    values = [0.95, 0.96, 0.94, 0.955, 0.945]
    mean = Mean.of(values)
    assert mean.mean == pytest.approx(0.95)
    assert mean.half == pytest.approx(2.776445 * np.std(values, ddof=1) / math.sqrt(5), rel=1e-6)
    assert Mean.of([0.5]).half is None
    assert interval([0.95, 0.96]) == ".9550±.0635"
    assert interval([0.5]) == ".5000"
    assert interval([0.5, None]) == "-"


def test_a_pair_has_effect_p_and_power_as_scipy_and_simulation_have_them() -> None:
    from scipy.stats import ttest_rel

    rng = np.random.default_rng(0)
    one = rng.normal(0.5, 0.1, 8)
    two = one - rng.normal(0.05, 0.05, 8)
    found = paired(one.tolist(), two.tolist())
    assert found.p == pytest.approx(float(ttest_rel(one, two).pvalue))
    assert found.effect == pytest.approx(np.mean(one - two) / np.std(one - two, ddof=1))
    assert found.none == (found.p > 0.05)
    drawn = rng.normal(0.8, 1.0, (20_000, 10))
    t = drawn.mean(1) / drawn.std(1, ddof=1) * math.sqrt(10)
    assert power(0.8, 10) == pytest.approx((np.abs(t) > 2.262157).mean(), abs=0.01)
    assert power(0.0, 10) == pytest.approx(0.05, abs=1e-6)
    assert found.detectable is not None
    assert power(found.detectable / np.std(one - two, ddof=1), 8) == pytest.approx(0.8, abs=1e-6)


@pytest.mark.parametrize("values", [[[0.5], [0.4]], [[0.5, 0.5], [0.5, 0.5]], [[0.75, 0.5], [0.5, 0.25]]])
def test_what_has_no_deviation_has_no_test(values: list[list[float]]) -> None:
    found = paired(*values)
    assert found.p is None
    assert found.effect is None


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holms_rule_keeps_order_and_never_lowers(p: list[float]) -> None:
    found = holm(p)
    assert all(a >= b for a, b in zip(found, p, strict=True))
    assert all(0 <= a <= 1 for a in found)
    order = np.argsort(p, kind="stable")
    assert (np.diff(np.array(found)[order]) >= 0).all()
    assert found[int(order[0])] == pytest.approx(min(1.0, len(p) * min(p)))


def row(model: str, seed: int, value: float) -> Row:
    figures = {**dict.fromkeys(RATES, value), "threshold": 1.0, "false_positive_rate": 0.05}
    figures["recall_by_family"] = dict.fromkeys(ATTACK_FAMILIES, value)  # type: ignore[assignment]
    return Row(model, seed, {part: dict.fromkeys(THRESHOLDS, figures) for part in PARTS}, None, 60, 1.0)


def told(quantum: list[float], classical: list[float]) -> str:
    rows = [row("qgan-central", s, v) for s, v in enumerate(quantum)]
    rows += [row("classical-gan", s, v) for s, v in enumerate(classical)]
    (said,) = sentences(Table(rows, "official"))
    return said


def test_the_table_says_where_the_quantum_generator_adds_nothing() -> None:
    same = told([0.90, 0.92, 0.91], [0.91, 0.91, 0.91])
    assert same.startswith(
        "The quantum generator adds nothing over the classical one of as many parameters: every interval includes 0"
    )
    assert "KDDTest+" in same
    assert "is better than the classical one" in told([0.90, 0.92, 0.911], [0.80, 0.82, 0.81])
    assert "is worse than the classical one" in told([0.80, 0.82, 0.811], [0.90, 0.92, 0.91])
    assert "says nothing of chance" in told([0.9], [0.8])


def test_the_ablation_says_what_is_told_apart() -> None:
    def table(trained: list[float], others: list[float]) -> Ablation:
        rows = [row(arm, s, v) for arm in ARMS for s, v in enumerate(trained if arm == ARMS[0] else others)]
        return Ablation(rows, "official")

    assert "told apart from none" in sentence(table([0.90, 0.92, 0.91], [0.91, 0.915, 0.905]))
    assert "is better than untrained (F1 on hold-out)" in sentence(
        table([0.9, 0.92, 0.911, 0.9, 0.91], [0.7, 0.72, 0.71, 0.7, 0.71])
    )
    assert "says nothing of chance" in sentence(table([0.9], [0.8]))


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_figure_is_drawn_with_gaps_too(seeds: int) -> None:
    values = np.random.default_rng(0).uniform(0.8, 1, (seeds, 4, 3))
    holes = values.copy()
    holes[0, 1, 2] = np.nan
    assert picture(Curves(holes, values, "stand-in", "fake_kyiv")).startswith(b"\x89PNG")
