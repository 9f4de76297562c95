"""The exact noisy twin of a device as an engine."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from qiskit.quantum_info import SparsePauliOp

from backends.observables import ZString, check_arrays, check_requests, z_strings
from backends.protocol import FloatArray, Request, Result
from backends.target import Target
from backends.twin.buffers import BufferPool
from backends.twin.channels import Channels
from backends.twin.heisenberg import Heisenberg
from backends.twin.memory import check_memory
from backends.twin.program import Program, build_program
from circuits.errors import UsageError
from circuits.types import CompiledCircuit

_CIRCUITS, _KERNELS = 64, 256
"""How many compiled programs, and programs with observables, an executor keeps."""


class TwinExecutor:
    """Exact expectation values under the device's noise, and their exact gradients.

    Gate and readout errors are those of Aer's `NoiseModel.from_backend`; the ideal target runs the same way without
    any. Observables are sums of Pauli-Z strings; inputs enter before the first entangling gate on their qubit.

    Args:
        target: Where to run; circuits must be compiled for it.
        dtype: torch.float64, or torch.float32 for twice the speed at an error of about 1e-6.
        readout_error: Whether readout errors count.
        shots: None; this engine is exact.

    Raises:
        UsageError: Shots were asked for, or another dtype.
    """

    name = "twin"
    differentiable = True

    def __init__(
        self,
        target: Target,
        *,
        dtype: torch.dtype = torch.float64,
        readout_error: bool = True,
        shots: int | None = None,
    ) -> None:
        if shots is not None:
            raise UsageError("the twin engine is exact and takes no shots.", "Leave --shots out, or use --engine aer.")
        if dtype not in (torch.float32, torch.float64):
            raise UsageError(f"the twin engine computes in float32 or float64, not {dtype}.")
        self.target, self.dtype, self.readout_error = target, dtype, readout_error
        self._programs: OrderedDict[int, tuple[CompiledCircuit, Program]] = OrderedDict()
        self._pool = BufferPool()
        self._kernels: OrderedDict[Any, tuple[CompiledCircuit, Heisenberg]] = OrderedDict()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._programs.clear()
        self._kernels.clear()
        self._pool.clear()

    def run(self, requests: Sequence[Request], *, seed: int | None = None) -> list[Result]:
        """Exact values of every request; `seed` has nothing to fix. Equal rows of weights are computed once."""
        check_requests(requests)
        return [self._run_one(request) for request in requests]

    def expectations(
        self,
        circuit: CompiledCircuit,
        observables: tuple[SparsePauliOp, ...],
        inputs: torch.Tensor,
        weights: torch.Tensor,
    ) -> torch.Tensor:
        """(batch, n_inputs), (n_weights,) -> (batch, m) in this engine's dtype, differentiable in both.

        Raises:
            UsageError: A wrong shape or a value that is not finite.
            QrunError: An observable or a circuit that this engine does not take, or too much memory.
        """
        if weights.ndim != 1:
            raise UsageError(
                f"weights have shape {tuple(weights.shape)}, expectations takes ({len(circuit.weights)},)."
            )
        check_arrays(circuit, _numpy(inputs), _numpy(weights))
        kernel = self._kernel(circuit, observables)
        inputs, weights = inputs.to(self.dtype), weights.to(self.dtype)
        return kernel.values(kernel.observables_at_start(weights), inputs, weights)

    def _run_one(self, request: Request) -> Result:
        start = time.perf_counter()
        kernel = self._kernel(request.circuit, request.observables)
        inputs = torch.as_tensor(request.inputs, dtype=self.dtype)
        rows, which = np.unique(np.atleast_2d(request.weights), axis=0, return_inverse=True)
        values = np.empty((len(inputs), len(request.observables)))
        with torch.no_grad():
            for number, row in enumerate(rows):
                weights = torch.as_tensor(row, dtype=self.dtype)
                part = slice(None) if request.weights.ndim == 1 else np.flatnonzero(which.reshape(-1) == number)
                values[part] = kernel.values(kernel.observables_at_start(weights), inputs[part], weights).numpy()
        metadata = {
            "engine": self.name,
            "backend": self.target.name,
            "shots": None,
            "precision": str(self.dtype).removeprefix("torch."),
            "weight_vectors": len(rows),
            "seconds": time.perf_counter() - start,
        }
        return Result(values, np.zeros_like(values), metadata)

    def _program(self, circuit: CompiledCircuit) -> Program:
        known = self._programs.get(id(circuit))
        if known is None:
            backend = self.target.backend
            channels = Channels(None if backend is None else backend.target, circuit.physical_qubits)
            # The circuit is kept beside its program, so that its id stays its own.
            known = circuit, build_program(circuit, channels, readout_error=self.readout_error)
            self._programs[id(circuit)] = known
            if len(self._programs) > _CIRCUITS:
                self._programs.popitem(last=False)
        return known[1]

    def _kernel(self, circuit: CompiledCircuit, observables: tuple[SparsePauliOp, ...]) -> Heisenberg:
        strings = tuple(z_strings(observable, circuit.num_qubits) for observable in observables)
        key: tuple[int, tuple[tuple[ZString, ...], ...]] = (id(circuit), strings)
        known = self._kernels.get(key)
        if known is None:
            if not strings:
                raise UsageError("a request has no observables.", "Give at least one, for example single_z(qubits).")
            program = self._program(circuit)
            check_memory(len(program.blocks), len(strings), len(program.first), self.dtype.itemsize)
            kernel = Heisenberg(
                program,
                strings,
                n_inputs=len(circuit.inputs),
                n_weights=len(circuit.weights),
                dtype=self.dtype,
                pool=self._pool,
            )
            known = circuit, kernel
            self._kernels[key] = known
            if len(self._kernels) > _KERNELS:
                self._kernels.popitem(last=False)
        return known[1]


def _numpy(tensor: torch.Tensor) -> FloatArray:
    return tensor.detach().cpu().to(torch.float64).numpy()
