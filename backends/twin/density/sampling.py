"""Shots from the exact joint distribution of a circuit, and the estimates that a device would give from them.

The Pauli strings of all observables are put into groups that one change of basis on every qubit can measure together.
Every group gets all shots. What an observable is worth in a shot is the sum of its strings of the group, so that the
covariances of strings measured together are in its standard error; the groups' own shots are independent:

    value = c_I + sum_g mean_g,      error^2 = sum_g (mean of squares - square of mean)_g / (shots - 1).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from qiskit.quantum_info import PauliList

from backends.observables import PauliSum
from backends.protocol import FloatArray
from backends.twin.density.evaluate import Density
from circuits.errors import UsageError

_LABELS = "IXYZ"

Factors = tuple[tuple[int, int], ...]


def estimate(
    density: Density,
    observables: Sequence[PauliSum],
    inputs: torch.Tensor,
    weights: torch.Tensor,
    *,
    shots: int,
    rng: np.random.Generator,
) -> tuple[FloatArray, FloatArray]:
    """(B, n_inputs), (n_weights,) or (B, n_weights) -> values (B, m) and their standard errors (B, m).

    Observables that share strings, or whose strings are measured together, are estimated from the same shots, as on a
    device. The same generator state gives the same shots.

    Args:
        density: The circuit.
        observables: m Pauli sums on its virtual qubits.
        inputs: Radians.
        weights: Radians.
        shots: How often each group is measured for each row. One shot has no spread: its standard errors are nan.
        rng: The only source of randomness.

    Raises:
        UsageError: Fewer than one shot.
    """
    if not isinstance(shots, int) or isinstance(shots, bool) or shots < 1:
        raise UsageError(f"shots must be 1 or more, not {shots!r}.", "Give a whole number, for example 1024.")
    batch, qubits = len(inputs), len(density.program.outputs)
    values, variances = np.zeros((batch, len(observables))), np.zeros((batch, len(observables)))
    for column, observable in enumerate(observables):
        values[:, column] = sum(coefficient for coefficient, factors in observable if not factors)
    for basis, strings in measurement_groups(observables, qubits):
        worth = _worth(observables, strings, qubits)
        counts = sample(density, inputs, weights, shots=shots, rng=rng, basis=basis)
        frequencies = counts / shots
        means = frequencies @ worth.T
        values += means
        for column in np.flatnonzero(worth.any(1)):
            # About the mean, not a difference of squares: that would lose a small spread in rounding.
            squares = (worth[column] - means[:, column, None]) ** 2
            variances[:, column] += (frequencies * squares).sum(1) / (shots - 1) if shots > 1 else np.nan
    return values, np.sqrt(variances)


def sample(
    density: Density,
    inputs: torch.Tensor,
    weights: torch.Tensor,
    *,
    shots: int,
    rng: np.random.Generator,
    basis: Sequence[int] | None = None,
) -> npt.NDArray[np.int64]:
    """How often each bitstring is read in `shots` shots: (B, 2^n), bit v of the index for virtual qubit v.

    `basis` as in `Density.probabilities`.
    """
    probabilities = density.probabilities(inputs, weights, basis).double().cpu().numpy()
    # numpy allows a sum of 1 + 1e-12 at most; single precision is further off.
    probabilities /= probabilities.sum(1, keepdims=True)
    return rng.multinomial(shots, probabilities).astype(np.int64, copy=False)


def measurement_groups(
    observables: Sequence[PauliSum], qubits: int
) -> list[tuple[tuple[int, ...], tuple[Factors, ...]]]:
    """All Pauli strings of the observables but the identity, in groups that commute qubit by qubit.

    Returns:
        For every group the Pauli that is measured on each virtual qubit (1, 2, 3 for X, Y, Z; Z where it does not
        matter) and its strings. The order depends on the observables alone.
    """
    strings = list(dict.fromkeys(factors for observable in observables for _, factors in observable if factors))
    if not strings:
        return []
    groups = PauliList([_label(factors, qubits) for factors in strings]).group_commuting(qubit_wise=True)
    by_label = {_label(factors, qubits): factors for factors in strings}
    result = []
    for group in groups:
        members = tuple(by_label[label] for label in group.to_labels())
        measured = {qubit: kind for factors in members for qubit, kind in factors}
        result.append((tuple(measured.get(qubit, 3) for qubit in range(qubits)), members))
    return result


def _label(factors: Factors, qubits: int) -> str:
    """qiskit's label, qubit 0 last."""
    kinds = dict(factors)
    return "".join(_LABELS[kinds.get(qubit, 0)] for qubit in reversed(range(qubits)))


def _worth(observables: Sequence[PauliSum], strings: Sequence[Factors], qubits: int) -> FloatArray:
    """(m, 2^n): what each observable's strings of the group add up to when a bitstring is read."""
    number = {factors: row for row, factors in enumerate(strings)}
    coefficients = np.zeros((len(observables), len(strings)))
    for row, observable in enumerate(observables):
        for coefficient, factors in observable:
            if factors in number:
                coefficients[row, number[factors]] += coefficient
    masks = np.array([sum(1 << qubit for qubit, _ in factors) for factors in strings])
    parities = np.bitwise_count(np.arange(2**qubits) & masks[:, None]) & 1
    worth: FloatArray = coefficients @ (1.0 - 2.0 * parities)
    return worth
