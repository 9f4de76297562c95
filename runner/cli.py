"""The command line: options to values, values to calls, results to stdout. No logic, and no heavy import at the top."""

from __future__ import annotations

import io
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from runner.commands import attack as attack_command
from runner.commands import chain as chain_commands
from runner.commands import rollback
from runner.commands import store as store_commands
from runner.commands import verify as verify_command
from runner.commands.base import JsonOption, RunArgument, complete_backend, complete_experiment, guarded, print_json

app = typer.Typer(
    name="qrun",
    help="A hardware-targeting experiment runner for federated quantum machine learning.",
    epilog="Start with: qrun experiment nsl-kdd --backend fake_kyiv",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
backends_app = typer.Typer(help="Devices, and the noisy twins of devices.", no_args_is_help=True)
runs_app = typer.Typer(help="Runs of this user: list, show, resume, remove.", no_args_is_help=True)
app.add_typer(backends_app, name="backends")
app.add_typer(runs_app, name="runs")
rollback.add(runs_app)


def _version(value: bool) -> None:
    if value:
        from runner.versions import package_version

        typer.echo(f"qrun {package_version('qrun')}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
@guarded
def experiment(
    name: Annotated[
        str, typer.Argument(help="The experiment, or `list` for all of them.", autocompletion=complete_experiment)
    ],
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


@backends_app.command("list")
@guarded
def backends_list(as_json: JsonOption = False) -> None:
    """All names that --backend takes, with the calibration they stand for."""
    from backends.catalog import list_targets
    from runner.view import show_targets

    targets = list_targets()
    if as_json:
        print_json([t.to_dict() for t in targets])
    else:
        show_targets(targets)


@backends_app.command("show")
@guarded
def backends_show(
    name: Annotated[str, typer.Argument(help="Name of a backend.", autocompletion=complete_backend)],
    as_json: JsonOption = False,
) -> None:
    """One backend: qubits, native gates, calibration date, median errors."""
    from backends.catalog import show
    from runner.view import show_target

    target = show(name)
    if as_json:
        print_json(target.to_dict())
    else:
        show_target(target)


@backends_app.command("save")
@guarded
def backends_save(
    name: Annotated[str, typer.Argument(help="Name of a backend.", autocompletion=complete_backend)],
    file: Annotated[Path, typer.Argument(help="Snapshot file to write; ends in .json.")],
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Save a backend's configuration and calibration, to run on it later with --backend FILE."""
    from backends.catalog import save_target

    saved = save_target(name, file, overwrite=force)
    told = {"name": saved.name, "file": str(file), "calibration_date": saved.calibration_date, "sha256": saved.sha256}
    if as_json:
        print_json(told)
    else:
        typer.echo(f"saved {saved.name}, calibrated {saved.calibration_date}, to {file} (SHA-256 {saved.sha256})")


@runs_app.command("list")
@guarded
def runs_list(as_json: JsonOption = False) -> None:
    """All runs, oldest first."""
    from runner.history import describe_runs
    from runner.view import show_runs

    runs = describe_runs()
    if as_json:
        print_json(runs)
    else:
        show_runs(runs)


@runs_app.command("show")
@guarded
def runs_show(
    run: RunArgument,
    on_chain: Annotated[bool, typer.Option("--on-chain", help="What the chain itself holds about it.")] = False,
    chain: Annotated[str | None, typer.Option(help="JSON-RPC URL for --on-chain, if the run's held a key.")] = None,
    as_json: JsonOption = False,
) -> None:
    """One run: its state, config and result; or its record on the chain."""
    from runner.history import describe_run, read_chain
    from runner.view import show_run
    from runner.view_rounds import show_chain

    if on_chain:
        record = read_chain(run, chain)
        if as_json:
            print_json(record)
        else:
            show_chain(record)
        return
    found = describe_run(run)
    if as_json:
        print_json(found)
    else:
        show_run(found)


@runs_app.command("resume")
@guarded
def runs_resume(
    run: RunArgument,
    data: Annotated[Path | None, typer.Option(help="Folder of the data set's files, if they moved.")] = None,
    chain: Annotated[str | None, typer.Option(help="JSON-RPC URL, if it held a key or the node moved.")] = None,
    ipfs: Annotated[str | None, typer.Option(help="Address of the IPFS daemon, if it moved.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Go on with a run that stopped; nothing that was acknowledged is done again."""
    from runner.places import Places
    from runner.run import go_on
    from runner.view import Terminal, show_result

    with Terminal(tables=not as_json) as terminal:
        outcome = go_on(run, places=Places(data, chain, ipfs), reporter=terminal)
    if as_json:
        print_json(outcome.result)
    else:
        show_result(outcome.result, outcome.path)


@runs_app.command("rm")
@guarded
def runs_rm(
    run: RunArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete a run's folder: models, chain, keys, result."""
    from runner.history import remove_run
    from runner.store import RunIndex

    info = RunIndex().find(run, exact=True)
    if not yes and not typer.confirm(f"Delete run {info.run} in {info.path}?", err=True):
        raise typer.Exit(1)
    remove_run(info.run)
    typer.echo(f"removed {info.run}")


@app.command()
@guarded
def doctor(
    chain: Annotated[str | None, typer.Option(help="Also look whether this Ethereum node answers.")] = None,
    ipfs: Annotated[str | None, typer.Option(help="Also look whether this IPFS daemon answers.")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of the data set's files.")] = None,
    as_json: JsonOption = False,
) -> None:
    """What is here and what is missing: versions, data, chain, IPFS, token; and how to mend it."""
    from runner.doctor import examine
    from runner.view import show_checks

    checks = examine(chain=chain, ipfs=ipfs, data=data)
    if as_json:
        print_json([c.to_dict() for c in checks])
    else:
        show_checks(checks)
    if any(c.state == "broken" for c in checks):
        raise typer.Exit(1)


# In the order of `qrun --help`: what a user comes for stands first.
for _group in (attack_command, verify_command, chain_commands, store_commands):
    _group.add(app)


def _terminate(*_: object) -> NoReturn:
    """A polite kill ends a run as Ctrl-C does: with the line that says how to go on."""
    raise KeyboardInterrupt


def main() -> None:
    """Entry point of the command `qrun`."""
    if sys.stdout is None:  # Closed by whoever started us.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that has no µ or … gets a question mark, not an error.
            stream.reconfigure(errors="replace")
    signal.signal(signal.SIGTERM, _terminate)
    app(prog_name="qrun")


if __name__ == "__main__":
    main()
