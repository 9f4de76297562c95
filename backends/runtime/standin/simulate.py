"""A job, run by Aer: the Runtime's own local testing mode on the device cut down to the qubits in use."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np

from backends.runtime.standin.encoding import Arrays, Program, digest

if TYPE_CHECKING:
    from qiskit import QuantumCircuit

    from backends.runtime.standin.devices import Device


class NotRunnable(Exception):
    """The device cannot run it; the job fails."""


def seed_of(program: Program) -> int:
    """The seed of a job's shots (31 bits); follows from what it asks."""
    return int.from_bytes(digest(program)[:4], "big") >> 1


def item_seed(seed: int, index: int) -> int:
    """The seed of an item: the first has the job's, each other one of its own."""
    return seed if index == 0 else int(np.random.SeedSequence([seed, index]).generate_state(1)[0] >> 1)


def check(program: Program, device: Device) -> None:
    """Check that every circuit is written for this device.

    Raises:
        NotRunnable: A gate, or a pair of qubits, that the device does not have.
    """
    from qiskit_ibm_runtime.utils.utils import is_isa_circuit

    for item in program.quantum_program.items:
        if item.circuit.has_control_flow_op():
            raise NotRunnable("Error in the validation process of the job: the stand-in knows no control flow.")
        if reason := is_isa_circuit(item.circuit, device.backend.target):
            raise NotRunnable(f"Error in the validation process of the job: {reason}")


def run(program: Program, device: Device) -> list[Arrays]:
    """The arrays of every item, by their names; the same job gives the same ones.

    Raises:
        NotRunnable: See `check`.
    """
    from qiskit_ibm_runtime.fake_provider.executor.run_quantum_program import run_quantum_program
    from qiskit_ibm_runtime.options_models.simulator import SimulatorOptions
    from qiskit_ibm_runtime.quantum_program import QuantumProgram

    from backends.target import SubDevice

    check(program, device)
    seed, results = seed_of(program), list[Arrays]()
    for index, item in enumerate(program.quantum_program.items):
        circuit, qubits = cut(item.circuit)
        small = copy.copy(item)  # its arguments fit: no parameter is lost
        small.circuit = circuit
        one = QuantumProgram(program.shots, [small])
        options = SimulatorOptions(seed_simulator=item_seed(seed, index))
        done = run_quantum_program(SubDevice(device.backend, qubits), one, options)
        results.append({name: np.asarray(array) for name, array in dict(done[0]).items()})
    return results


def cut(circuit: QuantumCircuit) -> tuple[QuantumCircuit, tuple[int, ...]]:
    """A circuit on the qubits in use alone, renumbered in their order, and those qubits.

    A qubit is in use if anything but a barrier is on it.
    """
    from qiskit import QuantumCircuit, QuantumRegister

    places = [tuple(circuit.find_bit(qubit).index for qubit in entry.qubits) for entry in circuit.data]
    names = [entry.operation.name for entry in circuit.data]
    used = sorted({q for name, place in zip(names, places, strict=True) if name != "barrier" for q in place})
    wire = {qubit: number for number, qubit in enumerate(used)}
    small = QuantumCircuit(QuantumRegister(len(used), "q"), circuit.clbits, global_phase=circuit.global_phase)
    for register in circuit.cregs:
        small.add_register(register)
    for entry, name, place in zip(circuit.data, names, places, strict=True):
        kept = [wire[qubit] for qubit in place if qubit in wire]
        operation = entry.operation
        if name == "barrier":
            if not kept:
                continue
            if len(kept) != len(place):
                operation = type(operation)(len(kept), label=operation.label)
        small.append(operation, kept, entry.clbits, copy=False)
    return small, tuple(used)
