"""The exact twin with the standard errors that shots would have: what sampling costs, without a sample drawn."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

import numpy as np
from qiskit.quantum_info import SparsePauliOp

from backends.protocol import Executor, FloatArray, Request, Result


class ExpectedExecutor:
    """Exact values, and the standard error of a mean of `shots` outcomes beside each.

    An outcome of an observable O has the variance <O^2> - <O>^2, where all terms of O are read from the same shots (so
    it is for observables of Z and I, which commute). Combinations propagate it as errors that were measured.

    Args:
        inner: An exact engine, opened by the caller or here.
        shots: A circuit; None for exact values, whose errors are zero.
    """

    differentiable = False

    def __init__(self, inner: Executor, shots: int | None) -> None:
        self.inner, self.shots, self.name = inner, shots, inner.name
        self._squares: dict[int, tuple[tuple[SparsePauliOp, ...], tuple[SparsePauliOp, ...]]] = {}

    def __enter__(self) -> Self:
        self.inner.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.inner.__exit__(kind, error, trace)

    def run(self, requests: Sequence[Request], *, seed: int | None = None) -> list[Result]:
        """Values and expected standard errors of every request; `seed` has nothing to fix.

        Raises:
            UsageError, QrunError: As the inner engine.
        """
        if self.shots is None:
            return self.inner.run(requests, seed=seed)
        both = [Request(r.circuit, self._with_squares(r.observables), r.inputs, r.weights) for r in requests]
        found = []
        for request, result in zip(requests, self.inner.run(both, seed=seed), strict=True):
            m = len(request.observables)
            values, squares = result.values[:, :m], result.values[:, m:]
            variance: FloatArray = np.maximum(squares - values**2, 0.0)  # rounding may leave it below zero
            found.append(Result(values, np.sqrt(variance / self.shots), {**result.metadata, "shots": self.shots}))
        return found

    def _with_squares(self, observables: tuple[SparsePauliOp, ...]) -> tuple[SparsePauliOp, ...]:
        """O and then O^2 of each: the same objects each time, so that the engine keeps what it made of them."""
        known = self._squares.get(id(observables))
        if known is None:
            squares = tuple((each @ each).simplify() for each in observables)
            known = observables, (*observables, *squares)
            self._squares[id(observables)] = known
        return known[1]
