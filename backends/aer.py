"""Shots from Aer: a device's counts, sampled on the qubits in use with the device's noise model."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from qiskit import QuantumCircuit
from qiskit_aer import AerSimulator
from qiskit_aer.noise import NoiseModel

from backends.observables import ZString, check_requests, z_strings
from backends.protocol import FloatArray, Request, Result
from backends.target import Target
from circuits.errors import QrunError, UsageError
from circuits.types import CompiledCircuit
from circuits.waiting import without_idle_delays

IntArray = npt.NDArray[np.int64]

_DENSITY_MATRIX_WIRES = 10
"""Up to here the density matrix is evolved once and sampled; beyond, Aer follows one noisy trajectory a shot."""

_SIMULATORS = 16


class AerExecutor:
    """Samples circuits on Aer, under the device's gate and readout errors.

    Args:
        target: Where to run; circuits must be compiled for it. The ideal target has no noise.
        shots: Shots per circuit; None for exact values (a reference for tests, up to 10 device qubits).
        readout_error: Whether readout errors count.

    Raises:
        UsageError: Shots below 1.
    """

    name = "aer"
    differentiable = False

    def __init__(self, target: Target, *, shots: int | None = 1024, readout_error: bool = True) -> None:
        if shots is not None and (not isinstance(shots, int) or isinstance(shots, bool) or shots < 1):
            raise UsageError(f"shots must be 1 or more, not {shots!r}.", "Give a whole number, for example 1024.")
        self.target, self.shots, self.readout_error = target, shots, readout_error
        self._simulators: OrderedDict[tuple[int, ...], AerSimulator] = OrderedDict()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._simulators.clear()

    def run(self, requests: Sequence[Request], *, seed: int | None = None) -> list[Result]:
        """Run all requests that use the same device qubits as one Aer job; the same seed gives the same values.

        Raises:
            UsageError: A wrong shape or a value that is not finite.
            QrunError: An observable with X or Y, or a job that failed.
        """
        start = time.perf_counter()
        check_requests(requests)
        strings = [
            [z_strings(observable, request.circuit.num_qubits) for observable in request.observables]
            for request in requests
        ]
        by_qubits: dict[tuple[int, ...], list[int]] = {}
        for position, request in enumerate(requests):
            if len(request.inputs):
                by_qubits.setdefault(request.circuit.physical_qubits, []).append(position)
        outcomes: list[list[_Outcomes]] = [[] for _ in requests]
        for number, (physical, positions) in enumerate(by_qubits.items()):
            # A job on other qubits has another noise model, and gets a seed of its own.
            own = None if seed is None else int(np.random.SeedSequence([seed, number]).generate_state(1)[0] >> 1)
            answers = self._job([requests[position] for position in positions], physical, own)
            for position, answer in zip(positions, answers, strict=True):
                outcomes[position] = answer
        seconds = time.perf_counter() - start
        metadata = {"engine": self.name, "backend": self.target.name, "shots": self.shots, "seconds": seconds}
        return [
            _estimate(outcome, wanted, self.shots, dict(metadata))
            for outcome, wanted in zip(outcomes, strings, strict=True)
        ]

    def _job(self, requests: Sequence[Request], physical: tuple[int, ...], seed: int | None) -> list[list[_Outcomes]]:
        """Run requests on the same device qubits as one Aer job; one `_Outcomes` a sample."""
        exact = self.shots is None
        options: dict[str, Any] = {} if exact else {"shots": self.shots}
        if seed is not None:
            options["seed_simulator"] = seed
        runs: list[tuple[QuantumCircuit, dict[Any, list[float]]]] = []
        for request in requests:
            circuit, binding = _measured(without_idle_delays(request.circuit), exact), _bindings(request)
            # Aer runs a circuit once per bound value, and one without free parameters once.
            runs += [(circuit, binding)] if binding else [(circuit, {})] * len(request.inputs)
        result = (
            self._simulator(physical)
            .run(
                [circuit for circuit, _ in runs],
                parameter_binds=[binding for _, binding in runs],
                **options,
            )
            .result()
        )
        if not result.success:
            raise QrunError(f"Aer could not run the circuits: {result.status}.")
        entries = iter(result.results)
        return [
            [
                self._exact(next(entries).data.probabilities, request.circuit) if exact else _counts(next(entries).data)
                for _ in request.inputs
            ]
            for request in requests
        ]

    def _simulator(self, physical: tuple[int, ...]) -> AerSimulator:
        """The simulator of the qubits in use, with their noise; built once."""
        if physical in self._simulators:
            return self._simulators[physical]
        # Each circuit is seeded by itself, so that running several at once does not change what they give.
        options: dict[str, Any] = {"max_parallel_experiments": 0, "method": "statevector"}
        if self.target.backend is not None:
            device = self.target.cut(physical)
            options["noise_model"] = NoiseModel.from_backend(
                device, readout_error=self.readout_error and self.shots is not None
            )
            if len(physical) <= _DENSITY_MATRIX_WIRES:
                # Named, since Aer would otherwise follow one noisy trajectory a shot.
                options["method"] = "density_matrix"
            elif self.shots is None:
                raise QrunError(
                    f"exact values on Aer go up to {_DENSITY_MATRIX_WIRES} device qubits, this circuit uses "
                    f"{len(physical)}.",
                    "Give a number of shots, or choose fewer qubits.",
                )
        self._simulators[physical] = AerSimulator(**options)
        if len(self._simulators) > _SIMULATORS:
            self._simulators.popitem(last=False)
        return self._simulators[physical]

    def _exact(self, probabilities: FloatArray, circuit: CompiledCircuit) -> _Outcomes:
        """Probabilities of what is read on the virtual qubits, from those of the wires."""
        width = circuit.circuit.num_qubits
        cube = np.asarray(probabilities, dtype=np.float64).reshape((2,) * width)
        if self.readout_error:
            for wire, qubit in enumerate(circuit.physical_qubits):
                p01, p10 = self.target.readout_errors(qubit)
                confusion = np.array([[1.0 - p01, p10], [p01, 1.0 - p10]])
                # Little-endian: wire 0 is the last axis.
                axis = width - 1 - wire
                cube = np.moveaxis(np.tensordot(confusion, cube, axes=(1, axis)), 0, axis)
        wires = np.arange(2**width)
        read = np.zeros_like(wires)
        for qubit, wire in enumerate(circuit.final_layout):
            read |= ((wires >> wire) & 1) << qubit
        return _Outcomes(read, cube.reshape(-1))


@dataclass(frozen=True)
class _Outcomes:
    """What was read on the virtual qubits (bit v is qubit v), and how often as a share of all."""

    read: IntArray
    share: FloatArray


def _measured(compiled: CompiledCircuit, exact: bool) -> QuantumCircuit:
    """The circuit with a measurement of every virtual qubit, or saving the probabilities of all wires."""
    circuit = QuantumCircuit(compiled.circuit.num_qubits, 0 if exact else compiled.num_qubits)
    circuit.compose(compiled.circuit, inplace=True)
    if exact:
        circuit.save_probabilities()  # of all wires: over a part of a wide circuit Aer gives wrong values
    else:
        for qubit, wire in enumerate(compiled.final_layout):
            circuit.measure(wire, qubit)
    return circuit


def _bindings(request: Request) -> dict[Any, list[float]]:
    """A value per sample for every parameter that the compiled circuit still has."""
    batch, circuit = len(request.inputs), request.circuit
    weights = np.broadcast_to(request.weights, (batch, len(circuit.weights)))
    free = set(circuit.circuit.parameters)
    columns = [*zip(circuit.inputs, request.inputs.T, strict=True), *zip(circuit.weights, weights.T, strict=True)]
    return {parameter: column.tolist() for parameter, column in columns if parameter in free}


def _counts(data: Any) -> _Outcomes:
    counts: dict[str, int] = data.counts
    read = np.array([int(key, 16) for key in counts], dtype=np.int64)
    share = np.array(list(counts.values()), dtype=np.float64)
    order = np.argsort(read)  # so that rounding does not depend on the order in which Aer lists them
    return _Outcomes(read[order], share[order] / share.sum())


def _estimate(
    samples: Sequence[_Outcomes], strings: Sequence[Sequence[ZString]], shots: int | None, metadata: dict[str, Any]
) -> Result:
    """Means over what was read, and their standard errors: the sample deviation over sqrt(shots)."""
    values = np.zeros((len(samples), len(strings)))
    errors = np.zeros_like(values)
    for b, sample in enumerate(samples):
        for m, terms in enumerate(strings):
            each = np.zeros(len(sample.read))
            for coefficient, qubits in terms:
                mask = sum(1 << qubit for qubit in qubits)
                each += coefficient * (1.0 - 2.0 * (np.bitwise_count(sample.read & mask) & 1))
            mean = float(sample.share @ each)
            values[b, m] = mean
            if shots is not None and shots > 1:
                errors[b, m] = np.sqrt(float(sample.share @ (each - mean) ** 2) / (shots - 1))
    return Result(values, errors, metadata)
