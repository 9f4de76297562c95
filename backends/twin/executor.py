"""The exact noisy twin of a device as an engine."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from qiskit.quantum_info import SparsePauliOp

from backends.observables import PauliSum, check_arrays, check_requests, pauli_sum
from backends.protocol import FloatArray, Request, Result
from backends.target import Target
from backends.twin.buffers import BufferPool
from backends.twin.channels import Channels
from backends.twin.density.evaluate import Density
from backends.twin.density.jacobian import jacobian
from backends.twin.density.sampling import estimate
from backends.twin.heisenberg.evaluate import Heisenberg, bytes_needed, plans_for
from backends.twin.heisenberg.jacobian import Jacobian
from backends.twin.heisenberg.plan import Plan
from backends.twin.memory import check_memory
from backends.twin.paths import Path, choose
from backends.twin.program import Program, build_program
from backends.twin.schedule import with_delays
from circuits.errors import UsageError
from circuits.types import CompiledCircuit

_CIRCUITS, _JOBS = 64, 256
"""How many compiled programs, and programs with observables, an executor keeps."""

_SHARED = 4
"""From so many samples a weight vector on, a Jacobian by sweeps is quicker than by density matrices."""

_SWEEP = 2**30
"""Bytes that a Jacobian's sweep may take even where density matrices would take fewer."""


@dataclass
class _Job:
    """A circuit with observables, read once. Both are kept, so that their ids stay their own."""

    circuit: CompiledCircuit
    observables: tuple[SparsePauliOp, ...]
    sums: tuple[PauliSum, ...]
    program: Program
    plans: tuple[Plan, ...]
    kernel: Heisenberg | None = None
    jacobian: Jacobian | None = None
    forced: str = "auto"
    paths: dict[tuple[int, int], Path] = field(default_factory=dict)

    def path(self, batch: int, weight_vectors: int) -> Path:
        """The way for so many samples and different weight vectors."""
        key = (batch, weight_vectors)
        if key not in self.paths:
            self.paths[key] = choose(self.program, self.plans, batch, weight_vectors, forced=self.forced)
        return self.paths[key]


class TwinExecutor:
    """Expectation values under the device's noise, exact or sampled, and exact gradients.

    Gate and readout errors are those of Aer's `NoiseModel.from_backend`; the ideal target runs the same way without
    any. How a circuit is evaluated, in the Heisenberg picture or as a batch of density matrices, is chosen by what it
    costs (`explain` says why).

    Args:
        target: Where to run; circuits must be compiled for it.
        dtype: torch.float64, or torch.float32 for twice the speed at an error of about 1e-6.
        readout_error: Whether readout errors count.
        idle_noise: Whether qubits also relax while they wait: the circuit is scheduled as late as possible first.
        shots: None for exact values; a number samples bitstrings from the exact joint distribution.
        path: "auto" takes the cheaper way; "heisenberg" or "density" forces one for exact values.
        device: Where to compute: "cpu", "cuda", "cuda:1", or a torch.device.
        threads: Python threads that share a large circuit's observables. Results do not depend on it.

    Raises:
        UsageError: Another dtype or path, shots or threads below 1, a device that torch does not have.
    """

    name = "twin"

    def __init__(
        self,
        target: Target,
        *,
        dtype: torch.dtype = torch.float64,
        readout_error: bool = True,
        idle_noise: bool = False,
        shots: int | None = None,
        path: str = "auto",
        device: str | torch.device = "cpu",
        threads: int = 1,
    ) -> None:
        if dtype not in (torch.float32, torch.float64):
            raise UsageError(f"the twin engine computes in float32 or float64, not {dtype}.")
        for what, value in (("shots", shots), ("threads", threads)):
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise UsageError(f"{what} must be 1 or more, not {value!r}.", "Give a whole number.")
        self.target, self.dtype, self.shots, self.threads = target, dtype, shots, threads
        if path not in ("auto", "heisenberg", "density"):
            raise UsageError(f"unknown path {path!r}.", "Known: auto, heisenberg, density.")
        self.readout_error, self.idle_noise, self.forced = readout_error, idle_noise, path
        self.device = _device(device)
        self.differentiable = shots is None
        self._programs: OrderedDict[int, tuple[CompiledCircuit, Program]] = OrderedDict()
        self._pool = BufferPool()
        self._jobs: OrderedDict[tuple[int, int], _Job] = OrderedDict()
        self._densities: OrderedDict[int, tuple[CompiledCircuit, Density]] = OrderedDict()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for cache in (self._programs, self._jobs, self._densities):
            cache.clear()
        self._pool.clear()

    def run(self, requests: Sequence[Request], *, seed: int | None = None) -> list[Result]:
        """Values of every request: exact, or from `shots` samples, which `seed` fixes.

        Raises:
            UsageError: A wrong shape or a value that is not finite.
            QrunError: An observable or a circuit that this engine does not take, or too much memory.
        """
        check_requests(requests)
        results = []
        for number, request in enumerate(requests):
            start = time.perf_counter()
            # Each request has a seed of its own, so that its samples do not depend on the others.
            entropy = None if seed is None else [seed, number]
            values, errors, said = self._run_one(request, entropy)
            metadata = {
                "engine": self.name,
                "backend": self.target.name,
                "shots": self.shots,
                "precision": str(self.dtype).removeprefix("torch."),
                "device": str(self.device),
                **said,
                "seconds": time.perf_counter() - start,
            }
            results.append(Result(values, errors, metadata))
        return results

    def expectations(
        self,
        circuit: CompiledCircuit,
        observables: tuple[SparsePauliOp, ...],
        inputs: torch.Tensor,
        weights: torch.Tensor,
    ) -> torch.Tensor:
        """(batch, n_inputs), (n_weights,) or (batch, n_weights) -> (batch, m), exact, differentiable in both.

        The result is in this engine's dtype and on its device, whatever `shots` says.

        Raises:
            UsageError: A wrong shape or a value that is not finite.
            QrunError: An observable or a circuit that this engine does not take, or too much memory.
        """
        check_arrays(circuit, _numpy(inputs), _numpy(weights))
        job = self._job(circuit, observables)
        inputs = inputs.to(dtype=self.dtype, device=self.device)
        weights = weights.to(dtype=self.dtype, device=self.device)
        if weights.ndim == 2 or job.path(len(inputs), 1).name == "density":
            return self._density(circuit, len(inputs), gradient=True).values(job.sums, inputs, weights)
        return self._heisenberg(job).values(inputs, weights)

    def probabilities(self, circuit: CompiledCircuit, inputs: FloatArray, weights: FloatArray) -> FloatArray:
        """(batch, n_inputs), (n_weights,) or (batch, n_weights) -> (batch, 2^n): the joint distribution as read.

        Bit v of the index is virtual qubit v.

        Raises:
            UsageError: A wrong shape or a value that is not finite.
            QrunError: A circuit that this engine does not take, or too much memory.
        """
        check_arrays(circuit, inputs, weights)
        density = self._density(circuit, len(inputs), gradient=False)
        with torch.no_grad():
            result: FloatArray = (
                density.probabilities(self._tensor(inputs), self._tensor(weights)).double().cpu().numpy()
            )
        return result

    def jacobian(
        self,
        circuit: CompiledCircuit,
        observables: tuple[SparsePauliOp, ...],
        inputs: FloatArray,
        weights: FloatArray,
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Values (batch, m), and every one's derivatives by its inputs (batch, m, n_inputs) and weights (batch, m, nw).

        Raises:
            UsageError: A wrong shape or a value that is not finite.
            QrunError: An observable or a circuit that this engine does not take, or too much memory.
        """
        check_arrays(circuit, inputs, weights)
        job, (batch, ni), nw = self._job(circuit, observables), inputs.shape, weights.shape[-1]
        rows, which = np.unique(np.atleast_2d(weights), axis=0, return_inverse=True)
        # A sweep walks the observables back for one weight vector: it pays where samples share it.
        sweep = self._sweep(job, batch) if len(rows) == 1 or len(rows) * _SHARED <= batch else None
        if sweep is None:
            density, where = self._density(circuit, batch, gradient=True), self._tensor(inputs)
            values, by_inputs, by_weights = jacobian(density, job.sums, where, self._tensor(weights))
            return _numpy(values), _numpy(by_inputs), _numpy(by_weights)
        m = len(job.sums)
        result = np.empty((batch, m)), np.empty((batch, m, ni)), np.empty((batch, m, nw))
        for number, row in enumerate(rows):
            mine = np.arange(batch) if len(rows) == 1 else np.flatnonzero(which.reshape(-1) == number)
            for into, found in zip(result, sweep(self._tensor(inputs[mine]), self._tensor(row)), strict=True):
                into[mine] = _numpy(found)
        return result

    def explain(self, circuit: CompiledCircuit, observables: tuple[SparsePauliOp, ...], batch: int) -> str:
        """How this engine evaluates a circuit for a batch and one weight vector, and why, in a sentence."""
        path = self._job(circuit, observables).path(batch, 1)
        return f"{path.name}: {path.why}"

    def _sweep(self, job: _Job, batch: int) -> Jacobian | None:
        """All derivatives from one sweep, where the circuit allows it and it takes no more memory than it should."""
        if not job.program.inputs_come_first or self.forced == "density":
            return None
        if job.jacobian is None:
            job.jacobian = Jacobian(self._kernel(job), job.program, job.sums)
        needed = job.jacobian.bytes_needed(batch)
        if needed > _SWEEP and needed > self._states(job.circuit).bytes_needed(batch, gradient=True):
            return None
        check_memory(needed, f"the derivatives of {len(job.sums)} observables in {batch} samples", self.device)
        return job.jacobian

    def _run_one(self, request: Request, entropy: list[int] | None) -> tuple[FloatArray, FloatArray, dict[str, Any]]:
        job = self._job(request.circuit, request.observables)
        circuit, sums = job.circuit, job.sums
        inputs = self._tensor(request.inputs)
        shape = (len(inputs), len(sums))
        with torch.no_grad():
            if self.shots is not None:
                density = self._density(circuit, len(inputs), gradient=False)
                rng = np.random.default_rng(entropy)
                weights = self._tensor(request.weights)
                values, errors = estimate(density, sums, inputs, weights, shots=self.shots, rng=rng)
                return values, errors, {"path": "density", "why": "bitstrings come from the joint distribution"}
            rows, which = np.unique(np.atleast_2d(request.weights), axis=0, return_inverse=True)
            path = job.path(len(inputs), len(rows))
            values = np.empty(shape)
            if path.name == "density":
                weights = self._tensor(rows[0] if len(rows) == 1 else request.weights)
                density = self._density(circuit, len(inputs), gradient=False)
                values[:] = _numpy(density.values(sums, inputs, weights))
            else:
                kernel = self._heisenberg(job)
                for number, row in enumerate(rows):
                    mine = np.arange(len(inputs)) if len(rows) == 1 else np.flatnonzero(which.reshape(-1) == number)
                    for first in range(0, len(mine), kernel.chunk()):
                        part = mine[first : first + kernel.chunk()]
                        values[part] = _numpy(kernel.values(inputs[part], self._tensor(row)))
        return values, np.zeros(shape), {"path": path.name, "why": path.why, "weight_vectors": len(rows)}

    def _job(self, circuit: CompiledCircuit, observables: tuple[SparsePauliOp, ...]) -> _Job:
        key = (id(circuit), id(observables))
        job = self._jobs.get(key)
        if job is None:
            if not observables:
                raise UsageError("a request has no observables.", "Give at least one, for example single_z(qubits).")
            sums = tuple(pauli_sum(observable, circuit.num_qubits) for observable in observables)
            program = self._program(circuit)
            job = _Job(circuit, observables, sums, program, plans_for(program, sums), forced=self.forced)
            _keep(self._jobs, key, job, _JOBS)
        return job

    def _program(self, circuit: CompiledCircuit) -> Program:
        known = self._programs.get(id(circuit))
        if known is None:
            backend = self.target.backend
            whole = None if backend is None else backend.target
            scheduled = with_delays(circuit, whole) if self.idle_noise and whole is not None else circuit
            channels = Channels(whole, circuit.physical_qubits)
            # The circuit is kept beside its program, so that its id stays its own.
            known = circuit, build_program(scheduled, channels, readout_error=self.readout_error)
            _keep(self._programs, id(circuit), known, _CIRCUITS)
        return known[1]

    def _heisenberg(self, job: _Job) -> Heisenberg:
        needed = bytes_needed(job.plans, self.dtype.itemsize, self.threads)
        check_memory(needed, f"{len(job.sums)} observables over {len(job.program.first)} qubits", self.device)
        return self._kernel(job)

    def _kernel(self, job: _Job) -> Heisenberg:
        if job.kernel is None:
            job.kernel = Heisenberg(
                job.program,
                job.plans,
                n_inputs=len(job.circuit.inputs),
                n_weights=len(job.circuit.weights),
                dtype=self.dtype,
                device=self.device,
                pool=self._pool,
                threads=self.threads,
            )
        return job.kernel

    def _density(self, circuit: CompiledCircuit, batch: int, *, gradient: bool) -> Density:
        density = self._states(circuit)
        what = f"{batch} density matrices of {len(circuit.physical_qubits)} qubits"
        check_memory(density.bytes_needed(batch, gradient=gradient), what, self.device)
        return density

    def _states(self, circuit: CompiledCircuit) -> Density:
        known = self._densities.get(id(circuit))
        if known is None:
            density = Density(
                self._program(circuit),
                n_inputs=len(circuit.inputs),
                n_weights=len(circuit.weights),
                dtype=self.dtype,
                device=self.device,
                pool=self._pool,
            )
            known = circuit, density
            _keep(self._densities, id(circuit), known, _CIRCUITS)
        return known[1]

    def _tensor(self, array: FloatArray) -> torch.Tensor:
        return torch.as_tensor(np.ascontiguousarray(array), dtype=self.dtype, device=self.device)


def _keep(cache: OrderedDict[Any, Any], key: Any, value: Any, most: int) -> None:
    cache[key] = value
    if len(cache) > most:
        cache.popitem(last=False)


def _device(device: str | torch.device) -> torch.device:
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0] if str(error) else "unknown"
        raise UsageError(f"torch cannot compute on {device!r}: {reason}", 'Take "cpu".') from None
    return found


def _numpy(tensor: torch.Tensor) -> FloatArray:
    return tensor.detach().cpu().to(torch.float64).numpy()
