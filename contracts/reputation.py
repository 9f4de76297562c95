"""How grades become reputation: FederatedRounds.sol's settlement, as a pure function of plain integers.

The contract and this function are two writings of one rule; a state machine in the tests plays both. Whoever verifies
a task recomputes every reputation with it, and the attack table is played on it.

With g_ij the grade that i gave j, and w_i the reputation of i before (1 for all while nobody was scored yet; a node
that was never scored weighs nothing; where nobody who was scored has any, they weigh the same):

    score_j = weighted upper median over i of g_ij: more than half of the weight has to agree before it is low
    asym_i  = weighted lower median over j of |g_ij - g_ji|, over the peers that submitted and revealed
    M0      = lower median of the scores of those who were scored before (while nobody was: of all);
              strong: M0 >= strong_early in the first settlements, strong_late after them
    v_i     = score_i, but 0 where i did not submit or did not reveal, and in a strong settlement where
              asym_i > asymmetry
    R_i     = 100 v_i the first time, then (keep R_i + (100 - keep) 100 v_i) / 100, rounded down;
              in a weak settlement only where i is absent, did not reveal, or scored 0
    M       = lower median of R over the active nodes that were scored before (while nobody was: now)

Below warn % of M, or with a score of 0 (a hard fault), a node is flagged; below low_early % (low_late % after the first
settlements) it is low. `low_in_a_row` strong settlements low, or `hard_in_a_row` scores of 0 in a row, exclude it.

In an asynchronous task (`window_seconds` is not 0) a round is a window: who submits nothing is not judged, and anybody
may grade. With C who committed and V who revealed:

    enough  = |V| >= min(quorum, number of active nodes); else no score acts, and no settlement is strong
    missed  = C without V (in a synchronous task: who did not submit, or did not reveal)
    judged  = missed, and if enough also who submitted (in a synchronous task: all active nodes)

Of who is not judged, reputation and counters stay; credits are earned, if enough, by who submitted and revealed.
Nobody counts as scored before until min(quorum, number of active nodes) have been scored (in a synchronous task: one):
who is first to be scored would else have all the say about those who come after.

With two nodes each is judged by the other alone, so that a hostile one can exclude an honest one; take three.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

FULL = 10_000
"""The highest reputation: hundredths of a grade."""


@dataclass(frozen=True)
class Rules:
    """What a task settles by. Percentages are of the median reputation, `strong_*` and `asymmetry` are grades.

    `submit_seconds`, `commit_seconds` and `reveal_seconds` are the lengths of a round's phases, which end earlier where
    everybody is done; `setup_seconds` is how long a task may wait for its first round, and how long after a round's
    last deadline nobody needs to have settled it, before it may be abandoned.

    `window_seconds` and `quorum` are of asynchronous tasks: how long a round takes submissions (longer, up to
    `submit_seconds`, while there is none), and how many nodes have to reveal for its scores to act. 0 seconds: the task
    is synchronous, and the quorum means nothing.
    """

    submit_seconds: int = 30 * 86_400
    commit_seconds: int = 7 * 86_400
    reveal_seconds: int = 7 * 86_400
    setup_seconds: int = 30 * 86_400
    warn: int = 50
    low_early: int = 25
    low_late: int = 15
    early: int = 3
    strong_early: int = 35
    strong_late: int = 70
    asymmetry: int = 35
    keep: int = 70
    low_in_a_row: int = 2
    hard_in_a_row: int = 3
    window_seconds: int = 0
    quorum: int = 0

    @property
    def asynchronous(self) -> bool:
        """Whether rounds are windows, which who is slow may leave out."""
        return self.window_seconds != 0


@dataclass(frozen=True)
class Standing:
    """What the contract keeps of a node.

    Attributes:
        reputation: 0..10000, hundredths of a grade.
        low: Strong settlements in a row in which it was low.
        hard: Scores of 0 in a row.
        scored: Whether it was ever scored; until then it has no reputation and weighs nothing.
        excluded: For good.
        credits: Sum of its reputation over the rounds that earn it a share of the reward.
    """

    reputation: int = 0
    low: int = 0
    hard: int = 0
    scored: bool = False
    excluded: bool = False
    credits: int = 0


@dataclass(frozen=True)
class Settlement:
    """What a settlement says, by node.

    Attributes:
        scores: Median grade; None where there is none (absent, or nobody graded it).
        asymmetry: None where it did not submit and reveal, or has no peer that did.
        strong: Whether the grades agree enough to act on.
        standings: After it.
        low: Who is low now; weighs nothing in the next aggregate.
        flagged: Who is warned.
        excluded: Who was excluded by this settlement.
    """

    scores: tuple[int | None, ...]
    asymmetry: tuple[int | None, ...]
    strong: bool
    standings: tuple[Standing, ...]
    low: frozenset[int]
    flagged: frozenset[int]
    excluded: frozenset[int]

    def weights(self) -> dict[int, int]:
        """What each node's model weighs in the next aggregate: its reputation, 0 if low or excluded."""
        return {i: 0 if i in self.low or s.excluded else s.reputation for i, s in enumerate(self.standings) if s.scored}


def weighted_median(entries: Iterable[tuple[int, int, bool]], *, upper: bool = False) -> int | None:
    """The value at which half of the weight is reached; None of nothing.

    Args:
        entries: (value, weight, whether it counts where nobody has weight).
        upper: Take the smallest value at or below which lies more than half of the weight; else half of it or more.
    """
    known = sorted(entries)
    if not any(weight for _, weight, _ in known):
        known = [(value, 1, True) for value, _, counts in known if counts]
    total, below = sum(weight for _, weight, _ in known), 0
    for value, weight, _ in known:
        below += weight
        if 2 * below > total or (2 * below == total and not upper):
            return value
    return None


def lower_median(values: Iterable[int]) -> int | None:
    """The smallest value at or below which lie half of the values or more; None of nothing."""
    return weighted_median((value, 1, True) for value in values)


def settle(
    rules: Rules,
    number: int,
    standings: Sequence[Standing],
    *,
    active: Collection[int],
    submitted: Collection[int],
    grades: Mapping[int, Mapping[int, int]],
    committed: Collection[int] | None = None,
) -> Settlement:
    """Settle one round: the formulas stand above.

    Args:
        rules: The task's.
        number: Which settlement of the task it is, from 1.
        standings: Of all nodes, before.
        active: Who could take part in the round.
        submitted: Who of them published a model.
        grades: Grader -> graded -> 0..100, of those who revealed (in a synchronous task they have all submitted); each
            grades all others who submitted.
        committed: Who committed to grades; None: those who revealed. Means nothing in a synchronous task.
    """
    n = len(standings)
    early = number <= rules.early
    first = sum(s.scored for s in standings) < (min(rules.quorum, len(active)) if rules.asynchronous else 1)
    weight = [1 if first else s.reputation for s in standings]
    scores: list[int | None] = [None] * n
    asymmetry: list[int | None] = [None] * n
    known = [first or s.scored for s in standings]
    for j in submitted:
        scores[j] = weighted_median(((row[j], weight[i], known[i]) for i, row in grades.items() if i != j), upper=True)
        if len(active) == 1:
            scores[j] = 100  # a lone node has nobody to grade it
    pairs = [i for i in grades if i in submitted]
    for i in pairs:
        apart = ((abs(grades[i][j] - grades[j][i]), weight[j], known[j]) for j in pairs if j != i)
        asymmetry[i] = weighted_median(apart)
    m0 = lower_median(s for i, s in enumerate(scores) if s is not None and known[i])
    enough, missed, judged = _judged(rules, active, submitted, grades.keys(), committed)
    strong = enough and m0 is not None and m0 >= (rules.strong_early if early else rules.strong_late)
    after = list(standings)
    for i in judged:
        score = scores[i] if enough else None
        after[i] = _judge(rules, standings[i], score, asymmetry[i], strong=strong, missed=i in missed)

    middle = lower_median(after[i].reputation for i in active if known[i] and after[i].scored) or 0
    low, flagged, excluded = set(), set(), set()
    for i in sorted(active):
        now = after[i]
        if not now.scored:
            continue
        hard = enough and scores[i] == 0
        is_low = 100 * now.reputation < (rules.low_early if early else rules.low_late) * middle
        if is_low:
            low.add(i)
        if hard or 100 * now.reputation < rules.warn * middle:
            flagged.add(i)
        streak = now.low if not strong or i not in judged else (min(now.low + 1, 255) if is_low else 0)
        now = replace(now, low=streak)
        if streak >= rules.low_in_a_row or now.hard >= rules.hard_in_a_row:
            excluded.add(i)
            now = replace(now, reputation=0, excluded=True, credits=0)
        elif enough and i in pairs and i not in flagged:
            now = replace(now, credits=now.credits + now.reputation)
        after[i] = now
    return Settlement(
        tuple(scores), tuple(asymmetry), strong, tuple(after), frozenset(low), frozenset(flagged), frozenset(excluded)
    )


def _judged(
    rules: Rules,
    active: Collection[int],
    submitted: Collection[int],
    revealed: Collection[int],
    committed: Collection[int] | None,
) -> tuple[bool, frozenset[int], frozenset[int]]:
    """Whether enough have revealed for scores to act, who is judged as 0, and whose conduct is judged at all."""
    if not rules.asynchronous:
        return True, frozenset(i for i in active if i not in submitted or i not in revealed), frozenset(active)
    enough = len(revealed) >= min(rules.quorum, len(active))
    missed = frozenset(committed or ()) - frozenset(revealed)
    return enough, missed, missed | frozenset(submitted if enough else ())


def _judge(rules: Rules, old: Standing, score: int | None, skew: int | None, *, strong: bool, missed: bool) -> Standing:
    """A node's reputation and hard faults after a settlement."""
    value = 0 if missed else score
    if strong and skew is not None and skew > rules.asymmetry:
        value = 0
    reputation, scored = old.reputation, old.scored
    if value is not None and not scored:
        reputation, scored = 100 * value, True
    elif value is not None and (strong or missed or score == 0):
        reputation = (rules.keep * reputation + (100 - rules.keep) * 100 * value) // 100
    hard = old.hard if score is None else (min(old.hard + 1, 255) if score == 0 else 0)
    return replace(old, reputation=reputation, scored=scored, hard=hard)
