"""Mitigation as it is said: what becomes of it in the config, and what is refused before anything is run."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from backends.catalog import save_target
from backends.mitigation.calibrate import Choice
from backends.mitigation.types import MitigationOptions
from circuits.errors import UsageError
from runner.cli import app
from runner.config import RunConfig
from runner.options import config_from
from runner.prepare import prepare
from runner.progress import Warn
from runner.settings import TECHNIQUE_OPTIONS, MitigationSettings
from runner.store import RunIndex

CLI = CliRunner()
SMALL = {"backend": "fake_manila", "qubits": 3, "reps": 1}


@pytest.fixture(autouse=True)
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QRUN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NO_COLOR", "1")


def said(**options: Any) -> RunConfig:
    return config_from("nsl-kdd", options)


def test_the_options_are_those_of_the_techniques_with_their_defaults() -> None:
    defaults = {field.name: field.default for field in fields(MitigationOptions)}
    assert {name: default for name, (_, default) in TECHNIQUE_OPTIONS.items()} == {
        name: value for name, value in defaults.items() if name not in ("stack", "seed")
    }
    config = said(mitigation="Readout + zne", seed=3)
    assert config.mitigation is not None
    assert config.mitigation.stack == "readout+zne"
    assert config.mitigation.options(7) == MitigationOptions(stack=("readout", "zne"), seed=7)


def test_only_what_a_stack_uses_is_written_and_all_of_it_counts() -> None:
    plain = said()
    assert "mitigation" not in plain.model_dump(mode="json")
    assert said(mitigation="none").digest == plain.digest
    config = said(mitigation="readout+zne")
    assert set(config.model_dump(mode="json")["mitigation"]) == {
        "stack", "apply", "budget", "scale_factors", "folding", "extrapolation", "readout",
    }  # fmt: skip
    assert RunConfig.model_validate(config.model_dump(mode="json")) == config
    ways: list[dict[str, Any]] = [
        {},
        {"apply": "training"},
        {"budget": 7},
        {"scale_factors": [1, 3]},
        {"scale_factors": [1, 1, 3]},
        {"folding": "random"},
        {"extrapolation": "linear"},
        {"readout": "circuits"},
    ]
    digests = {said(mitigation={"stack": "readout+zne", **way}).digest for way in ways}
    assert len(digests | {plain.digest, said(mitigation="readout").digest}) == len(ways) + 2
    assert said(mitigation="readout+zne").digest in digests


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mitigation": "zen"}, "Did you mean zne?"),
        ({"mitigation": "reedout+zne"}, "Did you mean readout?"),
        ({"mitigation": "zne+readout"}, "Take readout+zne"),
        ({"mitigation": "zne+pec"}, "both remove"),
        ({"mitigation": "none+zne"}, "Write it alone"),
        ({"mitigation": 3}, "mitigation = 3"),
        ({"mitigation": {"stack": "zne", "scale_factors": [1]}}, "two scale factors or more"),
        ({"mitigation": {"stack": "zne", "scale_factors": [3, 1]}}, "scale factors go up"),
        ({"mitigation": {"stack": "zne", "scale_factors": [1, 1]}}, "not all the same"),
        ({"mitigation": {"stack": "zne", "scale_factors": [1, True]}}, "scale_factors = [1, True]: scale factors are"),
        ({"mitigation": {"stack": "zne", "scale_factors": "even"}}, 'take [1, 3, 5], or "auto"'),
        ({"mitigation": {"stack": "zne", "folding": "globally"}}, "mitigation.folding = 'globally'"),
        ({"mitigation": {"stack": "readout", "scale_factors": [1, 3]}}, "mitigation.scale_factors is of zne"),
        ({"mitigation": {"stack": "zne", "pec_samples": 3}}, "mitigation.pec_samples is of pec"),
        ({"mitigation": {"stack": "readout", "budget": 0}}, "mitigation.budget = 0"),
        ({"mitigation": {"stack": "readout", "aply": "both"}}, "Did you mean 'apply'?"),
        ({"mitigation": {"apply": "training"}}, "--mitigation-at"),
        ({"mitigation": {"budget": 3}}, "--mitigation-budget"),
        ({"mitigation": {"stack": "none", "apply": "both"}}, "it would do nothing"),
        ({"scale_factors": [1, 3]}, "mitigation.scale_factors: there is no mitigation"),
        ({"mitigation": "zne", "backend": "ideal"}, "ideal has no errors"),
        ({"infidelity_weight": 0.1, "backend": "ideal"}, "ideal loses nothing"),
        ({"max_depth": 0}, "model.max_depth = 0"),
        ({"infidelity_weight": -1}, "model.infidelity_weight = -1"),
        ({"mitigation": "readout", "engine": "runtime", "resilience_level": 1}, "would mitigate twice"),
        ({"mitigation": "twirl", "engine": "runtime", "twirling": "gates"}, "would twirl gates twice"),
        ({"mitigation": "ddd", "run_on": "fake_lima", "dynamical_decoupling": "XX"}, "would decouple twice"),
        ({"mitigation": "readout", "engine": "runtime", "twirling": "measure"}, "mitigation.readout = 'circuits'"),
        ({"mitigation": "auto", "engine": "runtime", "resilience_level": 2}, "would mitigate twice"),
        ({"mitigation": {"stack": "auto", "scale_factors": [1]}}, "two scale factors or more"),
        ({"mitigation": {"stack": "auto", "apply": "never"}}, "mitigation.apply = 'never'"),
    ],
)
def test_what_cannot_be_is_named_in_one_line(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        said(**options)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_the_runtime_does_besides_is_no_conflict() -> None:
    for options in (
        {"mitigation": "readout+zne", "resilience_level": 0},
        {"mitigation": "twirl+zne", "twirling": "measure"},
        {"mitigation": {"stack": "readout+zne", "readout": "circuits"}, "twirling": "all"},
        {"mitigation": "zne", "dynamical_decoupling": "XX"},
    ):
        assert said(engine="runtime", **options).mitigation is not None


def test_a_file_and_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text('[mitigation]\nstack = "readout+zne"\nscale_factors = [1, 3]\napply = "training"\n')

    def over(options: dict[str, Any]) -> MitigationSettings | None:
        return config_from("nsl-kdd", options, file).mitigation

    of_file = over({})
    assert of_file is not None
    assert (of_file.scale_factors, of_file.apply) == ((1.0, 3.0), "training")
    other = over({"mitigation": "readout"})  # turns zne off, and with it what the file says of it
    assert other is not None
    assert (other.stack, other.apply, other.scale_factors) == ("readout", "training", None)
    assert over({"mitigation": "none"}) is None
    wider = over({"mitigation": {"apply": "both"}})
    assert wider is not None
    assert (wider.stack, wider.apply) == ("readout+zne", "both")
    file.write_text('mitigation = "readout"\n')
    assert over({}) == said(mitigation="readout").mitigation
    file.write_text("[mitigation]\nscale_factors = [1, 5]\n")  # the stack is the command line's
    told = over({"mitigation": "zne"})
    assert told is not None
    assert told.scale_factors == (1.0, 5.0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[mitigation]\nstack = "zne"\nscale_factors = [3]\n', "two scale factors or more"),
        ('[mitigation]\nstack = "readout"\npec_samples = 3\n', "mitigation.pec_samples is of pec"),
        ('[mitigation]\nstack = "auto"\nfolding = "x"\n', "mitigation.folding = 'x'"),
        ('[mitigation]\nstack = "none"\napply = "both"\n', "it would do nothing"),
        ("mitigation = 3\n", "mitigation = 3"),
        ("[mitigation]\n", "the table [mitigation] is empty"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "a.toml"
    file.write_text(text)
    out = CLI.invoke(app, ["experiment", "nsl-kdd", "--config", str(file)])
    assert out.exit_code == 2, out.output
    assert words in out.stderr
    assert len(out.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--mitigation", "zen"], "Did you mean zne?"),
        (["--mitigation-at", "training"], "--mitigation-at"),
        (["--mitigation", "none", "--mitigation-budget", "3"], "--mitigation-budget"),
        (["--mitigation", "zne", "--mitigation-at", "never"], "mitigation.apply = 'never'"),
        (["--mitigation", "zne", "--backend", "ideal"], "ideal has no errors"),
        (["--infidelity-weight", "0"], "model.infidelity_weight = 0"),
        (["--mitigation", "pec", "--mitigation-budget", "50"], "3,904,000 circuits in place of 39,040"),
        (["--engine", "runtime", "--mitigation", "zne", "--mitigation-budget", "2"], "QPU seconds on fake_manila"),
        (["--run-on", "fake_lima", "--mitigation", "zne", "--mitigation-budget", "2"], "QPU seconds on fake_lima"),
        (["--mitigation", "symmetry"], "no Pauli symmetry"),
        (["--mitigation", "symmetry+pec"], "symmetry and pec do not go together"),
    ],
)
def test_wrong_options_are_refused_before_there_is_a_run(options: list[str], words: str) -> None:
    device = [] if "--backend" in options else ["--backend", "fake_manila"]
    out = CLI.invoke(app, ["experiment", "nsl-kdd", "--qubits", "3", *device, *options])
    assert out.exit_code == 2, out.output
    last = [line for line in out.stderr.splitlines() if line.startswith("qrun: ")]
    assert len(last) == 1
    assert words in last[0]
    assert out.stdout == ""
    assert RunIndex().list() == []


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [(0.9, 2, "pec cannot undo cx on qubits"), (1.0, 1, "no layout of 3 qubits whose gates are all calibrated")],
)
def test_an_error_that_pec_cannot_undo_is_refused(tmp_path: Path, error: float, code: int, words: str) -> None:
    file = tmp_path / "device.json"
    save_target("fake_manila", file)
    document = json.loads(file.read_text())
    for gate in document["properties"]["gates"]:
        for figure in gate["parameters"]:
            if gate["gate"] == "cx" and figure["name"] == "gate_error":
                figure["value"] = error
    file.write_text(json.dumps(document))
    out = CLI.invoke(app, ["experiment", "nsl-kdd", "--qubits", "3", "--backend", str(file), "--mitigation", "pec"])
    assert out.exit_code == code, out.output
    (last,) = [line for line in out.stderr.splitlines() if line.startswith("qrun: ")]
    assert words in last
    assert "Traceback" not in out.output
    assert RunIndex().list() == []


def test_auto_passes_over_a_readout_that_is_measured_to_be_a_coin_toss(tmp_path: Path) -> None:
    file = tmp_path / "device.json"
    save_target("fake_manila", file)
    document = json.loads(file.read_text())
    for qubit in document["properties"]["qubits"]:
        for figure in qubit:
            if figure["name"] in ("prob_meas1_prep0", "prob_meas0_prep1", "readout_error"):
                figure["value"] = 0.5
    file.write_text(json.dumps(document))
    config = said(**{**SMALL, "backend": str(file)}, mitigation={"stack": "auto", "readout": "circuits", "budget": 2})
    assert config.chosen is not None
    assert config.mitigation is None or "readout" not in config.mitigation.names


def test_the_two_point_rule_is_refused_where_folding_repeats_a_weight() -> None:
    shift = {**SMALL, "gradient": "parameter-shift"}
    with pytest.raises(UsageError, match=r"puts θ\[0\] into 3.*mitigation\.folding = 'local'"):
        prepare(said(**shift, mitigation={"stack": "zne", "folding": "global"}), Warn())
    prepare(said(**shift, mitigation="zne"), Warn())


class Told(Warn):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.notices: list[tuple[str, str]] = []

    def notice(self, title: str, text: str) -> None:
        self.notices.append((title, text))


def test_what_mitigation_will_do_is_told_before_the_run() -> None:
    reporter = Told()
    polynomial = {"stack": "readout+zne", "extrapolation": "richardson"}
    outlook = prepare(said(**SMALL, mitigation=polynomial, shots=16), reporter).outlook
    assert outlook is not None
    assert outlook.circuits == {"training": 3.0, "evaluation": 3.0}
    assert outlook.forecast is not None
    assert outlook.forecast.worse  # at 16 shots the spread is all
    ((title, text),) = reporter.notices
    assert title == "Mitigation"
    assert "makes things worse" in text
    part = prepare(said(**SMALL, mitigation={"stack": "readout+zne", "apply": "evaluation"}), Told()).outlook
    assert part is not None
    assert part.circuits == {"evaluation": 3.0}


def test_a_list_in_place_of_a_stack_is_refused_in_plain_words(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a list"):
        config_from("nsl-kdd", {"mitigation": ["readout", "zne"]})
    file = tmp_path / "run.toml"
    file.write_text('mitigation = ["readout", "zne"]\n')
    with pytest.raises(UsageError, match="is a list"):
        config_from("nsl-kdd", {}, file)


# -- auto --------------------------------------------------------------------------------------------------------------


def chooses(monkeypatch: pytest.MonkeyPatch, stack: str) -> list[dict[str, Any]]:
    """Let the choice be this one; what it was asked with."""
    asked: list[dict[str, Any]] = []

    def choose(make_engine: Any, target: Any, circuit: Any, **options: Any) -> Choice:
        with make_engine() as engine:
            asked.append({"engine": engine, "target": target.name, **options})
        return Choice(stack, f"{stack}: for a test.", ())

    monkeypatch.setattr("backends.mitigation.calibrate.choose", choose)
    return asked


def test_auto_becomes_a_stack_and_says_why() -> None:
    told: list[tuple[str, str]] = []

    def auto() -> RunConfig:
        return config_from("nsl-kdd", {**SMALL, "mitigation": "auto"}, tell=lambda *words: told.append(words))

    config = auto()
    assert config.mitigation is not None
    assert config.digest == said(**SMALL, mitigation=config.mitigation.stack).digest
    assert told == [("Mitigation", "auto: choosing a stack by calibration circuits."), ("Mitigation", config.chosen)]
    assert config.mitigation.stack in str(config.chosen)
    assert auto() == config


def test_auto_may_be_none(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = chooses(monkeypatch, "none")
    config = said(**SMALL, mitigation={"stack": "auto", "apply": "training", "budget": 5})
    assert config.digest == said(**SMALL).digest
    assert "none: for a test." in str(config.chosen)
    assert asked[0]["budget"] == 5
    ideal = said(qubits=3, backend="ideal", mitigation="auto")
    assert ideal.mitigation is None
    assert "no errors to mitigate" in str(ideal.chosen)
    assert len(asked) == 1


def test_auto_keeps_what_belongs_to_its_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = chooses(monkeypatch, "readout")
    table = {"stack": "auto", "scale_factors": [1, 5], "readout": "circuits"}
    config = said(**SMALL, mitigation=table)
    assert config.digest == said(**SMALL, mitigation={"stack": "readout", "readout": "circuits"}).digest
    assert asked[0]["options"].scale_factors == (1, 5)


@pytest.mark.parametrize(
    ("options", "engine", "target", "shots"),
    [
        ({}, "twin", "fake_manila", None),
        ({"shots": 64}, "twin", "fake_manila", 64),
        ({"engine": "aer"}, "aer", "fake_manila", 1024),
        ({"engine": "runtime", "shots": 32}, "runtime", "fake_manila", 32),
        ({"run_on": "fake_lima", "runtime": {"shots": 128}}, "twin", "fake_lima", 128),
    ],
)
def test_auto_tries_on_the_runs_own_engine_or_on_the_twin_of_the_device(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], engine: str, target: str, shots: int | None
) -> None:
    asked = chooses(monkeypatch, "readout")
    said(**SMALL, **options, mitigation="auto")
    assert (asked[0]["engine"].name, asked[0]["target"], asked[0]["shots"]) == (engine, target, shots)


def test_help_names_the_options() -> None:
    out = CLI.invoke(app, ["experiment", "--help"], env={"COLUMNS": "200"})
    for option in ("--mitigation", "--mitigation-at", "--mitigation-budget", "--max-depth", "--infidelity-weight"):
        assert option in out.stdout
