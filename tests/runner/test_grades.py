"""Grades: who moves with me is graded well, who does not is not, and hard faults give zero."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.grades import Flat, Grader

SIZE = 200


def flat(d: np.ndarray, g: np.ndarray | None = None) -> Flat:
    return Flat(d, np.zeros(5) if g is None else g)


class World:
    """Honest nodes move along a common direction with noise of their own; others as the test says."""

    def __init__(self, seed: int, honest: int = 5, noise: float = 0.5) -> None:
        self.rng = np.random.default_rng(seed)
        self.honest = honest
        self.noise = noise
        self.start = flat(self.rng.normal(size=SIZE), self.rng.normal(size=5))
        self.grader = Grader(0)

    def models(self) -> dict[int, Flat]:
        common = self.rng.normal(size=SIZE)
        common_g = self.rng.normal(size=5)
        return {
            k: flat(
                self.start.discriminator + common + self.noise * self.rng.normal(size=SIZE),
                self.start.generator + common_g + 0.2 * self.rng.normal(size=5),
            )
            for k in range(self.honest)
        }

    def grade(self, models: dict[int, Flat], losses: dict[int, float] | None = None) -> dict[int, object]:
        given_losses = dict.fromkeys(models, 0.5) | (losses or {})
        out = self.grader.review(self.start, models, given_losses, 0.5)
        self.start = flat(
            np.mean([models[k].discriminator for k in range(self.honest)], axis=0),
            np.mean([models[k].generator for k in range(self.honest)], axis=0),
        )
        return out


@given(st.integers(0, 2**32))
def test_honest_peers_get_good_grades_and_never_oneself(seed: int) -> None:
    world = World(seed)
    for _ in range(3):
        grades = world.grade(world.models())
        assert set(grades) == {1, 2, 3, 4}
        assert all(40 <= g.value <= 100 and not g.gated for g in grades.values())


@pytest.mark.parametrize("attack", ["sign flip", "scaled", "stale aggregate", "stale own", "copy", "generator"])
def test_attacks_are_graded_low(attack: str) -> None:
    world = World(3)
    first = world.models()
    first[5] = flat(first[4].discriminator + 0.5, first[4].generator)
    world.grade(first)
    for _ in range(2):
        start = world.start
        models = world.models()
        honest = models[4]
        match attack:
            case "sign flip":
                bad = flat(2 * start.discriminator - honest.discriminator, honest.generator)
            case "scaled":
                bad = flat(start.discriminator + 10 * (honest.discriminator - start.discriminator), honest.generator)
            case "stale aggregate":
                bad = start
            case "stale own":
                bad = flat(first[5].discriminator, honest.generator)
            case "copy":
                bad = flat(world.grader._last[2].discriminator, honest.generator)
            case "generator":
                bad = flat(honest.discriminator, start.generator + 50)
        models[5] = bad
        first[5] = bad
        grades = world.grade(models)
        assert grades[5].value <= 1
        assert min(grades[k].value for k in range(1, 5)) > 30


def test_harm_on_my_records_costs_the_grade_and_the_weight() -> None:
    world = World(5)
    models = world.models()
    start = world.start
    models[4] = flat(start.discriminator + 1.8 * (models[4].discriminator - start.discriminator), models[4].generator)
    grade = world.grade(models, {4: 2.0})[4]
    assert grade.value == 1
    assert grade.gated


def test_nobody_moved() -> None:
    start = flat(np.ones(4))
    grades = Grader(0).review(start, {0: start, 1: start}, {0: 1.0, 1: 1.0}, 1.0)
    assert 0 <= grades[1].value <= 100


def test_review_is_the_same_when_replayed() -> None:
    a, b = World(9), World(9)
    assert [a.grade(a.models()) for _ in range(3)] == [b.grade(b.models()) for _ in range(3)]


def test_the_blocks_fall_apart_by_name() -> None:
    got = Flat.of({"generator": np.array([1.0, 2]), "discriminator.0.bias": np.array([3.0])})
    assert got.generator.tolist() == [1, 2]
    assert got.discriminator.tolist() == [3]
