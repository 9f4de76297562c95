"""The rules of a task as plain Python: what FederatedRounds.sol has to do, call by call, and what it has to refuse.

Sets are sets and lists are lists here; nothing is packed, and nothing is shared with the contract but the settlement,
which has a test of its own against a brute-force median (test_reputation.py).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from eth_utils.address import to_canonical_address
from eth_utils.crypto import keccak

from contracts.records import Phase
from contracts.reputation import Rules, Standing, settle

MOST_NODES = 255
NONE = 255
ZERO = bytes(32)
Event = tuple[str, dict[str, Any]]


class Refused(Exception):
    """The contract must refuse, with this custom error and these arguments."""

    def __init__(self, name: str, **arguments: Any) -> None:
        super().__init__(name, arguments)
        self.name = name
        self.arguments = arguments


def bits(nodes: Collection[int]) -> int:
    return sum(1 << node for node in nodes)


@dataclass
class TaskModel:
    """One task. Methods are the contract's functions: they give the events that must come, or raise Refused."""

    address: str
    opener: str
    opened_time: int
    config_digest: bytes
    max_rounds: int
    min_nodes: int
    deposit: int
    pool: int
    rules: Rules
    accounts: list[str]  # known nodes, in order
    allow_list: bool
    registered: set[int] = field(default_factory=set)
    excluded: set[int] = field(default_factory=set)
    proposals: dict[int, bytes] = field(default_factory=dict)
    map_digest: bytes = ZERO
    standings: list[Standing] = field(default_factory=list)
    # the open round
    opened_at: int = 0  # 0: none is open
    base: int = 0
    closed: int = 0
    settlements: int = 0
    ended_at: int | None = None  # when a submission ended those of an asynchronous round
    round_nodes: int = 0
    pages: int = 0
    active: set[int] = field(default_factory=set)
    submitted: set[int] = field(default_factory=set)
    committed: dict[int, bytes] = field(default_factory=dict)
    revealed: dict[int, bytes] = field(default_factory=dict)
    # over all rounds
    counted: set[int] = field(default_factory=set)
    votes: dict[tuple[int, int, int], set[int]] = field(default_factory=dict)
    ended: bool = False
    concluded: set[int] = field(default_factory=set)
    paid: set[str] = field(default_factory=set)
    balance: int = 0

    def __post_init__(self) -> None:
        self.balance = self.pool
        self.standings = [Standing() for _ in self.accounts]

    # -- views ------------------------------------------------------------------------------------------------------

    def open_round(self) -> int:
        return self.closed + 1 if self.opened_at else 0

    def phase(self, now: int) -> Phase:
        if self.ended:
            return Phase.ENDED
        if not self.opened_at:
            return Phase.SETUP
        until = self.deadlines()
        if now < until[Phase.SUBMIT] and self.submitted != self.active:
            return Phase.SUBMIT
        if now < until[Phase.COMMIT] and self.submitted - set(self.committed):
            return Phase.COMMIT
        if now < until[Phase.REVEAL] and set(self.revealed) != set(self.committed):
            return Phase.REVEAL
        return Phase.SETTLE

    def deadlines(self) -> dict[Phase, int]:
        """When the phases of the open round end at the latest, as far as is known now."""
        submit = self.opened_at + self.rules.submit_seconds
        if self.asynchronous and self.submitted:
            submit = self.opened_at + self.rules.window_seconds if self.ended_at is None else self.ended_at
        commit = submit + self.rules.commit_seconds
        return {Phase.SUBMIT: submit, Phase.COMMIT: commit, Phase.REVEAL: commit + self.rules.reveal_seconds}

    @property
    def asynchronous(self) -> bool:
        return self.rules.window_seconds > 0

    def owed(self, account: str) -> int:
        if not self.ended or account in self.paid:
            return 0
        prize = self.pool + self.deposit * len(self.excluded)
        credits_ = sum(s.credits for s in self.standings)
        amount = 0
        if account in self.accounts and (node := self.accounts.index(account)) in self.registered:
            if node not in self.excluded:
                amount += self.deposit
            if credits_:
                amount += prize * self.standings[node].credits // credits_
        if account == self.opener and not credits_:
            amount += self.pool
        return amount

    # -- access -----------------------------------------------------------------------------------------------------

    def _known(self, sender: str) -> int:
        if sender not in self.accounts:
            raise Refused("NotAllowed", account=sender)
        return self.accounts.index(sender)

    def _registered(self, sender: str) -> int:
        node = self._known(sender)
        if node not in self.registered:
            raise Refused("NotRegistered", node=node)
        return node

    def _active(self, sender: str) -> int:
        node = self._known(sender)
        if node not in self.active:
            raise Refused("NotActive", node=node)
        return node

    def _require(self, round_: int, wanted: Phase, now: int) -> None:
        phase = self.phase(now)
        if round_ != self.open_round() or phase != wanted:
            raise Refused("WrongPhase", round=round_, open=self.open_round(), phase=int(phase))

    # -- set-up -----------------------------------------------------------------------------------------------------

    def register(self, sender: str, now: int, value: int, key: bytes, signing_key: bytes) -> list[Event]:
        if self.ended:
            raise Refused("WrongPhase", round=0, open=0, phase=int(Phase.ENDED))
        if value != self.deposit:
            raise Refused("BadDeposit", given=value, want=self.deposit)
        if key == ZERO:
            raise Refused("EmptyKey")
        if sender not in self.accounts:
            if self.allow_list:
                raise Refused("NotAllowed", account=sender)
            if len(self.accounts) == MOST_NODES:
                raise Refused("BadNodeCount", given=MOST_NODES + 1, most=MOST_NODES)
            self.accounts.append(sender)
            self.standings.append(Standing())
        node = self.accounts.index(sender)
        if node in self.registered:
            raise Refused("AlreadyRegistered", node=node)
        self.registered.add(node)
        self.balance += value
        keys = {"exchangeKey": key, "signingKey": signing_key}
        return [("NodeRegistered", {"node": node, "account": sender, **keys}), *self._open_first(now)]

    def agree_map(self, sender: str, now: int, digest: bytes) -> list[Event]:
        node = self._registered(sender)
        if digest == ZERO:
            raise Refused("EmptyDigest")
        if node in self.proposals:
            raise Refused("AlreadyProposed", node=node)
        self.proposals[node] = digest
        events: list[Event] = [("MapProposed", {"node": node, "digest": digest})]
        same = sum(other == digest for other in self.proposals.values())
        if self.map_digest == ZERO and 3 * same > 2 * max(len(self.registered), self.min_nodes):
            self.map_digest = digest
            events += [("MapAgreed", {"digest": digest}), *self._open_first(now)]
        return events

    def _open_first(self, now: int) -> list[Event]:
        begun = self.opened_at or self.closed or self.ended
        if begun or self.map_digest == ZERO or len(self.registered) < self.min_nodes:
            return []
        return self._open_next(now)

    def _open_next(self, now: int) -> list[Event]:
        self.pages = 0
        if self.closed == self.max_rounds or not self.registered - self.excluded:
            self.opened_at, self.ended = 0, True
            return [("TaskEnded", {"abandoned": False})]
        self.opened_at, self.round_nodes = now, len(self.accounts)
        self.active = self.registered - self.excluded
        self.submitted, self.committed, self.revealed, self.ended_at = set(), {}, {}, None
        return [("RoundOpened", {"round": self.closed + 1, "base": self.base, "active": bits(self.active)})]

    def announce(self, sender: str, now: int, topic: bytes, digest: bytes, codec: int) -> list[Event]:
        node = self._registered(sender)
        if ZERO in (topic, digest):
            raise Refused("EmptyDigest")
        if codec not in (0x55, 0x70):
            raise Refused("UnknownCodec", codec=codec)
        return [("Announced", {"node": node, "topic": topic, "digest": digest, "codec": codec})]

    # -- a round ----------------------------------------------------------------------------------------------------

    def submit(  # noqa: PLR0917
        self, sender: str, now: int, round_: int, digest: bytes, codec: int, metrics: int, resources: int, signed: bytes
    ) -> list[Event]:
        node = self._active(sender)
        if node in self.submitted and round_ == self.open_round():
            raise Refused("AlreadySubmitted", round=round_, node=node)
        self._require(round_, Phase.SUBMIT, now)
        if ZERO in (digest, signed):
            raise Refused("EmptyDigest")
        if codec not in (0x55, 0x70):
            raise Refused("UnknownCodec", codec=codec)
        window_over = now >= self.opened_at + self.rules.window_seconds
        self.submitted.add(node)
        if self.asynchronous and (window_over or self.submitted == self.active):
            self.ended_at = now
        fields = {"digest": digest, "codec": codec, "metrics": metrics, "resources": resources, "signature": signed}
        return [("ModelSubmitted", {"round": round_, "node": node, **fields})]

    def commit(self, sender: str, now: int, round_: int, commitment: bytes) -> list[Event]:
        node = self._active(sender)
        if node in self.committed and round_ == self.open_round():
            raise Refused("AlreadyCommitted", round=round_, node=node)
        self._require(round_, Phase.COMMIT, now)
        if node not in self.submitted and not self.asynchronous:
            raise Refused("NotSubmitted", round=round_, node=node)
        if commitment == ZERO:
            raise Refused("EmptyDigest")
        self.committed[node] = commitment
        return [("GradesCommitted", {"round": round_, "node": node, "commitment": commitment})]

    def reveal(self, sender: str, now: int, round_: int, grades: bytes, salt: bytes) -> list[Event]:
        node = self._active(sender)
        if node in self.revealed and round_ == self.open_round():
            raise Refused("AlreadyRevealed", round=round_, node=node)
        self._require(round_, Phase.REVEAL, now)
        if node not in self.committed:
            raise Refused("NotCommitted", round=round_, node=node)
        if len(grades) != self.round_nodes:
            raise Refused("BadGradesLength", given=len(grades), want=self.round_nodes)
        if self.committed[node] != self.commitment(round_, node, grades, salt):
            raise Refused("WrongReveal", round=round_, node=node)
        for peer, grade in enumerate(grades):
            graded = peer != node and peer in self.submitted
            if (graded and grade > 100) or (not graded and grade != NONE):
                raise Refused("BadGrade", node=peer, grade=grade)
        self.revealed[node] = grades
        return [("GradesRevealed", {"round": round_, "node": node, "grades": grades, "salt": salt})]

    def commitment(self, round_: int, node: int, grades: bytes, salt: bytes) -> bytes:
        task = to_canonical_address(self.address) + round_.to_bytes(4, "big")
        return bytes(keccak(task + bytes([node]) + salt + grades))

    def settle(self, sender: str, now: int, round_: int, most: int) -> list[Event]:
        self._registered(sender)
        self._require(round_, Phase.SETTLE, now)
        self.pages += max(1, most // 32)
        if 32 * self.pages < self.round_nodes:
            return []
        n = self.round_nodes
        result = settle(
            self.rules,
            self.settlements + 1,
            self.standings[:n],
            active=self.active,
            submitted=self.submitted,
            grades={i: {j: g for j, g in enumerate(row) if g != NONE} for i, row in self.revealed.items()},
            committed=self.committed.keys(),
        )
        self.standings[:n] = result.standings
        self.excluded |= result.excluded
        self.settlements += 1
        self.closed = self.base = round_
        self.counted.add(round_)
        said: Event = (
            "RoundSettled",
            {
                "round": round_,
                "scores": bytes(NONE if v is None else v for v in result.scores),
                "asymmetry": bytes(NONE if v is None else v for v in result.asymmetry),
                "reputation": [s.reputation for s in result.standings],
                "low": bits(result.low),
                "flagged": bits(result.flagged),
                "excluded": bits(result.excluded),
                "strong": result.strong,
            },
        )
        return [said, *self._open_next(now)]

    # -- rollback and the end ---------------------------------------------------------------------------------------

    def rollback(self, sender: str, now: int, target: int) -> list[Event]:
        if self.asynchronous:
            raise Refused("OnlySynchronous")
        node = self._registered(sender)
        if node in self.excluded:
            raise Refused("NotActive", node=node)
        round_ = self.open_round()
        spent = round_ != 0 and bool(self.submitted)
        there = target in self.counted | {0} and (target < self.base or (target == self.base and spent))
        if not self.settlements or not there:
            raise Refused("BadTarget", target=target, base=self.base)
        votes = self.votes.setdefault((self.closed, self.base, target), set())
        if node in votes:
            raise Refused("AlreadyVoted", target=target, node=node)
        votes.add(node)
        events: list[Event] = [("RollbackVoted", {"round": round_, "node": node, "target": target})]
        voters = self.registered - self.excluded
        total = sum(self.standings[i].reputation for i in voters)
        if not total or 3 * sum(self.standings[i].reputation for i in voters & votes) < 2 * total:
            return events
        self.counted = {r for r in self.counted if r <= target}
        self.base = target
        if spent:
            self.closed = round_
        self.concluded = set()
        events.append(("RolledBack", {"round": round_, "target": target, "spent": spent}))
        return events + (self._open_next(now) if round_ else [])

    def conclude(self, sender: str, now: int, model: bytes, report: bytes) -> list[Event]:
        node = self._registered(sender)
        if not self.ended:
            raise Refused("WrongPhase", round=0, open=self.open_round(), phase=int(self.phase(now)))
        if ZERO in (model, report):
            raise Refused("EmptyDigest")
        if node in self.concluded:
            raise Refused("AlreadyConcluded", node=node)
        self.concluded.add(node)
        return [("Concluded", {"node": node, "model": model, "report": report})]

    def abandon(self, sender: str, now: int) -> list[Event]:
        if sender != self.opener:
            self._registered(sender)
        if self.ended:
            raise Refused("WrongPhase", round=0, open=0, phase=int(Phase.ENDED))
        due = self.opened_time
        if self.opened_at:
            due = self.opened_at + self.rules.submit_seconds + self.rules.commit_seconds + self.rules.reveal_seconds
        due += self.rules.setup_seconds
        if now < due:
            raise Refused("TooEarly", until=due)
        self.opened_at, self.ended = 0, True
        return [("TaskEnded", {"abandoned": True})]

    def withdraw(self, sender: str, now: int) -> list[Event]:
        amount = self.owed(sender)
        if not amount:
            raise Refused("NothingOwed", account=sender)
        self.paid.add(sender)
        self.balance -= amount
        return [("Withdrawn", {"account": sender, "amount": amount})]

    # -- what has to hold whatever was played -----------------------------------------------------------------------

    def check(self, players: Sequence[str]) -> None:
        """Money never comes from nowhere, and who was excluded has nothing left."""
        assert self.balance >= sum(self.owed(player) for player in players) >= 0
        assert all(self.standings[i].reputation == self.standings[i].credits == 0 for i in self.excluded)
        assert all(0 <= s.reputation <= 10_000 for s in self.standings)
