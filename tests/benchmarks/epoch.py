"""Seconds of one epoch of one node of the main job, beside the peers: `python -m tests.benchmarks.epoch`.

An epoch is 60 steps of the generator, each with three of the discriminator. It is run whole on this engine. A peer's is
put together: its generator step, timed by itself, 60 times, and what the discriminator takes here.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass

import numpy as np
import torch

from backends.engines import make_executor
from circuits.compile import compile_ansatz
from experiments.models.qgan import QGAN
from experiments.nsl_kdd import NslKdd
from experiments.settings import ModelSettings
from tests.benchmarks.generator_step import ROWS, run_child
from tests.benchmarks.machine import describe_machine
from tests.benchmarks.peers.job import SEED, Job


@dataclass(frozen=True)
class Epoch:
    """Median seconds of an epoch on this engine, and of what in it is not the generator's circuit."""

    whole: float
    rest: float
    steps: int


def main() -> None:
    """Print the table for the default job, or another device or number of qubits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="fake_kyiv")
    parser.add_argument("--qubits", type=int, default=ModelSettings().qubits)
    options = parser.parse_args()
    print(describe_machine())
    print_epoch(options.device, ModelSettings(qubits=options.qubits))


def print_epoch(device: str, settings: ModelSettings) -> None:
    """Run an epoch here, time a step of every peer that is installed, and print them beside each other."""
    torch.set_num_threads(1)
    epoch = run_epoch(device, settings)
    print(
        f"an epoch of a node: {device}, {settings.qubits} qubits, {epoch.steps} generator steps of batch "
        f"{settings.batch}, {settings.discriminator_steps} discriminator steps each; one thread"
    )
    print(f"  {'this engine, run whole':34}{epoch.whole:10.2f} s      1.0")
    for row in ROWS:
        if row.peer == "twin" or settings.qubits > row.most_qubits:
            continue
        order = {
            "peer": row.peer,
            "options": row.options,
            "device": device,
            "qubits": settings.qubits,
            "batch": settings.batch,
            "seconds": 5.0,
            "threads": 1,
        }
        found = run_child(order, 900.0)
        if "seconds" not in found:
            print(f"  {row.label:34} {found['why']}")
            continue
        total = epoch.steps * found["seconds"] + epoch.rest + found["first"]
        how = f"{epoch.steps} times one step" + (f" ({found['part']}, scaled)" if found["part"] else "")
        print(
            f"  {row.label:34}{total:10.2f} s{total / epoch.whole:9.1f}  {how}, {found['first']:.1f} s to start, "
            f"{epoch.rest:.2f} s for the rest"
        )


def run_epoch(device: str, settings: ModelSettings, repeats: int = 3) -> Epoch:
    """An epoch of training on this engine, and as many generator steps alone; the difference is the rest."""
    job = Job.build(device, settings.qubits, settings.batch, settings.reps)
    ansatz = NslKdd().ansatz(settings)
    circuit = compile_ansatz(ansatz, job.target.backend, seed=SEED)
    one = settings.model_copy(update={"epochs": 1})
    random = np.random.default_rng(SEED)
    data = random.uniform(-0.8, 0.8, (3000, settings.features))
    whole, steps = [], []
    with make_executor("twin", job.target, precision=settings.precision) as executor:
        model = QGAN(one, executor, circuit)
        start = model.initial(random)
        inputs = torch.tensor(job.inputs, dtype=model.dtype)
        weights = torch.tensor(start["generator"], dtype=model.dtype, requires_grad=True)
        model.train(start, data[:64], epochs=1, seed=SEED)  # reads the circuit
        for _ in range(repeats):
            begin = time.perf_counter()
            model.train(start, data, epochs=1, seed=SEED)
            whole.append(time.perf_counter() - begin)
            begin = time.perf_counter()
            for _ in range(one.steps_per_epoch):
                values = executor.expectations(circuit, model.observables, inputs, weights)  # type: ignore[attr-defined]
                values.square().mean().backward()
            steps.append(time.perf_counter() - begin)
    total = statistics.median(whole)
    return Epoch(total, max(0.0, total - statistics.median(steps)), one.steps_per_epoch)


if __name__ == "__main__":
    main()
