"""The inverse of a native gate, made of native gates: as noisy as the gate, and no compiler asked."""

from __future__ import annotations

import math
from collections.abc import Sequence

from qiskit import QuantumCircuit
from qiskit.circuit import Barrier, CircuitInstruction, Delay, Gate
from qiskit.circuit.library import RZGate, SXGate, XGate

from circuits.errors import QrunError

SELF_INVERSE = frozenset({"x", "y", "z", "h", "id", "cx", "cy", "cz", "ch", "ecr", "swap"})


def append_inverse(circuit: QuantumCircuit, instruction: CircuitInstruction, wires: Sequence[int]) -> None:
    """Append the inverse of an instruction, made of gates of its own kind and of RZ, up to a global phase.

    Raises:
        QrunError: There is none.
    """
    operation, name = instruction.operation, instruction.operation.name
    if name in SELF_INVERSE or isinstance(operation, Barrier | Delay):
        circuit.append(operation, wires)
    elif name in ("rz", "p", "u1", "rx", "ry", "rxx", "ryy"):
        circuit.append(type(operation)(-operation.params[0]), wires)
    elif name == "rzz":
        # A device takes RZZ of positive angles only: X on one side turns the sign.
        circuit.append(XGate(), wires[:1])
        circuit.append(operation, wires)
        circuit.append(XGate(), wires[:1])
    elif name == "sx":  # SX^-1 = RZ(pi) SX RZ(pi) up to a phase: as noisy as SX, since RZ is virtual
        circuit.append(RZGate(math.pi), wires)
        circuit.append(SXGate(), wires)
        circuit.append(RZGate(math.pi), wires)
    elif instruction.is_standard_gate() and isinstance(operation, Gate):
        circuit.append(operation.inverse(), wires)
    else:
        raise QrunError(
            f"the gate {name!r} has no inverse that the device is known to have: the circuit cannot be folded.",
            "Compile to rz, sx, x and cx, cz or ecr, or take a technique that folds nothing (readout, ddd, twirl).",
        )
