"""The ablation's tables: figures by arm, and the trained generator against each other one, paired over seeds."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.text import Text

from experiments.models.generators import VARIANTS
from runner.benchmark.ablation import ARMS, Asked, Table, values
from runner.benchmark.stats import Paired, holm, paired
from runner.benchmark.table import interval
from runner.report.mitigation_view import as_markdown
from runner.tables import emit, table_of

COMPARED = (("holdout", "f1"), ("holdout", "auroc"), ("test", "f1"), ("test", "auroc"))
FIGURES = ("generator", "parameters", "hold-out F1", "hold-out AUROC", "test F1", "test AUROC", "seconds")
PAIRED = ("trained against", "scored by", "difference", "d_z", "p", "power", "detectable")
LABELS = {"f1": "F1", "auroc": "AUROC"}
PARTS = {"holdout": "hold-out", "test": "test"}

LEGEND = (
    "Federations of the same seed differ by the generator alone: data, map, discriminator, latents and score are the "
    "same. First table: means over seeds ± half of the 95 % t interval, label-free threshold. Second: trained less the "
    "other, in points, with the 95 % t interval over seeds; d_z: Cohen's effect size for pairs; p: paired two-sided t "
    "test, each for itself; power: of that test at 5 %, were the true effect the one observed; detectable: the "
    "difference that it would find with a power of 80 %."
)


def comparisons(table: Table) -> dict[tuple[str, str, str], Paired]:
    """(arm, part, metric) -> trained against that arm."""
    out = {}
    for arm in ARMS[1:]:
        for part, name in COMPARED:
            first, second = (values(table.rows, a, part, name) for a in (ARMS[0], arm))
            if first and len(first) == len(second):
                out[arm, part, name] = paired(first, second)
    return out


def sentence(table: Table) -> str:
    """Whether the quantum part matters, in words."""
    found = comparisons(table)
    if any(p.none is None for p in found.values()):
        return "One seed says nothing of chance: give more with --seeds."
    # No deviation at all: the same figures throughout, or the same difference in every seed.
    raw = [p.p if p.p is not None else float(p.mean == 0) for p in found.values()]
    sure = [key for key, adjusted in zip(found, holm(raw), strict=True) if adjusted < 0.05]
    wins, losses = ([key for key in sure if (found[key].mean > 0) == better] for better in (True, False))
    of = f"Holm's rule over {len(found)} comparisons, 5 %"
    if not sure:
        return f"The trained quantum generator is told apart from none of the others ({of})."

    def told(keys: list[tuple[str, str, str]]) -> str:
        return ", ".join(f"{arm} ({LABELS[name]} on {PARTS[part]})" for arm, part, name in keys)

    said = [f"better than {told(wins)}"] if wins else []
    said += [f"worse than {told(losses)}"] if losses else []
    return f"The trained quantum generator is {', and '.join(said)}, and told apart from no other ({of})."


def _figures(table: Table) -> list[list[str]]:
    out = []
    for arm in ARMS:
        rows = [row for row in table.rows if row.model == arm]
        cells = [interval([row.figure(part, "label_free", name) for row in rows]) for part in PARTS for name in LABELS]
        seconds = sum(row.seconds for row in rows) / len(rows)
        out.append([arm, str(rows[0].parameters), *cells, f"{seconds:.1f}"])
    return out


def _pairs(table: Table) -> list[list[str]]:
    out = []
    for (arm, part, name), p in comparisons(table).items():
        ends = "" if p.low is None or p.high is None else f" [{100 * p.low:+.2f}, {100 * p.high:+.2f}]"
        out.append(
            [
                arm,
                f"{PARTS[part]} {LABELS[name]}",
                f"{100 * p.mean:+.2f}{ends}",
                _or_dash(p.effect, "+.2f"),
                _or_dash(p.p, ".2g"),
                _or_dash(p.power, ".2f"),
                "-" if p.detectable is None else f"{100 * p.detectable:.2f}",
            ]
        )
    return out


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def about(asked: Asked, table: Table) -> str:
    """What was played, in a sentence."""
    c, n = asked.config, len(asked.seeds)
    engine = c.engine if c.shots is None else f"{c.engine}, {c.shots:,} shots"
    few = "" if asked.records is None else f", {asked.records} benign training records a node"
    return (
        f"{c.experiment} ({table.source} data; the test is {'KDDTest+' if table.source == 'official' else 'its own'}), "
        f"{c.backend} ({engine}), {c.model.qubits} qubits, {c.nodes} nodes ({c.data.partition}{few}), "
        f"{c.rounds} rounds of {c.model.epochs * c.model.steps_per_epoch} steps, {n} seed{'s' * (n != 1)}."
    )


def show(asked: Asked, table: Table) -> None:
    """Both tables, and what they say."""
    things = []
    for title, heads, rows in (
        ("Detection by generator", FIGURES, _figures(table)),
        ("The trained quantum generator against the others, in points", PAIRED, _pairs(table)),
    ):
        made = table_of(title, heads, numeric=range(1 if heads is FIGURES else 2, len(heads)))
        made.padding = (0, 1, 0, 0)
        for row in rows:
            made.add_row(*(Text(cell) for cell in row))
        things.append(made)
    emit(*things, Text(sentence(table)), Text(""), Text(about(asked, table)), Text(LEGEND, style="dim"))


def markdown(asked: Asked, table: Table) -> str:
    """The same as Markdown."""
    return "\n".join(
        [
            *as_markdown(FIGURES, _figures(table), words_last=False),
            "",
            *as_markdown(PAIRED, _pairs(table), words_last=False),
            "",
            sentence(table),
            "",
            about(asked, table),
            "",
            LEGEND,
        ]
    )


def to_json(asked: Asked, table: Table) -> dict[str, Any]:
    """As plain values."""
    return {
        "experiment": asked.config.experiment,
        "config": asked.config.model_dump(mode="json"),
        "source": table.source,
        "seeds": list(asked.seeds),
        "records": asked.records,
        "arms": {arm: VARIANTS[arm].summary for arm in ARMS},
        "rows": [asdict(row) for row in table.rows],
        "differences": [
            {"arm": arm, "part": part, "metric": name, **asdict(p)}
            for (arm, part, name), p in comparisons(table).items()
        ],
        "sentence": sentence(table),
    }
