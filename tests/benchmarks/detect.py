"""How `qrun detect` does: flows a second and latency, and how far its probabilities are from what comes true.

    python -m tests.benchmarks.detect --model RUN [--data DIR] [--repeat 5]

Takes a finished run. Scores the hold-out and the test file that it was measured on, from text, as the command does it:
reading, features, score, verdict. Prints flows a second with large batches, the seconds of a single flow (median and
99 %), the seconds that loading takes, the reliability of probabilities in ten bins with the expected calibration error,
and the machine. No circuit is run: the samples that the twin generated are in the run's store; how long the twin takes
to generate them is printed beside it.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from experiments.base import find
from experiments.datasets.parse import to_text
from experiments.datasets.types import Records
from experiments.reliability import reliability
from runner.audit.sources import run_folder
from runner.detect import Model, load, run, threshold_of
from runner.run_folder import read_manifest
from runner.seeds import derive
from tests.benchmarks.machine import describe_machine


def main() -> None:
    """Print all of it."""
    import torch

    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--repeat", type=int, default=5)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    begin = time.perf_counter()
    model = load(asked.model)
    print(f"loading                {time.perf_counter() - begin:.2f} s")
    config, _ = read_manifest(run_folder(asked.model))
    study = find(config.experiment).load(
        config.data,
        nodes=config.nodes,
        seeds=lambda purpose, *parts: derive(config.seed, purpose, *parts),
        folder=asked.data,
        notify=print,
    )
    edge = threshold_of(model, "label-free")
    text = to_text(study.holdout).encode()
    clock, computed = np.median([_whole(model, edge, text) for _ in range(asked.repeat)], axis=0)
    count = len(study.holdout)
    print(f"flows a second         {count / clock:,.0f}; of computing time {count / computed:,.0f} (one thread)")
    lines = text.splitlines(keepends=True)[: 100 * asked.repeat]
    single = [_whole(model, edge, line)[0] for line in lines]
    print(
        f"one flow               {1e3 * np.median(single):.2f} ms, 99 % under {1e3 * np.quantile(single, 0.99):.2f} ms"
    )
    print(f"samples in the store   {len(model.detector.samples)}; made in {_generation(model, config):.2f} s")
    for name, records in (("hold-out", study.holdout), ("test", study.test)):
        if records is not None:
            _reliability(name, model, records)
    print(describe_machine())


def _whole(model: Model, edge: float, data: bytes) -> tuple[float, float]:
    """Seconds by the clock, and of the processor."""
    chunks = iter([data[i : i + (1 << 18)] for i in range(0, len(data), 1 << 18)])
    begin, computing = time.perf_counter(), time.process_time()
    for _ in run(model, edge, lambda: next(chunks, b""), form="csv", write=len, tell=len):
        pass
    return time.perf_counter() - begin, time.process_time() - computing


def _generation(model: Model, config: object) -> float:
    from backends.catalog import get_target
    from runner.compiled import generator_for
    from runner.config import RunConfig
    from runner.models import model_for

    assert isinstance(config, RunConfig)
    target = get_target(config.backend)
    twin = model_for(config, target, generator_for(config, target), "cpu")
    with twin.executor:
        twin.generate(model.scorer.parameters, 16, 0)  # what is made once is made here
        begin = time.perf_counter()
        twin.generate(model.scorer.parameters, config.model.samples, 0)
        return time.perf_counter() - begin


def _reliability(name: str, model: Model, records: Records) -> None:
    error, rows = reliability(model.probabilities(model.scores(records)), records.is_attack)
    print(f"\n{name}: expected calibration error {error:.4f}")
    print("  records   said   true")
    for count, said, true in rows:
        print(f"  {count:7,}  {said:.3f}  {true:.3f}")
    print()


if __name__ == "__main__":
    main()
