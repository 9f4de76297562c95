"""Copies of a qiskit Target: cut down to some qubits, or without some gates."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence

from qiskit.transpiler import InstructionProperties, Target

Keep = Callable[[str, tuple[int, ...], InstructionProperties | None], bool]


def copy_target(target: Target, *, qubits: Sequence[int] | None = None, keep: Keep | None = None) -> Target:
    """Copy a Target with the same calibrations, instruction by instruction.

    Args:
        target: What to copy.
        qubits: Physical qubits to keep, in their new order: qubit `qubits[w]` becomes w. All of them by default.
        keep: Called with (instruction name, physical qubits, properties); False leaves that entry out.

    Returns:
        A new Target. Instructions come in the order of their names, since the order in the original may depend on
        the process's hash seed.
    """
    order = range(target.num_qubits) if qubits is None else qubits
    index = {physical: wire for wire, physical in enumerate(order)}
    properties = target.qubit_properties
    copy = Target(
        num_qubits=len(index),
        dt=target.dt,
        granularity=target.granularity,
        min_length=target.min_length,
        pulse_alignment=target.pulse_alignment,
        acquire_alignment=target.acquire_alignment,
        qubit_properties=[properties[physical] for physical in order] if properties else None,
    )
    for name in sorted(target.operation_names):
        operation, entries = target.operation_from_name(name), target[name]
        if inspect.isclass(operation):  # control flow has no qubits of its own
            copy.add_instruction(operation, name=name)
            continue
        if entries is None or None in entries:  # a global instruction: any qubits, no calibration
            copy.add_instruction(operation, None, name=name)
            continue
        kept = {
            tuple(index[q] for q in where): props
            for where, props in sorted(entries.items())
            if all(q in index for q in where) and (keep is None or keep(name, where, props))
        }
        if kept:
            # qiskit does not give the bounds back; the Runtime sets these for rzz, and for nothing else.
            bounds = [(0, math.pi / 2)] if target.gate_has_angle_bounds(name) else None
            copy.add_instruction(operation, kept, name=name, angle_bounds=bounds)
    return copy
