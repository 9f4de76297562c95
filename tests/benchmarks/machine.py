"""What the machine can do, measured beside what is run on it: its GEMM rate, and a cold start."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from tests.benchmarks.peers.child import environment

_COLD = """
import json, sys, time
import torch
from qiskit import generate_preset_pass_manager
from qiskit_ibm_runtime import fake_provider
from backends.catalog import get_target
from backends.observables import single_z
from backends.twin.executor import TwinExecutor
from circuits.compile import compile_ansatz
from circuits.qgan import generator
torch.set_num_threads(1)
marks = [time.perf_counter()]
target = get_target(sys.argv[1])
target.backend.target
marks.append(time.perf_counter())
circuit = compile_ansatz(generator(6), target.backend, seed=7)
marks.append(time.perf_counter())
executor = TwinExecutor(target, dtype=torch.float32)
inputs, weights = (torch.zeros(*shape, requires_grad=True) for shape in ((32, 6), (len(circuit.weights),)))
executor.expectations(circuit, single_z(6), inputs, weights).sum().backward()
marks.append(time.perf_counter())
print(json.dumps([b - a for a, b in zip(marks, marks[1:])]))
"""


@dataclass(frozen=True)
class Gemm:
    """Floating point operations a second of large matrix products on one thread."""

    float32: float
    float64: float


def gemm(size: int = 2048, repeats: int = 7) -> Gemm:
    """Median rates of (size, size) products, 2 size^3 operations each."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return Gemm(*(_rate(size, repeats, dtype) for dtype in (torch.float32, torch.float64)))
    finally:
        torch.set_num_threads(threads)


def _rate(size: int, repeats: int, dtype: torch.dtype) -> float:
    a, b = torch.randn(size, size, dtype=dtype), torch.randn(size, size, dtype=dtype)
    out = a @ b
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        torch.mm(a, b, out=out)
        seconds.append(time.perf_counter() - start)
    return 2.0 * size**3 / statistics.median(seconds)


def cold_start(device: str) -> dict[str, float]:
    """Seconds to the target, to the compiled circuit (6 qubits) and to the first step, in a fresh process."""
    done = subprocess.run(
        [sys.executable, "-c", _COLD, device], capture_output=True, text=True, check=True, env=environment()
    )
    return dict(zip(("target", "compiling", "first step"), json.loads(done.stdout.splitlines()[-1]), strict=True))


def describe_machine() -> str:
    """Processor, cores that may be used, load."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        name = models[0] if models else name
    load = ", ".join(f"{figure:.2f}" for figure in os.getloadavg())
    return f"{name}, {len(os.sched_getaffinity(0))} cores, load {load} before this"
