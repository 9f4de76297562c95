"""The opening of a task: what its first event tells, against what was signed, paid and put into the contract's code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eth_utils.address import to_canonical_address, to_checksum_address
from eth_utils.crypto import keccak

from contracts import rlp
from contracts.build import load_artefact
from contracts.event_log import Entry
from contracts.history import Call, History
from contracts.interface import decode_opening, encode_opening
from contracts.records import TaskSpec
from runner.audit.checks import Findings
from runner.audit.deeds import MOST_NODES, doubt
from runner.audit.task_state import TaskState

MOST_ROUNDS = 65_535
"""MAX_ROUNDS of FederatedRounds.sol."""


def check_opening(findings: Findings, history: History, call: Call, opened: Entry, state: TaskState) -> None:
    """That the task is the one that its opener signed and paid for, in the contract that this made.

    Args:
        findings: Where statements are noted.
        history: The task's.
        call: The transaction that made the contract.
        opened: Its TaskOpened.
        state: The task that this tells, and who signed the transaction (nobody: an empty text).
    """
    spec, opener = state.spec, state.opener
    alone = len(call.entries) == 1 and call.to is None
    reason = "that transaction logs other events too, or calls another contract"
    if alone and call.signed is not None and opener:
        made = _address(opener, call.signed.nonce)
        alone, reason = made == history.address, f"it makes the contract {made}"
    findings.told(
        alone, "chain/opening", "the task is opened by the transaction that makes its contract", reason, call.tx,
        doubt=doubt(call),
    )  # fmt: skip
    wrong = _different(call.data, opened.args)
    wrong += ["the pool"] if call.value != spec.pool else []
    findings.told(
        not wrong, "chain/opening/terms", "the task's terms, nodes, names and pool are those that were signed and "
        "paid for", f"in the log, {' and '.join(wrong)} differs from what the transaction says", call.tx,
        doubt=doubt(call),
    )  # fmt: skip
    refused = _refused(spec)
    findings.test(not refused, "chain/opening/rules", "the contract takes such terms", refused, call.tx)
    if history.code_is_ours and opener:
        expected = {
            "the config's digest": int.from_bytes(spec.config_digest, "big"),
            "the number of rounds": spec.max_rounds,
            "the least number of nodes": spec.min_nodes,
            "the deposit": spec.deposit,
            "the pool": spec.pool,
            "the opener": int(opener, 16),
            "whether it is open to all": int(not spec.nodes),
            "the block of the opening": call.block,
            "its time": call.time,
            "its window": spec.rules.window_seconds,
        }
        found = {
            int.from_bytes(history.code[start : start + size], "big") for start, size in load_artefact()["immutables"]
        }
        missing = [name for name, value in expected.items() if value not in found]
        findings.test(
            found == set(expected.values()), "chain/opening/code", "what the contract's code was given when it was "
            "made is what its log says", f"{' and '.join(missing) or 'something'} is another one there",
            history.address,
        )  # fmt: skip


def _address(account: str, nonce: int) -> str:
    """Where a contract lands: keccak(rlp(account, nonce))[12:] (Yellow Paper, 7)."""
    return str(to_checksum_address(keccak(rlp.encode([to_canonical_address(account), rlp.number(nonce)]))[12:]))


def _different(data: bytes, told: Mapping[str, Any]) -> list[str]:
    """What of an opening the log tells otherwise than the data that made the contract."""
    if data == encode_opening(told):
        return []
    said = decode_opening(data)
    if said is None:
        return ["the contract's code"]
    terms, said_terms = dict(told["terms"]), dict(said["terms"])
    names = [f"terms.{name}" for name, value in said_terms.items() if terms.get(name) != value]
    names += [name for name in ("allowed", "experiment", "source") if told[name] != said[name]]
    names += ["configDigest"] if bytes(told["configDigest"]) != said_terms["configDigest"] else []
    return names or ["the form of the data"]


def _refused(spec: TaskSpec) -> str:
    """Why the contract's constructor refuses a task; empty where it takes it."""
    rules, n = spec.rules, len(spec.nodes)
    seconds = (rules.submit_seconds, rules.commit_seconds, rules.reveal_seconds, rules.setup_seconds)
    reasons = {
        f"it is for {n} nodes, and begins with {spec.min_nodes}": n > MOST_NODES
        or spec.min_nodes < 1
        or (n != 0 and spec.min_nodes > n),
        "it is open to all, and asks for no deposit": n == 0 and spec.deposit == 0,
        f"it has {spec.max_rounds} rounds": not 1 <= spec.max_rounds <= MOST_ROUNDS,
        "it names no config": not any(spec.config_digest),
        "an account stands twice on its allow-list, or none does": len(set(spec.nodes)) != n
        or any(int(node, 16) == 0 for node in spec.nodes),
        "its rules are out of range": 0 in (*seconds, rules.low_in_a_row, rules.hard_in_a_row)
        or max(rules.keep, rules.warn, rules.low_early, rules.low_late) > 100
        or rules.window_seconds > rules.submit_seconds
        or (rules.asynchronous and rules.quorum == 0),
    }
    return "; ".join(reason for reason, holds in reasons.items() if holds)
