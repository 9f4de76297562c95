"""A map is a pure function of a record, and its bytes are canonical and safe to read from anyone."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circuits.errors import QrunError
from experiments.features.agreement import agree, node
from experiments.features.map import FeatureMap, raw_bounds
from experiments.features.secure_sum import plain_sum
from tests.experiments.features_support import OTH, SH, make_records

RECORDS = make_records(400)
MAP = agree([node(RECORDS)], 6, plain_sum)
BYTES = MAP.to_bytes()


def test_features_fill_the_middle_and_stay_in_range() -> None:
    x = MAP.apply(RECORDS)
    assert x.shape == (400, 6)
    assert MAP.features == 6
    assert x.dtype == np.float64
    assert np.abs(x).max() <= 1
    inside = (np.abs(x) <= 0.8).mean(0)
    assert np.all((inside >= 0.97) & (inside <= 0.99))


def test_a_record_does_not_depend_on_its_batch() -> None:
    whole = MAP.apply(RECORDS)
    for part in (np.arange(1), np.arange(13), np.arange(399, 0, -7)):
        assert MAP.apply(RECORDS.take(part)).tobytes() == whole[part].tobytes()
    assert MAP.apply(RECORDS.take(np.arange(0))).shape == (0, 6)
    many = RECORDS.take(np.arange(20_000) % 400)
    assert MAP.apply(many)[-400:].tobytes() == whole[np.arange(19_600, 20_000) % 400].tobytes()


def test_raw_features_lie_within_their_public_bounds() -> None:
    extreme = make_records(60, seed=5)
    extreme.numeric[::2] = 1e18
    extreme.numeric[1::2] = 0
    extreme.categorical[::3, 2] = SH
    lower, upper = raw_bounds(MAP.centre, MAP.components)
    raw = MAP.raw(extreme)
    assert np.all((raw >= lower) & (raw <= upper))
    assert np.abs(MAP.apply(extreme)).max() <= 1


def test_a_category_without_records_has_the_place_of_the_rarest() -> None:
    one, other = RECORDS.take(np.arange(3)), RECORDS.take(np.arange(3))
    one.categorical[:, 2], other.categorical[:, 2] = OTH, SH
    np.testing.assert_array_equal(MAP.apply(one), MAP.apply(other))


def test_bytes_come_back_as_the_same_map() -> None:
    again = FeatureMap.from_bytes(BYTES)
    assert again.to_bytes() == BYTES
    assert again.apply(RECORDS).tobytes() == MAP.apply(RECORDS).tobytes()
    assert BYTES.isascii()


def edited(change: Callable[[dict[str, Any]], Any]) -> bytes:
    body = json.loads(BYTES)
    change(body)
    return json.dumps(body, sort_keys=True, separators=(",", ":")).encode()


def put(*path: str | int, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(body: Any) -> None:
        for key in path[:-1]:
            body = body[key]
        body[path[-1]] = value(body[path[-1]]) if callable(value) else value

    return change


def times(factor: float) -> Callable[[str], str]:
    return lambda text: (float.fromhex(text) * factor).hex()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("format", value="qrun-feature-map-2"), "format"),
        (lambda body: body.update(extra=1), "format"),
        (lambda body: body.pop("low"), "format"),
        (put("schema", value="0" * 64), "another schema"),
        (put("mean", 0, value="nan"), "not finite"),
        (put("low", 0, value="-inf"), "not finite"),
        (put("mean", 0, value=0.5), "malformed"),
        (put("mean", value="0x1p0"), "malformed"),
        (put("mean", 0, value="0x1p99999"), "malformed"),
        (put("mean", value=lambda v: v[:-1]), "shapes"),
        (put("mean", 0, value=(-1.0).hex()), "mean is out"),
        (put("centre", 0, value=(4.5).hex()), "mean is out"),
        (put("sd", 0, value=(0.04).hex()), "standard deviation"),
        (put("sd", 0, value=(1e9).hex()), "standard deviation"),
        (put("high", value=lambda v: v[:-1]), "shapes"),
        (put("components", 0, value=lambda row: row[:-1]), "malformed"),
        (put("components", 0, 0, value=(1e308).hex()), "orthonormal"),
        (put("components", 0, value=lambda row: [times(0.9)(v) for v in row]), "orthonormal"),
        (put("components", value=lambda rows: [rows[0], *rows[:-1]]), "orthonormal"),
        (put("high", 2, value=(1e9).hex()), "quantile"),
        (put("low", 5, value=(8.9).hex()), "quantile"),
        (put("numeric", value=lambda names: names[::-1]), "order"),
        (put("numeric", 0, value="no such column"), "malformed"),
        (put("groups", "flag", value=lambda groups: groups[:-1]), "shapes|malformed|partition"),
        (put("groups", "flag", 0, value=lambda words: words[:-1]), "partition"),
        (put("groups", "flag", 0, 0, value="no such word"), "malformed"),
        (put("groups", "flag", value=lambda groups: groups[::-1]), "partition"),
        (put("groups", value=[]), "malformed"),
        (lambda body: body["groups"].update(service=[]), "canonical"),
        (put("mean", 0, value=lambda v: v.upper()), "canonical"),
    ],
)
def test_a_map_that_no_agreement_ends_with_is_refused(change: Callable[[dict[str, Any]], Any], message: str) -> None:
    with pytest.raises(QrunError, match=message):
        FeatureMap.from_bytes(edited(change))


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"null", b"{", b"\xff\xfe", b"[" * 100_000, BYTES + b"\n", b" " + BYTES, b"x" * (2**20 + 1)],
    ids=["empty", "list", "null", "open", "binary", "deep", "newline", "space", "large"],
)
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(QrunError, match="the feature map is refused"):
        FeatureMap.from_bytes(data)


def test_the_same_numbers_in_another_writing_are_refused() -> None:
    with pytest.raises(QrunError, match="not canonical"):
        FeatureMap.from_bytes(json.dumps(json.loads(BYTES)).encode())


@settings(deadline=None, max_examples=100)
@given(st.integers(0, len(BYTES) - 1), st.integers(0, 255))
def test_a_changed_byte_gives_an_error_or_another_map(place: int, value: int) -> None:
    data = BYTES[:place] + bytes([value]) + BYTES[place + 1 :]
    try:
        loaded = FeatureMap.from_bytes(data)
    except QrunError:
        return
    assert loaded.to_bytes() == data
    assert np.isfinite(loaded.apply(RECORDS)).all()
