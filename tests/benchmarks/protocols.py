"""Federated against centralised, against nodes that never exchange, and noise against none: the goals in figures.

    federated               the default run: three nodes, records dealt at random, twin of fake_kyiv
    federated, ideal        the same without noise
    federated, dirichlet    the same with records dealt by dirichlet:0.5
    centralised             one node with all records, as many rounds and steps as a federated node
    centralised, all steps  the same with as many steps as all federated nodes together: as many records are seen
    isolated, dirichlet     each of the nodes of dirichlet:0.5 as the only one of its federation: its own records, map,
                            calibration and threshold, the same rounds and steps; the mean over nodes
    isolated, iid           the same of records dealt at random

Played without chain, as the ablation is (runner/benchmark/ablation.py); figures are those of the hold-out and of
KDDTest+, at the label-free threshold. Nothing is chosen by them.

    python -m tests.benchmarks.protocols --out docs/decisions/0013-protocols.jsonl [--only ARM ...] [--seeds 5]

A line an arm and seed; what the file has already is not played again. --summary plays nothing.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from runner.benchmark import ablation
from runner.benchmark.bench import Bench
from runner.benchmark.rows import Row as Played
from runner.benchmark.stats import paired
from runner.config import RunConfig
from runner.options import config_from
from runner.row_file import RowFile
from tests.benchmarks.differences import FIGURES, PARTS, Figures, absolute, difference, header, line, mean_of

FORMAT = "qrun-protocols/1"
DIRICHLET = "dirichlet:0.5"


def _dealt(config: RunConfig, partition: str) -> RunConfig:
    return config.model_copy(update={"data": config.data.model_copy(update={"partition": partition})})


def _ideal(config: RunConfig) -> RunConfig:
    return config.model_copy(update={"backend": "ideal"})


def _central(config: RunConfig) -> RunConfig:
    return config.model_copy(update={"nodes": 1})


def _all_steps(config: RunConfig) -> RunConfig:
    model, times = config.model, config.nodes
    more = {"steps_per_epoch": times * model.steps_per_epoch, "detector_steps": times * model.detector_steps}
    return config.model_copy(update={"nodes": 1, "model": model.model_copy(update=more)})


@dataclass(frozen=True)
class Arm:
    """What is played: the default run's config to that of the arm; whether its nodes are each alone."""

    config: Callable[[RunConfig], RunConfig]
    isolated: bool = False


ARMS: dict[str, Arm] = {
    "federated": Arm(lambda config: config),
    "federated, ideal": Arm(_ideal),
    "federated, dirichlet": Arm(lambda config: _dealt(config, DIRICHLET)),
    "centralised": Arm(_central),
    "centralised, all steps": Arm(_all_steps),
    "isolated, dirichlet": Arm(lambda config: _dealt(config, DIRICHLET), isolated=True),
    "isolated, iid": Arm(lambda config: config, isolated=True),
}


@dataclass(frozen=True)
class Goal:
    """The first arm's figure has to be at least the second's and so many points."""

    text: str
    first: str
    second: str
    points: float


GOALS = (
    Goal("within 1 point of centralised", "federated", "centralised", -1.0),
    Goal("within 1 point of centralised, as many records seen", "federated", "centralised, all steps", -1.0),
    Goal("Dirichlet 0.5: within 1 point of centralised", "federated, dirichlet", "centralised", -1.0),
    Goal(
        "Dirichlet 0.5: within 1 point of centralised, as many records seen",
        "federated, dirichlet",
        "centralised, all steps",
        -1.0,
    ),
    Goal("Dirichlet 0.5: 2 points above the mean isolated node", "federated, dirichlet", "isolated, dirichlet", 2.0),
    Goal("records at random: 2 points above the mean isolated node", "federated", "isolated, iid", 2.0),
    Goal("noise: within 0.5 points of ideal", "federated", "federated, ideal", -0.5),
)


@dataclass(frozen=True)
class Row:
    """One arm and seed.

    Attributes:
        arm: Its name.
        seed: Deals the records, starts the models.
        figures: Of the final aggregate; of isolated nodes the mean.
        nodes: Of isolated nodes, each one's; else empty.
        records: Benign training records by node.
        seconds: That it took.
    """

    arm: str
    seed: int
    figures: Figures
    nodes: list[Figures]
    records: list[int]
    seconds: float


def play(config: RunConfig, data: Path | None, name: str) -> Row:
    """One arm; the config's seed is the row's."""
    arm, begin = ARMS[name], time.perf_counter()
    bench = Bench.load(arm.config(config), data)
    records = [len(share.train) for share in bench.study.shares]
    benches = alone(bench) if arm.isolated else [bench]
    found = []
    for one in benches:
        try:
            found.append(_figures(ablation.play(one, "trained")))
        finally:
            one.close()
    nodes = found if arm.isolated else []
    return Row(name, config.seed, mean_of(found), nodes, records, round(time.perf_counter() - begin, 1))


def alone(bench: Bench) -> list[Bench]:
    """Each node as the only one of a federation: the map and the calibration are then of its own records."""
    config = bench.config.model_copy(update={"nodes": 1})
    return [Bench(config, replace(bench.study, shares=(share,))) for share in bench.study.shares]


def _figures(row: Played) -> Figures:
    parts = {part: row.detection[part] for part in PARTS}
    return {
        part: {name: float(found["label_free"][name]) for name in FIGURES}
        for part, found in parts.items()
        if found is not None
    }


def by_arm(rows: Sequence[Row]) -> dict[str, dict[int, Figures]]:
    """Figures by arm, then seed; arms without a row are left out."""
    found = {name: {row.seed: row.figures for row in rows if row.arm == name} for name in ARMS}
    return {name: figures for name, figures in found.items() if figures}


def table(found: Mapping[str, Mapping[int, Figures]]) -> list[str]:
    """Markdown: mean and 95 % interval over the seeds that are there."""
    out = header("played", "seeds")
    for name, figures in found.items():
        parts = [part for part in PARTS if part in next(iter(figures.values()))]
        out.append(
            line(name, str(len(figures)), *(absolute(figures, part, figure) for part in parts for figure in FIGURES))
        )
    return out


def goals(found: Mapping[str, Mapping[int, Figures]]) -> list[str]:
    """Markdown: by goal the paired differences in points, and what they say of it."""
    out = header("goal", "first less second")
    for goal in GOALS:
        if goal.first not in found or goal.second not in found:
            continue
        first, second = found[goal.first], found[goal.second]
        parts = [part for part in PARTS if part in next(iter(first.values()))]
        cells = [
            f"{difference(first, second, part, figure)}: {verdict(goal, first, second, part, figure)}"
            for part in parts
            for figure in FIGURES
        ]
        out.append(line(goal.text, f"{goal.first} - {goal.second}", *cells))
    return out


def verdict(goal: Goal, first: Mapping[int, Figures], second: Mapping[int, Figures], part: str, figure: str) -> str:
    """Whether the goal holds or is missed with the whole 95 % interval, or with the mean alone."""
    both = sorted(set(first) & set(second))
    if not both:
        return "not played"
    result = paired([first[s][part][figure] for s in both], [second[s][part][figure] for s in both])
    if result.low is not None and 100 * result.low >= goal.points:
        return "holds"
    if result.high is not None and 100 * result.high < goal.points:
        return "missed"
    return "mean holds" if 100 * result.mean >= goal.points else "mean misses"


def read(values: dict[str, Any]) -> Row:
    """A row from a line of the file.

    Raises:
        ValueError, TypeError, KeyError: it is none.
    """
    row = Row(**values)
    if row.arm not in ARMS or type(row.seed) is not int or set(row.figures["holdout"]) != set(FIGURES):
        raise ValueError("not a row")
    return row


def main() -> None:
    """Play what is not in the file yet, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="*", choices=ARMS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--summary", action="store_true", help="Play nothing.")
    asked = parser.parse_args()
    config = config_from("nsl-kdd", {"seed": 0})
    about = {"format": FORMAT, "config": config.digest.hex()}
    file = RowFile(asked.out, about, read=read, write=asdict, key=lambda row: (row.arm, row.seed))
    try:
        for seed in range(asked.seeds):
            for name in asked.only or ARMS:
                if asked.summary or (name, seed) in file.rows:
                    continue
                row = play(config.model_copy(update={"seed": seed}), asked.data, name)
                file.add(row)
                accuracy = row.figures["holdout"]["accuracy"]
                print(f"{name}, seed {seed}: hold-out accuracy {accuracy:.4f}; {row.seconds:.0f} s", flush=True)
        found = by_arm(list(file.rows.values()))
    finally:
        file.close()
    print("\n".join([*table(found), "", *goals(found)]))


if __name__ == "__main__":
    main()
