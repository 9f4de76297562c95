"""The exact gradient that qiskit-machine-learning takes for its estimator networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
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


class TwinEstimatorGradient(BaseEstimatorGradient):
    """Exact gradients of expectation values under a device's noise, for EstimatorQNN and its kin.

        estimator = TwinEstimator(backend, exact=True)
        qnn = EstimatorQNN(circuit=isa, observables=[observable.apply_layout(isa.layout)], input_params=x,
                           weight_params=w, estimator=estimator, gradient=TwinEstimatorGradient(estimator))

    Instead of two circuits a parameter, sample and observable, as the parameter-shift rule has, a batch is one walk
    through the circuit and back. Gradients are those of the exact expectation values whatever the estimator's
    precision, for weights and inputs, in gates of any angle, also shared or not linear in the parameters.

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
        terms = _terms(observables)
        by_circuit: dict[int, list[int]] = {}
        for number, circuit in enumerate(circuits):
            by_circuit.setdefault(id(circuit), []).append(number)
        gradients: list[FloatArray] = [np.zeros(0)] * len(circuits)
        for numbers in by_circuit.values():
            circuit = circuits[numbers[0]]
            full = self._of_circuit(circuit, [terms[n] for n in numbers], np.stack([values[n] for n in numbers]))
            column = {parameter: number for number, parameter in enumerate(circuit.parameters)}
            for number, row in zip(numbers, full, strict=True):
                gradients[number] = row[[column[parameter] for parameter in parameters[number]]]
        return EstimatorGradientResult(
            gradients=gradients, metadata=[{"parameters": p} for p in parameters], options=Options(**options)
        )

    def _of_circuit(self, circuit: QuantumCircuit, terms: list[SparseTerms], rows: FloatArray) -> FloatArray:
        """N observables, (N, P) values -> (N, P) gradients by all of the circuit's parameters."""
        with self._twin.lock:
            prepared = self._twin.preparer.prepare(circuit, support(terms))
            engine = self._twin.executor(None)
            distinct, which = np.unique(rows, axis=0, return_inverse=True)
            # Observables that are asked for at the same points go together.
            points: dict[SparseTerms, list[int]] = {}
            for term, point in zip(terms, which.reshape(-1).tolist(), strict=True):
                points.setdefault(term, []).append(point)
            together: dict[tuple[int, ...], list[SparseTerms]] = {}
            for term, at in points.items():
                together.setdefault(tuple(sorted(set(at))), []).append(term)
            found: dict[tuple[SparseTerms, int], FloatArray] = {}
            for places, group in together.items():
                values = distinct[list(places)]
                inputs, weights = prepared.split(values)
                wanted = prepared.observables(tuple(group))
                _, by_inputs, by_weights = engine.jacobian(prepared.compiled, wanted, inputs, weights)
                by_angles = np.concatenate([by_inputs, by_weights], axis=2)
                by_parameters = prepared.angles.pull_back(by_angles, values)
                for m, term in enumerate(group):
                    for b, point in enumerate(places):
                        found[term, point] = by_parameters[b, m]
        return np.stack([found[t, p] for t, p in zip(terms, which.reshape(-1).tolist(), strict=True)])


def _terms(observables: Sequence[BaseOperator]) -> list[SparseTerms]:
    """`terms_of` each; networks give the same object for every sample of a batch."""
    known: dict[int, SparseTerms] = {}
    for observable in observables:
        if id(observable) not in known:
            known[id(observable)] = terms_of(observable)
    return [known[id(observable)] for observable in observables]
