"""The benchmark's tables: means over seeds with 95 % t intervals, where detection fails, and what the circuit adds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from rich.text import Text

from experiments.detection import ATTACK_FAMILIES
from experiments.models.baselines.registry import BASELINES, QGAN_NAME
from experiments.models.budget import DELTA
from runner.benchmark.compare import PRIVATE_NAME, Asked, Table
from runner.benchmark.rows import Row
from runner.benchmark.stats import Mean, Paired, paired
from runner.report.mitigation_view import as_markdown
from runner.tables import emit, table_of

SCORES = (("accuracy", "acc."), ("f1", "F1"), ("auroc", "AUROC"))
PAIRS = (
    (("qgan-central", "classical-gan"), "the quantum generator", "the classical one of as many parameters"),
    (("qgan-central", "classical-gan-10x"), "the quantum generator", "the classical one of ten times as many"),
    (("qgan-central", "random-circuits"), "training the quantum generator", "leaving it untrained"),
)
"""Both of a pair are trained in one place, on the same records, from the same seed."""
COMPARED = (("holdout", "f1"), ("holdout", "auroc"), ("test", "f1"), ("test", "auroc"))

Cell = Callable[[list[Row]], str]
Column = tuple[str, Cell]


def _names(source: str) -> dict[str, str]:
    test = "KDDTest+" if source == "official" else "stand-in test"
    holdout = "hold-out" if source == "official" else "stand-in hold-out"
    return {"holdout": holdout, "test": test, "test_without_seen": f"{test}, unseen"}


def interval(values: Sequence[float | None], digits: int = 4) -> str:
    """A mean and half of its interval: .9582±.0012; a dash where there is nothing."""
    known = [v for v in values if v is not None]
    if not known or len(known) < len(values):
        return "-"
    mean = Mean.of(known)
    half = "" if mean.half is None else f"±{_bare(mean.half, digits)}"
    return f"{_bare(mean.mean, digits)}{half}"


def _bare(value: float, digits: int) -> str:
    text = f"{value:.{digits}f}"
    return text[1:] if text.startswith("0.") else text


def _figure(part: str, threshold: str, name: str, digits: int = 4) -> Cell:
    return lambda rows: interval([row.figure(part, threshold, name) for row in rows], digits)


def _alone(part: str, name: str) -> Cell:
    return lambda rows: interval([((row.isolated or {}).get(part) or {}).get(name) for row in rows])


def tables_of(source: str) -> list[tuple[str, list[Column]]]:
    """Titles, and columns after the model's name."""
    names = _names(source)
    short = {"holdout": "hold-out", "test": "test"}

    def scores(parts: Sequence[str], threshold: str, wanted: Sequence[tuple[str, str]] = SCORES) -> list[Column]:
        return [(f"{short.get(p, 'unseen')} {s}", _figure(p, threshold, n)) for p in parts for n, s in wanted]

    test = names["test"]
    return [
        (f"Label-free threshold, hold-out and {test}", scores(("holdout", "test"), "label_free")),
        (
            f"Label-free on {names['test_without_seen']}; validated threshold, hold-out and {test}",
            [*scores(("test_without_seen",), "label_free"), *scores(("holdout", "test"), "validated", SCORES[:2])],
        ),
        (
            f"Recall by family on {test}, false positives (label-free); seconds of a model",
            [
                *((name, _figure("test", "label_free", name, 3)) for name in ATTACK_FAMILIES),
                ("FP hold-out", _figure("holdout", "label_free", "false_positive_rate", 3)),
                ("FP test", _figure("test", "label_free", "false_positive_rate", 3)),
                ("parameters", lambda rows: "-" if rows[0].parameters is None else str(rows[0].parameters)),
                ("seconds", lambda rows: f"{sum(r.seconds for r in rows) / len(rows):.1f}"),
            ],
        ),
        (
            f"A node alone (mean over nodes, label-free), hold-out and {test}",
            [(f"{short[p]} {s}", _alone(p, n)) for p in ("holdout", "test") for n, s in SCORES],
        ),
    ]


def _by_model(table: Table) -> dict[str, list[Row]]:
    out: dict[str, list[Row]] = {}
    for row in table.rows:
        out.setdefault(row.model, []).append(row)
    return out


def _rows(table: Table, columns: Sequence[Column]) -> list[list[str]]:
    made = [[model, *(cell(rows) for _, cell in columns)] for model, rows in _by_model(table).items()]
    return [row for row in made if any(cell != "-" for cell in row[1:])]


def _shown(table: Table) -> list[tuple[str, list[str], list[list[str]]]]:
    out = []
    for title, columns in tables_of(table.source):
        rows = _rows(table, columns)
        filled = [k for k in range(len(columns)) if any(row[k + 1] != "-" for row in rows)]
        if rows and filled:
            heads = ["model", *(columns[k][0] for k in filled)]
            out.append((title, heads, [[row[0], *(row[k + 1] for k in filled)] for row in rows]))
    return out


def given_away(table: Table) -> list[str]:
    """What the published models of the runs give away, in words; nothing where there is no run."""
    out = []
    for model, rows in _by_model(table).items():
        known = [row.membership for row in rows if row.membership is not None]
        if not known or any(len(m["rounds"]) != len(known[0]["rounds"]) for m in known):
            continue
        rounds = [interval([m["rounds"][k] for m in known]) for k in range(len(known[0]["rounds"]))]
        out.append(
            f"Membership inference against what {model} publishes (AUC, .5 is nothing): final model "
            f"{interval([m['final'] for m in known])}; the nodes' own models by round {', '.join(rounds)}."
        )
    return out


def pairs(table: Table) -> dict[tuple[str, str], dict[tuple[str, str], Paired]]:
    """(one, other) -> (part, metric) -> one against the other, over seeds, of the pairs that are there."""
    found = _by_model(table)
    out: dict[tuple[str, str], dict[tuple[str, str], Paired]] = {}
    for (one, other), _, _ in PAIRS:
        if one not in found or other not in found:
            continue
        mine: dict[tuple[str, str], Paired] = {}
        for part, name in COMPARED:
            values = [[row.figure(part, "label_free", name) for row in found[model]] for model in (one, other)]
            first, second = ([v for v in side if v is not None] for side in values)
            if len(first) == len(values[0]) and len(second) == len(values[1]):
                mine[part, name] = paired(first, second)
        out[one, other] = mine
    return out


def sentences(table: Table) -> list[str]:
    """What the quantum generator adds, in words."""
    names, found = _names(table.source), pairs(table)
    out = []
    for both, what, beside in PAIRS:
        if both not in found or not found[both]:
            continue
        told = ", ".join(
            f"{'F1' if name == 'f1' else 'AUROC'} on {names[part]} {_points(p)}"
            for (part, name), p in found[both].items()
        )
        verdicts = [p.none for p in found[both].values()]
        if None in verdicts:
            said = "one seed says nothing of chance"
        elif all(verdicts):
            said = f"{what} adds nothing over {beside}: every interval includes 0"
        else:
            ways = {(p.mean > 0) for p in found[both].values() if p.none is False}
            word = "is better than" if ways == {True} else "is worse than" if ways == {False} else "differs from"
            where = ", ".join(
                f"{'F1' if name == 'f1' else 'AUROC'} on {names[part]}"
                for (part, name), p in found[both].items()
                if p.none is False
            )
            said = (
                f"{what} {word} {beside} ({where}), and adds nothing elsewhere"
                if any(verdicts)
                else (f"{what} {word} {beside}")
            )
        seeds = next(iter(found[both].values())).seeds
        out.append(f"{said[0].upper()}{said[1:]} (difference in points, paired over {seeds} seeds: {told}).")
    return out


def _points(p: Paired) -> str:
    ends = "" if p.low is None or p.high is None else f" [{100 * p.low:+.2f}, {100 * p.high:+.2f}]"
    return f"{100 * p.mean:+.2f}{ends}"


LEGEND = (
    "Means over seeds ± half of the 95 % t interval. Label-free: the threshold is a quantile of benign validation "
    "scores; validated: that of best F1 on the nodes' labelled validation records, which nothing is trained or "
    "reported on. unseen: without the vectors that also stand in the training file. qgan is the federated run; the "
    "others are trained in one place on all nodes' benign training records, and see the features that the nodes "
    "agreed on (pca-all, random-forest: all columns; random-forest also sees the attacks of the training part)."
)


def about(asked: Asked, table: Table) -> str:
    """What was compared, in a sentence."""
    c = asked.config
    engine = c.engine if c.shots is None else f"{c.engine}, {c.shots:,} shots"
    seeds = f"{len(asked.seeds)} seed{'s' * (len(asked.seeds) != 1)}"
    private = "" if asked.dp is None else f" {PRIVATE_NAME}: {_private(asked.dp)}."
    steps = c.model.epochs * c.model.steps_per_epoch
    return (
        f"{c.experiment} ({table.source} data), {c.backend} ({engine}), {c.model.qubits} qubits, {c.nodes} nodes "
        f"({c.data.partition}), {c.rounds} rounds of {steps} steps, {seeds}.{private}"
    )


def _private(epsilon: float) -> str:
    return (
        f"the federated run with differentially private training, epsilon {epsilon:g} at delta {DELTA:g} for a node's "
        "training record over all rounds"
    )


def _summary(asked: Asked, model: str) -> str:
    if model == PRIVATE_NAME and asked.dp is not None:
        return _private(asked.dp)
    return "the federated run" if model == QGAN_NAME else BASELINES[model].summary


def show(asked: Asked, table: Table) -> None:
    """All tables on stdout."""
    things: list[Any] = []
    for title, heads, rows in _shown(table):
        made = table_of(title, heads, numeric=range(1, len(heads)))
        made.padding = (0, 1, 0, 0)
        for row in rows:
            made.add_row(*(Text(cell) for cell in row))
        things.append(made)
    for line in [*sentences(table), *given_away(table)]:
        things.append(Text(f"- {line}"))
    emit(*things, Text(""), Text(about(asked, table)), Text(LEGEND, style="dim"))


def markdown(asked: Asked, table: Table) -> str:
    """The same as Markdown."""
    lines: list[str] = []
    for title, heads, rows in _shown(table):
        lines += [f"**{title}**", "", *as_markdown(heads, rows, words_last=False), ""]
    lines += [f"- {line}" for line in [*sentences(table), *given_away(table)]]
    return "\n".join([*lines, "", about(asked, table), "", LEGEND])


def to_json(asked: Asked, table: Table) -> dict[str, Any]:
    """As plain values."""
    return {
        "experiment": asked.config.experiment,
        "config": asked.config.model_dump(mode="json"),
        **({} if asked.dp is None else {"dp": asked.dp}),
        "source": table.source,
        "seeds": list(asked.seeds),
        "models": {m: _summary(asked, m) for m in asked.models},
        "rows": [asdict(row) for row in table.rows],
        "differences": [
            {"model": one, "other": other, "part": part, "metric": name, **asdict(p)}
            for (one, other), found in pairs(table).items()
            for (part, name), p in found.items()
        ],
        "sentences": [*sentences(table), *given_away(table)],
    }
