"""A task behind a URL, executed again: what the audit rests on is what its signed transactions come to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from contracts.errors import LedgerError
from runner.audit.checks import Findings

if TYPE_CHECKING:
    from contracts.chain import Chain
    from contracts.history import Call, History
    from contracts.witness import Executed, Witness

MOST_BLOCKS = 5_000
"""From the task's opening to the head: so many are read unasked (seconds on a near node)."""
TRIES = 3
CLAIM = "what the node behind --chain tells of the task is what its transactions come to, executed again"
NETWORK = "the blocks are those of the network, none is kept back, and their times are right"


def check_executed(findings: Findings, history: History, chain: Chain | None, wanted: bool | None) -> None:
    """Execute the task again, where that is wanted, or else where it is short enough.

    Args:
        findings: Where statements are noted.
        history: The task's log, as the node told it.
        chain: The node.
        wanted: Whether to; None: where the task has few blocks.
    """
    first = min((call.block for call in history.calls), default=0)
    blocks = history.head - first + 1
    if wanted is None and blocks > MOST_BLOCKS:
        findings.skipped("chain/whole", CLAIM, f"that reads {blocks} blocks: add --witness")
    elif wanted is False or chain is None:
        findings.skipped("chain/whole", CLAIM, "it is not asked for: that is the word of the node behind --chain")
    else:
        _execute(findings, history, chain)
    findings.attested(
        "chain/network", NETWORK,
        "that no single node can prove: ask another one for the hash of block "
        f"{history.head}, {history.head_hash[:18]}…",
    )  # fmt: skip


def _execute(findings: Findings, history: History, chain: Chain) -> None:
    from contracts.witness import Witness

    witness = Witness(chain, history.address)
    for left in range(TRIES - 1, -1, -1):
        try:
            found = witness.check([call.tx for call in history.calls if call.to == history.address])
            break
        except LedgerError as error:
            if not left:
                findings.skipped("chain/whole", CLAIM, f"{error.message.rstrip('.')} (another node may do)")
                return
    for place, difference in enumerate(found.differences):
        findings.false(f"chain/whole/{place}", CLAIM, difference, f"block {found.block}")
    for place, text in enumerate(found.unchecked):
        findings.withheld(f"chain/whole/unchecked/{place}", CLAIM, text)
    told_otherwise = _told_otherwise(history, witness)
    for tx, reason in told_otherwise:
        findings.false(f"chain/told/{tx}", "the node tells of a transaction the same however it is asked", reason, tx)
    if not found.differences and not found.unchecked and not told_otherwise:
        findings.test(
            True, "chain/whole", f"{CLAIM} ({found.transactions} transactions)",
            where=f"block {found.block} {found.block_hash}",
        )  # fmt: skip


def _told_otherwise(history: History, witness: Witness) -> list[tuple[str, str]]:
    """Transactions that the log was read to hold otherwise than they were executed; a sentence each."""
    executed = witness.executed()
    wrong = [(call.tx, reason) for call in history.calls if (reason := _differs(call, executed.get(call.tx)))]
    known = {call.tx for call in history.calls}
    for tx, done in executed.items():
        if done.entries and done.block <= history.head and tx not in known:
            wrong.append((tx, "it was left out of the log that was read before"))
    return wrong


def _differs(call: Call, done: Executed | None) -> str:
    if done is None:
        return ""  # through another contract, which the witness tells; or in none of the blocks, which it tells too
    if (call.block, call.time) != (done.block, done.time):
        return f"it was in block {call.block} of time {call.time}, and now in block {done.block} of time {done.time}"
    told = [(entry.name, dict(entry.args)) for entry in call.entries]
    mine = [(entry.name, dict(entry.args)) for entry in done.entries]
    return "" if (told, call.ok) == (mine, done.ok) else "its events were told otherwise before"
