"""Where a peer finds the others: a chain, a content store, and a folder of its own."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from circuits.errors import UsageError
from contracts.chain import Chain, connect, redact
from contracts.outgoing import SendPolicy
from contracts.store import ContentStore, open_store
from runner.places import check_confirmations, check_gateways, check_ipfs, check_together, is_url
from runner.store import home


@dataclass(frozen=True, repr=False)
class PeerPlaces:
    """Where a peer works.

    Attributes:
        chain: URL of a JSON-RPC node, or the file of an embedded chain (one process at a time; for tests).
        ipfs: Address of an IPFS daemon; None for a folder of blocks alone.
        gateways: Of IPFS, asked for what neither folder nor daemon has.
        confirmations: Blocks that a transaction must be in or under before anything rests on it.
        folder: The peer's own.
        blocks: Folder of blocks; None for one in `folder`. Peers on one machine without IPFS share one.

    Raises:
        UsageError: an address is none, a file is not there, or the numbers are out of range.
    """

    chain: str
    ipfs: str | None = None
    gateways: tuple[str, ...] = ()
    confirmations: int = 1
    folder: Path = Path()
    blocks: Path | None = None

    def __post_init__(self) -> None:
        if not is_url(self.chain) and ("://" in self.chain or not os.path.isfile(self.chain)):
            # Not shown: what is no URL may still hold a password.
            raise UsageError(
                "--chain takes an http(s) URL, or the file of an embedded chain that is there.",
                "For example --chain http://127.0.0.1:8545",
            )
        check_ipfs(self.ipfs)
        check_gateways(self.gateways)
        check_confirmations(self.confirmations)
        check_together(
            ipfs=self.ipfs, gateways=self.gateways, of_a_node=is_url(self.chain), confirmations=self.confirmations
        )

    def __repr__(self) -> str:
        return f"PeerPlaces({redact(self.chain)!r}, {None if self.ipfs is None else redact(self.ipfs)!r})"

    @property
    def shared(self) -> bool:
        """Whether others can have what is put into the store."""
        return self.ipfs is not None or self.blocks is not None

    def open_chain(self, *, clock: Callable[[], float] | None = None) -> Chain:
        """The chain, open.

        Args:
            clock: An embedded chain's, in seconds since 1970; the machine's where it is None.

        Raises:
            LedgerError: it does not answer, is no chain, or another process has its file open.
        """
        spec = self.chain if is_url(self.chain) else Path(self.chain)
        return connect(spec, clock=clock, policy=SendPolicy(confirmations=self.confirmations))

    def open_store(self) -> ContentStore:
        """The content store. The daemon may be away: what is put waits in the folder until it is back."""
        return open_store(self.blocks or self.folder / "blocks", self.ipfs, gateways=self.gateways, away_ok=True)


def peers_home() -> Path:
    """The folder of the commands that open, join and show tasks: what they put and fetched, what was opened."""
    return home() / "peers"
