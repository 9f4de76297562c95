"""`qrun node`: one peer of a federated task, in a process of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from runner.commands.base import JsonOption, guarded, print_json


@guarded
def node(
    *,
    task: Annotated[str, typer.Option(help="Address of the task's contract (`qrun task open` prints it).")],
    chain: Annotated[str, typer.Option(help="JSON-RPC URL of an Ethereum node.")],
    key: Annotated[Path, typer.Option(help="This node's keystore (`qrun key new FILE`).")],
    ipfs: Annotated[str | None, typer.Option(help="Address of an IPFS daemon.")] = None,
    blocks: Annotated[
        Path | None, typer.Option(help="In place of IPFS: a folder of blocks that all nodes share, on one machine.")
    ] = None,
    gateway: Annotated[
        list[str] | None, typer.Option(help="An IPFS gateway to read from where the daemon has nothing; repeatable.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of the data set's files, else looked for.")] = None,
    password_file: Annotated[
        Path | None, typer.Option(help="File with the keystore's password, mode 0600; asked for if not given.")
    ] = None,
    confirmations: Annotated[int, typer.Option(help="Blocks that a transaction must be in or under.")] = 1,
    out: Annotated[Path | None, typer.Option(help="This node's folder; to go on, the same again.")] = None,
    trust_chain: Annotated[
        bool,
        typer.Option("--trust-chain", help="Believe the node behind --chain: do not execute the task again."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Take part in a task: train, publish, fetch, check and grade, until it has ended.

    Killed or interrupted, the same command goes on.
    """
    from circuits.errors import UsageError
    from runner.peers.places import PeerPlaces
    from runner.peers.run import run_node
    from runner.peers.watch import Stopped
    from runner.view import Terminal

    if (ipfs is None) == (blocks is None):
        raise UsageError(
            "the others must be able to fetch what this node publishes.",
            "Name an IPFS daemon with --ipfs URL, or (on one machine) a common folder with --blocks DIR; one of them.",
        )
    places = PeerPlaces(chain, ipfs, tuple(gateway or ()), confirmations, blocks=blocks)
    try:
        with Terminal(tables=False) as terminal:
            report, folder = run_node(
                task,
                places,
                key=key,
                password_file=password_file,
                data=data,
                out=out,
                distrust=not trust_chain,
                reporter=terminal,
            )
    except Stopped:
        raise KeyboardInterrupt("interrupted; the same command goes on.") from None
    if as_json:
        print_json(report)
    else:
        from runner.view_peer import show_report

        show_report(report, folder)


def add(app: typer.Typer) -> None:
    """Put `node` onto the command line."""
    app.command()(node)
