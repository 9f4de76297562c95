"""One peer in a process of its own: `python -m tests.benchmarks.peers.child` reads what to do and prints JSON.

A process each, so that peak memory is that peer's, and so that no library's threads or settings reach another.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import statistics
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from typing import Any

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "QISKIT_PARALLEL_NUM_THREADS")


def environment() -> dict[str, str]:
    """The environment of a child whose libraries take one thread each."""
    return {**os.environ, **dict.fromkeys(_THREADS, "1"), "QISKIT_PARALLEL": "FALSE", "JAX_PLATFORMS": "cpu"}


def main() -> None:
    """Read peer, options, device, qubits, batch, seconds and threads from stdin, and print what was measured."""
    order: dict[str, Any] = json.load(sys.stdin)
    # As many cores as threads, whatever a library starts.
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, set(cores[-order["threads"] :]))
    try:
        module = importlib.import_module(f"tests.benchmarks.peers.{order['peer']}")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("tests."):
            raise
        print(json.dumps({"missing": error.name}))
        return
    import torch

    from tests.benchmarks.peers.job import Job

    # Of torch's own threads one in any case: this engine's threads are Python's.
    torch.set_num_threads(1)
    job = Job.build(order["device"], order["qubits"], order["batch"])
    idle = _peak()
    start = time.perf_counter()
    peer = module.prepare(job, **order["options"])
    peer.step()
    first = time.perf_counter() - start
    seconds = _time(peer.step, order["seconds"])
    peak = _peak()
    answer = peer.answer()
    measured = {
        "seconds": statistics.median(seconds) * peer.scale,
        "fastest": min(seconds) * peer.scale,
        "runs": len(seconds),
        "first": first,
        "part": peer.part,
        "sampled": peer.sampled,
        "peak": peak,
        "over_start": peak - idle,
        "packages": {name: _version(name) for name in peer.packages},
        "circuit": {
            "wires": job.circuit.circuit.num_qubits,
            "two_qubit_gates": job.circuit.two_qubit_gates,
            "observables": len(job.observables),
        },
        "flops": peer.plan_flops,
        "values": answer.values.tolist(),
        "by_weights": None if answer.by_weights is None else answer.by_weights.tolist(),
        "by_inputs": None if answer.by_inputs is None else answer.by_inputs.tolist(),
    }
    print(json.dumps(measured))


def _time(step: Any, budget: float) -> list[float]:
    """Seconds of each run: at least three, then until the budget is spent, two hundred at most."""
    seconds: list[float] = []
    while len(seconds) < 3 or (sum(seconds) < budget and len(seconds) < 200):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return seconds


def _peak() -> float:
    """Peak resident memory of this process so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
