"""Paulis between a device's gates: as native gates, and moved through a Clifford gate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt
from qiskit import QuantumCircuit
from qiskit.circuit.library import RZGate, U1Gate, U3Gate, XGate

from backends.target import Target
from backends.twin.pauli import ptm_of_unitary
from circuits.errors import UsageError

I, X, Y, Z = range(4)  # noqa: E741
"""Numbers of the Paulis, in the order of `backends.twin.pauli`."""

_PRODUCT: Final = ((I, X, Y, Z), (X, I, Z, Y), (Y, Z, I, X), (Z, Y, X, I))

Table = Mapping[tuple[int, int], tuple[int, int]]
"""For each pair of Paulis before a two-qubit gate, the pair after it that leaves the unitary as it is."""


def times(a: int, b: int) -> int:
    """The product of two Paulis, up to a phase."""
    return _PRODUCT[a][b]


def is_clifford(matrix: npt.NDArray[np.complex128]) -> bool:
    """Whether a gate on one or two qubits makes of every Pauli a Pauli, up to a sign."""
    return bool(np.allclose(np.abs(ptm_of_unitary(matrix)).max(axis=0), 1.0, atol=1e-9))


def conjugation(matrix: npt.NDArray[np.complex128]) -> dict[tuple[int, int], tuple[int, int]] | None:
    """The table of a two-qubit gate; None where it is no Clifford gate.

    After U (P x Q) the pair (R, S) with (R x S) U (P x Q) = U up to a phase stands; R x S = U (P x Q) U^-1, which is
    one of the sixteen exactly for a Clifford gate.

    Args:
        matrix: (4, 4) of the gate as qiskit has it, the first qubit last.
    """
    if not is_clifford(matrix):
        return None
    after = np.abs(ptm_of_unitary(matrix)).argmax(axis=0)
    return {(p, q): (int(after[4 * p + q]) // 4, int(after[4 * p + q]) % 4) for p in range(4) for q in range(4)}


class NativePaulis:
    """Writes Paulis down in a device's own gates: X is one pulse, Z is virtual, Y is both.

    Args:
        target: Where the circuits run.

    Raises:
        UsageError: The device has none of the gates that it could be made of.
    """

    def __init__(self, target: Target) -> None:
        gates = set(target.native_gates)
        ideal = target.backend is None
        if not (ideal or gates & {"x", "u3"}) or not (ideal or gates & {"rz", "u1"}):
            raise UsageError(
                f"{target.name} has neither x nor u3, or neither rz nor u1, and Paulis are made of them: its gates are "
                f"{', '.join(target.native_gates)}.",
                "Take a technique that adds no gates of its own (readout, symmetry).",
            )
        self._x = XGate() if ideal or "x" in gates else U3Gate(math.pi, 0.0, math.pi)
        self._z = RZGate(math.pi) if ideal or "rz" in gates else U1Gate(math.pi)
        self.pulse: str = self._x.name
        """The gate that takes time, and can err."""

    def append(self, circuit: QuantumCircuit, pauli: int, wire: int) -> None:
        """Append a Pauli, up to a global phase."""
        if pauli in (Y, Z):
            circuit.append(self._z, [wire])
        if pauli in (X, Y):
            circuit.append(self._x, [wire])
