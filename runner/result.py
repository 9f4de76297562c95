"""The result of a run: one JSON object, described by result.schema.json (docs/result.md explains it)."""

from __future__ import annotations

from typing import Any

from backends.target import Target
from circuits.types import CompiledCircuit
from contracts.chain import Chain
from contracts.rounds import FederatedRounds
from experiments.base import Study
from experiments.metrics import Metrics
from runner.config import RunConfig
from runner.federation import Final
from runner.progress import RoundResult, as_json
from runner.schema import FORMAT

DIGITS = 6
"""Metrics in a result are rounded as they are on the chain."""


def _round(metrics: Metrics | None) -> dict[str, float] | None:
    return None if metrics is None else {k: round(float(v), DIGITS) for k, v in metrics.to_dict().items()}


def describe_dataset(study: Study) -> dict[str, Any]:
    """Name, source, numbers of records, and hashes of the files."""
    return {
        "name": study.dataset.name,
        "source": study.dataset.source,
        "records": {
            "train": len(study.dataset.train),
            "test": None if study.dataset.test is None else len(study.dataset.test),
            "holdout": len(study.holdout),
            "test_seen_in_train": None if study.seen is None else int(study.seen.sum()),
        },
        "sha256": dict(study.dataset.sha256),
    }


def describe_backend(config: RunConfig, target: Target, circuit: CompiledCircuit, device: str) -> dict[str, Any]:
    """The quantum device, its calibration, the compiled generator on it, and the torch device that computed it."""
    return {
        "name": target.name,
        "engine": config.engine,
        "shots": config.shots,
        "idle_noise": config.idle_noise,
        "device": device,
        "calibration_date": target.calibration_date,
        "snapshot_sha256": target.snapshot_sha256,
        "native_gates": list(target.native_gates),
        "physical_qubits": list(circuit.physical_qubits),
        "depth": circuit.depth,
        "two_qubit_gates": circuit.two_qubit_gates,
    }


def build_result(
    *,
    run: str,
    config: RunConfig,
    study: Study,
    target: Target,
    circuit: CompiledCircuit,
    device: str,
    feature_map_cid: str,
    rounds: list[RoundResult],
    final: Final,
    contract: FederatedRounds,
    chain: Chain,
    store_kind: str,
    versions: dict[str, str | None],
    resumed_with: list[dict[str, str | None]],
    seconds: float,
    phases: dict[str, float],
) -> dict[str, Any]:
    """Everything that a finished run says, as plain JSON types."""
    reputation = contract.reputation()
    nodes = [
        {
            "id": record.index,
            "address": record.address,
            "records": {
                "train": len(study.shares[record.index].train),
                "validation": len(study.shares[record.index].validation),
            },
            "reputation": reputation[record.index] / 100,
            "metrics": {part: _round(m) for part, m in final.nodes.get(record.index, {}).items()},
        }
        for record in contract.nodes()
    ]
    return {
        "format": FORMAT,
        "run": run,
        "config": config.model_dump(mode="json"),
        "config_digest": config.digest.hex(),
        "dataset": describe_dataset(study),
        "backend": describe_backend(config, target, circuit, device),
        "feature_map": {"cid": feature_map_cid},
        "nodes": nodes,
        "rounds": as_json(rounds),
        "final": {"cid": final.cid},
        "metrics": {part: _round(m) for part, m in final.metrics.items()},
        "spread": {part: _spread(nodes, part) for part in ("holdout", "test")},
        "chain": {
            "kind": chain.kind,
            "chain_id": chain.chain_id,
            "contract": contract.address,
            "head": chain.head_number(),
            "gas_used": contract.gas_used(),
        },
        "store": {"kind": store_kind},
        "versions": versions,
        "resumed_with": resumed_with,
        "seconds": {
            "total": round(seconds, 3),
            "phases": {name: round(seconds, 3) for name, seconds in phases.items()},
        },
    }


def _spread(nodes: list[dict[str, Any]], part: str) -> dict[str, dict[str, float]] | None:
    """Lowest and highest figure of the nodes' own last models, by metric."""
    figures = [n["metrics"][part] for n in nodes if n["metrics"].get(part)]
    if not figures:
        return None
    return {
        name: {"min": min(f[name] for f in figures), "max": max(f[name] for f in figures)}
        for name in ("accuracy", "precision", "recall", "f1", "auroc")
    }
