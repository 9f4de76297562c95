"""What stands on the chain, read back as plain types."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

from contracts.reputation import Rules

METRIC_NAMES = ("accuracy", "precision", "recall", "f1", "auroc", "threshold")
"""The metrics of a submission, in the order in which they are packed (fixed point, 1e-6)."""

RESOURCE_NAMES = ("seconds", "circuits", "shots", "qpu_seconds")
"""What a node says that a round's model took: milliseconds are kept of the seconds. Its own statement; pays nothing."""


@dataclass(frozen=True)
class TaskSpec:
    """What a task is opened with: digests, names and rules, no data.

    Attributes:
        experiment: Its name.
        config_digest: SHA-256 of the run's config, 32 bytes.
        data_source: The data set's source as everywhere else ("official", "stand-in").
        max_rounds: Number of the last round.
        nodes: The addresses that may register, which numbers them; empty: open to all who pay the deposit, numbered in
            the order in which they come.
        rules: Deadlines and thresholds.
        min_nodes: The first round opens when so many are there; 0: all of the allow-list.
        deposit: Wei that registering takes, some where the task is open to all; given back at the end to who was not
            excluded.
        pool: Wei of reward that the opener pays in.
    """

    experiment: str
    config_digest: bytes
    data_source: str
    max_rounds: int
    nodes: tuple[str, ...]
    rules: Rules = field(default_factory=Rules)
    min_nodes: int = 0
    deposit: int = 0
    pool: int = 0


class Phase(IntEnum):
    """Where a task is; in a round, what it takes now."""

    SETUP = 0
    SUBMIT = 1
    COMMIT = 2
    REVEAL = 3
    SETTLE = 4
    ENDED = 5


@dataclass(frozen=True)
class Receipt:
    """A mined transaction: hash (0x...), block number, gas used."""

    tx: str
    block: int
    gas_used: int


@dataclass(frozen=True)
class Submission:
    """A node's model of a round.

    Attributes:
        cid: Of the model file.
        metrics: The node's own, name -> value.
        resources: The node's own statement, name -> value (RESOURCE_NAMES).
        signature: CID of the signature file (contracts/signatures.py).
        tx: The transaction that carried it.
        block: Its block.
    """

    round: int
    node: int
    cid: str
    metrics: dict[str, float]
    resources: dict[str, float]
    signature: str
    tx: str
    block: int


@dataclass(frozen=True)
class Announcement:
    """Where a node says that content is which others wait for.

    Attributes:
        topic: What it is of, 32 bytes.
        cid: Of the content.
        tx: The transaction that carried it.
        block: Its block.
    """

    node: int
    topic: bytes
    cid: str
    tx: str
    block: int


@dataclass(frozen=True)
class NodeRecord:
    """A registered node.

    Attributes:
        exchange_key: X25519 public key, 32 bytes.
        signing_key: SHA-256 of its ML-DSA-65 public key, 32 bytes; None where it signs with its account.
        reputation: 0..10000 (100 times a grade).
        excluded: Whether it was excluded.
    """

    index: int
    address: str
    exchange_key: bytes
    signing_key: bytes | None
    reputation: int
    excluded: bool


@dataclass(frozen=True)
class SettlementRecord:
    """What the contract said when a round was settled, by node; see contracts/reputation.py for the words.

    `scores` and `asymmetry` are None where there is none; `reputation` is in hundredths.
    """

    round: int
    scores: tuple[int | None, ...]
    asymmetry: tuple[int | None, ...]
    strong: bool
    reputation: tuple[int, ...]
    low: frozenset[int]
    flagged: frozenset[int]
    excluded: frozenset[int]
    tx: str
    block: int

    def weights(self) -> dict[int, int]:
        """What each node's model of this round weighs in the next aggregate: its reputation, 0 if low."""
        return {i: 0 if i in self.low else r for i, r in enumerate(self.reputation)}
