"""TensorCircuit-NG's DMCircuit2 on JAX: compiled by jit, the batch by vmap, gradients by reverse mode, complex64."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tensorcircuit as tc

from tests.benchmarks.peers.job import Answer, Job, Peer, Rotation


def prepare(job: Job) -> Peer:
    """Expectation values and exact gradients by weights and inputs; the first step compiles."""
    tc.set_backend("jax")
    tc.set_dtype("complex64")
    width, operations, readout = job.circuit.circuit.num_qubits, job.operations(), job.readout()
    basis = np.arange(2**width)
    # Wire 0 is the most significant qubit there.
    signs = np.array([a + b * (1 - 2 * ((basis >> (width - 1 - wire)) & 1)) for wire, a, b in readout])

    def values_of_one(inputs: Any, weights: Any) -> Any:
        circuit = tc.DMCircuit2(width)
        for operation in operations:
            if isinstance(operation, Rotation):
                angle = operation.constant + jnp.asarray(operation.weights, jnp.float32) @ weights
                if operation.inputs.any():
                    angle += jnp.asarray(operation.inputs, jnp.float32) @ inputs
                circuit.rz(operation.wire, theta=angle)
            else:
                circuit.general_kraus(list(operation.kraus), *operation.wires)
        probabilities = jnp.real(jnp.diagonal(circuit.densitymatrix()))
        return jnp.asarray(signs, jnp.float32) @ probabilities

    def loss(inputs: Any, weights: Any) -> Any:
        values = jax.vmap(values_of_one, in_axes=(0, None))(inputs, weights)
        return jnp.mean(values**2), values

    compiled = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
    inputs, weights = jnp.asarray(job.inputs, jnp.float32), jnp.asarray(job.weights, jnp.float32)

    def step() -> Any:
        return jax.block_until_ready(compiled(inputs, weights))

    def answer() -> Answer:
        (_, values), (by_inputs, by_weights) = step()
        return Answer(*(np.asarray(array, dtype=np.float64) for array in (values, by_weights, by_inputs)))

    return Peer(step, answer, ("tensorcircuit-ng", "jax"))
