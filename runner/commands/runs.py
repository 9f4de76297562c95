"""qrun runs: what was run, and on with what stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from runner.commands import rollback
from runner.commands.base import (
    ConfirmationsOption,
    GatewayOption,
    JsonOption,
    RunArgument,
    guarded,
    print_json,
)
from runner.commands.played import MaxQpuOption, MaxTimeOption, ModeOption, PatienceOption, play


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


Data = Annotated[Path | None, typer.Option(help="Folder of the data set's files, if they moved.")]
Chain = Annotated[str | None, typer.Option(help="JSON-RPC URL, if it held a key or the node moved.")]
Ipfs = Annotated[str | None, typer.Option(help="Address of the IPFS daemon, if it moved.")]
Resubmit = Annotated[
    bool,
    typer.Option("--resubmit", help="Send anew what failed, and what the service does not show (it may cost twice)."),
]


@guarded
def resume(
    run: RunArgument,
    *,
    data: Data = None,
    chain: Chain = None,
    ipfs: Ipfs = None,
    gateway: GatewayOption = None,
    confirmations: ConfirmationsOption = None,
    mode: ModeOption = None,
    max_qpu_seconds: MaxQpuOption = None,
    max_time: MaxTimeOption = None,
    patience: PatienceOption = None,
    resubmit: Resubmit = False,
    as_json: JsonOption = False,
) -> None:
    """Go on with a run that stopped; nothing that was acknowledged is done again, and no job sent twice."""
    from runner.access import Said
    from runner.places import Places
    from runner.run import go_on

    said = Said(mode, max_qpu_seconds, max_time, patience, resubmit)
    said.access()  # a mistake is told first, also of a run that is finished
    places = Places(data, chain, ipfs, tuple(gateway or ()), confirmations)
    play(lambda terminal: go_on(run, places=places, said=said, reporter=terminal), as_json=as_json)


@guarded
def detach(
    run: RunArgument,
    *,
    data: Data = None,
    chain: Chain = None,
    ipfs: Ipfs = None,
    gateway: GatewayOption = None,
    confirmations: ConfirmationsOption = None,
    mode: ModeOption = None,
    max_qpu_seconds: MaxQpuOption = None,
    max_time: MaxTimeOption = None,
    patience: PatienceOption = None,
    resubmit: Resubmit = False,
    as_json: JsonOption = False,
) -> None:
    """Go on until all jobs that can be sent now are sent, and leave; `qrun runs resume` takes their results."""
    from runner.access import Said
    from runner.places import Places
    from runner.run import go_on

    said = Said(mode, max_qpu_seconds, max_time, patience, resubmit, detach=True)
    said.access()
    places = Places(data, chain, ipfs, tuple(gateway or ()), confirmations)
    play(lambda terminal: go_on(run, places=places, said=said, reporter=terminal), as_json=as_json)


@guarded
def rm(
    run: RunArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete a run's folder: models, chain, keys, result, jobs."""
    from runner.history import remove_run
    from runner.jobs import on_their_way
    from runner.store import RunIndex

    info = RunIndex().find(run, exact=True)
    going = on_their_way(info.run)
    if going:
        typer.echo(
            f"{going} job(s) of this run may still run on a device, and their results would be lost. "
            f"Before: qrun runs resume {info.run}, or qrun jobs cancel {info.run}",
            err=True,
        )
    if not yes and not typer.confirm(f"Delete run {info.run} in {info.path}?", err=True):
        raise typer.Exit(1)
    remove_run(info.run)
    typer.echo(f"removed {info.run}")


def add(app: typer.Typer) -> None:
    """Put the group `runs` onto the command line."""
    group = typer.Typer(help="Runs of this user: list, show, resume, detach, remove.", no_args_is_help=True)
    group.command("list")(list_)
    group.command("show")(show)
    group.command("resume")(resume)
    group.command("detach")(detach)
    rollback.add(group)
    group.command("rm")(rm)
    app.add_typer(group, name="runs")
