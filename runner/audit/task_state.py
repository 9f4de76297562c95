"""A task as FederatedRounds.sol has it, kept in Python: its state, its phases, what it owes. No checks, no log."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from contracts.records import Announcement, Phase, SettlementRecord, Submission, TaskSpec
from contracts.reputation import Settlement, Standing, settle
from contracts.task_log import NO_GRADE

Event = tuple[str, dict[str, object]]
"""An event that has to follow: its name and arguments."""


@dataclass(frozen=True)
class Registration:
    """What a node registered; `signing_key` is None where it signs with its account."""

    node: int
    account: str
    exchange_key: bytes
    signing_key: bytes | None


@dataclass
class Round:
    """One round. `rows` are the revealed grades as the contract takes them.

    `ended_at` is the time of the submission that ended those of an asynchronous round; None where its window did.
    `record` is what the log says of its settlement, `settled` what follows from the grades.
    """

    number: int
    base: int
    active: frozenset[int]
    known: int
    opened_at: int
    submissions: dict[int, Submission] = field(default_factory=dict)
    ended_at: int | None = None
    commitments: dict[int, bytes] = field(default_factory=dict)
    rows: dict[int, bytes] = field(default_factory=dict)
    settled: Settlement | None = None
    record: SettlementRecord | None = None
    void: bool = False

    def grades(self) -> dict[int, dict[int, int]]:
        """Grader -> graded -> 0..100."""
        return {i: {j: g for j, g in enumerate(row) if g != NO_GRADE} for i, row in sorted(self.rows.items())}


@dataclass
class TaskState:
    """Where a task is; `apply`-like methods change it as the contract would, and give the events that have to follow.

    Attributes:
        accounts: Known nodes' accounts, by number (checksummed).
        base: The round whose models the open round starts from; after the end the one that counts.
        closed: The last round that is settled or void.
        counted: Settled rounds that count, in order.
        announced: What nodes announced, in order.
        ended: None while it goes on; else whether it was abandoned.
    """

    spec: TaskSpec
    opener: str
    opened_at: int
    accounts: list[str] = field(default_factory=list)
    registered: dict[int, Registration] = field(default_factory=dict)
    standings: list[Standing] = field(default_factory=list)
    proposals: dict[int, bytes] = field(default_factory=dict)
    map_digest: bytes | None = None
    rounds: dict[int, Round] = field(default_factory=dict)
    open: Round | None = None
    base: int = 0
    closed: int = 0
    settlements: int = 0
    counted: list[int] = field(default_factory=list)
    votes: dict[tuple[int, int, int], set[int]] = field(default_factory=dict)
    conclusions: dict[int, tuple[bytes, bytes]] = field(default_factory=dict)
    withdrawn: dict[str, int] = field(default_factory=dict)
    announced: list[Announcement] = field(default_factory=list)
    ended: bool | None = None

    def __post_init__(self) -> None:
        if not self.accounts:
            self.accounts = list(self.spec.nodes)
            self.standings = [Standing()] * len(self.accounts)

    # -- asked -----------------------------------------------------------------------------------------------------

    @property
    def excluded(self) -> frozenset[int]:
        """Nodes that are out."""
        return frozenset(i for i, standing in enumerate(self.standings) if standing.excluded)

    def node_of(self, account: str) -> int | None:
        """The number of a known node; None of others."""
        return self.accounts.index(account) if account in self.accounts else None

    def phase(self, now: int) -> Phase:
        """What the open round takes at a time."""
        if self.ended is not None:
            return Phase.ENDED
        if self.open is None:
            return Phase.SETUP
        rules, round_ = self.spec.rules, self.open
        until = self._submissions_until(round_)
        if set(round_.submissions) != round_.active and now < until:
            return Phase.SUBMIT
        until += rules.commit_seconds
        if not round_.submissions.keys() <= round_.commitments.keys() and now < until:
            return Phase.COMMIT
        until += rules.reveal_seconds
        if set(round_.rows) != set(round_.commitments) and now < until:
            return Phase.REVEAL
        return Phase.SETTLE

    def _submissions_until(self, round_: Round) -> int:
        """When its submissions end, or ended: in an asynchronous task with the window, once there is one."""
        rules = self.spec.rules
        if not rules.asynchronous or not round_.submissions:
            return round_.opened_at + rules.submit_seconds
        return round_.opened_at + rules.window_seconds if round_.ended_at is None else round_.ended_at

    def abandonable_at(self) -> int:
        """From when on anybody may abandon it."""
        rules = self.spec.rules
        due = self.opened_at
        if self.open is not None:
            due = self.open.opened_at + rules.submit_seconds + rules.commit_seconds + rules.reveal_seconds
        return due + rules.setup_seconds

    def owed(self, account: str) -> int:
        """What an account may withdraw, in wei."""
        if self.ended is None:
            return 0
        node, amount = self.node_of(account), 0
        credits = sum(standing.credits for standing in self.standings)
        prize = self.spec.pool + self.spec.deposit * len(self.excluded)
        if account in self.withdrawn:
            return 0
        if node is not None and node in self.registered:
            if node not in self.excluded:
                amount = self.spec.deposit
            if credits:
                amount += prize * self.standings[node].credits // credits
        if account == self.opener and not credits:
            amount += self.spec.pool  # never a deposit: nobody is to gain by others' exclusion
        return amount

    # -- changed ---------------------------------------------------------------------------------------------------

    def register(self, registration: Registration, now: int) -> list[Event]:
        """A node takes part."""
        while len(self.accounts) <= registration.node:
            self.accounts.append(registration.account)
            self.standings.append(Standing())
        self.registered[registration.node] = registration
        return self._open_first(now)

    def propose(self, node: int, digest: bytes, now: int) -> list[Event]:
        """A node states the digest of its feature map."""
        self.proposals[node] = digest
        if self.map_digest is not None:
            return []
        count = sum(other == digest for other in self.proposals.values())
        if 3 * count <= 2 * max(len(self.registered), self.min_nodes):
            return []
        self.map_digest = digest
        return [("MapAgreed", {"digest": digest}), *self._open_first(now)]

    def submit(self, round_: Round, submission: Submission, now: int) -> None:
        """A node submits its model; in an asynchronous round the last one, or the first after the window, ends that."""
        rules = self.spec.rules
        round_.submissions.setdefault(submission.node, submission)
        late = now >= round_.opened_at + rules.window_seconds
        if rules.asynchronous and round_.ended_at is None and (late or set(round_.submissions) == round_.active):
            round_.ended_at = now

    def settle(self, round_: Round, now: int) -> tuple[Settlement, list[Event]]:
        """What the round's grades come to, and what follows."""
        settled = settle(
            self.spec.rules,
            self.settlements + 1,
            self.standings[: round_.known],
            active=round_.active,
            submitted=round_.submissions.keys(),
            grades=round_.grades(),
            committed=round_.commitments.keys(),
        )
        round_.settled = settled
        self.standings[: round_.known] = settled.standings
        self.settlements += 1
        self.closed = self.base = round_.number
        self.counted.append(round_.number)
        return settled, self._open_next(now)

    def rolls_back(self, voters: Collection[int]) -> bool:
        """Whether these nodes hold two thirds of the reputation."""
        weight = {i: self.standings[i].reputation for i in self.registered.keys() - self.excluded}
        total = sum(weight.values())
        return total > 0 and 3 * sum(weight.get(i, 0) for i in voters) >= 2 * total

    def roll_back(self, target: int, now: int) -> list[Event]:
        """Go on from round `target`; what follows, the rollback's own event first."""
        round_ = self.open
        spent = round_ is not None and bool(round_.submissions)
        self.base = target
        self.conclusions.clear()  # they were of other models
        for number in self.counted:
            self.rounds[number].void |= number > target
        self.counted = [number for number in self.counted if number <= target]
        told: Event = ("RolledBack", {"round": round_.number if round_ else 0, "target": target, "spent": spent})
        if round_ is None:
            return [told]
        if spent:
            round_.void = True
            self.closed = round_.number
        return [told, *self._open_next(now)]

    def end(self, *, abandoned: bool) -> None:
        """The task is over."""
        self.ended = abandoned
        self.open = None

    @property
    def min_nodes(self) -> int:
        """How many have to register before the first round opens."""
        return self.spec.min_nodes

    def _open_first(self, now: int) -> list[Event]:
        if self.open is not None or self.closed or self.ended is not None:
            return []
        if self.map_digest is None or len(self.registered) < self.min_nodes:
            return []
        return self._open_next(now)

    def _open_next(self, now: int) -> list[Event]:
        active = frozenset(self.registered.keys() - self.excluded)
        if self.closed == self.spec.max_rounds or not active:
            self.end(abandoned=False)
            return [("TaskEnded", {"abandoned": False})]
        self.open = Round(self.closed + 1, self.base, active, len(self.accounts), now)
        self.rounds[self.open.number] = self.open
        bits = sum(1 << i for i in active)
        return [("RoundOpened", {"round": self.open.number, "base": self.base, "active": bits})]
