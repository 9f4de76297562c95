"""Plays a task's transactions again, against the rules of FederatedRounds.sol: what each may do, and what must follow.

Each transaction is taken as it was signed: its function and arguments, its sender by the signature, the block's time.
From these the events that the contract has to log are worked out, and compared with those that stand in the log. Where
the chain let something happen that the rules forbid, that is a false statement, and the play goes on with what the
chain says was done, so that one lie is told once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from contracts.event_log import Entry
from contracts.history import Call, History
from contracts.task_log import task_of
from runner.audit.checks import Findings
from runner.audit.deeds import CAUSES, ELSEWHERE, UNTOLD, WORDS, Deeds, doubt
from runner.audit.opening import check_opening
from runner.audit.task_state import Event, TaskState


class Replay:
    """A task's log, played again.

    Attributes:
        findings: What was found.
        state: Where the task is after the last transaction; None where it was not opened.
    """

    def __init__(self, history: History, findings: Findings) -> None:
        self.history = history
        self.findings = findings
        self.state: TaskState | None = None
        self._deeds = Deeds(findings, history.address)

    def play(self) -> TaskState | None:
        """Play all transactions, in order; the task's state after them."""
        calls = sorted(self.history.calls, key=lambda call: (call.block, call.position))
        for call in calls:
            try:
                self._check_chain_id(call)
                if self.state is None:
                    self._open(call)
                else:
                    self._follow(call, self.state)
            except Exception as error:
                # Whatever a hostile log makes fail here, the rest of it is still to be seen.
                self.findings.false(
                    f"chain/event/{call.tx}", "what a transaction logs can be followed by the contract's rules",
                    f"{type(error).__name__}: {error}"[:200], call.tx,
                )  # fmt: skip
        if self.state is None:
            self.findings.false("chain/opening", "the log begins with the opening of the task", "it has no TaskOpened")
        return self.state

    def _check_chain_id(self, call: Call) -> None:
        id_, claim = f"chain/id/{call.tx}", f"every transaction was signed for chain {self.history.chain_id}"
        if call.signed is None:
            self.findings.withheld(id_, claim, UNTOLD, call.tx)
            return
        signed = call.signed.chain_id
        if signed != self.history.chain_id and signed is not None:
            self.findings.false(id_, claim, f"this one was signed for chain {signed}, and copied", call.tx)

    def _open(self, call: Call) -> None:
        first = call.entries[0] if call.entries else None
        if first is None or first.name != "TaskOpened":
            return
        spec = task_of(first)
        self.state = TaskState(spec, self._deeds.sender(call) or "", call.time)
        check_opening(self.findings, self.history, call, first, self.state)

    # -- a transaction ------------------------------------------------------------------------------------------------

    def _follow(self, call: Call, state: TaskState) -> None:
        if not call.ok:
            self.findings.test(
                not call.entries,
                f"chain/reverted/{call.tx}",
                "a reverted transaction logs nothing",
                f"it logs {len(call.entries)} events",
                call.tx,
            )
            return
        cause = call.entries[0] if call.entries else None
        direct = call.to == self.history.address
        if not direct and cause is None:
            return
        known = call.function if direct else None
        if direct and known is None:
            if call.entries:
                self.findings.false(
                    f"chain/function/{call.tx}", "a transaction that the contract logs calls one of its functions",
                    f"it calls none, and the contract logs {call.entries[0].name}", call.tx,
                )  # fmt: skip
            return
        if cause is None:
            assert known is not None
            if known[0] != "settle":  # of a large task, in pages: the last one logs
                self.findings.false(
                    f"chain/silent/{call.tx}", f"a transaction that {WORDS.get(known[0], known[0])} is logged",
                    "it was mined, and the contract logged nothing", call.tx,
                )  # fmt: skip
            return
        self._check_content(call, cause, known)
        follows = self._deeds.do(call, cause, state)
        if follows is None:
            self.findings.false(
                f"chain/cause/{call.tx}", f"{cause.name} follows from something that a node did",
                "nothing stands before it in its transaction", call.tx,
            )  # fmt: skip
            return
        self._compare(call, follows)

    def _check_content(self, call: Call, cause: Entry, known: tuple[str, dict[str, Any]] | None) -> None:
        """That the log says what was signed: the function, its arguments."""
        claim = f"{_subject(cause)}: the log says what the transaction said"
        id_ = f"chain/content/{call.tx}"
        if known is None:
            self.findings.withheld(id_, claim, ELSEWHERE, call.tx)
            return
        function, names = CAUSES.get(cause.name, ("abandon", {}))
        different = [name for name, of in names.items() if known[1].get(name) != cause.args.get(of)]
        if known[0] != function:
            self.findings.false(id_, claim, f"it calls {known[0]}, and the contract logs {cause.name}", call.tx)
        else:
            self.findings.told(
                not different, id_, claim, f"{' and '.join(different)} in the log differs from what was signed",
                call.tx, doubt=doubt(call),
            )  # fmt: skip

    def _compare(self, call: Call, expected: list[Event]) -> None:
        """That what follows in the log is what has to follow."""
        found: list[Event] = [(entry.name, dict(entry.args)) for entry in call.entries[1:]]
        if not expected and not found:
            return
        wanted = ", ".join(_told(event) for event in expected) or "nothing"
        told = ", ".join(_told(event) for event in found) or "nothing"
        self.findings.test(
            found == expected,
            f"rounds/follows/{call.tx}",
            f"after {_subject(call.entries[0])} follows {wanted}",
            f"the log has {told}",
            call.tx,
        )


def _subject(entry: Entry) -> str:
    """Where an entry belongs, in words: round 2, node 1: GradesRevealed."""
    round_, node = entry.args.get("round"), entry.args.get("node")
    parts = [f"round {round_}"] if round_ else []
    parts += [f"node {node}"] if node is not None else []
    return f"{', '.join(parts)}: {entry.name}" if parts else entry.name


def _told(event: tuple[str, Mapping[str, Any]]) -> str:
    name, args = event
    shown = ", ".join(f"{k} {v.hex()[:16] if isinstance(v, bytes) else v}" for k, v in args.items())
    return f"{name}({shown})"
