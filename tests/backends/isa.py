"""Circuits compiled by qiskit alone, onto a whole device, and their reference by the evolution."""

from __future__ import annotations

from functools import cache

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.circuit.library import efficient_su2, real_amplitudes, zz_feature_map
from qiskit.quantum_info import SparsePauliOp
from qiskit.transpiler import generate_preset_pass_manager

from backends.catalog import get_target
from circuits.compile import _renumber
from circuits.parts import Part
from circuits.types import Ansatz, CompiledCircuit
from tests.backends.reference import Evolution


def encoder(qubits: int, reps: int, entanglement: str = "linear") -> QuantumCircuit:
    """RY(z) on each qubit, then EfficientSU2 with weights w."""
    z, circuit = ParameterVector("z", qubits), QuantumCircuit(qubits)
    for qubit in range(qubits):
        circuit.ry(z[qubit], qubit)
    weights = ParameterVector("w", 2 * qubits * (reps + 1))
    ansatz = efficient_su2(qubits, reps=reps, entanglement=entanglement)
    return circuit.compose(ansatz.assign_parameters(weights))


def feature_map(qubits: int) -> QuantumCircuit:
    """The circuit of qiskit-machine-learning's own tutorials; its angles are products of inputs."""
    weights = ParameterVector("w", 2 * qubits)
    ansatz = real_amplitudes(qubits, reps=1).assign_parameters(weights)
    return QuantumCircuit(qubits).compose(zz_feature_map(qubits, reps=1)).compose(ansatz)


@cache
def transpiled(device: str, kind: str, qubits: int, level: int = 3, seed: int = 1) -> QuantumCircuit:
    """An ISA circuit as wide as the device."""
    circuit = feature_map(qubits) if kind == "feature_map" else encoder(qubits, 1, kind)
    backend = get_target(device).backend
    return generate_preset_pass_manager(level, backend=backend, seed_transpiler=seed).run(circuit)


def reference(device: str, isa: QuantumCircuit, virtual: int, *, readout_error: bool = True) -> Evolution:
    """The evolution of an ISA circuit, on virtual qubits, with all its parameters as weights."""
    target, ansatz = get_target(device), Ansatz("isa", QuantumCircuit(virtual), (), tuple(isa.parameters))
    whole = Part(target.backend.target, tuple(range(target.backend.target.num_qubits)))
    compiled: CompiledCircuit = _renumber(ansatz, isa, whole)
    return Evolution(target, compiled, readout_error=readout_error)


def exact(evolution: Evolution, observables: tuple[SparsePauliOp, ...], rows: np.ndarray) -> np.ndarray:
    """(batch, P) -> (batch, m)."""
    return np.array([evolution.values(observables, np.zeros(0), row) for row in rows])


def paulis(qubits: int, seed: int = 0) -> tuple[SparsePauliOp, ...]:
    """Z on each qubit, and a sum of random Pauli strings with an identity."""
    random = np.random.default_rng(seed)
    strings = ["".join(random.choice(list("IXYZ"), qubits)) for _ in range(5)]
    each = [SparsePauliOp.from_sparse_list([("Z", [q], 1.0)], num_qubits=qubits) for q in range(qubits)]
    return (*each, SparsePauliOp(["I" * qubits, *strings], random.normal(size=6)).simplify())


def angles(isa: QuantumCircuit, batch: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-np.pi, np.pi, (batch, isa.num_parameters))
