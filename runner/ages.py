"""How old a peer's newest model is, and what it still weighs: staleness as in FedAsync.

Where nodes train without regard to each other (docs/decisions/0009-peers-on-several-machines.md), a model is joined
that knows less than the newest settlement does. With v the last settled round when the joining node looked, v_k the
same for the node that trained model k, and R_k the reputation of that node:

    age(k)     t = max(0, v - (v_k + 1))          settled rounds that its knowledge is behind; in lockstep 0
    weight(k)  floor(R_k / (1 + t)^a),            at least 1 where R_k >= 1; a is 0, 1/2 or 1

The factor is the polynomial staleness s_a(t) = (t + 1)^-a of C. Xie, S. Koyejo and I. Gupta, "Asynchronous Federated
Optimization" (arXiv:1903.03934). All is integer arithmetic, so that every peer and auditor gets the same weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt

POWERS = (0.0, 0.5, 1.0)
"""The exponents for which the discount is exact in integers."""


def age(view: int, of: int) -> int:
    """How many settled rounds the knowledge of a model is behind: max(0, view - (of + 1)).

    Args:
        view: The last settled round when the joining node looked; 0: none.
        of: The same for the node that trained the model, when it began to.

    Raises:
        ValueError: a negative round.
    """
    if view < 0 or of < 0:
        raise ValueError(f"rounds are 0 or more, not {min(view, of)}.")
    return max(0, view - (of + 1))


def discounted(reputation: int, age: int, power: float) -> int:
    """What a model of that age weighs: floor(R / (1 + t)^a), at least 1 where R >= 1; 0 where R is 0.

    With d = 1 + t, the square root needs no fractions: for integers n >= 0 and d >= 1

        n <= R / sqrt(d)   <=>   n^2 d <= R^2   <=>   n^2 <= R^2 / d   <=>   n^2 <= floor(R^2 / d),

    the last because n^2 is an integer; the largest such n is isqrt(R^2 // d), and it is floor(R / sqrt(d)).

    Args:
        reputation: R, 0 or more.
        age: t, 0 or more.
        power: a, one of POWERS.

    Raises:
        ValueError: a negative number, or a power for which this would not be exact.
    """
    if reputation < 0 or age < 0:
        raise ValueError(f"reputations and ages are 0 or more, not {min(reputation, age)}.")
    if power not in POWERS:
        raise ValueError(f"an age is discounted by a power of 0, 0.5 or 1, not {power}.")
    if reputation == 0:
        return 0
    behind = 1 + age
    if power == 0:
        weight = reputation
    elif power == 1:
        weight = reputation // behind
    else:
        weight = isqrt(reputation * reputation // behind)
    return max(1, weight)


def weights(view: int, views: Mapping[int, int], reputations: Mapping[int, int], power: float) -> dict[int, int]:
    """What the newest model of each node weighs for who looks at the state after round `view`.

    Args:
        view: The last settled round; 0: none.
        views: Node -> the view that its newest model was trained from.
        reputations: Node -> what the settlement of `view` gives it: 0 if it is low there; who has none is missing.
        power: As of `discounted`.

    Returns:
        Those that weigh anything, in the order of nodes; all the same where nobody has any reputation.
    """
    given = {j: reputations.get(j, 0) for j in sorted(views)}
    if not any(given.values()):
        given = dict.fromkeys(given, 1)
    return {j: discounted(r, age(view, views[j]), power) for j, r in given.items() if r > 0}
