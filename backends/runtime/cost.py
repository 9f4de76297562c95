"""What a job costs in QPU seconds, from the device's own figures, before it is sent.

IBM charges the time that the device is locked for a job, and documents how to estimate it ("Workload usage", section
"Estimate usage before submitting a job", quantum.cloud.ibm.com/docs/guides/estimate-job-run-time):

    overhead of about 2 s a sub-job  +  (rep_delay + circuit length) x executions

`rep_delay` is the device's default (250 us on most), the circuit length that of all instructions with initialisation
(reset) and measurement, and executions are parameter sets times shots. The page's short form, 2 + 0.00035 s x
executions, is a circuit of 100 us at 250 us.

What stands here beyond that page:
- Circuit length: the longest path over the qubits in use, every gate as early as possible, with the lengths of the
  device's calibration (rz and other virtual gates take none there), then all qubits measured together.
- Twirling rounds shots up to whole randomisations, as qiskit-ibm-runtime 0.51 does
  (executor/calculate_twirling_shots.py). The gates that it adds are single-qubit ones and are merged with those beside
  them: they are left out.
- Resilience level 1 and 2 measure one calibration circuit more a job (TREX), with as many executions as a parameter
  set has; level 2 runs every set at the noise factors 1, 3 and 5, with its two-qubit gates three and five times as
  long (executor_estimator/{prepare,trex}.py, options_models/zne.py).
- Dynamical decoupling fills waiting time: it costs nothing.

Assumed, since the service does not tell: that a job is one sub-job. IBM splits jobs that its control electronics
cannot hold, and then charges the overhead once more for each part. A session costs the time that it is active, which
no figure of a device tells.
"""

from __future__ import annotations

import math
from typing import Any

from qiskit.circuit import Delay

from backends.runtime.types import RuntimeOptions
from backends.target import Target
from circuits.errors import QrunError, UsageError
from circuits.types import CompiledCircuit

OVERHEAD = 2.0
"""Seconds of every job, whatever it holds."""

REPETITION_DELAY = 250e-6
"""Seconds between two shots on a device that does not say."""

NOISE_FACTORS = (1, 3, 5)
"""Of resilience level 2: how many times as long every two-qubit gate is."""

_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9, "ps": 1e-12}


def circuit_seconds(compiled: CompiledCircuit, target: Target, options: RuntimeOptions) -> float:
    """Seconds of one shot: repetition delay, initialisation, gates, measurement.

    Args:
        compiled: Compiled for this target.
        target: A device; its figures are those of its calibration.
        options: At resilience level 2 this is the mean over the noise factors.

    Raises:
        QrunError: The ideal target, or a gate that the device does not have there.
    """
    factors = NOISE_FACTORS if options.resilience_level == 2 else (1,)
    lengths = [circuit_length(compiled, target, stretch=factor) for factor in factors]
    return sum(_shot(target, length) for length in lengths) / len(lengths)


def executions(options: RuntimeOptions) -> int:
    """How often the circuit of one parameter set runs: shots, in whole randomisations, at every noise factor."""
    if options.shots < 1:
        raise UsageError(f"{options.shots} shots cannot be run.", "Ask for 1 or more.")
    shots = options.shots
    if options.twirling != "off" or (options.resilience_level or 0) >= 1:
        a_randomisation = max(64, math.ceil(shots / 32))
        shots = math.ceil(shots / a_randomisation) * a_randomisation
    return shots * (len(NOISE_FACTORS) if options.resilience_level == 2 else 1)


def job_seconds(
    compiled: CompiledCircuit, target: Target, options: RuntimeOptions, circuits: int, *, bases: int = 1
) -> float:
    """QPU seconds of one job.

    Args:
        compiled: The circuit of its PUBs.
        target: The device.
        options: Shots, and what multiplies or lengthens circuits.
        circuits: Parameter sets in all PUBs. A job of none costs nothing: it is not sent.
        bases: Bases that the observables are measured in: groups of Pauli strings that commute qubit by qubit.

    Raises:
        UsageError: A number that cannot be.
        QrunError: As `circuit_seconds`.
    """
    if circuits < 0 or bases < 1:
        raise UsageError(f"a job of {circuits} circuits in {bases} bases cannot be.")
    if circuits == 0:
        return 0.0
    seconds = circuits * bases * executions(options) * circuit_seconds(compiled, target, options)
    if (options.resilience_level or 0) >= 1:
        calibrated = executions(options) // (len(NOISE_FACTORS) if options.resilience_level == 2 else 1)
        seconds += calibrated * _shot(target, _initialisation(compiled, target) + _readout(compiled, target))
    return OVERHEAD + seconds


def circuit_length(compiled: CompiledCircuit, target: Target, *, stretch: int = 1) -> float:
    """Seconds from the initialisation of a compiled circuit to the end of its measurement.

    Args:
        compiled: Compiled for this target.
        target: A device.
        stretch: How many times as long the two-qubit gates are, as folding makes them.

    Raises:
        QrunError: The ideal target, or a gate that the device does not have there.
    """
    end = [0.0] * compiled.circuit.num_qubits
    for instruction in compiled.circuit.data:
        wires = [compiled.circuit.find_bit(qubit).index for qubit in instruction.qubits]
        physical = tuple(compiled.physical_qubits[wire] for wire in wires)
        length = gate_seconds(instruction.operation, physical, target) * (stretch if len(wires) == 2 else 1)
        done = max((end[wire] for wire in wires), default=0.0) + length
        for wire in wires:
            end[wire] = done
    return _initialisation(compiled, target) + max(end, default=0.0) + _readout(compiled, target)


def gate_seconds(operation: Any, qubits: tuple[int, ...], target: Target) -> float:
    """Length of an operation on physical qubits; none for a barrier, and for a gate that has no length anywhere.

    Where the calibration leaves out a length on these qubits, it is the longest that the gate has elsewhere.

    Raises:
        QrunError: The ideal target, or a gate that the device does not have there.
    """
    device = _device(target)
    if operation.name == "barrier":
        return 0.0
    if isinstance(operation, Delay):
        unit = _SECONDS.get(operation.unit, device.dt if operation.unit == "dt" else None)
        if unit is None:
            raise QrunError(f"a delay in {operation.unit} has no length on {target.name}.", "Give it in seconds.")
        return float(operation.duration) * unit
    entries = device[operation.name] if operation.name in device.operation_names else {}
    if entries is None or None in entries:
        return 0.0
    if qubits not in entries:
        where = ", ".join(map(str, qubits))
        raise QrunError(
            f"{target.name} has no gate {operation.name} on qubits {where}.",
            "Compile the circuit for this device first (circuits.compile.compile_ansatz).",
        )
    known = getattr(entries[qubits], "duration", None)
    return float(known) if known is not None else _longest(entries)


def repetition_delay(target: Target) -> float | None:
    """The device's default repetition delay, seconds; None where it does not say."""
    figure = _configured(target, "default_rep_delay")
    return figure if isinstance(figure, float) and figure >= 0 else None


def _shot(target: Target, length: float) -> float:
    """Seconds from one shot to the next.

    A device without a variable repetition rate starts a shot every `rep_times[0]`; it counts where the circuit fits
    into it (some old calibrations give it in a wrong unit).
    """
    delay = repetition_delay(target)
    if delay is not None:
        return delay + length
    period = _configured(target, "rep_times")
    return period if isinstance(period, float) and period >= length else REPETITION_DELAY + length


def _initialisation(compiled: CompiledCircuit, target: Target) -> float:
    """A reset of every qubit in use, which the Runtime puts before every shot (its option init_qubits)."""
    return _slowest("reset", compiled, target)


def _readout(compiled: CompiledCircuit, target: Target) -> float:
    return _slowest("measure", compiled, target)


def _slowest(name: str, compiled: CompiledCircuit, target: Target) -> float:
    device = _device(target)
    entries = device[name] if name in device.operation_names else None
    if not entries or None in entries:
        return 0.0
    lengths = [getattr(entries.get((qubit,)), "duration", None) for qubit in compiled.physical_qubits]
    return max((_longest(entries) if length is None else float(length) for length in lengths), default=0.0)


def _longest(entries: Any) -> float:
    known = [getattr(properties, "duration", None) for properties in entries.values()]
    return max((float(length) for length in known if length is not None), default=0.0)


def _device(target: Target) -> Any:
    if target.backend is None:
        raise QrunError(f"the target {target.name} is no device: nothing takes time on it.", "Name a device.")
    return target.backend.target


def _configured(target: Target, name: str) -> float | None:
    """A figure of the device's configuration, in seconds: of a list the first."""
    snapshot = getattr(target.backend, "snapshot", None)
    if snapshot is not None:  # its JSON is in microseconds
        figure, unit = snapshot.configuration.get(name), 1e-6
    else:
        ask = getattr(target.backend, "configuration", None)
        figure, unit = getattr(ask() if callable(ask) else None, name, None), 1.0
    if isinstance(figure, list):
        figure = figure[0] if figure else None
    return None if figure is None else float(figure) * unit
