"""A rollback of an unfinished run: its nodes vote on the chain to go on from the models of an earlier round."""

from __future__ import annotations

import os
from typing import Any

from circuits.errors import QrunError, UsageError
from contracts.chain import connect
from contracts.rounds import FederatedRounds
from runner.agreement import attach_task
from runner.keys import load_or_create
from runner.places import Places
from runner.run_folder import read_manifest
from runner.store import RunIndex, RunInfo, RunStore, locked, on_disk

VOTE_GAS = 400_000
"""A vote sums the reputation of all nodes, and the last one opens a round: 255 nodes stay below."""


def roll_back(name: str, target: int, *, chain: str | None = None) -> dict[str, Any]:
    """Have every node of a run's folder vote to go on from round `target`, until two thirds of the reputation did.

    Args:
        name: The run; it must not be finished, nor be worked on.
        target: A settled round that counts, or 0 for the common start.
        chain: JSON-RPC URL, where the run's held a key.

    Returns:
        run, target, votes (nodes that voted), spent (whether the round that was open is void), open_round (from which
        the run goes on; 0: it has come to its end), base.

    Raises:
        UsageError: the run has ended, or there is no such round to go back to.
        QrunError: the nodes of the folder do not hold two thirds of the reputation.
    """
    index = RunIndex()
    try:
        info = index.find(name)
    finally:
        index.close()
    if info.state == "missing":
        raise QrunError(f"the folder of run {info.run} ({info.path}) is gone.", f"`qrun runs rm {info.run}`.")
    if info.state == "finished":
        raise UsageError(f"run {info.run} is finished: there is nothing to go on with.", "Start a new run.")
    with on_disk(info.path), locked(info.path):
        return _vote(info, target, chain)


def _vote(info: RunInfo, target: int, url: str | None) -> dict[str, Any]:
    from eth_account import Account

    config, manifest = read_manifest(info.path)
    store = RunStore(info.run, info.path)
    try:
        known, report = store.get("contract"), store.get("report")
    finally:
        store.close()
    if known is None:
        raise UsageError(f"no round of run {info.run} is settled yet.", f"`qrun runs resume {info.run}`.")
    if report is not None:
        raise UsageError(
            f"run {info.run} has its result already, and only concludes.", f"`qrun runs resume {info.run}`."
        )
    where = Places.recall(manifest["places"], Places(chain=url)).chain or info.path / "chain.sqlite"
    keys = load_or_create(info.path, config.nodes, signing=config.federation.signatures == "ml-dsa-65")
    accounts = [Account.from_key(k.chain) for k in keys.nodes]
    with connect(where, [Account.from_key(keys.opener).address, *(a.address for a in accounts)]) as chain:
        contract = attach_task(chain, known)
        _check(contract, info.run, target)
        chain.fund([a.address for a in accounts], os.environ.get("QRUN_CHAIN_KEY"), gas_each=VOTE_GAS)
        before, votes = len(_rollbacks(contract)), []
        for node in contract.nodes():
            if node.excluded:
                continue
            contract.rollback(accounts[node.index], target)
            votes.append(node.index)
            done = _rollbacks(contract)[before:]
            if done:
                # One vote more would be the first for another rollback.
                return {
                    "run": info.run,
                    "target": target,
                    "votes": votes,
                    "spent": done[0]["spent"],
                    "open_round": contract.open_round(),
                    "base": contract.base(),
                }
    raise QrunError(
        f"the nodes of run {info.run}'s folder do not hold two thirds of the reputation: their votes are on the chain.",
        "The other nodes have to vote too.",
    )


def _rollbacks(contract: FederatedRounds) -> list[dict[str, Any]]:
    return [dict(entry.args) for entry in contract.entries() if entry.name == "RolledBack"]


def _check(contract: FederatedRounds, run: str, target: int) -> None:
    """Whether a rollback would change anything; told before anybody pays for a vote."""
    counted, base, number = contract.counted(), contract.base(), contract.open_round()
    if not any(entry.name == "RoundSettled" for entry in contract.entries()):
        raise UsageError(f"no round of run {run} is settled yet.", f"`qrun runs resume {run}`.")
    if target != 0 and target not in counted:
        shown = ", ".join(["0 (the common start)", *map(str, counted)])
        raise UsageError(f"--to {target}: no round of run {run} that counts.", f"There are {shown}.")
    if target == base and not (number and contract.submissions(number)):
        start = f"round {base}" if base else "the common start"
        raise UsageError(f"--to {target}: run {run} goes on from {start} as it is.", f"`qrun runs resume {run}`.")
