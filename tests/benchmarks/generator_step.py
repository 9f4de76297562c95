"""Seconds of one generator step, expectations and gradient: `python -m tests.benchmarks.generator_step`.

The job is the main experiment's: RY(z) + EfficientSU2 (reps 4, reverse_linear) on a noisy device, a batch of inputs, Z
on every qubit. The twin gives the exact gradient for weights and inputs; its peer here is Aer with 1024 shots and SPSA,
which gives a noisy estimate of the gradient for the weights.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version

import torch

from backends.catalog import get_target
from backends.engines import make_executor
from backends.layer import ExpectationLayer, GradientMethod
from backends.observables import single_z
from backends.target import Target
from circuits.compile import compile_ansatz
from circuits.qgan import generator
from circuits.types import CompiledCircuit

PACKAGES = ("qiskit", "qiskit-aer", "qiskit-ibm-runtime", "torch", "numpy")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="fake_kyiv")
    parser.add_argument("--qubits", type=int, nargs="+", default=[4, 6, 8])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=15, help="steps of the twin; Aer takes a fifth of them")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(", ".join(f"{name} {version(name)}" for name in PACKAGES), f"python {platform.python_version()}", sep=", ")
    print(f"{options.device}, batch {options.batch}, {options.threads} thread(s); seconds a step, median (fastest)")

    start = time.perf_counter()
    target = get_target(options.device)
    if target.backend is not None:
        target.backend.target  # noqa: B018 - read on first use
    print(f"get_target: {time.perf_counter() - start:.3f} s, with the Runtime's imports")
    for qubits in options.qubits:
        start = time.perf_counter()
        circuit = compile_ansatz(generator(qubits), target.backend, seed=7)
        compiling = time.perf_counter() - start
        print(
            f"\n{qubits} qubits: compiled in {compiling:.3f} s to {len(circuit.physical_qubits)} device qubits, "
            f"{circuit.two_qubit_gates} two-qubit gates, depth {circuit.depth}"
        )
        for label, method, precision, share in (
            ("twin float32", "exact", "float32", 1),
            ("twin float64", "exact", "float64", 1),
            ("aer 1024 shots, SPSA", "spsa", None, 5),
        ):
            repeats = max(3, options.repeats // share)
            step, first = _prepare(target, circuit, method, precision, options.batch)  # type: ignore[arg-type]
            seconds = [_seconds(step) for _ in range(repeats)]
            print(f"  {label:22} {statistics.median(seconds):9.5f} ({min(seconds):.5f}), first {first:.3f}")


def _prepare(
    target: Target, circuit: CompiledCircuit, method: GradientMethod, precision: str | None, batch: int
) -> tuple[Callable[[], None], float]:
    """A step to time, and what the first one took (programs and noise models are built then)."""
    dtype = torch.float32 if precision == "float32" else torch.float64
    executor = make_executor("twin", target, precision=precision) if precision else make_executor("aer", target)
    layer = ExpectationLayer(executor, circuit, single_z(circuit.num_qubits), gradient=method)
    random = torch.Generator().manual_seed(0)
    inputs = torch.randn(batch, len(circuit.inputs), generator=random, dtype=dtype, requires_grad=method == "exact")
    weights = torch.randn(len(circuit.weights), generator=random, dtype=dtype, requires_grad=True)

    def step() -> None:
        inputs.grad = weights.grad = None
        layer(inputs, weights).square().mean().backward()

    return step, _seconds(step)


def _seconds(step: Callable[[], None]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
