"""Ages and discounts, against fractions and decimals of many digits."""

from __future__ import annotations

from decimal import ROUND_FLOOR, Decimal, localcontext
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.ages import POWERS, age, discounted, weights

REPUTATION, AGE, POWER = st.integers(0, 10_000), st.integers(0, 100_000), st.sampled_from(POWERS)
ROUND = st.integers(0, 10_000)


def slowly(reputation: int, behind: int, power: float) -> int:
    """floor(R / (1 + t)^a) with sixty digits; a quotient that is an integer comes out as one."""
    if power != 0.5:
        return int(Fraction(reputation) / Fraction(1 + behind) ** int(power))
    with localcontext() as context:
        context.prec = 60
        exact = Decimal(reputation) / Decimal(1 + behind).sqrt()
        nearest = int(exact.to_integral_value())
        if nearest**2 * (1 + behind) == reputation**2:
            return nearest
        return int(exact.to_integral_value(rounding=ROUND_FLOOR))


@given(REPUTATION, AGE, POWER)
def test_the_discount_is_the_floor_of_the_formula(reputation: int, behind: int, power: float) -> None:
    wanted = slowly(reputation, behind, power)
    assert discounted(reputation, behind, power) == (max(1, wanted) if reputation else 0)


@given(st.integers(0, 10**30), st.integers(0, 10**12))
def test_the_root_is_exact_however_large_the_numbers(reputation: int, behind: int) -> None:
    found = discounted(reputation, behind, 0.5)
    assert found**2 * (1 + behind) <= reputation**2 or found == 1
    assert (found + 1) ** 2 * (1 + behind) > reputation**2


@given(REPUTATION, AGE, AGE, POWER)
def test_older_never_weighs_more_and_a_fresh_model_weighs_its_reputation(r: int, a: int, b: int, power: float) -> None:
    old, new = max(a, b), min(a, b)
    assert discounted(r, old, power) <= discounted(r, new, power) <= discounted(r, 0, power) == r


@given(ROUND, ROUND)
def test_ages_count_settlements_and_are_none_in_lockstep(view: int, of: int) -> None:
    found = age(view, of)
    assert found >= 0
    assert age(view + 1, view) == 0
    assert found == (view - of - 1 if view > of else 0)


def test_numbers_by_hand() -> None:
    assert [age(v, 2) for v in (0, 2, 3, 4, 7)] == [0, 0, 0, 1, 4]
    assert [discounted(10_000, t, 0.5) for t in (0, 1, 3, 8)] == [10_000, 7071, 5000, 3333]
    assert [discounted(9000, t, 1.0) for t in (0, 1, 2, 20_000)] == [9000, 4500, 3000, 1]
    assert discounted(0, 5, 1.0) == 0


@pytest.mark.parametrize("call", [(-1, 0, 0.5), (1, -1, 0.5), (1, 0, 0.3), (1, 0, -1), (1, 0, float("nan"))])
def test_what_has_no_exact_weight_is_refused(call: tuple[int, int, float]) -> None:
    with pytest.raises(ValueError, match="not"):
        discounted(*call)


def test_rounds_are_not_negative() -> None:
    with pytest.raises(ValueError, match="not -1"):
        age(3, -1)


NODES = st.dictionaries(st.integers(0, 9), st.integers(0, 30), max_size=10)


@given(st.integers(0, 30), NODES, st.dictionaries(st.integers(0, 9), REPUTATION, max_size=10), POWER)
def test_weights_are_of_who_has_reputation_or_of_all(view: int, views: Any, given_: Any, power: float) -> None:
    found = weights(view, views, given_, power)
    rich = {j for j in views if given_.get(j, 0) > 0}
    assert set(found) == (rich or set(views))
    assert list(found) == sorted(found)
    for j, weight in found.items():
        assert weight == discounted(given_[j] if rich else 1, age(view, views[j]), power)
        assert weight >= 1


def test_weights_by_hand() -> None:
    assert weights(5, {2: 4, 0: 1, 7: 4}, {0: 9000, 2: 8000, 7: 0}, 0.5) == {0: 4500, 2: 8000}
    assert weights(5, {2: 4, 0: 1}, {}, 1.0) == {0: 1, 2: 1}
