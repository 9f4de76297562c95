"""What a task's contract has said so far, read from its log and views into plain types."""

from __future__ import annotations

from typing import Any

from contracts.build import load_artefact
from contracts.chain import Chain
from contracts.cid import RAW, Cid
from contracts.errors import LedgerError
from contracts.event_log import Entry, EventLog
from contracts.metrics import unpack_metrics
from contracts.packing import members, unpack_resources
from contracts.records import Announcement, NodeRecord, Phase, SettlementRecord, Submission, TaskSpec
from contracts.reputation import Rules

NO_GRADE = 255
"""In a node's list of grades, and among scores: none given."""


class TaskLog:
    """A task's record.

    Attributes:
        chain: Where it stands.
        address: The contract's (checksummed).
        task: What the task was opened with.
        opened_block: Block that the log begins in.
    """

    def __init__(self, chain: Chain, address: str) -> None:
        self.chain = chain
        self.address = address
        self._contract = chain.w3.eth.contract(address=address, abi=load_artefact()["abi"])
        self.opened_block = int(self._view("openedBlock"))
        self._log = EventLog(chain, self._contract, self.opened_block)
        opened = self._log.find("TaskOpened")
        if opened is None:
            raise LedgerError(f"the chain has no record of the opening of {address}.", "Does the node keep old logs?")
        self.task = task_of(opened)

    # -- who --------------------------------------------------------------------------------------------------------

    def index_of(self, address: str) -> int:
        """The number of the node with this account.

        Raises:
            LedgerError: it is not on the task's allow-list, or not registered where the task is open to all.
        """
        if address in self.task.nodes:
            return self.task.nodes.index(address)
        entry = None if self.task.nodes else self._registration(address)
        if entry is None:
            raise LedgerError(f"account {address} is no node of the task {self.address}.")
        return int(entry.args["node"])

    def _registration(self, address: str) -> Entry | None:
        return next((e for e in self._log.all("NodeRegistered") if e.args["account"] == address), None)

    def nodes(self) -> list[NodeRecord]:
        """The nodes that have registered, in order."""
        reputation = self.reputation()
        out = members(int(self._view("sets")[1]))
        found = sorted(self._log.all("NodeRegistered"), key=lambda e: int(e.args["node"]))
        return [
            NodeRecord(
                index=int(e.args["node"]),
                address=str(e.args["account"]),
                exchange_key=bytes(e.args["exchangeKey"]),
                signing_key=bytes(e.args["signingKey"]) if any(e.args["signingKey"]) else None,
                reputation=reputation[int(e.args["node"])],
                excluded=int(e.args["node"]) in out,
            )
            for e in found
        ]

    def exchange_keys(self) -> dict[int, bytes]:
        """X25519 public keys of the nodes that have registered, by node index."""
        return {int(e.args["node"]): bytes(e.args["exchangeKey"]) for e in self._log.all("NodeRegistered")}

    def opener(self) -> str:
        """Who opened the task."""
        return str(self._view("opener"))

    def map_digest(self) -> bytes | None:
        """SHA-256 of the agreed feature map; None until more than two thirds stated the same."""
        digest = bytes(self._view("mapDigest"))
        return digest if any(digest) else None

    def reputation(self) -> list[int]:
        """Reputation of every known node now, in hundredths of a grade (0..10000)."""
        return [int(node[1]) for node in self._view("nodes")]

    # -- where it is ------------------------------------------------------------------------------------------------

    def phase(self) -> Phase:
        """What the open round takes now.

        A node that mines only what is sent shows the time of its last block, at which no deadline would ever pass: the
        contract is asked about the time of a block mined now. Its state is that of the last block all the same: what is
        not mined yet may never be, and whoever graded by it would be held to grades that cannot be revealed.
        """
        time = self.chain.pending_time()
        return Phase(int(self._view("phase") if time is None else self._view("phaseAt", time)))

    def open_round(self) -> int:
        """The round that is open; 0 before the first and after the last."""
        return int(self._view("openRound"))

    def settled_rounds(self) -> int:
        """The last round that is closed, settled or void."""
        return int(self._view("state")[2])

    def base(self) -> int:
        """The round whose models the open one starts from, 0 for the common start; at the end, the one that counts."""
        return int(self._view("state")[1])

    def base_of(self, round_: int) -> int:
        """The round whose models a round starts (or started) from.

        Raises:
            LedgerError: it was not opened yet.
        """
        return int(self._opening(round_).args["base"])

    def active(self, round_: int) -> frozenset[int]:
        """Who may take part in a round."""
        return members(int(self._opening(round_).args["active"]))

    def _opening(self, round_: int) -> Entry:
        # A rollback may open a round again, which some server may not know yet: the log is read anew.
        self._log.refresh()
        entry = self._log.find("RoundOpened", round_=round_)
        if entry is None:
            raise LedgerError(f"round {round_} of task {self.address} is not open yet.")
        return entry

    def known_at(self, round_: int) -> int:
        """How many nodes were known when a round was opened: a list of grades has so many."""
        if self.task.nodes:
            return len(self.task.nodes)
        opening = self._opening(round_)
        place = (opening.block, opening.index)
        return sum((e.block, e.index) < place for e in self._log.all("NodeRegistered"))

    def rounds(self) -> list[int]:
        """The rounds that were opened so far."""
        return sorted({int(e.args["round"]) for e in self._log.all("RoundOpened")})

    def counted(self) -> list[int]:
        """The settled rounds that count: those that a rollback has not made void, in order."""
        kept: list[int] = []
        for entry in self._log.all("RoundSettled", "RolledBack"):
            if entry.name == "RoundSettled":
                kept.append(int(entry.args["round"]))
            else:
                kept = [r for r in kept if r <= int(entry.args["target"])]
        return kept

    def voided(self) -> frozenset[int]:
        """The closed rounds that do not count."""
        counted = set(self.counted())
        return frozenset(r for r in range(1, self.settled_rounds() + 1) if r not in counted)

    # -- rounds -----------------------------------------------------------------------------------------------------

    def submission(self, round_: int, node: int) -> Submission | None:
        """What a node submitted in a round."""
        entry = self._log.find("ModelSubmitted", round_=round_, node=node)
        return None if entry is None else submission_of(entry)

    def submissions(self, round_: int) -> list[Submission]:
        """All submissions of a round, in the order of nodes."""
        return [submission_of(entry) for entry in self._log.of_round("ModelSubmitted", round_)]

    def commitments(self, round_: int) -> dict[int, bytes]:
        """Who committed to grades in a round, and the commitment."""
        entries = self._log.of_round("GradesCommitted", round_)
        return {int(e.args["node"]): bytes(e.args["commitment"]) for e in entries}

    def grades(self, round_: int) -> dict[int, dict[int, int]]:
        """The revealed grades of a round: grader -> graded -> 0..100."""
        return {int(e.args["node"]): grades_of(e) for e in self._log.of_round("GradesRevealed", round_)}

    def salts(self, round_: int) -> dict[int, bytes]:
        """The salts of the revealed grades."""
        return {int(e.args["node"]): bytes(e.args["salt"]) for e in self._log.of_round("GradesRevealed", round_)}

    def settlement(self, round_: int) -> SettlementRecord | None:
        """What a round was settled to; None where it is not, or was closed void."""
        entry = self._log.find("RoundSettled", round_=round_)
        return None if entry is None else settlement_of(entry)

    def conclusions(self) -> dict[int, tuple[bytes, bytes]]:
        """What nodes stated at the end, and no rollback has taken back: digests of final model and report."""
        return {i: (bytes(e.args["model"]), bytes(e.args["report"])) for i, e in self._conclusions().items()}

    def _conclusions(self) -> dict[int, Entry]:
        found: dict[int, Entry] = {}
        for entry in self._log.all("Concluded", "RolledBack"):
            if entry.name == "RolledBack":
                found.clear()
            else:
                found[int(entry.args["node"])] = entry
        return found

    # -- announcements ----------------------------------------------------------------------------------------------

    def announcements(self, topic: bytes) -> dict[int, Announcement]:
        """Each node's first announcement of a topic, in the order of the log: by node."""
        found: dict[int, Announcement] = {}
        for one in self.announced():
            if one.topic == topic:
                found.setdefault(one.node, one)
        return found

    def announced(self) -> list[Announcement]:
        """All announcements, in the order of the log."""
        return [announcement_of(entry) for entry in self._log.all("Announced")]

    def entries(self) -> list[Entry]:
        """Everything that the contract logged, in order."""
        return self._log.all()

    def gas_used(self) -> int:
        """Gas of all transactions of the task that logged anything, its opening included."""
        return self._log.gas_used()

    def _view(self, name: str, *arguments: Any) -> Any:
        return self.chain.call(self._contract.get_function_by_name(name)(*arguments))


def task_of(opened: Entry) -> TaskSpec:
    """The task, from its TaskOpened."""
    terms = opened.args["terms"]
    rules = Rules(*(int(value) for value in dict(terms["rules"]).values()))
    return TaskSpec(
        experiment=opened.args["experiment"],
        config_digest=bytes(opened.args["configDigest"]),
        data_source=opened.args["source"],
        max_rounds=int(terms["maxRounds"]),
        nodes=tuple(opened.args["allowed"]),
        rules=rules,
        min_nodes=int(terms["minNodes"]),
        deposit=int(terms["deposit"]),
        pool=int(opened.args["pool"]),
    )


def submission_of(entry: Entry) -> Submission:
    """A submission, from its ModelSubmitted."""
    return Submission(
        round=int(entry.args["round"]),
        node=int(entry.args["node"]),
        cid=str(Cid(int(entry.args["codec"]), bytes(entry.args["digest"]))),
        metrics=unpack_metrics(int(entry.args["metrics"])),
        resources=unpack_resources(int(entry.args["resources"])),
        signature=str(Cid(RAW, bytes(entry.args["signature"]))),
        tx=entry.tx,
        block=entry.block,
    )


def announcement_of(entry: Entry) -> Announcement:
    """An announcement, from its Announced."""
    return Announcement(
        node=int(entry.args["node"]),
        topic=bytes(entry.args["topic"]),
        cid=str(Cid(int(entry.args["codec"]), bytes(entry.args["digest"]))),
        tx=entry.tx,
        block=entry.block,
    )


def grades_of(entry: Entry) -> dict[int, int]:
    """Graded -> 0..100, from a GradesRevealed."""
    return {j: g for j, g in enumerate(entry.args["grades"]) if g != NO_GRADE}


def settlement_of(entry: Entry) -> SettlementRecord:
    """What a round was settled to, from its RoundSettled."""
    args = entry.args
    return SettlementRecord(
        round=int(args["round"]),
        scores=tuple(None if v == NO_GRADE else v for v in args["scores"]),
        asymmetry=tuple(None if v == NO_GRADE else v for v in args["asymmetry"]),
        strong=bool(args["strong"]),
        reputation=tuple(int(v) for v in args["reputation"]),
        low=members(int(args["low"])),
        flagged=members(int(args["flagged"])),
        excluded=members(int(args["excluded"])),
        tx=entry.tx,
        block=entry.block,
    )
