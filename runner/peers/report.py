"""What one peer says at the end: one JSON object, whose digest it states on the chain (docs/peers.md explains it)."""

from __future__ import annotations

import resource
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backends.devices import device_name
from contracts.records import NodeRecord
from contracts.rounds import FederatedRounds
from experiments.datasets.types import Dataset
from experiments.metrics import Metrics
from runner.config import RunConfig
from runner.peers.report_form import FORMAT
from runner.prepare import Prepared
from runner.result import describe_backend, rounded
from runner.store import RunStore

WORK = ("chain", "grading", "validation", "witness")
"""Phases of a round besides training. Their processor seconds count: what is waited for (a block, other processes on
the same cores) is not what a peer needs."""


@dataclass(frozen=True)
class Outcome:
    """The finished model as this peer has it.

    Attributes:
        cid: Of the common aggregate as of round `base`.
        metrics: Its metrics, by part.
        calibrated_by: The nodes whose benign records its threshold is from.
    """

    cid: str
    base: int
    metrics: Mapping[str, Metrics | None]
    calibrated_by: tuple[int, ...]


def build_report(
    *,
    config: RunConfig,
    contract: FederatedRounds,
    record: NodeRecord,
    dataset: Dataset,
    prepared: Prepared,
    map_cid: str,
    outcome: Outcome,
    versions: Mapping[str, str | None],
    memory: RunStore,
    witnessed: tuple[int, str] | None,
) -> dict[str, Any]:
    """Everything that a peer says of its task, as plain JSON types."""
    own = [s for number in contract.rounds() if (s := contract.submission(number, record.index)) is not None]
    phases, work, rounds = memory.phases(), memory.work(), max(1, contract.settled_rounds())
    return {
        "format": FORMAT,
        "task": {
            "chain_id": contract.chain.chain_id,
            "contract": contract.address,
            "schedule": config.federation.schedule or "sync",
        },
        "node": {
            "id": record.index,
            "address": record.address,
            "reputation": record.reputation / 100,
            "excluded": record.excluded,
        },
        "config": config.model_dump(mode="json"),
        "config_digest": config.digest.hex(),
        "dataset": {"name": dataset.name, "source": dataset.source, "sha256": dict(dataset.sha256)},
        "backend": describe_backend(config, prepared.target, prepared.circuit, device_name(prepared.device)),
        "feature_map": {"cid": map_cid},
        "models": [{"round": s.round, "cid": s.cid, "tx": s.tx, "metrics": s.metrics} for s in own],
        "final": {"cid": outcome.cid, "round": outcome.base, "calibrated_by": list(outcome.calibrated_by)},
        "metrics": {part: rounded(m) for part, m in outcome.metrics.items()},
        "witnessed": None if witnessed is None else {"block": witnessed[0], "hash": witnessed[1]},
        "versions": dict(versions),
        "seconds": {
            "total": round(memory.total(), 3),
            "phases": {name: round(seconds, 3) for name, seconds in phases.items()},
            "besides_training_a_round": round(sum(work.get(name, 0.0) for name in WORK) / rounds, 3),
        },
        "memory_mb": round(peak_bytes() / 2**20),
    }


def peak_bytes() -> int:
    """The most memory that this process has held, in bytes (getrusage: kilobytes on Linux, bytes on macOS)."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
