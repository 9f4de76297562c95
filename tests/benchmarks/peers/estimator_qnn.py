"""The stack that users of qiskit-machine-learning have: EstimatorQNN, TorchConnector, parameter shift, Aer's noise."""

from __future__ import annotations

import numpy as np
import torch
from qiskit import generate_preset_pass_manager
from qiskit.circuit import QuantumCircuit
from qiskit.primitives import BackendEstimatorV2
from qiskit.quantum_info import SparsePauliOp
from qiskit_aer import AerSimulator
from qiskit_aer.noise import NoiseModel
from qiskit_machine_learning.connectors import TorchConnector
from qiskit_machine_learning.neural_networks import EstimatorQNN

from tests.benchmarks.peers.job import SEED, Answer, Job, Peer

SHOTS = 1024


def prepare(job: Job, *, whole_device: bool = False) -> Peer:
    """One sample and one observable of the step: the stack runs all of them one after another.

    Args:
        job: What to run.
        whole_device: On `AerSimulator.from_backend` of the whole device, as most users do, with the circuit transpiled
            to it; else on the qubits in use alone, which is far faster and has the same errors.
    """
    assert job.target.backend is not None
    if whole_device:
        simulator = AerSimulator.from_backend(job.target.backend, seed_simulator=SEED)
        manager = generate_preset_pass_manager(3, backend=job.target.backend, seed_transpiler=SEED)
        circuit = manager.run(job.circuit.ansatz.circuit)
        observables = [observable.apply_layout(circuit.layout) for observable in job.observables]
    else:
        noise = NoiseModel.from_backend(job.target.cut(job.circuit.physical_qubits))
        simulator = AerSimulator(noise_model=noise, method="density_matrix", seed_simulator=SEED)
        circuit, width = job.circuit.circuit, job.circuit.circuit.num_qubits
        observables = [
            SparsePauliOp.from_sparse_list([("Z", [wire], 1.0)], num_qubits=width) for wire in job.circuit.final_layout
        ]
    part = TorchConnector(_network(job, circuit, observables[:1], simulator), job.weights)
    sample = torch.tensor(job.inputs[:1], requires_grad=True)

    def step() -> object:
        part.zero_grad()
        sample.grad = None
        values = part(sample)
        values.square().mean().backward()
        return values

    def answer() -> Answer:
        forward = _network(job, circuit, observables, simulator).forward(job.inputs, job.weights)
        return Answer(np.asarray(forward))

    batch, m = len(job.inputs), len(observables)
    return Peer(
        step,
        answer,
        ("qiskit-machine-learning", "qiskit-aer", "qiskit"),
        scale=batch * m,
        part=f"1 of {batch} samples, 1 of {m} observables",
        sampled=SHOTS,
    )


def _network(
    job: Job, circuit: QuantumCircuit, observables: list[SparsePauliOp], simulator: AerSimulator
) -> EstimatorQNN:
    precision = SHOTS**-0.5
    return EstimatorQNN(
        circuit=circuit,
        estimator=BackendEstimatorV2(
            backend=simulator, options={"default_precision": precision, "seed_simulator": SEED}
        ),
        observables=observables,
        input_params=list(job.circuit.inputs),
        weight_params=list(job.circuit.weights),
        input_gradients=True,
        default_precision=precision,
    )
