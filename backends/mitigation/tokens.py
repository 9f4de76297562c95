"""A device's native circuit as Mitiq reads one, and back: every gate is a token that stands for an instruction.

Mitiq works on cirq circuits, and its way there from qiskit (QASM 2) keeps neither a device's gates nor free parameters.
What it does with a circuit, though (fold, cut into layers, fill, sample), it does to a word of gates: all that it needs
to know of one is its qubits and how to invert it. So each instruction becomes a `Token`, a cirq gate that knows its
place in the circuit and whether it is inverted. Mitiq rearranges tokens, and `from_tokens` puts the native gates in
their place: parameters stay free, the layout stays, nothing is compiled again, and what Mitiq folded stays folded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import cirq
from qiskit import QuantumCircuit
from qiskit.circuit import Barrier, Gate

from circuits.errors import QrunError
from circuits.inverse import append_inverse
from circuits.types import CompiledCircuit

VIRTUAL = frozenset({"rz", "z", "s", "sdg", "t", "tdg", "p", "u1", "barrier", "delay"})
"""What a device does in software or by waiting: it has no errors that folding could scale."""


class Token(cirq.Gate):
    """The instruction number `place` of a circuit, or its inverse.

    Args:
        place: Position in `circuit.data`.
        width: Qubits.
        noisy: Whether the device can err in it.
        inverted: Whether the inverse is meant.
    """

    def __init__(self, place: int, width: int, *, noisy: bool = True, inverted: bool = False) -> None:
        self.place, self.width, self.noisy, self.inverted = place, width, noisy, inverted

    def _num_qubits_(self) -> int:
        return self.width

    def __pow__(self, power: object) -> Any:
        if power == 1:
            return self
        if power == -1:
            return Token(self.place, self.width, noisy=self.noisy, inverted=not self.inverted)
        return NotImplemented

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Token) and (self.place, self.inverted) == (other.place, other.inverted)

    def __hash__(self) -> int:
        return hash((self.place, self.inverted))

    def __repr__(self) -> str:
        return f"Token({self.place}{', inverted' if self.inverted else ''})"


Native = Callable[[QuantumCircuit, Any, Sequence[int]], None]
"""Appends what a gate of Mitiq's own (cirq.X ...) means on the device: (circuit, cirq gate, wires)."""


def to_tokens(circuit: QuantumCircuit) -> cirq.Circuit:
    """Every instruction but barriers as a token on `cirq.LineQubit(wire)`, as early as it can stand.

    Barriers go: they say in which order a compiler may not bring gates, and what is made here is not compiled again.
    """
    tokens = cirq.Circuit()
    for place, instruction in enumerate(circuit.data):
        if isinstance(instruction.operation, Barrier):
            continue
        qubits = [cirq.LineQubit(circuit.find_bit(qubit).index) for qubit in instruction.qubits]
        noisy = instruction.operation.name not in VIRTUAL
        tokens.append(Token(place, len(qubits), noisy=noisy).on(*qubits))
    return tokens


def quiet(tokens: cirq.Circuit) -> frozenset[Token]:
    """The tokens without errors: what folding leaves alone."""
    return frozenset(op.gate for op in tokens.all_operations() if isinstance(op.gate, Token) and not op.gate.noisy)


def from_tokens(tokens: cirq.Circuit, circuit: QuantumCircuit, native: Native | None = None) -> QuantumCircuit:
    """The tokens' instructions, in the order of `tokens`; `circuit` is the one that they were made from.

    Args:
        tokens: What Mitiq made.
        circuit: Where tokens stand for instructions.
        native: Writes down gates that Mitiq added; without it there may be none.

    Raises:
        QrunError: A gate that has no inverse among the device's own.
    """
    result = QuantumCircuit(circuit.num_qubits, global_phase=circuit.global_phase)
    for operation in tokens.all_operations():
        wires = [qubit.x for qubit in operation.qubits]
        gate = operation.gate
        if not isinstance(gate, Token):
            if native is None:
                raise QrunError(f"Mitiq put a gate {gate} into the circuit that stands for none of the device's.")
            native(result, gate, wires)
        elif gate.inverted:
            append_inverse(result, circuit.data[gate.place], wires)
        else:
            result.append(circuit.data[gate.place].operation, wires)
    return result


def with_circuit(compiled: CompiledCircuit, circuit: QuantumCircuit) -> CompiledCircuit:
    """The same compiled circuit with other gates on its wires: parameters and layout stay, counts are anew."""
    counts = {str(name): int(number) for name, number in sorted(circuit.count_ops().items())}
    return replace(
        compiled,
        circuit=circuit,
        depth=int(circuit.depth()),
        two_qubit_gates=sum(1 for i in circuit.data if isinstance(i.operation, Gate) and len(i.qubits) == 2),
        gate_counts=counts,
    )
