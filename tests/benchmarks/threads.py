"""One thread beside two, on a free core and beside a busy one: `python -m tests.benchmarks.threads`.

The engine may use two cores. On the second of them either nothing runs, or a process that spins. Two threads should
help in the first case and cost nothing in the second; the medians say whether they do.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from backends.twin.executor import TwinExecutor
from tests.benchmarks.machine import describe_machine
from tests.benchmarks.peers.job import Job

_SPIN = "import os\nos.sched_setaffinity(0, {%d})\nwhile True: pass"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="fake_kyiv")
    parser.add_argument("--qubits", type=int, nargs="+", default=[4, 6, 8, 10])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=40, help="steps of each kind, taken in turn")
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        sys.exit("this machine gives one core: there is nothing to compare")
    os.sched_setaffinity(0, set(cores[:2]))
    torch.set_num_threads(1)
    print(
        f"{describe_machine()}\n{options.device}, batch {options.batch}, float32; ms a step, medians of {options.steps}"
    )
    print(f"{'qubits':>6}{'second core':>13}{'1 thread':>10}{'2 threads':>11}{'2 over 1':>10}")
    for qubits in options.qubits:
        job = Job.build(options.device, qubits, options.batch)
        for busy in (False, True):
            with spinning(cores[1]) if busy else _nothing():
                one, two = compare(job, options.steps if qubits < 10 else max(3, options.steps // 10))
            said = "busy" if busy else "free"
            print(f"{qubits:6}{said:>13}{1e3 * one:10.2f}{1e3 * two:11.2f}{two / one:10.2f}", flush=True)


def compare(job: Job, steps: int) -> tuple[float, float]:
    """Median seconds of a step with one and with two threads, taken in turn, so that load falls on both alike."""
    executors = [TwinExecutor(job.target, dtype=torch.float32, threads=threads) for threads in (1, 2)]
    inputs = torch.tensor(job.inputs, dtype=torch.float32, requires_grad=True)
    weights = torch.tensor(job.weights, dtype=torch.float32, requires_grad=True)
    seconds: list[list[float]] = [[], []]
    for step in range(steps + 2):
        for executor, into in zip(executors, seconds, strict=True):
            inputs.grad = weights.grad = None
            start = time.perf_counter()
            executor.expectations(job.circuit, job.observables, inputs, weights).square().mean().backward()
            if step >= 2:  # the first ones read the circuit and touch the memory
                into.append(time.perf_counter() - start)
    return statistics.median(seconds[0]), statistics.median(seconds[1])


@contextmanager
def spinning(core: int) -> Iterator[None]:
    """A process that keeps a core busy."""
    process = subprocess.Popen([sys.executable, "-c", _SPIN % core])
    try:
        time.sleep(0.5)
        yield
    finally:
        process.kill()
        process.wait()


@contextmanager
def _nothing() -> Iterator[None]:
    yield


if __name__ == "__main__":
    main()
