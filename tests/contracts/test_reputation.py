"""Reputation computed on the chain against a model of it here."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.contracts.conftest import Bank, open_task


def lower_median(grades: list[int], weights: list[int]) -> int:
    """The first grade, in order, at which half of the weight is reached; equal weights where all are zero."""
    if not grades:
        return 100
    if not sum(weights):
        weights = [1] * len(grades)
    reached = 0
    for grade, weight in sorted(zip(grades, weights, strict=True)):
        reached += weight
        if 2 * reached >= sum(weights):
            return grade
    raise AssertionError


def settle(reputation: list[int] | None, grades: list[list[int]]) -> list[int]:
    """Reputation after one more round; `grades[i][j]` from i to j, None before for the first."""
    n = len(grades)
    out = []
    for j in range(n):
        graders = [i for i in range(n) if i != j]
        weights = [1 if reputation is None else reputation[i] for i in graders]
        score = lower_median([grades[i][j] for i in graders], weights)
        out.append(100 * score if reputation is None else (70 * reputation[j] + 30 * 100 * score) // 100)
    return out


# Zeros and hundreds often: that is where weights vanish and medians tie.
a_grade = st.one_of(st.sampled_from([0, 1, 50, 99, 100]), st.integers(0, 100))


@st.composite
def histories(draw: st.DrawFn) -> list[list[list[int]]]:
    nodes, rounds = draw(st.integers(1, 5)), draw(st.integers(1, 3))
    square = st.lists(st.lists(a_grade, min_size=nodes, max_size=nodes), min_size=nodes, max_size=nodes)
    return draw(st.lists(square, min_size=rounds, max_size=rounds))


def play(bank: Bank, history: list[list[list[int]]]) -> None:
    nodes = len(history[0])
    game = open_task(bank, nodes, rounds=len(history))
    game.agree()
    expected = None
    for round_, grades in enumerate(history, 1):
        game.submit(round_)
        game.grade(round_, {i: {j: g for j, g in enumerate(row) if j != i} for i, row in enumerate(grades)})
        game.contract.settle(game.accounts[-1], round_)
        expected = settle(expected, grades)
        assert game.contract.reputation_after(round_) == expected
    assert game.contract.reputation() == expected


@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(histories())
def test_the_chain_computes_the_same(embedded_bank: Bank, history: list[list[list[int]]]) -> None:
    play(embedded_bank, history)


def test_where_no_grader_has_weight_all_weigh_the_same(bank: Bank) -> None:
    nobody = [[0] * 4 for _ in range(4)]
    some = [[0, 10, 20, 30], [40, 0, 50, 60], [70, 80, 0, 90], [100, 1, 2, 0]]
    play(bank, [nobody, some])


def test_half_of_the_weight_is_enough(bank: Bank) -> None:
    """Lower median: with two graders of the same weight the smaller grade counts."""
    play(bank, [[[0, 7, 9], [5, 0, 3], [11, 13, 0]]])
    assert lower_median([9, 3], [1, 1]) == 3


def test_a_lone_node_scores_full(bank: Bank) -> None:
    play(bank, [[[0]], [[0]]])
    assert settle(settle(None, [[0]]), [[0]]) == [10_000]
