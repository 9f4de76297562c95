"""A federation that dies before or after each of its writes goes on to the same end, and sends nothing twice."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contracts.chain import Chain
from contracts.store import BlockStore
from runner.config import RunConfig
from runner.store import RunStore
from tests.runner.small_federation import opened, small_config, what_repeats

WRITES = ((Chain, "send"), (BlockStore, "put"), (RunStore, "put"))
"""All that outlives a process: transactions, blocks, facts."""


class Killed(BaseException):
    """What no code may catch, as it may not catch a kill."""


class Mortal:
    """Counts writes, and dies at the one with number `at`, before or after it is done."""

    def __init__(self, patch: pytest.MonkeyPatch, at: int | None, after: bool) -> None:
        self.count = 0
        for kind, name in WRITES:
            patch.setattr(kind, name, self._wrap(getattr(kind, name), at, after))

    def _wrap(self, write: Callable[..., Any], at: int | None, after: bool) -> Callable[..., Any]:
        def mortal(*args: Any, **options: Any) -> Any:
            self.count += 1
            dies = self.count == at
            if dies and not after:
                raise Killed
            done = write(*args, **options)
            if dies:
                raise Killed
            return done

        return mortal


def play(config: RunConfig, folder: Path) -> tuple[list[Any], int]:
    """To the end: what repeats, and how many blocks the chain has."""
    with opened(config, folder) as federation:
        rounds = what_repeats(federation.play())
        return rounds, federation.contract.chain.head_number()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Any], int, int]:
    """An undisturbed run: what repeats, its blocks, its writes."""
    with pytest.MonkeyPatch.context() as patch:
        mortal = Mortal(patch, None, False)
        rounds, blocks = play(CONFIG, tmp_path_factory.mktemp("whole") / "run")
    return rounds, blocks, mortal.count


CONFIG = small_config(3, 2)
PARTS = 8


def dies_and_goes_on(whole: tuple[list[Any], int, int], folder: Path, at: int, after: bool) -> None:
    rounds, blocks, _ = whole
    with pytest.MonkeyPatch.context() as patch:
        Mortal(patch, at, after)
        with pytest.raises(Killed):
            play(CONFIG, folder)
    said = f"killed {'after' if after else 'before'} write {at}"
    again, now = play(CONFIG, folder)
    assert again == rounds, said
    assert now == blocks, f"{said}: a transaction was sent twice, or not at all"


@pytest.mark.parametrize("part", range(PARTS))
def test_some_writes(whole: tuple[list[Any], int, int], tmp_path: Path, part: int) -> None:
    """One in each part of the run; the slow test takes them all."""
    writes = whole[2]
    dies_and_goes_on(whole, tmp_path / "run", 1 + writes * part // PARTS, bool(part % 2))


class Photographer:
    """Copies the run's folder before and after each write: what a kill at that instant leaves on the disk.

    Attributes:
        left: The copies, one for each different content, in the order in which it was found.
        moments: How often it was looked.
    """

    def __init__(self, patch: pytest.MonkeyPatch, run: Path, copies: Path) -> None:
        self.left: dict[str, Path] = {}
        self.moments = 0
        self._run, self._copies = run, copies
        for kind, name in WRITES:
            patch.setattr(kind, name, self._wrap(getattr(kind, name)))

    def _look(self) -> None:
        self.moments += 1
        content = hashlib.sha256()
        for file in sorted(f for f in self._run.rglob("*") if f.is_file()):
            # The index of a write-ahead log is shared memory: a process that opens the log after a kill makes it anew.
            if not file.name.endswith("-shm"):
                data = file.read_bytes()
                content.update(f"{file.relative_to(self._run)} {len(data)} ".encode() + data)
        if content.hexdigest() not in self.left:
            self.left[content.hexdigest()] = self._copies / str(self.moments)
            shutil.copytree(self._run, self.left[content.hexdigest()])

    def _wrap(self, write: Callable[..., Any]) -> Callable[..., Any]:
        def seen(*args: Any, **options: Any) -> Any:
            self._look()
            done = write(*args, **options)
            self._look()
            return done

        return seen


@pytest.mark.slow
def test_every_write(whole: tuple[list[Any], int, int], tmp_path: Path) -> None:
    """Killed before and after each write, without a word: no `finally` runs, as with kill -9.

    Where the disk is the same after one write and before the next, so is all that follows: played once.
    """
    rounds, blocks, writes = whole
    with pytest.MonkeyPatch.context() as patch:
        photographer = Photographer(patch, tmp_path / "run", tmp_path)
        play(CONFIG, tmp_path / "run")
    assert photographer.moments == 2 * writes
    assert len(photographer.left) > writes / 2
    for folder in photographer.left.values():
        again, now = play(CONFIG, folder)
        assert again == rounds, f"killed at moment {folder.name}"
        assert now == blocks, f"killed at moment {folder.name}: a transaction was sent twice, or not at all"
        shutil.rmtree(folder)


@pytest.mark.slow
def test_killed_again_and_again(whole: tuple[list[Any], int, int], tmp_path: Path) -> None:
    """A run that never gets further than 25 writes at a time, some of which it does each time it begins."""
    rounds, blocks, writes = whole
    for attempt in range(writes):
        with pytest.MonkeyPatch.context() as patch:
            Mortal(patch, 25, True)
            try:
                again, now = play(CONFIG, tmp_path / "run")
            except Killed:
                continue
        assert attempt > 3
        assert (again, now) == (rounds, blocks)
        return
    pytest.fail("it never came to its end")
