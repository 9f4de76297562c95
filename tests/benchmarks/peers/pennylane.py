"""PennyLane's default.mixed, the batch by parameter broadcasting, gradients by backpropagation through torch."""

from __future__ import annotations

import pennylane as qml
import torch

from tests.benchmarks.peers.job import Answer, Job, Peer, Rotation


def prepare(job: Job) -> Peer:
    """Expectation values and exact gradients by weights and inputs."""
    width, operations, readout = job.circuit.circuit.num_qubits, job.operations(), job.readout()
    device = qml.device("default.mixed", wires=width)
    tables = [
        (o.constant, torch.tensor(o.inputs), torch.tensor(o.weights)) if isinstance(o, Rotation) else list(o.kraus)
        for o in operations
    ]

    @qml.qnode(device, interface="torch", diff_method="backprop")
    def circuit(inputs: torch.Tensor, weights: torch.Tensor) -> object:
        for operation, table in zip(operations, tables, strict=True):
            if isinstance(operation, Rotation):
                constant, by_inputs, by_weights = table
                angle = constant + weights @ by_weights
                # Only angles that depend on the inputs are a batch: others are computed once.
                qml.RZ(angle + inputs @ by_inputs if by_inputs.any() else angle, wires=operation.wire)
            else:
                qml.QubitChannel(table, wires=operation.wires)
        return [qml.expval(qml.PauliZ(wire)) for wire, _, _ in readout]

    shift = torch.tensor([a for _, a, _ in readout], dtype=torch.float64)
    factor = torch.tensor([b for _, _, b in readout], dtype=torch.float64)
    inputs = torch.tensor(job.inputs, requires_grad=True)
    weights = torch.tensor(job.weights, requires_grad=True)

    def step() -> torch.Tensor:
        inputs.grad = weights.grad = None
        values = shift + factor * torch.stack(list(circuit(inputs, weights)), -1)
        values.square().mean().backward()
        return values

    def answer() -> Answer:
        values = step()
        assert weights.grad is not None
        assert inputs.grad is not None
        return Answer(values.detach().numpy(), weights.grad.numpy(), inputs.grad.numpy())

    return Peer(step, answer, ("pennylane", "torch"))
