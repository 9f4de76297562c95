"""The exact noisy twin of a device as an engine."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from qiskit.quantum_info import SparsePauliOp

from backends.layer import check_tensor
from backends.observables import check_arrays, check_requests
from backends.protocol import FloatArray, Request, Result
from backends.target import Target
from backends.twin.buffers import BufferPool
from backends.twin.cache import Cache
from backends.twin.density.evaluate import Density
from backends.twin.density.jacobian import jacobian
from backends.twin.density.sampling import estimate
from backends.twin.heisenberg.evaluate import Heisenberg, bytes_needed, chunk
from backends.twin.heisenberg.jacobian import Jacobian, one_by_one
from backends.twin.jobs import KERNEL, Job, Jobs
from backends.twin.memory import check_memory, fits
from backends.twin.modes import plain_modes, torch_device
from circuits.errors import UsageError
from circuits.types import CompiledCircuit

_DENSITIES = 2**28
"""Bytes of circuits that are kept ready for their density matrices to be evolved."""

_SHARED = 4
"""From so many samples a weight vector on, a Jacobian by sweeps is quicker than by density matrices."""

_SWEEP = 2**30
"""Bytes that a Jacobian's sweep may take even where density matrices would take fewer."""


_BITSTRINGS = "bitstrings come from the joint distribution"


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
        device: Where to compute: "cpu", "cuda", "cuda:1", "auto" (a GPU where there is one), or a torch.device.
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
        for what, flag in (("readout_error", readout_error), ("idle_noise", idle_noise)):
            if not isinstance(flag, bool):
                raise UsageError(f"{what} is True or False, not {flag!r}.")
        for what, value in (("shots", shots), ("threads", threads)):
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise UsageError(f"{what} must be 1 or more, not {value!r}.", "Give a whole number.")
        self.target, self.dtype, self.shots, self.threads = target, dtype, shots, threads
        if path not in ("auto", "heisenberg", "density"):
            raise UsageError(f"unknown path {path!r}.", "Known: auto, heisenberg, density.")
        if shots is not None and path == "heisenberg":
            raise UsageError("shots come from the joint distribution, which the Heisenberg path does not have.")
        self.readout_error, self.idle_noise, self.forced = readout_error, idle_noise, path
        self.device = torch_device(device)
        self.differentiable = shots is None
        self._start()

    def _start(self) -> None:
        self._jobs = Jobs(self.target, readout_error=self.readout_error, idle_noise=self.idle_noise, forced=self.forced)
        self._densities: Cache[tuple[CompiledCircuit, Density]] = Cache(_DENSITIES)
        self._pool = BufferPool()

    def __getstate__(self) -> dict[str, Any]:
        """A copy has the same options, and starts afresh: buffers and locks are not to be shared."""
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._jobs.clear()
        self._densities.clear()
        self._pool.clear()

    def run(self, requests: Sequence[Request], *, seed: int | None = None) -> list[Result]:
        """Values of every request: exact, or from `shots` samples, which `seed` fixes.

        Raises:
            UsageError: A wrong shape or a value that is not finite.
            QrunError: An observable or a circuit that this engine does not take, or too much memory.
        """
        check_requests(requests)
        if seed is not None and (not isinstance(seed, int) or seed < 0):
            raise UsageError(f"the seed must be a whole number, 0 or more, not {seed!r}.")
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
        for name, tensor in (("inputs", inputs), ("weights", weights)):
            check_tensor(name, tensor)
        check_arrays(circuit, _numpy(inputs), _numpy(weights))
        if weights.ndim == 2 and self.forced == "heisenberg":
            raise UsageError(
                "the Heisenberg path has one weight vector for all samples, and these weights differ by sample.",
                "Leave the choice to the engine, or take the density path.",
            )
        with plain_modes(self.device):
            job = self._jobs.job(circuit, observables)
            inputs, weights = self._own(inputs), self._own(weights)
            if weights.ndim == 2 or job.path(len(inputs), 1).name == "density":
                return self._density(circuit, len(inputs), gradient=True).values(job.sums, inputs, weights)
            return self._heisenberg(job, len(inputs)).values(inputs, weights)

    def probabilities(self, circuit: CompiledCircuit, inputs: FloatArray, weights: FloatArray) -> FloatArray:
        """(batch, n_inputs), (n_weights,) or (batch, n_weights) -> (batch, 2^n): the joint distribution as read.

        Bit v of the index is virtual qubit v.

        Raises:
            UsageError: A wrong shape or a value that is not finite.
            QrunError: A circuit that this engine does not take, or too much memory.
        """
        check_arrays(circuit, inputs, weights)
        with plain_modes(self.device), torch.no_grad():
            density = self._density(circuit, len(inputs), gradient=False)
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
        with plain_modes(self.device):
            job, (batch, ni), nw = self._jobs.job(circuit, observables), inputs.shape, weights.shape[-1]
            rows, which = np.unique(np.atleast_2d(weights), axis=0, return_inverse=True)
            # A sweep walks the observables back for one weight vector: it pays where samples share it.
            sweep = self._sweep(job, batch) if len(rows) == 1 or len(rows) * _SHARED <= batch else None
            if sweep is None:
                z, theta = self._tensor(inputs), self._tensor(weights)
                needed = self._states(circuit).bytes_needed(batch, gradient=True)
                if self._walks(job) and not fits(needed, self.device):
                    found = one_by_one(self._heisenberg(job, 1), z, theta)
                else:
                    found = jacobian(self._density(circuit, batch, gradient=True), job.sums, z, theta)
                return _numpy(found[0]), _numpy(found[1]), _numpy(found[2])
            m = len(job.sums)
            result = np.empty((batch, m)), np.empty((batch, m, ni)), np.empty((batch, m, nw))
            for number, row in enumerate(rows):
                mine = np.arange(batch) if len(rows) == 1 else np.flatnonzero(which.reshape(-1) == number)
                for into, found in zip(result, sweep(self._tensor(inputs[mine]), self._tensor(row)), strict=True):
                    into[mine] = _numpy(found)
            return result

    def explain(
        self,
        circuit: CompiledCircuit,
        observables: tuple[SparsePauliOp, ...],
        batch: int,
        weight_vectors: int = 1,
    ) -> str:
        """How `run` evaluates a circuit for a batch with so many different weight vectors, and why, in a sentence."""
        if self.shots is not None:
            return f"density: {_BITSTRINGS}"
        path = self._jobs.job(circuit, observables).path(batch, weight_vectors)
        return f"{path.name}: {path.why}"

    def _sweep(self, job: Job, batch: int) -> Jacobian | None:
        """All derivatives from one sweep, where the circuit allows it and it takes no more memory than it should."""
        if not self._walks(job):
            return None
        if job.jacobian is None:
            job.jacobian = Jacobian(self._kernel(job), job.program, job.sums)
        needed = job.jacobian.bytes_needed(batch)
        if needed > _SWEEP and needed > self._states(job.circuit).bytes_needed(batch, gradient=True):
            return None
        return job.jacobian if fits(needed, self.device) else None

    def _walks(self, job: Job) -> bool:
        """Whether the observables may be walked back."""
        return job.program.inputs_come_first and self.forced != "density"

    def _run_one(self, request: Request, entropy: list[int] | None) -> tuple[FloatArray, FloatArray, dict[str, Any]]:
        circuit = request.circuit
        with plain_modes(self.device), torch.no_grad():
            job, inputs = self._jobs.job(circuit, request.observables), self._tensor(request.inputs)
            sums, shape = job.sums, (len(inputs), len(job.sums))
            if self.shots is not None:
                density = self._density(circuit, len(inputs), gradient=False)
                rng = np.random.default_rng(entropy)
                weights = self._tensor(request.weights)
                values, errors = estimate(density, sums, inputs, weights, shots=self.shots, rng=rng)
                return values, errors, {"path": "density", "why": _BITSTRINGS}
            rows, which = np.unique(np.atleast_2d(request.weights), axis=0, return_inverse=True)
            path = job.path(len(inputs), len(rows))
            values = np.empty(shape)
            if path.name == "density":
                weights = self._tensor(rows[0] if len(rows) == 1 else request.weights)
                density = self._density(circuit, len(inputs), gradient=False)
                values[:] = _numpy(density.values(sums, inputs, weights))
            else:
                most = chunk(job.plans)
                kernel = self._heisenberg(job, min(len(inputs), most))
                for number, row in enumerate(rows):
                    mine = np.arange(len(inputs)) if len(rows) == 1 else np.flatnonzero(which.reshape(-1) == number)
                    for first in range(0, len(mine), most):
                        part = mine[first : first + most]
                        values[part] = _numpy(kernel.values(inputs[part], self._tensor(row)))
        return values, np.zeros(shape), {"path": path.name, "why": path.why, "weight_vectors": len(rows)}

    def _heisenberg(self, job: Job, batch: int) -> Heisenberg:
        if batch > job.fits:
            needed = bytes_needed(job.program, job.plans, batch, itemsize=self.dtype.itemsize, threads=self.threads)
            what = f"{len(job.sums)} observables over {len(job.program.first)} qubits for {batch} samples"
            check_memory(needed, what, self.device)
            job.fits = batch
        return self._kernel(job)

    def _kernel(self, job: Job) -> Heisenberg:
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
                owners=job.walks.owners,
                itineraries=job.walks.itineraries,
            )
        return job.kernel

    def _density(self, circuit: CompiledCircuit, batch: int, *, gradient: bool) -> Density:
        density = self._states(circuit)
        what = f"{batch} density matrices of {len(self._jobs.program(circuit).first)} qubits"
        check_memory(density.bytes_needed(batch, gradient=gradient), what, self.device)
        return density

    def _states(self, circuit: CompiledCircuit) -> Density:
        known = self._densities.get(id(circuit))
        if known is None:
            program = self._jobs.program(circuit)
            density = Density(
                program,
                n_inputs=len(circuit.inputs),
                n_weights=len(circuit.weights),
                dtype=self.dtype,
                device=self.device,
                pool=self._pool,
            )
            known = circuit, density
            self._densities.put(id(circuit), known, KERNEL * program.nbytes)
        return known[1]

    def _own(self, tensor: torch.Tensor) -> torch.Tensor:
        """In this engine's dtype, on its device, and fit to be differentiated."""
        tensor = tensor.to(dtype=self.dtype, device=self.device)
        return tensor.clone() if tensor.is_inference() else tensor

    def _tensor(self, array: FloatArray) -> torch.Tensor:
        return torch.as_tensor(np.ascontiguousarray(array), dtype=self.dtype, device=self.device)


def _numpy(tensor: torch.Tensor) -> FloatArray:
    return tensor.detach().cpu().to(torch.float64).numpy()
