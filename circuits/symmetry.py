"""Pauli symmetries of an ansatz: Pauli strings that its state has one fixed value of, whatever the parameters.

P is a symmetry of U with the sign s where U(x, theta) |0...0> is an eigenstate of P with the eigenvalue s for all x and
theta. P is carried back through the circuit: a Clifford gate makes another Pauli string of it; a rotation
exp(-i theta G / 2) leaves it as it is where P and G commute, and nothing survives one that P anticommutes with, since
P |psi> = s |psi> before and after it, for all theta, would ask for G |psi> = 0. What arrives at the start must have
|0...0> as an eigenstate: it is made of Z and I. All of these conditions are linear in P over GF(2) (D. Gottesman,
quant-ph/9807006), so that the symmetries are the solutions of a linear system. They are all of them where every
parameter stands in one rotation; where one stands in several, as in a controlled rotation, there may be more.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from qiskit import QuantumCircuit
from qiskit.circuit import Barrier, CircuitInstruction, Delay, Gate, Operation, ParameterExpression
from qiskit.circuit.library import RYGate, RZGate
from qiskit.exceptions import QiskitError
from qiskit.quantum_info import Clifford, Pauli, PauliList

from circuits.types import Ansatz

Bits = npt.NDArray[np.bool_]

_ROTATIONS = {
    "rx": ("X",),
    "ry": ("Y",),
    "rz": ("Z",),
    "p": ("Z",),
    "u1": ("Z",),
    "t": ("Z",),
    "tdg": ("Z",),
    "rxx": ("XX",),
    "ryy": ("YY",),
    "rzz": ("ZZ",),
    "rzx": ("ZX",),
    # A controlled rotation is a product of two that commute, (1 - Z) P / 2; a controlled phase one of three.
    "crx": ("IX", "ZX"),
    "cry": ("IY", "ZY"),
    "crz": ("IZ", "ZZ"),
    "cp": ("ZI", "IZ", "ZZ"),
    "cu1": ("ZI", "IZ", "ZZ"),
}
"""The generators of qiskit's rotations, first letter for the first qubit of the gate."""

_EULER = frozenset({"u", "u3", "u2"})

_WIDEST = 3
"""Qubits of a gate whose matrix is looked at."""

WORKS_ON = (
    "An ansatz has one where all rotations commute with it: rzz, rxx and ryy with swap, rz and x keep the parity "
    "Z...Z; ry and rx on single qubits leave none."
)


@dataclass(frozen=True)
class PauliSymmetry:
    """A Pauli string, the last letter for virtual qubit 0 as in qiskit, and its eigenvalue, 1 or -1."""

    label: str
    sign: int

    def __str__(self) -> str:
        return f"{'+' if self.sign > 0 else '-'}{self.label}"


@dataclass(frozen=True)
class _Step:
    """What a gate does to a Pauli string: a Clifford gate, generators to commute with, or (None, ()) for neither."""

    qubits: tuple[int, ...]
    clifford: Clifford | None = None
    generators: tuple[str, ...] = ()


def pauli_symmetries(ansatz: Ansatz) -> tuple[PauliSymmetry, ...]:
    """Independent generators of the group of an ansatz's Pauli symmetries.

    Rotations of qiskit's library (rx ry rz p rxx ryy rzz rzx u crx cry crz cp), its Clifford gates, and gates that are
    defined by these are seen through. What is none of them (a unitary, a measurement ...) ends every symmetry that
    touches its qubits: what is found is right, and there may be more.

    Returns:
        As many as there are independent ones; those of Z and I alone first, and as many of these as there are. Empty
        where there is none.
    """
    circuit, n = ansatz.circuit, ansatz.circuit.num_qubits
    steps = list(_steps(circuit, range(n)))[::-1]
    # The strings X_0 ... X_n-1, Z_0 ... Z_n-1: what becomes of these says what becomes of every other.
    carried = PauliList.from_symplectic(
        np.vstack([np.zeros((n, n), bool), np.eye(n, dtype=bool)]),
        np.vstack([np.eye(n, dtype=bool), np.zeros((n, n), bool)]),
    )
    conditions: list[Bits] = []
    for step in steps:
        if step.clifford is not None:
            carried = carried.evolve(step.clifford, list(step.qubits), frame="h")
            continue
        for generator in step.generators:
            odd = np.zeros(2 * n, dtype=bool)
            for letter, qubit in zip(generator, step.qubits, strict=True):
                odd ^= (carried.x[:, qubit] & (letter in "YZ")) ^ (carried.z[:, qubit] & (letter in "XY"))
            conditions.append(odd)
        if not step.generators:
            conditions += [*carried.x[:, list(step.qubits)].T, *carried.z[:, list(step.qubits)].T]
    conditions += [*carried.x.T]
    found = reduced(null_space(np.array(conditions, dtype=bool).reshape(-1, 2 * n), 2 * n))
    # Rows are x before z: those of Z and I alone have their pivots last.
    order = sorted(range(len(found)), key=lambda row: (bool(found[row, :n].any()), int(found[row].sum()), row))
    strings = PauliList.from_symplectic(found[order, n:], found[order, :n]) if len(found) else []
    return tuple(_signed(string, steps) for string in strings)


def sentence(ansatz: Ansatz) -> str:
    """What the symmetries of an ansatz are, in words."""
    found = pauli_symmetries(ansatz)
    if not found:
        return f"{ansatz.name} has no Pauli symmetry: no Pauli string has one value for all parameters. {WORKS_ON}"
    names = ", ".join(map(str, found))
    many = f"{len(found)} independent Pauli symmetries" if len(found) > 1 else "one Pauli symmetry"
    return f"{ansatz.name} has {many}: {names} (qubit 0 last)."


def null_space(matrix: Bits, width: int) -> Bits:
    """(rows, width) over GF(2) -> (k, width): a basis of the vectors that it takes to zero."""
    rows = reduced(matrix)
    pivots = [int(np.argmax(row)) for row in rows]
    free = [column for column in range(width) if column not in set(pivots)]
    basis = np.zeros((len(free), width), dtype=bool)
    for number, column in enumerate(free):
        basis[number, column] = True
        basis[number, pivots] = rows[:, column]
    return basis


def reduced(matrix: Bits) -> Bits:
    """(rows, width) -> (rank, width): the reduced row echelon form over GF(2), without rows of zeros."""
    rows = matrix.copy()
    rank = 0
    for column in range(rows.shape[1]):
        below = np.flatnonzero(rows[rank:, column])
        if not len(below):
            continue
        rows[[rank, rank + below[0]]] = rows[[rank + below[0], rank]]
        others = rows[:, column].copy()
        others[rank] = False
        rows[others] ^= rows[rank]
        rank += 1
    return rows[:rank]


def _signed(string: Pauli, steps: Sequence[_Step]) -> PauliSymmetry:
    """A symmetry with its sign: that of what it becomes at the start, made of Z and I, on |0...0>."""
    label = string.to_label()
    for step in steps:
        if step.clifford is not None:
            string = string.evolve(step.clifford, list(step.qubits), frame="h")
    return PauliSymmetry(label, -1 if string.phase == 2 else 1)


def _steps(circuit: QuantumCircuit, qubits: Sequence[int]) -> Iterator[_Step]:
    for instruction in circuit.data:
        yield from _step(instruction, tuple(qubits[circuit.find_bit(qubit).index] for qubit in instruction.qubits))


def _step(instruction: CircuitInstruction, qubits: tuple[int, ...]) -> Iterator[_Step]:
    operation, name = instruction.operation, instruction.operation.name
    if isinstance(operation, Barrier | Delay):
        return
    standard = instruction.is_standard_gate()  # a gate of one's own may bear any name
    if standard and name in _EULER:
        angles = operation.params if name != "u2" else [math.pi / 2, *operation.params]
        around = angles[2], angles[0], angles[1]
        for gate, angle in zip((RZGate, RYGate, RZGate), around, strict=True):
            yield from _rotation(gate(angle), qubits)
    elif standard and name in _ROTATIONS:
        yield from _rotation(operation, qubits)
    else:
        clifford = _clifford(operation) if standard or isinstance(operation, Clifford) else _by_matrix(operation)
        definition = getattr(operation, "definition", None) if isinstance(operation, Gate) else None
        if clifford is not None:
            yield _Step(qubits, clifford)
        elif definition is not None and definition.num_qubits == len(qubits):
            yield from _steps(definition, qubits)
        else:
            yield _Step(qubits)


def _rotation(gate: Gate, qubits: tuple[int, ...]) -> Iterator[_Step]:
    """By any angle, or by quarters of a turn, which is a Clifford gate."""
    clifford = None
    if not _is_free(gate):
        quarters = [float(angle) / (math.pi / 2) for angle in gate.params]
        clifford = _clifford(gate) if all(abs(q - round(q)) < 1e-9 for q in quarters) else None
    yield _Step(qubits, clifford) if clifford is not None else _Step(qubits, None, _ROTATIONS[gate.name])


def _is_free(gate: Gate) -> bool:
    return any(isinstance(angle, ParameterExpression) and angle.parameters for angle in gate.params)


def _clifford(operation: Operation) -> Clifford | None:
    """What a gate of qiskit's library does to Pauli strings; None where it is no Clifford gate."""
    if isinstance(operation, Clifford):
        return operation
    if not isinstance(operation, Gate) or _is_free(operation):
        return None
    try:
        return Clifford(operation)
    except QiskitError:
        return None


def _by_matrix(operation: Operation) -> Clifford | None:
    """The same for a gate of one's own, which may bear the name of another; None also where it has no matrix."""
    if not isinstance(operation, Gate) or _is_free(operation) or operation.num_qubits > _WIDEST:
        return None
    try:
        return Clifford.from_matrix(operation.to_matrix())
    except (QiskitError, TypeError, ValueError):
        return None
