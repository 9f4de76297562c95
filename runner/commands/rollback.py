"""`qrun runs rollback`: nodes vote to go on from an earlier round."""

from __future__ import annotations

from typing import Annotated

import typer

from runner.commands.base import JsonOption, RunArgument, guarded, print_json


def add(app: typer.Typer) -> None:
    """Put the command onto the group of `qrun runs`."""
    app.command("rollback")(rollback)


@guarded
def rollback(
    run: RunArgument,
    to: Annotated[int, typer.Option(help="Round whose models training goes on from; 0: the common start.", min=0)],
    chain: Annotated[str | None, typer.Option(help="JSON-RPC URL, if the run's held a key or the node moved.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Go back to an earlier round of a run that stopped: its nodes vote on the chain; `qrun runs resume` goes on."""
    from runner.jobs import on_their_way
    from runner.rollback import roll_back

    done = roll_back(run, to, chain=chain)
    going = on_their_way(done["run"])
    if going:
        typer.echo(
            f"{going} job(s) that were sent before may still run on a device: qrun jobs cancel {done['run']}", err=True
        )
    if as_json:
        print_json(done)
        return
    start = f"round {done['target']}" if done["target"] else "the common start"
    if done["open_round"]:
        then = f"round {done['open_round']} goes on from {start}; `qrun runs resume {done['run']}`"
    else:
        then = f"no round is left, so that {start} is the last that counts; `qrun runs resume {done['run']}`"
    typer.echo(f"{len(done['votes'])} nodes voted: {then}")
