"""Many repetitions of the same sampled circuits on the twin: each joint distribution is computed once."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import numpy as np

from backends.observables import z_strings
from backends.protocol import FloatArray, Request, Result
from backends.twin.executor import TwinExecutor
from circuits.errors import QrunError
from circuits.types import CompiledCircuit

_KEPT = 8192
"""Distributions; of 8 qubits and 6 samples they take 100 MB."""


class ResamplingExecutor:
    """Shots from the twin's joint distribution, for tables that repeat the same circuits with many seeds.

    Values and standard errors are those of the twin with shots: all observables are read from the same shots of a
    circuit. Distributions are kept by circuit and parameters, and only the drawing is repeated.

    Args:
        twin: Gives the distributions; opened and closed by the caller.
        shots: A circuit, at least 2.
    """

    name = "twin"
    differentiable = False

    def __init__(self, twin: TwinExecutor, shots: int) -> None:
        self.twin, self.shots = twin, shots
        self._known: OrderedDict[tuple[int, bytes], tuple[CompiledCircuit, FloatArray]] = OrderedDict()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._known.clear()

    def at(self, shots: int) -> Self:
        """The same with another number of shots, and the same distributions."""
        other = type(self)(self.twin, shots)
        other._known = self._known
        return other

    def run(self, requests: Sequence[Request], *, seed: int | None = None) -> list[Result]:
        """Values of every request; `seed` fixes the shots.

        Raises:
            QrunError: An observable with X or Y, or as the twin.
        """
        return [
            self._run_one(request, None if seed is None else [seed, number]) for number, request in enumerate(requests)
        ]

    def _run_one(self, request: Request, entropy: list[int] | None) -> Result:
        n = request.circuit.num_qubits
        worth = np.zeros((len(request.observables), 2**n))
        outcomes = np.arange(2**n)
        for column, observable in enumerate(request.observables):
            for coefficient, qubits in z_strings(observable, n):
                mask = sum(1 << qubit for qubit in qubits)
                worth[column] += coefficient * (1.0 - 2.0 * (np.bitwise_count(outcomes & mask) & 1))
        counts = np.random.default_rng(entropy).multinomial(self.shots, self._distribution(request))
        share = counts / self.shots
        means: FloatArray = share @ worth.T
        squares = (worth[None] - means[:, :, None]) ** 2
        errors = np.sqrt(np.einsum("bx,bmx->bm", share, squares) / (self.shots - 1))
        return Result(means, errors, {"engine": self.name, "backend": self.twin.target.name, "shots": self.shots})

    def _distribution(self, request: Request) -> FloatArray:
        """(batch, 2^n): computed once for a circuit and its parameters."""
        digest = hashlib.sha256(np.ascontiguousarray(request.inputs).tobytes())
        digest.update(np.ascontiguousarray(request.weights).tobytes())
        key = id(request.circuit), digest.digest()
        known = self._known.get(key)
        if known is not None:
            return known[1]
        found = np.maximum(self.twin.probabilities(request.circuit, request.inputs, request.weights), 0.0)
        total = found.sum(1, keepdims=True)
        if not np.all(np.abs(total - 1.0) < 1e-3):
            raise QrunError(f"the twin of {self.twin.target.name} gave no distribution: its sum is not 1.")
        found /= total
        # Kept with its circuit, so that no other object takes over the identity.
        self._known[key] = request.circuit, found
        if len(self._known) > _KEPT:
            self._known.popitem(last=False)
        return found
