"""Readout errors undone in the observables: each Pauli factor by what its qubit's confusion matrix makes of it.

With independent readout errors, a qubit prepared in 0 is read as 1 with p01, and one in 1 as 0 with p10. A Pauli P that
is measured as Z then reads b + a <P>, with a = 1 - p01 - p10 and b = p10 - p01. The inverse confusion matrix A^-1, as
Mitiq makes it, says the same the other way: sum_j (z A^-1)_j p_j with z = (1, -1) is <P> without errors, which is
(P - b) / a. Strings are products of such factors, so that a mitigated observable is an observable of more terms: every
engine measures it as any other, with its standard errors and gradients, and no circuit is added.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from mitiq.rem import generate_tensored_inverse_confusion_matrix
from qiskit.quantum_info import SparsePauliOp

from backends.mitigation.linear import Linear
from backends.mitigation.types import Asked, Context, Expansion, Part
from backends.observables import pauli_sum
from backends.protocol import FloatArray
from backends.target import Target
from circuits.errors import UsageError
from circuits.types import CompiledCircuit

FACTORS = 12
"""Most factors of a string: it becomes 2^factors strings."""

LEAST = 0.05
"""Least a = 1 - p01 - p10 that is undone: below, errors grow more than twentyfold, and there is hardly any signal."""

_ROUNDING = 1e-12

Factors = tuple[tuple[int, int], ...]
"""(virtual qubit, 1 for X, 2 for Y, 3 for Z), ascending."""


@dataclass(frozen=True)
class Undo:
    """P without readout error = scale * P as read + offset."""

    scale: float
    offset: float


class Readout:
    """Undoes readout errors.

    Args:
        context: `options.readout` says where the confusion matrices come from.

    Raises:
        UsageError: An unknown source.
    """

    name = "readout"
    by_value = False

    def __init__(self, context: Context) -> None:
        self.source = context.options.readout
        if self.source not in ("calibration", "circuits"):
            raise UsageError(f"unknown source of readout errors {self.source!r}.", "Known: calibration, circuits.")
        self.target, self.exact = context.target, context.exact

    def expand(self, asked: Asked) -> Expansion:
        """The same circuit with mitigated observables; with "circuits" also the two that measure the errors.

        Raises:
            UsageError: A string of too many factors, or a qubit whose readout says nothing.
        """
        undo = calibrated(self.target, asked.circuit, measured_qubits(asked.observables, asked.circuit))
        observables = tuple(mitigate(observable, undo) for observable in asked.observables)
        return Linear((Part(asked.circuit, observables),), (1.0,))

    def circuits(self, circuit: CompiledCircuit, batch: int) -> int:
        """None more, or the two that measure the errors."""
        return batch + (2 if self.source == "circuits" else 0)


def measured_qubits(observables: Sequence[SparsePauliOp], circuit: CompiledCircuit) -> tuple[int, ...]:
    """The virtual qubits that the observables have factors on, ascending."""
    found: set[int] = set()
    for observable in observables:
        for _, factors in pauli_sum(observable, circuit.num_qubits):
            found.update(qubit for qubit, _ in factors)
    return tuple(sorted(found))


def calibrated(target: Target, circuit: CompiledCircuit, qubits: Sequence[int]) -> dict[int, Undo]:
    """How the readout errors of virtual qubits are undone, by the device's calibration.

    Raises:
        UsageError: A qubit whose readout says nothing.
    """
    found = {}
    for qubit in qubits:
        physical = circuit.physical_qubits[circuit.final_layout[qubit]]
        p01, p10 = target.readout_errors(physical)
        if not 1.0 - p01 - p10 > LEAST:
            raise UsageError(
                f"the readout of qubit {physical} of {target.name} is hardly better than a coin toss "
                f"(P(1|0) = {p01:.3g}, P(0|1) = {p10:.3g}): there is nothing left that could be corrected.",
                "Leave readout out of the stack, or choose other qubits or another device.",
            )
        found[qubit] = undo_matrix(np.array([[1.0 - p01, p10], [p01, 1.0 - p10]]))
    return found


def undo_matrix(confusion: FloatArray) -> Undo:
    """How one qubit's errors are undone; confusion[i, j] is P(read i | prepared j)."""
    inverse = generate_tensored_inverse_confusion_matrix(1, [confusion])
    zero, one = np.array([1.0, -1.0]) @ inverse
    offset = float(zero + one) / 2.0
    return Undo(float(zero - one) / 2.0, 0.0 if abs(offset) < _ROUNDING else offset)


def mitigate(observable: SparsePauliOp, undo: dict[int, Undo]) -> SparsePauliOp:
    """The observable whose measured value is that of `observable` without readout errors.

    Args:
        observable: On virtual qubits.
        undo: For every qubit that it has a factor on.

    Raises:
        UsageError: A string of more than `FACTORS` factors.
    """
    qubits = observable.num_qubits
    if all(each == Undo(1.0, 0.0) for each in undo.values()):
        return observable
    total: dict[Factors, float] = {}
    for coefficient, factors in pauli_sum(observable, qubits):
        if len(factors) > FACTORS:
            raise UsageError(
                f"an observable has a string of {len(factors)} factors: without readout errors it would become "
                f"2^{len(factors)} strings, and {FACTORS} factors are the most.",
                "Leave readout out of the stack, or measure strings on fewer qubits.",
            )
        terms: dict[Factors, float] = {(): coefficient}
        for qubit, kind in factors:
            each, grown = undo[qubit], dict[Factors, float]()
            for kept, weight in terms.items():
                grown[(*kept, (qubit, kind))] = weight * each.scale
                if each.offset:
                    grown[kept] = weight * each.offset
            terms = grown
        for kept, weight in terms.items():
            total[kept] = total.get(kept, 0.0) + weight
    return as_operator(total, qubits)


def as_operator(strings: dict[Factors, float], qubits: int) -> SparsePauliOp:
    """Weights of strings as an operator; 0 times the identity where there are none."""
    listed = [
        ("".join(" XYZ"[kind] for _, kind in factors), [qubit for qubit, _ in factors], weight)
        for factors, weight in strings.items()
    ]
    return SparsePauliOp.from_sparse_list(listed or [("", [], 0.0)], num_qubits=qubits)
