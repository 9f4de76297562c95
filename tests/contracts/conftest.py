"""Chains with money on them whose time can be moved, and tasks played as far as a test needs."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_utils.crypto import keccak

from contracts.build import load_artefact
from contracts.chain import Chain, connect
from contracts.cid import cid_of
from contracts.local_chain import LocalChain
from contracts.records import METRIC_NAMES, Receipt, TaskSpec
from contracts.reputation import Rules
from contracts.rounds import FederatedRounds
from contracts.task_log import NO_GRADE
from tests.contracts.faults import DATA, Faulty, StandIn, faulty_server

METRICS = dict(zip(METRIC_NAMES, (0.9, 0.8, 0.7, 0.6, 0.5, -3.25), strict=True))
SIGNATURE = str(cid_of(b"a signature"))
QUICK = Rules(1000, 200, 300, 4000, low_in_a_row=2, hard_in_a_row=3)
"""Deadlines that a test may let pass."""


class Bank:
    """A chain, and fresh accounts that can pay on it.

    Attributes:
        ahead: By how many seconds the embedded chain's clock is ahead of the machine's.
    """

    def __init__(self, chain: Chain, ready: list[LocalAccount]) -> None:
        self.chain = chain
        self.ahead = 0
        self._ready = ready

    def accounts(self, count: int) -> list[LocalAccount]:
        """Accounts that never sent anything."""
        if self.chain.kind == "embedded":
            return [self._ready.pop() for _ in range(count)]
        made = [Account.create() for _ in range(count)]
        self.chain.fund([account.address for account in made], gas_each=30_000_000)
        return made

    def wait(self, seconds: int) -> None:
        """Let time pass on the chain."""
        if isinstance(self.chain, LocalChain):
            # Blocks are a second apart at least, so that a busy chain is ahead of its clock.
            self.ahead = int(self.chain.embedded.now() - time.time()) + seconds + 1
        else:
            for method, arguments in (("evm_increaseTime", [seconds]), ("evm_mine", [])):
                self.chain.w3.provider.make_request(method, arguments)

    def now(self) -> int:
        """The time on the chain."""
        if isinstance(self.chain, LocalChain):
            return self.chain.embedded.now()
        return int(self.chain.w3.eth.get_block("latest")["timestamp"])


@pytest.fixture(scope="session")
def embedded_bank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bank]:
    accounts = [Account.create() for _ in range(2000)]
    path = tmp_path_factory.mktemp("chain") / "chain.sqlite"
    with connect(path, [account.address for account in accounts], clock=lambda: time.time() + bank.ahead) as chain:
        bank = Bank(chain, accounts)
        yield bank


@pytest.fixture(scope="session")
def anvil_bank(anvil: str) -> Iterator[Bank]:
    with connect(anvil) as chain:
        yield Bank(chain, [])


@pytest.fixture(params=["embedded", pytest.param("anvil", marks=pytest.mark.server)])
def bank(request: pytest.FixtureRequest) -> Bank:
    """The embedded chain, and with `-m server` anvil too."""
    found: Bank = request.getfixturevalue(f"{request.param}_bank")
    return found


@pytest.fixture
def daemon() -> Iterator[tuple[Faulty, StandIn]]:
    """A stand-in for an IPFS daemon, and the server before it that spoils its answers."""
    stand_in = StandIn()
    with faulty_server(stand_in) as server:
        yield server, stand_in


@pytest.fixture
def gateway() -> Iterator[tuple[Faulty, StandIn]]:
    """The same of a gateway, which has DATA."""
    stand_in = StandIn()
    stand_in.keep(DATA)
    with faulty_server(stand_in) as server:
        yield server, stand_in


Grades = Mapping[int, Mapping[int, int]]
"""Grader -> graded -> 0..100."""


@dataclass
class Play:
    """A task and its players."""

    bank: Bank
    opener: LocalAccount
    accounts: list[LocalAccount]
    spec: TaskSpec
    contract: FederatedRounds

    @property
    def chain(self) -> Chain:
        return self.bank.chain

    def function(self, name: str, *arguments: Any) -> Any:
        functions = self.chain.w3.eth.contract(address=self.contract.address, abi=load_artefact()["abi"])
        return functions.get_function_by_name(name)(*arguments)

    def raw(self, account: LocalAccount, function: str, *arguments: Any, value: int = 0) -> Receipt:
        """Send straight to the contract, past the client's own checks."""
        return self.chain.send(account, self.function(function, *arguments), value=value)

    def view(self, function: str, *arguments: Any) -> Any:
        return self.chain.call(self.function(function, *arguments))

    def wait(self, seconds: int) -> None:
        self.bank.wait(seconds)

    def wait_out(self, *phases: str) -> None:
        """Let the time of the open round's phases run out: "submit", "commit", "reveal", "setup", in this order."""
        due = int(self.view("state")[0]) + sum(int(getattr(self.spec.rules, f"{p}_seconds")) for p in phases)
        self.wait(max(0, due - self.bank.now()))

    def register(self) -> None:
        for i, account in enumerate(self.accounts):
            self.contract.register(account, key(i))

    def agree(self) -> None:
        self.register()
        for account in self.accounts:
            self.contract.agree_map(account, b"m" * 32)

    def submit(self, round_: int, who: Collection[int] | None = None) -> None:
        for i in self._all(who):
            self.contract.submit(self.accounts[i], round_, model(round_, i), METRICS, signature=SIGNATURE)

    def commit(self, round_: int, grades: Grades) -> None:
        for i, row in grades.items():
            self.contract.commit(self.accounts[i], round_, row, salt(round_, i))

    def reveal(self, round_: int, grades: Grades) -> None:
        for i, row in grades.items():
            self.contract.reveal(self.accounts[i], round_, row, salt(round_, i))

    def grade(self, round_: int, grades: Grades) -> None:
        self.commit(round_, grades)
        self.reveal(round_, grades)

    def settle(self, round_: int) -> Receipt:
        return self.contract.settle(self.accounts[0], round_)

    def round(self, round_: int, grades: Grades | None = None) -> None:
        """A whole round, in which everybody does what is expected."""
        self.submit(round_)
        self.grade(round_, all_grades(range(len(self.accounts))) if grades is None else grades)
        self.settle(round_)

    def _all(self, who: Collection[int] | None) -> Collection[int]:
        return range(len(self.accounts)) if who is None else who


def key(node: int) -> bytes:
    return bytes([node + 1]) * 32


def salt(round_: int, node: int) -> bytes:
    return bytes(keccak(text=f"salt {round_} {node}"))


def model(round_: int, node: int) -> str:
    return str(cid_of(f"model {round_} {node}".encode()))


def all_grades(nodes: Collection[int], value: int = 80, **of: int) -> dict[int, dict[int, int]]:
    """Everybody gives everybody the same grade; `n3=0`: node 3 gets another one from all."""
    return {i: {j: of.get(f"n{j}", value) for j in nodes if j != i} for i in nodes}


def row(grades: Mapping[int, int], nodes: int) -> bytes:
    """A node's grades as the contract takes them."""
    return bytes(grades.get(j, NO_GRADE) for j in range(nodes))


def open_task(bank: Bank, count: int, rounds: int = 2, *, extra: int = 0, **fields: Any) -> Play:
    """A task with `count` players on its allow-list; `extra` more accounts are known to the opener only.

    `fields` are TaskSpec's; `nodes=()` or none at all opens it to anybody, for a deposit of a wei.
    """
    opener, *accounts = bank.accounts(count + extra + 1)
    known = {
        "experiment": "test",
        "config_digest": os.urandom(32),
        "data_source": "stand-in",
        "max_rounds": rounds,
        "nodes": tuple(a.address for a in accounts[:count]),
        "rules": QUICK,
        **fields,
    }
    if not known["nodes"]:
        known.setdefault("deposit", 1)
    spec = TaskSpec(**known)
    return Play(bank, opener, accounts, spec, FederatedRounds.deploy(bank.chain, opener, spec))
