"""qrun store: what a run published, as a CARv1 file, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from runner.commands.base import JsonOption, complete_run, guarded, print_json


@guarded
def export(
    run: Annotated[
        str,
        typer.Argument(
            help="Name of the run (or its beginning), a run's folder, or a folder of blocks.",
            autocompletion=complete_run,
        ),
    ],
    file: Annotated[Path, typer.Argument(help="CAR file to write.")],
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write all that a run published to a CARv1 file, which IPFS tools import (`ipfs dag import`)."""
    from runner.audit.carriage import export_store

    said = export_store(run, file, force=force)
    if as_json:
        print_json(said)
    else:
        typer.echo(f"wrote {said['files']} files in {said['blocks']} blocks to {file}")


@guarded
def import_(
    file: Annotated[Path, typer.Argument(help="CARv1 file to read.")],
    into: Annotated[
        str,
        typer.Option(
            help="A run (name, or its folder), or a folder of blocks, made where there is none.",
            autocompletion=complete_run,
        ),
    ],
    as_json: JsonOption = False,
) -> None:
    """Read a CARv1 file into a run's store or a folder; every block is hashed."""
    from runner.audit.carriage import import_store

    said = import_store(file, into)
    if as_json:
        print_json(said)
    else:
        typer.echo(f"read {said['files']} files in {said['blocks']} blocks into {said['folder']}")


def add(app: typer.Typer) -> None:
    """Put the group `store` onto the command line."""
    group = typer.Typer(help="What a run published: export and import as CAR files.", no_args_is_help=True)
    group.command("export")(export)
    group.command("import")(import_)
    app.add_typer(group, name="store")
