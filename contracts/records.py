"""What stands on the chain, read back as plain types."""

from __future__ import annotations

from dataclasses import dataclass

METRIC_NAMES = ("accuracy", "precision", "recall", "f1", "auroc", "threshold")
"""The metrics of a submission, in the order in which they are packed (fixed point, 1e-6)."""


@dataclass(frozen=True)
class TaskSpec:
    """What a task is opened with: digests and names, no data.

    `config_digest` is the 32-byte SHA-256 of the run's config, `data_source` the data set's source as everywhere
    else ("official", "stand-in"), `max_rounds` the number of rounds, `nodes` the addresses that may register.
    """

    experiment: str
    config_digest: bytes
    data_source: str
    max_rounds: int
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class Receipt:
    """A mined transaction: hash (0x...), block number, gas used."""

    tx: str
    block: int
    gas_used: int


@dataclass(frozen=True)
class Submission:
    """A node's model of a round: its CID, its own metrics (name -> value), and the transaction that carried it."""

    round: int
    node: int
    cid: str
    metrics: dict[str, float]
    tx: str
    block: int


@dataclass(frozen=True)
class NodeRecord:
    """A registered node. `reputation` is in 0..10000 (100 times a grade)."""

    index: int
    address: str
    exchange_key: bytes
    reputation: int
