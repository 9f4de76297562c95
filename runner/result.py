"""The result of a run: one JSON object, described by result.schema.json (docs/result.md explains it)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backends.target import Target
from circuits.types import CompiledCircuit
from contracts.chain import Chain
from contracts.rounds import FederatedRounds
from experiments.base import Study
from experiments.metrics import Metrics
from runner.config import RunConfig
from runner.federation import Final
from runner.job_record import describe_options, describe_qpu
from runner.progress import RoundResult, as_json
from runner.schema import FORMAT

DIGITS = 6
"""Metrics in a result are rounded as they are on the chain."""


KINDS = {
    "TaskOpened": "open",
    "NodeRegistered": "register",
    "MapProposed": "map",
    "ModelSubmitted": "submit",
    "GradesCommitted": "commit",
    "GradesRevealed": "reveal",
    "RoundSettled": "settle",
    "RollbackVoted": "rollback",
}
"""The event that every transaction of a kind logs, and the kind. Conclusions are none of them: they state the digest of
the result, and so come after it; neither are pages of a settlement before its last, which log nothing."""


@dataclass(frozen=True)
class TransactionLog:
    """Which transaction did what, and what each kind used.

    Attributes:
        gas: Kind -> gas of all its transactions, in the order in which the kinds first came.
    """

    gas: dict[str, int]
    _by_step: Mapping[tuple[str, int, int], str]

    @classmethod
    def of(cls, contract: FederatedRounds, chain: Chain) -> TransactionLog:
        """From the contract's log."""
        entries = [e for e in contract.entries() if e.name in KINDS]
        gas: dict[str, int] = {}
        for entry, used in zip(entries, chain.gas_of([e.tx for e in entries]), strict=True):
            kind = KINDS[entry.name]
            gas[kind] = gas.get(kind, 0) + used
        return cls(gas, {(e.name, int(e.args.get("round", 0)), int(e.args.get("node", 0))): e.tx for e in entries})

    def tx(self, event: str, round_: int, node: int) -> str | None:
        """The transaction of a step, None where it was not taken."""
        return self._by_step.get((event, round_, node))


def rounded(metrics: Metrics | None) -> dict[str, float] | None:
    """A model's metrics as they stand in a result."""
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


def describe_backend(
    config: RunConfig,
    target: Target,
    circuit: CompiledCircuit,
    device: str,
    *,
    snapshot_cid: str | None = None,
    mode: str = "",
) -> dict[str, Any]:
    """The quantum device, its calibration, the compiled generator on it, and what computed it.

    Args:
        config: The run's.
        target: The device.
        circuit: The generator on it.
        device: The torch device.
        snapshot_cid: Of the calibration, where it is in the store.
        mode: Of the engine runtime: how its jobs were run.
    """
    runtime = {}
    if config.engine == "runtime" and config.runtime is not None:
        runtime = {"mode": mode, **describe_options(config.runtime.options(config.shots or 0), target)}
    return {
        "name": target.name,
        "engine": config.engine,
        "shots": config.shots,
        "idle_noise": config.idle_noise,
        "device": device,
        "calibration_date": target.calibration_date,
        "snapshot_sha256": target.snapshot_sha256,
        "snapshot_cid": snapshot_cid,
        "native_gates": list(target.native_gates),
        "physical_qubits": list(circuit.physical_qubits),
        "depth": circuit.depth,
        "two_qubit_gates": circuit.two_qubit_gates,
        **runtime,
    }


def build_result(
    *,
    run: str,
    config: RunConfig,
    manifest_sha256: str,
    study: Study,
    backend: dict[str, Any],
    mitigation: dict[str, Any] | None,
    jobs: list[dict[str, Any]],
    sessions: list[dict[str, Any]],
    device_run: dict[str, Any] | None,
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
    log = TransactionLog.of(contract, chain)
    nodes = [
        {
            "id": record.index,
            "address": record.address,
            "signing_key": None if record.signing_key is None else record.signing_key.hex(),
            "register_tx": log.tx("NodeRegistered", 0, record.index),
            "map_tx": log.tx("MapProposed", 0, record.index),
            "records": {
                "train": len(study.shares[record.index].train),
                "validation": len(study.shares[record.index].validation),
            },
            "reputation": reputation[record.index] / 100,
            "excluded": record.excluded,
            "metrics": {part: rounded(m) for part, m in final.nodes.get(record.index, {}).items()},
        }
        for record in contract.nodes()
    ]
    return {
        "format": FORMAT,
        "run": run,
        "config": config.model_dump(mode="json"),
        "config_digest": config.digest.hex(),
        "manifest_sha256": manifest_sha256,
        "dataset": describe_dataset(study),
        "backend": backend,
        **({} if mitigation is None else {"mitigation": mitigation}),
        "feature_map": {"cid": feature_map_cid},
        "nodes": nodes,
        "rounds": _with_transactions(as_json(rounds), contract, log),
        "rollbacks": [
            {"round": int(e.args["round"]), "target": int(e.args["target"]), "spent": e.args["spent"], "tx": e.tx}
            for e in contract.entries()
            if e.name == "RolledBack"
        ],
        "final": {"cid": final.cid, "round": final.base},
        "metrics": {part: rounded(m) for part, m in final.metrics.items()},
        "device_run": device_run,
        "jobs": jobs,
        "sessions": sessions,
        "qpu": describe_qpu(jobs, sessions),
        "spread": {part: spread(nodes, part) for part in ("holdout", "test")},
        "artefacts": {},
        "chain": {
            "kind": chain.kind,
            "chain_id": chain.chain_id,
            "contract": contract.address,
            "open_tx": log.tx("TaskOpened", 0, 0),
            "head": chain.head_number(),
            "gas_used": sum(log.gas.values()),
            "gas": log.gas,
        },
        "store": {"kind": store_kind},
        "versions": versions,
        "resumed_with": resumed_with,
        "seconds": {
            "total": round(seconds, 3),
            "phases": {name: round(seconds, 3) for name, seconds in phases.items()},
        },
    }


def _with_transactions(
    rounds: list[dict[str, Any]], contract: FederatedRounds, log: TransactionLog
) -> list[dict[str, Any]]:
    """The rounds with every node's commitment, and the transactions of commitment and reveal (null: there is none)."""
    for entry in rounds:
        number = entry["number"]
        bound = contract.commitments(number)
        for node in entry["nodes"]:
            i = node["id"]
            node["commitment"] = bound[i].hex() if i in bound else None
            node["commit_tx"] = log.tx("GradesCommitted", number, i)
            node["reveal_tx"] = log.tx("GradesRevealed", number, i)
    return rounds


def spread(nodes: list[dict[str, Any]], part: str) -> dict[str, dict[str, float]] | None:
    """Lowest and highest figure of the nodes' own last models, by metric."""
    figures = [n["metrics"][part] for n in nodes if n["metrics"].get(part)]
    if not figures:
        return None
    return {
        name: {"min": min(f[name] for f in figures), "max": max(f[name] for f in figures)}
        for name in ("accuracy", "precision", "recall", "f1", "auroc")
    }
