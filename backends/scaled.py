"""A device with its noise scaled: every error so many times as large, every relaxation time so many times shorter.

    gate errors        e -> f e, at most 1 - 1/2^k, where a gate on k qubits leaves nothing of its state
    readout errors     p -> f p, at most 1/2, where it says nothing
    relaxation times   T1, T2 -> T1 / f, T2 / f: waiting t decays as waiting f t did

An error of 1.0 is how a calibration marks what is out of order: it stays. At f = 0 nothing is noisy, and the circuit is
still the one that was laid out for the device: qubits are chosen by the calibration as it is (`Target.laid_out`), so
that along an axis of noise nothing changes but the noise.
"""

from __future__ import annotations

import copy
import inspect
import math
from dataclasses import replace
from typing import Any

from qiskit.transpiler import InstructionProperties, QubitProperties
from qiskit.transpiler import Target as QiskitTarget

from backends.target import DeviceBackend, Target
from circuits.errors import UsageError

MOST = 10.0
"""The largest factor."""
_READOUT = ("error", "prob_meas1_prep0", "prob_meas0_prep1")


def scaled(target: Target, factor: float) -> Target:
    """The target with its noise scaled; itself at 1.

    Args:
        target: A device.
        factor: 0 takes all noise away, 1 leaves it.

    Raises:
        UsageError: The ideal target, or no factor from 0 to `MOST`.
    """
    if isinstance(factor, bool) or not math.isfinite(factor) or not 0.0 <= factor <= MOST:
        raise UsageError(f"noise cannot be scaled by {factor!r}.", f"Take a factor from 0 to {MOST:g}.")
    if target.backend is None:
        raise UsageError("the ideal target has no noise to scale.", "Name a device (`qrun backends list`).")
    if factor == 1.0:
        return target
    backend = ScaledBackend(target.backend, factor)
    return replace(target, backend=backend, laid_out=target.laid_out or target.backend)


class ScaledBackend(DeviceBackend):
    """A device with its noise scaled.

    Attributes:
        snapshot: Of the device as it is, where that was read from one.
    """

    def __init__(self, device: Any, factor: float) -> None:
        super().__init__(f"{device.name}_x{factor:g}", _scaled(device.target, factor))
        self.snapshot = getattr(device, "snapshot", None)


def _scaled(target: QiskitTarget, factor: float) -> QiskitTarget:
    found = QiskitTarget(
        num_qubits=target.num_qubits,
        dt=target.dt,
        granularity=target.granularity,
        min_length=target.min_length,
        pulse_alignment=target.pulse_alignment,
        acquire_alignment=target.acquire_alignment,
        qubit_properties=[_times(each, factor) for each in target.qubit_properties]
        if target.qubit_properties
        else None,
    )
    for name in sorted(target.operation_names):
        operation, entries = target.operation_from_name(name), target[name]
        if inspect.isclass(operation):
            found.add_instruction(operation, name=name)
            continue
        if entries is None or None in entries:
            found.add_instruction(operation, None, name=name)
            continue
        figures = _READOUT if name == "measure" else ("error",)
        made = {where: _errors(entries[where], figures, factor, len(where)) for where in sorted(entries)}
        bounds = [(0, math.pi / 2)] if target.gate_has_angle_bounds(name) else None  # as `circuits.targets` has it
        found.add_instruction(operation, made, name=name, angle_bounds=bounds)
    return found


def _errors(
    properties: InstructionProperties | None, figures: tuple[str, ...], factor: float, qubits: int
) -> InstructionProperties | None:
    if properties is None:
        return None
    found = copy.copy(properties)
    for name in figures:
        value = getattr(properties, name, None)
        if value is not None:
            setattr(found, name, scaled_error(float(value), factor, qubits))
    return found


def scaled_error(error: float, factor: float, qubits: int) -> float:
    """An error rate, so many times as large; see the module for where it ends."""
    if error >= 1.0 or error < 0.0:  # out of order; or no error rate, which is told where it is used
        return error
    most = 1.0 - 0.5**qubits
    return max(min(factor * error, most), min(error, factor * error))


def _times(properties: Any, factor: float) -> Any:
    if properties is None:
        return None
    found: Any = QubitProperties(frequency=getattr(properties, "frequency", None))
    for name in ("t1", "t2"):
        value = getattr(properties, name, None)
        setattr(found, name, None if value is None else math.inf if factor == 0.0 else value / factor)
    return found
