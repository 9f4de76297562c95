"""JSON from others: what is too large or too deep never reaches the parser."""

from __future__ import annotations

import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuits.errors import QrunError
from circuits.hostile import MAX_DEPTH, load_json

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(values)
def test_what_is_sound_is_read(value: object) -> None:
    assert load_json(json.dumps(value).encode(), max_bytes=1 << 20, what="text") == value


def test_brackets_in_strings_are_no_nesting() -> None:
    text = json.dumps({'a"[': "[" * 100 + '\\"' + "{" * 100})
    assert load_json(text.encode(), max_bytes=1 << 20, what="text") == json.loads(text)


@pytest.mark.parametrize(
    "data",
    [b"[" * 200_000, b'{"a":' * 200_000, b"[" * 17 + b"]" * 17, b'"' + b"[" * 100_000, b"]" * 99 + b"[" * 200_000],
)
def test_deep_nesting_is_refused_whatever_the_recursion_limit(data: bytes) -> None:
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(1_000_000)  # As py-evm does, more or less.
    try:
        with pytest.raises(QrunError, match="text rejected"):
            load_json(data, max_bytes=1 << 24, what="text")
    finally:
        sys.setrecursionlimit(before)


def test_the_limit_itself_is_allowed() -> None:
    assert load_json(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH, max_bytes=100, what="text")


def test_size_is_bounded() -> None:
    with pytest.raises(QrunError, match="more than 3"):
        load_json(b"[1, 2]", max_bytes=3, what="text")
