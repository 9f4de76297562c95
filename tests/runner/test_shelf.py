"""What a grader keeps of submissions lies on the disk, bit for bit, and takes no more of it than is held."""

from __future__ import annotations

import gc
import os
import tempfile
import weakref
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner import shelf
from runner.grades import Flat, Grader
from runner.shelf import SMALL, Shelf

LARGE = SMALL // 8


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2**32 - 1)), min_size=1, max_size=40))
def test_what_is_put_away_is_read_again(steps: list[tuple[int, int]]) -> None:
    """Whatever is dropped in between, and whatever takes its place."""
    kept: list[tuple[Any, list[np.ndarray[Any, Any]]]] = []
    made = Shelf()
    for what, seed in steps:
        if what == 0 and kept:
            kept.pop(seed % len(kept))
            continue
        rng = np.random.default_rng(seed)
        vectors = [
            rng.normal(size=(LARGE * what + 1, 1)),
            np.array([]),
            np.array([np.nan, -0.0, np.inf, 5e-324]),
            rng.integers(-(2**62), 2**62, (2, 3)),
        ]
        kept.append((made.put(vectors), vectors))
    for got, wanted in kept:
        assert len(got) == 4
        assert [(g.dtype, g.shape, g.tobytes()) for g in got] == [(w.dtype, w.shape, w.tobytes()) for w in wanted]


def test_by_name() -> None:
    blocks = {"b": np.arange(LARGE + 1), "a": np.arange(6).reshape(2, 3)}
    got = Shelf().put_named(blocks)
    assert list(got) == ["b", "a"]
    assert "c" not in got
    assert all(np.array_equal(got[name], block) and got[name].shape == block.shape for name, block in blocks.items())


def test_a_place_that_nobody_holds_is_taken_again() -> None:
    made = Shelf()
    held = [made.put([np.full(LARGE, float(k)), np.zeros(9)]) for k in range(3)]
    for k in range(100):
        held[k % 3] = made.put([np.full(LARGE, float(k)), np.zeros(9)])
    assert [float(one[0][0]) for one in held] == [99, 97, 98]
    assert made._file is not None
    assert os.fstat(made._file.fileno()).st_size <= 4 * 8 * (LARGE + 9)


def test_the_file_goes_with_its_last_holder() -> None:
    made = Shelf()
    held: Any = made.put([np.ones(LARGE + 1)])
    file = weakref.ref(held._file)
    del made
    gc.collect()
    assert float(held[0].sum()) == LARGE + 1
    del held
    gc.collect()
    assert file() is None


def test_a_forked_process_takes_nobody_elses_place() -> None:
    made = Shelf()
    first, gone = made.put([np.zeros(LARGE + 1)]), made.put([np.ones(LARGE + 1)])
    del gone
    child = os.fork()
    if not child:
        both = [made.put([np.full(LARGE + 1, 9.0)]) for _ in range(2)]
        os._exit(int([float(one[0][0]) for one in both] != [9, 9] or float(first[0][0]) != 0))
    second = made.put([np.full(LARGE + 1, 2.0)])
    assert os.waitpid(child, 0)[1] == 0
    assert [float(one[0].min()) for one in (first, second)] == [0, 2]
    assert [float(one[0].max()) for one in (first, second)] == [0, 2]


def test_small_ones_need_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", None)
    vectors = [np.ones(LARGE)]
    assert Shelf().put(vectors)[0] is vectors[0]


@pytest.mark.parametrize("fails", ["making it", "writing"])
def test_on_a_full_disk_they_stay_in_memory(monkeypatch: pytest.MonkeyPatch, fails: str) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise OSError(28, "No space left on device")

    made = Shelf()
    first = made.put([np.ones(LARGE + 1)])
    monkeypatch.setattr(*((tempfile, "TemporaryFile") if fails == "making it" else (os, "pwrite")), full)
    other = Shelf() if fails == "making it" else made
    vectors = [np.full(LARGE + 1, 2.0)]
    assert other.put(vectors)[0] is vectors[0]
    monkeypatch.undo()
    again = other.put([np.full(LARGE + 1, 3.0)])
    assert [float(one[0][0]) for one in (first, again)] == [1, 3]


def test_a_file_written_in_pieces_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    write, read = os.pwrite, os.pread
    monkeypatch.setattr(os, "pwrite", lambda file, data, offset: write(file, data[:1000], offset))
    monkeypatch.setattr(os, "pread", lambda file, size, offset: read(file, min(size, 777), offset))
    vectors = [np.random.default_rng(0).normal(size=LARGE + k) for k in range(3)]
    assert [g.tobytes() for g in Shelf().put(vectors)] == [w.tobytes() for w in vectors]


def test_grades_are_the_same_from_disk_and_from_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def play() -> list[Any]:
        rng, said = np.random.default_rng(5), []
        grader, other = Grader(0), Grader(1)
        place = rng.normal(size=500)
        for _ in range(6):
            along = rng.normal(size=500)
            made = {k: place + along + rng.normal(size=500) for k in range(4)}
            models = {k: Flat(m[:400], m[400:]) for k, m in made.items()}
            start, losses = Flat(place[:400], place[400:]), dict.fromkeys(models, 0.5)
            said.append(grader.review(start, models, losses))
            said.append(other.review_new(dict.fromkeys(models, (0, start)), models, losses, range(4)))
            place = place + along
        return said

    monkeypatch.setattr(shelf, "SMALL", 0)
    on_disk = play()
    monkeypatch.setattr(shelf, "SMALL", 10**9)
    assert on_disk == play()
