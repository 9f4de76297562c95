"""What a run tells while it goes on. The runner declares it; the command line shows it, Python users may ignore it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from contracts.records import SettlementRecord


@dataclass(frozen=True)
class NodeRound:
    """What one node did in a round.

    Attributes:
        cid: Of its model.
        tx: The transaction that submitted it.
        metrics: Its own, on its own validation records.
        grades: Those that it revealed: peer -> 0..100.
        reputation: After the round, 0..100.
        losses: Mean loss an epoch, by player.
        signature: CID of the model's signature file.
        resources: Its own statement of what the model took.
        fault: Which check its model failed; empty where it passed all.
    """

    node: int
    cid: str
    tx: str
    metrics: dict[str, float]
    grades: dict[int, int]
    reputation: float
    losses: dict[str, list[float]] = field(default_factory=dict)
    signature: str = ""
    resources: dict[str, float] = field(default_factory=dict)
    fault: str = ""


@dataclass(frozen=True)
class Verdict:
    """What the contract's settlement said, by node; contracts/reputation.py explains the words.

    `scores` and `asymmetry` are grades, and name the nodes that have one; `reputation` is 0..100.
    """

    strong: bool
    scores: dict[int, int]
    asymmetry: dict[int, int]
    reputation: dict[int, float]
    low: tuple[int, ...]
    flagged: tuple[int, ...]
    excluded: tuple[int, ...]
    tx: str

    @classmethod
    def of(cls, record: SettlementRecord) -> Verdict:
        """From what stands on the chain."""
        return cls(
            strong=record.strong,
            scores={i: v for i, v in enumerate(record.scores) if v is not None},
            asymmetry={i: v for i, v in enumerate(record.asymmetry) if v is not None},
            reputation={i: v / 100 for i, v in enumerate(record.reputation)},
            low=tuple(sorted(record.low)),
            flagged=tuple(sorted(record.flagged)),
            excluded=tuple(sorted(record.excluded)),
            tx=record.tx,
        )

    def to_json(self) -> dict[str, Any]:
        """As it stands in the result."""
        return {
            "strong": self.strong,
            **{name: {str(k): v for k, v in getattr(self, name).items()} for name in _BY_NODE},
            **{name: list(getattr(self, name)) for name in ("low", "flagged", "excluded")},
            "tx": self.tx,
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Verdict:
        """Back from the result."""
        by_node = {name: {int(k): v for k, v in body[name].items()} for name in _BY_NODE}
        return cls(
            strong=body["strong"],
            scores=by_node["scores"],
            asymmetry=by_node["asymmetry"],
            reputation=by_node["reputation"],
            low=tuple(body["low"]),
            flagged=tuple(body["flagged"]),
            excluded=tuple(body["excluded"]),
            tx=body["tx"],
        )

    def words(self, node: int) -> str:
        """What it says about a node: excluded, low (no weight), warned, or nothing."""
        if node in self.excluded:
            return "excluded"
        if node in self.low:
            return "low"
        return "warned" if node in self.flagged else ""


_BY_NODE = ("scores", "asymmetry", "reputation")


@dataclass(frozen=True)
class RoundResult:
    """A settled round.

    Attributes:
        number: Its number.
        base: The round whose models it started from, 0: the common start.
        nodes: Who submitted.
        aggregate: Metrics of the common aggregate on all validation records.
        source: Where those records are from ("official", "stand-in").
        verdict: The settlement.
        absent: Who could have submitted and did not.
        void: Whether a rollback has taken it back.
    """

    number: int
    base: int
    nodes: tuple[NodeRound, ...]
    aggregate: dict[str, float]
    source: str
    verdict: Verdict
    absent: tuple[int, ...] = ()
    void: bool = False


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


def as_json(rounds: Sequence[RoundResult]) -> list[dict[str, Any]]:
    """The rounds as they stand in the result."""
    return [
        {
            "number": r.number,
            "base": r.base,
            "void": r.void,
            "nodes": [
                {
                    "id": n.node,
                    "cid": n.cid,
                    "signature": n.signature,
                    "fault": n.fault,
                    "tx": n.tx,
                    "metrics": n.metrics,
                    "grades": {str(k): v for k, v in sorted(n.grades.items())},
                    "reputation": n.reputation,
                    "losses": n.losses,
                    "resources": n.resources,
                }
                for n in r.nodes
            ],
            "absent": list(r.absent),
            "settlement": r.verdict.to_json(),
            "aggregate": {"metrics": r.aggregate},
        }
        for r in rounds
    ]


def from_json(rounds: Sequence[Mapping[str, Any]], source: str) -> list[RoundResult]:
    """Back from the result."""
    return [
        RoundResult(
            number=r["number"],
            base=r["base"],
            nodes=tuple(
                NodeRound(
                    node=n["id"],
                    grades={int(k): v for k, v in n["grades"].items()},
                    **{k: n[k] for k in ("cid", "tx", "metrics", "reputation", "losses", "signature", "resources")},
                    fault=n["fault"],
                )
                for n in r["nodes"]
            ),
            aggregate=r["aggregate"]["metrics"],
            source=source,
            verdict=Verdict.from_json(r["settlement"]),
            absent=tuple(r["absent"]),
            void=r["void"],
        )
        for r in rounds
    ]
