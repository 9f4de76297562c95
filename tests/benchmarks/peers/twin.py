"""This engine."""

from __future__ import annotations

import torch

from backends.observables import pauli_sum
from backends.twin.build import build_program
from backends.twin.channels import Channels
from backends.twin.executor import TwinExecutor
from backends.twin.heisenberg.evaluate import plans_for
from tests.benchmarks.peers.job import Answer, Job, Peer


def prepare(job: Job, *, precision: str = "float32", threads: int = 1) -> Peer:
    """Expectation values and exact gradients by weights and inputs."""
    dtype = torch.float32 if precision == "float32" else torch.float64
    executor = TwinExecutor(job.target, dtype=dtype, threads=threads)
    inputs = torch.tensor(job.inputs, dtype=dtype, requires_grad=True)
    weights = torch.tensor(job.weights, dtype=dtype, requires_grad=True)

    def step() -> torch.Tensor:
        inputs.grad = weights.grad = None
        values = executor.expectations(job.circuit, job.observables, inputs, weights)
        values.square().mean().backward()
        return values

    def answer() -> Answer:
        values = step()
        assert weights.grad is not None
        assert inputs.grad is not None
        return Answer(values.detach().double().numpy(), weights.grad.double().numpy(), inputs.grad.double().numpy())

    return Peer(step, answer, ("torch",), plan_flops=_plan_flops(job))


def _plan_flops(job: Job) -> float:
    """Of the engine's plan with light cones: a gradient takes three walks."""
    backend = job.target.backend
    channels = Channels(None if backend is None else backend.target, job.circuit.physical_qubits)
    sums = tuple(pauli_sum(observable, job.circuit.num_qubits) for observable in job.observables)
    plans, _ = plans_for(build_program(job.circuit, channels), sums)
    return 3.0 * sum(plan.flops for plan in plans)
