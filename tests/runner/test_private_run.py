"""`--dp EPSILON`: what is refused, what the config says, a run from end to end, the row in the benchmark's table."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from circuits.errors import UsageError
from experiments.models.budget import budget
from experiments.settings import ModelSettings
from runner.benchmark.compare import PRIVATE_NAME, asked
from runner.cli import app
from runner.config import RunConfig, build_config
from runner.node import Peer
from runner.options import config_from

TINY = "rounds = 2\nbackend = 'fake_manila'\n[model]\nqubits = 2\nreps = 1\nsteps_per_epoch = 2\ndetector_steps = 5\n"
TINY += "[data]\ntest = false\n"


def call(*options: str) -> Any:
    return CliRunner().invoke(app, list(options))


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("QRUN_HOME", str(tmp_path / "home"))
    file = tmp_path / "tiny.toml"
    file.write_text(TINY)
    return str(file)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["experiment", "nsl-kdd", "--dp", "0"], "model.dp = 0.0"),
        (["experiment", "nsl-kdd", "--dp", "-3"], "model.dp = -3.0"),
        (["experiment", "nsl-kdd", "--dp", "nan"], "model.dp = nan"),
        (["experiment", "nsl-kdd", "--dp", "inf"], "model.dp = inf"),
        (["experiment", "nsl-kdd", "--dp", "1001"], "model.dp = 1001.0"),
        (["experiment", "nsl-kdd", "--dp", "much"], "--dp"),
        (["experiment", "nsl-kdd", "--model", "pca", "--dp", "3"], "--dp does nothing with --model pca"),
        (["experiment", "nsl-kdd", "--run-on", "fake_manila", "--fine-tune", "2", "--dp", "3"], "runtime.fine_tune"),
        (["benchmark", "nsl-kdd", "--dp", "0.001"], "model.dp = 0.001"),
        (["benchmark", "nsl-kdd", "--models", "pca", "--dp", "3"], "Add qgan to it"),
        (["benchmark", "nsl-kdd", "--models", "qgan-dp", "--dp", "3"], "Add qgan to it"),
        (["benchmark", "nsl-kdd", "--models", "qgan-dp"], "qgan-dp"),
    ],
    ids=lambda v: " ".join(v)[:60],
)
def test_wrong_input_is_bad_usage(options: list[str], said: str) -> None:
    done = call(*options)
    assert done.exit_code == 2, done.output
    assert said in done.stderr
    assert "internal error" not in done.stderr
    assert done.stdout == ""


def test_files_that_ask_for_it_where_it_is_nothing_are_bad_usage(tmp_path: Path, tiny: str) -> None:
    file = tmp_path / "private.toml"
    file.write_text("[model]\ndp = 3\nenergy_weight = 50\n")
    assert "looks at the records that dp protects" in call("experiment", "nsl-kdd", "--config", str(file)).stderr
    file.write_text("[model]\ndp = 3\n")
    for options in (["benchmark", "nsl-kdd"], ["ablate", "nsl-kdd"], ["experiment", "nsl-kdd", "--model", "pca"]):
        done = call(*options, "--config", str(file))
        assert done.exit_code == 2, done.output
        assert "model.dp" in done.stderr


def test_the_config_says_that_the_energy_distance_is_left_out() -> None:
    plain, private = config_from("nsl-kdd", {}), config_from("nsl-kdd", {"model": {"dp": 3}})
    assert (plain.model.dp, plain.model.energy_weight) == (None, 50)
    assert (private.model.dp, private.model.energy_weight) == (3, 0)
    assert "dp" not in plain.model_dump(mode="json")["model"]
    assert private.digest != plain.digest
    assert RunConfig.model_validate_json(private.canonical()) == private
    assert config_from("nsl-kdd", {"dp": 3, "model": {"energy_weight": 0}}).digest == private.digest
    with pytest.raises(UsageError, match="energy_weight"):
        build_config({"experiment": "nsl-kdd", "model": {"dp": 3, "energy_weight": 1e-9}})


def test_the_table_has_both_runs() -> None:
    config = config_from("nsl-kdd", {})
    wanted = asked(config, ["pca", "qgan"], 2, 3.0)
    assert wanted.models == ("pca", "qgan", PRIVATE_NAME)
    assert wanted.of("qgan", 1) == config.model_copy(update={"seed": 1})
    private = wanted.of(PRIVATE_NAME, 1)
    assert private.digest == config_from("nsl-kdd", {"seed": 1, "dp": 3.0}).digest
    assert PRIVATE_NAME not in asked(config, [], 1).models
    everything = asked(config, [], 1, 3.0).models
    assert everything[: everything.index(PRIVATE_NAME)] == ("qgan",)


def test_a_peers_noise_is_of_its_own_records_and_of_all_rounds() -> None:
    settings = ModelSettings(dp=2)
    peer = Peer(0, 0, "c", SimpleNamespace(), SimpleNamespace(settings=settings), rounds=7)  # type: ignore[arg-type]
    peer.train_features = np.zeros((500, 2))
    private = peer.private()
    assert private is not None
    assert private.multiplier == budget(settings, 7, 500).multiplier
    peer.rounds = None
    with pytest.raises(ValueError, match="number of rounds"):
        peer.private()
    peer.model.settings = ModelSettings()
    assert peer.private() is None


def test_a_run_tells_its_noise_and_is_audited(tiny: str, tmp_path: Path) -> None:
    options = ["experiment", "nsl-kdd", "--config", tiny, "--dp", "3", "--json"]
    done = call(*options, "--out", str(tmp_path / "one"))
    assert done.exit_code == 0, done.stderr
    told = " ".join(done.stderr.replace("│", " ").split())
    assert "epsilon 3 at delta 1e-05" in told
    assert "noise multiplier" in told
    body = json.loads(done.stdout)
    assert (body["config"]["model"]["dp"], body["config"]["model"]["energy_weight"]) == (3.0, 0.0)
    again = json.loads(call(*options, "--out", str(tmp_path / "two")).stdout)
    assert again["config_digest"] == body["config_digest"]
    # Noise is not drawn from the seed, which stands in the config.
    assert again["final"]["cid"] != body["final"]["cid"]
    proved = call("verify", str(tmp_path / "one"))
    assert proved.exit_code == 0, proved.output


@pytest.mark.slow
def test_the_benchmark_has_a_row_and_a_sentence_for_each(tiny: str) -> None:
    options = ["benchmark", "nsl-kdd", "--seeds", "1", "--models", "qgan", "--dp", "3", "--config", tiny]
    done = call(*options, "--json")
    assert done.exit_code == 0, done.stderr
    body = json.loads(done.stdout)
    assert (list(body["models"]), body["dp"]) == (["qgan", "qgan-dp"], 3.0)
    assert [row["model"] for row in body["rows"]] == ["qgan", "qgan-dp"]
    assert all(len(row["membership"]["rounds"]) == 2 for row in body["rows"])
    assert [s.split(" publishes")[0][-7:] for s in body["sentences"]] == ["at qgan", "qgan-dp"]
    shown = call(*options)
    assert "(2 finished runs reused)" in shown.stderr
    assert "epsilon 3 at delta 1e-05" in " ".join(shown.stdout.split())
