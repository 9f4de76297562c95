"""From material to a report: sentences, tables, plots. What is counted here is counted once, for every format."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from runner.compare import stats
from runner.compare.grid import NONE, UNITS
from runner.report.document import Column, Plot, Report, Section, Table
from runner.report.hardware import circuits, devices, zne
from runner.report.learning import convergence, curves
from runner.report.material import QUESTIONS, Arm, Material
from runner.report.record import cost, reputation, trace
from runner.report.sentences import sentences
from runner.report.shared import of
from runner.versions import versions

Tests = dict[tuple[int, str], stats.Paired]
"""(arm, metric) -> against its reference."""

TESTED = (("holdout", "auroc"), ("holdout", "f1"), ("test", "auroc"), ("test", "f1"))
SHOWN = ("auroc", "f1", "accuracy", "precision", "recall")


def build(material: Material) -> Report:
    """The report."""
    tests = compare_all(material.arms)
    sections = [
        detection(material, tests),
        along_axis(material),
        distances(material),
        devices(material),
        circuits(material),
        convergence(material),
        curves(material),
        zne(material),
        cost(material),
        reputation(material),
        trace(material),
    ]
    kept = tuple(s for s in sections if s is not None and (s.tables or s.plots or s.text))
    about = {
        **material.about,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "data": dict(material.data),
        "seeds": material.seeds,
    }
    return Report(material.title, sentences(material, tests), tuple(material.notices), kept, about)


def compare_all(arms: Sequence[Arm]) -> Tests:
    """Every arm against its reference, pairs of the same seed, p by Holm over all arms of a metric."""
    out: Tests = {}
    for part, name in TESTED:
        found: list[tuple[int, stats.Paired]] = []
        for i, arm in enumerate(arms):
            if arm.reference is None:
                continue
            one = stats.paired(arm.metrics(part, name), arms[arm.reference].metrics(part, name))
            if one is not None:
                found.append((i, one))
        adjusted = stats.holm([one.p for _, one in found])
        for (i, one), p in zip(found, adjusted, strict=True):
            out[i, f"{part}_{name}"] = stats.Paired(one.difference, one.p, p)
    return out


def part_names(material: Material) -> dict[str, str]:
    """Parts of the records that something was scored on, and what they are called."""
    official = material.data["source"] == "official"
    names = {"holdout": "hold-out" if official else "stand-in hold-out", "test": "test file"}
    if official and material.data["name"] == "nsl-kdd":
        names["test"] = "KDDTest+"
    elif not official:
        names["test"] = "stand-in test"
    return {p: n for p, n in names.items() if any(arm.metrics(p, "auroc") for arm in material.arms)}


def detection(material: Material, tests: Tests) -> Section:
    """How well attacks are found, by arm."""
    arms, tables, plots = material.arms, [], []
    several = any(arm.reference is not None for arm in arms)
    for part, name in part_names(material).items():
        rows = []
        for i, arm in enumerate(arms):
            row: dict[str, Any] = {
                "models": QUESTIONS[arm.question],
                "place": arm.point,
                "mitigation": arm.stack,
                "seeds": len(arm.metrics(part, "auroc")),
                **{metric: of(arm.metrics(part, metric)) for metric in SHOWN},
            }
            if arm.evaluations and not arm.is_own:
                row["f1_as_trained"] = of(arm.as_trained(part, "f1"))
            for metric in ("auroc", "f1"):
                test = tests.get((i, f"{part}_{metric}"))
                if test is not None:
                    row |= {
                        f"{metric}_apart": test.difference.to_dict(),
                        f"{metric}_p": test.p,
                        f"{metric}_p_holm": test.adjusted,
                    }
            rows.append(row)
        columns = [
            Column("models", "models"),
            Column("place", "run on"),
            Column("mitigation", "mitigation"),
            Column("seeds", "seeds", "whole"),
            Column("auroc", "AUROC", "interval"),
        ]
        against = [
            Column("auroc_apart", "AUROC − ideal", "points", 2, "points"),
            Column("auroc_p_holm", "p, Holm", "p"),
            Column("auroc_p", "p, alone", "p"),
        ]
        columns += against if several else []
        columns.append(Column("f1", "F1", "interval"))
        if any("f1_as_trained" in row for row in rows):
            columns.append(Column("f1_as_trained", "F1, threshold of training", "interval"))
        if several:
            columns += [
                Column("f1_apart", "F1 − ideal", "points", 2, "points"),
                Column("f1_p_holm", "p, Holm", "p"),
            ]
        columns += [Column(m, m, "interval") for m in ("accuracy", "precision", "recall")]
        tables.append(
            Table(
                f"detection-{part}", f"Detection on the {name}", tuple(columns), tuple(rows), _NOTE if several else ""
            )
        )
        plots.append(_quality_plot(material, part, name))
    text = (
        "AUROC needs no threshold; F1 is at the label-free one, a quantile of benign validation scores where the model "
        "runs. Means over seeds with 95 % t intervals.",
    )
    return Section("detection", "Detection quality", text, tuple(tables), tuple(plots))


_NOTE = (
    "Differences are to the same model on the ideal target, in pairs of the same seed; p of the two-sided paired t "
    "test, adjusted by Holm over all rows of a metric. “Threshold of training”: with the calibration that the model "
    "had where it was trained; F1 is else calibrated where it runs."
)


def _quality_plot(material: Material, part: str, name: str) -> Plot:
    panels = []
    points = list(dict.fromkeys(arm.point for arm in material.arms))
    for question in dict.fromkeys(arm.question for arm in material.arms):
        mine = [arm for arm in material.arms if arm.question == question]
        series = [
            {
                "label": "no mitigation" if stack == NONE else stack,
                "values": [
                    next((of(a.metrics(part, "auroc")) for a in mine if (a.point, a.stack) == (point, stack)), None)
                    for point in points
                ],
            }
            for stack in dict.fromkeys(arm.stack for arm in mine)
        ]
        references = {arm.reference for arm in mine if arm.reference is not None}
        panel: dict[str, Any] = {"title": QUESTIONS[question], "series": series}
        if len(references) == 1:
            panel["reference"] = _mean(material.arms[references.pop()].metrics(part, "auroc"))
        panels.append(panel)
    best = max(material.arms, key=lambda arm: _mean(arm.metrics(part, "auroc")))
    worst = min(material.arms, key=lambda arm: _mean(arm.metrics(part, "auroc")))
    alt = (
        f"AUROC on the {name} by device and mitigation, means with 95 % intervals: from "
        f"{_mean(worst.metrics(part, 'auroc')):.4f} ({worst.label}, {QUESTIONS[worst.question]}) to "
        f"{_mean(best.metrics(part, 'auroc')):.4f} ({best.label}, {QUESTIONS[best.question]})."
    )
    data = {"categories": points, "panels": panels, "xlabel": f"AUROC on the {name}"}
    note = "Dotted: the ideal target." if any("reference" in panel for panel in panels) else ""
    return Plot(f"quality-{part}", f"AUROC on the {name}", alt, "intervals", data, note)


def _mean(values: Mapping[int, float]) -> float:
    return statistics.fmean(values.values()) if values else float("nan")


def along_axis(material: Material) -> Section | None:
    """The figures over the axis, where there is one."""
    if material.axis is None:
        return None
    unit = UNITS[material.axis]
    arms = [arm for arm in material.arms if arm.place is not None]
    places = list(dict.fromkeys(arm.place for arm in arms if arm.place is not None))
    ticks = None
    if any(isinstance(place, str) for place in places):
        ticks = [str(place)[:10] if material.axis == "calibration" else str(place) for place in places]
    plots = []
    wanted = [(f"AUROC on the {name}", _quality(part), f"axis-{part}") for part, name in part_names(material).items()]
    if any(arm.evaluations for arm in arms):
        wanted.append(("mean |⟨Z⟩ − ideal|", _apart, "axis-expectations"))
    for label, figure, identity in wanted:
        panels = []
        for question in dict.fromkeys(arm.question for arm in arms):
            series = []
            for backend, stack in dict.fromkeys((a.backend, a.stack) for a in arms if a.question == question):
                mine = [a for a in arms if (a.question, a.backend, a.stack) == (question, backend, stack)]
                values = [of(figure(arm)) for arm in mine]
                x = [places.index(arm.place) if ticks else arm.place for arm in mine if arm.place is not None]
                same = material.axis == "calibration"
                name = ("device" if same else backend) + ("" if stack == NONE else f" + {stack}")
                series.append(_line(name, x, values))
            if material.axis == "calibration":
                series = _joined(series)
            panels.append({"title": QUESTIONS[question], "series": series})
        alt = f"{label} by {unit} ({', '.join(map(str, places))}), means over seeds with 95 % intervals."
        data = {"panels": panels, "xlabel": unit, "ylabel": label, "ticks": ticks}
        plots.append(Plot(identity, f"{label} by {unit}", alt, "lines", data))
    return Section("axis", f"Along the axis: {unit}", (), (), tuple(plots))


def _joined(series: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Series of one name as one: each calibration date is a device of its own."""
    out: dict[str, dict[str, Any]] = {}
    for one in series:
        known = out.setdefault(one["label"], {"label": one["label"], "x": [], "y": [], "low": [], "high": []})
        for key in ("x", "y", "low", "high"):
            known[key] += one[key]
    return list(out.values())


def _line(label: str, x: Sequence[Any], values: Sequence[Mapping[str, Any] | None]) -> dict[str, Any]:
    return {
        "label": label,
        "x": list(x),
        "y": [None if v is None else v["mean"] for v in values],
        "low": [None if v is None else v["low"] for v in values],
        "high": [None if v is None else v["high"] for v in values],
    }


def _quality(part: str) -> Any:
    return lambda arm: arm.metrics(part, "auroc")


def _apart(arm: Arm) -> dict[int, float]:
    return {seed: float(e["expectations"]["mean"]) for seed, e in arm.evaluations.items()}


def distances(material: Material) -> Section | None:
    """Of generated from benign data, and of noisy from ideal expectation values."""
    arms = [arm for arm in material.arms if arm.evaluations]
    if not arms:
        return None

    def figure(arm: Arm, table: str, name: str) -> dict[str, Any] | None:
        return of({seed: float(e[table][name]) for seed, e in arm.evaluations.items()})

    rows: list[dict[str, Any]] = [
        {
            "models": QUESTIONS[arm.question],
            "place": arm.point,
            "mitigation": arm.stack,
            "mean": figure(arm, "expectations", "mean"),
            "rms": figure(arm, "expectations", "rms"),
            "largest": of({s: float(e["expectations"]["largest"]) for s, e in arm.evaluations.items()}),
            "mmd2": figure(arm, "distances", "mmd2"),
            "wasserstein": figure(arm, "distances", "wasserstein"),
            "sliced": figure(arm, "distances", "sliced"),
        }
        for arm in arms
    ]
    columns = (
        Column("models", "models"),
        Column("place", "run on"),
        Column("mitigation", "mitigation"),
        Column("mean", "|⟨Z⟩ − ideal|, mean", "interval"),
        Column("rms", "root mean square", "interval"),
        Column("largest", "largest", "interval"),
        Column("mmd2", "MMD²", "interval"),
        Column("wasserstein", "Wasserstein-1", "interval"),
        Column("sliced", "sliced Wasserstein-1", "interval"),
    )
    note = (
        "Expectation values are of the final model at the run's own latents, against the same model without noise and "
        "without shots. MMD² (Gaussian kernel, width the median distance of benign records; unbiased) and "
        "Wasserstein-1 (mean over features; over 64 fixed directions) are of generated samples from the benign "
        "hold-out records, features in [−1, 1]."
    )
    table = Table("distances", "Distances", columns, tuple(rows), note)
    plots = []
    for identity, title, key, label in (
        ("expectations", "Noisy from ideal expectation values", "mean", "mean |⟨Z⟩ − ideal|"),
        ("generated", "Generated from benign data", "sliced", "sliced Wasserstein-1 distance"),
    ):
        panels = []
        points = list(dict.fromkeys(arm.point for arm in arms))
        for question in dict.fromkeys(arm.question for arm in arms):
            mine = [(arm, row) for arm, row in zip(arms, rows, strict=True) if arm.question == question]
            series = [
                {
                    "label": "no mitigation" if stack == NONE else stack,
                    "values": [
                        next((row[key] for arm, row in mine if (arm.point, arm.stack) == (point, stack)), None)
                        for point in points
                    ],
                }
                for stack in dict.fromkeys(arm.stack for arm, _ in mine)
            ]
            panels.append({"title": QUESTIONS[question], "series": series})
        ordered = sorted((row for row in rows if row[key] is not None), key=lambda row: float(row[key]["mean"]))
        low, high = ordered[0], ordered[-1]
        alt = (
            f"{label} by device and mitigation, bars from zero with 95 % intervals: from {low[key]['mean']:.4f} "
            f"({low['place']}, {low['mitigation']}) to {high[key]['mean']:.4f} ({high['place']}, {high['mitigation']})."
        )
        plots.append(Plot(identity, title, alt, "bars", {"categories": points, "panels": panels, "xlabel": label}))
    return Section("distances", "Distances", (), (table,), tuple(plots))
