"""What chain and store cost a run, without any training: `python -m tests.benchmarks.rounds_cost [--nodes 5 10 20 50]`.

Models are random bytes. Every node registers, votes for the map, and in each round publishes a model and a signature,
reads and checks those of all others, commits and reveals its grades; one settles, all conclude. All nodes run one after
another in one process, as `qrun experiment` runs them, with every transaction and every block flushed to the disk.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from eth_account import Account

from contracts.chain import connect
from contracts.records import TaskSpec
from contracts.rounds import FederatedRounds
from contracts.store import BlockStore
from tests.benchmarks.gas import METRICS, RESOURCES

MODEL_BYTES = 200_000
"""A model file of the QGAN is about that large."""
SIGNATURE_BYTES = 400

T = TypeVar("T")


@dataclass
class Cost:
    """Seconds and gas of a run; `transactions` with the opening, `read_seconds` to read its whole log anew."""

    nodes: int
    rounds: int
    transactions: int
    chain_seconds: float
    store_seconds: float
    read_seconds: float
    gas: int


class _Stopwatch:
    def __init__(self) -> None:
        self.chain = self.store = 0.0

    def on_chain(self, work: Callable[[], T]) -> T:
        began = time.perf_counter()
        done = work()
        self.chain += time.perf_counter() - began
        return done

    def in_store(self, work: Callable[[], T]) -> T:
        began = time.perf_counter()
        done = work()
        self.store += time.perf_counter() - began
        return done


def measure(nodes: int, rounds: int = 10) -> Cost:
    """Play a run of `nodes` nodes, and time it."""
    draw, watch = random.Random(nodes), _Stopwatch()
    opener, *accounts = (Account.create() for _ in range(nodes + 1))
    with tempfile.TemporaryDirectory() as folder:
        store = BlockStore(Path(folder) / "blocks")
        path = Path(folder) / "chain.sqlite"
        funded = [opener.address, *(a.address for a in accounts)]
        began = time.perf_counter()
        with connect(path, funded) as chain:
            spec = TaskSpec("cost", os.urandom(32), "stand-in", rounds, tuple(funded[1:]))
            task = FederatedRounds.deploy(chain, opener, spec)
            for account in accounts:
                task.register(account, os.urandom(32))
            agreed = store.put(draw.randbytes(5000))
            for account in accounts:
                task.agree_map(account, agreed)
            watch.chain += time.perf_counter() - began
            for r in range(1, rounds + 1):
                _round(task, store, accounts, r, draw=draw, watch=watch)
            last = store.put(b"{}")
            for account in accounts:
                watch.on_chain(lambda a=account: task.conclude(a, last, last))  # type: ignore[misc]
            gas, blocks = task.gas_used(), chain.head_number()
        began = time.perf_counter()
        with connect(path, ()) as chain:
            assert len(FederatedRounds.attach(chain, task.address).entries()) > blocks
        return Cost(nodes, rounds, blocks, watch.chain, watch.store, time.perf_counter() - began, gas)


def _round(
    task: FederatedRounds, store: BlockStore, accounts: list[Account], r: int, *, draw: random.Random, watch: _Stopwatch
) -> None:
    nodes = len(accounts)
    for account in accounts:
        model = watch.in_store(lambda: store.put(draw.randbytes(MODEL_BYTES)))
        signature = watch.in_store(lambda: store.put(draw.randbytes(SIGNATURE_BYTES)))
        watch.on_chain(
            lambda a=account, m=model, s=signature: task.submit(a, r, m, METRICS, signature=s, resources=RESOURCES)  # type: ignore[misc]
        )
    for i in range(nodes):
        for found in watch.on_chain(lambda: task.submissions(r)):
            if found.node != i:
                watch.in_store(lambda cid=found.cid: store.get(cid, max_bytes=MODEL_BYTES))  # type: ignore[misc]
                watch.in_store(lambda cid=found.signature: store.get(cid, max_bytes=SIGNATURE_BYTES))  # type: ignore[misc]
    grades = {i: {j: draw.randint(60, 95) for j in range(nodes) if j != i} for i in range(nodes)}
    salts = [draw.randbytes(32) for _ in accounts]
    for i, account in enumerate(accounts):
        watch.on_chain(lambda a=account, i=i: task.commit(a, r, grades[i], salts[i]))  # type: ignore[misc]
    for i, account in enumerate(accounts):
        watch.on_chain(lambda a=account, i=i: task.reveal(a, r, grades[i], salts[i]))  # type: ignore[misc]
    watch.on_chain(lambda: task.settle(accounts[0], r))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.rounds_cost", description=__doc__)
    parser.add_argument("--nodes", type=int, nargs="+", default=[5, 10, 20, 50])
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    print("| nodes | rounds | transactions | chain s | ms each | store s | gas | log read s |")
    print("|---:|---:|---:|---:|---:|---:|---:|---:|")
    for nodes in options.nodes:
        c = measure(nodes, options.rounds)
        each = 1000 * c.chain_seconds / c.transactions
        print(
            f"| {c.nodes} | {c.rounds} | {c.transactions} | {c.chain_seconds:.1f} | {each:.1f} | "
            f"{c.store_seconds:.1f} | {c.gas:,} | {c.read_seconds:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
