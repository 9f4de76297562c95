"""A replayed task in the shape in which the runner knows tasks, so that audit and run check models by the same code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from contracts.errors import LedgerError
from contracts.records import Announcement, NodeRecord, Submission
from runner.audit.task_state import Round, TaskState


class Weighing(Protocol):
    """What a settlement gives models: SettlementRecord and Settlement both do."""

    def weights(self) -> Mapping[int, int]:
        """Node -> weight."""
        ...

    @property
    def excluded(self) -> frozenset[int]:
        """Who was excluded by it."""
        ...


@dataclass(frozen=True)
class ChainName:
    """Which chain it is."""

    chain_id: int


class TaskView:
    """What contracts.task_log.TaskLog tells of a task, told from the replay: nothing of it is the chain's word alone.

    Attributes:
        chain: Its id.
        address: The contract's.
        state: The task after its last transaction.
    """

    def __init__(self, state: TaskState, chain_id: int, address: str) -> None:
        self.state = state
        self.chain = ChainName(chain_id)
        self.address = address

    def _round(self, number: int) -> Round:
        if number not in self.state.rounds:
            raise LedgerError(f"round {number} of task {self.address} is not open yet.")
        return self.state.rounds[number]

    def base(self) -> int:
        """The round that counts at the end, or that the open one starts from."""
        return self.state.base

    def base_of(self, round_: int) -> int:
        """The round whose models a round started from."""
        return self._round(round_).base

    def settled_rounds(self) -> int:
        """The last round that is closed, settled or void."""
        return self.state.closed

    def rounds(self) -> list[int]:
        """The rounds that were opened so far."""
        return sorted(self.state.rounds)

    def active(self, round_: int) -> frozenset[int]:
        """Who could take part in a round."""
        return self._round(round_).active

    def submissions(self, round_: int) -> list[Submission]:
        """All submissions of a round, in the order of nodes; none to one that is not open yet."""
        known = self.state.rounds.get(round_)
        return [] if known is None else [submission for _, submission in sorted(known.submissions.items())]

    def submission(self, round_: int, node: int) -> Submission | None:
        """What a node submitted in a round."""
        known = self.state.rounds.get(round_)
        return None if known is None else known.submissions.get(node)

    def settlement(self, round_: int) -> Weighing | None:
        """What a round's grades come to; None where it is not settled."""
        return self._round(round_).settled

    def announcements(self, topic: bytes) -> dict[int, Announcement]:
        """Each node's first announcement of a topic, in the order of the log: by node."""
        found: dict[int, Announcement] = {}
        for one in self.state.announced:
            if one.topic == topic:
                found.setdefault(one.node, one)
        return found

    def nodes(self) -> list[NodeRecord]:
        """The registered nodes, in order."""
        return [
            NodeRecord(
                index=i,
                address=node.account,
                exchange_key=node.exchange_key,
                signing_key=node.signing_key,
                reputation=self.state.standings[i].reputation,
                excluded=self.state.standings[i].excluded,
            )
            for i, node in sorted(self.state.registered.items())
        ]
