"""qrun verify: proves a run from chain and store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from runner.commands.base import JsonOption, complete_run, guarded, print_json


@guarded
def verify(
    run: Annotated[
        str,
        typer.Argument(
            help="Name of the run (or its beginning), the folder of a run or a node, or a contract's address.",
            autocompletion=complete_run,
        ),
    ],
    *,
    chain: Annotated[
        str | None, typer.Option(help="JSON-RPC URL of an Ethereum node, or FILE of an embedded chain; else the run's.")
    ] = None,
    ipfs: Annotated[str | None, typer.Option(help="Address of an IPFS daemon that has the run's files.")] = None,
    store: Annotated[Path | None, typer.Option(help="Folder of blocks that has them (`qrun store import`).")] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Also compute metrics and grades again: folder of the data set's files, or `auto`."),
    ] = None,
    node: Annotated[
        int | None, typer.Option(help="With --data: only what rests on this node's records.", min=0, max=254)
    ] = None,
    witness: Annotated[
        bool | None,
        typer.Option(
            "--witness/--no-witness",
            help="Behind a URL: execute the task's transactions again; by default where it has few blocks.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check every statement of a run: models, signatures, deadlines, aggregations, grades, reputation, result.

    Exit code 1 if a statement is false, 2 if the record itself keeps statements from being checked.
    """
    from circuits.errors import UsageError
    from runner.audit.audit import WithData, audit
    from runner.audit.sources import gather
    from runner.audit.view import progress, show_audit

    if node is not None and data is None:
        raise UsageError("--node says whose records to compute with: it needs --data.", "Add --data DIR, or auto.")
    if data not in (None, "auto") and not Path(str(data)).is_dir():
        raise UsageError(f"--data {data}: no such folder.", "Give the folder of the data set's files, or auto.")
    wanted = None if data is None else WithData(None if data == "auto" else Path(data), node)
    with progress() as notify, gather(run, chain=chain, ipfs=ipfs, store=store) as evidence:
        found = audit(evidence, data=wanted, witness=witness, notify=notify)
    if as_json:
        print_json(found.to_dict())
    else:
        show_audit(found)
    if not found.sound:
        raise typer.Exit(1 if found.sound is False else 2)


def add(app: typer.Typer) -> None:
    """Put `verify` onto the command line."""
    app.command()(verify)
