"""What a hostile node does. An attack is a behaviour of all hostile nodes of a federation; ATTACKS has them by name.

Hostile nodes publish last in a round and see what the honest ones published: what the contract cannot prevent, they
may use. `View` is all that they know; `train` costs what training costs, and only who needs it calls it.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from circuits.errors import UsageError
from runner.update import LIMIT, Blocks

Grades = dict[int, int]


@dataclass(frozen=True)
class View:
    """What a hostile node sees when it is about to publish.

    Attributes:
        round: From 1.
        node: Its index.
        start: The aggregate that it would train from.
        honest: This round's models of the honest nodes.
        last: Everybody's models of the round before; empty in round 1.
        first: What it published itself in round 1; None in round 1.
        train: Trains from `start` on the node's own records, as an honest node does; gives the model.
        poison: The same with a share of attack records, 0 to 1, in place of benign ones.
        random: Its own randomness in this round.
    """

    round: int
    node: int
    start: Blocks
    honest: Mapping[int, Blocks]
    last: Mapping[int, Blocks]
    first: Blocks | None
    train: Callable[[], Blocks]
    poison: Callable[[float], Blocks]
    random: np.random.Generator


Publish = Callable[[View], Blocks]


@dataclass(frozen=True)
class Attack:
    """A behaviour of hostile nodes.

    Attributes:
        name: As on the command line.
        summary: What it is, in a line.
        publish: The model that a hostile node publishes.
        begins: The round from which it misbehaves; before, it is honest.
        colluding: Whether hostile nodes grade each other 100 and everybody else 0; else they grade honestly.
        made_up: What a hostile node puts into the sums of round 0 in place of its records: "extremes" of every
            column, or "attacks"; "" where it is honest there.
        claims: So many times its number of records it does so.
        schedule: "async" where it is one of nodes that do not wait for each other, and of those only; else "".
        windows: How long a hostile node takes for a model, in windows, where nobody waits; None: one or two, by chance.
        alone: Whether it names nothing but its own last model as what it starts from, where nobody waits.
    """

    name: str
    summary: str
    publish: Publish
    begins: int = 1
    colluding: bool = False
    made_up: str = ""
    claims: int = 1
    schedule: str = ""
    windows: int | None = None
    alone: bool = False

    @property
    def honest_throughout(self) -> bool:
        """Whether all nodes are honest in all rounds: there is nobody to find."""
        return self.begins == NEVER

    def grades(self, honest: Grades, hostile: frozenset[int]) -> Grades:
        """What a hostile node grades, given what it would grade honestly."""
        return {j: 100 if j in hostile else 0 for j in honest} if self.colluding else honest


def _train(view: View) -> Blocks:
    return view.train()


def _poison(view: View) -> Blocks:
    return view.poison(1.0)


def _poison_half(view: View) -> Blocks:
    return view.poison(0.5)


def _along(start: Blocks, model: Blocks, factor: int) -> Blocks:
    """start + factor (model - start), within what a model file may hold."""
    return {name: np.clip(start[name] + factor * (model[name] - start[name]), -LIMIT, LIMIT) for name in start}


def _flip(view: View) -> Blocks:
    return _along(view.start, view.train(), -1)


def _scale(view: View) -> Blocks:
    return _along(view.start, view.train(), 10)


def _noise(view: View, model: Blocks, share: float) -> Blocks:
    """`model` and Gaussian noise, in every block as long as `share` of the honest nodes' median movement in it."""
    out = {}
    for name, block in model.items():
        seen = list(view.honest.values()) or [view.train()]  # where nobody waits, there may be none yet
        moves = [np.linalg.norm((m[name] - view.start[name]).astype(np.float64)) for m in seen]
        random = view.random.normal(size=block.shape)
        size = float(np.median(moves)) * share
        out[name] = block + np.rint(random * (size / max(float(np.linalg.norm(random)), 1e-12))).astype(np.int64)
    return out


def _random(view: View) -> Blocks:
    return _noise(view, view.start, 1.0)


def _stale_aggregate(view: View) -> Blocks:
    return view.start


def _stale_aggregate_noise(view: View) -> Blocks:
    return _noise(view, view.start, SMALL)


def _stale_own(view: View) -> Blocks:
    return view.train() if view.first is None else view.first


def _stale_own_noise(view: View) -> Blocks:
    return view.train() if view.first is None else _noise(view, view.first, SMALL)


def _neighbour(view: View) -> Blocks:
    """The last model of an honest node, each hostile node another's; in round 1 there is only the aggregate."""
    nodes = sorted(j for j in view.honest if j in view.last)
    return view.last[nodes[view.node % len(nodes)]] if nodes else view.start


def _neighbour_noise(view: View) -> Blocks:
    return _noise(view, _neighbour(view), SMALL)


def _leap(view: View) -> Blocks:
    return _scale(view) if view.round == 1 else view.train()


def _flipped_generator(view: View) -> Blocks:
    """An honest discriminator, and a generator that moved the other way."""
    model = view.train()
    back = _along(view.start, model, -1)
    return {name: back[name] if name.startswith("generator") else block for name, block in model.items()}


SMALL = 0.1
"""Length of the noise that hides a stale model, of the honest nodes' median movement."""

NEVER = 10**9

LATE = 6
"""The round from which late starters misbehave."""

RARELY = 4
"""Windows that a sleeper lets pass."""

_ALL = (
    Attack("none", "all nodes are honest: what the rule costs them", _train, begins=NEVER),
    Attack("sign-flip", "publishes a - (p - a): the aggregate moved the other way", _flip),
    Attack("scaled", "publishes a + 10 (p - a)", _scale),
    Attack("noise", "publishes a and Gaussian noise as long as an honest movement", _random),
    Attack("stale-aggregate", "publishes the aggregate it started from", _stale_aggregate),
    Attack("stale-aggregate-noise", "the same with a little noise", _stale_aggregate_noise),
    Attack("stale-own", "publishes its model of round 1 again and again", _stale_own, begins=2),
    Attack("stale-own-noise", "the same with a little noise", _stale_own_noise, begins=2),
    Attack("copy", "publishes an honest node's last model", _neighbour),
    Attack("copy-noise", "the same with a little noise", _neighbour_noise),
    Attack("colluding-flip", "sign-flip; 100 for each other, 0 for the rest", _flip, colluding=True),
    Attack("colluding-stale", "stale-aggregate; 100 for each other, 0 for the rest", _stale_aggregate, colluding=True),
    Attack("poisoned", "trains on records of attacks as if they were benign", _poison),
    Attack("colluding-poisoned", "poisoned; 100 for each other, 0 for the rest", _poison, colluding=True),
    Attack(
        "moments",
        "made-up extreme records in the sums of round 0, then honest",
        _train,
        begins=NEVER,
        made_up="extremes",
    ),
    Attack("moments-heavy", "the same, 100 times as many", _train, begins=NEVER, made_up="extremes", claims=100),
    Attack(
        "moments-attacks",
        "attack records in those sums, 10 times as many",
        _train,
        begins=NEVER,
        made_up="attacks",
        claims=10,
    ),
    Attack("late-flip", f"sign-flip from round {LATE}", _flip, begins=LATE),
    Attack("late-stale", f"stale-aggregate from round {LATE}", _stale_aggregate, begins=LATE),
    Attack("late-poisoned", f"poisoned from round {LATE}", _poison, begins=LATE),
    Attack("flipped-generator", "an honest discriminator, a generator moved the other way", _flipped_generator),
    Attack("half-poisoned", "trains on its own records and as many of attacks", _poison_half),
    Attack("lying-grades", "honest models; 100 for each other, 0 for the rest", _train, colluding=True),
    Attack("hermit", "trains from its own last model alone", _train, schedule="async", alone=True),
    Attack("hermit-poisoned", "the same on records of attacks", _poison, schedule="async", alone=True),
    Attack(
        "leap",
        "first a + 10 (p - a), then honest training from its own last model alone",
        _leap,
        schedule="async",
        alone=True,
    ),
    Attack("flood-flip", "sign-flip in every window, however slow the others are", _flip, schedule="async", windows=0),
    Attack("flood-poisoned", "poisoned in every window", _poison, schedule="async", windows=0),
    Attack(
        "flood-lies",
        "honest models in every window; 100 for each other, 0 for the rest",
        _train,
        colluding=True,
        schedule="async",
        windows=0,
    ),
    Attack(
        "flood-flip-lies",
        "sign-flip in every window; 100 for each other, 0 for the rest",
        _flip,
        colluding=True,
        schedule="async",
        windows=0,
    ),
    Attack(
        "sleeper",
        f"two honest models, then sign-flip; {RARELY} windows between any two",
        _flip,
        begins=3,
        schedule="async",
        windows=RARELY,
    ),
)
ATTACKS: dict[str, Attack] = {attack.name: attack for attack in _ALL}


def find_attack(name: str) -> Attack:
    """The attack of that name.

    Raises:
        UsageError: unknown, with the nearest one.
    """
    if name not in ATTACKS:
        close = difflib.get_close_matches(name, ATTACKS, n=1)
        raise UsageError(
            f"unknown attack {name!r}.", f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(ATTACKS)}."
        )
    return ATTACKS[name]
