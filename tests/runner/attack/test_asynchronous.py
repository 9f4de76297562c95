"""The federation in virtual time, on small vectors: slow and absent honest nodes stay, attacks are found."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circuits.errors import UsageError
from runner.attack import asynchronous
from runner.attack.asynchronous import AWAY, FASTEST, SLOWEST, TICKS, Pace, paces, simulate
from runner.attack.attacks import ATTACKS, RARELY
from runner.attack.cells import Cell
from runner.attack.pool import Job, play
from runner.attack.run import QUICK_WINDOWS, request
from runner.attack.simulate import Outcome
from runner.attack.world import World
from tests.runner.attack.toy import toy

HOSTILE = frozenset({7, 8, 9})
PACE = st.builds(
    lambda training, leaves, length: Pace(training, leaves, leaves + length),
    st.integers(200, 5000),
    st.integers(0, 12_000),
    st.sampled_from([0, 0, 3000, 6000]),
)


def attacked(name: str, seed: int) -> Outcome:
    world: Any = toy(seed)
    return simulate(world, ATTACKS[name], HOSTILE, "reputation")


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.lists(PACE, min_size=7, max_size=7))
def test_honest_nodes_of_any_speed_are_never_excluded(seed: int, pace: list[Pace]) -> None:
    world: Any = toy(seed, nodes=7, rounds=14, quorum=5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asynchronous, "paces", lambda *_: dict(enumerate(pace)))
        outcome = simulate(world, ATTACKS["none"], frozenset(), "reputation")
    assert outcome.honest_excluded == 0
    assert outcome.honest_flagged == 0
    assert outcome.slow == (sum(p.slow for p in pace), 0, 0)


FOUND = {  # attack -> own models within which all three are flagged, and excluded, on this toy
    "sign-flip": (3, 7),
    "scaled": (3, 5),
    "stale-aggregate": (3, 5),
    "stale-own": (3, 5),
    "copy": (3, 5),
    "colluding-flip": (3, 7),
    "colluding-stale": (3, 5),
    "late-stale": (3, 5),
    "lying-grades": (3, 7),
    "hermit-poisoned": (5, 8),
    "leap": (3, 5),
    "flood-flip": (5, 9),
    "flood-lies": (6, 9),
    "flood-flip-lies": (6, 9),
}


@pytest.mark.parametrize("name", FOUND)
def test_attacks_are_found_and_honest_nodes_kept(name: str) -> None:
    flag, exclude = FOUND[name]
    for seed in (31, 32):
        outcome = attacked(name, seed)
        assert outcome.honest_excluded == 0
        assert set(outcome.flagged) == set(outcome.excluded) == HOSTILE
        assert max(outcome.flagged.values()) <= flag
        assert max(outcome.excluded.values()) <= exclude


def test_a_sleeper_is_flagged_and_loses_its_weight() -> None:
    outcome = attacked("sleeper", 33)
    assert max(outcome.flagged.values()) <= 3
    assert set(outcome.flagged) == HOSTILE
    assert all(outcome.settlements[-1].standings[i].reputation < 5000 for i in HOSTILE)


def test_the_fast_have_no_say_alone_before_a_quorum_was_scored() -> None:
    """Liars who are in every window are scored before most honest nodes; alone they would exclude them all."""
    for seed in range(40, 46):
        assert attacked("flood-lies", seed).honest_excluded == 0


def test_it_comes_out_the_same_again_and_alone_settles_nothing() -> None:
    assert attacked("poisoned", 34) == attacked("poisoned", 34)
    world: Any = toy(34)
    alone = simulate(world, ATTACKS["none"], HOSTILE, "mean", alone=True)
    assert alone.settlements == ()
    assert (alone.flagged, alone.honest_flagged) == ({}, 0)


def test_who_is_away_stands_still() -> None:
    pace = Pace(1000, 3000, 7000)
    assert [pace.done(t) for t in (0, 2000, 2001, 2500, 7000)] == [1000, 3000, 7001, 7500, 8000]
    assert [pace.present(t) for t in (2999, 3000, 6999, 7000)] == [2999, 7000, 7000, 7000]
    assert pace.slow
    assert not Pace(2000).slow
    assert Pace(2001).slow


def test_paces_are_of_the_seed_and_honest_ones_of_no_attack() -> None:
    of = partial(paces, 5, 10, HOSTILE, windows=20)
    plain, flood = of(attack=ATTACKS["sign-flip"]), of(attack=ATTACKS["flood-flip"])
    honest = [i for i in range(10) if i not in HOSTILE]
    assert all(plain[i] == flood[i] for i in honest)
    assert all(TICKS * FASTEST <= plain[i].training <= TICKS * SLOWEST for i in honest)
    assert sum(plain[i].back > plain[i].leaves for i in honest) == 2
    assert all(AWAY[0] <= p.back - p.leaves < AWAY[1] for p in plain.values() if p.back > p.leaves)
    assert all(TICKS <= plain[i].training <= 2 * TICKS and flood[i].training == 0 for i in HOSTILE)
    assert of(attack=ATTACKS["sleeper"])[7].training == RARELY * TICKS


def test_all_attacks_play_on_data(data_dir: Path) -> None:
    options = {"nodes": 3, "rounds": 3, "qubits": 2, "steps_per_epoch": 2, "backend": "ideal", "schedule": "async"}
    asked = request("nsl-kdd", options, file=None, bad=1, seeds=1, jobs=1)
    world = World.build(asked.config, data_dir)
    for name in asked.attacks:
        outcome = simulate(world, ATTACKS[name], frozenset({2}), "reputation")
        assert 0 <= outcome.auroc <= 1, name
        assert len(outcome.settlements) == 3
    line = play(Job(asked.config, 1, data_dir), Cell("iid", 0, "hermit", "reputation"))
    assert line.slow is not None
    assert len(line.flagged) == 1


def asked(**changes: Any) -> Any:
    values = {"bad": 3, "seeds": 1, "jobs": 1, "file": None, "options": {"schedule": "async"}, **changes}
    return request("nsl-kdd", values.pop("options"), **values)


def test_what_is_asked_for_by_schedule(tmp_path: Path) -> None:
    found = asked()
    assert set(found.attacks) == {a.name for a in ATTACKS.values() if not a.made_up}
    assert found.config.federation.asynchronous
    assert (found.config.rounds, found.config.federation.quorum) == (20, 7)
    assert asked(bad=2).config.federation.quorum == 5
    plain = asked(options={})
    assert set(plain.attacks) == {a.name for a in ATTACKS.values() if not a.schedule}
    assert (plain.config.rounds, plain.config.federation.quorum) == (10, None)
    file = tmp_path / "run.toml"
    file.write_text('rounds = 6\n[federation]\nschedule = "async"\nquorum = 4\nage_discount = 1.0\n')
    given_ = asked(options={}, file=file)
    assert (given_.config.rounds, given_.config.federation.quorum) == (6, 4)
    assert given_.config.federation.age_discount == 1.0
    assert QUICK_WINDOWS < 20


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"options": {}, "attacks": ("hermit",)}, "Add --schedule async"),
        ({"options": {"schedule": "asynk"}}, "should be 'sync' or 'async'"),
        ({"options": {"schedule": "sync"}, "attacks": ("leap",)}, "leap is of nodes that do not wait"),
        ({"attacks": ("hermitt",)}, "Did you mean 'hermit'"),
    ],
)
def test_what_a_schedule_does_not_have_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        asked(**changes)


def test_noise_with_nothing_to_measure_it_by_is_as_long_as_ones_own_movement() -> None:
    world: Any = toy(1)
    attack = replace(ATTACKS["noise"], windows=0)  # first of all to submit
    assert simulate(world, attack, HOSTILE, "reputation").honest_excluded == 0
