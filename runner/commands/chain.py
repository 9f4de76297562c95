"""qrun chain: what happened on the chain, shown and exported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runner.commands.base import JsonOption, complete_run, guarded, print_json

if TYPE_CHECKING:
    from runner.audit.sources import Task

Target = Annotated[
    str,
    typer.Argument(
        help="Name of the run (or its beginning), a run's folder, or a contract's address.", autocompletion=complete_run
    ),
]
Where = Annotated[
    str | None, typer.Option(help="JSON-RPC URL of an Ethereum node, or FILE of an embedded chain; else the run's.")
]


@guarded
def show(run: Target, chain: Where = None, as_json: JsonOption = False) -> None:
    """All that happened to a run's task: block, time, who, what, gas."""
    from runner.audit.story import tell

    task = _task(run, chain)
    told = tell(task.history)
    if as_json:
        print_json(told)
        return
    from runner.audit.view import show_story

    show_story(task.history, told)


@guarded
def export(
    run: Target,
    file: Annotated[Path, typer.Argument(help="JSON file to write.")],
    chain: Where = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a task's transactions, events, receipts and headers to a file (docs/audit.md has the schema)."""
    from contracts.chain_export import export_chain
    from runner.audit.writing import writing

    task = _task(run, chain)
    body = export_chain(task.history, task.file)
    with writing(file, force=force) as out:
        out.write(json.dumps(body, indent=1, allow_nan=False).encode() + b"\n")
    said = {"file": str(file), "contract": task.history.address, "transactions": len(body["transactions"])}
    if as_json:
        print_json(said)
    else:
        typer.echo(f"wrote {said['transactions']} transactions of contract {said['contract']} to {file}")


def _task(run: str, chain: str | None) -> Task:
    """The task's log, which is not empty.

    Raises:
        QrunError: the contract that is named is not there, or is another.
    """
    from circuits.errors import QrunError
    from runner.audit.sources import read_task

    task = read_task(run, chain)
    if not task.history.entries:
        what = "a contract that opened no task" if task.history.code else "no contract"
        raise QrunError(
            f"at {task.history.address} on the chain {task.history.where} there is {what}.",
            "Is it the right chain, and the right address?",
        )
    return task


def add(app: typer.Typer) -> None:
    """Put the group `chain` onto the command line."""
    group = typer.Typer(help="What happened on a run's chain: show, export.", no_args_is_help=True)
    group.command("show")(show)
    group.command("export")(export)
    app.add_typer(group, name="chain")
