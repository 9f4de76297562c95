"""The sections on hardware: devices, compiled circuits, fits to zero noise."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from runner.report.document import Column, Plot, Section, Table
from runner.report.material import QUESTIONS, Evaluation, Material
from runner.report.shared import PANELS, cut, median, of


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
                "t1": median((q["t1"] for q in device["qubits"]), 1e6),
                "t2": median((q["t2"] for q in device["qubits"]), 1e6),
                "one": median(q["one_qubit"] for q in device["qubits"]),
                "two": median(p["error"] for p in device["pairs"]),
                "readout": median(q["readout"] for q in device["qubits"]),
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
    note = "One latent of the first seed's final model. Cross: without noise. " + cut(panels)
    plot = Plot("zne", "Zero-noise extrapolation", alt, "lines", data, note.strip())
    table = Table("zne", "Fits", columns, tuple(rows), "Mean over qubits, of one circuit a seed.")
    return Section("zne", "Zero-noise extrapolation", (), (table,), (plot,))


def _off(values: Sequence[float], truth: Sequence[float]) -> float:
    return statistics.fmean(abs(v - t) for v, t in zip(values, truth, strict=True))
