"""A training step with error mitigation beside one without: `python -m tests.benchmarks.mitigation_speed`.

The job is the main experiment's: RY(z) + EfficientSU2 (reps 4, reverse_linear) on a noisy device, float32, one thread.
Every stack runs in turn, round after round, so that what else the machine does falls on all of them alike; a ratio is
the median of the ratios to the unmitigated step of the same round, in seconds of the processor. Three things are timed
on the exact twin: the generator's step as `QGAN.train` has it (expectation values, the loss through the discriminator,
its gradient by angles and readout), a whole step of `QGAN.train` (with its three steps of the discriminators), and 512
samples as they are drawn for scores. On Aer the jobs of one SPSA step are counted, which is what a device would be paid
for.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from backends.aer import AerExecutor
from backends.catalog import get_target
from backends.engines import make_executor
from backends.layer import ExpectationLayer
from backends.mitigation.executor import MitigatedExecutor
from backends.mitigation.make import Mitigation
from backends.mitigation.stack import parse
from backends.mitigation.types import MitigationOptions
from backends.target import Target
from circuits.compile import compile_ansatz
from circuits.errors import QrunError
from circuits.qgan import generator
from circuits.types import CompiledCircuit
from experiments.models.qgan import QGAN, Parameters
from experiments.settings import ModelSettings
from tests.benchmarks.machine import describe_machine
from tests.benchmarks.peers.job import SEED

STACKS = ("none", "readout", "readout+zne", "ddd+twirl+zne", "readout+lre", "readout+pec", "readout+cdr")
LONG = 1.0
"""Seconds from which on a step is run in few rounds."""

FEW = 10
"""Up to so many circuits a sample, a step runs on Aer, too: hundreds take minutes there."""


class CountingAer(AerExecutor):
    """Aer, and how many jobs it was given."""

    jobs = 0

    def _job(self, *arguments: Any) -> Any:
        self.jobs += 1
        return super()._job(*arguments)


@dataclass
class Row:
    """One stack: what is timed, and the seconds of every round by what it was."""

    stack: str
    model: QGAN
    parameters: Parameters
    data: np.ndarray[Any, np.dtype[np.float64]]
    seconds: dict[str, list[float]] = field(default_factory=dict)
    first: float = 0.0

    def __post_init__(self) -> None:
        settings, model = self.model.settings, self.model
        layer = ExpectationLayer(model.engine("training"), model.circuit, model.observables)
        tensors = model._tensors(self.parameters)
        trained = [t.requires_grad_() for name, t in tensors.items() if name.startswith("generator")]

        def generator_step() -> None:
            for tensor in trained:
                tensor.grad = None
            fake, _ = model._fake(layer, tensors, torch.Generator().manual_seed(SEED))
            torch.nn.functional.softplus(-model._logit(tensors, fake)).mean().backward()

        self.parts: dict[str, Callable[[], object]] = {
            "generator": generator_step,
            "training": lambda: model.train(self.parameters, self.data, epochs=1, seed=SEED, steps=1),
            "samples": lambda: model.generate(self.parameters, settings.samples, SEED),
        }
        self.first = timed(generator_step)
        for part in self.parts.values():
            part()

    def measure(self) -> None:
        """One round."""
        for name, part in self.parts.items():
            self.seconds.setdefault(name, []).append(timed(part))


def timed(action: Callable[[], object]) -> float:
    """Seconds of the processor: all of it runs on one thread, and what else the machine does must not count."""
    begin = time.process_time()
    action()
    return time.process_time() - begin


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", nargs="+", default=["fake_kyiv", "fake_torino"])
    parser.add_argument("--qubits", type=int, nargs="+", default=[4, 6, 8])
    parser.add_argument("--stack", nargs="+", default=list(STACKS))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--shots", type=int, default=1024, help="for the jobs on Aer; 0 leaves Aer out")
    parser.add_argument("--folding", default=MitigationOptions().folding)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(describe_machine())
    settings = ModelSettings(detector_steps=0)
    print(
        f"reps {settings.reps}, {settings.entanglement}, batch {settings.batch}, {settings.precision}, "
        f"{settings.samples} samples, {options.folding} folding; medians of {options.rounds} rounds, one thread"
    )
    for device in options.device:
        for qubits in options.qubits:
            _table(get_target(device), qubits, options)


def _table(target: Target, qubits: int, options: argparse.Namespace) -> None:
    settings = ModelSettings(qubits=qubits, detector_steps=0)
    circuit = compile_ansatz(generator(qubits, settings.reps, settings.entanglement), target.backend, seed=SEED)
    print(
        f"\n{target.name}, {qubits} qubits: {len(circuit.physical_qubits)} wires, {circuit.two_qubit_gates} two-qubit"
    )
    stacks = [*dict.fromkeys(["none", *options.stack])]
    rows = [row for stack in stacks if (row := _row(target, settings, circuit, stack, options)) is not None]
    for number in range(options.rounds):
        for row in rows:
            if number < 3 or row.seconds["generator"][0] < LONG:
                row.measure()
    names = ("generator", "training", "samples")
    print(
        f"  {'stack':16}{'circuits':>9}{'first':>9}" + "".join(f"{name + ', ms':>16}{'ratio':>7}" for name in names),
        end="",
    )
    print(f"{'Aer jobs':>10}{'s':>8}" if options.shots else "")
    for row in rows:
        engine = row.model.engine("training")
        made = engine.circuits(circuit, 1) if isinstance(engine, MitigatedExecutor) else 1
        line = f"  {row.stack:16}{made:9}{row.first:8.2f}s"
        for name in names:
            paired = zip(row.seconds[name], rows[0].seconds[name], strict=False)
            ratio = statistics.median(own / plain for own, plain in paired)
            line += f"{1e3 * statistics.median(row.seconds[name]):16.2f}{ratio:7.2f}"
        if options.shots and made <= FEW:
            jobs, seconds = _on_aer(target, settings, circuit, row.stack, options)
            line += f"{jobs:10}{seconds:8.2f}"
        print(line, flush=True)


def _row(
    target: Target, settings: ModelSettings, circuit: CompiledCircuit, stack: str, options: argparse.Namespace
) -> Row | None:
    try:
        executor = make_executor("twin", target, precision=settings.precision)
        model = QGAN(settings, executor, circuit, _mitigation(target, stack, options.folding, exact=True))
        random = np.random.default_rng(SEED)
        data = random.uniform(-0.8, 0.8, (256, model.features))
        return Row(stack, model, model.initial(random), data)
    except QrunError as error:
        print(f"  {stack:16} {error}")
        return None


def _mitigation(target: Target, stack: str, folding: str, *, exact: bool) -> Mitigation:
    return Mitigation(target, MitigationOptions(stack=parse(stack), folding=folding), exact=exact)  # type: ignore[arg-type]


def _on_aer(
    target: Target, settings: ModelSettings, circuit: CompiledCircuit, stack: str, options: argparse.Namespace
) -> tuple[int, float]:
    """Jobs and seconds of one SPSA step with sampled values."""
    executor = CountingAer(target, shots=options.shots)
    model = QGAN(settings, executor, circuit, _mitigation(target, stack, options.folding, exact=False))
    random = np.random.default_rng(SEED)
    data, parameters = random.uniform(-0.8, 0.8, (256, model.features)), model.initial(random)
    begin = time.perf_counter()
    model.train(parameters, data, epochs=1, seed=SEED, steps=1)
    return executor.jobs, time.perf_counter() - begin


if __name__ == "__main__":
    main()
