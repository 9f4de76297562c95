"""RunConfig: what is said, what is refused, and that its digest names a run."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from backends.runtime.types import Access
from circuits.errors import UsageError
from runner.config import TABLES, RunConfig, build_config, merge, read_toml
from runner.options import config_from
from runner.seeds import derive
from runner.settings import FederationSettings, MitigationSettings, RuntimeSettings


def test_defaults_are_the_demo() -> None:
    config = config_from("nsl-kdd", {})
    assert (config.backend, config.engine, config.nodes, config.seed) == ("fake_kyiv", "twin", 3, 0)
    assert config.shots is None


def test_the_digest_depends_on_every_value_and_on_nothing_else() -> None:
    base = config_from("nsl-kdd", {})
    assert base.digest == config_from("nsl-kdd", {"backend": None, "model": {"qubits": None}}).digest
    others = [
        {"backend": "fake_fez"},
        {"rounds": 4},
        {"seed": 1},
        {"shots": 64},
        {"idle_noise": True},
        {"device": "cpu"},
        {"model": {"qubits": 5}},
        {"model": {"generator_rate": 0.5}},
        {"data": {"partition": "dirichlet:0.5"}},
    ]
    digests = {config_from("nsl-kdd", o).digest for o in others} | {base.digest}
    assert len(digests) == len(others) + 1


def test_options_win_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('backend = "fake_fez"\nrounds = 7\n[model]\nqubits = 4\nreps = 2\n')
    config = config_from("nsl-kdd", {"rounds": 2, "model": {"reps": 3}}, file)
    assert (config.backend, config.rounds, config.model.qubits, config.model.reps) == ("fake_fez", 2, 4, 3)


def test_aer_says_how_many_shots_it_takes_and_the_twin_takes_what_it_is_given() -> None:
    assert config_from("nsl-kdd", {"shots": 64}).shots == 64
    assert config_from("nsl-kdd", {"engine": "aer"}).shots == 1024
    assert config_from("nsl-kdd", {"engine": "aer", "shots": 64}).shots == 64


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"rounds": 0}, "rounds = 0"),
        ({"nodes": 51}, "nodes = 51"),
        ({"seed": -1}, "seed = -1"),
        ({"shots": 10, "model": {"gradient": "exact"}}, "spsa"),
        ({"device": "gpu"}, "'auto', 'cpu' or 'cuda'"),
        ({"engine": "aer", "device": "cuda"}, "--engine twin"),
        ({"engine": "aer", "idle_noise": True}, "--engine twin"),
        ({"engine": "aerr"}, "'twin', 'aer', 'qml' or 'runtime'"),
        ({"model": {"qubits": 1}}, "model.qubits = 1"),
        ({"model": {"entanglement": "ring"}}, "model.entanglement"),
        ({"model": {"generator_rate": float("nan")}}, "model.generator_rate"),
        ({"rouds": 3}, "Did you mean 'rounds'"),
        ({"model": {"qubit": 3}}, "Did you mean 'qubits'"),
        ({"rounds": "many"}, "rounds = 'many'"),
        ({"qubits": 4}, "belongs into the table [model]"),
        ({"partition": "iid"}, "belongs into the table [data]"),
        ({"data": "/path"}, "data_dir"),
        ({"engine": "aer", "model": {"gradient": "exact"}}, "spsa"),
        ({"model": {"hidden": [-1]}}, "model.hidden"),
        ({"model": {"hidden": [3000]}}, "model.hidden"),
        ({"model": {"neighbours": 20, "samples": 16}}, "only 16"),
        ({"model": {"reps": 2, "reuploads": 3}}, "reuploads = 3: there are only 2 repetitions"),
        ({"model": {"reuploads": 0}}, "model.reuploads = 0"),
        ({"model": {"generator": "classical:1", "reuploads": 1}}, "has no circuit"),
        ({"federation": {"schedule": "later"}}, "federation.schedule = 'later'"),
        ({"federation": {"quorum": 2}}, "quorum is of schedule = 'async', and this one is 'sync': it would do nothing"),
        ({"federation": {"schedule": "sync", "window_seconds": 9}}, "window_seconds is of schedule = 'async'"),
        ({"federation": {"age_discount": 1}}, "age_discount is of schedule = 'async'"),
        ({"federation": {"schedule": "async", "age_discount": 0.7}}, "the powers 0, 0.5 and 1"),
        ({"federation": {"schedule": "async", "quorum": 0}}, "federation.quorum = 0"),
        (
            {"federation": {"schedule": "async", "window_seconds": 9, "submit_seconds": 8}},
            "no longer than submit_seconds",
        ),
        ({"federation": {"sum_seconds": 0}}, "federation.sum_seconds = 0"),
    ],
)
def test_a_wrong_value_is_named_in_one_line(values: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        build_config({"experiment": "nsl-kdd", **values})
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_synchronous_run_has_one_digest_however_it_is_said() -> None:
    plain = config_from("nsl-kdd", {})
    assert plain.digest.hex() == "c6ebe722d13a0f19d8b88a22fa287ecd06edabd787de8f39294f9e2730e99401"
    assert config_from("nsl-kdd", {"federation": {"schedule": "sync"}}).digest == plain.digest
    federation = plain.federation
    assert (federation.schedule, federation.asynchronous, federation.sums_wait) == (None, False, 3600)
    assert (federation.rules().window_seconds, federation.rules().quorum) == (0, 0)
    later = ("schedule", "window_seconds", "quorum", "age_discount", "sum_seconds")
    assert not set(later) & set(plain.model_dump()["federation"])
    other = config_from("nsl-kdd", {"federation": {"sum_seconds": 60}})
    assert other.digest != plain.digest
    assert other.federation.sums_wait == 60


def test_an_asynchronous_run_says_all_that_it_goes_by() -> None:
    config = config_from("nsl-kdd", {"federation": {"schedule": "async"}})
    found = config.federation
    assert found.asynchronous
    assert (found.window_seconds, found.quorum, found.age_discount) == (60, 3, 0.5)
    assert (found.commit_seconds, found.reveal_seconds) == (120, 120)
    assert (found.rules().window_seconds, found.rules().quorum, found.rules().commit_seconds) == (60, 3, 120)
    # What is read back is the same run, and so is one that says the defaults.
    assert RunConfig.model_validate_json(config.canonical()) == config
    said = {"schedule": "async", "window_seconds": 60, "quorum": 3, "age_discount": 0.5, "commit_seconds": 120}
    assert config_from("nsl-kdd", {"federation": said}).digest == config.digest
    long = {"schedule": "async", "commit_seconds": 7 * 86_400}
    assert config_from("nsl-kdd", {"federation": long}).federation.commit_seconds == 7 * 86_400
    others = [{"window_seconds": 61}, {"quorum": 4}, {"age_discount": 0}, {"age_discount": 1}, {"sum_seconds": 60}]
    digests = {config_from("nsl-kdd", {"federation": {"schedule": "async", **o}}).digest for o in others}
    assert len(digests | {config.digest}) == len(others) + 1
    assert FederationSettings(schedule="async", age_discount=1).age_discount == 1.0


def test_the_help_names_the_true_defaults() -> None:
    import inspect
    import re

    from runner.commands.experiment import experiment

    defaults = config_from("nsl-kdd", {})
    tables = (RuntimeSettings(), defaults.model, defaults.data, defaults.federation, defaults.grades)
    flat = {name: value for table in tables for name, value in table.model_dump().items()}
    flat = asdict(Access()) | flat | defaults.model_dump()
    assert defaults.mitigation is None
    flat |= {"model": "qgan", "mitigation": "none", "mitigation_at": MitigationSettings(stack="readout").apply}
    checked = 0
    for name, parameter in inspect.signature(experiment, eval_str=True).parameters.items():
        for option in getattr(parameter.annotation, "__metadata__", ()):
            found = re.search(r"default: (\S+)\]", getattr(option, "help", None) or "")
            if found:
                assert found.group(1) == str(flat[name]), name
                checked += 1
    assert checked >= 18


def test_files_that_are_no_config(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        read_toml(tmp_path / "none.toml")
    bad = tmp_path / "bad.toml"
    bad.write_text("rounds = = 3\n")
    with pytest.raises(UsageError, match="line 1"):
        read_toml(bad)
    bad.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError):
        read_toml(bad)
    unknown = tmp_path / "unknown.toml"
    unknown.write_text("[modle]\nqubits = 3\n")
    with pytest.raises(UsageError, match=r"unknown.toml: unknown key 'modle'. Did you mean 'model'"):
        config_from("nsl-kdd", {}, unknown)
    other = tmp_path / "other.toml"
    other.write_text('experiment = "other"\n')
    with pytest.raises(UsageError, match="the command names 'nsl-kdd'"):
        config_from("nsl-kdd", {}, other)


def test_unknown_experiment_gets_a_suggestion() -> None:
    with pytest.raises(UsageError, match="Did you mean 'nsl-kdd'"):
        config_from("nsl-kd", {})


def test_merge_keeps_what_is_not_named() -> None:
    assert merge({"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"c": 4}}) == {"a": 1, "b": {"c": 4, "d": 3}}


def test_seeds_are_apart() -> None:
    seeds = {derive(s, p, *k) for s in (0, 1) for p in ("train", "split") for k in ((), (1,), (1, 2), (12,))}
    assert len(seeds) == 16
    assert derive(0, "train", 1, 2) == derive(0, "train", 1, 2)


def test_options_find_their_tables() -> None:
    """A keyword of any table goes where it belongs: a name that is in two is the first one's."""
    config = config_from("nsl-kdd", {"norm_bound": 5.0, "signatures": "ml-dsa-65", "aggregation": "krum", "qubits": 3})
    assert config.grades.norm_bound == 5.0
    assert (config.federation.signatures, config.federation.aggregation) == ("ml-dsa-65", "krum")
    names = [name for table in TABLES.values() for name in table.model_fields]
    # `samples` without a table is the model's; a device's stands in [runtime], as its shots do.
    assert sorted(names) == sorted([*set(names), "samples"])
    assert config_from("nsl-kdd", {"samples": 32}).model.samples == 32
    assert config_from("nsl-kdd", {"shots": 32}).shots == 32
    assert set(names) & set(RunConfig.model_fields) == {"shots"}
    with pytest.raises(UsageError, match=r"grades\.norm_bound = -1"):
        config_from("nsl-kdd", {"norm_bound": -1})


DEFAULT_DIGEST = "c6ebe722d13a0f19d8b88a22fa287ecd06edabd787de8f39294f9e2730e99401"
"""Of the defaults; an option that comes later must not change it."""


def test_a_run_without_the_runtime_keeps_its_digest() -> None:
    config = config_from("nsl-kdd", {})
    assert config.digest.hex() == DEFAULT_DIGEST
    assert "runtime" not in config.model_dump(mode="json")
    assert RunConfig.model_validate(config.model_dump(mode="json")) == config


def test_the_runtime_samples_and_takes_few_samples_unless_told() -> None:
    config = config_from("nsl-kdd", {"engine": "runtime"})
    assert (config.shots, config.model.samples, config.runtime) == (1024, 256, RuntimeSettings())
    assert config.digest != config_from("nsl-kdd", {"engine": "aer", "samples": 256}).digest
    told = config_from("nsl-kdd", {"engine": "runtime", "shots": 64, "samples": 32})
    assert (told.shots, told.model.samples) == (64, 32)
    assert config_from("nsl-kdd", {"run_on": "fake_kyiv"}).model.samples == 512


def test_every_value_of_the_runtime_counts_in_the_digest() -> None:
    base = {"engine": "runtime"}
    ways = [{}, {"dynamical_decoupling": "XX"}, {"twirling": "all"}, {"resilience_level": 0}, {"resilience_level": 1}]
    on = [{}, {"run_on": "fake_kyiv"}, {"run_on": "fake_kyiv", "fine_tune": 3}]
    on += [{"run_on": "fake_fez"}, {"run_on": "fake_kyiv", "runtime": {"shots": 64}}]
    digests = [config_from("nsl-kdd", {**base, **way}).digest for way in ways]
    digests += [config_from("nsl-kdd", way).digest for way in on]
    assert len(set(digests)) == len(ways) + len(on)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"engine": "runtime", "backend": "ideal"}, "needs a device"),
        ({"engine": "runtime", "run_on": "fake_kyiv"}, "--backend"),
        ({"engine": "runtime", "device": "cuda"}, "--engine twin"),
        ({"engine": "runtime", "idle_noise": True}, "--engine twin"),
        ({"engine": "runtime", "gradient": "exact"}, "spsa"),
        ({"engine": "runtime", "fine_tune": 3}, "--run-on"),
        ({"engine": "runtime", "dynamical_decoupling": "XXX"}, "runtime.dynamical_decoupling = 'XXX'"),
        ({"engine": "runtime", "twirling": "some"}, "runtime.twirling"),
        ({"engine": "runtime", "resilience_level": 3}, "runtime.resilience_level = 3"),
        ({"engine": "runtime", "runtime": 3}, "runtime = 3"),
        ({"twirling": "all"}, "--engine runtime"),
        ({"run_on": "ideal"}, "no device"),
        ({"engine": "aer", "run_on": "fake_kyiv"}, "--engine twin"),
        ({"run_on": "fake_kyiv", "fine_tune": -1}, "runtime.fine_tune = -1"),
        ({"run_on": "fake_kyiv", "runtime": {"samples": 3}}, "runtime.samples = 3"),
        ({"data": {"shots": 3}}, "above all tables"),
    ],
)
def test_what_does_not_fit_the_runtime_is_named_in_one_line(values: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        config_from("nsl-kdd", values)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_may_leave_the_device_to_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text("[runtime]\nshots = 128\nsamples = 32\n")
    config = config_from("nsl-kdd", {"run_on": "fake_manila"}, file)
    assert config.runtime is not None
    assert (config.runtime.run_on, config.runtime.shots, config.runtime.samples) == ("fake_manila", 128, 32)
    file.write_text('[runtime]\ndynamical_decoupling = "XY4"\n')
    assert config_from("nsl-kdd", {"engine": "runtime"}, file).engine == "runtime"
    file.write_text("[runtime]\nshots = 0\n")
    with pytest.raises(UsageError, match=r"a\.toml: runtime\.shots = 0"):
        config_from("nsl-kdd", {"run_on": "fake_manila"}, file)


def test_a_preset_lies_under_file_and_options(tmp_path: Path) -> None:
    default, fast = config_from("nsl-kdd", {}), config_from("nsl-kdd", {"preset": "fast"})
    assert config_from("nsl-kdd", {"preset": "default"}).digest == default.digest
    assert (fast.rounds, fast.model.qubits, fast.model.discriminators) == (3, 4, 2)
    assert fast.model.features == default.model.features
    assert "preset" not in fast.model_dump()
    file = tmp_path / "some.toml"
    file.write_text('preset = "fast"\n[model]\nqubits = 5\n')
    both = config_from("nsl-kdd", {"rounds": 2, "preset": None}, file)
    assert (both.rounds, both.model.qubits, both.model.discriminators) == (2, 5, 2)
    for name in ("better", "best"):
        chosen = config_from("nsl-kdd", {"preset": name}, file).model
        assert (chosen.qubits, chosen.discriminators, chosen.waves) == (5, 8, 256)
    with pytest.raises(UsageError, match=r"unknown preset 'bset'\. Did you mean best"):
        config_from("nsl-kdd", {"preset": "bset"})


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"trained_readout": False, "features": 22}, "21 are measured"),
        ({"trained_readout": False, "generator": "classical:1"}, "nothing without a readout"),
        ({"generator": "classical"}, "model.generator"),
        ({"score": {"distances": 1.0}}, "score"),
    ],
)
def test_a_model_that_cannot_be_is_refused(model: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError) as told:
        config_from("nsl-kdd", {"model": model})
    assert said in str(told.value)


def test_scaled_noise_and_layouts_are_left_out_of_the_digest_where_they_say_nothing() -> None:
    plain = build_config({"experiment": "nsl-kdd"})
    for values in ({"noise_scale": 1.0}, {"layout": 0}, {"noise_scale": 1, "layout": 0}):
        assert build_config({"experiment": "nsl-kdd", **values}).digest == plain.digest
    scaled = build_config({"experiment": "nsl-kdd", "noise_scale": 0.0, "layout": 2})
    assert scaled.model_dump(mode="json")["noise_scale"] == 0.0
    assert scaled.digest != plain.digest


@pytest.mark.parametrize("name", ["noise_scale", "layout"])
def test_ideal_and_real_devices_have_no_scaled_noise_and_no_other_layout(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name}: ideal"):
        build_config({"experiment": "nsl-kdd", "backend": "ideal", name: 2})
    runtime = {"engine": "runtime", "shots": 64, "runtime": {}, name: 2}
    with pytest.raises(UsageError, match=f"{name}: a device runs"):
        build_config({"experiment": "nsl-kdd", **runtime})


def test_one_process_plays_no_asynchronous_task(tmp_path: Path) -> None:
    from runner.places import Places
    from runner.run import start

    config = config_from("nsl-kdd", {"backend": "ideal", "federation": {"schedule": "async"}})
    with pytest.raises(UsageError, match=r"every node waits for the one before it.*qrun task open"):
        start(config, Places(), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("name", "taken"), [("WrongPhase", False), ("Reverted", False), ("NotActive", None)])
def test_what_came_too_late_is_no_error(name: str, taken: bool | None) -> None:
    from contracts.errors import ContractRevert
    from runner.contribution import in_time

    def step() -> None:
        raise ContractRevert(name, {})

    assert in_time(lambda: None)
    if taken is None:
        with pytest.raises(ContractRevert):
            in_time(step)
    else:
        assert in_time(step) is taken
