"""Grades: who moves with the others is graded well, who does not is not, and hard faults give zero."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circuits.errors import UsageError
from runner.config import build_config
from runner.grades import Flat, Grade, Grader
from runner.settings import GradeSettings

SIZE, SIZE_G = 400, 40


def flat(d: np.ndarray, g: np.ndarray | None = None) -> Flat:
    return Flat(d, np.zeros(SIZE_G) if g is None else g)


class World:
    """Honest nodes move along a common direction with noise of their own; others as the test says."""

    def __init__(self, seed: int, honest: int = 7, noise: float = 0.8) -> None:
        self.rng = np.random.default_rng(seed)
        self.honest = honest
        self.noise = noise
        self.start = flat(self.rng.normal(size=SIZE), self.rng.normal(size=SIZE_G))
        self.grader = Grader(0)

    def models(self) -> dict[int, Flat]:
        common = self.rng.normal(size=SIZE)
        common_g = self.rng.normal(size=SIZE_G)
        return {
            k: flat(
                self.start.discriminator + common + self.noise * self.rng.normal(size=SIZE),
                self.start.generator + common_g + 0.2 * self.rng.normal(size=SIZE_G),
            )
            for k in range(self.honest)
        }

    def against(self, model: Flat, factor: float = -1.0) -> Flat:
        a = self.start
        return flat(
            a.discriminator + factor * (model.discriminator - a.discriminator),
            a.generator + factor * (model.generator - a.generator),
        )

    def grade(self, models: dict[int, Flat], losses: dict[int, float] | None = None) -> dict[int, Grade]:
        given_losses = dict.fromkeys(models, 0.5) | (losses or {})
        out = self.grader.review(self.start, models, given_losses)
        self.start = flat(
            np.mean([models[k].discriminator for k in range(self.honest)], axis=0),
            np.mean([models[k].generator for k in range(self.honest)], axis=0),
        )
        return out


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0.3, 0.8, 1.3]))
def test_honest_peers_get_good_grades_and_never_oneself(seed: int, noise: float) -> None:
    world = World(seed, noise=noise)
    for _ in range(3):
        grades = world.grade(world.models())
        assert set(grades) == set(range(1, 7))
        assert all(60 <= g.value <= 100 and not g.gated for g in grades.values())


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32))
def test_three_of_ten_who_agree_among_themselves_do_not_move_what_is_usual(seed: int) -> None:
    """They go their own way: a random one may by chance be the honest nodes' in part, and be graded for it."""
    world = World(seed)
    kept: list[np.ndarray] = []
    for _ in range(3):
        models = world.models()
        known = np.stack([m.discriminator for m in models.values()]) - world.start.discriminator
        kept.extend([known.mean(axis=0), known[0]])
        foreign = world.rng.normal(size=SIZE) * 1.3
        foreign -= np.linalg.lstsq(np.stack(kept).T, foreign)[0] @ np.stack(kept)
        for j in (7, 8, 9):
            models[j] = flat(world.start.discriminator + foreign + 0.01 * world.rng.normal(size=SIZE))
            models[j] = flat(models[j].discriminator, models[1].generator)
        grades = world.grade(models)
        assert all(grades[j].value < 30 for j in (7, 8, 9))
        assert all(grades[j].value > 60 for j in range(1, 7))


@pytest.mark.parametrize(
    "attack", ["sign flip", "scaled", "noise", "stale aggregate", "stale own", "copy", "generator"]
)
def test_attacks_are_graded_low(attack: str) -> None:
    world = World(3)
    first = world.models()
    first[7] = flat(first[4].discriminator + 0.5, first[4].generator)
    if attack == "noise":
        first[7] = flat(world.start.discriminator + world.rng.normal(size=SIZE), first[4].generator)
    world.grade(first)
    for _ in range(2):
        start = world.start
        models = world.models()
        honest = models[4]
        size = float(np.linalg.norm(honest.discriminator - start.discriminator))
        random = world.rng.normal(size=SIZE)
        match attack:
            case "sign flip":
                bad = world.against(honest)
            case "scaled":
                bad = world.against(honest, 10)
            case "noise":
                bad = flat(start.discriminator + random / np.linalg.norm(random) * size, honest.generator)
            case "stale aggregate":
                bad = start
            case "stale own":
                bad = flat(first[7].discriminator, honest.generator)
            case "copy":
                bad = flat(world.grader._known[2][-1].model.discriminator, honest.generator)
            case "generator":
                bad = flat(honest.discriminator, start.generator + 50)
        models[7] = bad
        first[7] = bad
        grades = world.grade(models)
        assert grades[7].value <= 15
        assert min(grades[k].value for k in range(1, 7)) > 60


def test_who_turns_round_late_is_graded_low_at_once() -> None:
    world = World(4)
    for _ in range(6):
        assert world.grade(world.models())[6].value > 60
    models = world.models()
    models[6] = world.against(models[6])
    assert world.grade(models)[6].value == 1


def test_a_generator_that_moves_backwards_behind_an_honest_discriminator_is_graded_low() -> None:
    world = World(6)
    models = world.models()
    models[6] = flat(models[6].discriminator, world.against(models[6]).generator)
    grades = world.grade(models)
    assert grades[6].value <= 5
    assert grades[5].value > 60


def foreign(j: int, cosine: float, seed: int) -> tuple[World, dict[int, Flat]]:
    """A round in which node j's movement has this cosine with the others', which are alike."""
    world = World(seed, noise=0.05)
    models = world.models()
    along = models[0].discriminator - world.start.discriminator
    size = float(np.linalg.norm(along))
    across = world.rng.normal(size=SIZE)
    across -= across @ along / size**2 * along
    across *= size / np.linalg.norm(across)
    moved = cosine * along + np.sqrt(1 - cosine**2) * across
    return world, {**models, j: flat(world.start.discriminator + moved, models[1].generator)}


def test_a_model_that_does_not_know_my_records_is_borne_with_if_it_moves_along() -> None:
    rule = GradeSettings()
    low, high = rule.alignment
    world, models = foreign(5, 0.95, 5)
    assert world.grade(models, {5: 9.0})[5].value == pytest.approx(
        100 * (0.95 - rule.loss_most - low) / (high - low), abs=3
    )
    world, models = foreign(5, 0.65, 5)
    assert world.grade(models, {5: 0.5 + rule.loss_free})[5].value == 100
    world, models = foreign(5, 0.65, 5)
    assert world.grade(models, {5: 9.0})[5] == Grade(1, gated=True)


def test_where_nobody_agrees_any_more_grades_fall_and_stay_fair() -> None:
    # Converged: movements are noise. Grades must not tell apart what cannot be told apart.
    world = World(7, noise=8.0)
    values = [g.value for _ in range(4) for g in world.grade(world.models()).values()]
    assert np.median(values) < 50


def test_an_even_larger_movement_than_usual_costs_by_its_square() -> None:
    world = World(8, noise=0.1)
    models = world.models()
    models[6] = world.against(models[6], 2.25)
    assert world.grade(models)[6].value == pytest.approx(100 / 1.5**2, abs=8)


def test_thresholds_come_from_the_config() -> None:
    config = build_config({"experiment": "nsl-kdd", "grades": {"loss_free": 0.1, "loss_price": 9.0, "loss_most": 1.0}})
    grader = Grader(0, config.grades)
    world = World(9)
    models = world.models()
    grades = grader.review(world.start, models, dict.fromkeys(models, 0.5) | {3: 0.75})
    assert grades[3] == Grade(1, gated=True)
    with pytest.raises(UsageError, match="alignment"):
        build_config({"experiment": "nsl-kdd", "grades": {"alignment": [0.5, 0.2]}})


def test_nobody_moved() -> None:
    start = flat(np.ones(4))
    grades = Grader(0).review(start, {0: start, 1: start}, {0: 1.0, 1: 1.0})
    assert 0 <= grades[1].value <= 100


def test_who_is_absent_is_not_graded_and_may_come_back() -> None:
    world = World(10)
    world.grade(world.models())
    models = world.models()
    del models[6]
    assert 6 not in world.grader.review(world.start, models, dict.fromkeys(models, 0.5))
    assert world.grade(world.models())[6].value > 30


def test_a_grader_without_a_model_of_its_own_gives_the_least() -> None:
    world = World(11)
    models = world.models()
    del models[0]
    grades = world.grader.review(world.start, models, dict.fromkeys(models, 0.5))
    assert {g.value for g in grades.values()} == {1}


def test_review_is_the_same_when_replayed() -> None:
    a, b = World(9), World(9)
    assert [a.grade(a.models()) for _ in range(3)] == [b.grade(b.models()) for _ in range(3)]


def test_the_blocks_fall_apart_by_name() -> None:
    got = Flat.of({"generator": np.array([1.0, 2]), "discriminator.0.bias": np.array([3.0])})
    assert got.generator.tolist() == [1, 2]
    assert got.discriminator.tolist() == [3]
