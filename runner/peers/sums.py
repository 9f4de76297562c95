"""Masked sums among processes: each node announces the CID of its masked array on the chain, and adds up all of them.

Who takes part in a sum follows from the chain's log alone, so that every node comes to the same roster:

    attempt 0    all nodes of `roster`
    attempt a    who announced to attempt a - 1 within `seconds` of the first that did, where somebody did not

An attempt is complete once its whole roster has announced within its time; the times are those of blocks. The roster is
part of every mask (experiments/features/secure_sum.py), so that another attempt has other masks. Two complete attempts
of one sum would show, by their difference, what the nodes between them hold: hence a node announces to the current
attempt alone, and what comes after its time does not count. A node that is late by malice shows its own values only.

A transaction is mined some time after it was sent, and a block may come that is older than what a clock says by now.
So nobody announces in the last seconds of an attempt (mined too late, the array would not count, and whoever adds it to
the others' would have the total with it and without it), and nobody goes on to the next one in the first seconds after.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from circuits.errors import QrunError
from contracts.errors import ContentError
from contracts.store import ContentStore
from experiments.features.secure_sum import ExchangeKey, Masker, total

IntArray = npt.NDArray[np.int64]
MaskedArray = npt.NDArray[np.uint64]

LEAST = 2
"""With fewer nodes nothing is masked."""
GRACE = 30
"""Seconds before and after an attempt ends in which nobody acts on it; a quarter of its time where that is less."""


class LeftOut(QrunError):
    """A sum was made without this node: it came too late."""


@dataclass(frozen=True)
class Announced:
    """What a node announced to an attempt: the CID of its masked array, and the time of the block (seconds)."""

    cid: str
    time: int


Board = Callable[[bytes], Mapping[int, Announced]]
"""Topic -> the first announcement of each node to it, by node."""


@dataclass(frozen=True)
class Attempt:
    """Where a sum stands.

    Attributes:
        number: Of the attempt, from 0.
        roster: Who is waited for, ascending.
        ends: The first second that is too late for it; None while nobody has announced.
        announced: What came in time, by node.
    """

    number: int
    roster: tuple[int, ...]
    ends: int | None
    announced: Mapping[int, Announced]

    @property
    def complete(self) -> bool:
        """Whether all of the roster have announced."""
        return len(self.announced) == len(self.roster)

    @property
    def missing(self) -> tuple[int, ...]:
        """Who has not."""
        return tuple(j for j in self.roster if j not in self.announced)


def topic_of(stage: str, attempt: int) -> bytes:
    """The topic of an attempt at a sum: SHA-256 over its name, 32 bytes."""
    return hashlib.sha256(f"qrun sum 1\n{attempt}\n{stage}".encode()).digest()


def attempt_at(board: Board, stage: str, roster: Sequence[int], seconds: int, now: int) -> Attempt:
    """The attempt that a sum is in, or that completed it; a function of the chain alone.

    Args:
        board: The announcements.
        stage: Name of the sum, once in a task.
        roster: Who takes part in attempt 0.
        seconds: How long each attempt waits, from its first announcement on.
        now: The chain's time.
    """
    number, members = 0, tuple(sorted(roster))
    while True:
        board_now = board(topic_of(stage, number))
        found = {j: board_now[j] for j in members if j in board_now}
        ends = min(a.time for a in found.values()) + seconds if found else None
        here = {j: a for j, a in found.items() if ends is not None and a.time < ends}
        current = Attempt(number, members, ends, here)
        if current.complete or ends is None or now < ends:
            return current
        number, members = number + 1, tuple(here)


class Waiter(Protocol):
    """Waits for others; see runner/peers/watch.py."""

    def until(self, what: str, ready: Callable[[], object]) -> None:
        """Ask `ready` again and again until it gives something true."""
        ...


@dataclass
class AnnouncedSum:
    """A SecureSum of one node whose peers are elsewhere: one contribution goes in, the total of all comes out.

    Sums follow each other: the next begins when the one before is complete, with those who took part in it.

    Attributes:
        me: This node's number.
        key: Its exchange key.
        keys: Everybody's registered exchange keys, by node.
        task: Names the task for the masks: chain and contract.
        store: Where masked arrays lie; what is put is with the others before it is announced.
        board: The announcements.
        announce: Announces a CID to a topic, and waits until it is mined.
        now: The chain's time.
        wait: Waits for others.
        roster: Who takes part in the next sum.
        seconds: How long absent nodes are waited for.
        tell: Told who is left out.
    """

    me: int
    key: ExchangeKey
    keys: Mapping[int, bytes]
    task: bytes
    store: ContentStore
    board: Board
    announce: Callable[[bytes, str], None]
    now: Callable[[], int]
    wait: Waiter
    roster: Sequence[int]
    seconds: int
    tell: Callable[[str], None] = lambda _: None

    def __call__(self, stage: str, contributions: Sequence[IntArray]) -> IntArray:
        """The total over the roster.

        Args:
            stage: Name of the sum, once in a task.
            contributions: This node's alone.

        Raises:
            QrunError: too few others are left, this node is not among them, or one put what is no such array.
        """
        if len(contributions) != 1:
            raise ValueError("a node contributes to a sum once")
        values = np.ascontiguousarray(contributions[0], dtype=np.int64)
        if len(self.roster) == 1:
            return values
        done = self._complete(stage, values)
        self.roster = done.roster
        return total([self._array(stage, j, done.announced[j].cid, values) for j in done.roster])

    def _complete(self, stage: str, values: IntArray) -> Attempt:
        """Announce, to one attempt after the other where somebody is missing, until one is complete."""
        told = 0
        while True:
            current = self._attempt(stage)
            if current.number > told:
                left = sorted(set(self.roster) - set(current.roster))
                self.tell(f"nodes {left} did not come to the sum {_short(stage)} in time: it goes on without them.")
                told = current.number
            if self.me not in current.roster:
                raise LeftOut(
                    f"this node came too late to the sum {_short(stage)}, which went on without it.",
                    "It takes part in what follows; its records are not in this total.",
                )
            if len(current.roster) < LEAST:
                raise QrunError(
                    f"nobody else is left in the sum {_short(stage)}: alone a node has no mask.",
                    "Wait for the others and begin again; the task may be abandoned (`qrun task settle --abandon`).",
                )
            if current.complete:
                return current
            if self.me not in current.announced and not self._closing(current):
                self._put(stage, current, values)
                continue
            self.wait.until(
                f"nodes {list(current.missing)} in the sum {_short(stage)}",
                lambda current=current: self._attempt(stage) != current,  # type: ignore[misc]
            )

    @property
    def _grace(self) -> int:
        return min(GRACE, self.seconds // 4)

    def _closing(self, attempt: Attempt) -> bool:
        """Whether it is too late to announce to an attempt, and be sure that it counts."""
        return attempt.ends is not None and self.now() >= attempt.ends - self._grace

    def _attempt(self, stage: str) -> Attempt:
        return attempt_at(self.board, stage, self.roster, self.seconds, self.now() - self._grace)

    def _put(self, stage: str, attempt: Attempt, values: IntArray) -> None:
        keys = [self.keys[j] for j in attempt.roster]
        # Within a roster of its own: whoever is not in it adds no mask to it.
        masked = Masker(attempt.roster.index(self.me), self.key, keys, self.task)(stage, values)
        cid = self.store.put(masked.astype("<u8").tobytes())
        self.announce(topic_of(stage, attempt.number), cid)

    def _array(self, stage: str, node: int, cid: str, like: IntArray) -> MaskedArray:
        """A node's masked array, hostile until checked: as many numbers as one's own."""
        size = 8 * like.size
        found: list[bytes] = []

        def fetch() -> bool:
            try:
                found.append(self.store.get(cid, max_bytes=size))
            except ContentError:
                return False
            return True

        self.wait.until(f"node {node}'s part of the sum {_short(stage)} ({cid})", fetch)
        if len(found[-1]) != size:
            raise QrunError(
                f"node {node} put {len(found[-1])} bytes into the sum {_short(stage)}, where {size} belong.",
                "It runs another version, or is hostile: begin the task again without it.",
            )
        return np.frombuffer(found[-1], dtype="<u8").astype(np.uint64).reshape(like.shape)


def _short(stage: str) -> str:
    """A stage's name without its digest."""
    return repr("/".join(part for part in stage.split("/") if len(part) < 32))
