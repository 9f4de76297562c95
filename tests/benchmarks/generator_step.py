"""Seconds of one generator step beside the peers: `python -m tests.benchmarks.generator_step`.

The job is the main experiment's: RY(z) + EfficientSU2 (reps 4, reverse_linear) on a noisy device, a batch of inputs, Z
on every qubit, the mean of the squares as a loss, its gradient by weights and inputs. Every peer runs in a process of
its own, on as many cores as it has threads, and is given the same compiled circuit with the same channels; how far its
values (and gradients, where it has exact ones) are from this engine's in float64 stands beside its time. Where a step
takes minutes, a stated part is timed and scaled. Peers that are not installed (extra `bench`) are left out with a line.

"full width" counts 3 walks of 16 multiplications and additions on every one of m 4^k elements a two-qubit gate; "light
cones" is the count of the engine's own plan.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np

from tests.benchmarks.machine import Gemm, cold_start, describe_machine, gemm
from tests.benchmarks.peers.child import environment

Measured = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """A line of the table: which peer, with which options, for which numbers of qubits."""

    label: str
    peer: str
    options: dict[str, Any]
    most_qubits: int
    threads: int = 1


REFERENCE = Row("this engine, float64", "twin", {"precision": "float64"}, 10)
ROWS = (
    Row("this engine, float32", "twin", {"precision": "float32"}, 12),
    REFERENCE,
    Row("this engine, float32, 2 threads", "twin", {"precision": "float32", "threads": 2}, 12, threads=2),
    Row("TensorCircuit-NG, complex64", "tensorcircuit", {}, 8),
    Row("PennyLane default.mixed", "pennylane", {}, 8),
    Row("Aer exact, parameter_binds", "aer", {}, 8),
    Row("EstimatorQNN, cut-down device", "estimator_qnn", {}, 8),
    Row("EstimatorQNN, whole device", "estimator_qnn", {"whole_device": True}, 4),
)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="fake_kyiv")
    parser.add_argument("--qubits", type=int, nargs="+", default=[4, 6, 8, 10, 12])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=8.0, help="time spent on repeating a peer's step")
    parser.add_argument("--timeout", type=float, default=900.0, help="seconds after which a peer is given up")
    parser.add_argument("--only", nargs="+", default=[], metavar="PEER", help="peers besides this engine")
    options = parser.parse_args()
    print(describe_machine())
    print(
        f"python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in ("qiskit", "qiskit-ibm-runtime", "torch", "numpy"))
    )
    rate = gemm()
    print(f"GEMM on one thread: {rate.float32 / 1e9:.0f} GFLOP/s in float32, {rate.float64 / 1e9:.0f} in float64")
    print(f"{options.device}, batch {options.batch}, one thread if not said otherwise, medians")
    used: dict[str, str] = {}
    for qubits in options.qubits:
        _table(qubits, options, rate, used)
    print("\nof the peers: " + ", ".join(f"{name} {number}" for name, number in sorted(used.items())))
    print("\nCold start in a fresh process, imports apart: target, compiling, first step in float32")
    for name in dict.fromkeys((options.device, "fake_torino", "fake_fez")):
        parts = cold_start(name)
        print(f"  {name:12}" + "".join(f"  {what} {seconds:.2f} s" for what, seconds in parts.items()))


def _table(qubits: int, options: argparse.Namespace, rate: Gemm, used: dict[str, str]) -> None:
    rows = [
        r for r in ROWS if qubits <= r.most_qubits and (r.peer == "twin" or not options.only or r.peer in options.only)
    ]
    measured = dict(_measure(rows, qubits, options))
    first = measured.get(ROWS[0].label)
    if first is None or "seconds" not in first:
        print(f"\n{qubits} qubits: this engine did not run")
        return
    exact = measured.get(REFERENCE.label, first)
    circuit = first["circuit"]
    print(
        f"\n{qubits} qubits: {circuit['wires']} device qubits, {circuit['two_qubit_gates']} two-qubit gates\n"
        f"  {'':33}{'ms a step':>12}{'fastest':>12}{'runs':>6}{'ratio':>9}{'first, s':>10}{'MiB':>7}{'over start':>11}"
        f"{'  off by: values':16}{'gradient':>10}"
    )
    for row in rows:
        found = measured[row.label]
        if "seconds" not in found:
            print(f"  {row.label:33} {found['why']}")
            continue
        used.update({name: number for name, number in found["packages"].items() if number})
        values, gradient = ("reference", "-") if found is exact else _deviations(found, exact)
        if found["sampled"]:
            values = f"{values} ({found['sampled']} shots)"
        print(
            f"  {row.label:33}{1e3 * found['seconds']:12.2f}{1e3 * found['fastest']:12.2f}{found['runs']:6}"
            f"{found['seconds'] / first['seconds']:9.1f}{found['first']:10.2f}"
            f"{found['peak']:7.0f}{found['over_start']:11.0f}"
            f"  {values:14}{gradient:>10}" + (f"  {found['part']}, scaled" if found["part"] else "")
        )
    plain = 3 * 16 * 2 * 4.0 ** circuit["wires"] * circuit["observables"] * circuit["two_qubit_gates"]
    said = f"full width {plain / 1e9:.3g} GFLOP = {1e3 * plain / rate.float32:.3g} ms"
    if first["flops"]:
        own = first["flops"]
        said += (
            f"; with light cones {own / 1e9:.3g} GFLOP = {1e3 * own / rate.float32:.3g} ms, "
            f"and this engine takes {first['seconds'] * rate.float32 / own:.1f} times that"
        )
    print(f"  floor at the GEMM rate in float32: {said}")


def _measure(rows: list[Row], qubits: int, options: argparse.Namespace) -> Iterator[tuple[str, Measured]]:
    for row in rows:
        order = {
            "peer": row.peer,
            "options": row.options,
            "device": options.device,
            "qubits": qubits,
            "batch": options.batch,
            "seconds": options.seconds,
            "threads": row.threads,
        }
        yield row.label, run_child(order, options.timeout)


def run_child(order: Measured, timeout: float) -> Measured:
    """What a peer measured in a process of its own, or {"why": ...} if it could not."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "tests.benchmarks.peers.child"],
            input=json.dumps(order),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env=environment(),
        )
    except subprocess.TimeoutExpired:
        return {"why": f"gave up after {timeout:.0f} s"}
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        return {"why": f"failed: {lines[-1][:100]}"}
    found: Measured = json.loads(done.stdout.splitlines()[-1])
    if "missing" in found:
        return {"why": f"left out: {found['missing']} is not installed (pip install 'qrun[bench]')"}
    return found


def _deviations(found: Measured, exact: Measured) -> tuple[str, str]:
    """Largest deviations of values and gradients from the reference's; "-" where a peer gave no gradient."""
    values = float(np.abs(np.subtract(found["values"], exact["values"])).max())
    gradients = [
        float(np.abs(np.subtract(found[name], exact[name])).max())
        for name in ("by_weights", "by_inputs")
        if found[name] is not None and exact[name] is not None
    ]
    return f"{values:.1e}", f"{max(gradients):.1e}" if gradients else "-"


if __name__ == "__main__":
    main()
