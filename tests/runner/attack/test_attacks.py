"""What hostile nodes publish, on models made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from circuits.errors import UsageError
from runner.attack.attacks import ATTACKS, SMALL, View, find_attack
from runner.update import LIMIT, Blocks


def blocks(*values: int) -> Blocks:
    return {"generator": np.array(values[:2]), "discriminator.0.weight": np.array(values[2:])}


START = blocks(0, 100, 1000, 2000, 3000)
TRAINED = blocks(10, 90, 1500, 2500, 2000)
POISONED = blocks(1, 1, 1, 1, 1)
NEIGHBOUR = blocks(7, 7, 7, 7, 7)


def view(round_: int = 3, first: Blocks | None = None) -> View:
    return View(
        round_,
        8,
        START,
        {0: TRAINED, 1: TRAINED},
        {0: NEIGHBOUR, 1: NEIGHBOUR} if round_ > 1 else {},
        first,
        train=lambda: TRAINED,
        poison=lambda share: POISONED,
        random=np.random.default_rng(0),
    )


def flat(model: Blocks) -> list[int]:
    return [*model["generator"].tolist(), *model["discriminator.0.weight"].tolist()]


def distance(a: Blocks, b: Blocks, name: str) -> float:
    return float(np.linalg.norm(a[name] - b[name]))


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("none", TRAINED),
        ("sign-flip", blocks(-10, 110, 500, 1500, 4000)),
        ("scaled", blocks(100, 0, 6000, 7000, -7000)),
        ("stale-aggregate", START),
        ("copy", NEIGHBOUR),
        ("colluding-flip", blocks(-10, 110, 500, 1500, 4000)),
        ("colluding-stale", START),
        ("poisoned", POISONED),
        ("flipped-generator", blocks(-10, 110, 1500, 2500, 2000)),
        ("moments", TRAINED),
        ("lying-grades", TRAINED),
    ],
)
def test_what_is_published(name: str, published: Blocks) -> None:
    assert flat(ATTACKS[name].publish(view())) == flat(published)


def test_the_first_round_has_no_last_models() -> None:
    assert flat(ATTACKS["copy"].publish(view(1))) == flat(START)
    assert flat(ATTACKS["stale-own"].publish(view(1))) == flat(TRAINED)
    assert flat(ATTACKS["stale-own"].publish(view(5, NEIGHBOUR))) == flat(NEIGHBOUR)


def test_noise_is_as_long_as_an_honest_movement_or_a_small_share_of_it() -> None:
    for name, share in (("noise", 1.0), ("stale-aggregate-noise", SMALL)):
        model = ATTACKS[name].publish(view())
        block = "discriminator.0.weight"
        assert distance(model, START, block) == pytest.approx(share * distance(TRAINED, START, block), rel=0.05)


def test_a_scaled_model_stays_one_that_a_file_may_hold() -> None:
    far = View(
        1, 8, START, {}, {}, None, train=lambda: blocks(LIMIT, 0, 0, 0, -LIMIT), poison=lambda share: POISONED,
        random=np.random.default_rng(0),
    )  # fmt: skip
    assert max(map(abs, flat(ATTACKS["scaled"].publish(far)))) == LIMIT


def test_colluders_grade_each_other_well_and_others_not() -> None:
    honest = {0: 80, 7: 1, 8: 1}
    assert ATTACKS["colluding-flip"].grades(honest, frozenset({7, 8, 9})) == {0: 0, 7: 100, 8: 100}
    assert ATTACKS["sign-flip"].grades(honest, frozenset({7, 8, 9})) == honest


def test_an_unknown_attack_gets_a_suggestion() -> None:
    with pytest.raises(UsageError, match="Did you mean 'poisoned'"):
        find_attack("poisened")
    with pytest.raises(UsageError, match="Known: none, sign-flip"):
        find_attack("xyzzy")
