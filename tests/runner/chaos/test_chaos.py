"""Fifty runs under random kills, delays and error codes: each ends as the undisturbed one, nothing is sent twice."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from backends.runtime.standin import StandIn
from tests.runner.chaos.game import LATE, ON_DEVICE, TWIN_FIRST, Game, disturbed, settings, what_repeats

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

KINDS = {"on the device": ON_DEVICE, "twin first": TWIN_FIRST}
RUNS, GROUP = 50, 5


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[dict[str, Any], float, int]]:
    """By kind: what repeats, the QPU seconds that the service charged, and how many jobs it accepted."""
    out = {}
    for kind, options in KINDS.items():
        with StandIn(settings()) as service:
            game = Game(tmp_path_factory.mktemp("whole"), options, service)
            assert game.attempt() == "", game.messages
            assert game.sent_twice() == []
            out[kind] = what_repeats(game.result()), service.spent(), len(service.accepted())
    return out


@pytest.mark.parametrize("first", range(0, RUNS, GROUP))
def test_a_disturbed_run_ends_as_the_undisturbed_one(
    first: int, undisturbed: dict[str, tuple[dict[str, Any], float, int]], tmp_path: Path
) -> None:
    # Side by side: an attempt mostly waits.
    with ThreadPoolExecutor(max_workers=3) as together:
        list(together.map(lambda seed: play(seed, undisturbed, tmp_path / str(seed)), range(first, first + GROUP)))


def play(seed: int, undisturbed: dict[str, tuple[dict[str, Any], float, int]], folder: Path) -> None:
    """One disturbed run, and what must hold of it."""
    kind = "twin first" if seed % 3 == 2 else "on the device"
    expected, charged, jobs = undisturbed[kind]
    with StandIn(settings(late=LATE, plan=("premium", "open")[seed % 2])) as service:
        service.faults.chaos(disturbed(seed))
        folder.mkdir()
        game = Game(folder, KINDS[kind], service)
        # Every fourth run has a budget at first that is not enough for it, and then one that also holds what jobs
        # that were given up may have taken.
        game.to_the_end(seed, budget=charged / 2 if seed % 4 == 0 else None, enough=10 * charged)
        assert game.sent_twice() == [], game.attempts
        assert len(service.accepted()) == jobs
        assert what_repeats(game.result()) == expected, game.attempts
        assert service.spent() == pytest.approx(charged)
        # One whose opening was not answered has no job, and ends by itself.
        assert "active" not in service.sessions().values()
    _nowhere(settings().token, folder)


def _nowhere(token: str, folder: Path) -> None:
    """The token is in no file of the run, nor in what it said."""
    for path in folder.rglob("*"):
        if path.is_file():
            assert token.encode() not in path.read_bytes(), path
