from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.datasets.parse import MAX_LINES, DataFileError, parse, to_text
from experiments.datasets.schema import ATTACKS, FIELDS, FLAGS, NUMERIC_NAMES, PROTOCOLS, SERVICES
from experiments.datasets.types import Records
from tests.experiments.datasets.support import legal_lines, lines


def as_bytes(rows: list[str]) -> bytes:
    return ("\n".join(rows) + "\n").encode("ascii")


def with_field(row: str, position: int, text: str) -> str:
    fields = row.split(",")
    fields[position] = text
    return ",".join(fields)


def refusal(content: bytes) -> DataFileError:
    with pytest.raises(DataFileError) as caught:
        parse(content, "file.txt")
    assert "\n" not in str(caught.value)
    assert str(caught.value).isascii()
    assert len(str(caught.value)) < 600
    return caught.value


def attempt(content: bytes) -> tuple[DataFileError | None, Records | None]:
    try:
        return None, parse(content, "a.txt")
    except DataFileError as error:
        return error, None


def test_a_line_is_read_into_its_columns() -> None:
    row = "7,udp,domain_u,SF,45,130,0,0,0,0,0,1," + "0,0,0,0,0,0,0,0,0,0,12,13," + "0.01,0.02,0.03,0.04,0.05,0.06,0.07,"
    row += "250,251,0.08,0.09,0.10,0.11,0.12,0.13,0.14,1.00,neptune,21"
    records = parse(as_bytes([row]), "a.txt")
    value = dict(zip(NUMERIC_NAMES, records.numeric[0].tolist(), strict=True))
    assert (value["duration"], value["src_bytes"], value["dst_bytes"], value["logged_in"]) == (7, 45, 130, 1)
    assert (value["count"], value["srv_count"], value["dst_host_count"]) == (12, 13, 250)
    assert (value["serror_rate"], value["dst_host_srv_rerror_rate"]) == (0.01, 1.0)
    protocol, service, flag = records.categorical[0]
    assert (PROTOCOLS[protocol], SERVICES[service], FLAGS[flag]) == ("udp", "domain_u", "SF")
    assert ATTACKS[records.attack[0]] == "neptune"
    assert records.is_attack.tolist() == [True]
    assert (records.line.tolist(), records.file) == ([1], "a.txt")


@settings(deadline=None)
@given(st.lists(legal_lines(), min_size=1, max_size=3))
def test_every_legal_line_is_read_and_written_back(rows: list[str]) -> None:
    records = parse(as_bytes(rows), "a.txt")
    back = [row.rpartition(",")[0] for row in to_text(records).splitlines()]
    assert back == [row.rpartition(",")[0] for row in rows]


# Without a deadline: the first example draws the stand-in.
@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_mutated_line_is_read_as_it_stands_or_refused_in_its_line(data: st.DataObject) -> None:
    rows = list(lines(5))
    number = data.draw(st.integers(0, 4))
    position = data.draw(st.integers(0, len(rows[number])))
    until = data.draw(st.integers(position, min(position + 3, len(rows[number]))))
    inserted = data.draw(st.text("0123456789.,-+eE_ \tnaifx\0", max_size=4))
    rows[number] = rows[number][:position] + inserted + rows[number][until:]
    content = as_bytes(rows)
    error, records = attempt(content)
    if error is not None:
        # An edit of some characters is found in a field that it touches, or where the count of fields goes wrong.
        first = rows[number][:position].count(",") + 1
        touched = range(first, first + inserted.count(",") + 2)
        assert error.line == number + 1
        assert error.column in {*touched, rows[number].count(",") + 1, 44}
    else:
        assert records is not None
        last = rows[number].rpartition(",")[2]
        assert to_text(records, difficulty=int(last)).splitlines()[number] == rows[number]


@pytest.mark.parametrize(
    ("position", "text", "expected"),
    [
        (0, "-1", "0..86400"),
        (0, "86401", "0..86400"),
        (4, "007", "whole number"),
        (4, "1e3", "whole number"),
        (4, "9" * 5000, "0..2147483647"),
        (4, "\u0661".encode("unicode_escape").decode(), "whole number"),
        (4, "", "whole number"),
        (5, " 5", "whole number"),
        (6, "2", "0 or 1"),
        (24, "nan", "0.00..1.00"),
        (24, "inf", "0.00..1.00"),
        (24, "1.01", "0.00..1.00"),
        (24, "0.5", "two decimals"),
        (1, "TCP", "icmp, tcp, udp"),
        (2, "htpp", "70 words"),
        (3, "SX", "OTH, REJ"),
        (41, "Normal", "39 attack names"),
        (42, "22", "0..21"),
    ],
)
def test_a_wrong_field_is_named_with_place_content_and_expectation(position: int, text: str, expected: str) -> None:
    rows = list(lines(5))
    rows[2] = with_field(rows[2], position, text)
    error = refusal(as_bytes(rows))
    assert (error.line, error.column) == (3, position + 1)
    assert f"line 3, column {position + 1} ({FIELDS[position]})" in error.message
    assert expected in error.message
    assert text[:20] in error.message


def test_the_first_of_several_mistakes_is_named() -> None:
    rows = [with_field(lines(5)[0], 40, "x"), with_field(lines(5)[1], 0, "x")]
    assert (refusal(as_bytes(rows)).line, refusal(as_bytes(rows)).column) == (1, 41)


def whole() -> bytes:
    return as_bytes(list(lines()))


FOREIGN: dict[str, tuple[Callable[[], bytes], int, int, str]] = {
    "empty": (lambda: b"", 1, 1, "empty"),
    "cut in the last line": (lambda: whole()[:-60], 50, 30, "cut here"),
    "header": (lambda: (",".join(FIELDS) + "\n").encode() + whole(), 1, 1, "'duration' stands"),
    "no difficulty": (lambda: as_bytes([row.rpartition(",")[0] for row in lines()]), 1, 42, "42 of 43"),
    "UNSW-NB15": (lambda: b"1,0.121478,tcp,-,FIN,6,4" + b",0" * 38 + b"\n", 1, 44, "45 columns"),
    "other CSV": (lambda: b"sepal,petal\n5.1,3.5\n", 1, 2, "2 of 43"),
    "semicolons": (lambda: whole().replace(b",", b";"), 1, 1, "1 of 43"),
    "web page": (lambda: b"<!DOCTYPE html><html>404</html>", 1, 1, "web page"),
    "ARFF": (lambda: b"@relation 'KDDTrain'\n", 1, 1, "ARFF"),
    "zip": (lambda: b"PK\x03\x04" + bytes(100), 1, 1, "ZIP"),
    "gzip": (lambda: b"\x1f\x8b\x08" + bytes(100), 1, 1, "gzip"),
    "LFS pointer": (lambda: b"version https://git-lfs.github.com/spec/v1\n", 1, 1, "LFS"),
    "byte order mark": (lambda: b"\xef\xbb\xbf" + whole(), 1, 1, "byte order mark"),
    "UTF-16": (lambda: whole().decode().encode("utf-16"), 1, 1, "UTF-16"),
    "Windows line ends": (lambda: whole().replace(b"\n", b"\r\n"), 1, 43, "carriage return"),
    "binary": (lambda: bytes(range(256)) * 4, 1, 1, "carriage return|ASCII"),
    "a byte above ASCII": (lambda: whole().replace(b",SF,", b",S\xe9,", 1), 0, 4, "0xe9"),
    "blank line": (lambda: as_bytes([*lines()[:3], "", *lines()[3:]]), 4, 1, "1 of 43"),
    "too many lines": (lambda: b"\n" * (MAX_LINES + 2), MAX_LINES + 1, 1, "more lines"),
    "one endless line": (lambda: b"," * 1_000_000, 1, 44, "1000001 columns"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_foreign_file_is_refused_with_line_and_column(kind: str) -> None:
    make, line, column, message = FOREIGN[kind]
    error = refusal(make())
    if kind == "binary":
        assert error.line >= 1
        assert error.column >= 1
        return
    assert message in error.message
    if line:
        assert error.line == line
    if kind != "cut in the last line":
        assert error.column == column


@settings(deadline=None)
@given(st.binary(max_size=400))
def test_bytes_of_any_kind_raise_nothing_but_the_refusal(content: bytes) -> None:
    with pytest.raises(DataFileError):
        parse(content, "noise")


def test_control_characters_in_the_name_stay_out_of_the_message() -> None:
    with pytest.raises(DataFileError) as caught:
        parse(b"", "a\n\x1b[31mb")
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_values_are_exact() -> None:
    records = parse(whole(), "a")
    rates = records.numeric[:, NUMERIC_NAMES.index("same_srv_rate")]
    assert np.array_equal(rates, np.round(rates * 100) / 100)
    assert records.numeric.dtype == np.float64
    assert records.categorical.dtype == records.attack.dtype == records.line.dtype == np.int64
