"""`qrun attack`: wrong input in one line, results alone on stdout."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runner.attack.attacks import ATTACKS
from tests.runner.conftest import Qrun

TINY = ["--nodes", "3", "--bad", "1", "--rounds", "1", "--seeds", "1", "--attacks", "sign-flip", "--partitions", "iid"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--attacks", "sign-flop"], "Did you mean 'sign-flip'"),
        (["--bad", "7"], "--bad 7: of 10 nodes"),
        (["--nodes", "99"], "nodes = 99"),
        (["--partitions", "dirichlet:0"], "Unknown partition"),
        (["--aggregations", "bulyan"], "unknown aggregation"),
        (["--backend", "fake_kiev"], "Did you mean fake_kyiv"),
        (["--out", "/nowhere/at/all.jsonl", *TINY], "--out /nowhere/at/all.jsonl"),
        (["--config", "/nowhere/run.toml"], "No such file"),
        (["--schedule", "asink"], "should be 'sync' or 'async'"),
        (["--attacks", "hermit"], "Add --schedule async"),
    ],
    ids=lambda v: " ".join(v)[:30],
)
def test_wrong_input_is_bad_usage(qrun: Qrun, options: list[str], said: str) -> None:
    done = qrun("attack", "nsl-kdd", *options)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_the_attacks_are_listed(qrun: Qrun) -> None:
    assert [a["name"] for a in json.loads(qrun("attack", "nsl-kdd", "--attacks", "list", "--json").stdout)] == list(
        ATTACKS
    )


@pytest.mark.slow
def test_a_tiny_table_is_printed_and_gone_on_with(qrun: Qrun, tmp_path: Path, data_dir: Path) -> None:
    config = tmp_path / "tiny.toml"
    config.write_text('backend = "ideal"\n[model]\nqubits = 2\nsteps_per_epoch = 2\n')
    out = tmp_path / "cells.jsonl"
    options = ["attack", "nsl-kdd", *TINY, "--config", str(config), "--out", str(out), "--data", str(data_dir)]
    first = qrun(*options, "--json")
    assert first.returncode == 0, first.stderr
    (row,) = json.loads(first.stdout)["rows"]
    assert (row["attack"], row["hostile_nodes"], set(row["auroc_points"])) == (
        "sign-flip",
        1,
        {"reputation", "mean", "median", "trimmed-mean", "krum"},
    )
    kept = out.read_bytes()
    again = qrun(*options, "--json")
    assert again.stdout == first.stdout
    assert out.read_bytes() == kept
    assert "sign-flip" in qrun(*options).stdout
    assert qrun(*options, "--markdown").stdout.startswith("**iid** (seeds: 1)")
    other = qrun(*[o if o != "1" else "2" for o in options], "--json")  # other rounds, other hostile nodes
    assert other.returncode == 2
    assert "another config" in other.stderr or "--bad" in other.stderr
