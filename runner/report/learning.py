"""The sections on learning: convergence over rounds, ROC curves and histograms of scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from runner.compare import stats
from runner.compare.grid import NONE
from runner.report.document import Column, Plot, Section, Table
from runner.report.material import QUESTIONS, Material
from runner.report.shared import PANELS, cut, over_rounds


def _node(
    identity: int, get: Callable[[Mapping[str, Any]], float | None]
) -> Callable[[Mapping[str, Any]], float | None]:
    def figure(round_: Mapping[str, Any]) -> float | None:
        return next((get(n) for n in round_["nodes"] if n["id"] == identity), None)

    return figure


def convergence(material: Material) -> Section:
    """Validation AUROC over the rounds, of each node and of the aggregate."""
    panels, rows = [], []
    for training in material.trainings:
        series = []
        for node in training.any["nodes"]:
            found = over_rounds(
                training, _node(node["id"], lambda n: None if n["fault"] else float(n["metrics"]["auroc"]))
            )
            series.append({"label": f"node {node['id']}", "x": found["x"], "y": found["y"], "thin": True})
        aggregate = over_rounds(training, lambda r: float(r["aggregate"]["metrics"]["auroc"]))
        series.append({"label": "aggregate", **aggregate, "ink": True})
        panels.append({"title": training.label, "series": series})
        for i, number in enumerate(aggregate["x"]):
            rows.append(
                {
                    "training": training.label,
                    "round": number,
                    "aggregate": _interval_at(aggregate, i, len(training.results)),
                    "lowest": min((s["y"][i] for s in series[:-1] if _has(s["y"], i)), default=None),
                    "highest": max((s["y"][i] for s in series[:-1] if _has(s["y"], i)), default=None),
                }
            )
    columns = (
        Column("training", "trained on"),
        Column("round", "round", "whole"),
        Column("aggregate", "aggregate", "interval"),
        Column("lowest", "lowest node", "fixed"),
        Column("highest", "highest node", "fixed"),
    )
    first, last = rows[0], rows[-1]
    alt = (
        f"Validation AUROC over the rounds, a panel a training. The aggregate of {first['training']} begins at "
        f"{first['aggregate']['mean']:.3f}; that of {last['training']} ends at {last['aggregate']['mean']:.3f}."
    )
    plot = Plot(
        "convergence", "Convergence by node and aggregate", alt, "lines",
        {"panels": panels[:PANELS], "xlabel": "round", "ylabel": "validation AUROC", "whole": True}, cut(panels),
    )  # fmt: skip
    table = Table("convergence", "Validation AUROC by round", columns, tuple(rows), "Nodes: means over seeds.")
    return Section("convergence", "Convergence", (), (table,), (plot,))


def _has(values: Sequence[Any], i: int) -> bool:
    return i < len(values) and values[i] is not None


def _interval_at(found: Mapping[str, Any], i: int, n: int) -> dict[str, Any]:
    return {"mean": found["y"][i], "low": found["low"][i], "high": found["high"][i], "n": n}


def curves(material: Material) -> Section | None:
    """ROC curves and histograms of scores."""
    arms = [arm for arm in material.arms if arm.evaluations]
    if not arms:
        return None
    plots = []
    for part, name in (("holdout", "hold-out"), ("test", "test file")):
        panels: list[dict[str, Any]] = []
        for question in dict.fromkeys(arm.question for arm in arms):
            series = []
            references = {arm.reference for arm in arms if arm.question == question}
            for arm in arms:
                kept = [e["roc"][part] for e in arm.evaluations.values() if e["roc"][part] and e["roc"][part]["fpr"]]
                here = arm.question == question or any(r is not None and material.arms[r] is arm for r in references)
                if not here or not kept or (material.compared and arm.stack != NONE):
                    continue
                mean = stats.mean_roc(kept)
                several = len(kept) > 1
                series.append(
                    {
                        "label": arm.label,
                        "x": mean["fpr"],
                        "y": mean["mean"],
                        "low": mean["low"] if several else [None] * len(mean["fpr"]),
                        "high": mean["high"] if several else [None] * len(mean["fpr"]),
                        "plain": True,
                    }
                )
            if series:
                panels.append({"title": QUESTIONS[question], "series": series})
        if not panels:
            continue
        shaded = "; shaded from the lowest to the highest seed" if len(material.seeds) > 1 else ""
        alt = (
            f"ROC curves on the {name} ({', '.join(s['label'] for s in panels[0]['series'])}), true over false "
            f"positive rate, means over seeds{shaded}; the diagonal is chance."
        )
        data = {
            "panels": panels,
            "xlabel": "false positive rate",
            "ylabel": "true positive rate",
            "square": True,
        }
        plots.append(Plot(f"roc-{part}", f"ROC on the {name}", alt, "lines", data, _mean_note(shaded)))
    steps = []
    for arm in arms:
        if material.compared and (arm.stack != NONE or (arm.question == "once" and arm.reference is not None)):
            continue
        seed = min(arm.evaluations)
        steps.append({"title": arm.label, **arm.evaluations[seed]["histogram"]})
    alt = (
        f"Histograms of anomaly scores on the hold-out, benign records and attacks, a panel each for "
        f"{', '.join(step['title'] for step in steps[:PANELS])}; shares of each class by score."
    )
    data = {"panels": steps[:PANELS], "xlabel": "anomaly score", "ylabel": "share of the class"}
    note = f"Seed {min(min(a.evaluations) for a in arms)}; models where they were trained. {cut(steps)}".strip()
    plots.append(Plot("scores", "Scores of benign records and attacks", alt, "steps", data, note))
    return Section("curves", "ROC and scores", (), (), tuple(plots))


def _mean_note(shaded: str) -> str:
    return f"Mean true positive rate over seeds{shaded}." if shaded else ""
