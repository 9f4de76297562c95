"""`qrun experiment`: runs one, or lists them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from runner.commands.base import JsonOption, complete_backend, complete_experiment, guarded, print_json


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
            help="twin (exact, noisy), aer (shots), or qml (EstimatorQNN on Aer, slow: a reference). \\[default: twin]"
        ),
    ] = None,
    shots: Annotated[
        int | None,
        typer.Option(
            help="Shots a circuit: the twin samples instead of being exact; aer and qml take 1024 if not told."
        ),
    ] = None,
    idle_noise: Annotated[
        bool | None,
        typer.Option("--idle-noise/--no-idle-noise", help="Qubits also relax while they wait, with --engine twin."),
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
    as_json: JsonOption = False,
) -> None:
    """Run an experiment: `qrun experiment nsl-kdd --backend fake_kyiv`."""
    if name == "list":
        _list_experiments(as_json)
        return
    from runner.options import config_from

    values: dict[str, Any] = {
        "backend": backend,
        "nodes": nodes,
        "rounds": rounds,
        "engine": engine,
        "shots": shots,
        "idle_noise": idle_noise,
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
    }
    from runner.places import Places

    places = Places(data, chain, ipfs)
    checked = config_from(name, values, config)

    # After the check: a mistake is told at once, torch and qiskit load for what can be run.
    from runner.run import start
    from runner.view import Terminal, show_result

    with Terminal(tables=not as_json) as terminal:
        outcome = start(checked, places, out=out, reporter=terminal)
    if as_json:
        print_json(outcome.result)
    else:
        show_result(outcome.result, outcome.path)


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
