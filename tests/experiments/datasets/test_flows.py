"""Flows from a stream: the same however it is cut, whatever it holds, in constant memory."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Callable, Iterable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.datasets.flows import MAX_LINE, Batch, MalformedError, flows, read_line
from experiments.datasets.parse import parse
from experiments.datasets.schema import COLUMNS, FIELDS
from tests.experiments.datasets.support import legal_lines, lines


def source(chunks: Iterable[bytes]) -> Callable[[], bytes]:
    left = iter(chunk for chunk in chunks if chunk)
    return lambda: next(left, b"")


def read(data: bytes, *cuts: int) -> tuple[list[int], list[tuple[int, str]], np.ndarray]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    found = list(flows(source(data[a:b] for a, b in itertools.pairwise(places))))
    numeric = np.concatenate([batch.flows.numeric for batch in found]) if found else np.zeros((0, 38))
    good = [line for batch in found for line in batch.flows.line.tolist()]
    return good, [(bad.line, bad.why) for batch in found for bad in batch.malformed], numeric


@given(st.lists(legal_lines(), min_size=1, max_size=8), st.sampled_from([41, 42, 43]), st.sampled_from(["\n", "\r\n"]))
def test_what_parse_takes_is_read_the_same(texts: list[str], width: int, end: str) -> None:
    cut = [",".join(text.split(",")[:width]) for text in texts]
    good, bad, numeric = read((end.join(cut) + end).encode())
    whole = parse(("\n".join(texts) + "\n").encode(), "lines")
    assert bad == []
    assert good == whole.line.tolist()
    np.testing.assert_array_equal(numeric, whole.numeric)


junk = st.one_of(
    st.binary(max_size=60),
    st.sampled_from([b"", b"\r", b"\x00", b"nan," * 41, b"," * 40, b"," * 5000, b"x" * (MAX_LINE + 1)]),
    st.sampled_from(lines()).map(str.encode),
    st.tuples(
        st.sampled_from(lines()), st.integers(0, 42), st.sampled_from(["nan", "inf", "-1", "1e9", "é", "tcpp", ""])
    ).map(lambda t: ",".join([*t[0].split(",")[: t[1]], t[2], *t[0].split(",")[t[1] + 1 :]]).encode()),
)


@given(st.lists(junk, max_size=12), st.booleans(), st.lists(st.integers(0, 1 << 16), max_size=6))
def test_a_stream_reads_the_same_however_it_is_cut(parts: list[bytes], ended: bool, cuts: list[int]) -> None:
    data = b"\n".join(parts) + (b"\n" if ended else b"")
    good, bad, numeric = read(data)
    again = read(data, *cuts)
    assert again[:2] == (good, bad)
    np.testing.assert_array_equal(again[2], numeric)
    numbers = sorted([*good, *(line for line, _ in bad)])
    assert numbers == sorted(set(numbers))
    assert np.isfinite(numeric).all()
    # Every line that is not blank is a flow, or told.
    expected = [k for k, line in enumerate(data.split(b"\n"), 1) if line.strip(b"\r ")]
    assert numbers == expected
    assert all(why.isascii() and why.isprintable() and len(why) < 300 for _, why in bad)


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        (5, "nan", "column 5 (src_bytes): 'nan' stands where a whole number in 0..2147483647 is expected"),
        (5, "-1", "column 5 (src_bytes)"),
        (5, "1.5", "column 5 (src_bytes)"),
        (5, "99999999999", "column 5 (src_bytes)"),
        (2, "sctp", "column 2 (protocol_type): 'sctp' is none of the 3 words that are known"),
        (25, "1.01", "column 25 (serror_rate): '1.01' stands where a rate in 0..1 is expected"),
        (25, "infinity", "column 25 (serror_rate)"),
        (25, "1_0", "column 25 (serror_rate)"),
        (1, " 0", "column 1 (duration)"),
    ],
)
def test_what_stands_where_is_told(column: int, value: str, said: str) -> None:
    fields = lines()[0].split(",")
    fields[column - 1] = value
    with pytest.raises(MalformedError) as error:
        read_line(",".join(fields).encode())
    assert str(error.value).startswith(said)


def test_rates_with_other_decimals_and_whole_numbers_with_zeros_are_read() -> None:
    fields = lines()[0].split(",")
    fields[24], fields[4] = "0.3333333", "17.0"
    values = read_line(",".join(fields[:41]).encode())
    assert (values[24], values[4]) == (0.3333333, 17.0)


def test_a_first_line_of_names_is_passed_over_and_nowhere_else() -> None:
    head = ",".join(FIELDS)
    good, bad, _ = read(f"{head}\n{lines()[0]}\n{head}\n".encode())
    assert good == [2]
    assert [line for line, _ in bad] == [3]
    short = ",".join(column.name for column in COLUMNS)
    assert read(f"{short}\r\n{lines()[0]}\r\n".encode())[:2] == ([2], [])


def test_a_line_without_end_takes_no_memory_and_is_told_once() -> None:
    chunk = b"x" * (1 << 16)
    stream = source([*([chunk] * 800), b"\n" + lines()[0].encode() + b"\n"])
    tracemalloc.start()
    try:
        found = list(flows(stream))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20
    assert [(bad.line, bad.why) for batch in found for bad in batch.malformed] == [
        (1, f"the line is longer than {MAX_LINE} bytes")
    ]
    assert [line for batch in found for line in batch.flows.line.tolist()] == [2]


def test_what_is_there_is_given_before_more_comes() -> None:
    text = (lines()[0] + "\n").encode()
    asked: list[int] = []

    def slow() -> bytes:
        asked.append(1)
        return text if len(asked) <= 3 else b""

    stream = flows(slow)
    first = next(stream)
    assert isinstance(first, Batch)
    assert len(first.flows) == 1
    assert len(asked) == 1
