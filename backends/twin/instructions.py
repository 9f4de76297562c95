"""Which instructions the twin runs, and what to do about the others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from qiskit.circuit import ControlFlowOp, Delay, Gate, Instruction
from qiskit.exceptions import QiskitError
from qiskit.quantum_info import Operator

from circuits.errors import QrunError

_INSTEAD = {
    "measure": "Leave measurements out (circuit.remove_final_measurements()): at the end the engine measures itself.",
    "reset": "Every qubit starts in |0>, so that a reset at the start can go; with one further on, run on Aer.",
}


def check_instruction(operation: Instruction, wires: Sequence[int]) -> None:
    """Refuse what the engine cannot run: it takes gates on one or two qubits, barriers, and delays of a known length.

    Raises:
        QrunError: Says what to do instead.
    """
    name = operation.name
    if isinstance(operation, Delay):
        # A duration may be an expression, of parameters or of stretches.
        if not isinstance(operation.duration, int | float):
            raise QrunError(
                f"a delay on wire {wires[0]} has the length {operation.duration}, which is no number.",
                "Give delays as numbers, in dt or seconds (circuit.assign_parameters binds a parameter).",
            )
    elif isinstance(operation, ControlFlowOp):
        raise QrunError(
            f"this engine runs gates on one or two qubits, and no control flow ({name!r}).",
            "Unroll loops and blocks before compiling; what depends on a measurement runs on Aer or on a device.",
        )
    elif name != "barrier" and (not isinstance(operation, Gate) or len(wires) > 2):
        raise QrunError(
            f"this engine runs gates on one or two qubits, not {name!r} on {len(wires)}.",
            _INSTEAD.get(name, "Compile the circuit for a device first (circuits.compile.compile_ansatz)."),
        )


def unitary_of(gate: Gate) -> npt.NDArray[np.complex128]:
    """(2^q, 2^q) what a gate without free parameters does, from its matrix or its definition.

    Raises:
        QrunError: It has neither.
    """
    try:
        return np.asarray(Operator(gate).data, dtype=np.complex128)
    except (QiskitError, TypeError, ValueError):
        raise QrunError(
            f"the gate {gate.name!r} has neither a matrix nor a definition without free parameters.",
            "Give it one (gate.definition = circuit), or bind its parameters.",
        ) from None
