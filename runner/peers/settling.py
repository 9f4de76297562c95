"""What is due in a task and anybody may do: settle a round whose time is over, end a task that nobody carries on, fetch
what one is owed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from circuits.errors import QrunError
from contracts.funding import check_money, ether
from contracts.records import Phase, Receipt
from contracts.rounds import FederatedRounds, settling_gas
from runner.peers.clock import chain_time, in_words, until
from runner.peers.standing import deadlines

if TYPE_CHECKING:
    from eth_account.signers.local import LocalAccount

SMALL_GAS = 250_000
"""What a withdrawal or an end asks for, with the margin of the estimate."""


@dataclass(frozen=True)
class Deed:
    """Something that was done.

    Attributes:
        did: "settled", "abandoned" or "withdrew".
        receipt: Of its transaction.
        round: That was settled.
        wei: That were fetched.
    """

    did: str
    receipt: Receipt
    round: int | None = None
    wei: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """As it stands in JSON."""
        return {
            "did": self.did, "round": self.round, "wei": self.wei, "tx": self.receipt.tx, "block": self.receipt.block,
        }  # fmt: skip

    def __str__(self) -> str:
        what = {"settled": f"settled round {self.round}", "abandoned": "ended the task, which nobody carried on"}
        return what.get(self.did, f"withdrew {ether(self.wei or 0)}") + f" (transaction {self.receipt.tx})"


def settle_due(contract: FederatedRounds, account: LocalAccount, *, abandon: bool = False) -> list[Deed]:
    """Do what is due; nothing where nothing is.

    Args:
        contract: The task.
        account: Who does it, and pays.
        abandon: End the task, if its time for that has come.

    Raises:
        QrunError: it is not this account's to do, or too early to abandon the task.
        LedgerError: too little money, which is told before anything is sent; or the chain failed.
    """
    deeds: list[Deed] = []
    if abandon and contract.phase() != Phase.ENDED:
        deeds.append(_abandon(contract, account))
    elif contract.phase() == Phase.SETTLE:
        deeds.append(_settle(contract, account))
    if contract.phase() == Phase.ENDED:
        owed = contract.owed(account.address)
        if owed:
            check_money(contract.chain, account.address, gas=SMALL_GAS, what="withdrawing")
            deeds.append(Deed("withdrew", contract.withdraw(account), wei=owed))
    return deeds


def why_nothing(contract: FederatedRounds, address: str) -> str:
    """Why nothing is due, in words."""
    phase = contract.phase()
    if phase == Phase.ENDED:
        return f"nothing is due: the task has ended, and account {address} is owed nothing (any more)."
    rules = contract.task.rules
    ends = deadlines(contract, rules)
    now = chain_time(contract.chain)
    if phase == Phase.SETUP:
        when = ends["abandon"]
        wait = "" if when is None else f"; from {_when(when, now)} on it may be abandoned"
        return f"nothing is due: the task waits for its nodes and their feature map{wait}."
    when = ends.get(phase.name.lower())
    text = "" if when is None else f" until {_when(when, now)}, or until all are done"
    return f"nothing is due: round {contract.open_round()} takes {_TAKES[phase]}{text}."


_TAKES = {
    Phase.SUBMIT: "models",
    Phase.COMMIT: "commitments to grades",
    Phase.REVEAL: "grades",
    Phase.SETTLE: "its settlement",
}


def _settle(contract: FederatedRounds, account: LocalAccount) -> Deed:
    round_ = contract.open_round()
    nodes = contract.nodes()
    if all(node.address != account.address for node in nodes):
        raise QrunError(
            f"round {round_} can be settled, but by a node of the task; {account.address} is none.",
            "Take the key of one.",
        )
    gas = settling_gas(len(contract.task.nodes) or len(nodes)) * 5 // 4 + 60_000  # the margin that it is sent with
    check_money(contract.chain, account.address, gas=gas, what=f"settling round {round_}")
    return Deed("settled", contract.settle(account, round_), round=round_)


def _abandon(contract: FederatedRounds, account: LocalAccount) -> Deed:
    when, now = deadlines(contract, contract.task.rules)["abandon"], chain_time(contract.chain)
    if when is not None and now < when:
        raise QrunError(f"the task may not be abandoned yet: from {_when(when, now)} on.")
    own = {node.address for node in contract.nodes()} | {contract.opener()}
    if account.address not in own:
        raise QrunError(
            f"a task is abandoned by one of its nodes or its opener; {account.address} is neither.", "Take such a key."
        )
    check_money(contract.chain, account.address, gas=SMALL_GAS, what="abandoning the task")
    return Deed("abandoned", contract.abandon(account))


def _when(when: int, now: int) -> str:
    return f"{in_words(when)} ({until(when, now)}, the chain's time)"
