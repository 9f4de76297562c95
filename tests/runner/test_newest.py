"""Newest models: who follows decision 9's rule passes every check, and who does not is refused, in random histories.

The rule is written a second time here (`Oracle`), as slowly and as plainly as it goes; a model that was changed at one
place has to be taken or refused by both alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from contracts.cid import cid_of
from contracts.errors import ContentError
from contracts.records import Submission
from runner.aggregate import aggregate
from runner.config import RunConfig
from runner.newest import NewestModels
from runner.publishing import common_model
from runner.update import Blocks, Input, Update, blocks_digest
from tests.runner.small_federation import small_config

SHAPES = {"discriminator0": (3,), "generator0": (2,)}
MAP = str(cid_of(b"a map"))


@dataclass
class Memory:
    """A content store that files can be taken out of."""

    files: dict[str, bytes] = field(default_factory=dict)

    def put(self, data: bytes) -> str:
        cid = str(cid_of(data))
        self.files[cid] = data
        return cid

    def get(self, cid: str, *, max_bytes: int) -> bytes:
        if cid not in self.files:
            raise ContentError(f"no {cid}")
        return self.files[cid]

    def has(self, cid: str) -> bool:
        return cid in self.files


@dataclass(frozen=True)
class Settled:
    reputation: tuple[int, ...]
    low: frozenset[int]
    excluded: frozenset[int]

    def weights(self) -> dict[int, int]:
        return {i: 0 if i in self.low else r for i, r in enumerate(self.reputation)}


@dataclass
class Window:
    active: frozenset[int]
    submissions: dict[int, Submission] = field(default_factory=dict)
    settled: Settled | None = None


@dataclass
class Log:
    """What a contract has said, written by hand."""

    windows: dict[int, Window] = field(default_factory=dict)
    chain: Any = field(default_factory=lambda: SimpleNamespace(chain_id=1))
    address: str = "0x" + "0a" * 20

    def rounds(self) -> list[int]:
        return sorted(self.windows)

    def settled_rounds(self) -> int:
        return max((r for r, w in self.windows.items() if w.settled is not None), default=0)

    def active(self, round_: int) -> frozenset[int]:
        return self.windows[round_].active

    def submissions(self, round_: int) -> list[Submission]:
        known = self.windows.get(round_)
        return [] if known is None else [s for _, s in sorted(known.submissions.items())]

    def submission(self, round_: int, node: int) -> Submission | None:
        return self.windows[round_].submissions.get(node)

    def settlement(self, round_: int) -> Settled | None:
        return self.windows[round_].settled

    def submit(self, round_: int, node: int, cid: str) -> None:
        self.windows[round_].submissions[node] = Submission(round_, node, cid, {}, {}, cid, f"0x{round_}{node}", round_)


class Unsigned(NewestModels):
    """Signatures are another test's matter."""

    def _check_author(self, submission: Submission) -> None: ...


@dataclass
class World:
    """A task under way: its log and its store."""

    config: RunConfig
    log: Log = field(default_factory=Log)
    store: Memory = field(default_factory=Memory)

    def __post_init__(self) -> None:
        self.common: Blocks = {name: np.full(shape, 5, dtype=np.int64) for name, shape in SHAPES.items()}
        self.start_cid = self.store.put(common_model(self.config, MAP, 0, self.common, ()))

    def models(self) -> Unsigned:
        """As a peer has them that has just come."""
        store: Any = self.store
        log: Any = self.log
        made = Unsigned(self.config, log, store, SHAPES, MAP, self.start_cid)
        made.look()
        return made

    def update(self, round_: int, node: int) -> Update | None:
        """What a node submitted."""
        models, said = self.models(), self.log.submission(round_, node)
        assert said is not None
        return models.own(said.cid)

    def file(self, update: Update) -> str:
        return self.store.put(update.to_bytes())

    def make(self, round_: int, node: int, view: int, gated: set[int], values: int) -> Update:
        """What a node that follows the rule makes, having looked when round `view` was the last settled one."""
        models = self.models()
        start, inputs = models.start(models.state(view, node, round_), node, gated)
        rng = np.random.default_rng(values)
        blocks = {name: rng.integers(-1000, 1000, shape) for name, shape in SHAPES.items()}
        number = models.sequence(node, round_) + 1
        return Update(self.config.digest.hex(), MAP, number, node, blocks, inputs, blocks_digest(start), view)


class Oracle:
    """Decision 9's rule, word by word."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.log = world.log
        self._known: dict[tuple[int, int], Update | None] = {}

    def sound(self, round_: int, node: int) -> Update | None:
        """A submitted model if it follows the rule."""
        key = (round_, node)
        if key not in self._known:
            update = self.world.update(round_, node)
            assert update is not None
            self._known[key] = update if self.allows(round_, node, update) else None
        return self._known[key]

    def newest(self, node: int, last: int) -> tuple[str, Update] | None:
        for round_ in range(last, 0, -1):
            said = self.log.submission(round_, node)
            if said is not None and (update := self.sound(round_, node)) is not None:
                return said.cid, update
        return None

    def allows(self, round_: int, node: int, update: Update) -> bool:
        view = update.view
        earlier = [r for r in range(1, round_) if self.log.submission(r, node) is not None]
        own = self.newest(node, round_ - 1)
        if view is None or view >= round_ or update.round != len(earlier) + 1 or update.node != node:
            return False
        if own is not None and view < (own[1].view or 0):
            return False
        sources = self.sources(view, node, own)
        if not sources:
            common = Input(self.world.start_cid, 1)
            return update.inputs == (common,) and update.start == blocks_digest(self.world.common)
        return self.joins(update, view, sources)

    def sources(self, view: int, node: int, own: tuple[str, Update] | None) -> dict[int, tuple[str, Update]]:
        """What a node may join that looked when round `view` was the last settled one."""
        settled = self.log.settlement(view) if view else None
        left = frozenset() if settled is None else self.log.active(view) - settled.excluded
        found = {j: model for j in sorted(left) if (model := self.newest(j, view)) is not None}
        found.pop(node, None)
        return found if own is None else {**found, node: own}

    def joins(self, update: Update, view: int, sources: dict[int, tuple[str, Update]]) -> bool:
        """Whether the inputs are some of these as they weigh, or the node's own alone, and the start is their join."""
        settled, node = self.log.settlement(view) if view else None, update.node
        ages = {j: max(0, view - ((m.view or 0) + 1)) for j, (_, m) in sources.items()}
        weights = {}
        for j in sources:
            reputation = 0 if settled is None or j in settled.low else settled.reputation[j]
            weights[j] = self.discounted(reputation, ages[j])
        if not any(weights.values()):
            weights = dict.fromkeys(weights, 1)
        entries = {j: Input(cid, weights[j], ages[j]) for j, (cid, _) in sources.items()}
        named = {i.cid: j for j, i in entries.items()}
        order = [named.get(i.cid, -1) for i in update.inputs]
        if not order or -1 in order or order != sorted(set(order)):
            return False
        alone = order == [node] and update.inputs == (replace(entries[node], weight=1),)
        if not alone and any(entries[j] != i or not i.weight for j, i in zip(order, update.inputs, strict=True)):
            return False
        blocks = [sources[j][1].blocks for j in order]
        start = blocks[0] if len(blocks) == 1 else aggregate(blocks, [i.weight for i in update.inputs])
        return update.start == blocks_digest(start)

    def discounted(self, reputation: int, age: int) -> int:
        """floor(R / (1 + age)^a), but 1 where R is anything, by trying."""
        power = self.world.config.federation.age_discount
        if not reputation:
            return 0
        double = {0.0: 0, 0.5: 1, 1.0: 2}[power or 0.0]
        n = 0
        while (n + 1) ** 2 * (1 + age) ** double <= reputation**2:
            n += 1
        return max(1, n)


CONFIGS = {
    power: small_config(4, 9, schedule="async", age_discount=power, window_seconds=60, quorum=2)
    for power in (0.0, 0.5, 1.0)
}
NODES = 4


@st.composite
def histories(draw: st.DrawFn) -> World:
    """Windows with models of whoever came, all by the rule; some that a hostile node made are between them."""
    world = World(CONFIGS[draw(st.sampled_from(sorted(CONFIGS)))])
    active = frozenset(range(NODES))
    last = draw(st.integers(1, 5))
    for round_ in range(1, last + 1):
        window = world.log.windows[round_] = Window(active)
        for node in sorted(draw(st.sets(st.sampled_from(sorted(active))))):
            models = world.models()
            own = models.state(0, node, round_).models.get(node)
            least = 0 if own is None or own.update is None else own.update.view or 0
            view = draw(st.integers(least, round_ - 1))
            gated = draw(st.sets(st.integers(0, NODES - 1), max_size=2))
            update = world.make(round_, node, view, gated, draw(st.integers(0, 2**32)))
            if draw(st.integers(0, 9)) == 0:
                update = replace(update, start="0" * 64)
            world.log.submit(round_, node, world.file(update))
        if round_ < last or draw(st.booleans()):
            reputation = tuple(draw(st.lists(st.integers(0, 40), min_size=NODES, max_size=NODES)))
            low = frozenset(draw(st.sets(st.integers(0, NODES - 1), max_size=2)))
            gone = frozenset({draw(st.sampled_from(sorted(active)))}) if draw(st.integers(0, 9)) == 0 else frozenset()
            window.settled = Settled(reputation, low, gone)
            active = active - gone or active
    return world


def submitted(world: World) -> Iterator[tuple[int, int]]:
    for round_, window in sorted(world.log.windows.items()):
        for node in sorted(window.submissions):
            yield round_, node


LOOSE = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


@LOOSE
@given(histories())
def test_who_follows_the_rule_passes_and_all_come_to_the_same(world: World) -> None:
    oracle, models = Oracle(world), world.models()
    for round_, node in submitted(world):
        found, wanted = models.published(round_)[node], oracle.sound(round_, node)
        assert (found.update is None) == (wanted is None), found.fault
        made = world.update(round_, node)
        assert made is not None
        assert (wanted is None) == (made.start == "0" * 64)
    last = world.log.settled_rounds()
    # Whoever looks later, with nothing in memory, has the same aggregate and the same starts.
    base, blocks, inputs = models.aggregate(last)
    again = world.models().aggregate(last)
    assert (base, inputs) == (again[0], again[2])
    assert blocks_digest(blocks) == blocks_digest(again[1])
    for round_ in world.log.rounds():
        starts = {j: (view, blocks_digest(start)) for j, (view, start) in models.starts(round_).items()}
        for node, (view, digest) in starts.items():
            made = world.update(round_, node)
            assert made is not None
            assert (view, digest) == (made.view, made.start)


@LOOSE
@given(histories(), st.data())
def test_who_was_there_from_the_first_window_on_sees_what_a_late_one_sees(world: World, draw: st.DataObject) -> None:
    whole, growing = world.log, Log()
    store: Any = world.store
    log: Any = growing
    there = Unsigned(world.config, log, store, SHAPES, MAP, world.start_cid)
    for round_, window in sorted(whole.windows.items()):
        growing.windows[round_] = open_ = Window(window.active)
        for node, said in sorted(window.submissions.items()):
            open_.submissions[node] = said
            if draw.draw(st.booleans()):  # looks, or does not
                there.published(round_)
                there.state(there.settled(), node)
        there.published(round_)
        open_.settled = window.settled
        if draw.draw(st.booleans()):
            there.aggregate(growing.settled_rounds())
    late, last = world.models(), whole.settled_rounds()
    for round_ in whole.rounds():
        seen, found = there.published(round_), late.published(round_)
        assert {j: p.fault for j, p in seen.items()} == {j: p.fault for j, p in found.items()}
    assert there.aggregate(last)[2] == late.aggregate(last)[2]
    for node in range(NODES):
        assert there.sequence(node) == late.sequence(node)
        assert there.state(last, node).inputs == late.state(last, node).inputs


KINDS = (
    "view",
    "sequence",
    "age",
    "weight",
    "older",
    "left out",
    "twice",
    "order",
    "start",
    "another node",
    "schedule",
)


def changed(draw: st.DataObject, world: World, round_: int, node: int, kind: str) -> Update:
    """The model with one thing changed."""
    update = world.update(round_, node)
    assert update is not None
    inputs = list(update.inputs)
    place = draw.draw(st.integers(0, len(inputs) - 1))
    if kind == "view":
        return replace(update, view=draw.draw(st.integers(0, 7).filter(lambda v: v != update.view)))
    if kind == "sequence":
        return replace(update, round=draw.draw(st.integers(1, 7).filter(lambda n: n != update.round)))
    if kind == "age":
        other = draw.draw(st.integers(0, 6).filter(lambda a: a != inputs[place].age))
        inputs[place] = replace(inputs[place], age=other)
    elif kind == "weight":
        other = draw.draw(st.integers(1, 45).filter(lambda w: w != inputs[place].weight))
        inputs[place] = replace(inputs[place], weight=other)
    elif kind == "older":
        models = [s.cid for r, w in world.log.windows.items() for s in w.submissions.values() if r < round_]
        others = [cid for cid in models if cid not in {i.cid for i in inputs}]
        inputs[place] = replace(inputs[place], cid=draw.draw(st.sampled_from(others)))
    elif kind == "left out":
        del inputs[place]
    elif kind == "twice":
        inputs.insert(place, inputs[place])
    elif kind == "order":
        inputs.reverse()
    elif kind == "start":
        return replace(update, start="1" * 64)
    elif kind == "another node":
        return replace(update, node=(update.node + 1) % NODES)
    else:
        return replace(update, view=None, inputs=tuple(replace(i, age=0) for i in inputs))
    return replace(update, inputs=tuple(inputs))


def changeable(world: World, round_: int, node: int, kind: str) -> bool:
    """Whether a sound model has what is to be changed."""
    update = world.update(round_, node)
    assert update is not None
    if kind in ("left out", "order"):
        return len(update.inputs) > 1
    named = {i.cid for i in update.inputs}
    earlier = (s.cid for r, w in world.log.windows.items() for s in w.submissions.values() if r < round_)
    return kind != "older" or any(cid not in named for cid in earlier)


def rejoined(world: World, update: Update) -> Update:
    """The model with the start that its inputs give with their weights, as a liar makes it who lets all fit."""
    blocks = [world.models().own(i.cid).blocks for i in update.inputs]
    start = blocks[0] if len(blocks) == 1 else aggregate(blocks, [i.weight for i in update.inputs])
    return replace(update, start=blocks_digest(start))


@pytest.mark.parametrize("kind", KINDS)
@LOOSE
@given(world=histories(), draw=st.data())
def test_a_model_that_was_changed_is_taken_only_if_the_rule_allows_it(
    world: World, draw: st.DataObject, kind: str
) -> None:
    oracle = Oracle(world)
    sound = [w for w in submitted(world) if oracle.sound(*w) is not None and changeable(world, *w, kind)]
    assume(sound)
    round_, node = draw.draw(st.sampled_from(sound))
    update = changed(draw, world, round_, node, kind)
    if kind in ("weight", "older", "left out", "twice") and draw.draw(st.booleans()):
        update = rejoined(world, update)
    world.log.submit(round_, node, world.file(update))
    found = world.models().published(round_)[node]
    assert (found.update is not None) == Oracle(world).allows(round_, node, update), found.fault
    if kind not in ("view", "left out", "older", "weight"):
        assert found.update is None
    if kind == "view" and (update.view or 0) >= round_:
        assert "was not settled" in found.fault


def test_the_oracle_is_no_sleeper() -> None:
    """What it takes and refuses in one history that can be followed by hand."""
    world = World(CONFIGS[1.0])
    everybody = frozenset({0, 1})
    world.log.windows[1] = Window(everybody)
    for node in (0, 1):
        world.log.submit(1, node, world.file(world.make(1, node, 0, set(), node)))
    world.log.windows[1].settled = Settled((30, 20), frozenset(), frozenset())
    world.log.windows[2] = Window(everybody)
    world.log.submit(2, 0, world.file(world.make(2, 0, 1, set(), 10)))
    world.log.windows[2].settled = Settled((30, 20), frozenset(), frozenset())
    world.log.windows[3] = Window(everybody)
    made = world.make(3, 1, 2, set(), 11)
    first, second = (world.log.submission(r, n) for r, n in ((2, 0), (1, 1)))
    assert first is not None
    assert second is not None
    # Node 0's newest knows round 1, which is the one before: 0 settled rounds behind. Node 1's own knew none: 1 behind.
    assert made.inputs == (Input(first.cid, 30, 0), Input(second.cid, 10, 1))
    assert made.round == 2
    world.log.submit(3, 1, world.file(made))
    assert world.models().published(3)[1].fault == ""
    alone = world.make(3, 1, 2, {0}, 11)
    assert alone.inputs == (Input(second.cid, 10, 1),)
    older = world.log.submission(1, 0)
    assert older is not None
    world.log.submit(3, 1, world.file(replace(made, inputs=(Input(older.cid, 30, 0), made.inputs[1]))))
    assert "not the newest models as of round 2" in world.models().published(3)[1].fault
    world.log.submit(3, 1, second.cid)
    assert "not the node's next one" in world.models().published(3)[1].fault


@pytest.mark.parametrize("power", sorted(CONFIGS))
def test_a_model_that_comes_back_is_looked_at_again(power: float) -> None:
    world = World(CONFIGS[power])
    world.log.windows[1] = Window(frozenset({0, 1}))
    world.log.submit(1, 0, world.file(world.make(1, 0, 0, set(), 1)))
    said = world.log.submission(1, 0)
    assert said is not None
    away = world.store.files.pop(said.cid)
    models = world.models()
    assert "is not in the store" in models.published(1)[0].fault
    world.store.files[said.cid] = away
    assert models.published(1)[0].update is not None
    del world.store.files[said.cid]
    models._read.clear()
    with pytest.raises(Exception, match="not in the store"):
        models.published(1)
