"""What a run tells while it goes on. The runner declares it; the command line shows it, Python users may ignore it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class NodeRound:
    """What one node did in a round."""

    node: int
    cid: str
    tx: str
    metrics: dict[str, float]
    grades: dict[int, int]
    reputation: float
    losses: dict[str, list[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class RoundResult:
    """A settled round: its nodes, the quality of the reputation-weighted aggregate on all validation records, and where
    those records are from ("official", "stand-in")."""

    number: int
    nodes: tuple[NodeRound, ...]
    aggregate: dict[str, float]
    source: str


class Reporter(Protocol):
    """Where a run's progress goes."""

    def notice(self, title: str, text: str) -> None:
        """Something that the user must know (a stand-in is used, ...)."""
        ...

    def stage(self, text: str) -> None:
        """What is being done now."""
        ...

    def begin(self, steps: int) -> None:
        """Training begins: so many generator steps in all rounds and nodes still to do."""
        ...

    def step(self, round_: int, node: int, epoch: int, generator_loss: float, discriminator_loss: float) -> None:
        """One generator step is done."""
        ...

    def skip(self, steps: int) -> None:
        """So many steps were done in an earlier attempt."""
        ...

    def round_done(self, result: RoundResult) -> None:
        """A round is settled."""
        ...


class Warn:
    """Says nothing of the progress; what the user must know becomes a Python warning."""

    def notice(self, title: str, text: str) -> None:
        """Warn."""
        warnings.warn(f"{title}: {text}", stacklevel=2)

    def stage(self, text: str) -> None:
        """Ignore."""

    def begin(self, steps: int) -> None:
        """Ignore."""

    def step(self, round_: int, node: int, epoch: int, generator_loss: float, discriminator_loss: float) -> None:
        """Ignore."""

    def skip(self, steps: int) -> None:
        """Ignore."""

    def round_done(self, result: RoundResult) -> None:
        """Ignore."""


def as_json(rounds: Sequence[RoundResult]) -> list[Mapping[str, Any]]:
    """The rounds as they stand in the result."""
    return [
        {
            "number": r.number,
            "nodes": [
                {
                    "id": n.node,
                    "cid": n.cid,
                    "tx": n.tx,
                    "metrics": n.metrics,
                    "grades": {str(k): v for k, v in sorted(n.grades.items())},
                    "reputation": n.reputation,
                    "losses": n.losses,
                }
                for n in r.nodes
            ],
            "aggregate": {"metrics": r.aggregate},
        }
        for r in rounds
    ]
