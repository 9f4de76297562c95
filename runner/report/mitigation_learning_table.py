"""The learning table: detection with and without mitigation, medians over seeds, and differences to none in pairs."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.table import Table as RichTable
from rich.text import Text

from runner.config import RunConfig
from runner.report.mitigation_learning import ARMS, IDEAL, METRICS, Asked, Line, Table
from runner.report.mitigation_view import as_markdown, fits
from runner.tables import emit, stdout, table_of

RESAMPLES = 10_000
"""Of the bootstrap; its seed is fixed, so that the same lines give the same interval."""

NAMES = {
    "holdout_auroc": "hold-out AUROC",
    "holdout_f1": "hold-out F1",
    "test_auroc": "test AUROC",
    "test_f1": "test F1",
}
TEST_FILE = {"official": "KDDTest+"}
ALL = "all devices"

MEDIANS = ("device", "scored by", *ARMS)
DIFFERENCES = ("device", "scored by", *ARMS[1:])

LEGEND = (
    "Where mitigation is applied: to the generator's steps (training), to the samples that scores rest on "
    "(evaluation), or both. First table: median over seeds (lowest to highest). Second: difference to none in points, "
    "mean over seeds with its 95 % bootstrap interval over seeds, in how many seeds it is better, and p of the "
    "two-sided sign test; over all devices a seed's difference is the mean of its devices. ideal: the same federations "
    "on a target without errors, which is what mitigation without any error left would come to."
)


@dataclass(frozen=True)
class Pair:
    """An arm against none, over seeds: the same federation with and without.

    Attributes:
        backend: Or ALL.
        metric, arm: What of what.
        seeds: Pairs.
        mean, low, high: Of the difference, with its 95 % bootstrap interval.
        better, worse: In how many pairs; where both are the same it counts as neither.
        p: Of the two-sided sign test over those that differ; 1 where none does.
    """

    backend: str
    metric: str
    arm: str
    seeds: int
    mean: float
    low: float
    high: float
    better: int
    worse: int
    p: float


def pair(backend: str, metric: str, arm: str, differences: Sequence[float]) -> Pair:
    """Sum up the differences of one arm, one a seed."""
    from scipy.stats import binomtest

    found = np.asarray(differences, dtype=np.float64)
    random = np.random.default_rng(0)
    means = found[random.integers(0, len(found), (RESAMPLES, len(found)))].mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    better, worse = int((found > 0).sum()), int((found < 0).sum())
    p = float(binomtest(better, better + worse).pvalue) if better + worse else 1.0
    return Pair(backend, metric, arm, len(found), float(found.mean()), float(low), float(high), better, worse, p)


def pairs(lines: Sequence[Line]) -> list[Pair]:
    """Every arm against none, on each device and over all of them."""
    values = {(x.backend, x.seed, x.arm, m): getattr(x, m) for x in lines for m in METRICS}
    devices = [x for x in lines if x.backend != IDEAL]
    backends, seeds = (list(dict.fromkeys(getattr(x, name) for x in devices)) for name in ("backend", "seed"))
    out = []
    for backend in [*backends, *([ALL] if len(backends) > 1 else [])]:
        own = backends if backend == ALL else [backend]
        for metric in _scored(lines):
            for arm in ARMS[1:]:
                differences = [
                    statistics.fmean(values[b, s, arm, metric] - values[b, s, "none", metric] for b in own)
                    for s in seeds
                ]
                out.append(pair(backend, metric, arm, differences))
    return out


def _scored(lines: Sequence[Line]) -> list[str]:
    """The metrics that there are: the test may have been left out."""
    return [m for m in METRICS if all(getattr(x, m) is not None for x in lines)]


def _medians(lines: Sequence[Line], names: dict[str, str]) -> list[list[str]]:
    rows = []
    for backend in dict.fromkeys(x.backend for x in lines):
        for metric in _scored(lines):
            row = [backend, names[metric]]
            for arm in ARMS:
                found = [getattr(x, metric) for x in lines if (x.backend, x.arm) == (backend, arm)]
                if not found:
                    row.append("-")
                    continue
                ends = f" ({min(found):.3f}-{max(found):.3f})".replace("0.", ".") if len(found) > 1 else ""
                row.append(f"{statistics.median(found):.4f}{ends}")
            rows.append(row)
    return rows


def _differences(lines: Sequence[Line], names: dict[str, str]) -> list[list[str]]:
    found = pairs(lines)
    rows = []
    for backend, metric in dict.fromkeys((p.backend, p.metric) for p in found):
        mine = [p for p in found if (p.backend, p.metric) == (backend, metric)]
        rows.append([backend, names[metric], *map(_difference, mine)])
    return rows


def _difference(p: Pair) -> str:
    """In points. One seed has no interval, and no test."""
    if p.seeds == 1:
        return f"{100 * p.mean:+.2f}"
    return f"{100 * p.mean:+.2f} [{100 * p.low:+.2f}, {100 * p.high:+.2f}] {p.better}/{p.seeds} p {p.p:.2g}"


def _names(source: str) -> dict[str, str]:
    test = TEST_FILE.get(source, "stand-in test")
    return {metric: name.replace("test", test) for metric, name in NAMES.items()}


def about(config: RunConfig, lines: Sequence[Line], source: str) -> str:
    """What was played, in a sentence."""
    engine = config.engine if config.shots is None else f"{config.engine}, {config.shots:,} shots"
    stack = "" if config.mitigation is None else config.mitigation.stack
    seeds = len({x.seed for x in lines})
    seconds = sum({(x.backend, x.seed, x.arm in ("training", "both")): x.seconds for x in lines}.values())
    return (
        f"{config.experiment} ({source} data), {stack} against none, {config.model.qubits} qubits, "
        f"{config.nodes} nodes, {_many(config.rounds, 'round')} of "
        f"{_many(config.model.epochs * config.model.steps_per_epoch, 'step')}, {engine}, {_many(seeds, 'seed')}; "
        f"{seconds:,.0f} s of one core."
    )


def _many(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


BREAKS: tuple[tuple[str, ...], ...] = ((), (" (", "] "), (" (", "] ", " ["))
"""Where the lines of a cell may end, the widest form of the tables first."""


def show(asked: Asked, table: Table) -> None:
    """Two tables, and what they are of."""
    names, console = _names(table.source), stdout()
    things = shown(table.lines, names, ())
    for breaks in BREAKS:
        things = shown(table.lines, names, breaks)
        if fits(things, console):
            break
    emit(*things, Text(about(asked.configs[0], table.lines, table.source)), Text(LEGEND, style="dim"))


def shown(lines: Sequence[Line], names: dict[str, str], breaks: Sequence[str]) -> list[RichTable]:
    """The tables, with cells on several lines where `breaks` stand in them."""
    out = []
    for title, columns, rows in (
        ("Detection by where mitigation is applied", MEDIANS, _medians(lines, names)),
        ("Difference to none, in points", DIFFERENCES, _differences(lines, names)),
    ):
        made = table_of(title, columns)
        if breaks == BREAKS[-1]:
            made.padding, made.show_edge = (0, 1, 0, 0), False
        for row in rows:
            made.add_row(*(Text(_broken(cell, breaks)) for cell in row))
        out.append(made)
    return out


def _broken(cell: str, breaks: Sequence[str]) -> str:
    for end in breaks:
        cell = cell.replace(end, end.replace(" ", "\n"))
    return cell


def markdown(asked: Asked, table: Table) -> str:
    """The same as Markdown."""
    names = _names(table.source)
    return "\n".join(
        [
            *as_markdown(MEDIANS, _medians(table.lines, names)),
            "",
            *as_markdown(DIFFERENCES, _differences(table.lines, names)),
            "",
            about(asked.configs[0], table.lines, table.source),
            "",
            LEGEND,
        ]
    )


def to_json(asked: Asked, table: Table) -> dict[str, Any]:
    """As plain values."""
    return {
        "experiment": asked.configs[0].experiment,
        "config": asked.configs[0].model_dump(mode="json"),
        "source": table.source,
        "seeds": list(asked.seeds),
        "lines": [asdict(line) for line in table.lines],
        "differences": [asdict(p) for p in pairs(table.lines)],
    }
