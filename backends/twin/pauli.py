"""Real Pauli-transfer matrices: R[i, j] = tr(P_i E(P_j)) / 2^k, in the order I, X, Y, Z.

For two qubits the index is 4 * (Pauli of the first) + (Pauli of the second), whichever way qiskit orders them.
A state is the vector of its expectation values tr(P_j rho); a channel multiplies it from the left; an observable's row
vector is multiplied from the right (Heisenberg picture).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

_PAULIS = np.array([[[1, 0], [0, 1]], [[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]])


ROTATION = np.zeros((3, 4, 4))
ROTATION[0, 0, 0] = ROTATION[0, 3, 3] = 1.0
ROTATION[1, 1, 1] = ROTATION[1, 2, 2] = 1.0
ROTATION[2, 1, 2], ROTATION[2, 2, 1] = -1.0, 1.0
"""Rz(a) = ROTATION[0] + cos a ROTATION[1] + sin a ROTATION[2] on Pauli vectors."""


def ptm_of_unitary(matrix: npt.NDArray[np.complex128]) -> Array:
    """The PTM of a one- or two-qubit gate, from qiskit's matrix (little-endian: the first qubit is the last factor)."""
    if matrix.shape == (2, 2):
        basis = _PAULIS
    else:
        basis = np.array([np.kron(second, first) for first in _PAULIS for second in _PAULIS])
    moved = matrix @ basis @ matrix.conj().T
    return np.real(np.einsum("iab,jba->ij", basis, moved)) / matrix.shape[0]


def thermal_relaxation(seconds: float, t1: float | None, t2: float | None) -> Array:
    """Amplitude and phase damping towards |0> for a time, as Aer's `thermal_relaxation_error` at zero temperature.

    X and Y shrink by exp(-t/T2), Z by exp(-t/T1) and gains what it lost. T2 is cut at 2 T1, None means infinite.
    """
    if t1 is not None:
        t2 = 2 * t1 if t2 is None else min(t2, 2 * t1)
    longitudinal = 1.0 if t1 is None else float(np.exp(-seconds / t1))
    transverse = 1.0 if t2 is None else float(np.exp(-seconds / t2))
    channel = np.diag([1.0, transverse, transverse, longitudinal])
    channel[3, 0] = 1.0 - longitudinal
    return channel


def product(channels: Sequence[Array]) -> Array:
    """The tensor product of single-qubit channels, first qubit first."""
    result: Array = np.eye(1)
    for channel in channels:
        result = np.asarray(np.kron(result, channel), dtype=np.float64)
    return result


def average_infidelity(channel: Array) -> float:
    """1 - average gate fidelity to the identity: F = (d F_pro + 1) / (d + 1) with F_pro = tr(R) / d^2."""
    dimension = float(np.sqrt(channel.shape[0]))
    process = float(np.trace(channel)) / dimension**2
    return 1.0 - (dimension * process + 1.0) / (dimension + 1.0)


def depolarising(parameter: float, qubits: int) -> Array:
    """E(rho) = (1 - p) rho + p I / 2^k."""
    diagonal = np.full(4**qubits, 1.0 - parameter)
    diagonal[0] = 1.0
    return np.diag(diagonal)


def rz(angle: float) -> Array:
    """The PTM of a rotation about Z."""
    channel = np.eye(4)
    channel[1, 1] = channel[2, 2] = math.cos(angle)
    channel[2, 1] = math.sin(angle)
    channel[1, 2] = -channel[2, 1]
    return channel


def commutes_with_rz(channel: Array) -> bool:
    """Whether a (4, 4) channel commutes with every Z rotation: to the digit, so that nothing near is taken for it."""
    mixes = channel[np.ix_([0, 3], [1, 2])].any() or channel[np.ix_([1, 2], [0, 3])].any()
    return not mixes and bool(channel[1, 1] == channel[2, 2] and channel[1, 2] == -channel[2, 1])
