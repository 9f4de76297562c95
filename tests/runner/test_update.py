"""Published models: canonical bytes, exact aggregation, hostile input."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.update import (
    LIMIT,
    MAX_WEIGHT_SUM,
    SCALE_BITS,
    Input,
    Update,
    UpdateError,
    aggregate,
    dequantise,
    parse_update,
    quantise,
)

CID = "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"
values = st.integers(-LIMIT, LIMIT)


def update(blocks: dict[str, np.ndarray], inputs: tuple[Input, ...] = (Input(CID, 3),)) -> Update:
    return Update("ab" * 32, CID, 2, 1, blocks, inputs)


@given(st.lists(values, min_size=6, max_size=6), st.lists(values, min_size=1, max_size=4))
def test_a_model_comes_back_as_it_was(first: list[int], second: list[int]) -> None:
    blocks = {"generator": np.array(second), "discriminator.0.weight": np.array(first).reshape(2, 3)}
    data = update(blocks).to_bytes()
    back = parse_update(data, {k: v.shape for k, v in blocks.items()})
    assert back.inputs == (Input(CID, 3),)
    assert (back.round, back.node) == (2, 1)
    for name, block in blocks.items():
        np.testing.assert_array_equal(back.blocks[name], block)
    assert back.to_bytes() == data


def test_block_order_does_not_change_the_bytes() -> None:
    a, b = np.array([1, 2]), np.array([3])
    assert update({"a": a, "b": b}).to_bytes() == update({"b": b, "a": a}).to_bytes()


@given(st.lists(st.floats(-60_000, 60_000), min_size=1, max_size=8))
def test_fixed_point_is_within_half_a_step(parameters: list[float]) -> None:
    p = np.array(parameters)
    back = dequantise(quantise({"x": p}))["x"]
    assert np.abs(back - p).max() <= 2.0 ** -(SCALE_BITS + 1)


@given(st.lists(st.tuples(st.lists(values, min_size=3, max_size=3), st.integers(0, 10_000)), min_size=1, max_size=50))
def test_aggregation_is_the_exact_weighted_mean(models: list[tuple[list[int], int]]) -> None:
    weights = [w for _, w in models]
    if sum(weights) == 0:
        weights[0] = 1
    got = aggregate([{"x": np.array(v)} for v, _ in models], weights)["x"]
    for k in range(3):
        exact = Fraction(sum(w * v[k] for w, (v, _) in zip(weights, models, strict=True)), sum(weights))
        rounded = (exact + Fraction(1, 2)).__floor__()
        assert int(got[k]) == rounded


def test_aggregation_does_not_overflow_at_its_limits() -> None:
    top = {"x": np.array([LIMIT, -LIMIT])}
    got = aggregate([top, top], [MAX_WEIGHT_SUM // 2, MAX_WEIGHT_SUM // 2])["x"]
    np.testing.assert_array_equal(got, [LIMIT, -LIMIT])


@pytest.mark.parametrize("weights", [[0, 0], [-1, 2], [MAX_WEIGHT_SUM, 1], [1]])
def test_weights_that_make_no_mean_are_refused(weights: list[int]) -> None:
    model = {"x": np.array([1])}
    with pytest.raises(UpdateError, match="cannot aggregate"):
        aggregate([model, model], weights)


def test_models_of_different_shapes_are_refused() -> None:
    with pytest.raises(UpdateError, match="different shapes"):
        aggregate([{"x": np.array([1])}, {"x": np.array([1, 2])}], [1, 1])


@pytest.mark.parametrize("bad", [np.nan, np.inf, 65_537.0])
def test_a_diverged_model_is_not_published(bad: float) -> None:
    with pytest.raises(UpdateError, match="diverged"):
        quantise({"x": np.array([0.0, bad])})


def damaged(change: str) -> bytes:
    body = json.loads(update({"generator": np.array([1, 2, 3])}).to_bytes())
    match change:
        case "float":
            body["blocks"]["generator"]["values"][0] = 1.5
        case "nan":
            body["blocks"]["generator"]["values"][0] = float("nan")
        case "bool":
            body["blocks"]["generator"]["values"][0] = True
        case "huge value":
            body["blocks"]["generator"]["values"][0] = LIMIT + 1
        case "shape":
            body["blocks"]["generator"]["shape"] = [4]
        case "negative shape":
            body["blocks"]["generator"]["shape"] = [-3]
        case "other shape":
            body["blocks"]["generator"] = {"shape": [2], "values": [1, 2]}
        case "extra block":
            body["blocks"]["more"] = {"shape": [1], "values": [1]}
        case "extra key":
            body["note"] = "hello"
        case "weight":
            body["inputs"][0]["weight"] = 0
        case "format":
            body["format"] = "other/1"
        case "digest":
            body["config"] = "zz"
        case "round":
            body["round"] = -1
        case "cid":
            body["inputs"][0]["cid"] = "../../etc/passwd"
    return json.dumps(body, sort_keys=True, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    "change",
    ["float", "nan", "bool", "huge value", "shape", "negative shape", "other shape", "extra block", "extra key",
     "weight", "format", "digest", "round", "cid"],
)  # fmt: skip
def test_a_hostile_model_is_refused(change: str) -> None:
    with pytest.raises(UpdateError):
        parse_update(damaged(change), {"generator": (3,)})


def test_other_spellings_of_the_same_model_are_refused() -> None:
    data = update({"generator": np.array([1, 2, 3])}).to_bytes()
    assert parse_update(data)
    with pytest.raises(UpdateError, match="canonical"):
        parse_update(data + b" ")
    with pytest.raises(UpdateError, match="canonical"):
        parse_update(json.dumps(json.loads(data), indent=1).encode())


@given(st.binary(max_size=200))
def test_noise_is_refused(data: bytes) -> None:
    with pytest.raises(UpdateError):
        parse_update(data)


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(UpdateError):
        parse_update(b"[" * 100_000)
