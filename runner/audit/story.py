"""A task's transactions told one a line: when, who, what, what it cost."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from contracts.cid import RAW, Cid
from contracts.errors import LedgerError
from contracts.event_log import Entry
from contracts.history import Call, History
from contracts.metrics import unpack_metrics
from contracts.packing import members
from contracts.task_log import NO_GRADE, announcement_of, submission_of


def tell(history: History) -> list[dict[str, Any]]:
    """All transactions, oldest first: block, time (ISO 8601), who, account, what, gas, tx."""
    nodes = {e.args["account"]: int(e.args["node"]) for e in history.entries if e.name == "NodeRegistered"}
    opener = _sender(history.calls[0]) if history.calls else ""
    out = []
    for call in history.calls:
        account = _sender(call)
        who = f"node {nodes[account]}" if account in nodes else "opener" if account == opener else account
        out.append(
            {
                "block": call.block,
                "time": _time(call.time),
                "who": who,
                "account": account,
                "what": "; ".join(_words(entry) for entry in call.entries) or _silent(call),
                "gas": call.gas,
                "tx": call.tx,
            }
        )
    return out


def _time(seconds: int) -> str:
    """In ISO 8601; of a time that no calendar has, the number."""
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
    except (OverflowError, ValueError, OSError):
        return f"{seconds} s"


def _sender(call: Call) -> str:
    try:
        return call.sender
    except LedgerError:
        return "nobody: its signature is none"


def _silent(call: Call) -> str:
    name = call.function[0] if call.function else "no function of the contract"
    if not call.ok:
        return f"calls {name}, and is reverted"
    return "settles a page of the round" if name == "settle" else f"calls {name}, and nothing is logged"


def _words(entry: Entry) -> str:
    """One event, in words; what is hostile in it is shown escaped."""
    return _WORDS[entry.name](entry) if entry.name in _WORDS else entry.name


def _opened(entry: Entry) -> str:
    args = entry.args
    nodes, rounds = len(args["allowed"]) or "any number of", args["terms"]["maxRounds"]
    return f"opens the task: {args['experiment']!a} on {args['source']!a} data, {nodes} nodes, {rounds} rounds"


def _registered(entry: Entry) -> str:
    how = "with ML-DSA-65" if any(entry.args["signingKey"]) else "with its account"
    return f"registers as node {entry.args['node']}, signs {how}"


def _round_opened(entry: Entry) -> str:
    args = entry.args
    start = f"round {args['base']}" if args["base"] else "the common start"
    return f"round {args['round']} opens from {start} for nodes {_set(args['active'])}"


def _submitted(entry: Entry) -> str:
    auroc = unpack_metrics(int(entry.args["metrics"]))["auroc"]
    return f"round {entry.args['round']}: submits {_cid(entry)}, AUROC {auroc:.4f}"


def _revealed(entry: Entry) -> str:
    given = " ".join(f"{j}:{g}" for j, g in enumerate(entry.args["grades"]) if g != NO_GRADE)
    return f"round {entry.args['round']}: grades {given or 'nobody'}"


def _rolled_back(entry: Entry) -> str:
    void = f"; round {entry.args['round']} is void" if entry.args["spent"] else ""
    return f"the task goes back to round {entry.args['target']}{void}"


def _concluded(entry: Entry) -> str:
    return f"states model {entry.args['model'].hex()[:16]} and report {entry.args['report'].hex()[:16]}"


def _announced(entry: Entry) -> str:
    return f"announces {_cid(entry)} of topic {entry.args['topic'].hex()[:16]}"


def _cid(entry: Entry) -> str:
    try:
        return (announcement_of if entry.name == "Announced" else submission_of)(entry).cid
    except LedgerError:
        return "what is no content identifier"


def _set(word: int) -> str:
    found = sorted(members(word))
    run = len(found) > 2 and found == list(range(found[0], found[-1] + 1))
    return f"{found[0]}-{found[-1]}" if run else ", ".join(map(str, found)) or "none"


def _settled(entry: Entry) -> str:
    args = entry.args
    parts = ["strong" if args["strong"] else "weak: reputation stays"]
    parts.append("reputation " + " ".join(f"{i}:{r / 100:g}" for i, r in enumerate(args["reputation"])))
    for name in ("flagged", "low", "excluded"):
        if args[name]:
            parts.append(f"{name} {_set(args[name])}")
    return f"round {args['round']} is settled, {', '.join(parts)}"


_WORDS: dict[str, Callable[[Entry], str]] = {
    "TaskOpened": _opened,
    "NodeRegistered": _registered,
    "MapProposed": lambda entry: f"states the feature map {Cid(RAW, bytes(entry.args['digest']))}",
    "MapAgreed": lambda _: "the feature map is agreed",
    "RoundOpened": _round_opened,
    "ModelSubmitted": _submitted,
    "GradesCommitted": lambda entry: f"round {entry.args['round']}: commits to its grades",
    "GradesRevealed": _revealed,
    "RoundSettled": _settled,
    "RollbackVoted": lambda entry: f"votes to go on from round {entry.args['target']}",
    "RolledBack": _rolled_back,
    "Concluded": _concluded,
    "TaskEnded": lambda entry: f"the task {'is abandoned' if entry.args['abandoned'] else 'has ended'}",
    "Announced": _announced,
    "Withdrawn": lambda entry: f"withdraws {entry.args['amount']} wei",
}
