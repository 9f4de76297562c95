"""`qrun mitigation`: wrong input in one line, results alone on stdout, finished rows never computed again."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import pytest
from rich.console import Console, RenderableType
from rich.table import Table
from typer.testing import CliRunner

from backends.mitigation.compare import Row, Setup
from backends.mitigation.stack import TECHNIQUES
from circuits.errors import UsageError
from runner.cli import app
from runner.report.mitigation_learning import ARMS, METRICS, Line, _interruptible
from runner.report.mitigation_learning_table import ALL, BREAKS, pair, pairs
from runner.report.mitigation_learning_table import shown as learned
from runner.report.mitigation_view import COLUMNS, cells, fits, markdown, verdicts
from runner.report.mitigation_view import shown as compared
from runner.row_file import RowFile
from tests.runner.conftest import Qrun

SMALL = [
    "--backend",
    "fake_manila",
    "--qubits",
    "2",
    "--reps",
    "1",
    "--sets",
    "2",
    "--repetitions",
    "2",
    "--draws",
    "2",
]


def wrong(options: list[str], said: str) -> None:
    """The command fails as bad usage, in one line; in this process, which has the heavy imports."""
    done = CliRunner().invoke(app, ["mitigation", *options])
    assert done.exit_code == 2, done.output
    assert said in done.stderr
    assert "internal error" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["compare", "--backend", "fake_kiev"], "Did you mean fake_kyiv"),
        (["compare", "--backend", "ideal"], "no errors to mitigate"),
        (["compare", "--technique", "znee"], "Did you mean zne"),
        (["compare", "--technique", "zne+readout"], "Take readout+zne"),
        (["compare", "--technique", "auto"], "auto is a choice among techniques"),
        (["compare", "--shots", "many"], "--shots many"),
        (["compare", "--shots", "1"], "--shots 1"),
        (["compare", "--qubits", "11"], "--qubits 11: 2 to 10"),
        (["compare", "--backend", "fake_manila", "--qubits", "8"], "fake_manila has 5 qubits"),
        (["compare", "--engine", "runtime"], "unknown engine 'runtime'"),
        (["compare", "--sets", "1"], "--sets 1"),
        (["compare", "--config", "/nowhere/run.toml"], "No such file"),
        (["compare", "--out", "/nowhere/at/all.jsonl", *SMALL], "--out /nowhere/at/all.jsonl"),
        (["learning", "--mitigation", "none"], "a stack against none"),
        (["learning", "--mitigation", "znee"], "Did you mean zne"),
        (["learning", "--backend", "ideal"], "it stands in the table by itself"),
        (["learning", "--seeds", "-1"], "--seeds -1"),
        (["learning", "--jobs", "0"], "--jobs 0"),
        (["learning", "--engine", "runtime"], "nothing is sent to a device"),
        (["learning", "--shots", "0"], "shots = 0"),
    ],
    ids=lambda v: " ".join(v)[:40],
)
def test_wrong_input_is_bad_usage(options: list[str], said: str) -> None:
    wrong(options, said)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("[mitigation]\nscale_factor = [1, 3]\n", "Did you mean 'scale_factors'"),
        ("[mitigation]\nscale_factors = [1]\n", "two scale factors"),
        ("mitigation = 3\n", "[mitigation] is a table"),
    ],
)
def test_a_wrong_option_of_a_technique_is_named(tmp_path: Path, table: str, said: str) -> None:
    file = tmp_path / "run.toml"
    file.write_text(table)
    wrong(["compare", "--config", str(file), *SMALL], said)


def test_the_techniques_are_listed_in_the_order_of_a_stack(qrun: Qrun) -> None:
    found = json.loads(CliRunner().invoke(app, ["mitigation", "list", "--json"]).stdout)
    assert [technique["name"] for technique in found] == list(TECHNIQUES)
    assert next(t for t in found if t["name"] == "zne")["options"] == ["scale_factors", "folding", "extrapolation"]
    said = qrun("mitigation", "list").stdout
    assert all(name in said for name in TECHNIQUES)


def test_a_comparison_is_printed_and_gone_on_with(qrun: Qrun, tmp_path: Path) -> None:
    out, config = tmp_path / "rows.jsonl", tmp_path / "run.toml"
    config.write_text('[mitigation]\nstack = "zne"\nscale_factors = [1, 3]\nextrapolation = "linear"\n')
    options = ["mitigation", "compare", *SMALL, "--no-readout-error", "--config", str(config), "--out", str(out)]
    options += ["--technique", "zne", "--technique", "symmetry", "--shots", "exact", "--shots", "1,024"]
    first = qrun(*options, "--json")
    assert first.returncode == 0, first.stderr
    rows = json.loads(first.stdout)["rows"]
    assert [(row["shots"], row["stack"]) for row in rows] == [
        (shots, stack) for shots in (None, 1024) for stack in ("none", "zne", "symmetry")
    ]
    zne = rows[1]
    assert zne["circuits"] == 2.0
    assert zne["error"] < rows[0]["error"]
    assert rows[2]["why_not"]
    kept = out.read_bytes()
    out.write_bytes(kept[:-20])  # as a kill leaves it: the last row is torn, and computed again
    again = CliRunner().invoke(app, [*options, "--json"])
    assert again.exit_code == 0, again.stderr
    assert json.loads(again.stdout)["rows"][:5] == rows[:5]
    assert len(out.read_bytes().splitlines()) == 7
    shown = CliRunner().invoke(app, options)
    assert "fake_manila, 2 qubits, 1,024 shots" in shown.stdout
    assert f"symmetry: {rows[2]['why_not'][:30]}" in shown.stdout
    assert "readout errors set aside" in shown.stdout
    assert CliRunner().invoke(app, [*options, "--markdown"]).stdout.startswith("**fake_manila, 2 qubits, exact**")
    other = CliRunner().invoke(app, [*options, "--seed", "1"])
    assert other.exit_code == 2
    assert "rows of another table" in other.stderr


@pytest.mark.slow
def test_learning_is_played_by_arm_and_training_is_shared(qrun: Qrun, tmp_path: Path, data_dir: Path) -> None:
    config, out = tmp_path / "tiny.toml", tmp_path / "lines.jsonl"
    config.write_text('rounds = 1\n[model]\nqubits = 2\nreps = 1\nsteps_per_epoch = 2\n[mitigation]\nstack = "zne"\n')
    options = ["mitigation", "learning", "--backend", "fake_manila", "--seeds", "0", "--seeds", "1"]
    options += ["--config", str(config), "--out", str(out), "--data", str(data_dir), "--jobs", "1"]
    first = qrun(*options, "--json")
    assert first.returncode == 0, first.stderr
    body = json.loads(first.stdout)
    arms = [*ARMS, "none"]  # the last on the ideal target
    assert [(line["seed"], line["arm"]) for line in body["lines"]] == [(s, a) for s in (0, 1) for a in arms]
    assert {line["backend"] for line in body["lines"]} == {"fake_manila", "ideal"}
    assert {p["backend"] for p in body["differences"]} == {"fake_manila"}
    by = [line["holdout_auroc"] for line in body["lines"] if line["seed"] == 0]
    assert len(set(by)) == len(arms), "each arm is mitigated somewhere else"
    again = qrun(*options, "--json")
    assert again.stdout == first.stdout
    assert "evaluation" in qrun(*options).stdout
    assert qrun(*options, "--markdown").stdout.startswith("| device | scored by | none |")


@pytest.mark.slow
def test_a_worker_ends_with_ctrl_c_at_once() -> None:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_interruptible) as pool:
        pid = pool.submit(os.getpid).result()
        playing = pool.submit(time.sleep, 60)
        while not playing.running():
            time.sleep(0.01)
        os.kill(pid, signal.SIGINT)
        with pytest.raises(BrokenProcessPool):
            playing.result(timeout=30)


def line(backend: str, seed: int, arm: str, auroc: float) -> Line:
    return Line(backend, seed, arm, auroc, 0.5, None, None, 1.0)


def test_pairs_are_of_the_same_federation() -> None:
    gains = {("a", 0): 0.02, ("a", 1): -0.01, ("b", 0): 0.04, ("b", 1): -0.02}
    lines = [
        line(backend, seed, arm, 0.9 + 0.01 * seed + (gain if arm == "both" else 0.0))
        for (backend, seed), gain in gains.items()
        for arm in ARMS
    ]
    found = {(p.backend, p.metric, p.arm): p for p in pairs(lines)}
    assert {metric for _, metric, _ in found} == {"holdout_auroc", "holdout_f1"}, "the test was not scored"
    both = found[ALL, "holdout_auroc", "both"]
    assert (both.seeds, both.better, both.worse) == (2, 1, 1)
    assert both.mean == pytest.approx(0.0075)
    assert (both.low, both.high) == pytest.approx((-0.015, 0.03))
    assert found["a", "holdout_auroc", "training"].p == 1.0


def test_the_sign_test_of_five_seeds() -> None:
    found = pair("a", "holdout_auroc", "both", [0.01, 0.02, 0.01, 0.03, 0.02])
    assert found.p == pytest.approx(2 / 32)
    assert found.low > 0.009
    assert found.mean == pytest.approx(0.018)


def row(stack: str, shots: int | None, *, worse: bool) -> Row:
    return Row("fake_manila", 2, shots, stack, 0.1, 0.02, 0.02, 0.1, 0.01, 1.0, worse, 3.0, 0.5)


def test_where_a_technique_stops_paying_is_said() -> None:
    rows = [
        row("none", None, worse=False),
        row("zne", None, worse=False),
        row("none", 1024, worse=False),
        row("zne", 1024, worse=True),
        row("ddd", None, worse=True),
        row("ddd", 1024, worse=True),
        Row("fake_manila", 2, None, "symmetry", why_not="there is none"),
    ]
    assert verdicts(rows) == [
        "fake_manila, 2 qubits: zne is worse than none at 1,024 shots.",
        "fake_manila, 2 qubits: ddd is worse than none everywhere.",
    ]
    assert cells(rows[3])[-1] == "worse"
    assert cells(rows[1])[COLUMNS.index("stated")] == "0.0200"  # pec and cdr have one with exact values too
    assert cells(replace(rows[1], reported=0.0))[COLUMNS.index("stated")] == "0"
    assert cells(replace(rows[1], error=8.4e-5))[COLUMNS.index("error")] == "0.00008 ± 0.0100"
    assert cells(rows[3])[COLUMNS.index("shots")] == "3,072"
    assert cells(rows[-1])[-1] == "there is none"
    assert "there is none |" in markdown(rows, Setup())


def rendered(tables: Sequence[RenderableType], width: int) -> list[str]:
    console = Console(width=width, file=io.StringIO())
    with console.capture() as captured:
        for table in tables:
            console.print(table)
    return captured.get().splitlines()


def test_no_number_is_broken_in_80_columns() -> None:
    rows = [row("ddd+twirl+zne", 131_072, worse=True), row("none", None, worse=False)]
    wide, narrow = compared(rows, narrow=False), compared(rows, narrow=True)
    tables = [table for table in wide if isinstance(table, Table)]
    assert not fits(tables, Console(width=80))
    assert fits(tables, Console(width=110))
    assert fits([table for table in narrow if isinstance(table, Table)], Console(width=80))
    line = next(line for line in rendered(narrow, 80) if "ddd+twirl+zne" in line)
    assert line.split() == ["ddd+twirl+zne", "0.1000", "0.0200", "0.1000", "1.00", "3", "393,216", "worse"]
    assert len(rendered(narrow, 80)) == len(rendered(narrow, 200)), "no cell takes two lines"


@pytest.mark.parametrize(("seeds", "said"), [(1, "+1.00"), (5, "+1.00 [+1.00, +1.00] 5/5 p 0.062")])
def test_the_learning_table_in_80_columns(seeds: int, said: str) -> None:
    found = [
        Line("fake_torino", seed, arm, 0.9 + (0.01 if arm == "both" else 0.0), 0.5, 0.9, 0.5, 1.0)
        for seed in range(seeds)
        for arm in ARMS
    ]
    names = {metric: f"KDDTest+ {metric[-5:]}" for metric in METRICS}
    narrow = learned(found, names, BREAKS[-1])
    assert fits(narrow, Console(width=80))
    assert any(line.rstrip().endswith(said.split(maxsplit=1)[0]) for line in rendered(narrow, 80))
    assert said in "\n".join(rendered(learned(found, names, ()), 200))
    assert ("0.9000 (.900-.900)" in rendered(learned(found, names, ()), 200)[4]) == (seeds > 1)


def test_options_that_look_like_markup_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    said = CliRunner().invoke(app, ["mitigation", "compare", "--help"]).stdout
    assert "of its table [mitigation] the options" in said


def test_a_file_of_another_kind_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not ours\n")
    with pytest.raises(UsageError, match="something else"):
        RowFile(path, {"format": "x"}, read=dict, write=dict, key=str)
    assert path.read_text() == "not ours\n"
    path.write_text('{"format": "x"}\n[1]\n')
    with pytest.raises(UsageError, match="line 2: not a row"):
        RowFile(path, {"format": "x"}, read=lambda value: value["a"], write=dict, key=str)
    path.write_text('{"format": "x"}\n' + "[" * 100_000 + "\n")
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(100_000)  # as py-evm does where it is imported: the decoder alone would end the process
    try:
        with pytest.raises(UsageError, match="line 2: not a row"):
            RowFile(path, {"format": "x"}, read=dict, write=dict, key=str)
    finally:
        sys.setrecursionlimit(before)
