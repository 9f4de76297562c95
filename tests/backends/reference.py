"""An independent exact evolution: qiskit.quantum_info with Aer's own noise model, gate by gate."""

from __future__ import annotations

from functools import cache

import numpy as np
from qiskit.circuit.library import HGate, SdgGate
from qiskit.quantum_info import DensityMatrix, Operator, SparsePauliOp, SuperOp
from qiskit.transpiler import generate_preset_pass_manager
from qiskit_aer.noise import NoiseModel

from backends.catalog import get_target
from backends.target import Target
from circuits.compile import _renumber, compile_ansatz
from circuits.parts import Part
from circuits.qgan import generator
from circuits.types import CompiledCircuit


@cache
def compiled(
    device: str, qubits: int, reps: int, entanglement: str, seed: int = 7, *, reuploads: int = 0
) -> CompiledCircuit:
    ansatz = generator(qubits, reps, entanglement, reuploads=reuploads)
    return compile_ansatz(ansatz, get_target(device).backend, seed=seed)


def scattered(device: str, layout: tuple[int, ...]) -> CompiledCircuit:
    """A ring on given physical qubits that are far apart, so that routing goes through others."""
    backend, ansatz = get_target(device).backend, generator(len(layout), 1, "circular")
    manager = generate_preset_pass_manager(1, backend=backend, seed_transpiler=1, initial_layout=list(layout))
    everything = Part(backend.target, tuple(range(backend.target.num_qubits)))
    return _renumber(ansatz, manager.run(ansatz.circuit), everything)


def draw(circuit: CompiledCircuit, batch: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs (batch, n_inputs) and weights (n_weights,), uniform over the circle."""
    random = np.random.default_rng(seed)
    return (
        random.uniform(-np.pi, np.pi, (batch, len(circuit.inputs))),
        random.uniform(-np.pi, np.pi, len(circuit.weights)),
    )


def noise_model(target: Target, circuit: CompiledCircuit) -> NoiseModel | None:
    return None if target.backend is None else NoiseModel.from_backend(target.cut(circuit.physical_qubits))


class Evolution:
    """Evolves one compiled circuit under a target's noise."""

    def __init__(self, target: Target, circuit: CompiledCircuit, *, readout_error: bool = True) -> None:
        self.circuit, self.readout_error = circuit, readout_error
        self.model = noise_model(target, circuit)
        errors = {} if self.model is None else self.model._local_quantum_errors
        self.errors = {(name, where): SuperOp(e) for name, by in errors.items() for where, e in by.items()}

    def values(self, observables: tuple[SparsePauliOp, ...], inputs: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(n_inputs,), (n_weights,) -> (m,) for any Pauli sums: a factor is read as a Z after an ideal rotation."""
        state = self.state(inputs, weights)
        known: dict[tuple[int, ...], np.ndarray] = {}
        values = []
        for observable in observables:
            total = 0.0
            for pauli, coefficient in zip(observable.paulis, observable.coeffs.real, strict=True):
                basis = tuple(np.where(pauli.x & pauli.z, 2, np.where(pauli.x, 1, 3)).tolist())
                if basis not in known:
                    known[basis] = self._read(state, basis)
                probabilities = known[basis]
                wires = np.arange(len(probabilities))
                sign = np.ones(len(wires))
                for qubit in np.flatnonzero(pauli.x | pauli.z):
                    sign *= 1 - 2 * ((wires >> self.circuit.final_layout[qubit]) & 1)
                total += coefficient * float(sign @ probabilities)
            values.append(total)
        return np.array(values)

    def state(self, inputs: np.ndarray, weights: np.ndarray) -> DensityMatrix:
        """The state of all wires at the end, before readout."""
        circuit = self.circuit
        names = (*circuit.inputs, *circuit.weights)
        bound = circuit.circuit.assign_parameters(dict(zip(names, (*inputs, *weights), strict=True)), strict=False)
        state = DensityMatrix.from_label("0" * bound.num_qubits)
        for instruction in bound.data:
            where = tuple(bound.find_bit(q).index for q in instruction.qubits)
            state = state.evolve(Operator(instruction.operation), list(where))
            if error := self.errors.get((instruction.operation.name, where)):
                state = state.evolve(error, list(where))
        return state

    def probabilities(
        self, inputs: np.ndarray, weights: np.ndarray, basis: tuple[int, ...] | None = None
    ) -> np.ndarray:
        """(n_inputs,), (n_weights,) -> (2^n,): bit v is virtual qubit v, read in the basis of 1 X, 2 Y or 3 Z."""
        qubits = self.circuit.num_qubits
        of_wires = self._read(self.state(inputs, weights), basis or (3,) * qubits)
        wires, result = np.arange(len(of_wires)), np.zeros(2**qubits)
        index = sum(((wires >> wire) & 1) << v for v, wire in enumerate(self.circuit.final_layout))
        np.add.at(result, index, of_wires)
        return result

    def _read(self, state: DensityMatrix, basis: tuple[int, ...]) -> np.ndarray:
        """(2^wires,): how likely each bitstring of the wires is read."""
        for qubit, kind in enumerate(basis):
            wire = [self.circuit.final_layout[qubit]]
            if kind == 2:
                state = state.evolve(Operator(SdgGate()), wire)
            if kind in (1, 2):
                state = state.evolve(Operator(HGate()), wire)
        width = self.circuit.circuit.num_qubits
        probabilities = np.real(np.diag(state.data)).reshape((2,) * width)
        readout = {} if self.model is None or not self.readout_error else self.model._local_readout_errors
        for (wire,), error in readout.items():
            axis = width - 1 - wire
            moved = np.tensordot(np.asarray(error.probabilities).T, probabilities, axes=(1, axis))
            probabilities = np.moveaxis(moved, 0, axis)
        return probabilities.reshape(-1)

    def dropped_by_aer(self) -> float:
        """How far Aer may be off: it drops the terms of a noise mixture that are less likely than 1e-10.

        A dropped probability p moves an expectation value in [-1, 1] by at most 2 p.
        """
        total = 0.0
        for instruction in self.circuit.circuit.data:
            where = tuple(self.circuit.circuit.find_bit(q).index for q in instruction.qubits)
            by = {} if self.model is None else self.model._local_quantum_errors.get(instruction.operation.name, {})
            if where in by:
                total += sum(p for p in by[where].probabilities if p < 1e-10)
        return 2.0 * total
