"""What a device's calibration says of the qubits that a circuit uses, and what the circuit is on them."""

from __future__ import annotations

import math
from typing import Any

from backends.runtime.cost import circuit_length, job_seconds
from backends.runtime.rank import estimated_fidelity
from backends.runtime.types import RuntimeOptions
from backends.target import Target
from circuits.errors import QrunError
from circuits.types import CompiledCircuit
from runner.config import RunConfig, build_config
from runner.estimate import estimate

_ONE_QUBIT = ("sx", "x", "u2", "u3", "rx", "r")
SHOTS = 1024
"""Of each circuit, where QPU seconds are estimated for a run whose values are exact."""


def describe_device(target: Target, circuit: CompiledCircuit) -> dict[str, Any]:
    """Calibration date, native gates, and the figures of the qubits and pairs in use; None for what is not known.

    T1 and T2 in seconds; `readout` is the mean of both errors; `one_qubit` the error of the one-qubit gate that takes
    time; `pairs` has one entry for each two-qubit gate and ordered pair that the circuit uses.
    """
    device = None if target.backend is None else target.backend.target
    qubits, pairs = [], []
    if device is not None:
        known = device.qubit_properties
        for qubit in circuit.physical_qubits:
            times = None if not known else known[qubit]
            qubits.append(
                {
                    "qubit": qubit,
                    "t1": _finite(getattr(times, "t1", None)),
                    "t2": _finite(getattr(times, "t2", None)),
                    "readout": sum(target.readout_errors(qubit)) / 2,
                    "one_qubit": next((e for g in _ONE_QUBIT if (e := _error(device, g, (qubit,))) is not None), None),
                }
            )
        used: dict[tuple[str, tuple[int, ...]], int] = {}
        for instruction in circuit.circuit.data:
            if len(instruction.qubits) == 2 and instruction.operation.name not in ("barrier", "delay"):
                wires = (circuit.circuit.find_bit(q).index for q in instruction.qubits)
                where = tuple(circuit.physical_qubits[w] for w in wires)
                key = (instruction.operation.name, where)
                used[key] = used.get(key, 0) + 1
        for (gate, where), times_used in sorted(used.items(), key=lambda item: item[0][1]):
            pairs.append(
                {"gate": gate, "qubits": list(where), "error": _error(device, gate, where), "times": times_used}
            )
    return {
        "name": target.name,
        "calibration_date": target.calibration_date,
        "native_gates": list(target.native_gates),
        "two_qubit_gate": pairs[0]["gate"] if pairs else None,
        "qubits": qubits,
        "pairs": pairs,
    }


def _error(device: Any, gate: str, where: tuple[int, ...]) -> float | None:
    entries = device[gate] if gate in device.operation_names else None
    if not entries or None in entries or where not in entries:
        return None
    return _finite(getattr(entries[where], "error", None))


def _finite(value: Any) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def describe_circuit(target: Target, circuit: CompiledCircuit) -> dict[str, Any]:
    """Qubits, depth, gates, and on a device the seconds from reset to readout and the estimated fidelity."""
    real = target.backend is not None
    return {
        "physical_qubits": list(circuit.physical_qubits),
        "depth": circuit.depth,
        "gates": sum(circuit.gate_counts.values()),
        "two_qubit_gates": circuit.two_qubit_gates,
        "seconds": circuit_length(circuit, target) if real else None,
        "fidelity": estimated_fidelity(circuit, target) if real else None,
    }


def qpu_seconds(target: Target, circuit: CompiledCircuit, circuits: int, shots: int | None) -> float | None:
    """What one job of so many circuits would take on the device, as estimated; None for ideal."""
    if target.backend is None:
        return None
    return job_seconds(circuit, target, RuntimeOptions(shots=shots or SHOTS), circuits)


def on_device(config: RunConfig, target: Target, circuit: CompiledCircuit) -> dict[str, Any] | None:
    """Jobs, circuits and QPU seconds of the whole run through IBM's Runtime; None for ideal, and where it would not run
    there."""
    if target.backend is None:
        return None
    values = config.model_dump(mode="json")
    model = {k: v for k, v in values["model"].items() if k != "gradient"}
    there = {"engine": "runtime", "shots": config.shots or SHOTS, "runtime": {}, "idle_noise": False, "device": "auto"}
    kept = {k: v for k, v in values.items() if k not in ("noise_scale", "layout")}
    try:
        total = estimate(build_config({**kept, **there, "model": model}), circuit, target).total
    except QrunError:
        return None
    return {"jobs": total.jobs, "circuits": total.circuits, "qpu_seconds": round(total.qpu_seconds, 3)}
