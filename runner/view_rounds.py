"""Rounds shown: a run's own, and what the chain holds of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from runner.progress import RoundResult
from runner.tables import emit, short, show_table, stdout, table_of


def _grades(grades: Mapping[Any, int]) -> str:
    """Peer:grade for each, or for more than eight the range of them."""
    if len(grades) > 8:
        values = sorted(grades.values())
        return f"{values[0]}-{values[-1]}, median {values[len(values) // 2]}"
    return " ".join(f"{k}:{v}" for k, v in sorted(grades.items())) or "-"


def round_table(result: RoundResult) -> Table:
    """Validation figures of nodes and aggregate, grades given, score and reputation, what the contract says of it."""
    wide = stdout().width >= 100
    verdict = result.verdict
    marks = ["" if result.source == "official" else f"{result.source} data"]
    marks.append("" if verdict.strong else "weak settlement: grades disagree, so that it changes little")
    marks.append("taken back by a rollback" if result.void else "")
    told = "".join(f", {mark}" for mark in marks if mark)
    start = "" if result.base in (0, result.number - 1) else f", from round {result.base}"
    table = table_of(
        f"Round {result.number}{start} (validation{told})",
        ["node", "accuracy", "F1", "AUROC", "grades given", "score", "rep.", "CID", *(["transaction"] if wide else [])],
        numeric=[*range(1, 4), 5, 6],
    )
    for n in result.nodes:
        said = "model refused" if n.fault else verdict.words(n.node)
        table.add_row(
            f"{n.node} {said}".rstrip(),
            *(f"{n.metrics[m]:.4f}" for m in ("accuracy", "f1", "auroc")),
            _grades(n.grades),
            str(verdict.scores.get(n.node, "-")),
            f"{n.reputation:.1f}",
            short(n.cid),
            *([short(n.tx)] if wide else []),
            style="red" if said else None,
        )
    for node in result.absent:
        said = ", ".join(["absent", *([word] if (word := verdict.words(node)) else [])])
        table.add_row(
            f"{node} {said}", *["-"] * 5, f"{verdict.reputation[node]:.1f}", *["-"] * (2 if wide else 1), style="red"
        )
    a = result.aggregate
    table.add_row("aggregate", *(f"{a[m]:.4f}" for m in ("accuracy", "f1", "auroc")), style="bold")
    return table


def show_chain(record: Mapping[str, Any]) -> None:
    """What the chain holds about a run: the task, where it is, the nodes, and a table a round."""
    facts = ("kind", "chain_id", "contract", "head", "gas_used", "experiment", "config_digest", "data_source",
             "feature_map_digest", "max_rounds", "settled_rounds", "phase", "open_round", "base")  # fmt: skip
    show_table("On the chain", ["what", "value"], [[k, str(record[k])] for k in facts])
    show_table(
        "Nodes",
        ["node", "address", "exchange key", "signs with", "reputation"],
        [
            [
                f"{n['id']} excluded" if n["excluded"] else str(n["id"]),
                n["address"],
                short(n["exchange_key"]),
                "its account" if n["signing_key"] is None else f"ML-DSA-65 {n['signing_key'][:8]}…",
                f"{n['reputation']:.1f}",
            ]
            for n in record["nodes"]
        ],
    )
    for r in record["rounds"]:
        start = "the common start" if r["base"] == 0 else f"round {r['base']}"
        table = table_of(
            f"Round {r['number']} from {start} ({r['state']})",
            ["node", "block", "accuracy", "F1", "AUROC", "grades given", "score", "rep.", "CID", "transaction"],
            numeric=[*range(1, 5), 6, 7],
        )
        for n in r["nodes"]:
            table.add_row(
                f"{n['id']} {n['said']}".rstrip(),
                str(n["block"]),
                *(f"{n['metrics'][m]:.4f}" for m in ("accuracy", "f1", "auroc")),
                _grades(n["grades"]) if n["grades"] or not n["committed"] else "committed",
                "-" if n["score"] is None else str(n["score"]),
                "-" if n["reputation"] is None else f"{n['reputation']:.1f}",
                short(n["cid"]),
                short(n["tx"]),
            )
        emit(table)
