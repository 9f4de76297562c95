"""What the commands of a peer share: where chain and store are, whose key it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runner.commands.key import PasswordFileOption

if TYPE_CHECKING:
    from runner.peers.places import PeerPlaces

__all__ = ["ChainOption", "IpfsOption", "KeyOption", "PasswordFileOption", "StoreOption", "TaskOption", "places_of"]

ChainOption = Annotated[
    str, typer.Option(help="JSON-RPC URL of an Ethereum node (or FILE of an embedded chain, one process at a time).")
]
IpfsOption = Annotated[str | None, typer.Option(help="Address of your IPFS daemon.")]
StoreOption = Annotated[
    Path | None, typer.Option(help="Folder of blocks that all peers share, in place of IPFS (one machine).")
]
KeyOption = Annotated[Path, typer.Option(help="Your keystore (`qrun key new FILE`).")]
TaskOption = Annotated[str, typer.Option(help="The task's address.")]


def places_of(
    chain: str,
    ipfs: str | None = None,
    store: Path | None = None,
    gateways: Sequence[str] | None = None,
    confirmations: int | None = None,
    *,
    needs_store: bool = False,
) -> PeerPlaces:
    """Where a command that opens, joins or shows a task works.

    Args:
        chain: URL or file.
        ipfs: Address of a daemon.
        store: Folder of blocks.
        gateways: Of IPFS.
        confirmations: Of a chain behind a URL.
        needs_store: Whether the task's config is put or fetched.

    Raises:
        UsageError: one of them is wrong, or missing.
    """
    from circuits.errors import UsageError
    from runner.peers.places import PeerPlaces, peers_home

    if ipfs is not None and store is not None:
        raise UsageError("--ipfs and --store name two stores.", "Leave one out.")
    if needs_store and ipfs is None and store is None:
        raise UsageError("no store is named: peers have the task's config from it.", "Add --ipfs URL, or --store DIR.")
    return PeerPlaces(
        chain, ipfs, tuple(gateways or ()), 1 if confirmations is None else confirmations, peers_home(), store
    )
