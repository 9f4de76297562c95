"""JSON from others: what is too large or too deep never reaches the parser."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuits.errors import QrunError
from circuits.hostile import MAX_DEPTH, NoSuchFileError, load_json, read_regular

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


@pytest.mark.parametrize("number", ["1e999", "-1e999", "9" * 400, "NaN", "-Infinity"])
def test_numbers_that_no_float_holds_are_refused(number: str) -> None:
    for text in (number, f'{{"a": [{number}]}}'):
        with pytest.raises(QrunError, match="not JSON"):
            load_json(text.encode(), max_bytes=1 << 20, what="text")


def test_size_is_bounded() -> None:
    with pytest.raises(QrunError, match="more than 3"):
        load_json(b"[1, 2]", max_bytes=3, what="text")


@pytest.mark.parametrize(
    "encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]
)
@pytest.mark.parametrize("text", ['{"a": 1}', '["\u2200", [1]]'])
def test_no_encoding_but_utf_8_is_read(encoding: str, text: str) -> None:
    with pytest.raises(QrunError, match="text rejected"):
        load_json(text.encode(encoding), max_bytes=1 << 20, what="text")


def test_nesting_in_another_encoding_does_not_end_the_process() -> None:
    # In UTF-16 the character U+2200 has the byte of a quote: what follows looked like a string that hides the brackets.
    program = (
        "import sys; sys.setrecursionlimit(1_000_000)\n"
        "from circuits.errors import QrunError\n"
        "from circuits.hostile import load_json\n"
        "text = '[\"\\u2200\",' + '[' * 300_000 + ']' * 300_000 + ',\"x\"]'\n"
        "try:\n    load_json(text.encode('utf-16-le'), max_bytes=1 << 24, what='text')\n"
        "except QrunError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "text rejected: not JSON.\n"), done.stderr


@pytest.mark.parametrize(
    "data",
    [
        b'"' + b'\\"' * (2 << 20),
        b'"' * (4 << 20),
        b"\\" * (4 << 20),
        b'"' + b"\\" * (4 << 20),
        b'"a\\' * (1 << 20),
        b"[]" * (2 << 20),
        b'""[' * (1 << 20),
    ],
)
def test_the_check_of_nesting_takes_linear_time(data: bytes) -> None:
    begin = time.process_time()
    with pytest.raises(QrunError, match="text rejected"):
        load_json(data, max_bytes=1 << 24, what="text")
    assert time.process_time() - begin < 3


def test_a_plain_file_is_read_up_to_its_bound(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"1234")
    assert read_regular(file, max_bytes=4, what="text") == b"1234"
    with pytest.raises(QrunError, match="more than 3 bytes"):
        read_regular(file, max_bytes=3, what="text")
    with pytest.raises(NoSuchFileError, match="there is no"):
        read_regular(tmp_path / "none", max_bytes=3, what="text")
    with pytest.raises(QrunError, match="no name of a file"):
        read_regular(tmp_path / "a\0b", max_bytes=3, what="text")


def test_what_is_no_plain_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"secret")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    for path in (tmp_path / "fifo", tmp_path / "folder", tmp_path / "link", Path("/dev/zero")):
        with pytest.raises(QrunError, match="text rejected"):
            read_regular(path, max_bytes=100, what="text")
