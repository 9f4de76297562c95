"""The sections on the record: cost, grades and reputation, and where each figure comes from."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from typing import Any

from runner.report.document import Column, Plot, Section, Table
from runner.report.material import QUESTIONS, Material
from runner.report.shared import PANELS, cut, mean_of, median, of, over_rounds, rounds_of


def cost(material: Material) -> Section:
    """What trainings and evaluations took."""
    rows = []
    on_device: dict[str, dict[int, float]] = {}
    for arm in material.arms:
        for seed, e in arm.evaluations.items():
            if e["cost"]["on_device"] is not None:
                on_device.setdefault(arm.training.label, {})[seed] = float(e["cost"]["on_device"]["qpu_seconds"])
    for training in material.trainings:
        results = training.results
        resources = {
            seed: [n["resources"] for r in result["rounds"] for n in r["nodes"]] for seed, result in results.items()
        }
        rows.append(
            {
                "training": training.label,
                "runs": len(results),
                "seconds": statistics.fmean(float(r["seconds"]["total"]) for r in results.values()),
                "training_s": statistics.fmean(
                    float(r["seconds"]["phases"].get("training", 0.0)) for r in results.values()
                ),
                "circuits": _average(
                    sum(float(x.get("circuits", 0)) for x in of_seed) for of_seed in resources.values()
                ),
                "shots": _average(sum(float(x.get("shots", 0)) for x in of_seed) for of_seed in resources.values()),
                "qpu": statistics.fmean(float(r["qpu"]["total"]) for r in results.values()),
                "estimated": mean_of(on_device.get(training.label, {}).values()),
                "gas": _average(float(r["chain"]["gas_used"]) for r in results.values()),
            }
        )
    columns = (
        Column("training", "trained on"),
        Column("runs", "runs", "whole"),
        Column("seconds", "whole run", "fixed", 1, "s"),
        Column("training_s", "training", "fixed", 1, "s"),
        Column("circuits", "circuits", "whole"),
        Column("shots", "shots", "whole"),
        Column("qpu", "QPU spent", "fixed", 1, "s"),
        Column("estimated", "QPU if trained there, estimated", "fixed", 0, "s"),
        Column("gas", "gas", "whole"),
    )
    note = (
        "Means over runs, of one machine's wall clock. Circuits and shots are those that nodes state for their work; "
        "exact values take none. The estimate is of the same run through IBM's Runtime, with 1024 shots where it had "
        "none."
    )
    tables = [Table("cost", "Trainings", columns, tuple(rows), note)]
    there = []
    for arm in material.arms:
        known = {s: e["cost"] for s, e in arm.evaluations.items()}
        if known and arm.question != "mitigated":
            estimates = {s: c["qpu_seconds"] for s, c in known.items() if c["qpu_seconds"] is not None}
            there.append(
                {
                    "models": QUESTIONS[arm.question],
                    "place": arm.point,
                    "mitigation": arm.stack,
                    "circuits": _average(float(c["circuits"]) for c in known.values()),
                    "overhead": next(iter(known.values()))["overhead"],
                    "seconds": mean_of(float(e["seconds"]) for e in arm.evaluations.values()),
                    "qpu": mean_of(estimates.values()),
                }
            )
    if there:
        evaluated = (
            Column("models", "models"),
            Column("place", "run on"),
            Column("mitigation", "mitigation"),
            Column("circuits", "circuits", "whole"),
            Column("overhead", "circuits for each", "figures", 3),
            Column("seconds", "here", "fixed", 2, "s"),
            Column("qpu", "QPU, estimated", "fixed", 1, "s"),
        )
        note = (
            "The samples that a model is scored with. QPU seconds are what one job of them would take on the device, "
            "by IBM's own formula, with 1024 shots a circuit where values are exact here."
        )
        tables.append(Table("cost-evaluation", "Evaluations", evaluated, tuple(there), note))
    return Section("cost", "Cost", (), tuple(tables))


def _average(values: Iterable[float]) -> int | None:
    found = list(values)
    return round(statistics.fmean(found)) or None if found else None


def reputation(material: Material) -> Section:
    """Grades and reputation over the rounds."""
    panels, graded, rows = [], [], []
    for training in material.trainings:
        series, scores = [], []
        for node in training.any["nodes"]:
            i = node["id"]

            def score(round_: Mapping[str, Any], i: int = i) -> float | None:
                value = round_["settlement"]["scores"].get(str(i))
                return None if value is None else float(value)

            # The settlement has it of every node; a round's own list leaves out who was absent.
            def standing(round_: Mapping[str, Any], i: int = i) -> float | None:
                value = round_["settlement"]["reputation"].get(str(i))
                return None if value is None else float(value)

            found, grades = over_rounds(training, standing), over_rounds(training, score)
            series.append({"label": f"node {i}", **found})
            scores.append({"label": f"node {i}", **grades})
            every = [r for result in training.results.values() for r in rounds_of(result)]
            final = of(
                {s: float(r["nodes"][i]["reputation"]) for s, r in training.results.items() if i < len(r["nodes"])}
            )
            rows.append(
                {
                    "training": training.label,
                    "node": i,
                    "grade": median(grades["y"]),
                    "lowest": min((v for r in every if (v := score(r)) is not None), default=None),
                    "reputation": final,
                    "warned": sum(i in r["settlement"]["flagged"] for r in every),
                    "excluded": sum(i in r["settlement"]["excluded"] for r in every),
                    "absent": sum(i in r["absent"] for r in every),
                }
            )
        panels.append({"title": training.label, "series": series})
        graded.append({"title": training.label, "series": scores})
    columns = (
        Column("training", "trained on"),
        Column("node", "node", "whole"),
        Column("grade", "grade, median of rounds", "figures", 3),
        Column("lowest", "lowest grade", "figures", 3),
        Column("reputation", "reputation at the end", "interval", 1),
        Column("warned", "warned", "whole"),
        Column("excluded", "excluded", "whole"),
        Column("absent", "absent", "whole"),
    )
    lowest = min((row["reputation"]["mean"] for row in rows if row["reputation"] is not None), default=0.0)
    alt = (
        "Reputation of each node over the rounds, a panel a training, from 0 to 100; the lowest at the end is "
        f"{lowest:.1f}."
    )
    data = {"panels": panels[:PANELS], "xlabel": "round", "ylabel": "reputation", "whole": True, "ylim": [0, 105]}
    told = "Grade of each node over the rounds, as the contract settled it, a panel a training, from 0 to 100."
    plots = (
        Plot("grades", "Grades", told, "lines", {**data, "panels": graded[:PANELS], "ylabel": "grade"}, cut(panels)),
        Plot("reputation", "Reputation", alt, "lines", data, cut(panels)),
    )
    note = "Grades are settled by weighted medians, 0 to 100; warned, excluded and absent count rounds over all runs."
    table = Table("reputation", "Grades and reputation", columns, tuple(rows), note)
    return Section("reputation", "Grades and reputation", (), (table,), plots)


def trace(material: Material) -> Section:
    """Where each figure comes from: runs, contracts, CIDs, versions."""
    rows = []
    for training in material.trainings:
        for result in training.results.values():
            rows.append(
                {
                    "run": result["run"],
                    "training": training.label,
                    "seed": int(result["config"]["seed"]),
                    "config": result["config_digest"],
                    "model": result["final"]["cid"],
                    "map": result["feature_map"]["cid"],
                    "contract": result["chain"]["contract"],
                    "chain": f"{result['chain']['kind']}, id {result['chain']['chain_id']}",
                    "transaction": result["chain"]["open_tx"],
                    "versions": _versions(result),
                }
            )
    columns = (
        Column("run", "run", "mono"),
        Column("training", "trained on"),
        Column("seed", "seed", "whole"),
        Column("config", "config digest", "mono"),
        Column("model", "final model, CID", "mono"),
        Column("map", "feature map, CID", "mono"),
        Column("contract", "contract", "mono"),
        Column("chain", "chain"),
        Column("transaction", "opened by", "mono"),
        Column("versions", "versions"),
    )
    text = (
        "Every figure follows from the runs below. `qrun verify RUN --data auto` checks a run's record, and computes "
        "its metrics again; evaluations follow from the final model and the data in the same way.",
    )
    return Section("trace", "Where the figures come from", text, (Table("trace", "Runs", columns, tuple(rows)),))


def _versions(result: Mapping[str, Any]) -> str:
    kept = ("qrun", "git_commit", "python", "torch", "qiskit", "mitiq", "machine")
    return ", ".join(f"{k} {str(v)[:12]}" for k, v in result["versions"].items() if k in kept and v is not None)
