"""A small task that three peers play on an anvil and in a folder of blocks, each in a thread of its own.

Their reports are in the store before anybody states one: what is stated on the chain can be tried, and taken back.
"""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account
from eth_account.signers.local import LocalAccount

from contracts.chain import connect
from contracts.cid import parse_cid
from contracts.keystore import NodeSecrets, new_secrets
from contracts.rounds import FederatedRounds
from contracts.store import BlockStore
from experiments.base import find
from runner.config import RunConfig, build_config
from runner.peers.apart import Ready
from runner.peers.keys import node_keys
from runner.peers.places import PeerPlaces
from runner.peers.play import PeerPlay
from runner.peers.task import Offer, join_task, open_task, read_task
from runner.prepare import prepare
from runner.seeds import derive
from runner.store import RunStore
from tests.runner.small_federation import Quiet
from tests.servers import ANVIL_KEY

NODES = 3


def tiny(schedule: str, rounds: int = 2, **federation: Any) -> RunConfig:
    """Two noiseless qubits and a few steps."""
    times = {"window_seconds": 4, "commit_seconds": 8, "reveal_seconds": 8, "quorum": 2} if schedule == "async" else {}
    return build_config(
        {
            "experiment": "nsl-kdd",
            "backend": "ideal",
            "device": "cpu",
            "nodes": NODES,
            "rounds": rounds,
            "model": {"qubits": 2, "reps": 1, "steps_per_epoch": 3, "batch": 8, "hidden": (4,), "samples": 16},
            "federation": {"schedule": schedule, "sum_seconds": 600, **times, **federation},
        }
    )


class Waiting(PeerPlay):
    """A peer that stops before it states its report."""

    def _conclude(self, report: dict[str, str]) -> dict[str, Any]:
        return report


@dataclass
class Played:
    """A task that has ended, its reports unstated.

    Attributes:
        url: The chain's.
        blocks: The folder of blocks.
        address: The contract's.
        config: The run's.
        accounts: The nodes'.
        kept: CIDs of each node's report and model.
        folders: The nodes'.
    """

    url: str
    blocks: Path
    address: str
    config: RunConfig
    accounts: list[LocalAccount]
    kept: list[Mapping[str, str]]
    folders: list[Path]
    _snapshot: list[str] = field(default_factory=list)

    @property
    def store(self) -> BlockStore:
        return BlockStore(self.blocks)

    def report(self, node: int) -> bytes:
        return self.store.get(self.kept[node]["cid"], max_bytes=1 << 20)

    @contextmanager
    def stated(self, change: Callable[[int, str, str], tuple[str, str]] | None = None) -> Iterator[str]:
        """The task once its nodes have stated model and report (CIDs), perhaps others; taken back at the end."""
        with connect(self.url) as chain:
            ask = chain.w3.provider.make_request
            before = ask("evm_snapshot", [])["result"]
            contract = FederatedRounds.attach(chain, self.address)
            for node, (account, kept) in enumerate(zip(self.accounts, self.kept, strict=True)):
                model, report = kept["model"], kept["cid"]
                if change is not None:
                    model, report = change(node, model, report)
                contract.conclude(account, parse_cid(model).digest, parse_cid(report).digest)
        try:
            yield self.address
        finally:
            with connect(self.url) as chain:
                assert chain.w3.provider.make_request("evm_revert", [before])["result"]


def play_together(url: str, folder: Path, config: RunConfig) -> Played:
    """Open a task, join it, and play it to its end."""
    secrets = [new_secrets() for _ in range(NODES)]
    accounts = [Account.from_key(s.chain) for s in secrets]
    blocks = folder / "blocks"
    study = find(config.experiment).load(
        config.data,
        nodes=config.nodes,
        seeds=lambda purpose, *parts: derive(config.seed, purpose, *parts),
        folder=None,
        notify=lambda _: None,
    )
    prepared = prepare(config, Quiet())
    with connect(url) as chain:
        chain.fund([a.address for a in accounts], ANVIL_KEY, gas_each=30_000_000)
        offer = Offer(allowed=tuple(a.address for a in accounts), source=study.dataset.source)
        task, _ = open_task(chain, BlockStore(blocks), accounts[0], config, offer, folder=folder)
        for account, kept in zip(accounts, secrets, strict=True):
            join_task(task, account, node_keys(kept))
        address = task.contract.address
    folders = [folder / f"node{i}" for i in range(NODES)]
    found: list[Any] = [None] * NODES

    def play(i: int) -> None:
        try:
            places = PeerPlaces(url, folder=folders[i], blocks=blocks)
            found[i] = _play(address, places, secrets[i])
        except BaseException as error:
            found[i] = error

    def ready(config: RunConfig, data: Path | None, node: int, reporter: object) -> Ready:
        return Ready(prepared, replace(study, shares=()), study.shares[node], ())

    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setattr("runner.peers.play.get_ready", ready)  # once for all, and in this process
        warnings.simplefilter("ignore")
        threads = [threading.Thread(target=play, args=(i,), daemon=True) for i in range(NODES)]
        for thread in threads:
            thread.start()
        end = time.monotonic() + 300
        while any(thread.is_alive() for thread in threads):
            for one in found:
                if isinstance(one, BaseException):
                    raise one  # the others would wait for it
            assert time.monotonic() < end, "the peers do not come to an end"
            time.sleep(0.1)
    for one in found:
        if isinstance(one, BaseException):
            raise one
    return Played(url, blocks, address, config, accounts, found, folders)


def _play(address: str, places: PeerPlaces, secrets: NodeSecrets) -> dict[str, Any]:
    account, folder = Account.from_key(secrets.chain), places.folder
    folder.mkdir()
    with ExitStack() as stack:
        memory = RunStore("node", folder, threads=True)
        stack.callback(memory.close)
        memory.put("owner", {"task": address, "account": account.address})
        chain = stack.enter_context(places.open_chain())
        store = places.open_store()
        task = read_task(chain, store, address)
        keys = node_keys(secrets)
        return Waiting(task, account, keys, places, None, store, memory, folder, Quiet()).play()
