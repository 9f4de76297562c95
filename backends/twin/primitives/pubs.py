"""Estimator PUBs as requests to an engine: which parameter sets meet which observables, in as few calls as it takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from qiskit.primitives import DataBin, PubResult
from qiskit.primitives.containers.estimator_pub import EstimatorPub

from backends.protocol import FloatArray, Request, Result
from backends.twin.primitives.prepare import Prepared, SparseTerms, sparse_terms

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Task:
    """A PUB with its circuit prepared. `shots` is None for exact values."""

    pub: EstimatorPub
    precision: float
    shots: int | None
    prepared: Prepared
    observables: Observables

    def result(self, values: FloatArray, errors: FloatArray, answers: list[Result]) -> PubResult:
        """The PubResult: values and standard errors of the PUB's shape, and what the engine said."""
        said: dict[str, Any] = answers[0].metadata if answers else {}
        metadata: dict[str, Any] = {
            "target_precision": self.precision,
            "shots": self.shots,
            "circuit_metadata": self.pub.circuit.metadata,
            **{key: said[key] for key in ("engine", "backend", "path", "why") if key in said},
        }
        return PubResult(DataBin(evs=values, stds=errors, shape=values.shape), metadata)


class Observables:
    """The observables of a PUB: the distinct ones, and which of them stands where in the array."""

    def __init__(self, pub: EstimatorPub) -> None:
        array = pub.observables.sparse_observables_array()
        known: dict[SparseTerms, int] = {}
        flat = [known.setdefault(sparse_terms(observable), len(known)) for observable in array.reshape(-1)]
        self.terms = tuple(known)
        self.where = np.array(flat, dtype=np.int64).reshape(array.shape)


class Table:
    """Parameter rows by observables of some PUBs of one circuit: which cells are asked for, in as few requests.

    Args:
        tasks: All with the same `prepared`.
        merge: Whether equal rows are one (exact values); samples of equal rows are drawn apart.
    """

    def __init__(self, tasks: list[Task], *, merge: bool) -> None:
        self.prepared = tasks[0].prepared
        parameters = list(tasks[0].pub.circuit.parameters)
        known: dict[SparseTerms, int] = {}
        cells, blocks, start = [], [], 0
        for task in tasks:
            bindings = task.pub.parameter_values
            own = (
                bindings.as_array(parameters).reshape(-1, len(parameters))
                if parameters
                else np.zeros((bindings.size, 0))
            )
            rows = start + np.arange(len(own)).reshape(bindings.shape)
            columns = np.array([known.setdefault(terms, len(known)) for terms in task.observables.terms], dtype=int)
            cells.append(
                np.broadcast_arrays(rows, columns[task.observables.where] if columns.size else task.observables.where)
            )
            blocks.append(own)
            start += len(own)
        rows_of_all = np.concatenate(blocks)
        self.rows, which = rows_of_all, np.arange(len(rows_of_all))
        if merge and parameters:
            self.rows, which = np.unique(rows_of_all, axis=0, return_inverse=True)
        elif merge:
            self.rows, which = rows_of_all[:1], np.zeros(len(rows_of_all), dtype=int)
        self.cells = [(which.reshape(-1)[row], column) for row, column in cells]
        self.terms = tuple(known)
        self.parts = self._parts(whole=merge)
        self.requests = [self._request(rows, columns) for rows, columns in self.parts]
        shape = len(self.rows), len(self.terms)
        self.values, self.errors = np.zeros(shape), np.zeros(shape)

    def fill(self, answers: list[Result]) -> None:
        """Take the answers to `requests`."""
        for (rows, columns), answer in zip(self.parts, answers, strict=True):
            self.values[np.ix_(rows, columns)] = answer.values
            self.errors[np.ix_(rows, columns)] = answer.standard_errors

    def of(self, position: int) -> tuple[FloatArray, FloatArray]:
        """Values and standard errors of a PUB, in its shape."""
        rows, columns = self.cells[position]
        return self.values[rows, columns], self.errors[rows, columns]

    def _parts(self, *, whole: bool) -> list[tuple[IntArray, IntArray]]:
        """(rows, observables) rectangles that cover what is asked for."""
        asked = np.zeros((len(self.rows), len(self.terms)), dtype=bool)
        for rows, columns in self.cells:
            asked[rows, columns] = True
        if not asked.any():
            return []
        if asked.all() or (whole and 2 * asked.sum() >= asked.size):
            return [(np.arange(asked.shape[0]), np.arange(asked.shape[1]))]
        patterns, which = np.unique(asked, axis=0, return_inverse=True)
        by_row = [(np.flatnonzero(which.reshape(-1) == n), np.flatnonzero(p)) for n, p in enumerate(patterns)]
        patterns, which = np.unique(asked.T, axis=0, return_inverse=True)
        by_column = [(np.flatnonzero(p), np.flatnonzero(which.reshape(-1) == n)) for n, p in enumerate(patterns)]
        # Samples of one row are taken together, so that its values scatter together.
        parts = by_row if not whole or len(by_row) <= len(by_column) else by_column
        return [(rows, columns) for rows, columns in parts if len(rows) and len(columns)]

    def _request(self, rows: IntArray, columns: IntArray) -> Request:
        inputs, weights = self.prepared.split(self.rows[rows])
        observables = self.prepared.observables(tuple(self.terms[column] for column in columns))
        return Request(self.prepared.compiled, observables, inputs, weights)
