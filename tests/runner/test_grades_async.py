"""Grades where nobody waits: each model has a start of its own, and a slow node is held against its own time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.grades import KEPT, Flat, Grade, Grader

SIZE, SIZE_G = 400, 40
Start = tuple[int, Flat]


class World:
    """A path that all honest nodes train along: movements are long at first and turn as they go, as in training.

    Attributes:
        along: The common direction from a view on, of D and G together.
        place: Where the join of the newest models is in a view.
    """

    def __init__(self, seed: int, nodes: int = 7, views: int = 40, noise: float = 0.7) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes, self.noise = nodes, noise
        corners = self.rng.normal(size=(3, SIZE + SIZE_G))
        self.along = [corners[0] * max(0, 1 - v / 12) + corners[1] + corners[2] * min(1, v / 30) for v in range(views)]
        self.along = [w / np.linalg.norm(w) * (1 + 2 * np.exp(-v / 4)) for v, w in enumerate(self.along)]
        self.place = np.concatenate([np.zeros((1, SIZE + SIZE_G)), np.cumsum(self.along, axis=0)])
        self.grader = Grader(0)

    def start(self, view: int) -> Start:
        return view, flat(self.place[view])

    def model(self, view: int, factor: float = 1.0) -> Flat:
        """What an honest node makes of the start of a view; `factor` is how far along it goes."""
        own = self.rng.normal(size=SIZE + SIZE_G)
        size = np.linalg.norm(self.along[view])
        return flat(self.place[view] + factor * (self.along[view] + self.noise * size * own / np.linalg.norm(own)))

    def window(self, submitted: dict[int, int], **odd: tuple[Start, Flat]) -> dict[int, Grade]:
        """Grades of a window: node -> view of an honest model, and other models by node as j8=(start, model)."""
        starts = {k: self.start(view) for k, view in submitted.items()}
        models = {k: self.model(view) for k, view in submitted.items()}
        for name, (start, model) in odd.items():
            starts[int(name[1:])], models[int(name[1:])] = start, model
        return self.grader.review_new(starts, models, dict.fromkeys(models, 0.5), range(self.nodes + 3))


def flat(vector: np.ndarray) -> Flat:
    return Flat(vector[:SIZE], vector[SIZE:])


def all_but(world: World, *slow: int) -> range | list[int]:
    return [k for k in range(world.nodes) if k not in slow]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.lists(st.integers(1, 6), min_size=6, max_size=6), st.integers(0, 12))
def test_honest_nodes_get_good_grades_whatever_their_speeds(seed: int, speeds: list[int], away: int) -> None:
    """Node k submits every speeds[k] windows what it began so long ago; one is away for a while, in mid-training."""
    world = World(seed)
    begun = dict.fromkeys(range(7), 0)
    due = {0: 1} | {k: speeds[k - 1] for k in range(1, 7)}
    due[6] += away
    for number in range(1, 25):
        submitted = {k: begun[k] for k in range(7) if due[k] == number}
        for k, grade in world.window(submitted).items():
            assert grade.value >= 40, (number, k, grade)
            assert not grade.gated
        for k in submitted:
            begun[k], due[k] = number, number + (speeds[k - 1] if k else 1)


def test_a_window_with_one_model_has_a_measure() -> None:
    world = World(1)
    world.window(dict.fromkeys(range(7), 0))
    grades = world.window({3: 1})
    assert set(grades) == {3}
    assert grades[3].value > 60
    start = world.start(2)
    bad = flat(2 * world.place[2] - np.concatenate([world.model(2).discriminator, world.model(2).generator]))
    assert world.window({}, j4=(start, bad))[4].value == 1


def test_a_first_model_begun_long_ago_is_held_against_first_models() -> None:
    world = World(2)
    world.window(dict.fromkeys(all_but(world, 6), 0))
    for view in range(1, 9):
        world.window(dict.fromkeys(all_but(world, 6), view))
    # Of all that is newest it moves three times as far as the others do, and hardly along with them.
    assert np.linalg.norm(world.along[0]) > 2 * np.linalg.norm(world.along[8])
    assert world.window({6: 0})[6].value > 60


def test_who_has_submitted_nothing_grades_nobody_and_remembers_what_it_saw() -> None:
    world = World(3)
    assert not world.grader.has_moved
    assert world.window(dict.fromkeys(range(1, 7), 0)) == {}
    grades = world.window({0: 0, 5: 1})
    assert set(grades) == {5}
    assert grades[5].value > 60


def test_an_honest_node_that_goes_on_from_its_own_model_is_graded_well() -> None:
    world = World(4)
    world.window(dict.fromkeys(range(7), 0))
    own = world.grader._known[5][-1].model
    step = world.model(1, 1.0)
    moved = Flat(
        own.discriminator + step.discriminator - world.start(1)[1].discriminator,
        own.generator + step.generator - world.start(1)[1].generator,
    )
    assert world.window(dict.fromkeys(range(1, 5), 1), j5=((1, own), moved))[5].value > 60


@pytest.mark.parametrize("attack", ["sign flip", "scaled", "noise", "stale start", "stale own", "old copy", "leap"])
def test_attacks_are_found_in_windows_with_few_models(attack: str) -> None:
    world = World(5)
    # Noise that begins late is seen by its sum only.
    chance = world.rng.normal(size=(2, SIZE + SIZE_G)) / np.sqrt(SIZE)
    begins = flat(chance[0]) if attack == "noise" else world.model(0)
    world.window(dict.fromkeys(range(7), 0), j7=(world.start(0), begins))
    first, copied = world.grader._known[7][-1].model, world.grader._known[2][-1].model
    far = flat(world.place[1] + 10 * world.along[1])
    if attack == "leap":
        world.window({}, j7=(world.start(1), far))
    for view in range(1, 5):
        world.window({0: view, 1 + view % 6: view, 1 + (view + 3) % 6: view})
    view, start = world.start(5)
    match attack:
        case "sign flip":
            bad = world.model(5, -1)
        case "scaled":
            bad = world.model(5, 10)
        case "noise":
            bad = flat(world.place[5] + chance[1])
        case "stale start":
            bad = start
        case "stale own":
            bad = first
        case "old copy":
            bad = copied  # not its node's newest: two models have come after it
        case "leap":  # honest training, from its own model that is far away
            start = far
            bad = flat(world.place[1] + 10 * world.along[1] + world.along[5])
    assert world.window({1: 5}, j7=((view, start), bad))[7].value <= 15


def test_the_same_fast_start_twice_is_no_stale_model_and_the_same_model_is() -> None:
    world = World(6, noise=0.5)
    world.window(dict.fromkeys(range(7), 0))
    world.window(dict.fromkeys(range(7), 4))
    # Trained twice from one start the models are near each other: nearer than others' changes, farther than a copy.
    assert world.window({3: 4})[3].value > 60
    again = world.grader._known[3][-1].model
    assert world.window({}, j3=(world.start(5), again))[3] == Grade(0, True, "is one of its own models before")


def test_only_the_active_are_a_measure_and_memory_is_bounded() -> None:
    world = World(7, views=40)
    for view in range(30):
        world.window({0: view, 1: view, 2: view})
    assert {len(known) for known in world.grader._known.values()} == {KEPT}
    world.grader.review_new({0: world.start(30)}, {0: world.model(30)}, {0: 0.5}, [0, 1])
    assert set(world.grader._known) == {0, 1}


def test_lockstep_is_graded_as_in_lockstep() -> None:
    """Where all submit to all windows, from one start, the rule is that of rounds."""
    world, other = World(8), Grader(0)
    for view in range(5):
        models = {k: world.model(view) for k in range(7)}
        losses = dict.fromkeys(models, 0.5)
        starts = dict.fromkeys(models, world.start(view))
        assert world.grader.review_new(starts, models, losses, range(7)) == other.review(starts[0][1], models, losses)


def test_replayed_it_is_the_same() -> None:
    def play() -> list[dict[int, Grade]]:
        world = World(9)
        return [world.window(dict.fromkeys(range(7), 0)), world.window({0: 1, 4: 0}), world.window({2: 1})]

    assert play() == play()
