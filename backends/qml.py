"""The stack that users of Qiskit know, as an engine: EstimatorQNN and TorchConnector over Aer's model of the device.

qiskit-machine-learning's network asks BackendEstimatorV2 for every value, and for two shifted circuits a parameter,
sample and observable for a gradient (the parameter-shift rule); Aer samples each of them. It is a reference to compare
with, hundreds of times slower than the twin: take it for a few steps of a small circuit.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from qiskit.primitives import BackendEstimatorV2
from qiskit.quantum_info import SparsePauliOp
from qiskit_aer import AerSimulator
from qiskit_aer.noise import NoiseModel
from qiskit_machine_learning.connectors import TorchConnector
from qiskit_machine_learning.neural_networks import EstimatorQNN
from torch import Tensor

from backends.layer import check_tensor
from backends.observables import check_arrays, check_requests, pauli_sum
from backends.protocol import FloatArray, Request, Result
from backends.target import Target
from circuits.errors import QrunError, UsageError
from circuits.types import CompiledCircuit

_DENSITY_MATRIX_WIRES = 10
"""Up to here Aer evolves the density matrix once and samples it; beyond, it follows one noisy trajectory a shot."""

_NETWORKS = 16
"""How many networks are kept: one for each circuit with its observables."""


class QmlExecutor:
    """EstimatorQNN, TorchConnector and BackendEstimatorV2 on Aer, under the device's gate and readout errors.

    Everything is sampled, also the gradient. The seed of a call of `expectations` is made from its parameters, so
    that the same call gives the same values, and the next step of a training draws afresh.

    Args:
        target: Where to run; circuits must be compiled for it. The ideal target has no noise.
        shots: Shots per circuit.
        readout_error: Whether readout errors count.

    Raises:
        UsageError: Shots below 1.
    """

    name = "qml"
    differentiable = True

    def __init__(self, target: Target, *, shots: int = 1024, readout_error: bool = True) -> None:
        if not isinstance(shots, int) or isinstance(shots, bool) or shots < 1:
            raise UsageError(f"shots must be 1 or more, not {shots!r}.", "Give a whole number, for example 1024.")
        self.target, self.shots, self.readout_error = target, shots, readout_error
        # A hair above 1/sqrt(shots), lest rounding make one shot more of it.
        self.precision = (1.0 + 1e-12) / shots**0.5
        self._start()

    def _start(self) -> None:
        self._estimators: OrderedDict[tuple[int, ...], BackendEstimatorV2] = OrderedDict()
        self._networks: OrderedDict[tuple[int, Any, bool], _Network] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        """A copy has the same options, and simulators of its own."""
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._estimators.clear()
        self._networks.clear()

    def run(self, requests: Sequence[Request], *, seed: int | None = None) -> list[Result]:
        """One PUB of BackendEstimatorV2 a request; the same seed gives the same values.

        Raises:
            UsageError: A wrong shape or a value that is not finite.
            QrunError: An observable that is not a real sum of Pauli strings on the circuit's qubits.
        """
        check_requests(requests)
        return [self._run_one(request, number, seed) for number, request in enumerate(requests)]

    def expectations(
        self, circuit: CompiledCircuit, observables: tuple[SparsePauliOp, ...], inputs: Tensor, weights: Tensor
    ) -> Tensor:
        """(batch, n_inputs), (n_weights,) -> (batch, m), with TorchConnector's parameter-shift gradient.

        Raises:
            UsageError: A wrong shape or a value that is not finite.
            QrunError: An observable that is not a real sum of Pauli strings on the circuit's qubits.
        """
        check_tensor("inputs", inputs)
        check_tensor("weights", weights)
        z, theta = _numpy(inputs), _numpy(weights)
        if weights.ndim != 1:
            raise UsageError(
                f"weights have shape {tuple(weights.shape)}, expectations takes ({len(circuit.weights)},)."
            )
        check_arrays(circuit, z, theta)
        if not len(z):
            # No values, and yet a part of the graph: a loss over them has gradients of zero.
            nothing = inputs.sum(1, keepdim=True).to(weights) + 0.0 * weights.sum()
            return nothing.expand(0, len(observables))
        by_inputs = inputs.requires_grad and torch.is_grad_enabled()
        return self._network(circuit, observables, by_inputs=by_inputs).values(inputs, weights)

    def _run_one(self, request: Request, number: int, seed: int | None) -> Result:
        start = time.perf_counter()
        circuit, batch = request.circuit, len(request.inputs)
        observables = _laid_out(circuit, request.observables)
        estimator = self._estimator(circuit.physical_qubits)
        _seed(estimator, None if seed is None else [seed, number])
        rows = np.concatenate([request.inputs, np.broadcast_to(request.weights, (batch, len(circuit.weights)))], axis=1)
        free = set(circuit.circuit.parameters)
        places = [(p, i) for i, p in enumerate((*circuit.inputs, *circuit.weights)) if p in free]
        bindings: dict[Any, FloatArray] = {tuple(p for p, _ in places): rows[:, None, [i for _, i in places]]}
        values, errors = np.zeros((batch, len(observables))), np.zeros((batch, len(observables)))
        if batch and places:
            data = estimator.run([(circuit.circuit, list(observables), bindings)]).result()[0].data
            values, errors = np.asarray(data.evs), np.asarray(data.stds)
        elif batch:  # nothing to bind: a PUB without parameters, once a sample
            for row, answer in enumerate(estimator.run([(circuit.circuit, list(observables))] * batch).result()):
                values[row], errors[row] = answer.data.evs, answer.data.stds
        metadata = {
            "engine": self.name,
            "backend": self.target.name,
            "shots": self.shots,
            "seconds": time.perf_counter() - start,
        }
        return Result(values, errors, metadata)

    def _estimator(self, physical: tuple[int, ...]) -> BackendEstimatorV2:
        """The estimator of the qubits in use; built once."""
        known = self._estimators.get(physical)
        if known is None:
            options: dict[str, Any] = {"max_parallel_experiments": 0, "method": "statevector"}
            if self.target.backend is not None:
                options["noise_model"] = NoiseModel.from_backend(
                    self.target.cut(physical), readout_error=self.readout_error
                )
                if len(physical) <= _DENSITY_MATRIX_WIRES:
                    options["method"] = "density_matrix"
            known = BackendEstimatorV2(backend=AerSimulator(**options), options={"default_precision": self.precision})
            self._estimators[physical] = known
            if len(self._estimators) > _NETWORKS:
                self._estimators.popitem(last=False)
        return known

    def _network(
        self, circuit: CompiledCircuit, observables: tuple[SparsePauliOp, ...], *, by_inputs: bool
    ) -> _Network:
        """One with gradients by the inputs and one without: a backward pass reads the network's flag, much later."""
        sums = tuple(pauli_sum(observable, circuit.num_qubits) for observable in observables)
        key = id(circuit), sums, by_inputs
        known = self._networks.get(key)
        if known is None:
            if not observables:
                raise UsageError("a request has no observables.", "Give at least one, for example single_z(qubits).")
            estimator = self._estimator(circuit.physical_qubits)
            known = _Network.of(circuit, observables, estimator, self.precision, by_inputs=by_inputs)
            self._networks[key] = known
            if len(self._networks) > _NETWORKS:
                self._networks.popitem(last=False)
        return known


class _SeededQNN(EstimatorQNN):
    """EstimatorQNN whose draws depend on a call's parameters alone: its backward pass may come after other calls."""

    def _forward(self, input_data: Any, weights: Any) -> Any:
        _seed(self.estimator, _digest(input_data, weights))
        return super()._forward(input_data, weights)

    def _backward(self, input_data: Any, weights: Any) -> Any:
        _seed(self.estimator, _digest(input_data, weights))
        return super()._backward(input_data, weights)


@dataclass(frozen=True)
class _Network:
    """EstimatorQNN and TorchConnector for a circuit (kept, so that its id stays its own) and observables.

    `inputs` and `weights` are the columns of the parameters that the compiler left in the circuit.
    """

    circuit: CompiledCircuit
    connector: TorchConnector
    inputs: list[int]
    weights: list[int]

    @classmethod
    def of(
        cls,
        circuit: CompiledCircuit,
        observables: tuple[SparsePauliOp, ...],
        estimator: BackendEstimatorV2,
        precision: float,
        *,
        by_inputs: bool,
    ) -> _Network:
        free = set(circuit.circuit.parameters)
        inputs = [i for i, p in enumerate(circuit.inputs) if p in free]
        weights = [i for i, p in enumerate(circuit.weights) if p in free]
        if not weights:
            raise QrunError(
                f"{circuit.ansatz.name} has no weights, and EstimatorQNN cannot be trained without.",
                "Take --engine twin.",
            )
        qnn = _SeededQNN(
            circuit=circuit.circuit,
            estimator=estimator,
            observables=_laid_out(circuit, observables),
            input_params=[circuit.inputs[i] for i in inputs],
            weight_params=[circuit.weights[i] for i in weights],
            default_precision=precision,
            input_gradients=by_inputs,
        )
        # Weights come with each call; the connector's own are never used.
        connector = TorchConnector(qnn, initial_weights=np.zeros(len(weights)))
        return cls(circuit, connector, inputs, weights)

    def values(self, inputs: Tensor, weights: Tensor) -> Tensor:
        # numpy, which the network computes in, has no bfloat16.
        own = {"_weights": weights.double()[self.weights]}
        result: Tensor = torch.func.functional_call(self.connector, own, (inputs.double()[:, self.inputs],))
        return result.to(weights.dtype)


def _laid_out(circuit: CompiledCircuit, observables: tuple[SparsePauliOp, ...]) -> list[SparsePauliOp]:
    """Observables on the wires that the virtual qubits end on; all of them checked first."""
    width = circuit.circuit.num_qubits
    for observable in observables:
        pauli_sum(observable, circuit.num_qubits)
    return [observable.apply_layout(list(circuit.final_layout), num_qubits=width) for observable in observables]


def _seed(estimator: Any, entropy: list[int] | None) -> None:
    own = None if entropy is None else int(np.random.SeedSequence(entropy).generate_state(1)[0] >> 1)
    estimator.options.seed_simulator = own


def _digest(inputs: FloatArray, weights: FloatArray) -> list[int]:
    raw = hashlib.sha256(np.ascontiguousarray(inputs).tobytes() + np.ascontiguousarray(weights).tobytes()).digest()
    return [int.from_bytes(raw[:8], "little")]


def _numpy(tensor: Tensor) -> FloatArray:
    return tensor.detach().cpu().to(torch.float64).numpy()
