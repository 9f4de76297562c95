"""`qrun experiment`: runs one, or lists them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from runner.commands.base import (
    ConfirmationsOption,
    GatewayOption,
    JsonOption,
    complete_backend,
    complete_experiment,
    guarded,
    print_json,
)
from runner.commands.played import MaxQpuOption, MaxTimeOption, ModeOption, PatienceOption, play
from runner.commands.run_options import Asked, defines_a_run


def complete_model(incomplete: str) -> list[str]:
    """Names of models that begin so."""
    from runner.benchmark.compare import MODELS

    return [m for m in MODELS if m.startswith(incomplete)]


@guarded
@defines_a_run
def experiment(
    name: Annotated[
        str, typer.Argument(help="The experiment, or `list` for all of them.", autocompletion=complete_experiment)
    ],
    *,
    asked: Asked,
    model: Annotated[
        str | None,
        typer.Option(
            help="qgan, or a baseline on the same data and features, as gaussian-mixture (`qrun benchmark` has all). "
            "\\[default: qgan]",
            autocompletion=complete_model,
        ),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of the data set's files, else looked for.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; new or empty.")] = None,
    chain: Annotated[
        str | None, typer.Option(help="JSON-RPC URL of an Ethereum node, else a chain in the run's folder.")
    ] = None,
    ipfs: Annotated[
        str | None, typer.Option(help="Address of an IPFS daemon, else a store in the run's folder.")
    ] = None,
    gateway: GatewayOption = None,
    confirmations: ConfirmationsOption = None,
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
    only_runs = {
        "--aggregation": asked.values["aggregation"],
        "--signatures": asked.values["signatures"],
        "--out": out,
        "--chain": chain,
        "--ipfs": ipfs,
        "--mode": mode,
        "--train-on": train_on,
        "--run-on": run_on,
        "--device-samples": device_samples,
        "--fine-tune": fine_tune,
        "--dd": dynamical_decoupling,
        "--twirling": twirling,
        "--resilience-level": resilience_level,
        "--mitigation": asked.values["mitigation"]["stack"],
        "--mitigation-at": asked.values["mitigation"]["apply"],
        "--mitigation-budget": asked.values["mitigation"]["budget"],
        "--infidelity-weight": asked.values["model"]["infidelity_weight"],
        "--dp": asked.values["model"]["dp"],
        "--gateway": gateway,
        "--confirmations": confirmations,
        "--max-qpu-seconds": max_qpu_seconds,
        "--max-time": max_time,
        "--patience": patience,
        "--dry-run": dry_run,
        "--detach": detach,
    }
    if model is not None:
        from runner.benchmark.single import check

        baseline = check(model, only_runs)
    else:
        baseline = False
    from runner.config import read_toml
    from runner.options import config_from

    # The twin is exact, and shots are the device's, where trained models go to one.
    in_file = {} if asked.file is None else read_toml(asked.file).get("runtime")
    elsewhere = run_on is not None or (isinstance(in_file, dict) and in_file.get("run_on") is not None)
    shots = asked.values["shots"]
    values: dict[str, Any] = {
        **asked.values,
        "engine": _engine(asked.values["engine"], train_on),
        "shots": None if elsewhere else shots,
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

    places = Places(data, chain, ipfs, tuple(gateway or ()), confirmations)
    places.check()
    said = Said(mode, max_qpu_seconds, max_time, patience, detach=detach)
    said.access()
    checked = config_from(name, values, asked.file, tell=tell_of)
    if train_on is not None and (checked.runtime is None or checked.runtime.run_on is None):
        raise UsageError(f"--train-on {train_on}: says where models for a device are trained.", "Add --run-on NAME.")
    if baseline and model is not None:
        _run_baseline(checked, model, data, as_json=as_json)
        return
    said.fits(checked)
    if dry_run:
        from runner.commands.estimate import tell

        tell(name, [checked], as_json=as_json)
        return

    # After the check: a mistake is told at once, torch and qiskit load for what can be run.
    from runner.run import start

    play(lambda terminal: start(checked, places, out=out, said=said, reporter=terminal), as_json=as_json)


def _run_baseline(config: Any, model: str, data: Path | None, *, as_json: bool) -> None:
    """A baseline instead of a run."""
    from runner.benchmark.single import run_model, show
    from runner.report.mitigation_view import RowBar

    with RowBar("reading the data") as bar:
        result = run_model(config, model, data, bar.notice, lambda text: bar.say(0, 1, text))
    if as_json:
        print_json(result)
    else:
        show(result)


def _engine(engine: str | None, train_on: str | None) -> str | None:
    """The engine, which --train-on names too.

    Raises:
        UsageError: they name two.
    """
    from circuits.errors import UsageError

    if None not in (engine, train_on) and engine != train_on:
        raise UsageError(f"--engine {engine} and --train-on {train_on} name two engines.", "Leave one out.")
    return train_on if engine is None else engine


def tell_of(title: str, text: str) -> None:
    """Say which device or stack was chosen, and why."""
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
