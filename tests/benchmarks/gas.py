"""What each call of FederatedRounds.sol costs in gas: `python -m tests.benchmarks.gas > docs/gas.md`.

Keys, salts, grades and the clock are fixed, so that the table is the same everywhere; a test compares it with the
committed one. Gas is measured on the embedded chain's EVM (Prague's rules), with rounds in which everybody takes part.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_utils.crypto import keccak

from contracts.chain import Chain, connect
from contracts.cid import cid_of
from contracts.embedded import GENESIS_TIME
from contracts.records import METRIC_NAMES, RESOURCE_NAMES, TaskSpec
from contracts.reputation import Rules
from contracts.rounds import FederatedRounds

SIZES = (3, 10, 20, 32, 50, 100)
MOST_SUBMISSION = 60_000
MOST_GRADES, MOST_GRADES_A_PEER, MOST_GRADES_WINDOWS = 100_000, 1_000, 5_000
"""To commit and reveal: a node, a peer, and in an asynchronous task, which reads a slot more in each of the two."""
BLOCK = 30_000_000
"""Gas limit of a block of the embedded chain and of most public test networks."""
METRICS = dict(zip(METRIC_NAMES, (0.912345, 0.887654, 0.923456, 0.905162, 0.964321, 3.251247), strict=True))
RESOURCES = dict(zip(RESOURCE_NAMES, (312.417, 4800, 4_915_200, 97.25), strict=True))


@dataclass
class Costs:
    """Gas of a task of `nodes` nodes over its rounds; lists are over nodes."""

    nodes: int
    windows: bool = False
    opening: int = 0
    register: list[int] = field(default_factory=list)
    agree: list[int] = field(default_factory=list)
    submit: dict[int, list[int]] = field(default_factory=dict)
    commit: dict[int, list[int]] = field(default_factory=dict)
    reveal: dict[int, list[int]] = field(default_factory=dict)
    settle: dict[int, list[int]] = field(default_factory=dict)  # over pages
    rollback: list[int] = field(default_factory=list)
    conclude: list[int] = field(default_factory=list)
    withdraw: list[int] = field(default_factory=list)
    announce: list[int] = field(default_factory=list)

    def grades(self, round_: int) -> int:
        """The dearest node's commit and reveal."""
        return max(c + r for c, r in zip(self.commit[round_], self.reveal[round_], strict=True))

    @property
    def grades_bound(self) -> int:
        """What that may be at most."""
        return MOST_GRADES + MOST_GRADES_A_PEER * (self.nodes - 1) + (MOST_GRADES_WINDOWS if self.windows else 0)


def _account(name: str, number: int) -> LocalAccount:
    made: LocalAccount = Account.from_key(keccak(text=f"gas table {name} {number}"))
    return made


@contextmanager
def fixed_chain(accounts: list[LocalAccount]) -> Iterator[Chain]:
    """An embedded chain whose blocks are a second apart."""
    with (
        tempfile.TemporaryDirectory() as folder,
        connect(Path(folder) / "chain", [a.address for a in accounts], clock=lambda: GENESIS_TIME) as chain,
    ):
        yield chain


def play(nodes: int, rounds: int = 2, *, most: int = 64, open_to_all: bool = False, windows: bool = False) -> Costs:
    """Play a task of `rounds` rounds (the last one void by rollback, where there are two or more), and measure.

    With `windows` it is asynchronous (and none of its rounds is void).
    """
    opener, accounts = _account("opener", nodes), [_account("node", i) for i in range(nodes)]
    with fixed_chain([opener, *accounts]) as chain:
        costs = Costs(nodes, windows)
        allowed = () if open_to_all else tuple(a.address for a in accounts)
        spec = TaskSpec(
            "nsl-kdd", keccak(text="config"), "official", rounds, allowed,
            min_nodes=nodes, deposit=10**15, pool=10**18,
            rules=Rules(window_seconds=86_400, quorum=3) if windows else Rules(),
        )  # fmt: skip
        task = FederatedRounds.deploy(chain, opener, spec)
        costs.opening = chain.gas_used
        for i, account in enumerate(accounts):
            costs.register.append(task.register(account, keccak(text=f"x25519 {i}"), keccak(text=f"key {i}")).gas_used)
        for account in accounts:
            costs.agree.append(task.agree_map(account, keccak(text="map")).gas_used)
        for r in range(1, rounds + 1):
            _round(task, accounts, r, costs, most)
        cid = str(cid_of(b"sum"))
        costs.announce = [task.announce(account, keccak(text="topic"), cid).gas_used for account in accounts]
        for account in accounts if rounds > 1 and not windows else []:
            if task.base() == rounds:
                costs.rollback.append(task.rollback(account, rounds - 1).gas_used)
        model, report = str(cid_of(b"model")), str(cid_of(b"report"))
        costs.conclude = [task.conclude(account, model, report).gas_used for account in accounts]
        costs.withdraw = [task.withdraw(account).gas_used for account in accounts]
    return costs


def _round(task: FederatedRounds, accounts: list[LocalAccount], r: int, costs: Costs, most: int) -> None:
    nodes = len(accounts)
    signature = str(cid_of(b"signature"))
    costs.submit[r] = [
        task.submit(
            a, r, str(cid_of(f"{r} {i}".encode())), METRICS, signature=signature, resources=RESOURCES
        ).gas_used
        for i, a in enumerate(accounts)
    ]  # fmt: skip
    # Grades apart from each other, as from the nodes' own data.
    grades = {i: {j: 60 + (7 * i + 3 * j + r) % 35 for j in range(nodes) if j != i} for i in range(nodes)}
    salts = [keccak(text=f"salt {r} {i}") for i in range(nodes)]
    costs.commit[r] = [task.commit(a, r, grades[i], salts[i]).gas_used for i, a in enumerate(accounts)]
    costs.reveal[r] = [task.reveal(a, r, grades[i], salts[i]).gas_used for i, a in enumerate(accounts)]
    costs.settle[r] = []
    while task.settlement(r) is None:
        before = task.chain.gas_used
        call = task._contract.functions.settle(r, most)
        task.chain.send(accounts[0], call)
        costs.settle[r].append(task.chain.gas_used - before)


def tables(all_costs: list[Costs], open_costs: Costs, windows: Costs) -> str:
    """The page, in Markdown.

    Args:
        all_costs: Of synchronous tasks of all sizes.
        open_costs: Of one that is open to all.
        windows: Of an asynchronous one, of the size of the second.
    """
    small = all_costs[1]
    lines = [
        "# Gas",
        "",
        "What each call of `contracts/FederatedRounds.sol` costs, as `python -m tests.benchmarks.gas` measures it on",
        "the embedded chain; CI compares. Keys, salts and grades are fixed. Everybody takes part in every round.",
        "",
        f"## A task of {small.nodes} nodes",
        "",
        "| call | gas |",
        "|---|---:|",
    ]
    rows = [
        ("open the task (constructor)", small.opening),
        ("register, allow-list", max(small.register)),
        ("register, open to all", max(open_costs.register)),
        ("agreeMap, first vote for a map", small.agree[0]),
        ("agreeMap, later vote", small.agree[1]),
        ("agreeMap, the vote that opens the first round", max(small.agree[1:])),
        ("submit, first of the first round", small.submit[1][0]),
        ("submit, dearest other one", max(small.submit[1][1:] + small.submit[2])),
        ("submit, asynchronous", max(windows.submit[1][:-1] + windows.submit[2][:-1])),
        ("submit, asynchronous, the one that ends the window", max(windows.submit[1][-1], windows.submit[2][-1])),
        ("commit and reveal, asynchronous, the dearer of two rounds", max(windows.grades(1), windows.grades(2))),
        ("settle, asynchronous, the dearer of two rounds", max(sum(windows.settle[1]), sum(windows.settle[2]))),
        ("announce", max(small.announce)),
        ("rollback, a vote", max(small.rollback[:-1])),
        ("rollback, the vote that decides", small.rollback[-1]),
        ("conclude, first", small.conclude[0]),
        ("conclude, later", max(small.conclude[1:])),
        ("withdraw, first", small.withdraw[0]),
        ("withdraw, later", max(small.withdraw[1:])),
    ]
    lines += [f"| {name} | {gas:,} |" for name, gas in rows]
    lines += [
        "",
        f"Bound: a submission takes at most {MOST_SUBMISSION:,}. In an asynchronous task the last model of all ends",
        "the window, or the first one after its time.",
        "",
        "## Grades, by nodes",
        "",
        "The dearest node's, of two rounds. A commitment replaces what stood in the node's slot; from 33 nodes on the",
        "first reveal fills slots that were empty. Bound: 100,000 and 1,000 a peer, and 5,000 in an asynchronous task.",
        "",
        "| nodes | commit | reveal, round 1 | reveal, round 2 | commit + reveal, dearest | bound |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    for c in all_costs:
        lines.append(
            f"| {c.nodes} | {max(c.commit[1] + c.commit[2]):,} | {max(c.reveal[1]):,} | {max(c.reveal[2]):,} | "
            f"{max(c.grades(1), c.grades(2)):,} | {c.grades_bound:,} |"
        )
    lines += [
        "",
        "## Settlement, by nodes",
        "",
        f"Pages of 64 nodes, as the client asks for them. A block holds {BLOCK:,}.",
        "",
        "| nodes | open the task | submit, dearest | settle, round 1 | settle, round 2 | pages | dearest page |",
        "|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for c in all_costs:
        dearest = max(g for pages in c.settle.values() for g in pages)
        lines.append(
            f"| {c.nodes} | {c.opening:,} | {max(c.submit[1] + c.submit[2]):,} | {sum(c.settle[1]):,} | "
            f"{sum(c.settle[2]):,} | {len(c.settle[1])} | {dearest:,} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the page."""
    special = play(SIZES[1], open_to_all=True), play(SIZES[1], windows=True)
    print(tables([play(n) for n in SIZES], *special), end="")


if __name__ == "__main__":
    main()
