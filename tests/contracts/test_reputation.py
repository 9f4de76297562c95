"""The settlement: the contract against contracts/reputation.py, and that against medians by brute force."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from contracts.reputation import Rules, Settlement, Standing, settle, weighted_median
from tests.contracts.conftest import QUICK, Bank, Play, all_grades, open_task

Row = dict[int, int]
GENERATE = (Phase.explicit, Phase.generate)
"""An example takes seconds on the chain: what fails is shown as it was found."""

# Zeros and hundreds often: that is where weights vanish and medians tie.
a_grade = st.one_of(st.sampled_from([0, 1, 35, 50, 70, 99, 100]), st.integers(0, 100))


def brute_median(pairs: Sequence[tuple[int, int]], *, upper: bool = False) -> int | None:
    """By its definition, a value at a time."""
    if not pairs:
        return None
    if sum(weight for _, weight in pairs) == 0:
        pairs = [(value, 1) for value, _ in pairs]
    total = sum(weight for _, weight in pairs) + upper  # integers: more than half is at least half of one more
    return min(v for v, _ in pairs if 2 * sum(w for u, w in pairs if u <= v) >= total)


@given(st.lists(st.tuples(a_grade, st.one_of(st.just(0), st.integers(0, 10_000))), max_size=12), st.booleans())
def test_the_median_is_the_one_of_its_definition(pairs: list[tuple[int, int]], upper: bool) -> None:
    assert weighted_median(((v, w, True) for v, w in pairs), upper=upper) == brute_median(pairs, upper=upper)


def test_half_of_the_weight() -> None:
    assert weighted_median([(9, 1, True), (3, 1, True)]) == 3
    assert weighted_median([(9, 1, True), (3, 1, True)], upper=True) == 9
    assert weighted_median([(9, 2, True), (3, 1, True)]) == 9
    assert weighted_median([(9, 0, True), (3, 0, True), (5, 0, True)]) == 5
    assert weighted_median([(9, 0, True), (3, 0, False), (5, 0, False)]) == 9
    assert weighted_median([(3, 0, False)]) is None
    assert weighted_median([]) is None


def hostile_majority(n: int, hostile: int, rounds: int = 4) -> tuple[set[int], int]:
    """Hostile nodes give 0 to all others and 100 to each other, honest ones 90 and 10: who is out, what they earn."""
    bad = set(range(hostile))
    standings, active = [Standing()] * n, set(range(n))
    for number in range(1, rounds + 1):
        grades = {
            i: {j: (100 if j in bad else 0) if i in bad else (10 if j in bad else 90) for j in active if j != i}
            for i in active
        }
        found = settle(Rules(), number, standings, active=active, submitted=active, grades=grades)
        standings, active = list(found.standings), active - found.excluded
    return set(range(n)) - active, sum(standings[i].credits for i in bad)


@pytest.mark.parametrize(("n", "hostile"), [(3, 1), (4, 1), (5, 1), (5, 2), (7, 3), (9, 4), (10, 4)])
def test_a_minority_that_grades_all_others_zero_excludes_nobody_but_itself(n: int, hostile: int) -> None:
    assert hostile_majority(n, hostile) == (set(range(hostile)), 0)


def test_newcomers_neither_judge_nor_shift_what_is_usual() -> None:
    before = [Standing(reputation=8000, scored=True)] * 4 + [Standing()] * 5
    praise = {i: {j: 30 if (i < 4) != (j < 4) or j >= 4 else 80 for j in range(9) if j != i} for i in range(9)}
    found = settle(Rules(), 5, before, active=range(9), submitted=range(9), grades=praise)
    assert found.strong
    assert found.scores[:4] == (80, 80, 80, 80)
    # Also where the others have lost all their reputation: in round 1 nobody came.
    gone = settle(Rules(), 1, [Standing()] * 3, active=range(3), submitted=(), grades={}).standings
    assert [s.reputation for s in gone] == [0, 0, 0]
    everybody = {i: {j: 0 if i >= 3 and j < 3 else 90 for j in range(7) if j != i} for i in range(7)}
    found = settle(Rules(), 2, [*gone, *[Standing()] * 4], active=range(7), submitted=range(7), grades=everybody)
    assert found.scores[:3] == (90, 90, 90)


def test_who_never_comes_is_excluded_in_time() -> None:
    rules, standings, active = Rules(), [Standing()] * 4, set(range(4))
    for number in range(1, 6):
        present = active - {3}
        grades = {i: {j: 90 for j in present if j != i} for i in present}
        found = settle(rules, number, standings, active=active, submitted=present, grades=grades)
        standings, active = list(found.standings), active - found.excluded
    assert active == {0, 1, 2}


@dataclass(frozen=True)
class Round:
    """What happens in a round: who submits, who of them reveals, and the whole square of grades.

    `committed` is of an asynchronous task, where anybody may grade: who binds itself to grades.
    """

    submitted: frozenset[int]
    revealed: frozenset[int]
    square: tuple[tuple[int, ...], ...]
    committed: frozenset[int] = frozenset()

    def grades(self) -> dict[int, Row]:
        return {i: {j: self.square[i][j] for j in self.submitted - {i}} for i in sorted(self.revealed)}


@st.composite
def histories(draw: st.DrawFn, most: int = 12, *, windows: bool = False) -> tuple[Rules, int, list[Round]]:
    n = draw(st.integers(1, most))
    rules = Rules(
        QUICK.submit_seconds,
        QUICK.commit_seconds,
        QUICK.reveal_seconds,
        QUICK.setup_seconds,
        warn=draw(st.integers(0, 100)),
        low_early=draw(st.integers(0, 100)),
        low_late=draw(st.integers(0, 100)),
        early=draw(st.integers(0, 3)),
        strong_early=draw(st.sampled_from([0, 35, 60, 100])),
        strong_late=draw(st.sampled_from([0, 35, 60, 100])),
        asymmetry=draw(st.sampled_from([0, 35, 100])),
        keep=draw(st.integers(0, 100)),
        low_in_a_row=draw(st.integers(1, 3)),
        hard_in_a_row=draw(st.integers(1, 3)),
        window_seconds=draw(st.sampled_from([1, 400, QUICK.submit_seconds])) if windows else 0,
        quorum=draw(st.integers(1, 4)) if windows else 0,
    )
    everybody = st.just(frozenset(range(n)))
    some = st.one_of(everybody, everybody, st.frozensets(st.integers(0, n - 1)))
    rounds = []
    for _ in range(draw(st.integers(1, 3))):
        submitted = draw(some)
        # As from one distribution, or apart from each other.
        grade = draw(st.sampled_from([a_grade, st.integers(60, 95)]))
        square = draw(st.lists(st.lists(grade, min_size=n, max_size=n).map(tuple), min_size=n, max_size=n))
        graders = draw(some) if windows else submitted
        rounds.append(Round(submitted, graders & draw(some), tuple(square), graders))
    return rules, n, rounds


@given(histories(), st.data())
def test_scores_and_asymmetry_are_those_of_the_formula(
    history: tuple[Rules, int, list[Round]], data: st.DataObject
) -> None:
    rules, n, (first, *_) = history
    reputations = data.draw(st.lists(st.integers(0, 10_000), min_size=n, max_size=n))
    standings = [Standing(reputation=r, scored=True) for r in reputations]
    grades = first.grades()
    found = settle(rules, 2, standings, active=range(n), submitted=first.submitted, grades=grades)
    for j in range(n):
        given_to = [(grades[i][j], reputations[i]) for i in grades if i != j and j in first.submitted]
        assert found.scores[j] == (100 if n == 1 and j in first.submitted else brute_median(given_to, upper=True))
        apart = [(abs(grades[j][i] - grades[i][j]), reputations[i]) for i in grades if i != j and j in grades]
        assert found.asymmetry[j] == brute_median(apart)
    known = [(score, 1) for score in found.scores if score is not None]
    bound = rules.strong_early if rules.early >= 2 else rules.strong_late
    assert found.strong == (bool(known) and (brute_median(known) or 0) >= bound)
    for now in found.standings:
        assert 0 <= now.reputation <= 10_000
        assert not now.excluded or now.reputation == now.credits == 0


@given(histories(windows=True), st.data())
def test_who_is_not_judged_stays_as_it_was(history: tuple[Rules, int, list[Round]], data: st.DataObject) -> None:
    rules, n, (first, *_) = history
    a_standing = st.builds(
        Standing,
        reputation=st.integers(0, 10_000),
        low=st.integers(0, rules.low_in_a_row - 1),
        hard=st.integers(0, rules.hard_in_a_row - 1),
        scored=st.just(True),
        credits=st.integers(0, 10**6),
    )
    standings = data.draw(st.lists(st.one_of(a_standing, st.just(Standing())), min_size=n, max_size=n))
    active, submitted, grades = frozenset(range(n)), first.submitted, first.grades()
    found = settle(rules, 4, standings, active=active, submitted=submitted, grades=grades, committed=first.committed)
    enough = len(grades) >= min(rules.quorum, n)
    hidden = first.committed - first.revealed
    for i, (old, new) in enumerate(zip(standings, found.standings, strict=True)):
        if i not in hidden and not (enough and i in submitted):
            assert new == old
        if i in hidden and i not in found.excluded:
            assert new.reputation == (rules.keep * old.reputation // 100 if old.scored else 0)
        if i not in first.revealed or i not in submitted or not enough:
            assert new.credits in (old.credits, 0)
            assert found.asymmetry[i] is None or i in first.revealed & submitted
    if not enough:
        assert not found.strong
        assert all(new.hard == old.hard for old, new in zip(standings, found.standings, strict=True))


def play(game: Play, rounds: Sequence[Round]) -> list[Settlement]:
    """Play a history on the chain; what the rules say of each of its rounds, which the chain has said too."""
    n = len(game.accounts)
    game.agree()
    standings, told = [Standing()] * n, []
    for number, now in enumerate(rounds, 1):
        if not (active := {i for i in range(n) if not standings[i].excluded}):
            break
        submitted = now.submitted & active
        played = Round(submitted, now.revealed & active, now.square)
        game.submit(number, sorted(submitted))
        if submitted != active:
            game.wait_out("submit")
        # Of those who do not reveal, some have committed.
        hidden = {i: dict.fromkeys(submitted - {i}, 50) for i in submitted - played.revealed if i % 2}
        game.commit(number, {**played.grades(), **hidden})
        if submitted - played.revealed - hidden.keys():
            game.wait_out("submit", "commit")
        game.reveal(number, played.grades())
        if hidden:
            game.wait_out("submit", "commit", "reveal")
        game.settle(number)
        expected = settle(
            game.spec.rules, number, standings, active=active, submitted=submitted, grades=played.grades()
        )
        standings = list(said_by_the_chain(game, number, expected).standings)
        told.append(expected)
    return told


def play_windows(game: Play, rounds: Sequence[Round]) -> list[Settlement]:
    """The same of an asynchronous task."""
    n, rules = len(game.accounts), game.spec.rules
    game.agree()
    standings, told = [Standing()] * n, []
    for number, now in enumerate(rounds, 1):
        if not (active := {i for i in range(n) if not standings[i].excluded}):
            break
        submitted = now.submitted & active
        committed = now.committed & active if submitted else frozenset()
        played = Round(submitted, now.revealed & committed, now.square)
        if rules.window_seconds == 1:
            game.wait(1)  # the first submission comes after the window, and is the only one
            submitted = frozenset(sorted(submitted)[:1])
            played = Round(submitted, played.revealed, now.square)
        game.submit(number, sorted(submitted))
        if submitted != active:
            game.wait(rules.window_seconds if submitted else rules.submit_seconds)
        rows = Round(submitted, committed, now.square).grades()
        # Once all that submitted have committed, nobody else may.
        game.commit(number, {i: rows[i] for i in [*sorted(committed - submitted), *sorted(committed & submitted)]})
        if submitted - committed:
            game.wait(rules.commit_seconds)
        game.reveal(number, played.grades())
        if committed - played.revealed:
            game.wait(rules.commit_seconds + rules.reveal_seconds)
        game.settle(number)
        expected = settle(
            rules, number, standings, active=active, submitted=submitted, grades=played.grades(), committed=committed
        )
        standings = list(said_by_the_chain(game, number, expected).standings)
        told.append(expected)
    return told


def said_by_the_chain(game: Play, number: int, expected: Settlement) -> Settlement:
    """What the rules say of a round, and the chain has said too."""
    found = game.contract.settlement(number)
    assert found is not None
    assert (found.scores, found.asymmetry, found.strong) == (expected.scores, expected.asymmetry, expected.strong)
    assert found.reputation == tuple(s.reputation for s in expected.standings)
    assert (found.low, found.flagged, found.excluded) == (expected.low, expected.flagged, expected.excluded)
    assert [tuple(node)[1:] for node in game.view("nodes")] == [
        (s.reputation, s.low, s.hard, s.credits, s.scored) for s in expected.standings
    ]
    assert {n.index for n in game.contract.nodes() if n.excluded} == {
        i for i, s in enumerate(expected.standings) if s.excluded
    }
    return expected


@settings(max_examples=6, deadline=None, derandomize=True, phases=GENERATE, suppress_health_check=list(HealthCheck))
@given(histories())
def test_the_chain_settles_the_same(embedded_bank: Bank, history: tuple[Rules, int, list[Round]]) -> None:
    rules, n, rounds = history
    play(open_task(embedded_bank, n, rounds=len(rounds), rules=rules), rounds)


@pytest.mark.slow
@settings(max_examples=40, deadline=None, derandomize=True, phases=GENERATE, suppress_health_check=list(HealthCheck))
@given(histories())
def test_the_chain_settles_the_same_more_often(embedded_bank: Bank, history: tuple[Rules, int, list[Round]]) -> None:
    rules, n, rounds = history
    play(open_task(embedded_bank, n, rounds=len(rounds), rules=rules), rounds)


@settings(max_examples=6, deadline=None, derandomize=True, phases=GENERATE, suppress_health_check=list(HealthCheck))
@given(histories(windows=True))
def test_the_chain_settles_windows_the_same(embedded_bank: Bank, history: tuple[Rules, int, list[Round]]) -> None:
    rules, n, rounds = history
    play_windows(open_task(embedded_bank, n, rounds=len(rounds), rules=rules), rounds)


@pytest.mark.slow
@settings(max_examples=40, deadline=None, derandomize=True, phases=GENERATE, suppress_health_check=list(HealthCheck))
@given(histories(windows=True))
def test_the_chain_settles_windows_the_same_more_often(
    embedded_bank: Bank, history: tuple[Rules, int, list[Round]]
) -> None:
    rules, n, rounds = history
    play_windows(open_task(embedded_bank, n, rounds=len(rounds), rules=rules), rounds)


def everybody(square: Sequence[Sequence[int]]) -> Round:
    nodes = frozenset(range(len(square)))
    return Round(nodes, nodes, tuple(tuple(row) for row in square))


def test_where_no_grader_has_weight_all_weigh_the_same(bank: Bank) -> None:
    nobody = [[0] * 4 for _ in range(4)]
    some = [[0, 10, 20, 30], [40, 0, 50, 60], [70, 80, 0, 90], [100, 1, 2, 0]]
    _, told = play(open_task(bank, 4), [everybody(nobody), everybody(some)])
    assert told.scores == (70, 10, 20, 60)


def test_a_lone_node_scores_full(bank: Bank) -> None:
    told = play(open_task(bank, 1), [everybody([[0]]), everybody([[0]])])
    assert [t.standings[0].reputation for t in told] == [10_000, 10_000]


def test_who_is_low_in_strong_settlements_in_a_row_is_excluded(bank: Bank) -> None:
    game = open_task(bank, 4, rounds=4)
    good = all_grades(range(4), n3=5)
    square = everybody([[good[i].get(j, 0) for j in range(4)] for i in range(4)])
    # Node 3 gives others what they give it, so that it is not apart from them: they grade it low, that is all.
    first, second, third = play(game, [square] * 3)
    assert (first.low, first.flagged, first.excluded) == ({3}, {3}, set())
    assert second.excluded == {3}
    assert third.weights()[3] == 0
    assert game.contract.active(3) == {0, 1, 2}


def test_a_weak_settlement_freezes_who_took_part(bank: Bank) -> None:
    """Grades that do not agree on anything move no reputation, except of who was absent, hid its grades or scored 0."""
    game = open_task(bank, 6, rounds=2, rules=Rules(1000, 200, 300, 4000, strong_early=60))
    fine, poor = all_grades(range(6), 90), all_grades(range(6), 50, n5=0)
    square = [[fine[i].get(j, 0) for j in range(6)] for i in range(6)]
    weak = [[poor[i].get(j, 0) for j in range(6)] for i in range(6)]
    nodes = frozenset(range(6))
    second = Round(nodes - {3}, nodes - {3, 4}, tuple(map(tuple, weak)))
    _, told = play(game, [everybody(square), second])
    assert not told.strong
    assert [s.reputation for s in told.standings] == [9000, 9000, 9000, 6300, 6300, 6300]
    assert told.scores == (50, 50, 50, None, 50, 0)
    assert [s.low for s in told.standings] == [0] * 6


def test_scores_of_zero_in_a_row_exclude_even_where_settlements_are_weak(bank: Bank) -> None:
    rules = Rules(1000, 200, 300, 4000, strong_early=100, strong_late=100)
    game = open_task(bank, 4, rounds=4, rules=rules)
    grades = all_grades(range(4), n3=0)
    told = play(game, [everybody([[grades[i].get(j, 0) for j in range(4)] for i in range(4)])] * 3)
    assert [t.strong for t in told] == [False] * 3
    assert [t.excluded for t in told] == [set(), set(), {3}]


def test_a_node_that_is_absent_loses_and_comes_back(bank: Bank) -> None:
    game = open_task(bank, 4, rounds=3)
    square, nodes = tuple([(80,) * 4] * 4), frozenset(range(4))
    told = play(
        game, [Round(nodes, nodes, square), Round(nodes - {2}, nodes - {2}, square), Round(nodes, nodes, square)]
    )
    assert [t.standings[2].reputation for t in told] == [8000, 5600, 6320]
    assert told[1].scores[2] is None
    # Who was not there earns nothing for the round.
    assert [t.standings[2].credits for t in told] == [8000, 8000, 14_320]


def test_a_round_that_nobody_submitted_to_is_settled_too(bank: Bank) -> None:
    game = open_task(bank, 3, rounds=2)
    nobody = Round(frozenset(), frozenset(), tuple([(0,) * 3] * 3))
    first, second = play(game, [nobody, everybody([(80,) * 3] * 3)])
    assert not first.strong
    assert [(s.scored, s.reputation) for s in first.standings] == [(True, 0)] * 3
    assert [s.reputation for s in second.standings] == [30 * 8000 // 100] * 3


def test_nobody_has_more_say_than_others_before_a_quorum_was_scored() -> None:
    """Two liars were scored first, with one honest node; what they say of a fourth is not yet all that counts."""
    rules = replace(QUICK, window_seconds=400, quorum=4)
    early = Standing(reputation=10_000, scored=True)
    grades = {i: {3: 0 if i < 2 else 90} for i in range(6) if i != 3}
    of_three, of_four = [early] * 3 + [Standing()] * 3, [early] * 3 + [Standing(), early, Standing()]

    def score(quorum: int, standings: list[Standing]) -> int | None:
        now = replace(rules, quorum=quorum)
        return settle(now, 2, standings, active=range(6), submitted={3}, grades=grades).scores[3]

    assert score(4, of_three) == 90
    assert score(4, of_four) == 90  # two of four are no majority
    assert score(3, of_three) == 0
