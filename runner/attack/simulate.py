"""One federation under one attack: the rounds as peers play them, the contract's rule, no chain and no store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

from contracts.reputation import Settlement, Standing, settle
from runner.attack.attacks import Attack, View
from runner.attack.world import World
from runner.node import Published, joined
from runner.seeds import generator
from runner.update import Blocks, Update


@dataclass(frozen=True)
class Outcome:
    """What came of an attack. Rounds count from 1; nodes are indices.

    Attributes:
        flagged: Hostile node -> in which round of its misbehaviour it was first flagged.
        excluded: Hostile node -> in which round of its misbehaviour it was excluded.
        honest_flagged: How many nodes were ever flagged while they were honest.
        honest_excluded: How many nodes were excluded while they were honest.
        votes: Nodes that vote for the feature map.
        auroc: Of the final aggregate on the hold-out part.
        settlements: One a round; none without grades.
        final: The final aggregate.
        slow: Where nobody waits: how many honest nodes are slow, how many of those were ever flagged, and excluded.
    """

    flagged: dict[int, int]
    excluded: dict[int, int]
    honest_flagged: int
    honest_excluded: int
    votes: int
    auroc: float
    settlements: tuple[Settlement, ...]
    final: Blocks = field(compare=False)
    slow: tuple[int, int, int] | None = None


def simulate(world: World, attack: Attack, hostile: frozenset[int], method: str, *, alone: bool = False) -> Outcome:
    """Play all rounds.

    Args:
        world: Before the attack.
        attack: What the hostile nodes do.
        hostile: Which nodes they are.
        method: How models are joined. "reputation" is with grades, settlement and exclusion; any other is alone, so
            that what it does by itself is seen.
        alone: The hostile nodes are not there at all.
    """
    world, votes = world.under(attack, hostile)
    config = world.config
    federation = config.federation.model_copy(update={"aggregation": method})
    peers = world.peers(federation)
    honest = [i for i in peers if i not in hostile]
    active = set(honest if alone else peers)
    standings = [Standing() for _ in peers]
    settlements: list[Settlement] = []
    last: dict[int, Published] = {}
    first: dict[int, Blocks] = {}
    weights: Mapping[int, int] = {}
    for number in range(1, config.rounds + 1):
        starts = {i: peers[i].start(last, weights)[0] if last else world.start for i in sorted(active)}
        models = {i: world.train(peers[i], number, starts[i]) for i in honest if i in active}
        seen = dict(models)
        before = {j: p.update.blocks for j, p in last.items() if p.update is not None}
        for i in sorted(active & hostile):
            view = View(
                number,
                i,
                starts[i],
                seen,
                before,
                first.get(i),
                train=partial(world.train, peers[i], number, starts[i]),
                poison=partial(world.poison, peers[i], hostile, number, starts[i]),
                random=generator(config.seed, "attack", i, number),
            )
            models[i] = attack.publish(view) if number >= attack.begins else view.train()
            first.setdefault(i, models[i])
        last = {j: Published("", Update("", "", number, j, models[j], (), "")) for j in sorted(models)}
        weights = dict.fromkeys(models, 1)
        if method == "reputation":
            grades = {}
            for i in sorted(active):
                mine = {j: grade.value for j, grade in peers[i].review(starts[i], last).items()}
                grades[i] = attack.grades(mine, hostile) if i in hostile and number >= attack.begins else mine
            rules = config.federation.rules()
            settled = settle(rules, number, standings, active=active, submitted=set(models), grades=grades)
            standings = list(settled.standings)
            settlements.append(settled)
            active -= settled.excluded
            weights = settled.weights()
    final = {j: p.update.blocks for j, p in last.items() if p.update is not None and weights.get(j, 0) > 0}
    if not final:
        final, weights = {j: models[j] for j in models}, dict.fromkeys(models, 1)
    aggregate = joined(federation, final, weights)
    auroc = world.auroc(aggregate, honest)
    return _outcome(attack, hostile, settlements, votes=votes, auroc=auroc, final=aggregate)


def _outcome(
    attack: Attack, hostile: frozenset[int], settlements: list[Settlement], *, votes: int, auroc: float, final: Blocks
) -> Outcome:
    flagged: dict[int, int] = {}
    excluded: dict[int, int] = {}
    honest_flagged: set[int] = set()
    honest_excluded: set[int] = set()
    for number, settled in enumerate(settlements, start=1):
        of_attack = number - attack.begins + 1
        for i in sorted(settled.flagged | settled.excluded):
            if i not in hostile or of_attack < 1:
                honest_flagged.add(i)
            else:
                flagged.setdefault(i, of_attack)
        for i in sorted(settled.excluded):
            if i not in hostile or of_attack < 1:
                honest_excluded.add(i)
            else:
                excluded[i] = of_attack
    return Outcome(
        flagged, excluded, len(honest_flagged), len(honest_excluded), votes, auroc, tuple(settlements), final
    )
