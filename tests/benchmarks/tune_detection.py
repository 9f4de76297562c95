"""How the detection model's hyperparameters are chosen: on records of the training file alone.

The pool is what no hold-out of the reported seeds 0 to 4 has, so that no figure that is reported rests on a record that
was looked at here; the test file is not read. Benign records of the pool are split 70/15/15 into training, calibration
(distances, threshold) and validation; all its attacks are validation, since nothing is trained on attacks. With A the
accuracy on validation records in the training file's own mix, and B the mean over attack types of at least six records
of the balanced accuracy, both at the label-free threshold,

    J = (A + B) / 2

B counts each attack type alike, since new attacks are new types, not more records of the old ones. A candidate's J is
the mean over seeds. How far a choice carries over to attacks that it has not seen is told by rotation: the types are
dealt to folds, the choice is made without those of a fold, and its B on them is set against that of the best and of
the median candidate there.

    python -m tests.benchmarks.tune_detection --out docs/decisions/0010-tuning.jsonl [--only NAME ...] [--seeds 3]

A line a candidate and seed; what the file has already is not run again. Without --only all candidates are run.

Benign traffic moves as well. So, with `--shift` (another file): all is done again without the benign records of some
services, in training and in calibration, and they are scored too. Scores are then compared without a threshold, by the
mean of the AUROC as it is and with those records among the benign; the threshold is that of the best J. The largest
service stays; the others are dealt to folds by their number of records, of which two are left out in turn. With S the
rate at which their records pass, K is J with (passed + S) / 2 in place of the rate at which benign records pass.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments.datasets.fetch import load
from experiments.datasets.schema import ATTACKS
from experiments.datasets.split import partition, split
from experiments.datasets.types import FloatArray, IntArray, Records
from experiments.features.agreement import agree, node
from experiments.features.histogram import edge_above
from experiments.features.secure_sum import plain_sum
from experiments.metrics import evaluate
from experiments.models import discriminators
from experiments.models.outputs import energy_distance
from experiments.models.score import Scorer
from experiments.nsl_kdd import PRESETS
from runner.aggregate import aggregate
from runner.calibration import target_of
from runner.compiled import generator_for
from runner.config import build_config
from runner.models import model_for
from runner.seeds import derive, generator
from runner.update import dequantise, quantise

REPORTED = range(5)
"""Seeds of the figures that are reported: their hold-outs are not looked at."""
SHARE = 0.4661
"""Of attacks in the training file."""
LEAST = 6
SERVICE = 1
"""Column of `Records.categorical`."""
FOLDS = 4
WEIGHTS: tuple[dict[str, float], ...] = (
    {"discriminator": 1.0},
    {"distance": 1.0},
    {"residual": 1.0},
    {"discriminator": 1.0, "distance": 0.25, "residual": 0.25},
    {"discriminator": 1.0, "distance": 1.0, "residual": 1.0},
    {"discriminator": 1.0, "distance": 0.25, "residual": 0.5},
    {"discriminator": 1.0, "distance": 0.25, "residual": 1.0},
    {"discriminator": 1.0, "distance": 0.5, "residual": 0.5},
    {"discriminator": 1.0, "residual": 0.5},
)
QUANTILES = (0.93, 0.94, 0.95, 0.96, 0.97)

SCREEN: dict[str, Any] = {
    "generator": "classical:1", "nodes": 1, "rounds": 2, "batch": 64, "detector_steps": 800, "features": 16,
}  # fmt: skip
"""What does not touch the generator is screened without circuits and on one node: a twentieth of the time. The feature
count that it begins with is that of the first look."""

CANDIDATES: dict[str, dict[str, Any]] = {
    "16 features": {**SCREEN},
    "12 features": {**SCREEN, "features": 12},
    "20 features": {**SCREEN, "features": 20},
    "24 features": {**SCREEN, "features": 24},
    "one discriminator": {**SCREEN, "discriminators": 1},
    "eight discriminators": {**SCREEN, "discriminators": 8},
    "near noise": {**SCREEN, "perturbation": [0.1, 1.0]},
    "far noise": {**SCREEN, "perturbation": [0.4, 1.5]},
    "more uniform noise": {**SCREEN, "negatives_noise": 3.0},
    "less uniform noise": {**SCREEN, "negatives_noise": 0.3},
    "wide": {**SCREEN, "hidden": [128, 64]},
    "one layer": {**SCREEN, "hidden": [64]},
    "slow": {**SCREEN, "detector_rate": 0.0007},
    "federated, quantum": {"nodes": 3, "rounds": 5, "features": 20},
    "federated, preset best": {"nodes": 3, "rounds": 5, **PRESETS["best"]["model"]},
    # The second look, around the first's choice.
    "20, less uniform noise": {**SCREEN, "features": 20, "negatives_noise": 0.3},
    "20, eight": {**SCREEN, "features": 20, "discriminators": 8},
    "20, twice the steps": {**SCREEN, "features": 20, "detector_steps": 1600},
    "20, eight, twice the steps": {**SCREEN, "features": 20, "discriminators": 8, "detector_steps": 1600},
    "20, eight, less noise": {**SCREEN, "features": 20, "discriminators": 8, "negatives_noise": 0.3},
    "20, near noise": {**SCREEN, "features": 20, "perturbation": [0.1, 1.0]},
    "20, wide": {**SCREEN, "features": 20, "hidden": [128, 64]},
    "18 features": {**SCREEN, "features": 18},
    "22 features": {**SCREEN, "features": 22},
    # The third: discriminators with waves, and negatives beside the records. For the preset best.
    "waves": {**SCREEN, "features": 20, "waves": 256},
    "waves, eight": {**SCREEN, "features": 20, "waves": 256, "discriminators": 8},
    "128 waves, eight": {**SCREEN, "features": 20, "waves": 128, "discriminators": 8},
    "waves, twelve": {**SCREEN, "features": 20, "waves": 256, "discriminators": 12},
    "near": {**SCREEN, "features": 20, "negatives_near": 1.0},
    "waves, near, eight": {**SCREEN, "features": 20, "waves": 256, "negatives_near": 1.0, "discriminators": 8},
    "waves, eight, 3000 steps": {
        **SCREEN, "features": 20, "waves": 256, "discriminators": 8, "detector_steps": 3000,
    },
    "waves, near, eight, 3000": {
        **SCREEN, "features": 20, "waves": 256, "negatives_near": 1.0, "discriminators": 8, "detector_steps": 3000,
    },
    "24 features, waves, eight": {**SCREEN, "features": 24, "waves": 256, "discriminators": 8},
}  # fmt: skip
"""Name -> settings that differ from the defaults, in the order in which they were thought of."""

_EIGHT = {**SCREEN, "features": 20, "discriminators": 8}
_NEAR = {**_EIGHT, "waves": 256, "negatives_near": 1.0, "detector_steps": 3000}
_ONE, _SEVERAL = [0.6**0.5] * 2, [0.2, 1.2]
_SMALL = {**SCREEN, "features": 20, "waves": 256, "width": _SEVERAL}
SHIFTED: dict[str, dict[str, Any]] = {
    "default": {**SCREEN, "features": 20},
    "default, eight": _EIGHT,
    "waves, near, eight, 3000": {**_NEAR, "width": _ONE},
    "several, near, eight, 3000": {**_NEAR, "width": _SEVERAL},
    "waves, eight": {**_EIGHT, "waves": 256, "width": _ONE},
    "several, eight": {**_EIGHT, "waves": 256, "width": _SEVERAL},
    "several, twelve": {**_EIGHT, "waves": 256, "width": _SEVERAL, "discriminators": 12},
    "several, eight, 1500": {**_EIGHT, "waves": 256, "width": _SEVERAL, "detector_steps": 1500},
    "512 several, eight": {**_EIGHT, "waves": 512, "width": _SEVERAL},
    "more, eight": {**_EIGHT, "waves": 256, "width": [0.1, 1.2]},
    "narrower, eight": {**_EIGHT, "waves": 256, "width": [0.2, 2.4]},
    "24 features, several, eight": {**_EIGHT, "waves": 256, "width": _SEVERAL, "features": 24},
    # The fifth: for the preset better, between the default and best.
    "several": {**_SMALL},
    "128 several": {**_SMALL, "waves": 128},
    "several, 32": {**_SMALL, "hidden": [32]},
    "several, 32, eight": {**_SMALL, "hidden": [32], "discriminators": 8},
    "128 several, 32, eight": {**_SMALL, "hidden": [32], "discriminators": 8, "waves": 128},
    "several, 16, eight": {**_SMALL, "hidden": [16], "discriminators": 8},
    "several, no layer, eight": {**_SMALL, "hidden": [], "discriminators": 8},
    "several, 32 16, eight": {**_SMALL, "hidden": [32, 16], "discriminators": 8},
    "several, 32 16": {**_SMALL, "hidden": [32, 16]},
    "128 several, 32 16, eight": {**_SMALL, "hidden": [32, 16], "discriminators": 8, "waves": 128},
    "128 several, eight": {**_SMALL, "discriminators": 8, "waves": 128},
}
"""The fourth look: `width` is the range of the waves' standard deviations, their logarithm uniform."""
LEFT = (0, 1)
"""Folds of services that are left out, of four."""

GENERATORS = ("quantum", "reservoir", "untrained", "classical:1", "classical:10", "uniform")
ABLATION = {f"generator {kind}": {"generator": kind, "nodes": 1, "rounds": 3, "batch": 64} for kind in GENERATORS}
ABLATION["no energy distance"] = {"energy_weight": 0.0, "nodes": 1, "rounds": 3, "batch": 64}
ABLATION["strings as features"] = {"energy_weight": 0.0, "trained_readout": False, "nodes": 1, "rounds": 3, "batch": 64}
"""What the circuit adds: the defaults on one node with other generators. Nothing was chosen by these."""
for _kind in ("quantum", "classical:1"):
    for _angles in (0.005, 0.02, 0.06):
        for _readout in (0.01, 0.04):
            ABLATION[f"{_kind}, rates {_angles:g} {_readout:g}"] = {
                "generator": _kind, "generator_rate": _angles, "readout_rate": _readout,
                "nodes": 1, "rounds": 3, "batch": 64,
            }  # fmt: skip
# And each side with rates of its own, so that none is held back by those of the other.
for _kind, _uploads, _rates in (
    ("quantum", 1, (0.02, 0.06)), ("quantum", 2, (0.02, 0.06)), ("quantum", 4, (0.02, 0.06)), ("reservoir", 2, (0.02,)),
):  # fmt: skip
    for _angles in _rates:
        ABLATION[f"{_kind}, {_uploads} re-uploads, rate {_angles:g}"] = {
            "generator": _kind, "reuploads": _uploads, "generator_rate": _angles,
            "nodes": 1, "rounds": 3, "batch": 64,
        }  # fmt: skip
# Latents encoded again, at the two rates of the angles that were best without.


def pool(folder: Path | None) -> Records:
    """The records of the training file that are in no hold-out of a reported seed."""
    train = load(data=folder, full=False, notify=print, test=False).train
    out = np.zeros(len(train), dtype=np.bool_)
    for seed in REPORTED:
        out[split(train, np.random.default_rng(derive(seed, "split"))).holdout] = True
    return train.take(~out)


def services(records: Records) -> list[IntArray]:
    """The services of benign records but the largest, dealt to four folds by their number of records."""
    names, counts = np.unique(records.take(~records.is_attack).categorical[:, SERVICE], return_counts=True)
    order = names[np.argsort(-counts, kind="stable")][1:]
    return [order[k::FOLDS] for k in range(FOLDS)]


def run(records: Records, settings: Mapping[str, Any], seed: int, left: IntArray | None = None) -> dict[str, Any]:
    """One candidate on one split of the pool: a federation without chain, whose models are joined by the mean.

    Args:
        records: The pool.
        settings: That differ from the defaults.
        seed: Of the split, and of all else.
        left: Services whose benign records are only scored.
    """
    settings = dict(settings)
    widths = discriminators.WIDTHS
    discriminators.WIDTHS = tuple(settings.pop("width", widths))
    try:
        return _run(records, settings, seed, np.zeros(0, dtype=np.int64) if left is None else left)
    finally:
        discriminators.WIDTHS = widths


def _run(records: Records, settings: dict[str, Any], seed: int, left: IntArray) -> dict[str, Any]:
    nodes, rounds = settings.pop("nodes", 3), settings.pop("rounds", 5)
    backend, dealt = settings.pop("backend", "fake_kyiv"), settings.pop("partition", "iid")
    config = build_config({"experiment": "nsl-kdd", "backend": backend, "seed": seed, "model": settings})
    rng = generator(seed, "tuning")
    benign, attacks = records.take(~records.is_attack), records.take(records.is_attack)
    order = rng.permutation(len(benign))
    first, second = len(benign) * 70 // 100, len(benign) * 85 // 100
    train, calibration, validation = (
        part.take(~np.isin(part.categorical[:, SERVICE], left))
        for part in (benign.take(index) for index in np.split(order, [first, second]))
    )
    parts = partition(train, nodes, dealt, rng).parts
    mapping = agree([node(train.take(part)) for part in parts], config.model.features, plain_sum)
    features = [mapping.apply(train.take(part)) for part in parts]
    target = target_of(config.backend, None)
    model = model_for(config, target, generator_for(config, target), "cpu")
    begin = time.perf_counter()
    scorers = {}
    with model.executor:
        blocks = quantise(model.initial(generator(seed, "initial")))
        for number in range(1, rounds + 1):
            trained = [
                model.train(dequantise(blocks), x, epochs=config.model.epochs, seed=derive(seed, "train", i, number))
                for i, x in enumerate(features)
            ]
            blocks = aggregate([quantise(t.parameters) for t in trained], [1] * nodes)
        seconds = time.perf_counter() - begin
        samples = model.generate(dequantise(blocks), 1000, 1)
        for weights in WEIGHTS:
            model.settings = config.model.model_copy(update={"score": weights})
            scorers[" ".join(f"{name[:4]} {w:g}" for name, w in weights.items())] = Scorer(
                model, dequantise(blocks), seed
            )
    x = mapping.apply(calibration)
    y, z = mapping.apply(validation), mapping.apply(attacks)
    moved = mapping.apply(benign.take(np.isin(benign.categorical[:, SERVICE], left)))
    out: dict[str, Any] = {}
    for name, scorer in scorers.items():
        counts = scorer.part_counts(x)
        own, (low, high) = scorer.score_counts(x, counts), scorer.score_range(counts)
        passing, attack, new = (scorer.scores(features, counts) for features in (y, z, moved))
        for q in QUANTILES if len(scorer.names) > 1 or len(left) else (0.95,):
            threshold = edge_above(own, low, high, q)
            out[f"{name}, {q:g}"] = _figures(passing, attack, attacks.attack, threshold, new)
    return {"seconds": round(seconds, 1), "energy": round(_energy(y, samples), 4), "variants": out}


def _energy(x: FloatArray, y: FloatArray) -> float:
    return float(energy_distance(torch.tensor(x[:1000]), torch.tensor(y[:1000])))


def _figures(
    benign: FloatArray, attack: FloatArray, types: IntArray, threshold: float, moved: FloatArray
) -> dict[str, Any]:
    """Figures of one variant: with benign records that moved K and not J, and the AUROC with them among the benign."""
    passed, found = float((benign <= threshold).mean()), attack > threshold
    named = {"passed": passed}
    if len(moved):
        named["S"] = float((moved <= threshold).mean())
        passed = (passed + named["S"]) / 2
        benign = np.concatenate([benign, moved])
    recall = {
        ATTACKS[t]: round(float(found[types == t].mean()), 4) for t in np.unique(types) if (types == t).sum() >= LEAST
    }
    a = (1 - SHARE) * passed + SHARE * float(found.mean())
    b = (passed + float(np.mean(list(recall.values())))) / 2
    labels = np.arange(len(benign) + len(attack)) >= len(benign)
    auroc = evaluate(np.concatenate([benign, attack]), labels, threshold).auroc
    out = {"K" if len(moved) else "J": (a + b) / 2, "A": a, "B": b, "auroc": auroc, **named}
    return {**{k: round(v, 4) for k, v in out.items()}, "recall": recall}


def summarise(rows: list[dict[str, Any]]) -> None:
    """A table by J, and the rotation."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        for variant, figures in row["variants"].items():
            found.setdefault((row["candidate"], variant), []).append(figures)

    def mean(name: tuple[str, str], key: str) -> float:
        return float(np.mean([figures[key] for figures in found[name]]))

    for name in sorted(found, key=lambda n: -mean(n, "J")):
        spread = float(np.std([figures["J"] for figures in found[name]]))
        figures = " ".join(f"{key} {mean(name, key):.4f}" for key in ("J", "A", "B", "auroc", "passed"))
        print(f"{name[0]:22s} {name[1]:34s} {figures} sd {spread:.4f} n {len(found[name])}")
    for candidate in dict.fromkeys(row["candidate"] for row in rows):
        mine = [row["energy"] for row in rows if row["candidate"] == candidate]
        print(f"{candidate:22s} energy distance of its samples to benign records {np.mean(mine):.4f}")
    types = sorted({t for figures in found.values() for t in figures[0]["recall"]})
    for fold in range(FOLDS):
        out = set(types[fold::FOLDS])

        def b(figures: Mapping[str, Any], chosen: Callable[[str], bool]) -> float:
            return (figures["passed"] + float(np.mean([v for t, v in figures["recall"].items() if chosen(t)]))) / 2

        kept = {n: np.mean([(f["A"] + b(f, lambda t: t not in out)) / 2 for f in fs]) for n, fs in found.items()}  # noqa: B023
        new = {n: float(np.mean([b(f, lambda t: t in out) for f in fs])) for n, fs in found.items()}  # noqa: B023
        best = max(kept, key=lambda n: kept[n])
        print(
            f"without {', '.join(sorted(out))}: {', '.join(best)}; B on them {new[best]:.4f}, "
            f"best {max(new.values()):.4f}, median {np.median(list(new.values())):.4f}"
        )


def summarise_shift(rows: list[dict[str, Any]]) -> None:
    """A line a candidate and weights, by AUROC; each at the quantile with the best J."""
    found: dict[tuple[str, str], dict[str, dict[str, list[float]]]] = {}
    for row in rows:
        for variant, figures in row["variants"].items():
            weights, quantile = variant.rsplit(", ", 1)
            mine = found.setdefault((row["candidate"], weights), {}).setdefault(quantile, {})
            for key in ("J", "K", "S", "auroc"):
                if key in figures:
                    name = f"{key} moved" if key == "auroc" and "K" in figures else key
                    mine.setdefault(name, []).append(figures[key])
    lines = []
    for (candidate, weights), by in found.items():
        means = {q: {key: float(np.mean(v)) for key, v in mine.items()} for q, mine in by.items()}
        means = {q: mine for q, mine in means.items() if {"J", "K"} <= mine.keys()}
        quantile = max(means, key=lambda q: means[q]["J"])
        mine = means[quantile]
        both = (mine["auroc"] + mine["auroc moved"]) / 2
        told = " ".join(f"{key} {mine[key]:.4f}" for key in ("auroc", "auroc moved", "J", "K", "S"))
        lines.append((both, f"{candidate:28s} {weights + ', ' + quantile:34s} mean {both:.4f} {told}"))
    for _, line in sorted(lines, reverse=True):
        print(line)


def main() -> None:
    """Run what is not in the file yet, then summarise it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--summary", action="store_true", help="Run nothing.")
    parser.add_argument("--ablation", action="store_true", help="Other generators in the circuit's place.")
    parser.add_argument("--shift", action="store_true", help="Without some services.")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    known = {(r["candidate"], r["seed"], r.get("left")) for r in rows}
    known_names = ABLATION if options.ablation else SHIFTED if options.shift else CANDIDATES
    records = None if options.summary else pool(options.data)
    seeds, folds = range(1000, 1000 + options.seeds), (None, *LEFT) if options.shift else (None,)
    for name, seed, fold in itertools.product(options.only or known_names, seeds, folds):
        if records is None or (name, seed, fold) in known:
            continue
        settings = known_names[name]
        made = run(records, settings, seed, None if fold is None else services(records)[fold])
        row = {
            "candidate": name,
            "seed": seed,
            **({} if fold is None else {"left": fold}),
            "settings": settings,
            **made,
        }
        rows.append(row)
        with options.out.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(name, seed, "" if fold is None else fold, f"{row['seconds']} s", flush=True)
    (summarise_shift if options.shift else summarise)(rows)


if __name__ == "__main__":
    main()
