"""The exact gradient that qiskit-machine-learning takes for its estimator networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.providers import BackendV2, Options
from qiskit.quantum_info.operators.base_operator import BaseOperator
from qiskit_machine_learning.gradients import BaseEstimatorGradient, DerivativeType, EstimatorGradientResult

from backends.protocol import FloatArray
from backends.target import Target
from backends.twin.primitives.estimator import TwinEstimator
from backends.twin.primitives.prepare import SparseTerms, support, terms_of
from circuits.errors import UsageError

IntArray = npt.NDArray[np.int64]


class TwinEstimatorGradient(BaseEstimatorGradient):
    """Exact gradients of expectation values under a device's noise, for EstimatorQNN and its kin.

        estimator = TwinEstimator(backend, exact=True)
        qnn = EstimatorQNN(circuit=isa, observables=[observable.apply_layout(isa.layout)], input_params=x,
                           weight_params=w, estimator=estimator, gradient=TwinEstimatorGradient(estimator))

    Instead of two circuits a parameter, sample and observable, as the parameter-shift rule has, a batch is one walk
    through the circuit and back: one for all observables and samples where the samples differ only in parameters before
    the first entangling gate on their qubits. Gradients are those of the exact expectation values whatever the
    estimator's precision, for weights and inputs, in gates of any angle, also shared or not linear in the parameters.

    Args:
        backend_or_estimator: A TwinEstimator, whose settings it shares, or a device to make one from.
        **settings: For the TwinEstimator, where a device is given: readout_error, idle_noise, dtype, device, threads.

    Raises:
        UsageError: Settings beside a TwinEstimator, or no device.
    """

    def __init__(self, backend_or_estimator: TwinEstimator | BackendV2 | Target, **settings: Any) -> None:
        if isinstance(backend_or_estimator, TwinEstimator):
            if settings:
                raise UsageError(
                    f"{', '.join(sorted(settings))}: the gradient takes its settings from the TwinEstimator.",
                    "Give them to the TwinEstimator.",
                )
            estimator = backend_or_estimator
        else:
            estimator = TwinEstimator(backend_or_estimator, **settings)
        super().__init__(estimator, derivative_type=DerivativeType.REAL)
        self._twin = estimator

    @property
    def options(self) -> Options:
        """The gradient's options: there are none."""
        return self._default_options

    def _run(
        self,
        circuits: Sequence[QuantumCircuit],
        observables: Sequence[BaseOperator],
        parameter_values: Sequence[Sequence[float]] | FloatArray,
        parameters: Sequence[Sequence[Parameter]],
        **options: Any,
    ) -> EstimatorGradientResult:
        values = [np.asarray(row, dtype=np.float64) for row in parameter_values]
        terms, term_of = _terms(observables)
        by_circuit: dict[int, list[int]] = {}
        for number, circuit in enumerate(circuits):
            by_circuit.setdefault(id(circuit), []).append(number)
        gradients: list[FloatArray] = [np.zeros(0)] * len(circuits)
        for numbers in by_circuit.values():
            circuit = circuits[numbers[0]]
            rows = np.stack([values[n] for n in numbers])
            full = self._of_circuit(circuit, terms, term_of[numbers], rows)
            column = {parameter: number for number, parameter in enumerate(circuit.parameters)}
            # Networks ask for the same parameters, in one object, at every sample.
            columns = {id(parameters[n]): parameters[n] for n in numbers}
            places = {key: [column[parameter] for parameter in wanted] for key, wanted in columns.items()}
            for number, row in zip(numbers, full, strict=True):
                gradients[number] = row[places[id(parameters[number])]]
        return EstimatorGradientResult(
            gradients=gradients, metadata=[{"parameters": p} for p in parameters], options=Options(**options)
        )

    @staticmethod
    def _validate_arguments(
        circuits: Sequence[QuantumCircuit],
        observables: Sequence[BaseOperator],
        parameter_values: Sequence[Sequence[float]] | FloatArray,
        parameters: Sequence[Sequence[Parameter]],
    ) -> None:
        """The base class's checks, once for what a network gives many times: they took longer than small gradients."""
        check = BaseEstimatorGradient._validate_arguments
        if len(circuits) == len(observables) == len(parameter_values) == len(parameters):
            asked = list(zip(circuits, observables, parameter_values, parameters, strict=True))
            once = {(id(c), id(o), len(v), id(p)): (c, o, v, p) for c, o, v, p in asked}
            if len(once) < len(asked):
                try:
                    check(*([row[column] for row in once.values()] for column in range(4)))
                    return
                except ValueError:
                    pass  # the whole list, for a message with the right number
        check(circuits, observables, parameter_values, parameters)

    def _of_circuit(
        self, circuit: QuantumCircuit, terms: Sequence[SparseTerms], term_of: IntArray, rows: FloatArray
    ) -> FloatArray:
        """N observables as numbers among `terms`, (N, P) values -> (N, P) gradients by all the circuit's parameters."""
        out = np.empty(rows.shape)
        with self._twin.lock:
            prepared = self._twin.preparer.prepare(circuit, support(terms[t] for t in np.unique(term_of)))
            engine = self._twin.executor(None)
            distinct, point_of = np.unique(rows, axis=0, return_inverse=True)
            point_of = point_of.reshape(-1)
            # Observables that are asked for at the same points go together.
            together: dict[bytes, list[int]] = {}
            for term in np.unique(term_of).tolist():
                together.setdefault(np.unique(point_of[term_of == term]).tobytes(), []).append(term)
            for key, group in together.items():
                places = np.frombuffer(key, dtype=point_of.dtype)
                values = distinct[places]
                inputs, weights = prepared.split(values)
                wanted = prepared.observables(tuple(terms[t] for t in group))
                _, by_inputs, by_weights = engine.jacobian(prepared.compiled, wanted, inputs, weights)
                by_angles = np.concatenate([by_inputs, by_weights], axis=2)
                by_parameters = prepared.angles.pull_back(by_angles, values)
                mine = np.flatnonzero(np.isin(term_of, group))
                samples, columns = np.searchsorted(places, point_of[mine]), np.searchsorted(group, term_of[mine])
                out[mine] = by_parameters[samples, columns]
        return out


def _terms(observables: Sequence[BaseOperator]) -> tuple[list[SparseTerms], IntArray]:
    """The different `terms_of` observables, and which each has; networks give one object for every sample."""
    numbers: dict[SparseTerms, int] = {}
    known: dict[int, int] = {}
    for observable in observables:
        if id(observable) not in known:
            known[id(observable)] = numbers.setdefault(terms_of(observable), len(numbers))
    return list(numbers), np.array([known[id(observable)] for observable in observables], dtype=np.int64)
