"""Chains with money on them, and tasks played as far as a test needs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from eth_account import Account
from eth_account.signers.local import LocalAccount

from contracts.build import load_artefact
from contracts.chain import Chain, connect
from contracts.cid import cid_of
from contracts.records import METRIC_NAMES, Receipt, TaskSpec
from contracts.rounds import FederatedRounds

METRICS = dict(zip(METRIC_NAMES, (0.9, 0.8, 0.7, 0.6, 0.5, -3.25), strict=True))


class Bank:
    """A chain, and fresh accounts that can pay on it."""

    def __init__(self, chain: Chain, ready: list[LocalAccount]) -> None:
        self.chain = chain
        self._ready = ready

    def accounts(self, count: int) -> list[LocalAccount]:
        """Accounts that never sent anything."""
        if self.chain.kind == "embedded":
            return [self._ready.pop() for _ in range(count)]
        made = [Account.create() for _ in range(count)]
        self.chain.fund([account.address for account in made], gas_each=30_000_000)
        return made


@pytest.fixture(scope="session")
def embedded_bank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bank]:
    accounts = [Account.create() for _ in range(700)]
    path = tmp_path_factory.mktemp("chain") / "chain.sqlite"
    with connect(path, [account.address for account in accounts]) as chain:
        yield Bank(chain, accounts)


@pytest.fixture(scope="session")
def anvil_bank(anvil: str) -> Iterator[Bank]:
    with connect(anvil) as chain:
        yield Bank(chain, [])


@pytest.fixture(params=["embedded", pytest.param("anvil", marks=pytest.mark.server)])
def bank(request: pytest.FixtureRequest) -> Bank:
    """The embedded chain, and with `-m server` anvil too."""
    found: Bank = request.getfixturevalue(f"{request.param}_bank")
    return found


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

    def raw(self, account: LocalAccount, function: str, *arguments: Any) -> Receipt:
        """Send straight to the contract, past the client's own checks."""
        functions = self.chain.w3.eth.contract(address=self.contract.address, abi=load_artefact()["abi"])
        return self.chain.send(account, functions.get_function_by_name(function)(*arguments))

    def register(self) -> None:
        for i, account in enumerate(self.accounts):
            self.contract.register(account, key(i))

    def agree(self) -> None:
        self.register()
        for account in self.accounts:
            self.contract.agree_map(account, b"m" * 32)

    def submit(self, round_: int) -> None:
        for i, account in enumerate(self.accounts):
            self.contract.submit(account, round_, model(round_, i), METRICS)

    def grade(self, round_: int, grades: Mapping[int, Mapping[int, int]]) -> None:
        for i, account in enumerate(self.accounts):
            self.contract.grade(account, round_, grades[i])


def key(node: int) -> bytes:
    return bytes([node + 1]) * 32


def model(round_: int, node: int) -> str:
    return str(cid_of(f"model {round_} {node}".encode()))


def all_grades(nodes: int, value: int = 80) -> dict[int, dict[int, int]]:
    return {i: {j: value for j in range(nodes) if j != i} for i in range(nodes)}


def open_task(bank: Bank, nodes: int, rounds: int = 2) -> Play:
    opener, *accounts = bank.accounts(nodes + 1)
    spec = TaskSpec("test", os.urandom(32), "stand-in", rounds, tuple(a.address for a in accounts))
    return Play(bank, opener, accounts, spec, FederatedRounds.deploy(bank.chain, opener, spec))
