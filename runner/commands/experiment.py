"""`qrun experiment`: runs one, or lists them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from runner.commands.base import JsonOption, complete_backend, complete_experiment, guarded, print_json
from runner.commands.played import (
    MaxQpuOption,
    MaxTimeOption,
    MitigationAtOption,
    MitigationBudgetOption,
    MitigationOption,
    ModeOption,
    PatienceOption,
    play,
)


@guarded
def experiment(
    name: Annotated[
        str, typer.Argument(help="The experiment, or `list` for all of them.", autocompletion=complete_experiment)
    ],
    *,
    backend: Annotated[
        str | None,
        typer.Option(
            help="ideal, a device (see `qrun backends list`), or a snapshot FILE.json. \\[default: fake_kyiv]",
            autocompletion=complete_backend,
        ),
    ] = None,
    nodes: Annotated[int | None, typer.Option(help="Federated nodes. \\[default: 3]")] = None,
    rounds: Annotated[int | None, typer.Option(help="Rounds. \\[default: 5]")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs a round (of 60 steps each). \\[default: 1]")] = None,
    qubits: Annotated[int | None, typer.Option(help="Qubits of the generator = features. \\[default: 6]")] = None,
    reps: Annotated[int | None, typer.Option(help="Repetitions of EfficientSU2. \\[default: 4]")] = None,
    entanglement: Annotated[
        str | None,
        typer.Option(help="full, linear, reverse_linear, pairwise, circular or sca. \\[default: reverse_linear]"),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            help="twin (exact, noisy), aer (shots), runtime (IBM's Runtime: devices, or its local mode), or qml "
            "(EstimatorQNN on Aer, slow: a reference). \\[default: twin]"
        ),
    ] = None,
    shots: Annotated[
        int | None,
        typer.Option(
            help="Shots a circuit: the twin samples instead of being exact; aer, qml, runtime take 1024 if not told. "
            "With --run-on: of the device."
        ),
    ] = None,
    idle_noise: Annotated[
        bool | None,
        typer.Option("--idle-noise/--no-idle-noise", help="Qubits also relax while they wait, with --engine twin."),
    ] = None,
    noise_scale: Annotated[
        float | None, typer.Option(help="The device's noise so many times as large, 0 to 10; the layout stays.")
    ] = None,
    layout: Annotated[
        int | None, typer.Option(help="0: the device's best qubits; 1: the best of those that are left ...")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu or cuda: where the twin computes. \\[default: auto]")
    ] = None,
    partition: Annotated[
        str | None,
        typer.Option(
            help="How benign records are dealt: iid, or dirichlet:ALPHA over protocol and service. \\[default: iid]"
        ),
    ] = None,
    aggregation: Annotated[
        str | None,
        typer.Option(
            help="How models are joined: reputation, mean, median, trimmed-mean or krum. \\[default: reputation]"
        ),
    ] = None,
    signatures: Annotated[
        str | None,
        typer.Option(help="How models are signed: secp256k1, or ml-dsa-65 (post-quantum). \\[default: secp256k1]"),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of all the experiment's randomness. \\[default: 0]")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of the data set's files, else looked for.")] = None,
    full: Annotated[bool | None, typer.Option("--full", help="Train on KDDTrain+, all 125,973 records.")] = None,
    no_test: Annotated[bool | None, typer.Option("--no-test", help="Leave the test file alone.")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file of values; options given here win.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; new or empty.")] = None,
    chain: Annotated[
        str | None, typer.Option(help="JSON-RPC URL of an Ethereum node, else a chain in the run's folder.")
    ] = None,
    ipfs: Annotated[
        str | None, typer.Option(help="Address of an IPFS daemon, else a store in the run's folder.")
    ] = None,
    mode: ModeOption = None,
    train_on: Annotated[
        str | None,
        typer.Option(help="With --run-on: the engine that trains; twin. The device then only runs the models."),
    ] = None,
    run_on: Annotated[
        str | None,
        typer.Option(
            help="Device that the trained models are run on; trains on its twin.", autocompletion=complete_backend
        ),
    ] = None,
    device_samples: Annotated[
        int | None, typer.Option(help="With --run-on: samples generated on the device; 256 if not told.")
    ] = None,
    fine_tune: Annotated[
        int | None, typer.Option(help="With --run-on: generator steps there (SPSA). \\[default: 0]")
    ] = None,
    dynamical_decoupling: Annotated[
        str | None, typer.Option("--dd", help="Dynamical decoupling: off, XX, XpXm or XY4. \\[default: off]")
    ] = None,
    twirling: Annotated[str | None, typer.Option(help="off, gates, measure or all. \\[default: off]")] = None,
    resilience_level: Annotated[
        int | None, typer.Option(help="0, 1 or 2: the Estimator's mitigation; counts of the Sampler if not told.")
    ] = None,
    mitigation: MitigationOption = None,
    mitigation_at: MitigationAtOption = None,
    mitigation_budget: MitigationBudgetOption = None,
    max_depth: Annotated[
        int | None, typer.Option(help="Depth that the compiled generator may have, else it is laid out anew.")
    ] = None,
    infidelity_weight: Annotated[
        float | None,
        typer.Option(help="Weight of the compiled circuit's expected infidelity in the generator's loss."),
    ] = None,
    max_qpu_seconds: MaxQpuOption = None,
    max_time: MaxTimeOption = None,
    patience: PatienceOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what the run's jobs would take; send nothing, write no run.")
    ] = False,
    detach: Annotated[
        bool, typer.Option("--detach", help="Send the jobs and leave; `qrun runs resume` takes their results.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Run an experiment: `qrun experiment nsl-kdd --backend fake_kyiv`."""
    if name == "list":
        _list_experiments(as_json)
        return
    from runner.config import read_toml
    from runner.options import config_from

    # The twin is exact, and shots are the device's, where trained models go to one.
    in_file = {} if config is None else read_toml(config).get("runtime")
    elsewhere = run_on is not None or (isinstance(in_file, dict) and in_file.get("run_on") is not None)
    values: dict[str, Any] = {
        "backend": backend,
        "nodes": nodes,
        "rounds": rounds,
        "engine": _engine(engine, train_on),
        "shots": None if elsewhere else shots,
        "idle_noise": idle_noise,
        "noise_scale": noise_scale,
        "layout": layout,
        "device": device,
        "seed": seed,
        "partition": partition,
        "full": full,
        "test": None if no_test is None else not no_test,
        "epochs": epochs,
        "qubits": qubits,
        "reps": reps,
        "entanglement": entanglement,
        "aggregation": aggregation,
        "signatures": signatures,
        "model": {"max_depth": max_depth, "infidelity_weight": infidelity_weight},
        "mitigation": {"stack": mitigation, "apply": mitigation_at, "budget": mitigation_budget},
        "runtime": {
            "run_on": run_on,
            "shots": shots if elsewhere else None,
            "samples": device_samples,
            "fine_tune": fine_tune,
            "dynamical_decoupling": dynamical_decoupling,
            "twirling": twirling,
            "resilience_level": resilience_level,
        },
    }
    from circuits.errors import UsageError
    from runner.access import Said
    from runner.places import Places

    places = Places(data, chain, ipfs)
    said = Said(mode, max_qpu_seconds, max_time, patience, detach=detach)
    said.access()
    checked = config_from(name, values, config, tell=_tell)
    if train_on is not None and (checked.runtime is None or checked.runtime.run_on is None):
        raise UsageError(f"--train-on {train_on}: says where models for a device are trained.", "Add --run-on NAME.")
    said.fits(checked)
    if dry_run:
        from runner.commands.estimate import tell

        tell(name, [checked], as_json=as_json)
        return

    # After the check: a mistake is told at once, torch and qiskit load for what can be run.
    from runner.run import start

    play(lambda terminal: start(checked, places, out=out, said=said, reporter=terminal), as_json=as_json)


def _engine(engine: str | None, train_on: str | None) -> str | None:
    """The engine, which --train-on names too.

    Raises:
        UsageError: they name two.
    """
    from circuits.errors import UsageError

    if None not in (engine, train_on) and engine != train_on:
        raise UsageError(f"--engine {engine} and --train-on {train_on} name two engines.", "Leave one out.")
    return train_on if engine is None else engine


def _tell(title: str, text: str) -> None:
    typer.echo(f"{title}: {text}", err=True)


def _list_experiments(as_json: bool) -> None:
    from circuits.errors import QrunError
    from experiments.base import find, names

    found = []
    for known in names():
        try:
            found.append({"name": known, "summary": find(known).summary})
        except QrunError as error:
            # One broken package must not hide the others' experiments.
            found.append({"name": known, "summary": f"cannot be loaded: {error.message}"})
    if as_json:
        print_json(found)
    else:
        from runner.tables import show_table

        show_table("Experiments", ["name", "what it is"], [[e["name"], e["summary"]] for e in found])


def add(app: typer.Typer) -> None:
    """Put `experiment` onto the command line."""
    app.command()(experiment)
