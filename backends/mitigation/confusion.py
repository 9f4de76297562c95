"""What a qubit's confusion matrix does to a Pauli, and observables that undo it.

With independent readout errors, a qubit in 0 is read as 1 with p01, and one in 1 as 0 with p10. A Pauli P, measured as
a Z, then reads b + a <P>, with a = 1 - p01 - p10 and b = p10 - p01. The inverse confusion matrix A^-1, as Mitiq makes
it, says so the other way round: with z = (1, -1), sum_j (z A^-1)_j p_j of the distribution p that is read is <P>
without errors, and that is (P - b) / a. Strings are products of such factors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from mitiq.rem import generate_tensored_inverse_confusion_matrix
from qiskit.quantum_info import SparsePauliOp

from backends.observables import PauliSum, pauli_sum
from backends.target import Target
from circuits.errors import QrunError, UsageError
from circuits.types import CompiledCircuit

FACTORS = 12
"""Most factors of a string: it becomes 2^factors strings."""

LEAST = 0.05
"""a = 1 - p01 - p10 must be above this: below, errors would grow more than twentyfold."""

_ROUNDING = 1e-12

Factors = tuple[tuple[int, int], ...]
"""(virtual qubit, 1 for X, 2 for Y, 3 for Z), ascending; none for the identity."""


@dataclass(frozen=True)
class Undo:
    """P without readout error = scale * P as read + offset."""

    scale: float
    offset: float


def undo_of(p01: float, p10: float) -> Undo:
    """How the errors of one qubit are undone, from P(read 1 | 0) and P(read 0 | 1)."""
    confusion = np.array([[1.0 - p01, p10], [p01, 1.0 - p10]])
    zero, one = np.array([1.0, -1.0]) @ generate_tensored_inverse_confusion_matrix(1, [confusion])
    offset = float(zero + one) / 2.0
    return Undo(float(zero - one) / 2.0, 0.0 if abs(offset) < _ROUNDING else offset)


def checked(p01: float, p10: float, where: str, error: Callable[[str, str], QrunError]) -> Undo:
    """`undo_of`, where the readout says anything.

    Raises:
        QrunError: As `error` makes it: the readout is a coin toss.
    """
    if not 1.0 - p01 - p10 > LEAST:
        raise error(
            f"the readout of {where} is hardly better than a coin toss (P(1|0) = {p01:.3g}, P(0|1) = {p10:.3g}): "
            "there is nothing left that could be corrected.",
            "Leave readout out of the stack, or choose other qubits or another device.",
        )
    return undo_of(p01, p10)


def calibrated(target: Target, circuit: CompiledCircuit, qubits: Sequence[int]) -> dict[int, Undo]:
    """How the readout errors of virtual qubits are undone, by the device's calibration.

    Raises:
        UsageError: A qubit whose readout says nothing.
    """
    found = {}
    for qubit in qubits:
        physical = physical_qubit(circuit, qubit)
        p01, p10 = target.readout_errors(physical)
        found[qubit] = checked(p01, p10, f"qubit {physical} of {target.name}", UsageError)
    return found


def physical_qubit(circuit: CompiledCircuit, qubit: int) -> int:
    """Where on the device a virtual qubit is read."""
    return circuit.physical_qubits[circuit.final_layout[qubit]]


def terms_of(observables: Sequence[SparsePauliOp], circuit: CompiledCircuit) -> tuple[PauliSum, ...]:
    """The strings of observables.

    Raises:
        UsageError: A string of more than `FACTORS` factors.
    """
    found = tuple(pauli_sum(observable, circuit.num_qubits) for observable in observables)
    longest = max((len(factors) for terms in found for _, factors in terms), default=0)
    if longest > FACTORS:
        raise UsageError(
            f"an observable has a string of {longest} factors; with its readout errors undone it would be one of "
            f"2^{longest} strings, and {FACTORS} factors are the most.",
            "Leave readout out of the stack, or measure strings on fewer qubits.",
        )
    return found


def undone(terms: PauliSum, undo: Mapping[int, Undo]) -> dict[Factors, float]:
    """Weights of the strings that are measured in place of an observable."""
    total: dict[Factors, float] = {}
    for coefficient, factors in terms:
        grown: dict[Factors, float] = {(): coefficient}
        for qubit, kind in factors:
            each, last = undo[qubit], grown
            grown = {}
            for kept, weight in last.items():
                grown[(*kept, (qubit, kind))] = weight * each.scale
                if each.offset:
                    grown[kept] = weight * each.offset
        for kept, weight in grown.items():
            total[kept] = total.get(kept, 0.0) + weight
    return total


def as_operator(strings: Mapping[Factors, float], qubits: int) -> SparsePauliOp:
    """Weights of strings as an operator; 0 times the identity where there are none."""
    listed = [
        ("".join("IXYZ"[kind] for _, kind in factors), [qubit for qubit, _ in factors], weight)
        for factors, weight in strings.items()
    ]
    return SparsePauliOp.from_sparse_list(listed or [("", [], 0.0)], num_qubits=qubits)
