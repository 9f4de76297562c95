"""One federation under one attack where nobody waits for anybody: windows, ages and slow nodes, in virtual time.

Time is counted in ticks, TICKS to a window. A node looks at the newest settled state, joins the newest model of each
peer (runner/ages.py), trains for as long as its pace says, submits to whatever window is open, and looks again; if it
has submitted to the open window already, or none is open, it waits for the next. A window closes TICKS after its
opening, at its first model if there is none by then, or once all active nodes have submitted. All who are there and
have ever submitted then grade its models; a tenth of a window later it is settled, and the next one opens.

Honest nodes take half a window to four windows for a model, each its own time; some are away for three to six windows,
as a laptop that is shut: what they were training when they left they submit when they are back. Hostile nodes take one
or two windows, or what the attack says; they submit as a window closes, and know all models until then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from contracts.reputation import Settlement, Standing, settle
from runner.ages import weights
from runner.attack.attacks import Attack, View
from runner.attack.simulate import Outcome
from runner.attack.world import World
from runner.node import Peer, Published, joined
from runner.seeds import generator
from runner.update import Blocks, Update

TICKS = 1000
GRADING = TICKS // 10
FASTEST, SLOWEST = 0.5, 4.0
"""Windows that an honest node takes for a model; the logarithm is uniform between them."""
SLOW = 2 * TICKS
"""Who takes longer, or is ever away, is counted as slow."""
AWAY = (3 * TICKS, 6 * TICKS)
"""How long a node is away."""


@dataclass(frozen=True)
class Pace:
    """How a node spends its time.

    Attributes:
        training: Ticks that it takes for a model.
        leaves: When it goes away.
        back: When it is back; the same where it never goes.
    """

    training: int
    leaves: int = 0
    back: int = 0

    def present(self, time: int) -> int:
        """The first moment from `time` on at which the node is there."""
        return self.back if self.leaves <= time < self.back else time

    def done(self, begun: int) -> int:
        """When a model is trained; training stands still while the node is away."""
        done = begun + self.training
        return done + self.back - self.leaves if begun < self.leaves < done else done

    @property
    def slow(self) -> bool:
        """Whether others have to be patient with it."""
        return self.training > SLOW or self.leaves < self.back


def paces(seed: int, nodes: int, hostile: frozenset[int], attack: Attack, windows: int) -> dict[int, Pace]:
    """Every node's pace, by the seed: honest ones have the same under every attack. A third of them is ever away."""
    honest = [i for i in range(nodes) if i not in hostile]
    leaving = generator(seed, "away").permutation(honest)[: len(honest) // 3].tolist()
    out = {}
    for i in range(nodes):
        random = generator(seed, "pace", i)
        share, leaves = random.random(), int(random.integers(0, max(1, windows * TICKS // 2)))
        away = int(random.integers(*AWAY)) if i in leaving else 0
        if i not in hostile:
            out[i] = Pace(round(TICKS * FASTEST * (SLOWEST / FASTEST) ** share), leaves, leaves + away)
        else:
            out[i] = Pace(round(TICKS * 2**share) if attack.windows is None else TICKS * attack.windows)
    return out


@dataclass(frozen=True)
class _Model:
    """A published model, and what it was trained from."""

    blocks: Blocks
    start: Blocks
    view: int


@dataclass
class _Worker:
    """A node at work: what it trains now, from what, and when that is done."""

    peer: Peer
    pace: Pace
    start: Blocks
    ready: int
    view: int = 0
    sequence: int = 1


@dataclass
class _Federation:
    """All nodes, and what is settled."""

    world: World
    attack: Attack
    hostile: frozenset[int]
    method: str
    workers: dict[int, _Worker]
    active: set[int]
    standings: list[Standing]
    newest: dict[int, _Model]
    first: dict[int, Blocks]
    given: Mapping[int, int]  # what the last settlement gives each node: its reputation, 0 if low

    def play(self, windows: int) -> list[tuple[Settlement | None, frozenset[int]]]:
        """All windows; of each its settlement (None without grades), and who was hostile in it for the first time."""
        now, out = 0, []
        for number in range(1, windows + 1):
            at, end = self._arrivals(now)
            window: dict[int, _Model] = {}
            for i in sorted(at, key=lambda i: (i in self.hostile, i)):  # hostile nodes last
                window[i] = self._submitted(i, window)
            bad = frozenset(i for i in at if i in self.hostile and self._begun(i))
            for i in sorted(at):
                self._begin(i, number - 1, end if i in self.hostile else at[i], window[i])
            out.append((self._settled(number, end, window) if self.method == "reputation" else None, bad))
            self.newest.update(window)
            now = end + GRADING
        return out

    def _arrivals(self, opened: int) -> tuple[dict[int, int], int]:
        """Who submits to a window, and when; and when it closes."""
        at = {i: self.workers[i].pace.present(max(self.workers[i].ready, opened)) for i in self.active}
        end = max(opened + TICKS, min(at.values()))
        in_time = {i: time for i, time in at.items() if time <= end}
        return in_time, max(in_time.values()) if len(in_time) == len(at) else end

    def _begun(self, i: int) -> bool:
        """Whether a hostile node misbehaves with the model that it publishes now."""
        return self.workers[i].sequence >= self.attack.begins

    def _submitted(self, i: int, window: Mapping[int, _Model]) -> _Model:
        worker, seed = self.workers[i], self.world.config.seed
        train = partial(self.world.train, worker.peer, worker.sequence, worker.start)
        if i not in self.hostile:
            return _Model(train(), worker.start, worker.view)
        view = View(
            worker.sequence,
            i,
            worker.start,
            {j: m.blocks for j, m in sorted({**self.newest, **window}.items()) if j not in self.hostile},
            {j: m.blocks for j, m in sorted(self.newest.items())},
            self.first.get(i),
            train=train,
            poison=partial(self.world.poison, worker.peer, self.hostile, worker.sequence, worker.start),
            random=generator(seed, "attack", i, worker.sequence),
        )
        blocks = self.attack.publish(view) if self._begun(i) else train()
        self.first.setdefault(i, blocks)
        return _Model(blocks, worker.start, worker.view)

    def _begin(self, i: int, view: int, time: int, own: _Model) -> None:
        """Look at the state after round `view`, and begin to train from it; the node's own newest model is with it."""
        worker = self.workers[i]
        alone = i in self.hostile and self.attack.alone
        others = {} if alone else {j: m for j, m in self.newest.items() if j in self.active}
        known = {**others, i: own}
        weigh = self._weights(view, {} if alone else self.given, known)
        worker.start = worker.peer.start(_published(view, known), weigh)[0]
        worker.view, worker.sequence, worker.ready = view, worker.sequence + 1, worker.pace.done(time)

    def _weights(self, view: int, given: Mapping[int, int], known: Mapping[int, _Model]) -> dict[int, int]:
        power = self.world.config.federation.age_discount or 0.0
        return weights(view, {j: m.view for j, m in known.items()}, given, power)

    def _settled(self, number: int, end: int, window: Mapping[int, _Model]) -> Settlement:
        published, starts = _published(number, window), {j: (m.view, m.start) for j, m in window.items()}
        grades = {}
        for i in sorted(self.active):
            worker = self.workers[i]
            # Who is away reads the windows that it has missed when it is back, and grades nothing.
            mine = {j: g.value for j, g in worker.peer.review_new(starts, published, self.active).items()}
            if worker.peer.grader.has_moved and worker.pace.present(end) == end:
                lies = i in self.hostile and worker.sequence > self.attack.begins
                grades[i] = self.attack.grades(mine, self.hostile) if lies else mine
        settled = settle(
            self.world.config.federation.rules(),
            number,
            self.standings,
            active=self.active,
            submitted=set(window),
            grades=grades,
            committed=set(grades),
        )
        self.standings, self.given = list(settled.standings), settled.weights()
        self.active = self.active - settled.excluded
        return settled

    def final(self, view: int) -> Blocks:
        """What the newest settled state comes to, without any node's own gates."""
        known = {j: m for j, m in self.newest.items() if j in self.active}
        weigh = self._weights(view, self.given, known)
        settings = self.world.config.federation.model_copy(update={"aggregation": self.method})
        return joined(settings, {j: known[j].blocks for j in weigh}, weigh)


def _published(number: int, models: Mapping[int, _Model]) -> dict[int, Published]:
    return {j: Published("", Update("", "", number, j, m.blocks, (), "")) for j, m in sorted(models.items())}


def simulate(world: World, attack: Attack, hostile: frozenset[int], method: str, *, alone: bool = False) -> Outcome:
    """Play as many windows as the config has rounds; arguments as of the synchronous simulation (simulate.py)."""
    world, votes = world.under(attack, hostile)
    config = world.config
    peers = world.peers(config.federation.model_copy(update={"aggregation": method}))
    pace = paces(config.seed, len(peers), hostile, attack, config.rounds)
    there = [i for i in peers if not (alone and i in hostile)]
    workers = {i: _Worker(peers[i], pace[i], world.start, pace[i].done(pace[i].present(0))) for i in there}
    federation = _Federation(
        world, attack, hostile, method, workers, set(there), [Standing() for _ in peers], {}, {}, {}
    )
    played = federation.play(config.rounds)
    honest = [i for i in peers if i not in hostile]
    final = federation.final(config.rounds)
    slow = frozenset(i for i in honest if pace[i].slow)
    return _outcome(played, hostile, slow, votes=votes, auroc=world.auroc(final, honest), final=final)


def _outcome(
    played: list[tuple[Settlement | None, frozenset[int]]],
    hostile: frozenset[int],
    slow: frozenset[int],
    *,
    votes: int,
    auroc: float,
    final: Blocks,
) -> Outcome:
    """What became of whom; of a hostile node counted in the models that it misbehaved with."""
    flagged: dict[int, int] = {}
    excluded: dict[int, int] = {}
    honest_flagged: set[int] = set()
    honest_excluded: set[int] = set()
    models = dict.fromkeys(hostile, 0)
    settlements = [settled for settled, _ in played if settled is not None]
    for settled, bad in played:
        for i in bad:
            models[i] += 1
        if settled is None:
            continue
        for i in sorted(settled.flagged | settled.excluded):
            if not models.get(i):
                honest_flagged.add(i)
            else:
                flagged.setdefault(i, models[i])
        for i in sorted(settled.excluded):
            if not models.get(i):
                honest_excluded.add(i)
            else:
                excluded[i] = models[i]
    return Outcome(
        flagged,
        excluded,
        len(honest_flagged),
        len(honest_excluded),
        votes,
        auroc,
        tuple(settlements),
        final,
        (len(slow), len(slow & honest_flagged), len(slow & honest_excluded)),
    )
