"""Ten peers, twenty rounds, and everything that goes wrong: `python -m tests.soak --nodes 10 --rounds 20`.

Starts anvil (a block a second), a js-ipfs daemon, and peers in processes of their own, each on wires of its own. At
random, one thing after the other: peers are killed (-9) and started again, cut off from chain, daemon or both, the
daemon is killed, the chain is killed with everybody cut off, the disk of node 0 is full; clocks of some nodes are off
by minutes all along. It has to end; then no transaction that anybody saw mined is missing, all nodes have one final
model, `qrun verify` is content, also after the daemon has collected its garbage.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from contracts.chain import Chain
from contracts.keystore import create_keystore, new_secrets
from contracts.rounds import FederatedRounds
from runner.options import config_from
from runner.peers.keys import node_keys
from runner.peers.places import PeerPlaces
from runner.peers.task import Offer, join_task, open_task
from tests.servers import ANVIL_KEY
from tests.soak.link import Link
from tests.soak.nodes import ROOT, Node, command_of
from tests.soak.servers import ChainNode, StoreNode, ask
from tests.soak.small_disk import SmallDisk
from tests.soak.troubles import Troubles

SMALL = {
    "backend": "ideal",
    "qubits": 2,
    "reps": 1,
    "model": {"steps_per_epoch": 20, "samples": 64, "hidden": (8,)},
    "data": {"test": False},
}
"""The model is beside the point here."""
TIMES = {
    "sync": {"submit_seconds": 90, "commit_seconds": 60, "reveal_seconds": 60},
    "async": {"schedule": "async", "window_seconds": 12, "submit_seconds": 90, "commit_seconds": 30,
              "reveal_seconds": 30},
}  # fmt: skip
GAS = 200_000_000


@dataclass
class Soak:
    """One soak, on the way.

    Attributes:
        seen: Transactions of the task that somebody saw mined, in order.
    """

    nodes: list[Node]
    contract: FederatedRounds
    chain: ChainNode
    store: StoreNode
    seen: dict[str, None] = field(default_factory=dict)
    begun: float = field(default_factory=time.monotonic)
    quiet: bool = False

    def tell(self, text: str) -> None:
        """A line with the time."""
        if not self.quiet:
            print(f"{time.monotonic() - self.begun:7.1f} s  {text}", flush=True)

    def look(self) -> None:
        """Note what is on the chain by now."""
        for entry in self.contract.entries():
            self.seen.setdefault(entry.tx)


def main(arguments: Sequence[str] | None = None) -> int:
    """Play it; 0 where all held."""
    asked = asked_of(arguments)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-", ignore_cleanup_errors=True)))
        os.environ["QRUN_HOME"] = str(folder / "home")
        soak, disk, opened = begin(asked, folder, stack)
        rng = random.Random(asked.seed)
        troubles = Troubles(soak.nodes, soak.chain, soak.store, disk, rng, asked.every, soak.tell)
        ended = play(soak, troubles, asked.minutes * 60)
        troubles.mend_all()
        return _judge(soak, troubles, opened, ended)


def begin(
    asked: argparse.Namespace,
    folder: Path,
    stack: ExitStack,
    *,
    quiet: bool = False,
    model: dict[str, Any] | None = None,
) -> tuple[Soak, SmallDisk, Chain]:
    """Servers, keys, a task that all have joined, and nodes that are not started yet.

    Args:
        asked: Nodes, rounds, schedule.
        folder: Where all of it is.
        stack: Closes it.
        quiet: Say nothing.
        model: Settings of the run; a tiny model by default.
    """
    chain, store = ChainNode(folder), StoreNode(folder / "ipfs")
    stack.callback(chain.close)
    stack.callback(store.kill)
    chain.start()
    store.start()
    kept = [new_secrets() for _ in range(asked.nodes)]
    password = folder / "password"
    password.write_text(secrets.token_hex(8))
    password.chmod(0o600)
    keys = [folder / f"key-{i}.json" for i in range(asked.nodes)]
    for key, secret in zip(keys, kept, strict=True):
        create_keystore(key, secret, password.read_text(), work_factor=1 << 12)
    federation = {**TIMES[asked.schedule], "sum_seconds": 60, "setup_seconds": 3600}
    config = config_from(
        "nsl-kdd",
        {**(SMALL if model is None else model), "nodes": asked.nodes, "rounds": asked.rounds, "federation": federation},
    )
    from eth_account import Account

    accounts = [Account.from_key(secret.chain) for secret in kept]
    places = PeerPlaces(chain.url, f"http://127.0.0.1:{store.port}", folder=folder / "opener")
    opened = stack.enter_context(places.open_chain())
    content = places.open_store()
    opened.fund([a.address for a in accounts], ANVIL_KEY, gas_each=GAS)
    source = "official" if os.environ.get("QRUN_DATA") else "stand-in"
    offer = Offer(allowed=tuple(a.address for a in accounts), source=source)
    task, _ = open_task(opened, content, accounts[0], config, offer, folder=folder / "opener")
    for account, secret in zip(accounts, kept, strict=True):
        join_task(task, account, node_keys(secret))
    address = task.contract.address
    disk = SmallDisk(folder / "disk")
    stack.callback(disk.close)
    nodes = []
    for i in range(asked.nodes):
        wires = Link(("127.0.0.1", chain.port)), Link(("127.0.0.1", store.port))
        own = (disk.folder if i == 0 else folder) / f"node-{i}"
        command = command_of(address, *wires, key=keys[i], password=password, folder=own)
        node = Node(i, command, folder / f"node-{i}", *wires, shift=(-420, 0, 300, 0, 0)[i % 5])
        stack.callback(node.close)
        nodes.append(node)
    soak = Soak(nodes, FederatedRounds.attach(opened, address), chain, store, quiet=quiet)
    full = "" if disk.mounted else "; a full disk cannot be played here, for want of the right to mount one"
    soak.tell(f"task {address}: {asked.nodes} nodes, {asked.rounds} rounds, {asked.schedule}{full}")
    return soak, disk, opened


def play(soak: Soak, troubles: Troubles | None, seconds: float) -> bool:
    """Until all nodes have ended; False where the time is over before. Without troubles nothing goes wrong."""
    told = -1
    while time.monotonic() - soak.begun < seconds:
        for node in soak.nodes:
            was = node.done
            node.tend()
            if node.done and not was:
                soak.tell(f"node {node.index} has ended")
        if all(node.done for node in soak.nodes):
            return True
        soak.look()
        settled = soak.contract.settled_rounds()
        if settled != told:
            told = settled
            soak.tell(f"{settled} rounds are settled")
        if troubles is None:
            pass
        elif settled < soak.contract.task.max_rounds - 1:
            troubles.tend()
        else:
            troubles.mend_all()  # the last round's end is played in peace, or nobody could end
        time.sleep(0.5)
    return False


def _judge(soak: Soak, troubles: Troubles, chain: Chain, ended: bool) -> int:
    """What held, told; 0 where all did."""
    held = {"it ended": ended}
    soak.look()
    there = {entry.tx for entry in soak.contract.entries()}
    held[f"{len(soak.seen)} transactions that were seen mined are there"] = set(soak.seen) <= there
    failed = _failed(soak, chain)
    soak.tell(f"transactions that were mined and did nothing: {failed} (another was faster)")
    reports = [node.report for node in soak.nodes if node.report is not None]
    held["one final model"] = len({r["final"]["cid"] for r in reports}) == 1 and len(reports) == len(soak.nodes)
    gone = soak.store.collect_garbage()
    where = ["--chain", soak.chain.url, "--ipfs", soak.store.node.url]
    done = subprocess.run(
        [sys.executable, "-m", "runner.cli", "verify", soak.contract.address, *where, "--json"],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout) if done.stdout else {}
    held[f"verify is content after {gone} unpinned blocks were collected: {found.get('counts')}"] = done.returncode == 0
    for check in [c for c in found.get("checks", []) if c["verdict"] == "false"][:10]:
        print("  false:", check)
    if done.stderr:
        print(done.stderr[-1000:])
    soak.tell("troubles: " + ", ".join(f"{n} {kind}" for kind, n in sorted(troubles.counts.items())))
    for node in soak.nodes:
        how = ", ".join(f"{n} {words}" for words, n in node.ended.most_common())
        clock = f"clock {node.shift:+.0f} s"
        soak.tell(f"node {node.index}: {node.starts} starts, {clock}; ended before: {how or 'never'}")
    if reports:
        soak.tell(
            "seconds a round besides training: " + spread(r["seconds"]["besides_training_a_round"] for r in reports)
        )
        soak.tell("megabytes at most: " + spread(r["memory_mb"] for r in reports))
    for what, holds in held.items():
        soak.tell(f"{'holds' if holds else 'DOES NOT HOLD'}: {what}")
    return 0 if all(held.values()) else 1


def spread(values: Any) -> str:
    found = sorted(values)
    return f"{found[0]} to {found[-1]}, median {found[len(found) // 2]}"


def _failed(soak: Soak, chain: Chain) -> int:
    """The task's transactions that were mined and reverted."""
    found = 0
    for number in range(soak.contract.opened_block, chain.head_number() + 1):
        block = ask(soak.chain.url, "eth_getBlockByNumber", hex(number), True)
        for tx in block["transactions"]:
            if (tx["to"] or "").lower() == soak.contract.address.lower():
                found += int(ask(soak.chain.url, "eth_getTransactionReceipt", tx["hash"])["status"], 16) == 0
    return found


def asked_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--schedule", choices=tuple(TIMES), default="async")
    parser.add_argument("--every", type=float, default=12.0, help="seconds between two troubles, in the mean")
    parser.add_argument("--minutes", type=float, default=40.0, help="it has to end within")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
