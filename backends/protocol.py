"""The few types through which everything is run: Request, Result, Executor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt
from qiskit.quantum_info import SparsePauliOp

from circuits.types import CompiledCircuit

if TYPE_CHECKING:
    import torch

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Request:
    """One compiled circuit, its observables, and the parameters to run it with.

    Attributes:
        circuit: From `circuits.compile.compile_ansatz`.
        observables: Pauli sums on the circuit's virtual qubits (length n), m of them.
        inputs: (batch, len(circuit.inputs)), radians.
        weights: (len(circuit.weights),) for all samples, or (batch, len(circuit.weights)), radians.
        raw: Whether it is the device's own answer that is asked for: no mitigation, though in the same call.
    """

    circuit: CompiledCircuit
    observables: tuple[SparsePauliOp, ...]
    inputs: FloatArray
    weights: FloatArray
    raw: bool = False


@dataclass(frozen=True)
class Result:
    """What one request gave.

    Attributes:
        values: (batch, m) expectation values. Not clipped: mitigation may leave [-1, 1].
        standard_errors: (batch, m), zero where the engine is exact.
        metadata: engine, shots, seconds, job ids ...
    """

    values: FloatArray
    standard_errors: FloatArray
    metadata: dict[str, Any] = field(default_factory=dict)


@runtime_checkable
class Executor(Protocol):
    """Runs lists of requests. All that a step needs goes in one call, for a device must get it as one job.

    Opened and closed as a context manager. `differentiable` says whether `expectations` is there.
    """

    name: str
    differentiable: bool

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def run(self, requests: Sequence[Request], *, seed: int | None = None) -> list[Result]:
        """Run every request; `seed` fixes sampling (exact engines ignore it). Results come in the same order."""
        ...


@runtime_checkable
class DifferentiableExecutor(Executor, Protocol):
    """An engine that gives exact gradients: its expectation values are part of torch's graph."""

    def expectations(
        self,
        circuit: CompiledCircuit,
        observables: tuple[SparsePauliOp, ...],
        inputs: torch.Tensor,
        weights: torch.Tensor,
    ) -> torch.Tensor:
        """(batch, n_inputs), (n_weights,) -> (batch, m), differentiable in both."""
        ...
