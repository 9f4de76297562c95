"""Sums among processes: who takes part follows from the announcements alone, and the total is that of the roster."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from circuits.errors import QrunError
from contracts.store import BlockStore
from experiments.features.secure_sum import ExchangeKey, plain_sum
from runner.peers.sums import Announced, AnnouncedSum, LeftOut, attempt_at, topic_of

STAGE, SECONDS = "a stage", 10


def test_topics_differ_by_stage_and_attempt() -> None:
    topics = {topic_of(stage, attempt) for stage in ("a", "b", "1\na") for attempt in (0, 1, 11)}
    assert len(topics) == 9
    assert all(len(topic) == 32 for topic in topics)


Log = dict[bytes, dict[int, Announced]]


def board(log: Log) -> Callable[[bytes], dict[int, Announced]]:
    return lambda topic: dict(log.get(topic, {}))


def test_a_sum_waits_for_all_then_goes_on_with_those_who_came() -> None:
    log: Log = {topic_of(STAGE, 0): {0: Announced("a", 100), 2: Announced("c", 105), 1: Announced("late", 110)}}
    before = attempt_at(board(log), STAGE, [2, 0, 1], SECONDS, 109)
    assert (before.number, before.roster, before.missing, before.complete) == (0, (0, 1, 2), (1,), False)
    after = attempt_at(board(log), STAGE, [0, 1, 2], SECONDS, 110)
    assert (after.number, after.roster, after.ends) == (1, (0, 2), None)
    log[topic_of(STAGE, 1)] = {2: Announced("d", 150), 1: Announced("not of it", 151), 0: Announced("e", 159)}
    done = attempt_at(board(log), STAGE, [0, 1, 2], SECONDS, 160)
    assert (done.number, done.roster, done.complete, dict(done.announced).keys()) == (1, (0, 2), True, {0, 2})


def test_nobody_there_is_no_end() -> None:
    current = attempt_at(board({}), STAGE, [0, 1, 2], SECONDS, 10**9)
    assert (current.number, current.ends, current.missing) == (0, None, (0, 1, 2))


@given(
    st.lists(st.dictionaries(st.integers(0, 5), st.integers(0, 60), max_size=6), max_size=6),
    st.integers(1, 6),
    st.integers(0, 400),
)
def test_what_was_once_decided_stays(announced: list[dict[int, int]], nodes: int, now: int) -> None:
    """Time and announcements go on: an attempt that is over is never the current one again; a complete one stays."""
    log: Log = {topic_of(STAGE, a): {j: Announced(f"{a}{j}", t + 50 * a) for j, t in there.items()}
                for a, there in enumerate(announced)}  # fmt: skip

    def at(time: int) -> object:
        seen = {topic: {j: a for j, a in there.items() if a.time <= time} for topic, there in log.items()}
        return attempt_at(board(seen), STAGE, range(nodes), SECONDS, time)

    earlier, later = at(now), at(now + 1)
    assert later.number >= earlier.number
    assert set(later.roster) <= set(earlier.roster)
    if earlier.complete:
        assert later == earlier
    if later.number > earlier.number:
        assert not earlier.complete


@dataclass
class Chain:
    """Announcements and a time that goes on whenever somebody waits."""

    log: Log = field(default_factory=dict)
    time: int = 100
    lock: threading.RLock = field(default_factory=threading.RLock)

    def announce(self, node: int) -> Callable[[bytes, str], None]:
        def say(topic: bytes, cid: str) -> None:
            with self.lock:
                self.log.setdefault(topic, {}).setdefault(node, Announced(cid, self.time))

        return say

    def now(self) -> int:
        return self.time


@dataclass
class Patient:
    """Gives the others a chance, and lets time go by."""

    chain: Chain
    tries: int = 400

    def until(self, what: str, ready: Callable[[], object]) -> None:
        for _ in range(self.tries):
            if ready():
                return
            with self.chain.lock:
                self.chain.time += 1
            threading.Event().wait(0.005)
        raise QrunError(f"waited in vain for {what}.")


def peers(folder: Path, nodes: int, chain: Chain) -> list[AnnouncedSum]:
    keys = [ExchangeKey.generate() for _ in range(nodes)]
    public = {i: key.public for i, key in enumerate(keys)}
    return [
        AnnouncedSum(
            me=i,
            key=keys[i],
            keys=public,
            task=b"task",
            store=BlockStore(folder),
            board=lambda topic: dict(chain.log.get(topic, {})),
            announce=chain.announce(i),
            now=chain.now,
            wait=Patient(chain),
            roster=list(range(nodes)),
            seconds=30,
        )
        for i in range(nodes)
    ]


def together(sums: list[AnnouncedSum], values: dict[int, np.ndarray]) -> dict[int, np.ndarray | Exception]:
    found: dict[int, np.ndarray | Exception] = {}

    def add(i: int) -> None:
        try:
            found[i] = sums[i](STAGE, [values[i]])
        except QrunError as error:
            found[i] = error

    threads = [threading.Thread(target=add, args=(i,)) for i in values]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return found


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 5), st.integers(0, 2**31))
def test_all_get_the_total(tmp_path_factory: pytest.TempPathFactory, nodes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = {i: rng.integers(-(2**62), 2**62, (2, 3)) // nodes for i in range(nodes)}
    chain = Chain()
    found = together(peers(tmp_path_factory.mktemp("sum"), nodes, chain), values)
    wanted = plain_sum(STAGE, list(values.values()))
    assert all(isinstance(total, np.ndarray) and (total == wanted).all() for total in found.values())


def test_what_is_published_is_not_the_values(tmp_path: Path) -> None:
    chain = Chain()
    together(peers(tmp_path, 3, chain), {i: np.full(4, 7) for i in range(3)})
    for announced in chain.log[topic_of(STAGE, 0)].values():
        numbers = np.frombuffer(BlockStore(tmp_path).get(announced.cid, max_bytes=32), "<i8")
        assert not (numbers == 7).any()


def test_an_absent_node_is_left_out_and_one_that_is_late_is_told(tmp_path: Path) -> None:
    chain = Chain()
    sums = peers(tmp_path, 3, chain)
    found = together(sums, {0: np.array([1]), 2: np.array([4])})
    assert [int(found[i][0]) for i in (0, 2)] == [5, 5]
    assert [tuple(sums[i].roster) for i in (0, 2)] == [(0, 2), (0, 2)]
    with pytest.raises(LeftOut, match="too late"):
        sums[1](STAGE, [np.array([2])])
    # It has announced nothing: its values are in no attempt.
    assert all(1 not in there for there in chain.log.values())


def test_a_node_that_comes_in_the_last_seconds_publishes_nothing(tmp_path: Path) -> None:
    """Mined after the attempt's end its array would not count, and would show what the node holds."""
    chain = Chain()
    sums = peers(tmp_path, 3, chain)
    for i in (0, 2):
        chain.announce(i)(topic_of(STAGE, 0), BlockStore(tmp_path).put(bytes([i]) * 8))
    chain.time = 100 + 30 - 5
    before = set(tmp_path.rglob("*"))
    with pytest.raises(LeftOut, match="too late"):
        sums[1](STAGE, [np.array([2])])
    assert set(tmp_path.rglob("*")) == before
    assert all(1 not in there for there in chain.log.values())


def test_a_block_that_comes_later_than_the_clock_opens_no_second_attempt(tmp_path: Path) -> None:
    chain = Chain()
    sums = peers(tmp_path, 3, chain)
    values = {i: np.array([i + 1]) for i in range(3)}
    said: list[tuple[bytes, str]] = []
    sums[1].announce = lambda topic, cid: said.append((topic, cid))  # sent in time, and not mined yet
    for i in range(3):
        current = sums[i]._attempt(STAGE)
        sums[i]._put(STAGE, current, values[i])
    chain.time = 100 + 30 + 3
    assert sums[0]._attempt(STAGE).number == 0
    chain.log[topic_of(STAGE, 0)][1] = Announced(said[0][1], 129)
    found = together(sums, values)
    assert [int(found[i][0]) for i in range(3)] == [6, 6, 6]
    assert list(chain.log) == [topic_of(STAGE, 0)]


def test_alone_is_an_error_where_others_were_expected(tmp_path: Path) -> None:
    with pytest.raises(QrunError, match="nobody else is left"):
        peers(tmp_path, 2, Chain())[0](STAGE, [np.array([2])])


def test_one_node_has_its_own_total(tmp_path: Path) -> None:
    (alone,) = peers(tmp_path, 1, Chain())
    assert alone(STAGE, [np.array([2, 3])]).tolist() == [2, 3]


def test_an_array_of_another_size_is_refused(tmp_path: Path) -> None:
    chain = Chain()
    sums = peers(tmp_path, 2, chain)
    cid = BlockStore(tmp_path).put(b"\x00" * 8)
    chain.announce(1)(topic_of(STAGE, 0), cid)
    with pytest.raises(QrunError, match="node 1 put 8 bytes into the sum 'a stage', where 16 belong"):
        sums[0](STAGE, [np.array([2, 3])])


def test_killed_and_asked_again_it_is_the_same(tmp_path: Path) -> None:
    chain = Chain()
    sums = peers(tmp_path, 2, chain)
    together(sums, {0: np.array([1]), 1: np.array([2])})
    before = {topic: dict(there) for topic, there in chain.log.items()}
    sums[0].roster = [0, 1]
    assert sums[0](STAGE, [np.array([1])]).tolist() == [3]
    assert chain.log == before
