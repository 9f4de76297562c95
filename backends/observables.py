"""Observables as weighted sums of Pauli-Z strings, and the checks that every engine makes of what it is given."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from qiskit.quantum_info import SparsePauliOp

from backends.protocol import Request
from circuits.errors import QrunError, UsageError
from circuits.types import CompiledCircuit

ZString = tuple[float, tuple[int, ...]]
"""A coefficient and the virtual qubits, ascending, that carry a Z; none of them for the identity."""


def z_strings(observable: SparsePauliOp, num_qubits: int) -> tuple[ZString, ...]:
    """Split an observable into Pauli-Z strings.

    Raises:
        QrunError: It is on another number of qubits, has X or Y factors, or complex coefficients.
    """
    if observable.num_qubits != num_qubits:
        raise QrunError(
            f"an observable is on {observable.num_qubits} qubits, the circuit on {num_qubits}.",
            "Observables speak of the circuit's virtual qubits, all of them.",
        )
    paulis, coefficients = observable.paulis, np.asarray(observable.coeffs)
    if paulis.x.any():
        raise QrunError(
            f"this engine takes observables of Z and I only, not {observable.paulis.to_labels()}.",
            "Rotate the qubits at the end of the circuit, so that Z is what is measured.",
        )
    if not np.all(np.isfinite(coefficients)) or np.abs(coefficients.imag).max(initial=0.0) > 0.0:
        raise QrunError("an observable has a coefficient that is not a finite real number.")
    return tuple(
        (float(c), tuple(np.flatnonzero(row).tolist())) for c, row in zip(coefficients.real, paulis.z, strict=True)
    )


PauliTerm = tuple[float, tuple[tuple[int, int], ...]]
"""A coefficient and its factors (virtual qubit, 1 for X, 2 for Y, 3 for Z), ascending; none for the identity."""
PauliSum = tuple[PauliTerm, ...]


def pauli_sum(observable: SparsePauliOp, num_qubits: int) -> PauliSum:
    """Split an observable into its Pauli terms; terms with a coefficient of zero are left out.

    Raises:
        QrunError: It is on another number of qubits, or has a coefficient that is no finite real number.
    """
    if observable.num_qubits != num_qubits:
        raise QrunError(
            f"an observable is on {observable.num_qubits} qubits, the circuit on {num_qubits}.",
            "Observables speak of the circuit's virtual qubits, all of them.",
        )
    coefficients = np.asarray(observable.coeffs)
    # A SparsePauliOp of parameters has coefficients of dtype object.
    if coefficients.dtype == object or not np.all(np.isfinite(coefficients)) or coefficients.imag.any():
        raise QrunError("an observable has a coefficient that is not a finite real number.")
    x, z = observable.paulis.x, observable.paulis.z
    kinds = np.where(x & z, 2, np.where(x, 1, np.where(z, 3, 0)))
    return tuple(
        (float(coefficient), tuple((int(qubit), int(row[qubit])) for qubit in np.flatnonzero(row)))
        for coefficient, row in zip(coefficients.real, kinds, strict=True)
        if coefficient != 0
    )


def single_z(num_qubits: int) -> tuple[SparsePauliOp, ...]:
    """Z on each qubit, in order: the observables of the plain generator."""
    return tuple(
        SparsePauliOp.from_sparse_list([("Z", [qubit], 1.0)], num_qubits=num_qubits) for qubit in range(num_qubits)
    )


def check_arrays(circuit: CompiledCircuit, inputs: npt.NDArray[np.float64], weights: npt.NDArray[np.float64]) -> None:
    """Check the shapes of inputs (batch, n_inputs) and weights (n_weights,) or (batch, n_weights), and their values.

    Raises:
        UsageError: No array of real numbers, a wrong shape, or a value that is not finite.
    """
    for what, values in (("inputs", inputs), ("weights", weights)):
        if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiu":
            kind = f"of {values.dtype}" if isinstance(values, np.ndarray) else f"a {type(values).__name__}"
            raise UsageError(f"{what} must be a numpy array of real numbers, not {kind}.")
    n_inputs, n_weights = len(circuit.inputs), len(circuit.weights)
    if inputs.ndim != 2 or inputs.shape[1] != n_inputs:
        raise UsageError(f"inputs have shape {inputs.shape}, {circuit.ansatz.name} takes (batch, {n_inputs}).")
    if weights.shape not in ((n_weights,), (inputs.shape[0], n_weights)):
        raise UsageError(
            f"weights have shape {weights.shape}, {circuit.ansatz.name} takes ({n_weights},) "
            f"or ({inputs.shape[0]}, {n_weights})."
        )
    for what, values in (("inputs", inputs), ("weights", weights)):
        if not np.isfinite(values).all():
            where = tuple(int(i) for i in np.argwhere(~np.isfinite(values))[0])
            raise UsageError(
                f"{what}{list(where)} is {values[where]}.",
                "Parameters must be finite. If it is training that led here, lower the step size.",
            )


def check_requests(requests: Sequence[Request]) -> None:
    """`check_arrays` for each request, naming the one that is wrong."""
    for position, request in enumerate(requests):
        try:
            check_arrays(request.circuit, request.inputs, request.weights)
        except UsageError as error:
            raise UsageError(f"request {position}: {error.message}", error.hint) from None
