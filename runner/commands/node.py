"""`qrun node`: one peer of a federated task, in a process of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from runner.commands.base import ConfirmationsOption, GatewayOption, JsonOption, guarded, print_json
from runner.commands.peering import (
    ChainOption,
    IpfsOption,
    KeyOption,
    PasswordFileOption,
    StoreOption,
    TaskOption,
    places_of,
)


@guarded
def node(
    *,
    task: TaskOption,
    chain: ChainOption,
    key: KeyOption,
    ipfs: IpfsOption = None,
    store: StoreOption = None,
    gateway: GatewayOption = None,
    data: Annotated[Path | None, typer.Option(help="Folder of the data set's files, else looked for.")] = None,
    password_file: PasswordFileOption = None,
    confirmations: ConfirmationsOption = None,
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
    from runner.peers.keys import open_keys
    from runner.peers.task import check_address

    places = places_of(chain, ipfs, store, gateway, confirmations, needs_store=True)
    address = check_address(task)
    # First of all: to open a keystore takes 128 MiB for a moment, which need not come on top of the rest.
    account, keys = open_keys(key, password_file)
    from runner.peers.run import run_node
    from runner.peers.watch import Stopped
    from runner.view import Terminal

    try:
        with Terminal(tables=False) as terminal:
            report, folder = run_node(
                address,
                places,
                account,
                keys,
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
