"""Eigenvectors of a symmetric matrix, the same to the last bit on every machine.

Every node computes the feature map from the same totals and must find the same CID. LAPACK's results depend on the
library and the processor; here only single IEEE 754 operations (+ - * / sqrt) are applied to arrays, element by
element in a fixed order, which leaves no freedom.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

_SWEEPS = 60
_TOLERANCE = 2.0**-60


def symmetric_eigen(matrix: FloatArray) -> tuple[FloatArray, FloatArray]:
    """All eigenvalues and eigenvectors by Jacobi's method (Golub and Van Loan, Matrix Computations, 8.5).

    A sweep visits every pair (p, q) once, disjoint pairs together (a round-robin tournament), and rotates by the angle
    that makes a_pq zero: theta = (a_qq - a_pp) / (2 a_pq), t = sign(theta) / (|theta| + sqrt(theta^2 + 1)).

    Args:
        matrix: (p, p), symmetric, finite.

    Returns:
        values (p,), descending, and vectors (p, p), one in each row, with the sign that makes the entry of greatest
        magnitude positive (the first of those that agree in six decimals).
    """
    p = len(matrix)
    size = p + p % 2
    a = np.zeros((size, size))
    a[:p, :p] = matrix
    vectors = np.eye(size)
    # An entry this much smaller than the matrix's own scale cannot change any eigenvector within double precision.
    negligible = _TOLERANCE * float(np.abs(a).max(initial=0.0))
    rounds = _tournament(size)
    for _ in range(_SWEEPS):
        if float(np.abs(a - np.diag(np.diag(a))).max(initial=0.0)) <= negligible:
            break
        for first, second in rounds:
            _rotate(a, vectors, first, second, negligible)
    values = np.diag(a)[:p]
    vectors = vectors[:p, :p]
    order = np.argsort(-values, kind="stable")
    values, vectors = values[order], vectors[order]
    largest = np.argmax(np.round(np.abs(vectors), 6), axis=1)
    sign = np.where(vectors[np.arange(p), largest] < 0, -1.0, 1.0)
    return values, vectors * sign[:, None]


def _rotate(
    a: FloatArray, vectors: FloatArray, p: npt.NDArray[np.intp], q: npt.NDArray[np.intp], negligible: float
) -> None:
    """Rotates the disjoint pairs (p[i], q[i]) of `a` (on both sides) and of the rows of `vectors`, in place."""
    off = a[p, q]
    live = np.abs(off) > negligible
    theta = (a[q, q] - a[p, p]) / np.where(live, 2.0 * off, 1.0)
    tangent = np.where(theta < 0, -1.0, 1.0) / (np.abs(theta) + np.sqrt(theta * theta + 1.0))
    tangent = np.where(live, tangent, 0.0)
    cosine = 1.0 / np.sqrt(tangent * tangent + 1.0)
    sine = tangent * cosine
    for table in (a, a.T, vectors):
        upper, lower = table[p], table[q]
        table[p] = cosine[:, None] * upper - sine[:, None] * lower
        table[q] = sine[:, None] * upper + cosine[:, None] * lower
    a[p[live], q[live]] = 0.0
    a[q[live], p[live]] = 0.0


def _tournament(size: int) -> list[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]:
    """Rounds of disjoint pairs, in which each of `size` (even) players meets each other once (the circle method)."""
    ring = list(range(size))
    rounds = []
    for _ in range(size - 1):
        pairs = [sorted((ring[i], ring[size - 1 - i])) for i in range(size // 2)]
        table = np.array(pairs, dtype=np.intp)
        rounds.append((table[:, 0], table[:, 1]))
        ring = [ring[0], ring[-1], *ring[1:-1]]
    return rounds
