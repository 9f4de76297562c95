"""What is told to whoever joins a task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from contracts.funding import ether, wei_of
from contracts.rounds import taking_part_gas
from runner.peers.standing import describe_terms
from runner.peers.task import Joined, Task, joining_price


def describe_joining(task: Task, address: str, joined: Joined | None) -> dict[str, Any]:
    """A registration, or what one would take.

    Args:
        task: The task.
        address: The account.
        joined: What was done; None where nothing was.
    """
    contract = task.contract
    chain, config = contract.chain, task.config
    known = next((node for node in contract.nodes() if node.address == address), None)
    gas = taking_part_gas(config.nodes, config.rounds)
    return {
        "task": contract.address,
        "chain_id": chain.chain_id,
        "terms": describe_terms(task.spec, config),
        "account": address,
        "registered": known is not None,
        "again": joined is not None and joined.again,
        "node": None if known is None else known.index,
        "tx": None if joined is None else joined.receipt.tx,
        "cost": 0 if known is not None else joining_price(task),
        "to_take_part": wei_of(chain, gas),
        "balance": chain.balance(address),
        "open_round": contract.open_round(),
    }


def notes(told: Mapping[str, Any]) -> list[str]:
    """The same in words, a line each."""
    held, more = told["balance"], told["to_take_part"]
    lines = []
    if told["tx"] is None and not told["registered"]:
        lines.append(f"registering takes up to {ether(told['cost'])}; account {told['account']} holds {ether(held)}")
    elif told["tx"] is None or told["again"]:
        lines.append(f"account {told['account']} is registered already, as node {told['node']}")
    else:
        lines.append(f"registered as node {told['node']} (transaction {told['tx']})")
    if held < more:
        lines.append(
            f"to play all rounds takes up to {ether(more)} of gas, and the account holds {ether(held)}: send it more"
        )
    if told["open_round"] and told["tx"] is not None and not told["again"]:
        lines.append(f"round {told['open_round']} is open already: you take part from the next one on")
    if told["registered"]:
        lines.append(f"now take part: {told['run']}")
    return lines
