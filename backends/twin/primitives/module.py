"""A circuit under a device's noise as a torch module."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.primitives.containers.observables_array import ObservablesArray
from qiskit.providers import BackendV2
from qiskit.quantum_info import Pauli, SparseObservable, SparsePauliOp
from torch import Tensor

from backends.layer import check_tensor
from backends.target import Target
from backends.twin.executor import TwinExecutor
from backends.twin.primitives.estimator import seeded
from backends.twin.primitives.prepare import (
    Preparer,
    SparseTerms,
    as_dtype,
    as_flag,
    as_observable,
    as_target,
    sparse_terms,
    support,
)
from circuits.errors import UsageError

_SINGLE = (str, Mapping, Pauli, SparsePauliOp, SparseObservable)
"""What is one observable, although some of it can be walked through."""


class TwinModule(torch.nn.Module):
    """Expectation values of an ISA circuit under a device's noise, with exact gradients for weights and inputs.

        module = TwinModule(isa, [observable.apply_layout(isa.layout)], FakeKyiv(), input_params=x)
        loss = module(features).square().mean()     # features: (batch, len(x)), radians
        loss.backward()

    The weights are `module.weight`; `state_dict` has them, and nothing else. `module.to(...)` moves the engine along.

    Args:
        circuit: In the device's gates, on its physical qubits; final measurements are ignored.
        observables: m of what qiskit's estimators take, or one, on the circuit's qubits: laid out as it is, with
            `observable.apply_layout(circuit.layout)`.
        backend: The device, any BackendV2 with a calibration in its target.
        input_params: Parameters that `forward` binds, in the order of its columns.
        weight_params: Parameters that are trained, in the order of `weight`; by default all others, in the circuit's
            order.
        initial_weights: (n_weights,) radians; by default uniform in [-pi, pi) from `seed`.
        seed: Of the initial weights; a number, or a numpy Generator.
        readout_error: Whether readout errors count.
        idle_noise: Whether qubits relax while they wait.
        dtype: "float32" or "float64".
        device: Where torch computes: "cpu", "cuda" ...
        threads: Of the engine.

    Raises:
        UsageError: A circuit that the device cannot run as it is, no observables or ones on another number of qubits,
            parameters that are missing or twice, initial weights of a wrong shape, or a wrong option.
    """

    def __init__(
        self,
        circuit: QuantumCircuit,
        observables: Sequence[Any] | Any,
        backend: BackendV2 | Target,
        *,
        input_params: Iterable[Parameter] = (),
        weight_params: Iterable[Parameter] | None = None,
        initial_weights: npt.ArrayLike | Tensor | None = None,
        seed: int | np.random.Generator = 0,
        readout_error: bool = True,
        idle_noise: bool = False,
        dtype: str | torch.dtype = "float32",
        device: str = "cpu",
        threads: int = 1,
    ) -> None:
        super().__init__()
        if not isinstance(circuit, QuantumCircuit):
            raise UsageError(f"a TwinModule is made of a QuantumCircuit, not of {type(circuit).__name__}.")
        inputs = _parameters("input_params", input_params)
        weights = (
            _parameters("weight_params", weight_params)
            if weight_params is not None
            else tuple(parameter for parameter in circuit.parameters if parameter not in inputs)
        )
        _check_split(circuit, inputs, weights)
        self._target = as_target(backend)
        self._settings: dict[str, Any] = {
            "readout_error": as_flag("readout_error", readout_error),
            "idle_noise": as_flag("idle_noise", idle_noise),
            "threads": threads,
        }
        self._engine: TwinExecutor | None = self._make_engine(as_dtype(dtype), device)
        dtype, where = self._engine.dtype, self._engine.device
        terms = _terms(observables, circuit)
        self._prepared = Preparer(self._target).prepare(circuit, support(terms), inputs)
        self._observables = self._prepared.observables(tuple(terms))
        # Columns of (inputs, weights) in the order of the circuit's parameters.
        place = {parameter: number for number, parameter in enumerate((*inputs, *weights))}
        self._order = [place[parameter] for parameter in circuit.parameters]
        self.n_inputs, self.n_outputs = len(inputs), len(terms)
        start = _initial(initial_weights, len(weights), seed)
        self.weight = torch.nn.Parameter(torch.as_tensor(start, dtype=dtype, device=where))

    def forward(self, inputs: Tensor | None = None) -> Tensor:
        """(batch, n_inputs) radians -> (batch, m), in the dtype of the weights; (n_inputs,) -> (m,).

        Without input parameters `inputs` may be left out, and the result is (m,).

        Raises:
            UsageError: No tensor of real numbers, a wrong shape, or a value that is not finite.
        """
        if inputs is None:
            inputs = self.weight.new_zeros(0)
        check_tensor("inputs", inputs)
        if inputs.ndim not in (1, 2) or inputs.shape[-1] != self.n_inputs:
            raise UsageError(f"inputs have shape {tuple(inputs.shape)}, the module takes (batch, {self.n_inputs}).")
        rows = torch.atleast_2d(inputs).to(self.weight)
        together = torch.cat([rows, self.weight.expand(len(rows), -1)], 1)[:, self._order]
        if not len(rows):
            # No values, and yet a part of the graph of inputs and weights: a loss over them has gradients of zero.
            return together.sum(1, keepdim=True).expand(0, self.n_outputs)
        angles = self._prepared.angles.tensor(together)
        split = len(self._prepared.compiled.inputs)
        # No weight of the engine reads an input, so that all rows have the same.
        values = self._matching_engine().expectations(
            self._prepared.compiled, self._observables, angles[:, :split], angles[0, split:]
        )
        values = values.to(self.weight)
        return values if inputs.ndim == 2 else values[0]

    def extra_repr(self) -> str:
        """For print(module)."""
        return f"{self.n_inputs} inputs, {len(self.weight)} weights, {self.n_outputs} outputs on {self._target.name}"

    def __getstate__(self) -> dict[str, Any]:
        # Copies make an engine of their own: its buffers cannot be copied.
        return {**self.__dict__, "_engine": None}

    def _matching_engine(self) -> TwinExecutor:
        engine = self._engine
        if engine is None or engine.dtype != self.weight.dtype or engine.device != self.weight.device:
            engine = self._engine = self._make_engine(as_dtype(self.weight.dtype), self.weight.device)
        return engine

    def _make_engine(self, dtype: torch.dtype, device: str | torch.device) -> TwinExecutor:
        return TwinExecutor(self._target, dtype=dtype, device=device, **self._settings)


def _parameters(name: str, given: object) -> tuple[Parameter, ...]:
    found = (given,) if isinstance(given, Parameter) or not isinstance(given, Iterable) else tuple(given)
    for parameter in found:
        if not isinstance(parameter, Parameter):
            raise UsageError(
                f"{name} must be qiskit Parameters, and {parameter!r} is none.",
                "Take them from circuit.parameters, or from the ParameterVector that the circuit was made with.",
            )
    return found


def _terms(observables: Any, circuit: QuantumCircuit) -> list[SparseTerms]:
    """The observables' terms; all of them must be as wide as the circuit."""
    if isinstance(observables, ObservablesArray):
        observables = np.atleast_1d(observables.sparse_observables_array())
    single = isinstance(observables, _SINGLE) or not isinstance(observables, Iterable)
    known = [as_observable(observable) for observable in ([observables] if single else observables)]
    if not known:
        raise UsageError("a TwinModule needs observables.", "Give at least one.")
    for number, observable in enumerate(known):
        if observable.num_qubits != circuit.num_qubits:
            raise UsageError(
                f"observable {number} is on {observable.num_qubits} qubits, the circuit {circuit.name} on "
                f"{circuit.num_qubits}.",
                "Lay it out as the circuit is: observable.apply_layout(circuit.layout).",
            )
    return [sparse_terms(observable) for observable in known]


def _check_split(circuit: QuantumCircuit, inputs: tuple[Parameter, ...], weights: tuple[Parameter, ...]) -> None:
    named = [*inputs, *weights]
    strange = sorted({p.name for p in named}.difference(p.name for p in circuit.parameters))
    if strange:
        raise UsageError(f"the circuit {circuit.name} has no parameters {', '.join(strange)}.")
    twice = sorted({p.name for p in named if named.count(p) > 1})
    if twice:
        raise UsageError(f"parameters named twice: {', '.join(twice)}.", "Each is either an input or a weight.")
    missing = sorted(p.name for p in circuit.parameters if p not in named)
    if missing:
        raise UsageError(
            f"parameters of {circuit.name} that are neither inputs nor weights: {', '.join(missing)}.",
            "Leave weight_params out, and they are trained.",
        )


def _initial(
    weights: npt.ArrayLike | Tensor | None, count: int, seed: int | np.random.Generator
) -> npt.NDArray[np.float64]:
    if seed is None:
        raise UsageError("a TwinModule starts from a seed.", "Give a whole number, 0 or more, or a numpy Generator.")
    random = seeded(seed)
    if weights is None:
        return random.uniform(-np.pi, np.pi, count)
    if isinstance(weights, Tensor):
        weights = weights.detach().cpu().numpy()
    try:
        given = np.asarray(weights)
    except ValueError:  # rows of different lengths
        given = np.asarray(None)
    if given.dtype.kind not in "fiu":
        raise UsageError(f"initial_weights must be {count} real numbers, not {weights!r:.60}.")
    if given.shape != (count,) or not np.isfinite(given).all():
        raise UsageError(f"initial_weights have shape {given.shape}; ({count},) finite numbers are needed.")
    return given.astype(np.float64)
