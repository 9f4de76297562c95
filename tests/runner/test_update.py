"""Published models: canonical bytes, fixed point, norms, hostile input."""

from __future__ import annotations

import hashlib
import json
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.update import (
    LIMIT,
    MAX_WEIGHT,
    SCALE_BITS,
    Input,
    Update,
    UpdateError,
    blocks_digest,
    dequantise,
    norm_allowed,
    parse_update,
    quantise,
)

CID = "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"
values = st.integers(-LIMIT, LIMIT)


def update(blocks: dict[str, np.ndarray], inputs: tuple[Input, ...] = (Input(CID, 3),)) -> Update:
    return Update("ab" * 32, CID, 2, 1, blocks, inputs, "cd" * 32)


@given(st.lists(values, min_size=6, max_size=6), st.lists(values, min_size=1, max_size=4))
def test_a_model_comes_back_as_it_was(first: list[int], second: list[int]) -> None:
    blocks = {"generator": np.array(second), "discriminator.0.weight": np.array(first).reshape(2, 3)}
    data = update(blocks).to_bytes()
    back = parse_update(data, {k: v.shape for k, v in blocks.items()})
    assert back.inputs == (Input(CID, 3),)
    assert (back.round, back.node, back.start) == (2, 1, "cd" * 32)
    for name, block in blocks.items():
        np.testing.assert_array_equal(back.blocks[name], block)
    assert back.to_bytes() == data


def test_block_order_does_not_change_the_bytes() -> None:
    a, b = np.array([1, 2]), np.array([3])
    assert update({"a": a, "b": b}).to_bytes() == update({"b": b, "a": a}).to_bytes()


def test_the_digest_of_blocks_names_them_and_nothing_else() -> None:
    blocks = {"a": np.array([[1, 2]]), "b": np.array([3])}
    # By hand: canonical JSON of the blocks alone.
    text = b'{"a":{"shape":[1,2],"values":[1,2]},"b":{"shape":[1],"values":[3]}}'
    assert blocks_digest(blocks) == hashlib.sha256(text).hexdigest()
    assert blocks_digest(dict(reversed(blocks.items()))) == blocks_digest(blocks)
    assert text in update(blocks).to_bytes()
    for other in ({"a": np.array([1, 2]), "b": np.array([3])}, {"a": np.array([[1, 2]]), "b": np.array([4])}):
        assert blocks_digest(other) != blocks_digest(blocks)


@given(st.lists(values, min_size=1, max_size=6), st.floats(1e-6, 65_536))
def test_norms_are_exact(block: list[int], bound: float) -> None:
    squared = sum(Fraction(v, 1 << SCALE_BITS) ** 2 for v in block)
    step = Fraction(1, 1 << SCALE_BITS)  # a bound counts in whole steps
    if squared <= (Fraction(bound) - step) ** 2 and Fraction(bound) >= step:
        assert norm_allowed(block, bound)
    if squared > Fraction(bound) ** 2:
        assert not norm_allowed(block, bound)


def test_a_block_beyond_the_norm_bound_is_refused() -> None:
    one = 1 << SCALE_BITS
    data = update({"generator": np.array([3 * one, 4 * one])}).to_bytes()
    assert parse_update(data, norm_bound=5.0)
    with pytest.raises(UpdateError, match=r"generator: its norm is beyond 4\.999"):
        parse_update(data, norm_bound=4.999)


@given(st.lists(st.floats(-60_000, 60_000), min_size=1, max_size=8))
def test_fixed_point_is_within_half_a_step(parameters: list[float]) -> None:
    p = np.array(parameters)
    back = dequantise(quantise({"x": p}))["x"]
    assert np.abs(back - p).max() <= 2.0 ** -(SCALE_BITS + 1)


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
        case "large weight":
            body["inputs"][0]["weight"] = MAX_WEIGHT + 1
        case "start":
            body["start"] = "CD" * 32
        case "no start":
            del body["start"]
        case "old format":
            body["format"] = "qrun-update/1"
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
     "weight", "large weight", "start", "no start", "old format", "format", "digest", "round", "cid"],
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
