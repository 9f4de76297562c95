"""The sections that lie beside detection: devices, circuits, rounds, curves, fits, cost, reputation, and where each
figure comes from."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from runner.compare import stats
from runner.compare.grid import NONE
from runner.report.document import Column, Plot, Section, Table
from runner.report.material import QUESTIONS, Evaluation, Material, Training

PANELS = 12
"""Small pictures in one; more are left to the tables."""


def of(values: Mapping[int, float]) -> dict[str, Any] | None:
    """Mean and interval over seeds; None of nothing."""
    return stats.interval([values[k] for k in sorted(values)]).to_dict() if values else None


def _places(material: Material) -> list[tuple[str, Evaluation, list[int]]]:
    """(point, an evaluation, its seeds) for every circuit that was run somewhere: layouts may differ by seed."""
    found: dict[tuple[str, str], tuple[Evaluation, set[int]]] = {}
    for arm in material.arms:
        for seed, evaluation in arm.evaluations.items():
            if not evaluation["device"]["qubits"]:
                continue
            key = (arm.point, str(evaluation["circuit"]["physical_qubits"]))
            found.setdefault(key, (evaluation, set()))[1].add(seed)
    return [(point, evaluation, sorted(seeds)) for (point, _), (evaluation, seeds) in found.items()]


def _median(values: Iterable[float | None], scale: float = 1.0) -> float | None:
    known = [v for v in values if v is not None]
    return statistics.median(known) * scale if known else None


def _numbers(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))


def devices(material: Material) -> Section | None:
    """What the calibrations say of the qubits in use."""
    places = _places(material)
    if not places:
        return None
    rows = []
    for point, evaluation, seeds in places:
        device = evaluation["device"]
        rows.append(
            {
                "place": point,
                "calibrated": device["calibration_date"],
                "qubits": _numbers(evaluation["circuit"]["physical_qubits"]),
                "seeds": _numbers(seeds),
                "gate": device["two_qubit_gate"],
                "t1": _median((q["t1"] for q in device["qubits"]), 1e6),
                "t2": _median((q["t2"] for q in device["qubits"]), 1e6),
                "one": _median(q["one_qubit"] for q in device["qubits"]),
                "two": _median(p["error"] for p in device["pairs"]),
                "readout": _median(q["readout"] for q in device["qubits"]),
            }
        )
    columns = (
        Column("place", "device"),
        Column("calibrated", "calibrated"),
        Column("qubits", "qubits"),
        Column("seeds", "seeds"),
        Column("gate", "native two-qubit gate"),
        Column("t1", "T1", "figures", 3, "µs"),
        Column("t2", "T2", "figures", 3, "µs"),
        Column("one", "one-qubit error", "figures", 3),
        Column("two", "two-qubit error", "figures", 3),
        Column("readout", "readout error", "figures", 3),
    )
    note = (
        "Medians over the qubits and pairs that the circuit uses, as the calibration has them, noise scaled included."
    )
    single = [
        {
            "place": point,
            "qubit": q["qubit"],
            "t1": None if q["t1"] is None else q["t1"] * 1e6,
            "t2": None if q["t2"] is None else q["t2"] * 1e6,
            "one": q["one_qubit"],
            "readout": q["readout"],
        }
        for point, evaluation, _ in places
        for q in evaluation["device"]["qubits"]
    ]
    qubits = (
        Column("place", "device"),
        Column("qubit", "qubit", "whole"),
        Column("t1", "T1", "figures", 3, "µs"),
        Column("t2", "T2", "figures", 3, "µs"),
        Column("one", "one-qubit error", "figures", 3),
        Column("readout", "readout error", "figures", 3),
    )
    tables = [Table("devices", "Devices", columns, tuple(rows), note)]
    once = {(row["place"], row["qubit"]): row for row in single}
    tables.append(Table("qubits", "Qubits in use", qubits, tuple(once.values())))
    return Section("devices", "Devices", (), tuple(tables))


def circuits(material: Material) -> Section | None:
    """What the generator is on each device."""
    rows = [
        {
            "place": point,
            "seeds": _numbers(seeds),
            "depth": evaluation["circuit"]["depth"],
            "gates": evaluation["circuit"]["gates"],
            "two": evaluation["circuit"]["two_qubit_gates"],
            "seconds": None if evaluation["circuit"]["seconds"] is None else evaluation["circuit"]["seconds"] * 1e6,
            "fidelity": evaluation["circuit"]["fidelity"],
        }
        for point, evaluation, seeds in _places(material)
    ]
    if not rows:
        return None
    columns = (
        Column("place", "device"),
        Column("seeds", "seeds"),
        Column("depth", "depth", "whole"),
        Column("gates", "gates", "whole"),
        Column("two", "two-qubit gates", "whole"),
        Column("seconds", "duration", "figures", 3, "µs"),
        Column("fidelity", "estimated fidelity", "fixed", 3),
    )
    note = (
        "Duration is from the reset of the qubits to the end of readout. The estimated fidelity is the product of all "
        "that can go right, from the calibration: gates, waiting, readout."
    )
    return Section(
        "circuits", "Circuits", (), (Table("circuits", "The compiled generator", columns, tuple(rows), note),)
    )


def _rounds(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [r for r in result["rounds"] if not r["void"]]


def _over_rounds(training: Training, figure: Callable[[Mapping[str, Any]], float | None]) -> dict[str, Any]:
    """A figure of each round: mean over seeds, with its interval."""
    numbers = sorted({int(r["number"]) for result in training.results.values() for r in _rounds(result)})
    out: dict[str, Any] = {"x": numbers, "y": [], "low": [], "high": []}
    for number in numbers:
        found = {}
        for seed, result in training.results.items():
            value = next((figure(r) for r in _rounds(result) if r["number"] == number), None)
            if value is not None:
                found[seed] = value
        one = of(found)
        for key, name in (("y", "mean"), ("low", "low"), ("high", "high")):
            out[key].append(None if one is None else one[name])
    return out


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
            found = _over_rounds(
                training, _node(node["id"], lambda n: None if n["fault"] else float(n["metrics"]["auroc"]))
            )
            series.append({"label": f"node {node['id']}", "x": found["x"], "y": found["y"], "thin": True})
        aggregate = _over_rounds(training, lambda r: float(r["aggregate"]["metrics"]["auroc"]))
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
        {"panels": panels[:PANELS], "xlabel": "round", "ylabel": "validation AUROC", "whole": True}, _cut(panels),
    )  # fmt: skip
    table = Table("convergence", "Validation AUROC by round", columns, tuple(rows), "Nodes: means over seeds.")
    return Section("convergence", "Convergence", (), (table,), (plot,))


def _has(values: Sequence[Any], i: int) -> bool:
    return i < len(values) and values[i] is not None


def _interval_at(found: Mapping[str, Any], i: int, n: int) -> dict[str, Any]:
    return {"mean": found["y"][i], "low": found["low"][i], "high": found["high"][i], "n": n}


def _cut(panels: Sequence[Any]) -> str:
    return f"The first {PANELS} of {len(panels)}; the table has all." if len(panels) > PANELS else ""


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
    note = f"Seed {min(min(a.evaluations) for a in arms)}; models where they were trained. {_cut(steps)}".strip()
    plots.append(Plot("scores", "Scores of benign records and attacks", alt, "steps", data, note))
    return Section("curves", "ROC and scores", (), (), tuple(plots))


def _mean_note(shaded: str) -> str:
    return f"Mean true positive rate over seeds{shaded}." if shaded else ""


def zne(material: Material) -> Section | None:
    """Zero-noise fits: values of one circuit over the noise scale, and what they are led back to."""
    panels, rows = [], []
    for arm in material.arms:
        fits = {s: e["zne"] for s, e in arm.evaluations.items() if e["zne"] is not None}
        if not fits or (material.compared and arm.question != "once"):
            continue
        before = {s: _off(f["values"][0], f["ideal"]) for s, f in fits.items()}
        after = {s: _off(f["extrapolated"], f["ideal"]) for s, f in fits.items()}
        rows.append(
            {
                "models": QUESTIONS[arm.question],
                "place": arm.point,
                "stack": arm.stack,
                "fit": next(iter(fits.values()))["extrapolation"],
                "before": of(before),
                "after": of(after),
            }
        )
        fit = fits[min(fits)]
        series = []
        for qubit, truth in enumerate(fit["ideal"]):
            series.append(
                {
                    "label": f"⟨Z{qubit}⟩",
                    "x": [0.0, *fit["scales"]],
                    "y": [fit["extrapolated"][qubit], *(row[qubit] for row in fit["values"])],
                    "truth": truth,
                }
            )
        panels.append({"title": arm.label, "series": series})
    if not panels:
        return None
    columns = (
        Column("models", "models"),
        Column("place", "run on"),
        Column("stack", "mitigation"),
        Column("fit", "extrapolation"),
        Column("before", "|⟨Z⟩ − ideal| at scale 1", "interval"),
        Column("after", "extrapolated", "interval"),
    )
    alt = (
        "Zero-noise extrapolation, a panel a device: expectation values of one circuit at each noise scale, the "
        f"extrapolated value at scale 0, and a cross for the ideal one. On {rows[0]['place']} the mean error goes "
        f"from {rows[0]['before']['mean']:.4f} to {rows[0]['after']['mean']:.4f}."
    )
    data = {"panels": panels[:PANELS], "xlabel": "noise scale", "ylabel": "⟨Z⟩", "fit": True}
    note = "One latent of the first seed's final model. Cross: without noise. " + _cut(panels)
    plot = Plot("zne", "Zero-noise extrapolation", alt, "lines", data, note.strip())
    table = Table("zne", "Fits", columns, tuple(rows), "Mean over qubits, of one circuit a seed.")
    return Section("zne", "Zero-noise extrapolation", (), (table,), (plot,))


def _off(values: Sequence[float], truth: Sequence[float]) -> float:
    return statistics.fmean(abs(v - t) for v, t in zip(values, truth, strict=True))


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
                "estimated": _mean(on_device.get(training.label, {}).values()),
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
                    "seconds": _mean(float(e["seconds"]) for e in arm.evaluations.values()),
                    "qpu": _mean(estimates.values()),
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


def _mean(values: Iterable[float]) -> float | None:
    found = list(values)
    return statistics.fmean(found) if found else None


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

            found, grades = _over_rounds(training, standing), _over_rounds(training, score)
            series.append({"label": f"node {i}", **found})
            scores.append({"label": f"node {i}", **grades})
            every = [r for result in training.results.values() for r in _rounds(result)]
            final = of(
                {s: float(r["nodes"][i]["reputation"]) for s, r in training.results.items() if i < len(r["nodes"])}
            )
            rows.append(
                {
                    "training": training.label,
                    "node": i,
                    "grade": _median(grades["y"]),
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
        Plot("grades", "Grades", told, "lines", {**data, "panels": graded[:PANELS], "ylabel": "grade"}, _cut(panels)),
        Plot("reputation", "Reputation", alt, "lines", data, _cut(panels)),
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
