"""What the terminal shows of a peer's report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runner.tables import emit, stdout, table_of

METRICS = ("accuracy", "precision", "recall", "f1", "auroc")


def show_report(report: Mapping[str, Any], folder: Path) -> None:
    """The final aggregate's figures, and where everything is."""
    by = report["final"]["calibrated_by"]
    table = table_of(
        f"Final aggregate, threshold from benign records of nodes {', '.join(map(str, by))}",
        ["scored on", *METRICS],
        numeric=range(1, 6),
    )
    official = report["dataset"]["source"] == "official"
    file = "KDDTest+" if official else "stand-in test"
    names = {"holdout": "hold-out" if official else "stand-in hold-out", "test": file}
    for part, name in {**names, "test_without_seen": f"{file}, unseen"}.items():
        metrics = report["metrics"].get(part)
        if metrics is not None:
            table.add_row(name, *(f"{metrics[m]:.4f}" for m in METRICS))
    emit(table)
    node, task, seen = report["node"], report["task"], report["witnessed"]
    lines = {
        "node": f"{node['id']} ({node['address']}), reputation {node['reputation']:g}",
        "task": f"{task['contract']} on chain {task['chain_id']}, {task['schedule']}",
        "model": f"{report['final']['cid']} of round {report['final']['round']}",
        "models": f"{len(report['models'])} of this node",
        "chain": "believed (--trust-chain)" if seen is None else f"executed again up to block {seen['block']}",
        "config": report["config_digest"],
        "folder": str(folder),
        "took": f"{report['seconds']['besides_training_a_round']} s a round besides training, "
        f"{report['memory_mb']} MB at most",
    }
    for name, text in lines.items():
        stdout().print(f"{name:8} {text}", highlight=False, soft_wrap=True)
