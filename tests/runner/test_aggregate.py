"""Aggregation: exact, indifferent to order, within bounds; one outlier moves neither median, trimmed mean nor Krum."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.aggregate import MAX_WEIGHT_SUM, METHODS, aggregate, join, krum
from runner.update import LIMIT, Blocks, UpdateError

PARAMETERS = 5


@st.composite
def federations(draw: st.DrawFn, least: int = 1) -> tuple[list[Blocks], list[int]]:
    count = draw(st.integers(least, 12))
    value = st.integers(-LIMIT, LIMIT)
    rows = [draw(st.lists(value, min_size=PARAMETERS, max_size=PARAMETERS)) for _ in range(count)]
    weights = draw(st.lists(st.integers(1, 10_000), min_size=count, max_size=count))
    return [blocks(row) for row in rows], weights


def blocks(row: list[int]) -> Blocks:
    values = np.array(row, dtype=np.int64)
    return {"b": values[:2].reshape(2, 1), "a": values[2:]}


def flat(model: Blocks) -> np.ndarray:
    return np.concatenate([model["b"].reshape(-1), model["a"]])


@given(federations(), st.sampled_from(METHODS), st.sampled_from([0.0, 0.2, 0.3, 0.49]), st.randoms())
def test_the_order_of_the_models_does_not_matter(
    given_: tuple[list[Blocks], list[int]], method: str, share: float, random: object
) -> None:
    models, weights = given_
    order = list(range(len(models)))
    random.shuffle(order)  # type: ignore[attr-defined]
    one = join(method, models, weights, share)
    two = join(method, [models[i] for i in order], [weights[i] for i in order], share)
    assert flat(one).tolist() == flat(two).tolist()


@given(federations(), st.sampled_from(METHODS), st.sampled_from([0.0, 0.3, 0.49]))
def test_every_coordinate_stays_between_the_least_and_the_greatest(
    given_: tuple[list[Blocks], list[int]], method: str, share: float
) -> None:
    models, weights = given_
    stack = np.stack([flat(m) for m in models])
    out = flat(join(method, models, weights, share))
    assert (out >= stack.min(0)).all()
    assert (out <= stack.max(0)).all()


@given(federations(), st.sampled_from([0.0, 0.1, 0.3, 0.45]))
def test_the_same_as_numpy_in_floats_within_rounding(given_: tuple[list[Blocks], list[int]], share: float) -> None:
    models, weights = given_
    stack = np.stack([flat(m) for m in models]).astype(np.float64)
    n = len(models)
    trim = int(share * n + 1e-9)
    expected = {
        "reputation": np.average(stack, axis=0, weights=weights),
        "mean": stack.mean(0),
        "median": np.median(stack, axis=0),
        "trimmed-mean": np.sort(stack, axis=0)[trim : n - trim].mean(0),
    }
    for method, values in expected.items():
        # Half a unit of the rounding, and what doubles lose at 2**40.
        np.testing.assert_allclose(flat(join(method, models, weights, share)), values, rtol=0, atol=0.5 + 2e-3)


@given(federations(least=4), st.integers(-LIMIT, LIMIT))
def test_krum_is_the_formula_of_its_paper(given_: tuple[list[Blocks], list[int]], shift: int) -> None:
    models, weights = given_
    n = len(models)
    hostile = min(int(0.3 * n + 1e-9), (n - 3) // 2)
    rows = [[int(v) for v in flat(m)] for m in models]

    def score(i: int) -> int:
        apart = sorted(sum((a - b) ** 2 for a, b in zip(rows[i], rows[j], strict=True)) for j in range(n) if j != i)
        return sum(apart[: max(1, n - hostile - 2)])

    chosen = flat(join("krum", models, weights, 0.3)).tolist()
    assert chosen in rows
    assert score(rows.index(chosen)) == min(score(i) for i in range(n))


@given(st.integers(0, 2**32), st.integers(5, 12), st.sampled_from([-LIMIT, LIMIT]))
def test_one_outlier_moves_neither_median_nor_trimmed_mean_nor_krum(seed: int, n: int, far: int) -> None:
    random = np.random.default_rng(seed)
    honest = [blocks(random.integers(-1000, 1000, PARAMETERS).tolist()) for _ in range(n - 1)]
    models = [*honest, blocks([far] * PARAMETERS)]
    stack = np.stack([flat(m) for m in honest])
    for method in ("median", "trimmed-mean", "krum"):
        out = flat(join(method, models, [1] * n, 0.3))
        assert (out >= stack.min(0)).all()
        assert (out <= stack.max(0)).all()
    assert krum(models, 1) < n - 1
    assert np.abs(flat(join("mean", models, [1] * n, 0.3))).max() > 10_000


def test_a_median_is_exact_and_rounds_half_up() -> None:
    models = [{"a": np.array([v])} for v in (1, 2, 5, 100)]
    assert join("median", models, [1] * 4, 0.0)["a"].tolist() == [4]  # 3.5
    assert join("median", models[:3], [1] * 3, 0.0)["a"].tolist() == [2]
    assert join("trimmed-mean", models, [1] * 4, 0.3)["a"].tolist() == [4]
    assert join("trimmed-mean", models, [1] * 4, 0.2)["a"].tolist() == [27]


def test_the_hostile_share_is_taken_as_it_is_written() -> None:
    models = [{"a": np.array([v])} for v in range(100)]
    models[71:] = [{"a": np.array([LIMIT])}] * 29
    # 0.29 * 100 is 28.999... in floats: one hostile value would be left.
    assert join("trimmed-mean", models, [1] * 100, 0.29)["a"].tolist() == [50]


def test_the_largest_task_does_not_overflow() -> None:
    models = [{"a": np.array([LIMIT, -LIMIT])}] * 255
    assert aggregate(models, [10_000] * 255)["a"].tolist() == [LIMIT, -LIMIT]
    with pytest.raises(UpdateError, match="cannot aggregate"):
        aggregate(models, [MAX_WEIGHT_SUM] + [1] * 254)


def test_what_cannot_be_joined_is_refused() -> None:
    one, other = {"a": np.array([1])}, {"a": np.array([1, 2])}
    for method in METHODS:
        with pytest.raises(UpdateError, match="different shapes"):
            join(method, [one, other], [1, 1], 0.3)
        with pytest.raises(UpdateError, match="cannot join 0"):
            join(method, [], [], 0.3)
    with pytest.raises(UpdateError, match="unknown aggregation 'bulyan'"):
        join("bulyan", [one], [1], 0.3)
    with pytest.raises(UpdateError, match="hostile share"):
        join("krum", [one], [1], 0.5)
    with pytest.raises(UpdateError, match="cannot aggregate"):
        join("reputation", [one, one], [0, 0], 0.3)
