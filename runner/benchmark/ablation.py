"""Does the quantum part matter? The same federations with the generator trained, untrained, classical, or none.

Each is played without chain and store (`runner/attack/simulate.py`, all nodes honest), with one seed's data, feature
map, discriminator start, batches and latents in all arms: what differs is what answers in place of the circuit
(experiments/models/generators.py). Its final aggregate is scored as a run scores it, at both thresholds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from circuits.errors import UsageError
from experiments.datasets.types import FloatArray
from experiments.models.generators import VARIANTS, generator_parameters
from experiments.models.qgan import QGAN
from experiments.models.score import Calibration
from runner.attack.attacks import ATTACKS
from runner.attack.simulate import simulate
from runner.attack.world import World
from runner.benchmark.bench import Bench
from runner.benchmark.rows import Row, open_rows
from runner.config import RunConfig
from runner.detection import detection_of, thresholds_of
from runner.detection import to_json as detection_json
from runner.seeds import generator
from runner.update import dequantise, quantise

FORMAT = "qrun-ablation/1"
ARMS = tuple(VARIANTS)
"""The first is what the others are held against."""


@dataclass(frozen=True)
class Asked:
    """What is played; every number checked.

    Attributes:
        config: The seed is each federation's own.
        seeds: One federation each for each arm.
        records: Benign training records that a node keeps; all where None.
    """

    config: RunConfig
    seeds: tuple[int, ...]
    records: int | None


def asked(config: RunConfig, seeds: int, records: int | None) -> Asked:
    """Check what is asked for.

    Raises:
        UsageError: impossible numbers; a config that sends jobs to a device, or that mitigates.
    """
    if seeds < 1:
        raise UsageError(f"--seeds {seeds}: at least 1.", "Ten show a difference of one standard deviation.")
    if records is not None and records < config.model.batch:
        raise UsageError(f"--records {records}: at least a batch ({config.model.batch}).", "50 to 500 are few.")
    if config.engine == "runtime" or config.runtime is not None:
        raise UsageError("the table is played on twins: nothing is sent to a device.", "Take --engine twin or aer.")
    if config.mitigation is not None or config.model.infidelity_weight is not None:
        raise UsageError(
            "mitigation and an infidelity weight are the circuit's alone, and would make the arms differ by more than "
            "the generator.",
            "Leave them out.",
        )
    if config.model.dp is not None:
        raise UsageError("model.dp: its noise has no seed, and would differ from arm to arm.", "Leave it out.")
    return Asked(config, tuple(config.seed + k for k in range(seeds)), records)


@dataclass(frozen=True)
class Table:
    """All rows, and the data that they are of ("official", "stand-in")."""

    rows: list[Row]
    source: str


def ablate(
    wanted: Asked,
    *,
    data: Path | None,
    out: Path | None,
    notify: Callable[[str], None],
    progress: Callable[[int, int, str], None],
) -> Table:
    """Play all federations that are not in the file yet; arguments as of `compare`."""
    config = wanted.config
    first = _load(wanted, wanted.seeds[0], data, notify)
    about = {
        "format": FORMAT,
        "config": config.model_copy(update={"seed": 0}).digest.hex(),
        "data": first.study.dataset.sha256,
        "records": wanted.records,
    }
    file = open_rows(out, about)
    try:
        total = len(wanted.seeds) * len(ARMS)
        missing = [(s, a) for s in wanted.seeds for a in ARMS if (a, s) not in file.rows]
        done = total - len(missing)
        progress(done, total, "playing federations")
        bench: Bench | None = first
        for seed in wanted.seeds:
            own = [a for s, a in missing if s == seed]
            if not own:
                continue
            if bench is None or bench.config.seed != seed:
                bench = _load(wanted, seed, data, notify)
            try:
                for arm in own:
                    row = play(bench, arm)
                    file.add(row)
                    done += 1
                    f1 = row.figure("holdout", "label_free", "f1")
                    progress(done, total, f"{arm}, seed {seed}: hold-out F1 {f1:.4f}; {row.seconds:.0f} s")
            finally:
                bench.close()
                bench = None
        return Table([file.rows[a, s] for a in ARMS for s in wanted.seeds], first.study.dataset.source)
    finally:
        file.close()


def _load(wanted: Asked, seed: int, data: Path | None, notify: Callable[[str], None]) -> Bench:
    return Bench.load(wanted.config.model_copy(update={"seed": seed}), data, notify, records=wanted.records)


def world_of(bench: Bench, model: QGAN) -> World:
    """The bench's federation with this model, before the first round."""
    tables, study = bench.tables("agreed"), bench.study
    attacks = [bench.feature_map.apply(share.attacks) for share in study.shares]
    return World(
        config=bench.config,
        study=study,
        model=model,
        start=quantise(model.initial(generator(bench.config.seed, "initial"))),
        feature_map=bench.feature_map,
        features=tuple(zip(tables.train, tables.benign, attacks, strict=True)),
        judge=bench.judge,
    )


def play(bench: Bench, arm: str) -> Row:
    """One federation of an arm."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _play(bench, arm)
    finally:
        torch.set_num_threads(threads)


def _play(bench: Bench, arm: str) -> Row:
    plain = bench.model()
    begin = time.perf_counter()
    model = VARIANTS[arm].make(plain)
    world = world_of(bench, model)
    outcome = simulate(world, ATTACKS["none"], frozenset(), bench.config.federation.aggregation)
    scorer = world.peers(bench.config.federation)[0].scorer(dequantise(outcome.final), bench.config.rounds)
    parts = scorer.part_counts(_joined(world, 1))
    calibration = Calibration(parts, scorer.score_counts(_joined(world, 1), parts))
    thresholds = thresholds_of(scorer, calibration, scorer.score_counts(_joined(world, 2), parts))
    detection = detection_of(scorer, calibration, thresholds, bench.judge, bench.study)
    weights = 0 if arm == "uniform" else generator_parameters(model)
    return Row(arm, bench.config.seed, detection_json(detection), None, weights, round(time.perf_counter() - begin, 2))


def _joined(world: World, which: int) -> FloatArray:
    return np.concatenate([features[which] for features in world.features])


def values(rows: Sequence[Row], arm: str, part: str, name: str) -> list[float]:
    """An arm's figures at the label-free threshold, by seed."""
    found = [row.figure(part, "label_free", name) for row in rows if row.model == arm]
    return [v for v in found if v is not None]
