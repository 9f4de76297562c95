"""All rows of `qrun benchmark`: the QGAN through runs of its own, the others on the same data and features."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from circuits.errors import QrunError, UsageError
from experiments.models.baselines.registry import BASELINES, QGAN_NAME, find
from experiments.models.budget import accountants
from experiments.models.generators import generator_parameters
from runner.benchmark.baseline import judge
from runner.benchmark.bench import Bench
from runner.benchmark.rows import Row, open_rows
from runner.config import RunConfig, build_config
from runner.detection import rounded
from runner.detection import to_json as detection_json
from runner.places import Places
from runner.progress import Warn
from runner.run_folder import read_manifest, read_result
from runner.store import RunIndex, RunInfo

FORMAT = "qrun-benchmark/1"
MODELS = (QGAN_NAME, *BASELINES)
PRIVATE_NAME = "qgan-dp"
"""The run with differentially private training; beside the one without, where an epsilon is asked for."""
RUNS = (QGAN_NAME, PRIVATE_NAME)
"""Models that are federated runs."""
GANS = {"qgan-central": 1.0, "random-circuits": 0.6, "classical-gan": 0.0, "classical-gan-10x": 0.0}
"""Models trained as the QGAN is, and what share of its circuits' seconds a step takes."""
STEP = 0.006
"""Seconds of a step without its circuit, measured on one core."""
AT_REST = {"gaussian-mixture": 2, "autoencoder": 10, "one-class-svm": 3, "isolation-forest": 5, "random-forest": 13}
"""Seconds of the others at the size of KDDTrain+_20Percent, nodes alone included; those that are not here take one."""

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Asked:
    """What is compared; every name checked.

    Attributes:
        config: Of the runs; the seed is each row's own.
        models: In the order of the table.
        seeds: One row each for each model.
        dp: Epsilon of the private run; None where there is none.
    """

    config: RunConfig
    models: tuple[str, ...]
    seeds: tuple[int, ...]
    dp: float | None = None

    def with_seed(self, seed: int) -> RunConfig:
        """A run's config."""
        return self.config.model_copy(update={"seed": seed})

    def of(self, model: str, seed: int) -> RunConfig:
        """The config that a model's row is of."""
        config = self.with_seed(seed)
        return config if model != PRIVATE_NAME or self.dp is None else with_dp(config, self.dp)


def with_dp(config: RunConfig, epsilon: float) -> RunConfig:
    """The same run with differentially private training.

    Raises:
        UsageError: no such epsilon.
    """
    values = config.model_dump(mode="json")
    return build_config({**values, "model": {**values["model"], "dp": epsilon, "energy_weight": 0.0}})


def asked(config: RunConfig, models: Sequence[str], seeds: int, dp: float | None = None) -> Asked:
    """Check what is asked for.

    Args:
        config: Of the runs, without an epsilon.
        models: Names; none for all.
        seeds: How many.
        dp: Epsilon: the QGAN is then there with and without private training.

    Raises:
        UsageError: an unknown model, no seeds, a config that sends jobs to a device, an epsilon that is none.
        QrunError: an epsilon is asked for, and what counts it is not installed.
    """
    names = dict.fromkeys(models or MODELS)
    if dp is not None:
        if QGAN_NAME not in names:
            raise UsageError(f"--dp {dp:g} is of {QGAN_NAME}, which --models leaves out.", f"Add {QGAN_NAME} to it.")
        with_dp(config, dp)
        accountants()
        names = dict.fromkeys(n for name in names for n in ((name, PRIVATE_NAME) if name == QGAN_NAME else (name,)))
    elif config.model.dp is not None:
        raise UsageError(
            "model.dp: the table has the private run beside the one without.", "Give --dp EPSILON, and leave it out."
        )
    for name in models:
        if name != QGAN_NAME:
            find(name)
    if seeds < 1:
        raise UsageError(f"--seeds {seeds}: at least 1.", "Five give an interval.")
    if config.engine == "runtime" or config.runtime is not None:
        raise UsageError("the table is made on twins: nothing is sent to a device.", "Take --engine twin or aer.")
    return Asked(config, tuple(names), tuple(config.seed + k for k in range(seeds)), dp)


@dataclass(frozen=True)
class Table:
    """All rows, and the data that they are of ("official", "stand-in")."""

    rows: list[Row]
    source: str


def compare(
    wanted: Asked,
    *,
    data: Path | None,
    out: Path | None,
    notify: Callable[[str], None],
    say: Callable[[str], None],
    progress: Progress,
) -> Table:
    """Make all rows that are not in the file yet.

    Args:
        wanted: From `asked`.
        data: Folder of the data set's files.
        out: File of finished rows; made, or gone on with.
        notify: Told what the user should know, e.g. that a stand-in is used.
        say: Told before anything long begins how long it will take.
        progress: Told of (rows done, in all, what came of the last one).
    """
    first = Bench.load(wanted.with_seed(wanted.seeds[0]), data, notify)
    sha256 = first.study.dataset.sha256
    about: dict[str, Any] = {"format": FORMAT, "config": wanted.with_seed(0).digest.hex(), "data": sha256}
    if wanted.dp is not None:
        about["dp"] = wanted.dp
    file = open_rows(out, about)
    try:
        missing = [(s, m) for s in wanted.seeds for m in wanted.models if (m, s) not in file.rows]
        total = len(wanted.seeds) * len(wanted.models)
        if missing:
            known = {(s, m): finished(wanted.of(m, s), sha256) for s, m in missing if m in RUNS}
            say(_estimate(first, missing, [s for (s, _), run in known.items() if run is None]))
        progress(total - len(missing), total, "making rows")
        bench: Bench | None = first
        for seed in wanted.seeds:
            own = [m for s, m in missing if s == seed]
            if not own:
                continue
            if bench is None or bench.config.seed != seed:
                bench = Bench.load(wanted.with_seed(seed), data)
            try:
                for model in own:
                    progress(len(file.rows), total, f"{model}, seed {seed}")
                    row = make_row(bench, wanted.of(model, seed), model, data)
                    file.add(row)
                    progress(total - len([1 for s, m in missing if (m, s) not in file.rows]), total, _said(row))
            finally:
                bench.close()
                bench = None
        return Table([file.rows[m, s] for m in wanted.models for s in wanted.seeds], first.study.dataset.source)
    finally:
        file.close()


def _said(row: Row) -> str:
    parts = [("hold-out", "holdout"), ("test", "test")]
    told = [f"{name} F1 {f1:.4f}" for name, part in parts if (f1 := row.figure(part, "label_free", "f1")) is not None]
    return f"{row.model}, seed {row.seed}: {', '.join(told)}; {row.seconds:.0f} s"


def make_row(bench: Bench, config: RunConfig, model: str, data: Path | None) -> Row:
    """One row, with the model's own config."""
    if model in RUNS:
        return of_run(bench, model, played(config, bench.study.dataset.sha256, data))
    found = judge(bench, find(model))
    return Row(
        model,
        config.seed,
        detection_json(found.detection),
        rounded(found.isolated),
        found.parameters,
        found.seconds,
    )


def of_run(bench: Bench, model: str, result: Mapping[str, Any]) -> Row:
    """A model's row, of a finished run."""
    from runner.audit.models import skeleton
    from runner.benchmark.membership import membership

    index = RunIndex()
    try:
        folder = index.find(result["run"], exact=True).path
    finally:
        index.close()
    return Row(
        model,
        bench.config.seed,
        result["detection"]["parts"],
        None,
        generator_parameters(skeleton(bench.config)),
        round(float(result["seconds"]["total"]), 2),
        result["run"],
        rounded(membership(bench, folder, result)),
    )


class _Quiet(Warn):
    """A run inside a table says nothing; what it has to say, the table has said."""

    def notice(self, title: str, text: str) -> None:
        """Ignore."""


def played(config: RunConfig, sha256: Mapping[str, str], data: Path | None) -> dict[str, Any]:
    """The result of a run of this config on these data: of a finished one, of one that is gone on with, or of a new."""
    from runner.run import go_on, start

    known = finished(config, sha256)
    if known is not None:
        return known
    for info in _of(config):
        if info.state == "interrupted":
            try:
                result = go_on(info.run, places=Places(data), reporter=_Quiet()).result
            except QrunError:  # other data, a version that is gone: not this run, then
                continue
            if _fits(result, sha256):
                return result
    return start(config, Places(data), reporter=_Quiet()).result


def finished(config: RunConfig, sha256: Mapping[str, str]) -> dict[str, Any] | None:
    """The result of a finished run of this config on these data; None where there is none."""
    for info in reversed(_of(config)):
        if info.state == "finished":
            try:
                result = read_result(info.path)
            except QrunError:
                continue
            if _fits(result, sha256):
                return result
    return None


def _fits(result: Mapping[str, Any], sha256: Mapping[str, str]) -> bool:
    return result["dataset"]["sha256"] == sha256 and result["detection"] is not None


def _of(config: RunConfig) -> list[RunInfo]:
    """The runs of this config, oldest first."""
    index = RunIndex()
    try:
        named = [i for i in index.list() if i.run.startswith(f"{config.experiment}-{config.digest.hex()[:8]}")]
    finally:
        index.close()
    out = []
    for info in named:
        try:
            if read_manifest(info.path)[1]["config_digest"] == config.digest.hex():
                out.append(info)
        except QrunError:
            continue
    return out


def _estimate(bench: Bench, missing: Sequence[tuple[int, str]], runs: Sequence[int]) -> str:
    """What is missing, and about how long it will take here: from a few steps of the model, timed."""
    config = bench.config
    seconds: float = sum(AT_REST.get(model, 1) for _, model in missing)
    steps = config.rounds * config.model.epochs * config.model.steps_per_epoch
    of_gans = [model for _, model in missing if model in GANS]
    if of_gans or runs:
        step, detector = timed(bench)
        circuit = max(0.0, step - STEP)
        alone = 0 if config.nodes == 1 else config.nodes
        detectors = config.rounds * config.model.detector_steps * detector
        seconds += sum(((STEP + GANS[model] * circuit) * steps + detectors) * (1 + alone) for model in of_gans)
        seconds += len(runs) * (((STEP + circuit) * steps + detectors) * config.nodes + 10)
    said = f"about {seconds:.0f} s" if seconds < 90 else f"about {seconds / 60:.0f} minutes"
    again = len([1 for _, m in missing if m in RUNS]) - len(runs)
    reused = f" ({again} finished run{'s' * (again != 1)} reused)" if again else ""
    return f"{len(missing)} rows to make{reused}: {said} on this machine, if it has nothing else to do."


def timed(bench: Bench) -> tuple[float, float]:
    """Seconds here of an adversarial step, and of one of the discriminators alone."""
    import torch

    from experiments.models.qgan import QGAN

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        known = bench.model()
        x = bench.tables("agreed").train[0]

        def seconds(steps: int, detector_steps: int) -> float:
            settings = known.settings.model_copy(update={"detector_steps": detector_steps, "dp": None})
            model = QGAN(settings, known.executor, known.circuit, known.mitigation)
            start = model.initial(np.random.default_rng(0))
            begin = time.perf_counter()
            model.train(start, x, epochs=1, steps=steps, seed=0)
            return time.perf_counter() - begin

        seconds(1, 1)  # what is made once is made here
        step = seconds(3, 0) / 3
        return step, max(0.0, seconds(1, 20) - step) / 20
    finally:
        torch.set_num_threads(threads)
