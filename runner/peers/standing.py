"""Where a task stands: its terms, its nodes, the open round and its deadlines, and what became of the others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from contracts.event_log import Entry
from contracts.packing import members
from contracts.records import Phase, TaskSpec
from contracts.reputation import Rules
from contracts.rounds import FederatedRounds
from contracts.task_log import settlement_of, submission_of
from runner.config import RunConfig
from runner.peers.clock import block_time, chain_time
from runner.progress import Verdict
from runner.task_config import config_cid

_OF_A_ROUND = {"ModelSubmitted": "submitted", "GradesCommitted": "committed", "GradesRevealed": "revealed"}


def schedule_of(rules: Rules) -> str:
    """How a task goes on: "sync", all nodes in step; or "async", in windows."""
    return "async" if getattr(rules, "window_seconds", 0) else "sync"


def describe_terms(spec: TaskSpec, config: RunConfig | None) -> dict[str, Any]:
    """What whoever takes part agrees to.

    Args:
        spec: The task, as it was opened.
        config: Its config; None where it was not fetched.
    """
    return {
        "experiment": spec.experiment,
        "data_source": spec.data_source,
        "config_digest": spec.config_digest.hex(),
        "config_cid": config_cid(spec.config_digest),
        "schedule": schedule_of(spec.rules),
        "rounds": spec.max_rounds,
        "nodes": len(spec.nodes) or (None if config is None else config.nodes),
        "min_nodes": spec.min_nodes,
        "open": not spec.nodes,
        "allowed": list(spec.nodes),
        "deposit": spec.deposit,
        "pool": spec.pool,
        "rules": asdict(spec.rules),
        "config": None if config is None else config.model_dump(mode="json"),
    }


def deadlines(contract: FederatedRounds, rules: Rules) -> dict[str, int | None]:
    """Until when the open round takes what, and from when the task may be abandoned: seconds since 1970, chain's time.

    A phase ends earlier where all are done with it. None: there is no open round, or the task has ended.
    """
    none = dict.fromkeys(("submit", "commit", "reveal", "abandon"))
    if contract.phase() == Phase.ENDED:
        return none
    chain = contract.chain
    opening = _last(contract.entries(), "RoundOpened")
    if opening is None or not contract.open_round():
        return {**none, "abandon": block_time(chain, contract.opened_block) + rules.setup_seconds}
    opened = block_time(chain, opening.block)
    submit = _end_of_submissions(contract, rules, opening, opened)
    commit = submit + rules.commit_seconds
    latest = opened + rules.submit_seconds + rules.commit_seconds + rules.reveal_seconds
    return {
        "submit": submit,
        "commit": commit,
        "reveal": commit + rules.reveal_seconds,
        "abandon": latest + rules.setup_seconds,
    }


def _end_of_submissions(contract: FederatedRounds, rules: Rules, opening: Entry, opened: int) -> int:
    """In an asynchronous task submissions end with the window, if one was there by then, else with the first one."""
    window = getattr(rules, "window_seconds", 0)
    round_ = int(opening.args["round"])
    submitted = contract.submissions(round_)
    if not window or not submitted:
        return opened + rules.submit_seconds
    times = [block_time(contract.chain, block) for block in sorted({one.block for one in submitted})]
    if len(submitted) == len(contract.active(round_)):
        return times[-1]
    return max(opened + window, times[0])


def describe_task(contract: FederatedRounds, config: RunConfig | None, account: str | None) -> dict[str, Any]:
    """A task as the chain has it now.

    Args:
        contract: The task.
        config: Its config, checked; None where it was not fetched.
        account: Whose money is asked about, too.
    """
    chain, spec = contract.chain, contract.task
    entries = contract.entries()
    digest, round_ = contract.map_digest(), contract.open_round()
    return {
        "task": contract.address,
        "chain": {"kind": chain.kind, "id": chain.chain_id, "head": chain.head_number(), "time": chain_time(chain)},
        "opened": {"block": contract.opened_block, "time": block_time(chain, contract.opened_block)},
        "terms": describe_terms(spec, config),
        "phase": contract.phase().name.lower(),
        "open_round": round_,
        "base": contract.base(),
        "deadlines": deadlines(contract, spec.rules),
        "settled_rounds": contract.settled_rounds(),
        "abandoned": any(e.name == "TaskEnded" and e.args["abandoned"] for e in entries),
        "feature_map_digest": None if digest is None else digest.hex(),
        "nodes": _nodes(contract, entries, round_),
        "rounds": _rounds(entries),
        "account": None if account is None else {"address": account, "owed": contract.owed(account)},
    }


def _nodes(contract: FederatedRounds, entries: Sequence[Entry], round_: int) -> list[dict[str, Any]]:
    """All that are known: of the allow-list, in its order; else those that have registered."""
    registered = {node.index: node for node in contract.nodes()}
    known = contract.task.nodes or tuple(registered[i].address for i in sorted(registered))
    active = contract.active(round_) if round_ else frozenset()
    seen: dict[int, int] = {}
    submissions: dict[int, int] = {}
    done: dict[int, str] = {}
    for entry in entries:
        if "node" not in entry.args:
            continue
        node = int(entry.args["node"])
        seen[node] = entry.block
        submissions[node] = submissions.get(node, 0) + (entry.name == "ModelSubmitted")
        if round_ and entry.name in _OF_A_ROUND and int(entry.args["round"]) == round_:
            done[node] = _OF_A_ROUND[entry.name]
    times = {block: block_time(contract.chain, block) for block in set(seen.values())}
    found = []
    for index, address in enumerate(known):
        node_ = registered.get(index)
        found.append(
            {
                "id": index,
                "address": address,
                "registered": node_ is not None,
                "active": index in active,
                "excluded": node_ is not None and node_.excluded,
                "reputation": 0.0 if node_ is None else node_.reputation / 100,
                "exchange_key": None if node_ is None else node_.exchange_key.hex(),
                "signing_key": None if node_ is None or node_.signing_key is None else node_.signing_key.hex(),
                "submissions": submissions.get(index, 0),
                "this_round": done.get(index),
                "last_seen": None if index not in seen else {"block": seen[index], "time": times[seen[index]]},
            }
        )
    return found


def _rounds(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """The rounds that were opened, in order: who published what, who was absent, and what they were settled to.

    From the log that was read once: a node far away is not asked about each round.
    """
    found: dict[int, dict[str, Any]] = {}
    for entry in entries:
        number = int(entry.args.get("round", 0))
        if entry.name == "RoundOpened":
            active = members(int(entry.args["active"]))
            opened = {"number": number, "base": int(entry.args["base"]), "state": "open", "nodes": []}
            found[number] = {**opened, "absent": sorted(active), "settlement": None}
        elif entry.name == "RolledBack":
            _take_back(found.values(), int(entry.args["target"]))
        elif number not in found:
            continue
        elif entry.name == "ModelSubmitted":
            one, round_ = submission_of(entry), found[number]
            round_["absent"] = [node for node in round_["absent"] if node != one.node]
            round_["nodes"].append(
                {"id": one.node, "cid": one.cid, "metrics": one.metrics, "tx": one.tx, "block": one.block}
            )
        elif entry.name == "RoundSettled":
            found[number] |= {"state": "settled", "settlement": Verdict.of(settlement_of(entry)).to_json()}
    return [found[number] for number in sorted(found)]


def _take_back(rounds: Iterable[dict[str, Any]], target: int) -> None:
    """After a rollback nothing counts that was closed after its target, nor what the open round had; one that nobody
    had submitted to is opened again, which the log says next."""
    for round_ in rounds:
        if round_["number"] > target:
            round_["state"] = "void"


def _last(entries: Sequence[Entry], name: str) -> Entry | None:
    return next((entry for entry in reversed(entries) if entry.name == name), None)
