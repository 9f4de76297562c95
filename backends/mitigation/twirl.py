"""Pauli twirling: random Paulis around two-qubit gates, so that what is coherent in their errors averages out.

Before a gate U stand random Paulis P x Q, after it the R x S = U (P x Q) U^-1 that undo them. The circuit does the
same, and the average over all sixteen pairs makes of the gate's noise a Pauli channel (Wallman and Emerson, Phys. Rev.
A 94, 052325 (2016)). Mitiq's tables serve CX and CZ. Mitiq leaves ECR circuits as they are, without a word, and draws
from Python's global generator; so the table of ECR, and of any other Clifford gate, comes from conjugation here, and
the instances are drawn by the seed.

Paulis that meet with nothing between them are multiplied, so that between two folded gates stands one at most. X costs
a pulse, with that pulse's errors; Z is virtual.
"""

from __future__ import annotations

import warnings

import cirq
import numpy as np
from mitiq.pt.pt import CNOT_twirling_gates, CZ_twirling_gates
from qiskit import QuantumCircuit
from qiskit.circuit import Barrier, CircuitInstruction, Gate
from qiskit.quantum_info import Operator

from backends.mitigation.linear import Linear
from backends.mitigation.paulis import NativePaulis, Table, conjugation, times
from backends.mitigation.tokens import with_circuit
from backends.mitigation.types import Asked, Context, Part
from circuits.errors import QrunWarning, UsageError
from circuits.types import CompiledCircuit

_LETTER = {cirq.I: 0, cirq.X: 1, cirq.Y: 2, cirq.Z: 3}


def _from_mitiq(gates: list[tuple[cirq.Gate, ...]]) -> Table:
    return {(_LETTER[p], _LETTER[q]): (_LETTER[r], _LETTER[s]) for p, q, r, s in gates}


MITIQ_TABLES: dict[str, Table] = {"cx": _from_mitiq(CNOT_twirling_gates), "cz": _from_mitiq(CZ_twirling_gates)}


class Twirl:
    """The average over `twirl_circuits` random instances; works on any target, the ideal one too.

    Raises:
        UsageError: A number of instances below 1, or a device whose gates make no Paulis.
    """

    name = "twirl"
    by_value = False

    def __init__(self, context: Context) -> None:
        number = context.options.twirl_circuits
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            raise UsageError(
                f"twirl_circuits must be 1 or more, not {number!r}.", "Give a whole number, for example 8."
            )
        self._number, self._seed = number, context.options.seed
        self._paulis = NativePaulis(context.target)

    def circuits(self, circuit: CompiledCircuit, batch: int) -> int:
        """As `types.Technique`."""
        return self._number * batch

    def expand(self, asked: Asked) -> Linear:
        """Instances of the circuit, each as likely.

        Warns (QrunWarning) of two-qubit gates that are no Clifford gates: they stay without Paulis.

        Raises:
            UsageError: There is no two-qubit gate that could be twirled.
        """
        found = tables(asked.circuit.circuit)
        random = np.random.default_rng(self._seed)
        circuits = [twirled(asked.circuit.circuit, found, self._paulis, random) for _ in range(self._number)]
        parts = tuple(Part(with_circuit(asked.circuit, circuit), asked.observables) for circuit in circuits)
        return Linear(parts, (1.0 / self._number,) * self._number)


def tables(circuit: QuantumCircuit) -> dict[int, Table]:
    """The table of every two-qubit gate that can be twirled, by its place in `circuit.data`.

    Raises:
        UsageError: There is none.
    """
    by_name: dict[str, Table | None] = dict(MITIQ_TABLES)
    found: dict[int, Table] = {}
    left: dict[str, int] = {}
    for place, instruction in enumerate(circuit.data):
        name = instruction.operation.name
        if not isinstance(instruction.operation, Gate) or len(instruction.qubits) != 2:
            continue
        if not instruction.is_standard_gate() or instruction.operation.params:
            table = None
        else:
            if name not in by_name:
                by_name[name] = conjugation(Operator(instruction.operation).data)
            table = by_name[name]
        if table is None:
            left[name] = left.get(name, 0) + 1
        else:
            found[place] = table
    if not found:
        there = f"its two-qubit gates are {', '.join(left)}" if left else "it has no two-qubit gates"
        raise UsageError(
            f"twirling is for two-qubit Clifford gates (cx, cz, ecr), and the circuit has none: {there}.",
            "Leave twirl out of the stack.",
        )
    if left:
        gates = ", ".join(f"{number} {name}" for name, number in left.items())
        warnings.warn(f"twirl leaves {gates} as they are: they are no Clifford gates.", QrunWarning, stacklevel=3)
    return found


def twirled(
    circuit: QuantumCircuit, found: dict[int, Table], paulis: NativePaulis, random: np.random.Generator
) -> QuantumCircuit:
    """One instance: the same unitary up to a global phase, with random Paulis around the gates at `found`."""
    drawn = dict(zip(found, random.integers(4, size=(len(found), 2)).tolist(), strict=True))
    result = QuantumCircuit(circuit.num_qubits, global_phase=circuit.global_phase)
    waiting = [0] * circuit.num_qubits

    def write(wire: int) -> None:
        paulis.append(result, waiting[wire], wire)
        waiting[wire] = 0

    for place, instruction in enumerate(circuit.data):
        if isinstance(instruction.operation, Barrier):
            continue  # nothing is compiled again, so that a barrier would only keep Paulis from meeting
        wires = _wires(circuit, instruction)
        table = found.get(place)
        if table is not None:
            before = drawn[place]
            for wire, pauli in zip(wires, before, strict=True):
                waiting[wire] = times(waiting[wire], pauli)
        for wire in wires:
            write(wire)
        result.append(instruction.operation, wires)
        if table is not None:
            for wire, pauli in zip(wires, table[before[0], before[1]], strict=True):
                waiting[wire] = pauli
    for wire in range(circuit.num_qubits):
        write(wire)
    return result


def _wires(circuit: QuantumCircuit, instruction: CircuitInstruction) -> list[int]:
    return [circuit.find_bit(qubit).index for qubit in instruction.qubits]
