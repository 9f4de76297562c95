"""qrun estimate: what a run takes of a device, before anything is sent."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runner.commands.base import JsonOption, complete_backend, complete_experiment, guarded, print_json
from runner.commands.played import MitigationAtOption, MitigationBudgetOption, MitigationOption

if TYPE_CHECKING:
    from runner.config import RunConfig


@guarded
def estimate(
    name: Annotated[str, typer.Argument(help="The experiment.", autocompletion=complete_experiment)],
    *,
    backend: Annotated[
        str | None, typer.Option(help="A device. \\[default: fake_kyiv]", autocompletion=complete_backend)
    ] = None,
    nodes: Annotated[int | None, typer.Option(help="Federated nodes. \\[default: 3]")] = None,
    rounds: Annotated[int | None, typer.Option(help="Rounds. \\[default: 5]")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs a round (of 60 steps each). \\[default: 1]")] = None,
    qubits: Annotated[int | None, typer.Option(help="Qubits of the generator. \\[default: 6]")] = None,
    reps: Annotated[int | None, typer.Option(help="Repetitions of EfficientSU2. \\[default: 4]")] = None,
    entanglement: Annotated[
        str | None,
        typer.Option(help="full, linear, reverse_linear, pairwise, circular or sca. \\[default: reverse_linear]"),
    ] = None,
    engine: Annotated[
        str | None, typer.Option(help="runtime: everything on the device. Without it and --run-on both ways are shown.")
    ] = None,
    shots: Annotated[int | None, typer.Option(help="Shots a circuit on the device. \\[default: 1024]")] = None,
    aggregation: Annotated[str | None, typer.Option(help="How models are joined. \\[default: reputation]")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the experiment, and so of the layout.")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file of values; options given here win.")] = None,
    train_on: Annotated[str | None, typer.Option(help="With --run-on: the engine that trains; twin.")] = None,
    run_on: Annotated[
        str | None,
        typer.Option(help="Device that the trained models are run on.", autocompletion=complete_backend),
    ] = None,
    device_samples: Annotated[
        int | None, typer.Option(help="With --run-on: samples generated on the device. \\[default: 256]")
    ] = None,
    fine_tune: Annotated[
        int | None, typer.Option(help="With --run-on: generator steps there (SPSA). \\[default: 0]")
    ] = None,
    dynamical_decoupling: Annotated[
        str | None, typer.Option("--dd", help="Dynamical decoupling: off, XX, XpXm or XY4. \\[default: off]")
    ] = None,
    twirling: Annotated[str | None, typer.Option(help="off, gates, measure or all. \\[default: off]")] = None,
    resilience_level: Annotated[int | None, typer.Option(help="0, 1 or 2: the Estimator's mitigation.")] = None,
    mitigation: MitigationOption = None,
    mitigation_at: MitigationAtOption = None,
    mitigation_budget: MitigationBudgetOption = None,
    max_depth: Annotated[int | None, typer.Option(help="Depth that the compiled generator may have.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Jobs, circuits, shots, QPU seconds and share of the plan: `qrun estimate nsl-kdd --backend fake_torino`.

    Nothing is sent. A real device (ibm_*) is asked for its calibration, and the service for what the plan has left.
    """
    from circuits.errors import UsageError

    if None not in (engine, train_on) and engine != train_on:
        raise UsageError(f"--engine {engine} and --train-on {train_on} name two engines.", "Leave one out.")
    trains = train_on if engine is None else engine
    if trains not in (None, "runtime") and run_on is None and not _in_file(config):
        raise UsageError(
            f"{'--engine' if train_on is None else '--train-on'} {trains}: such a run sends nothing to a device.",
            "Take --engine runtime, or add --run-on NAME; without either both ways are shown.",
        )
    values = {
        "backend": backend,
        "nodes": nodes,
        "rounds": rounds,
        "epochs": epochs,
        "qubits": qubits,
        "reps": reps,
        "entanglement": entanglement,
        "engine": trains,
        "aggregation": aggregation,
        "seed": seed,
        "model": {"max_depth": max_depth},
        "mitigation": {"stack": mitigation, "apply": mitigation_at, "budget": mitigation_budget},
    }
    runtime = {
        "run_on": run_on,
        "samples": device_samples,
        "fine_tune": fine_tune,
        "dynamical_decoupling": dynamical_decoupling,
        "twirling": twirling,
        "resilience_level": resilience_level,
    }
    configs = _ways(name, values, runtime, shots, config)
    tell(name, configs, as_json=as_json)


def _ways(
    name: str, values: Mapping[str, Any], runtime: Mapping[str, Any], shots: int | None, file: Path | None
) -> list[RunConfig]:
    """The runs that are asked about: the one that is meant, or both ways to run on the device that is named.

    `shots` are those of the device: the engine's where everything runs there, else `runtime.shots`.
    """
    from circuits.errors import UsageError
    from runner.options import config_from

    direct = {**values, "shots": shots, "runtime": runtime}
    after = {**values, "runtime": {**runtime, "shots": shots}}
    if values["engine"] == "runtime":
        return [config_from(name, direct, file, tell=_say)]
    if runtime["run_on"] is not None:
        return [config_from(name, after, file, tell=_say)]
    # What is only of one way must not stand in the way of the other; the engine is what the two differ in.
    common = {key: value for key, value in values.items() if key != "engine"}
    plain = config_from(name, {**common, "engine": None if file else "twin"}, file, tell=_say)
    if plain.runtime is not None:
        return [config_from(name, direct if plain.engine == "runtime" else after, file)]
    if plain.backend == "ideal":
        raise UsageError("ideal is no device: nothing is paid there.", "Name one with --backend.")
    # Asked once: a calibration may change between two looks.
    there = {"backend": plain.backend, "snapshot_sha256": plain.snapshot_sha256, "idle_noise": False, "device": "cpu"}
    of_models = {"samples": None, "fine_tune": None}
    gradient = {"gradient": "auto"} if plain.model.gradient == "exact" else {}
    on_device = {
        **common,
        **there,
        **gradient,
        "engine": "runtime",
        "shots": shots,
        "runtime": {**runtime, **of_models},
    }
    run_on = {"run_on": plain.backend, "run_on_sha256": plain.snapshot_sha256, "shots": shots}
    on_twin = {**common, **there, "engine": "twin", "runtime": {**runtime, **run_on}}
    return [config_from(name, on_device, file), config_from(name, on_twin, file)]


def _in_file(file: Path | None) -> bool:
    """Whether a config file names the device that trained models go to."""
    from runner.config import read_toml

    runtime = {} if file is None else read_toml(file).get("runtime")
    return isinstance(runtime, dict) and runtime.get("run_on") is not None


def _say(title: str, text: str) -> None:
    """Which device was chosen, and why."""
    typer.echo(f"{title}: {text}", err=True)


def tell(name: str, configs: list[RunConfig], *, as_json: bool) -> None:
    """Compute and print what they take; all are on one device."""
    from backends.runtime.cost import OVERHEAD, circuit_seconds
    from runner.estimate import compiled_for, share_of
    from runner.estimate import estimate as expected
    from runner.view_devices import show_estimate

    target, circuit = compiled_for(configs[0])
    found = [expected(run, circuit, target) for run in configs]
    shares = [share_of(one, target) for one in found]
    for one, run in zip(found, configs, strict=True):
        if run.mitigation is not None and max(one.overhead.values(), default=0.0) > run.mitigation.budget:
            _say("Mitigation", f"past the budget of {run.mitigation.budget:g} circuits for each: it would be refused.")
            break
    runtime = configs[0].runtime
    assert runtime is not None  # or nothing could be estimated
    shot_seconds = circuit_seconds(circuit, target, runtime.options(found[0].shots))
    if as_json:
        estimates = [{**one.to_dict(), "plan": share.to_dict()} for one, share in zip(found, shares, strict=True)]
        told = {
            "experiment": name,
            "backend": target.name,
            "calibration_date": target.calibration_date,
            "shot_seconds": shot_seconds,
            "job_overhead_seconds": OVERHEAD,
            "estimates": estimates,
        }
        print_json(told)
    else:
        show_estimate(name, list(zip(found, shares, strict=True)), shot_seconds)


def add(app: typer.Typer) -> None:
    """Put `estimate` onto the command line."""
    app.command("estimate")(estimate)
