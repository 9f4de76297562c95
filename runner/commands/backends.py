"""qrun backends: devices, and the noisy twins of devices."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from runner.commands.base import JsonOption, complete_backend, guarded, print_json


@guarded
def list_(as_json: JsonOption = False) -> None:
    """All names that --backend takes, with the calibration they stand for."""
    from backends.catalog import list_targets
    from runner.view import show_targets

    targets = list_targets()
    if as_json:
        print_json([t.to_dict() for t in targets])
    else:
        show_targets(targets)


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


def add(app: typer.Typer) -> None:
    """Put the group `backends` onto the command line."""
    group = typer.Typer(help="Devices, and the noisy twins of devices.", no_args_is_help=True)
    group.command("list")(list_)
    group.command("show")(show)
    group.command("save")(save)
    app.add_typer(group, name="backends")
