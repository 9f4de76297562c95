"""The table of a set of cells: a row an attack and partition, and its Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from runner.attack.attacks import ATTACKS
from runner.attack.cells import ALONE, Line
from runner.settings import AGGREGATIONS

FLAG_WITHIN, EXCLUDE_WITHIN = 3, 6
"""The rounds of misbehaviour within which a hostile node should be flagged, and excluded."""


@dataclass(frozen=True)
class Points:
    """AUROC of the final aggregate on the hold-out part, in points above the honest nodes alone on the same seed."""

    seeds: int
    mean: float
    worst: float


@dataclass(frozen=True)
class Row:
    """An attack on a partition, over its seeds, with grades and settlement.

    Attributes:
        seeds: Federations with grades.
        hostile: Hostile nodes in all of them; 0 where there is nobody to find.
        flag: Median and worst round of misbehaviour in which a node was flagged; None for never.
        exclude: The same of exclusion.
        flagged: Share of the hostile nodes flagged within FLAG_WITHIN rounds.
        excluded: Share of the hostile nodes excluded within EXCLUDE_WITHIN rounds.
        honest_flagged: Nodes that were ever flagged while they were honest, in all seeds.
        honest_excluded: The same of exclusion.
        refused: In how many seeds the feature map found no quorum.
        points: By aggregation.
        slow: Where nobody waits: slow honest nodes in all seeds, how many of them were ever flagged, and excluded.
    """

    partition: str
    attack: str
    seeds: int
    hostile: int
    flag: tuple[int | None, int | None]
    exclude: tuple[int | None, int | None]
    flagged: float
    excluded: float
    honest_flagged: int
    honest_excluded: int
    refused: int
    points: dict[str, Points]
    slow: tuple[int, int, int] | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "partition": self.partition,
            "attack": self.attack,
            "seeds": self.seeds,
            "hostile_nodes": self.hostile,
            "rounds_to_flag": {"median": self.flag[0], "worst": self.flag[1]},
            "rounds_to_exclude": {"median": self.exclude[0], "worst": self.exclude[1]},
            f"flagged_within_{FLAG_WITHIN}": self.flagged,
            f"excluded_within_{EXCLUDE_WITHIN}": self.excluded,
            "honest_flagged": self.honest_flagged,
            "honest_excluded": self.honest_excluded,
            "map_refused": self.refused,
            "auroc_points": {
                name: {"seeds": p.seeds, "mean": p.mean, "worst": p.worst} for name, p in self.points.items()
            },
            **(
                {}
                if self.slow is None
                else dict(zip(("slow", "slow_flagged", "slow_excluded"), self.slow, strict=True))
            ),
        }


def summarise(lines: Iterable[Line], nodes: int) -> list[Row]:
    """A row for every partition and attack, in the order of the cells and of ATTACKS."""
    known = list(lines)
    alone = {(x.cell.partition, x.cell.seed): x.auroc for x in known if x.cell.attack == ALONE}
    partitions = list(dict.fromkeys(x.cell.partition for x in known))
    rows = []
    for partition in partitions:
        for attack in ATTACKS:
            mine = [x for x in known if x.cell.partition == partition and x.cell.attack == attack]
            if mine:
                rows.append(_row(partition, attack, mine, alone, nodes))
    return rows


def _row(partition: str, attack: str, lines: Sequence[Line], alone: dict[tuple[str, int], float], nodes: int) -> Row:
    graded = [x for x in lines if x.cell.aggregation == "reputation"]
    flagged = [r for x in graded for r in x.flagged]
    excluded = [r for x in graded for r in x.excluded]
    points = {}
    slow = [x.slow for x in graded if x.slow is not None]
    for name in AGGREGATIONS:
        found = [
            100 * (x.auroc - alone[x.cell.partition, x.cell.seed])
            for x in lines
            if x.cell.aggregation == name and (x.cell.partition, x.cell.seed) in alone
        ]
        if found:
            points[name] = Points(len(found), statistics.fmean(found), min(found))
    return Row(
        partition,
        attack,
        len(graded),
        len(flagged),
        _median_and_worst(flagged),
        _median_and_worst(excluded),
        _share(flagged, FLAG_WITHIN),
        _share(excluded, EXCLUDE_WITHIN),
        sum(x.honest_flagged for x in graded),
        sum(x.honest_excluded for x in graded),
        # As the contract counts: more than two thirds of the nodes have to vote for the map.
        sum(3 * x.votes <= 2 * nodes for x in graded),
        points,
        (sum(n for n, _, _ in slow), sum(n for _, n, _ in slow), sum(n for _, _, n in slow)) if slow else None,
    )


def _median_and_worst(rounds: Sequence[int | None]) -> tuple[int | None, int | None]:
    """Never counts as later than any round; of an even number the later of the middle two."""
    if not rounds:
        return None, None
    ordered = sorted(rounds, key=lambda r: (r is None, r or 0))
    return ordered[len(ordered) // 2], ordered[-1]


def _share(rounds: Sequence[int | None], within: int) -> float:
    return sum(r is not None and r <= within for r in rounds) / len(rounds) if rounds else 1.0


FOUND = (
    "attack",
    "flagged",
    f"in {FLAG_WITHIN}",
    "excluded",
    f"in {EXCLUDE_WITHIN}",
    "honest flagged",
    "honest excluded",
    "map refused",
)
"""Columns of what becomes of the nodes."""

SLOW = ("slow flagged", "slow excluded")
"""And, where nobody waits, of those honest nodes that are slow, or away for some time."""


def columns(rows: Sequence[Row]) -> tuple[str, ...]:
    """The columns of a table of these rows."""
    return (*FOUND, *SLOW) if any(row.slow is not None for row in rows) else FOUND


LEGEND = (
    "flagged, excluded: after how many rounds of misbehaviour (where nobody waits: of the node's own models), median "
    "(worst). AUROC of the final aggregate on the hold-out part, in points above the honest nodes alone: mean (worst "
    "seed); reputation is with grades and exclusion, the other ways of joining are alone."
)


def found(row: Row, nodes: int) -> list[str]:
    """A row as text, by `columns`."""

    def rounds(pair: tuple[int | None, int | None]) -> str:
        middle, worst = ("never" if r is None else str(r) for r in pair)
        return f"{middle} ({worst})" if row.hostile else "-"

    honest = row.seeds * nodes - row.hostile
    return [
        row.attack,
        rounds(row.flag),
        f"{row.flagged:.0%}" if row.hostile else "-",
        rounds(row.exclude),
        f"{row.excluded:.0%}" if row.hostile else "-",
        f"{row.honest_flagged} of {honest}" if row.seeds else "-",
        f"{row.honest_excluded} of {honest}" if row.seeds else "-",
        f"{row.refused} of {row.seeds}" if row.seeds else "-",
        *([] if row.slow is None else [f"{n} of {row.slow[0]}" for n in row.slow[1:]]),
    ]


def kept(row: Row, aggregations: Sequence[str]) -> list[str]:
    """The attack and its points by aggregation, as text."""

    def gain(name: str) -> str:
        p = row.points.get(name)
        return "-" if p is None else f"{p.mean:+.1f} ({p.worst:+.1f})"

    return [row.attack, *map(gain, aggregations)]


def markdown(rows: Sequence[Row], nodes: int) -> str:
    """All rows as Markdown, a table a partition."""
    out = []
    for partition in dict.fromkeys(r.partition for r in rows):
        mine = [r for r in rows if r.partition == partition]
        names = [a for a in AGGREGATIONS if any(a in r.points for r in mine)]
        head = [*columns(mine), *names]
        out += [f"**{partition}** (seeds: {max(r.seeds for r in mine)})", ""]
        out += ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
        out += ["| " + " | ".join([*found(r, nodes), *kept(r, names)[1:]]) + " |" for r in mine]
        out.append("")
    return "\n".join(out)
