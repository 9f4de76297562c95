"""A circuit within a depth: rotations that are summed up, and what to say where no layout is shallow enough.

Every gate counts one, RZ too, as in `QuantumCircuit.depth`. A compiler leaves rotations with free angles where they
are; but RZ(a) RZ(b) is RZ(a + b) whatever a and b are, and an RZ goes through whatever is diagonal on its wire, or
through what flips it with its sign turned, to meet the next one.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from typing import TypeAlias

from qiskit import QuantumCircuit
from qiskit.circuit import Parameter, ParameterExpression
from qiskit.circuit.library import RXGate, RYGate, RZGate

from circuits.errors import QrunError
from circuits.types import CompiledCircuit

_ROTATIONS = {"rx": RXGate, "ry": RYGate, "rz": RZGate}

_THROUGH: dict[str, tuple[int, ...]] = {"cz": (1, 1), "rzz": (1, 1), "cx": (1, 0), "ecr": (-1, 0), "x": (-1,)}
"""What becomes of an RZ on each of a gate's wires: +1 goes through, -1 with its sign turned, 0 not at all.

ECR = RZX(pi/4) (X on the first) RZX(-pi/4): diagonal on its first wire but for the X.
"""

_NOTHING = 1e-12
"""Radians of a turn that is none."""

Angle: TypeAlias = "float | ParameterExpression"


def sum_rotations(circuit: QuantumCircuit) -> QuantumCircuit:
    """The circuit with neighbouring rotations about one axis as one, up to a global phase."""
    return _Summed(circuit, through=False, keep=()).result


def push_rotations(circuit: QuantumCircuit, keep: Iterable[Parameter]) -> QuantumCircuit:
    """The circuit with its RZ led forward until they meet or cannot go on, up to a global phase.

    Args:
        circuit: In a device's native gates.
        keep: Parameters that stay before two-qubit gates (the inputs: an exact simulation is quicker so).
    """
    return _Summed(circuit, through=True, keep=tuple(keep)).result


class _Summed:
    """Goes through a circuit with a rotation waiting on each wire; `result` is the circuit."""

    def __init__(self, circuit: QuantumCircuit, *, through: bool, keep: Collection[Parameter]) -> None:
        self.result = circuit.copy_empty_like()
        self._waiting: dict[int, tuple[str, Angle]] = {}
        for instruction in circuit.data:
            wires = [circuit.find_bit(qubit).index for qubit in instruction.qubits]
            name = instruction.operation.name
            if name in _ROTATIONS and instruction.is_standard_gate():
                self._add(wires[0], name, instruction.operation.params[0])
                continue
            signs = _THROUGH.get(name, ()) if through and instruction.is_standard_gate() else ()
            for place, wire in enumerate(wires):
                self._meet(wire, signs[place] if signs else 0, keep if len(wires) > 1 else ())
            self.result.append(instruction)
        for wire in sorted(self._waiting):
            self._write(wire)

    def _add(self, wire: int, name: str, angle: Angle) -> None:
        if wire in self._waiting and self._waiting[wire][0] != name:
            self._write(wire)
        before = self._waiting[wire][1] if wire in self._waiting else 0.0
        self._waiting[wire] = name, before + angle

    def _meet(self, wire: int, sign: int, keep: Collection[Parameter]) -> None:
        """A gate comes: what waits on the wire goes through it, or is written down before it."""
        if wire not in self._waiting:
            return
        name, angle = self._waiting[wire]
        if name != "rz" or sign == 0 or not _free(angle).isdisjoint(keep):
            self._write(wire)
        elif sign < 0:
            self._waiting[wire] = name, -1.0 * angle

    def _write(self, wire: int) -> None:
        name, angle = self._waiting.pop(wire)
        if _is_fixed(angle):
            angle = math.remainder(_at_zero(angle), 2.0 * math.pi)
            if abs(angle) < _NOTHING:
                return
        self.result.append(_ROTATIONS[name](angle), [wire])


def _free(angle: Angle) -> set[Parameter]:
    return set(angle.parameters) if isinstance(angle, ParameterExpression) else set()


def _is_fixed(angle: Angle) -> bool:
    """Whether an angle depends on no parameter; a - a names one all the same."""
    if not isinstance(angle, ParameterExpression):
        return True
    slopes = [angle.gradient(parameter) for parameter in angle.parameters]
    return not any(_free(slope) or complex(slope) != 0 for slope in slopes)


def _at_zero(angle: Angle) -> float:
    if isinstance(angle, ParameterExpression):
        angle = angle.bind(dict.fromkeys(angle.parameters, 0.0))
    return float(angle)


def too_deep(least: CompiledCircuit, where: str, max_depth: int, fewer: tuple[int, int] | None) -> QrunError:
    """The error for a limit that no layout holds.

    Args:
        least: The shallowest circuit that was found.
        where: The device's name.
        max_depth: The limit.
        fewer: (repetitions, depth) that hold it, where some do and the ansatz can be rebuilt.
    """
    counts = ", ".join(f"{number} {name}" for name, number in least.gate_counts.items())
    two_qubit = least.circuit.depth(lambda instruction: len(instruction.qubits) == 2)
    reps, qubits = least.ansatz.reps, least.num_qubits
    hints = []
    if fewer is not None:
        hints.append(f"Take --reps {fewer[0]}, which needs {fewer[1]}")
    elif reps:
        hints.append("Not even a single repetition holds it" if reps > 1 else "One repetition is the least")
    if reps and least.two_qubit_gates > reps * (qubits - 1) and qubits > 2:
        hints.append("A linear or reverse_linear entanglement needs fewer gates, and no SWAPs on a line of qubits")
    hints.append(f"Or allow --max-depth {least.depth}")
    return QrunError(
        f"the shallowest circuit that was found for {least.ansatz.name} on {where} has depth {least.depth}, more than "
        f"{max_depth}: {two_qubit} layers of two-qubit gates, and rotations between them ({counts}).",
        ". ".join(hints) + ".",
    )


def shallowest(circuits: Sequence[CompiledCircuit], max_depth: int) -> CompiledCircuit | None:
    """Of the circuits within a depth the one on the fewest qubits, then with the fewest two-qubit gates, then depth."""
    within = [circuit for circuit in circuits if circuit.depth <= max_depth]
    return min(within, key=lambda c: (len(c.physical_qubits), c.two_qubit_gates, c.depth), default=None)
