"""Asynchronous tasks: rounds are windows, nobody waits for who is slow, and nobody is judged for not being there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from contracts.errors import ContractRevert, LedgerError
from contracts.records import Phase
from contracts.reputation import Rules
from tests.contracts.conftest import METRICS, QUICK, SIGNATURE, Bank, Play, all_grades, key, model, open_task

WINDOWS = replace(QUICK, window_seconds=400, quorum=2)


def windows(bank: Bank, count: int, rounds: int = 3, *, rules: Rules = WINDOWS, **changed: Any) -> Play:
    game = open_task(bank, count, rounds, rules=replace(rules, **changed))
    game.agree()
    return game


def opened_at(game: Play) -> int:
    return int(game.view("state")[0])


def time_of(game: Play, node: int, round_: int = 1) -> int:
    """When a node submitted."""
    found = game.contract.submission(round_, node)
    assert found is not None
    return game.chain.block_time(found.block)


def to_window_end(game: Play) -> None:
    game.wait(max(0, opened_at(game) + WINDOWS.window_seconds - game.bank.now()))


def node(game: Play, index: int) -> tuple[int, int, int, int, bool]:
    """Reputation, low, hard, credits, scored."""
    _, reputation, low, hard, credits_, scored = game.view("nodes")[index]
    return reputation, low, hard, credits_, scored


def phase_at(game: Play, time: int) -> Phase:
    return Phase(game.view("phaseAt", time))


def ends_at(game: Play, phase: Phase, time: int) -> bool:
    """Whether the phase lasts until that second, and no longer."""
    return phase_at(game, time - 1) == phase and phase_at(game, time) > phase


def grade(game: Play, round_: int, grades: dict[int, dict[int, int]], hidden: tuple[int, ...] = ()) -> None:
    """All commit, in this order, and reveal but those who hide their grades."""
    game.commit(round_, grades)
    game.reveal(round_, {i: row for i, row in grades.items() if i not in hidden})
    if hidden:
        game.wait(WINDOWS.commit_seconds + WINDOWS.reveal_seconds)
    game.settle(round_)


# -- when a window ends ---------------------------------------------------------------------------------------------


def test_a_window_ends_by_its_time_and_grades_count_from_there(bank: Bank) -> None:
    game = windows(bank, 3)
    end = opened_at(game) + 400
    assert ends_at(game, Phase.SUBMIT, opened_at(game) + 1000)  # nobody has submitted yet
    game.submit(1, [0])
    assert ends_at(game, Phase.SUBMIT, end)
    game.submit(1, [1])
    assert ends_at(game, Phase.SUBMIT, end)
    game.wait(max(0, end + 150 - bank.now()))  # whoever looks only later changes nothing
    assert game.contract.phase() == Phase.COMMIT
    assert ends_at(game, Phase.COMMIT, end + 200)
    with pytest.raises(ContractRevert, match="WrongPhase"):
        game.submit(1, [2])


def test_a_window_ends_when_all_have_submitted(bank: Bank) -> None:
    game = windows(bank, 3)
    game.submit(1)
    assert game.contract.phase() == Phase.COMMIT
    assert time_of(game, 2) < opened_at(game) + 400
    assert ends_at(game, Phase.COMMIT, time_of(game, 2) + 200)
    game.commit(1, {0: {1: 80, 2: 80}})
    game.wait(200)
    assert game.contract.phase() == Phase.REVEAL
    assert ends_at(game, Phase.REVEAL, time_of(game, 2) + 500)


def test_the_first_model_after_the_window_ends_it(bank: Bank) -> None:
    game = windows(bank, 3)
    to_window_end(game)
    assert game.contract.phase() == Phase.SUBMIT
    game.submit(1, [1])
    assert time_of(game, 1) >= opened_at(game) + 400
    assert game.contract.phase() == Phase.COMMIT
    assert ends_at(game, Phase.COMMIT, time_of(game, 1) + 200)
    # The next round knows nothing of it.
    game.commit(1, {0: {1: 80}, 2: {1: 80}, 1: {}})
    game.reveal(1, {0: {1: 80}, 2: {1: 80}, 1: {}})
    game.settle(1)
    game.submit(2, [0])
    assert ends_at(game, Phase.SUBMIT, opened_at(game) + 400)


def test_a_window_that_nobody_submits_to_is_settled_empty(bank: Bank) -> None:
    game = windows(bank, 3)
    game.wait(max(0, opened_at(game) + 999 - bank.now() - 5))
    assert game.contract.phase() == Phase.SUBMIT
    game.wait_out("submit")
    assert game.contract.phase() == Phase.SETTLE
    with pytest.raises(ContractRevert, match="WrongPhase"):
        game.raw(game.accounts[0], "commit", 1, b"c" * 32)
    game.settle(1)
    found = game.contract.settlement(1)
    assert found is not None
    assert (found.strong, found.scores, found.reputation) == (False, (None,) * 3, (0, 0, 0))
    assert [node(game, i) for i in range(3)] == [(0, 0, 0, 0, False)] * 3
    # Nobody was scored: the next one is the first that says anything, and all weigh the same.
    game.submit(2)
    grade(game, 2, {0: {1: 60, 2: 90}, 1: {0: 90, 2: 90}, 2: {0: 90, 1: 70}})
    assert [node(game, i)[0] for i in range(3)] == [9000, 7000, 9000]


def test_commitments_end_once_all_that_submitted_have_committed(bank: Bank) -> None:
    game = windows(bank, 4)
    game.submit(1, [0, 1])
    to_window_end(game)
    game.commit(1, {3: {0: 80, 1: 80}, 0: {1: 80}})
    assert game.contract.phase() == Phase.COMMIT
    game.commit(1, {1: {0: 80}})
    assert game.contract.phase() == Phase.REVEAL
    with pytest.raises(ContractRevert, match="WrongPhase"):
        game.commit(1, {2: {0: 80, 1: 80}})
    game.reveal(1, {0: {1: 80}, 1: {0: 80}})
    assert game.contract.phase() == Phase.REVEAL  # the third that committed may still
    game.reveal(1, {3: {0: 80, 1: 80}})
    assert game.contract.phase() == Phase.SETTLE


def test_abandoning_waits_for_the_longest_window_there_may_be(bank: Bank) -> None:
    game = windows(bank, 2)
    game.submit(1, [0])
    game.wait_out("submit", "commit", "reveal")
    with pytest.raises(ContractRevert, match="TooEarly"):
        game.contract.abandon(game.accounts[1])
    game.wait_out("submit", "commit", "reveal", "setup")
    game.contract.abandon(game.accounts[1])
    assert game.contract.phase() == Phase.ENDED


# -- who is judged --------------------------------------------------------------------------------------------------


def test_who_submits_nothing_is_untouched(bank: Bank) -> None:
    game = windows(bank, 4)
    game.submit(1)
    grade(game, 1, all_grades(range(4)))
    before = node(game, 3)
    assert before == (8000, 0, 0, 8000, True)
    for round_ in (2, 3):
        game.submit(round_, range(3))
        to_window_end(game)
        grade(game, round_, all_grades(range(3), 90))
        found = game.contract.settlement(round_)
        assert found is not None
        assert (found.strong, found.scores[3], found.asymmetry[3], found.reputation[3]) == (True, None, None, 8000)
        assert (found.low, found.flagged, found.excluded) == (set(), set(), set())
        assert node(game, 3) == before
    assert node(game, 0)[3] > before[3]


def test_who_grades_without_a_model_has_its_say_and_earns_nothing(bank: Bank) -> None:
    game = windows(bank, 4)
    game.submit(1)
    grade(game, 1, all_grades(range(4)))
    before = node(game, 3)
    game.submit(2, [0, 1])
    to_window_end(game)
    # 2 and 3 agree on what they see, against the two that praise each other.
    grade(game, 2, {2: {0: 30, 1: 70}, 3: {0: 30, 1: 70}, 0: {1: 100}, 1: {0: 100}})
    found = game.contract.settlement(2)
    assert found is not None
    assert found.scores == (30, 70, None, None)
    assert found.asymmetry == (0, 0, None, None)
    assert node(game, 3) == before
    assert node(game, 1)[3] == before[3] + found.reputation[1]


def test_who_hides_its_grades_is_judged_as_zero(bank: Bank) -> None:
    """Whether it submitted or not; its score, and what its model was worth, count no more."""
    game = windows(bank, 5)
    game.submit(1)
    grade(game, 1, all_grades(range(5)))
    game.submit(2, [0, 1, 2])
    to_window_end(game)
    grade(game, 2, {i: {j: 80 for j in range(3) if j != i} for i in (3, 4, 0, 1, 2)}, hidden=(2, 3))
    found = game.contract.settlement(2)
    assert found is not None
    assert (found.strong, found.scores) == (True, (80, 80, 80, None, None))
    assert found.reputation == (8000, 8000, 5600, 5600, 8000)
    assert [node(game, i)[2:4] for i in range(5)] == [(0, 16_000)] * 2 + [(0, 8000)] * 3


def test_one_grader_alone_condemns_nobody(bank: Bank) -> None:
    game = windows(bank, 4, quorum=3)
    game.submit(1)
    grade(game, 1, all_grades(range(4)))
    before = [node(game, i) for i in range(4)]
    game.submit(2, range(3))
    to_window_end(game)
    # Node 2 hides its grades: that is judged, all else is not.
    game.commit(2, {0: {1: 0, 2: 0}, 1: {0: 80, 2: 80}, 2: {0: 0, 1: 0}})
    game.reveal(2, {0: {1: 0, 2: 0}, 1: {0: 80, 2: 80}})
    game.wait(600)
    game.settle(2)
    found = game.contract.settlement(2)
    assert found is not None
    assert (found.strong, found.scores) == (False, (80, 0, 80, None))
    assert (found.low, found.flagged, found.excluded) == (set(), set(), set())
    after = [node(game, i) for i in range(4)]
    assert after[2] == (5600, 0, 0, 8000, True)
    assert [after[i] for i in (0, 1, 3)] == [before[i] for i in (0, 1, 3)]


def test_a_quorum_is_never_more_than_all(bank: Bank) -> None:
    game = windows(bank, 2, quorum=9)
    game.submit(1)
    grade(game, 1, {0: {1: 60}, 1: {0: 70}})
    found = game.contract.settlement(1)
    assert found is not None
    assert (found.strong, found.reputation) == (True, (7000, 6000))


def test_a_lone_node_goes_on_where_it_reveals(bank: Bank) -> None:
    game = windows(bank, 1, quorum=3)
    game.submit(1)
    grade(game, 1, {0: {}})
    assert node(game, 0) == (10_000, 0, 0, 10_000, True)
    game.submit(2)
    game.wait(200)  # nothing is committed to: the round is over, and nobody judged
    game.settle(2)
    assert node(game, 0) == (10_000, 0, 0, 10_000, True)
    found = game.contract.settlement(2)
    assert found is not None
    assert (found.strong, found.scores) == (False, (100,))


def test_who_is_low_is_told_and_counted_only_where_it_is_judged(bank: Bank) -> None:
    game = windows(bank, 4, 5, low_in_a_row=2, asymmetry=100)
    game.submit(1)
    grade(game, 1, all_grades(range(4), n3=5))
    assert node(game, 3)[:2] == (500, 1)
    for round_ in (2, 3):
        game.submit(round_, range(3))
        to_window_end(game)
        grade(game, round_, all_grades(range(3)))
        found = game.contract.settlement(round_)
        assert found is not None
        # It weighs nothing in what comes next, and its count stands still.
        assert (found.strong, found.low, found.flagged, found.excluded) == (True, {3}, {3}, set())
        assert found.weights()[3] == 0
        assert node(game, 3)[:2] == (500, 1)
    game.submit(4)
    grade(game, 4, all_grades(range(4), n3=5))
    assert game.contract.active(5) == {0, 1, 2}


def test_scores_of_zero_in_a_row_are_counted_over_windows_with_a_quorum(bank: Bank) -> None:
    game = windows(bank, 4, 5, quorum=3, hard_in_a_row=2, strong_early=100, strong_late=100)
    bad = all_grades(range(4), n3=0)
    game.submit(1)
    grade(game, 1, bad)
    assert node(game, 3)[2] == 1
    game.submit(2)
    game.commit(2, {i: bad[i] for i in (0, 1)})
    game.wait(200)
    game.reveal(2, {i: bad[i] for i in (0, 1)})
    game.settle(2)
    assert node(game, 3)[2] == 1
    game.submit(3)
    grade(game, 3, bad)
    assert game.contract.active(4) == {0, 1, 2}


def test_late_nodes_are_scored_when_they_submit(bank: Bank) -> None:
    """In the first window two of four take part; the others are newcomers until their first model."""
    game = windows(bank, 4)
    game.submit(1, [0, 1])
    to_window_end(game)
    grade(game, 1, {2: {0: 80, 1: 80}, 0: {1: 80}, 1: {0: 80}})
    assert [node(game, i)[::4] for i in range(4)] == [(8000, True), (8000, True), (0, False), (0, False)]
    game.submit(2, [2, 3])
    to_window_end(game)
    grade(game, 2, {0: {2: 60, 3: 70}, 1: {2: 60, 3: 70}, 2: {3: 0}, 3: {2: 100}})
    assert [node(game, i)[::4] for i in range(4)] == [(8000, True), (8000, True), (6000, True), (7000, True)]


def test_there_is_no_rollback(bank: Bank) -> None:
    game = windows(bank, 2)
    game.submit(1)
    grade(game, 1, {0: {1: 60}, 1: {0: 70}})
    nonce = game.chain.nonce(game.accounts[0].address)
    with pytest.raises(LedgerError, match="is asynchronous: its models name the state that they started from"):
        game.contract.rollback(game.accounts[0], 0)
    assert game.chain.nonce(game.accounts[0].address) == nonce
    with pytest.raises(ContractRevert, match="OnlySynchronous"):
        game.raw(game.accounts[0], "rollback", 0)


# -- announcements --------------------------------------------------------------------------------------------------

TOPIC, OTHER = b"t" * 32, b"u" * 32


def test_the_first_announcement_of_a_topic_counts(bank: Bank) -> None:
    game = open_task(bank, 3)
    game.register()
    contract, (a, b, c) = game.contract, game.accounts
    assert (contract.announcements(TOPIC), contract.announced()) == ({}, [])
    first = contract.announce(c, TOPIC, model(0, 2))
    contract.announce(a, TOPIC, model(0, 0))
    contract.announce(c, OTHER, model(0, 5))
    # Past the client a node may say what it likes; the first word stands.
    game.raw(c, "announce", TOPIC, b"z" * 32, 0x70)
    found = contract.announcements(TOPIC)
    assert [(i, one.node, one.topic, one.cid) for i, one in found.items()] == [
        (2, 2, TOPIC, model(0, 2)),
        (0, 0, TOPIC, model(0, 0)),
    ]
    assert (found[2].tx, found[2].block) == (first.tx, first.block)
    assert list(contract.announcements(OTHER)) == [2]
    assert len(contract.announced()) == 4
    # Saying it again sends nothing, saying another thing is an error.
    nonce = game.chain.nonce(c.address)
    assert contract.announce(c, TOPIC, model(0, 2)) == first
    with pytest.raises(LedgerError, match="is on the chain already with another digest"):
        contract.announce(c, TOPIC, model(0, 7))
    assert game.chain.nonce(c.address) == nonce
    with pytest.raises(LedgerError, match="a topic has 32 bytes"):
        contract.announce(b, b"short", model(0, 1))


def test_registered_nodes_announce_at_any_time(bank: Bank) -> None:
    game = open_task(bank, 3, rounds=2, rules=replace(QUICK, hard_in_a_row=1))
    contract, accounts = game.contract, game.accounts
    contract.register(accounts[0], key(0))
    contract.announce(accounts[0], b"1" * 32, model(0, 0))  # before the others are there
    with pytest.raises(ContractRevert, match="NotRegistered"):
        contract.announce(accounts[1], b"1" * 32, model(0, 1))
    game.agree()
    game.submit(1, [0])
    contract.announce(accounts[1], b"2" * 32, model(0, 1))
    game.submit(1, [1, 2])
    game.grade(1, all_grades(range(3), n2=0))
    before = [list(game.view("sets")), tuple(game.view("state")), game.contract.phase()]
    contract.announce(accounts[2], b"3" * 32, model(0, 2))
    assert [list(game.view("sets")), tuple(game.view("state")), game.contract.phase()] == before
    game.settle(1)
    contract.announce(accounts[2], b"4" * 32, model(0, 2))  # it is excluded by now
    assert contract.active(2) == {0, 1}
    game.submit(2, [0, 1])
    game.grade(2, all_grades(range(2)))
    game.settle(2)
    assert contract.phase() == Phase.ENDED
    contract.announce(accounts[0], b"5" * 32, model(0, 0))
    assert [(one.node, one.topic[:1]) for one in contract.announced()] == [
        (0, b"1"), (1, b"2"), (2, b"3"), (2, b"4"), (0, b"5"),
    ]  # fmt: skip


def test_an_asynchronous_task_comes_to_the_same_when_its_calls_are_repeated(bank: Bank) -> None:
    game = windows(bank, 2, 1)
    receipt = game.contract.submit(game.accounts[0], 1, model(1, 0), METRICS, signature=SIGNATURE)
    assert game.contract.submit(game.accounts[0], 1, model(1, 0), METRICS, signature=SIGNATURE) == receipt
    to_window_end(game)
    for _ in range(2):
        game.commit(1, {1: {0: 80}, 0: {}})
    for _ in range(2):
        game.reveal(1, {1: {0: 80}, 0: {}})
    assert game.settle(1) == game.settle(1)
    assert game.contract.phase() == Phase.ENDED
