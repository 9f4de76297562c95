"""What the tables of the small nodes and of the protocols have in common: the figures kept, and how they are told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from experiments.detection import Detection
from runner.benchmark.stats import Mean, paired

PARTS = {"holdout": "hold-out", "test": "KDDTest+"}
FIGURES = ("accuracy", "f1", "auroc")
SHOWN = {"accuracy": "accuracy", "f1": "F1", "auroc": "AUROC"}
DIGITS = 6

Figures = dict[str, dict[str, float]]
"""By part, then by name; at the label-free threshold."""


def figures_of(detection: Detection) -> Figures:
    """The figures that are kept; parts that are not scored are left out."""
    out: Figures = {}
    for part in PARTS:
        found = detection[part]
        if found is not None:
            metrics = found["label_free"].metrics.to_dict()
            out[part] = {name: float(metrics[name]) for name in FIGURES}
    return out


def mean_of(nodes: Sequence[Figures]) -> Figures:
    """The mean over nodes, rounded as it is kept."""
    return {
        part: {name: round(float(np.mean([n[part][name] for n in nodes])), DIGITS) for name in FIGURES}
        for part in nodes[0]
    }


def values(found: Mapping[int, Figures], part: str, name: str) -> list[float]:
    """A figure by seed, in ascending order of seeds."""
    return [found[seed][part][name] for seed in sorted(found)]


def absolute(found: Mapping[int, Figures], part: str, name: str) -> str:
    """Mean and half of its interval."""
    mean = Mean.of(values(found, part, name))
    return f"{mean.mean:.4f}" if mean.half is None else f"{mean.mean:.4f} +- {mean.half:.4f}"


def difference(found: Mapping[int, Figures], other: Mapping[int, Figures], part: str, name: str) -> str:
    """Of the first less the second in points, over the seeds that both have; bold where the interval is without 0."""
    both = sorted(set(found) & set(other))
    if not both:
        return "-"
    result = paired([found[s][part][name] for s in both], [other[s][part][name] for s in both])
    if result.low is None or result.high is None:
        return f"{100 * result.mean:+.2f}"
    text = f"{100 * result.mean:+.2f} ({100 * result.low:+.2f} to {100 * result.high:+.2f})"
    return text if result.none else f"**{text}**"


def header(*first: str) -> list[str]:
    """The two lines of a Markdown table's head: columns of one's own, then all figures."""
    names = [*first, *(f"{shown} {SHOWN[name]}" for shown in PARTS.values() for name in FIGURES)]
    return ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]


def line(*cells: str) -> str:
    """A line of a Markdown table."""
    return "| " + " | ".join(cells) + " |"
