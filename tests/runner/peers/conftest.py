"""A chain in a file with money on it, a folder of blocks, and a task that three accounts may join."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from eth_account import Account
from eth_account.signers.local import LocalAccount

from contracts.chain import Chain, connect
from contracts.keystore import NodeSecrets, new_secrets
from contracts.local_chain import LocalChain
from contracts.store import BlockStore
from runner.config import RunConfig
from runner.options import config_from
from runner.peers.keys import node_keys
from runner.peers.task import Offer, Task, open_task

SECRETS = tuple(new_secrets(signing=k != 3) for k in range(4))
"""Of three nodes, and of a fourth who has no signing key."""
ACCOUNTS: tuple[LocalAccount, ...] = tuple(Account.from_key(kept.chain) for kept in SECRETS)
OPENER: LocalAccount = Account.create()
POOR: LocalAccount = Account.create()
KEYS = tuple(node_keys(kept) for kept in SECRETS)


@dataclass
class World:
    """A chain, a store, and where it is written down what was opened."""

    chain: Chain
    store: BlockStore
    folder: Path
    ahead: int = 0

    def wait_until(self, when: int) -> None:
        """Let time pass on the chain."""
        assert isinstance(self.chain, LocalChain)
        self.ahead = max(self.ahead, when - int(time.time()) + 1)

    def open(self, config: RunConfig, offer: Offer | None = None) -> Task:
        wanted = Offer(tuple(a.address for a in ACCOUNTS[: config.nodes])) if offer is None else offer
        return open_task(self.chain, self.store, OPENER, config, wanted, folder=self.folder / "opened")[0]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    funded = [OPENER.address, *(a.address for a in ACCOUNTS)]
    with connect(tmp_path / "chain.sqlite", funded, clock=lambda: time.time() + made.ahead) as chain:
        made = World(chain, BlockStore(tmp_path / "blocks"), tmp_path)
        yield made


@pytest.fixture(scope="session")
def config() -> RunConfig:
    return config_from("nsl-kdd", {"backend": "ideal", "qubits": 3, "reps": 1, "rounds": 2, "nodes": 3})


def secrets_of(kept: NodeSecrets) -> list[str]:
    """The texts that must be nowhere."""
    return [part.hex() for part in (kept.chain, kept.exchange, kept.signing) if part is not None]
