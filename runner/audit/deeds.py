"""What nodes do in a task, each deed held to the rules of FederatedRounds.sol: may it be done now, and by whom?"""

from __future__ import annotations

from collections.abc import Callable

from contracts.errors import LedgerError
from contracts.event_log import Entry
from contracts.history import Call
from contracts.packing import commitment
from contracts.records import Phase
from contracts.task_log import NO_GRADE, announcement_of, settlement_of, submission_of
from runner.audit.checks import Findings
from runner.audit.settlement import check_settlement, record_of
from runner.audit.task_state import Event, Registration, Round, TaskState

CAUSES: dict[str, tuple[str, dict[str, str]]] = {
    "NodeRegistered": ("register", {"exchangeKey": "exchangeKey", "signingKey": "signingKey"}),
    "MapProposed": ("agreeMap", {"digest": "digest"}),
    "ModelSubmitted": (
        "submit",
        {name: name for name in ("round", "digest", "codec", "metrics", "resources", "signature")},
    ),
    "GradesCommitted": ("commit", {"round": "round", "commitment": "commitment"}),
    "GradesRevealed": ("reveal", {"round": "round", "grades": "grades", "salt": "salt"}),
    "RoundSettled": ("settle", {"round": "round"}),
    "RollbackVoted": ("rollback", {"target": "target"}),
    "Concluded": ("conclude", {"model": "model", "report": "report"}),
    "Withdrawn": ("withdraw", {}),
    "Announced": ("announce", {name: name for name in ("topic", "digest", "codec")}),
}
"""Event -> the function that logs it first, and which of its arguments stand in which of the event's."""

MOST_NODES = 255
"""MAX_NODES of FederatedRounds.sol."""

UNTOLD = "the node behind --chain leaves out the signature: who sent it, and what it said, is that node's word"
ELSEWHERE = "the contract was called by another contract: who did that is not in the signature"
"""Why who did something, and what, cannot be found out."""

WORDS = {
    "register": "registers",
    "agreeMap": "states its feature map",
    "submit": "submits a model",
    "commit": "commits to its grades",
    "reveal": "reveals its grades",
    "settle": "settles the round",
    "rollback": "votes for a rollback",
    "conclude": "states its final model and report",
    "withdraw": "withdraws what it is owed",
    "abandon": "ends the abandoned task",
    "announce": "announces content",
}


class Deeds:
    """Checks what a transaction did, and does it to the task's state.

    Attributes:
        findings: Where statements are noted.
        address: The contract's (checksummed).
    """

    def __init__(self, findings: Findings, address: str) -> None:
        self.findings = findings
        self.address = address
        self._handlers: dict[str, Callable[[Call, Entry, TaskState], list[Event]]] = {
            "NodeRegistered": self._registered,
            "MapProposed": self._proposed,
            "ModelSubmitted": self._submitted,
            "GradesCommitted": self._committed,
            "GradesRevealed": self._revealed,
            "RoundSettled": self._settled,
            "RollbackVoted": self._voted,
            "Concluded": self._concluded,
            "TaskEnded": self._abandoned,
            "Withdrawn": self._withdrawn,
            "Announced": self._announced,
        }

    def do(self, call: Call, cause: Entry, state: TaskState) -> list[Event] | None:
        """Check the deed whose event a transaction logs first; what has to follow it. None: no deed logs that."""
        handler = self._handlers.get(cause.name)
        return None if handler is None else handler(call, cause, state)

    def sender(self, call: Call) -> str | None:
        """Who signed a transaction; None, and told, where nobody did."""
        try:
            return call.sender
        except LedgerError as error:
            self.findings.false(f"chain/signature/{call.tx}", "every transaction is signed", error.message, call.tx)
            return None

    def _by_node(self, call: Call, node: int, state: TaskState, subject: str) -> None:
        """That the account of a node signed the transaction."""
        account = state.accounts[node] if 0 <= node < len(state.accounts) else None
        sender = self.sender(call)
        self._by(
            call, sender is not None and sender == account, f"{subject}/sender/{call.tx}",
            f"node {node} itself {_doing(call)}", f"it is signed by {sender}, not by the node's account {account}",
        )  # fmt: skip

    def _by(self, call: Call, holds: bool, id_: str, claim: str, reason: str) -> None:
        """A statement that rests on who signed the transaction, or on what it says or pays."""
        if call.to != self.address:
            self.findings.withheld(id_, claim, ELSEWHERE, call.tx)
        else:
            self.findings.told(holds, id_, claim, reason, call.tx, doubt=doubt(call))

    # -- what nodes do ------------------------------------------------------------------------------------------------

    def _registered(self, call: Call, entry: Entry, state: TaskState) -> list[Event]:
        node, account = int(entry.args["node"]), str(entry.args["account"])
        id_ = f"registration/{node}"
        allowed = state.node_of(account)
        fresh = not state.spec.nodes and allowed is None and len(state.accounts) < MOST_NODES
        number = len(state.accounts) if fresh else allowed  # by the rules, whatever the log says
        if state.spec.nodes:
            self.findings.test(allowed == node, f"{id_}/allowed", f"node {node} is on the task's allow-list",
                               f"{account} is not number {node} of it", call.tx)  # fmt: skip
        else:
            self.findings.test(fresh and node == number, f"{id_}/allowed",
                               f"node {node} has the next free number", "it has another, or registered before",
                               call.tx)  # fmt: skip
        self.findings.test(node not in state.registered and state.ended is None, f"{id_}/once",
                           f"node {node} registers once, while the task goes on",
                           "it had registered before, or the task had ended", call.tx)  # fmt: skip
        self._by(call, call.value == state.spec.deposit, f"{id_}/deposit",
                 f"node {node} pays the deposit of {state.spec.deposit} wei", f"it paid {call.value}")  # fmt: skip
        sender = self.sender(call)
        self._by(call, sender == account, f"registration/sender/{call.tx}", f"node {node} itself registers",
                 f"it is signed by {sender}, not by the node's account {account}")  # fmt: skip
        if number is None or number in state.registered or state.ended is not None:
            return []
        key = bytes(entry.args["signingKey"])
        registration = Registration(number, account, bytes(entry.args["exchangeKey"]), key if any(key) else None)
        return state.register(registration, call.time)

    def _proposed(self, call: Call, entry: Entry, state: TaskState) -> list[Event]:
        node = int(entry.args["node"])
        self._by_node(call, node, state, "feature map")
        self.findings.test(
            node in state.registered and node not in state.proposals,
            f"feature map/stated/{node}",
            f"node {node} states the digest of its feature map once",
            "it had not registered, or had stated one before",
            call.tx,
        )
        if node not in state.registered or node in state.proposals:
            return []
        return state.propose(node, bytes(entry.args["digest"]), call.time)

    def _in_phase(self, call: Call, entry: Entry, state: TaskState, wanted: Phase) -> Round | None:
        """The round that an entry is of, and that this was open, and in its phase.

        None where there is no such round, or who did it takes no part in it: that is told, and the deed is ignored.
        """
        number, node = int(entry.args["round"]), entry.args.get("node")
        phase, open_ = state.phase(call.time), state.open
        who = f", node {node}" if node is not None else ""
        is_open = open_ is not None and open_.number == number
        if not is_open:
            reason = f"the open round was {open_.number if open_ else 'none'}"
        else:
            reason = f"at time {call.time} the round was in its phase {phase.name.lower()}"
        self.findings.test(
            is_open and phase == wanted,
            f"rounds/{number}/{entry.name}{'' if node is None else f'/{node}'}/in-time",
            f"round {number}{who}: {_doing(call, entry)} in its time",
            reason,
            call.tx,
        )
        if node is not None:
            self._by_node(call, int(node), state, "rounds")
        round_ = state.rounds.get(number)
        if round_ is None or node is None:
            return round_
        takes_part = self.findings.test(
            int(node) in round_.active,
            f"rounds/{number}/{entry.name}/{node}/active",
            f"round {number}, node {node}: takes part in the round",
            "it was not among those who may",
            call.tx,
        )
        return round_ if takes_part else None

    def _submitted(self, call: Call, entry: Entry, state: TaskState) -> list[Event]:
        round_ = self._in_phase(call, entry, state, Phase.SUBMIT)
        if round_ is None:
            return []
        node = int(entry.args["node"])
        try:
            submission = submission_of(entry)
        except LedgerError as error:
            self.findings.false(f"rounds/{round_.number}/ModelSubmitted/{node}/form",
                                f"round {round_.number}, node {node}: submits a content identifier and metrics",
                                error.message, call.tx)  # fmt: skip
            return []
        self._once(call, entry, node not in round_.submissions)
        state.submit(round_, submission, call.time)
        return []

    def _once(self, call: Call, entry: Entry, first: bool) -> None:
        number, node = int(entry.args["round"]), int(entry.args["node"])
        self.findings.test(
            first,
            f"rounds/{number}/{entry.name}/{node}/once",
            f"round {number}, node {node}: {_doing(call, entry)} once",
            "it had done so before",
            call.tx,
        )

    def _committed(self, call: Call, entry: Entry, state: TaskState) -> list[Event]:
        round_ = self._in_phase(call, entry, state, Phase.COMMIT)
        if round_ is None:
            return []
        node = int(entry.args["node"])
        self._once(call, entry, node not in round_.commitments)
        if not state.spec.rules.asynchronous:
            self.findings.test(
                node in round_.submissions,
                f"grades/{round_.number}/{node}/submitted",
                f"round {round_.number}, node {node}: who grades has submitted a model",
                "it has not",
                call.tx,
            )
        round_.commitments.setdefault(node, bytes(entry.args["commitment"]))
        return []

    def _revealed(self, call: Call, entry: Entry, state: TaskState) -> list[Event]:
        round_ = self._in_phase(call, entry, state, Phase.REVEAL)
        if round_ is None:
            return []
        number, node, row = round_.number, int(entry.args["node"]), bytes(entry.args["grades"])
        self._once(call, entry, node not in round_.rows)
        salt = bytes(entry.args["salt"])
        fits = commitment(self.address, number, node, salt, row) == round_.commitments.get(node)
        self.findings.test(
            fits,
            f"grades/{number}/{node}/commitment",
            f"round {number}, node {node}: the revealed grades are those that it had committed to",
            "their hash with the salt is not the commitment",
            call.tx,
        )
        wrong = [
            j
            for j, grade in enumerate(row)
            if (grade > 100 if j != node and j in round_.submissions else grade != NO_GRADE)
        ]
        self.findings.test(
            len(row) == round_.known and not wrong,
            f"grades/{number}/{node}/range",
            f"round {number}, node {node}: grades of 0 to 100 for every peer that submitted, and none for itself",
            f"{len(row)} grades for {round_.known} nodes; those of {wrong[:5]} are none",
            call.tx,
        )
        if len(row) == round_.known and not wrong:
            round_.rows.setdefault(node, row)
        return []

    def _settled(self, call: Call, entry: Entry, state: TaskState) -> list[Event]:
        round_ = self._in_phase(call, entry, state, Phase.SETTLE)
        if round_ is None:
            return []
        sender = self.sender(call)
        node = None if sender is None else state.node_of(sender)
        self._by(call, node is not None and node in state.registered, f"settlements/{round_.number}/sender",
                 f"round {round_.number}: a registered node settles it", f"{sender} is none")  # fmt: skip
        if round_ is not state.open:
            return []
        record = settlement_of(entry)
        settled, events = state.settle(round_, call.time)
        check_settlement(self.findings, round_, record, settled)
        whole = all(len(part) == round_.known for part in (record.scores, record.asymmetry, record.reputation))
        round_.record = record if whole else record_of(settled, record)
        return events

    # -- rollback and the end -----------------------------------------------------------------------------------------

    def _voted(self, call: Call, entry: Entry, state: TaskState) -> list[Event]:
        node, target = int(entry.args["node"]), int(entry.args["target"])
        self._by_node(call, node, state, "rollbacks")
        open_, number = state.open, int(entry.args["round"])
        spent = open_ is not None and bool(open_.submissions)
        voters = state.votes.setdefault((state.closed, state.base, target), set())
        reasons = {
            "the task is asynchronous": state.spec.rules.asynchronous,
            "it names another round as the open one": number != (open_.number if open_ else 0),
            "it is excluded, or not registered": node in state.excluded or node not in state.registered,
            "it had voted so before": node in voters,
            "that round does not count, or is where the open round starts": not state.settlements
            or target > state.base
            or (target == state.base and not spent)
            or (target != 0 and target not in state.counted),
        }
        wrong = [reason for reason, holds in reasons.items() if holds]
        there = not state.spec.rules.asynchronous and (target == 0 or target in state.counted)
        self.findings.test(
            not wrong, f"rollbacks/{call.tx}/allowed", f"node {node} may vote to go on from round {target}",
            "; ".join(wrong), call.tx,
        )  # fmt: skip
        if node in state.registered:
            voters.add(node)
        rolls = state.rolls_back(voters)
        logged = any(other.name == "RolledBack" for other in call.entries)
        self.findings.test(
            rolls == logged, f"rollbacks/{call.tx}/majority",
            f"the task goes back to round {target} " + ("with" if rolls else "only with")
            + " two thirds of the reputation",
            f"the log has it go back with the votes of {sorted(voters)}" if logged else "the log does not go back",
            call.tx,
        )  # fmt: skip
        # Nothing goes on from a round that does not count: the log would lead in a circle, or nowhere.
        return state.roll_back(target, call.time) if logged and there else []

    def _concluded(self, call: Call, entry: Entry, state: TaskState) -> list[Event]:
        node = int(entry.args["node"])
        self._by_node(call, node, state, "end")
        self.findings.test(
            state.ended is not None and node in state.registered and node not in state.conclusions,
            f"end/{node}/concluded",
            f"node {node} states its final model and report once, after the end",
            "the task goes on, or it had stated them before",
            call.tx,
        )
        if node not in state.registered:
            return []
        state.conclusions.setdefault(node, (bytes(entry.args["model"]), bytes(entry.args["report"])))
        return []

    def _abandoned(self, call: Call, entry: Entry, state: TaskState) -> list[Event]:
        sender, due = self.sender(call), state.abandonable_at()
        node = None if sender is None else state.node_of(sender)
        may = sender == state.opener or (node is not None and node in state.registered)
        self.findings.test(
            bool(entry.args["abandoned"]) and state.ended is None and call.time >= due,
            "end/abandoned", "the task is ended as abandoned only when its time is over",
            f"it was ended at time {call.time}; from {due} on it could be", call.tx,
        )  # fmt: skip
        self._by(call, may, "end/abandoned/sender", "it is ended by who takes part", f"{sender} does not")
        state.end(abandoned=True)
        return []

    def _announced(self, call: Call, entry: Entry, state: TaskState) -> list[Event]:
        node = int(entry.args["node"])
        self._by_node(call, node, state, "announcements")
        self.findings.test(
            node in state.registered, f"announcements/{call.tx}/registered",
            f"node {node} is registered when it announces content", "it is not", call.tx,
        )  # fmt: skip
        try:
            announcement = announcement_of(entry)
            reason = "" if any(announcement.topic) and any(entry.args["digest"]) else "its topic or its digest is 0"
        except LedgerError as error:
            announcement, reason = None, error.message
        self.findings.test(not reason, f"announcements/{call.tx}/form",
                           f"node {node} announces a content identifier of a topic", reason, call.tx)  # fmt: skip
        if announcement is not None and not reason and node in state.registered:
            state.announced.append(announcement)
        return []

    def _withdrawn(self, call: Call, entry: Entry, state: TaskState) -> list[Event]:
        account, amount = str(entry.args["account"]), int(entry.args["amount"])
        owed, sender = state.owed(account), self.sender(call)
        self._by(call, sender == account, f"end/withdrawn/{account}/sender", f"{account} itself withdraws",
                 f"it is signed by {sender}")  # fmt: skip
        self.findings.test(
            amount == owed and amount > 0, f"end/withdrawn/{account}", f"{account} withdraws what it is owed",
            f"it withdrew {amount} wei, and was owed {owed}", call.tx,
        )  # fmt: skip
        state.withdrawn[account] = amount
        return []


def doubt(call: Call) -> str:
    """Why who sent a transaction, and what it says, is only told; empty where it is signed."""
    return UNTOLD if call.signed is None else ""


def _doing(call: Call, entry: Entry | None = None) -> str:
    cause = entry or (call.entries[0] if call.entries else None)
    function = CAUSES.get(cause.name, ("abandon", {}))[0] if cause else ""
    return WORDS.get(function, "acts")
