"""A compiled circuit with an angle of its own for every rotation, and near-Clifford circuits as rows of angles."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import cirq
import numpy as np
from mitiq.cdr import generate_training_circuits
from qiskit import QuantumCircuit
from qiskit.circuit import Gate, Parameter, ParameterExpression

from backends.mitigation.paulis import is_clifford
from backends.protocol import FloatArray
from backends.twin.expressions import evaluate
from backends.twin.instructions import unitary_of
from circuits.errors import QrunError, UsageError
from circuits.types import Ansatz, CompiledCircuit

_QUARTER = math.pi / 2
_ROTATIONS = frozenset({"rz", "rx", "ry", "p", "u1", "rzz", "rxx", "ryy", "rzx"})
"""Gates of one angle that are Clifford gates at the multiples of pi/2."""


@dataclass(frozen=True)
class Lifted:
    """A compiled circuit whose every rotation that is no Clifford gate by itself has an angle of its own.

    Attributes:
        source: What it was made from.
        circuit: On the same qubits with the same gates; no inputs, and a weight for each rotation.
        angles: What these weights are at the source's parameters: expressions, or numbers.
    """

    source: CompiledCircuit
    circuit: CompiledCircuit
    angles: tuple[Any, ...]

    def at(self, inputs: FloatArray, weights: FloatArray) -> FloatArray:
        """(rows, n_inputs), (n_weights,) or (rows, n_weights) -> (rows, angles), radians.

        Raises:
            UsageError: An angle has no finite value there.
        """
        names = (*self.source.inputs, *self.source.weights)
        rows = []
        for number, row in enumerate(inputs):
            own = weights if weights.ndim == 1 else weights[number]
            values = dict(zip(names, (*row.tolist(), *own.tolist()), strict=True))
            rows.append([evaluate(angle, values) for angle in self.angles])
        return np.array(rows, dtype=np.float64).reshape(len(inputs), len(self.angles))


def lift(compiled: CompiledCircuit) -> Lifted:
    """Give every rotation that is not Clifford as it stands an angle of its own.

    Raises:
        UsageError: A gate that is neither a rotation of one angle nor a Clifford gate.
    """
    source = compiled.circuit
    circuit = QuantumCircuit(source.num_qubits, global_phase=source.global_phase)
    angles: list[Any] = []
    own: list[Parameter] = []
    clifford: dict[str, bool] = {}
    for instruction in source.data:
        operation = instruction.operation
        wires = [source.find_bit(qubit).index for qubit in instruction.qubits]
        standard = instruction.is_standard_gate()
        if standard and operation.name in _ROTATIONS and not _is_clifford_angle(operation.params[0]):
            own.append(Parameter(f"angle{len(own)}"))
            angles.append(operation.params[0])
            operation = type(operation)(own[-1])
        elif isinstance(operation, Gate):
            known = clifford.get(operation.name) if standard and not operation.params else None
            if known is None:
                known = _is_clifford(operation)
            if standard and not operation.params:
                clifford[operation.name] = known
            if not known:
                raise UsageError(
                    "cdr needs a circuit of Clifford gates and rotations of one angle, and "
                    f"{operation.name!r} is neither.",
                    "Compile to rz, sx, x and cx, cz or ecr, or leave cdr out of the stack.",
                )
        circuit.append(operation, wires)
    ansatz = Ansatz(f"{compiled.ansatz.name}-angles", QuantumCircuit(compiled.num_qubits), (), tuple(own))
    lifted = replace(compiled, ansatz=ansatz, circuit=circuit, inputs=(), weights=tuple(own))
    return Lifted(compiled, lifted, tuple(angles))


def near_clifford(angles: FloatArray, number: int, fraction: float, random: np.random.RandomState) -> FloatArray:
    """Rotation angles of near-Clifford circuits, by Mitiq's `generate_training_circuits`.

    Mitiq asks of a gate only whether it is Clifford, and turns some of those that are not. So it is given the rotations
    alone, as RZ (whatever their axis: all are Clifford at multiples of pi/2), each on a qubit of its own, which says
    afterwards which is which.

    Args:
        angles: (rows, n) of circuits of interest, radians; training circuits are made of them in turn.
        number: Of training circuits.
        fraction: Share of the rotations that stay as they are.
        random: Draws which.

    Returns:
        (number, n), radians: multiples of pi/2, or as they were.
    """
    rows, width = angles.shape
    result = np.zeros((number, width))
    if not width:
        return result
    lines = cirq.LineQubit.range(width)
    for row in range(min(rows, number)):
        # Mitiq breaks ties between two Clifford angles with numpy's global generator: no angle is left at one.
        tied = np.abs((angles[row] / _QUARTER) % 1.0 - 0.5) < 1e-6
        moved = np.where(tied, angles[row] + 1e-5 * random.choice([-1.0, 1.0], width), angles[row])
        given = moved % (2.0 * math.pi)
        circuit = cirq.Circuit(cirq.rz(angle).on(line) for angle, line in zip(given, lines, strict=True))
        mine = range(row, number, rows)
        found = generate_training_circuits(circuit, len(mine), fraction, random_state=random)
        for place, near in zip(mine, found, strict=True):
            by_line = {operation.qubits[0]: operation.gate for operation in near.all_operations()}
            new = np.array([float(by_line[line].exponent) * math.pi for line in lines])
            # What Mitiq left alone is as it was to the last digit; the others are multiples of pi/2.
            turned = np.round(new / _QUARTER) * _QUARTER
            result[place] = np.where(np.abs(new - turned) < 1e-9, turned, angles[row])
    return result


def _is_clifford_angle(value: Any) -> bool:
    if isinstance(value, ParameterExpression) and value.parameters:
        return False
    turns = float(value) / _QUARTER
    return abs(turns - round(turns)) < 1e-9


def _is_clifford(gate: Gate) -> bool:
    """By what it does, since a gate of a user's own may have any name."""
    if gate.num_qubits > 2:
        return False
    try:
        return is_clifford(unitary_of(gate))
    except QrunError:
        return False
