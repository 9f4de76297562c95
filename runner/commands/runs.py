"""qrun runs: what was run, and on with what stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from runner.commands import rollback
from runner.commands.base import JsonOption, RunArgument, guarded, print_json


@guarded
def list_(as_json: JsonOption = False) -> None:
    """All runs, oldest first."""
    from runner.history import describe_runs
    from runner.view import show_runs

    runs = describe_runs()
    if as_json:
        print_json(runs)
    else:
        show_runs(runs)


@guarded
def show(
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


@guarded
def resume(
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


@guarded
def rm(
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


def add(app: typer.Typer) -> None:
    """Put the group `runs` onto the command line."""
    group = typer.Typer(help="Runs of this user: list, show, resume, remove.", no_args_is_help=True)
    group.command("list")(list_)
    group.command("show")(show)
    group.command("resume")(resume)
    rollback.add(group)
    group.command("rm")(rm)
    app.add_typer(group, name="runs")
