"""`qrun experiment NAME --model MODEL`: one baseline, once; a result without rounds, models of nodes, or a chain."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from circuits.errors import UsageError
from experiments.detection import ATTACK_FAMILIES
from experiments.models.baselines.registry import QGAN_NAME, find
from runner.benchmark.baseline import judge
from runner.benchmark.bench import Bench
from runner.config import RunConfig
from runner.detection import rounded
from runner.detection import to_json as detection_json
from runner.result import describe_dataset
from runner.tables import emit, table_of

FORMAT = "qrun-baseline/1"
METRICS = ("accuracy", "precision", "recall", "f1", "auroc")


def check(model: str | None, given: Mapping[str, Any]) -> bool:
    """Whether a baseline is asked for.

    Args:
        model: What --model says.
        given: Options of the command that only a run has: name -> value, None where not given.

    Raises:
        UsageError: an unknown model; or an option that a baseline does nothing with.
    """
    if model is None or model == QGAN_NAME:
        return False
    find(model)
    wrong = [name for name, value in given.items() if value not in (None, False)]
    if wrong:
        raise UsageError(
            f"{wrong[0]} does nothing with --model {model}: a baseline is no federation, and has no chain or jobs.",
            "Leave it out.",
        )
    return True


def run_model(
    config: RunConfig, model: str, data: Path | None, notify: Callable[[str], None], say: Callable[[str], None]
) -> dict[str, Any]:
    """Fit and measure a baseline.

    Args:
        config: Says data, nodes, seed, features, and of the GANs everything.
        model: Its name.
        data: Folder of the data set's files.
        notify: Told e.g. that a stand-in is used.
        say: Told what is being done.

    Raises:
        UsageError: the config asks for an epsilon.
    """
    spec = find(model)
    if config.model.dp is not None:
        raise UsageError(f"model.dp does nothing with --model {model}: private training is the run's.", "Leave it out.")
    say("reading the data")
    bench = Bench.load(config, data, notify)
    say(f"fitting {model}")
    try:
        found = judge(bench, spec)
    finally:
        bench.close()
    shares = bench.study.shares
    return {
        "format": FORMAT,
        "experiment": config.experiment,
        "model": model,
        "summary": spec.summary,
        "features": spec.features,
        "supervised": spec.supervised,
        "parameters": found.parameters,
        "config": config.model_dump(mode="json"),
        "config_digest": config.digest.hex(),
        "dataset": describe_dataset(bench.study),
        "records": {
            "train": sum(len(share.train) for share in shares),
            "validation": sum(len(share.validation) for share in shares),
            "validation_attacks": sum(len(share.attacks) for share in shares),
        },
        "detection": detection_json(found.detection),
        "isolated": rounded(found.isolated),
        "seconds": {"whole": found.seconds, "isolated": found.seconds_isolated},
    }


def show(result: Mapping[str, Any]) -> None:
    """The result as tables."""
    official = result["dataset"]["source"] == "official"
    test = "KDDTest+" if official else "stand-in test"
    names = {
        "holdout": "hold-out" if official else "stand-in hold-out",
        "test": test,
        "test_without_seen": f"{test}, unseen",
    }
    made = table_of(
        f"{result['model']}: {result['summary']}",
        ["scored on", "threshold", *METRICS, "false pos."],
        numeric=range(2, 8),
    )
    families = table_of("Recall by family (label-free)", ["scored on", *ATTACK_FAMILIES], numeric=range(1, 5))
    for part, name in names.items():
        found = result["detection"][part]
        if found is None:
            continue
        for threshold, figures in found.items():
            cells = [f"{figures[m]:.4f}" for m in METRICS]
            made.add_row(name, threshold.replace("_", "-"), *cells, f"{figures['false_positive_rate']:.4f}")
        alone = (result["isolated"] or {}).get(part)
        if alone is not None:
            shown = [f"{alone[m]:.4f}" if m in alone else "" for m in METRICS]
            made.add_row("  a node alone", "label-free", *shown, "", style="dim")
        recalls = found["label_free"]["recall_by_family"]
        families.add_row(name, *("-" if recalls[f] is None else f"{recalls[f]:.4f}" for f in ATTACK_FAMILIES))
    dataset, records, seconds = result["dataset"], result["records"], result["seconds"]
    features = "those that the nodes agreed on" if result["features"] == "agreed" else "all columns"
    lines = [
        ("data", f"{dataset['name']}, {dataset['source']}, {records['train']} benign training records in one place"),
        ("features", features + ("; sees the attacks of the training part" if result["supervised"] else "")),
        *([("parameters", f"{result['parameters']} (generator)")] if result["parameters"] is not None else []),
        ("seconds", f"{seconds['whole']:.1f}; nodes alone {seconds['isolated']:.1f}"),
    ]
    grid = Table.grid(padding=(0, 2))
    for name, text in lines:
        grid.add_row(name, Text(text))
    emit(made, families, grid)
