from __future__ import annotations

import hashlib
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from experiments.datasets.nsl_kdd import MAX_BYTES, duplicates_of, read
from experiments.datasets.official import TEST, TRAIN_20, TRAIN_FULL, content_hash, matches
from experiments.datasets.parse import DataFileError, to_text
from experiments.datasets.standin import standin

Rows = list[list[str]]


def test_the_official_files_are_read(data_dir: Path) -> None:
    start = time.process_time()
    train, test = read(data_dir / TRAIN_20.name), read(data_dir / TEST.name)
    assert time.process_time() - start < 10
    assert (len(train), len(test)) == (25_192, 22_544)
    assert (int(np.sum(~train.is_attack)), int(np.sum(~test.is_attack))) == (13_449, 9_711)
    text = (data_dir / TEST.name).read_text()
    assert [row.rpartition(",")[0] for row in to_text(test).splitlines()] == [
        row.rpartition(",")[0] for row in text.splitlines()
    ]


def test_vectors_of_the_test_file_in_the_training_file(data_dir: Path) -> None:
    train, test = read(data_dir / TRAIN_20.name), read(data_dir / TEST.name)
    both = test.take(duplicates_of(train, test))
    assert len(both) == 118
    vectors = {row.rsplit(",", 2)[0] for row in to_text(both).splitlines()}
    assert len(vectors) == 117
    assert not duplicates_of(train, test.take(~duplicates_of(train, test))).any()


def test_content_counts_not_the_name(data_dir: Path, tmp_path: Path) -> None:
    copy = tmp_path / "anything.csv"
    copy.write_bytes((data_dir / TEST.name).read_bytes())
    assert read(copy).file == TEST.name


def test_git_blob_ids_are_git_s() -> None:
    # `printf 'hello\n' | git hash-object --stdin`
    assert content_hash(b"hello\n", "git") == "git:ce013625030ba8dba906f756967f9e9ca394464a"
    assert not matches(b"hello\n", TRAIN_FULL)


def edited_copy(data_dir: Path, folder: Path, name: str, edit: Callable[[Rows], None], end: str = "\n") -> Path:
    rows = [line.split(",") for line in (data_dir / name).read_text().splitlines()]
    edit(rows)
    path = folder / name
    path.write_text("\n".join(",".join(row) for row in rows) + end)
    return path


def refusal(path: Path) -> DataFileError:
    with pytest.raises(DataFileError) as caught:
        read(path)
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("name", [TRAIN_20.name, TEST.name])
def test_an_edit_within_the_bounds_is_found_by_line_and_column(data_dir: Path, tmp_path: Path, name: str) -> None:
    pick = random.Random(1)
    for _ in range(6):
        row, column = pick.randrange(22_000), pick.choice([0, 4, 5, 22, 31, 41, 42])

        def edit(rows: Rows, row: int = row, column: int = column) -> None:
            rows[row][column] = {"normal": "smurf"}.get(rows[row][column], "normal") if column == 41 else (
                "3" if rows[row][column] != "3" else "4"
            )  # fmt: skip

        error = refusal(edited_copy(data_dir, tmp_path, name, edit))
        assert (error.line, error.column) == (row + 1, column + 1)
        assert "edited" in error.message


def drop(rows: Rows) -> None:
    del rows[1000]


def insert(rows: Rows) -> None:
    rows.insert(1000, rows[7])


def swap(rows: Rows) -> None:
    rows[1000], rows[1001] = rows[1001], rows[1000]


def cut(rows: Rows) -> None:
    del rows[20_000:]


def append(rows: Rows) -> None:
    rows.append(rows[0])


@pytest.mark.parametrize(
    ("edit", "line", "said"),
    [
        (drop, 1001, "1 of 22544 records are missing"),
        (insert, 1001, "1 records from"),
        (swap, 1001, "2 lines differ"),
        (cut, 20_000, "cut after this record: 22544 are expected"),
        (append, 22_545, "stands after the last"),
    ],
)
def test_shifted_files_are_found_by_line(
    data_dir: Path, tmp_path: Path, edit: Callable[[Rows], None], line: int, said: str
) -> None:
    error = refusal(edited_copy(data_dir, tmp_path, TEST.name, edit))
    assert error.line == line
    assert error.column >= 1
    assert said in error.message


def test_a_missing_last_line_feed_is_found(data_dir: Path, tmp_path: Path) -> None:
    error = refusal(edited_copy(data_dir, tmp_path, TEST.name, lambda rows: None, end=""))
    assert (error.line, error.column) == (22_544, 43)
    assert "line feed is missing" in error.message


def test_an_edit_that_keeps_the_line_s_sum_is_found_in_its_block(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("experiments.datasets.official.line_sums", lambda lines: _table_of(TEST.name))
    error = refusal(edited_copy(data_dir, tmp_path, TEST.name, lambda rows: rows[300].__setitem__(0, "77")))
    assert (error.line, error.column) == (257, 1)
    assert "somewhere in lines 257 to 512" in error.message


def _table_of(name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.uint16]]:
    from experiments.datasets.official import _table

    return _table()[f"{name}/lines"].astype(np.uint16)


def test_an_unknown_name_is_held_against_the_nearest_file(data_dir: Path, tmp_path: Path) -> None:
    path = edited_copy(data_dir, tmp_path, TEST.name, lambda rows: rows[5].__setitem__(4, "3"))
    error = refusal(path.rename(tmp_path / "mine.txt"))
    assert (error.line, error.column) == (6, 5)
    assert f"compared with {TEST.name}" in error.message


def test_the_full_file_is_refused_with_the_hash_expected(tmp_path: Path) -> None:
    path = tmp_path / TRAIN_FULL.name
    path.write_text(to_text(standin(full=True).train))
    error = refusal(path)
    assert TRAIN_FULL.hash in error.message
    assert error.line == 125_973
    path.write_text(to_text(standin(full=False).train))
    error = refusal(path)
    assert (error.line, error.column) == (25_192, 43)
    assert "125973 records are expected" in error.message


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    assert "cannot be read: No such file" in refusal(tmp_path / "none.txt").message
    assert "no regular file" in refusal(tmp_path).message
    os.mkfifo(tmp_path / "pipe")
    assert "no regular file" in refusal(tmp_path / "pipe").message
    with (tmp_path / "large").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    assert "larger than" in refusal(tmp_path / "large").message
    assert "cannot be read" in refusal(tmp_path / "a\0b").message


def test_the_tables_hold_no_record(data_dir: Path) -> None:
    from importlib import resources

    content = resources.files("experiments.datasets").joinpath("checksums.npz").read_bytes()
    assert len(content) < 150_000
    row = (data_dir / TEST.name).read_bytes().splitlines()[0]
    assert row not in content
    assert hashlib.sha256(row).digest() not in content
