"""qrun backends: devices, and the noisy twins of devices."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from runner.commands.base import JsonOption, complete_backend, complete_experiment, guarded, print_json


@guarded
def list_(
    live: Annotated[
        bool, typer.Option("--live", help="Also the real devices of the account, with their queues: asks the service.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """All names that --backend takes, with the calibration they stand for."""
    from backends.catalog import list_targets

    targets = list_targets()
    found = []
    if live:
        from backends.live import devices

        found = devices()
    if as_json:
        real = [{**vars(device), "kind": "hardware"} for device in found]
        print_json([*real, *(t.to_dict() for t in targets)])
        return
    from runner.view import show_targets

    show_targets(targets)
    if live:
        # Last, so that they are in sight where the packaged ones fill the screen.
        from runner.view_devices import show_devices

        show_devices(found)


@guarded
def show(
    name: Annotated[str, typer.Argument(help="Name of a backend.", autocompletion=complete_backend)],
    as_json: JsonOption = False,
) -> None:
    """One backend: qubits, native gates, calibration date, median errors."""
    from backends.catalog import show as describe
    from runner.view import show_target

    target = describe(name)
    if as_json:
        print_json(target.to_dict())
    else:
        show_target(target)


@guarded
def save(
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


@guarded
def rank(
    name: Annotated[str, typer.Argument(help="The experiment.", autocompletion=complete_experiment)],
    *,
    backend: Annotated[
        list[str] | None,
        typer.Option(help="A device to rank; may be given again. \\[default: all]", autocompletion=complete_backend),
    ] = None,
    live: Annotated[bool, typer.Option("--live", help="Rank the account's real devices: asks the service.")] = False,
    qubits: Annotated[int | None, typer.Option(help="Qubits of the generator. \\[default: 6]")] = None,
    reps: Annotated[int | None, typer.Option(help="Repetitions of EfficientSU2. \\[default: 4]")] = None,
    entanglement: Annotated[
        str | None,
        typer.Option(help="full, linear, reverse_linear, pairwise, circular or sca. \\[default: reverse_linear]"),
    ] = None,
    max_depth: Annotated[int | None, typer.Option(help="Depth that the compiled generator may have.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the experiment, and so of the layout.")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file of values; options given here win.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Devices in the order of how well the experiment's circuit fares there, and how long they are waited for.

    Without --live the packaged devices are ranked, by their packaged calibrations.
    """
    from backends.runtime.rank import rank as ranking
    from experiments.base import find
    from runner.options import config_from
    from runner.seeds import derive
    from runner.view_devices import Ranking, show_ranking

    options = {"backend": "fake_kyiv", "qubits": qubits, "reps": reps, "entanglement": entanglement, "seed": seed}
    run = config_from(name, {**options, "max_depth": max_depth, "mitigation": "none"}, config)
    ansatz = find(name).ansatz(run.model)
    with Ranking() as progress:
        targets, queues = _targets(backend or [], live)
        layout = derive(run.seed, "layout") % 2**31
        ranked = ranking(ansatz, targets, queues, seed=layout, max_depth=run.model.max_depth, progress=progress.step)
    if as_json:
        print_json({"circuit": ansatz.name, "devices": [device.to_dict() for device in ranked]})
    else:
        show_ranking(f"{name} ({ansatz.name})", ranked)


def _targets(names: list[str], live: bool) -> tuple[list[Any], dict[str, int | None]]:
    """The targets to rank, and the queues of the real ones among them.

    Raises:
        UsageError: An unknown name, or the ideal target.
        ServiceError: The service is to be asked, and cannot be.
    """
    from backends.catalog import canonical_name, get_target, target_names
    from backends.live import devices, fetch, hardware_target, is_concrete
    from circuits.errors import UsageError

    wanted = list(dict.fromkeys(canonical_name(name) for name in names))
    if "ideal" in wanted:
        raise UsageError("the ideal target has no errors: it ranks above all devices.", "Name devices to rank.")
    real = devices() if live or any(is_concrete(name) for name in wanted) else []
    if live:
        wanted += [device.name for device in real if device.operational and device.name not in wanted]
        if not wanted:
            raise UsageError("no device of the account runs jobs at present.", "Leave --live out for packaged ones.")
    if not wanted:
        wanted = [name for name in target_names() if name != "ideal"]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        targets = [hardware_target(fetch(name, real)) if is_concrete(name) else get_target(name) for name in wanted]
    for warning in told:  # the Runtime's own words about a packaged device
        typer.echo(f"Note: {warning.message}", err=True)
    return targets, {device.name: device.queue for device in real}


def add(app: typer.Typer) -> None:
    """Put the group `backends` onto the command line."""
    group = typer.Typer(help="Devices, and the noisy twins of devices.", no_args_is_help=True)
    group.command("list")(list_)
    group.command("show")(show)
    group.command("save")(save)
    group.command("rank")(rank)
    app.add_typer(group, name="backends")
