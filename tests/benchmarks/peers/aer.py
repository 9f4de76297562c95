"""Aer's density matrix with parameter_binds, and the parameter-shift rule for weights and inputs."""

from __future__ import annotations

import numpy as np

from backends.aer import AerExecutor
from backends.protocol import Request
from tests.benchmarks.peers.job import Answer, Job, Peer

_ROWS = 64
"""Circuits that are timed; all of them take the same time."""


def prepare(job: Job) -> Peer:
    """A job of some of the step's circuits: unshifted ones, then shifted ones."""
    executor = AerExecutor(job.target, shots=None)
    batch, width = len(job.inputs), len(job.weights) + job.inputs.shape[1]
    whole = batch * (2 * width + 1)
    rows = min(_ROWS, whole)
    inputs = np.tile(job.inputs, (-(-rows // batch), 1))[:rows]
    weights = np.tile(job.weights, (rows, 1))
    shifted = np.arange(batch, rows)
    weights[shifted, (shifted - batch) % len(job.weights)] += np.pi / 2

    def step() -> object:
        return executor.run([Request(job.circuit, job.observables, inputs, weights)])

    def answer() -> Answer:
        (result,) = executor.run([Request(job.circuit, job.observables, job.inputs, job.weights)])
        return Answer(result.values)

    return Peer(step, answer, ("qiskit-aer",), scale=whole / rows, part=f"{rows} of {whole} circuits")
