"""A job, run by Aer: the Runtime's own local testing mode on the device cut down to the qubits in use."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.runtime.standin import lone
from backends.runtime.standin.encoding import Arrays, Program

if TYPE_CHECKING:
    from qiskit import QuantumCircuit

    from backends.runtime.standin.devices import Device

TOGETHER = 10
"""Up to so many qubits are simulated together, whether or not gates join them."""


class NotRunnable(Exception):
    """The device cannot run it; the job fails."""


def seed_of(program: Program) -> int:
    """The seed of a job's shots (31 bits); follows from what it asks."""
    return int.from_bytes(program.digest[:4], "big") >> 1


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
    check(program, device)
    seed = seed_of(program)
    return [
        _item(item, program.shots, device, item_seed(seed, index))
        for index, item in enumerate(program.quantum_program.items)
    ]


def _item(item: Any, shots: int, device: Device, seed: int) -> Arrays:
    """An item's arrays: of its registers (..., shots, bits), and what its samplex drew."""
    from qiskit_ibm_runtime.fake_provider.executor.broadcast_sample import broadcast_sample

    drawn: Arrays = {}
    if hasattr(item, "samplex"):
        samplex = item.samplex.finalize()  # one that was sent is not ready to draw from
        rng = np.random.default_rng(seed)
        drawn = broadcast_sample(samplex, item.samplex_arguments, item.shape, rng)
        values = drawn.pop("parameter_values")
    else:
        values = item.circuit_arguments
    circuit = item.circuit
    joined, alone = split(circuit)
    registers = _joined(circuit, joined, values, shots, device, seed=seed)
    sets = math.prod(values.shape[:-1])
    rows = values.reshape(sets, values.shape[-1])
    flat = {name: array.reshape(sets, *array.shape[-2:]) for name, array in registers.items()}
    for qubit in alone:
        chance = lone.probabilities(circuit, qubit, rows, lone.errors(device.fake, qubit))
        read = np.random.default_rng([seed, qubit]).random((sets, shots)) < chance[:, None]
        for register, index in circuit.find_bit(circuit.clbits[lone.bit(circuit, qubit)]).registers:
            flat[register.name][:, :, index] = read
    return {**drawn, **registers}


def _joined(
    circuit: QuantumCircuit, qubits: tuple[int, ...], values: Any, shots: int, device: Device, *, seed: int
) -> Arrays:
    """What is read of some qubits, by the Runtime's local testing mode; bits of others are False."""
    from qiskit_ibm_runtime.fake_provider.executor.run_quantum_program import run_quantum_program
    from qiskit_ibm_runtime.options_models.simulator import SimulatorOptions
    from qiskit_ibm_runtime.quantum_program import QuantumProgram
    from samplomatic.quantum_program import CircuitItem  # type: ignore[import-untyped]

    from backends.target import SubDevice

    sets = values.shape[:-1]
    if not qubits:
        return {register.name: np.zeros((*sets, shots, register.size), dtype=bool) for register in circuit.cregs}
    small = cut(circuit, qubits)
    order = list(circuit.parameters)
    columns = [order.index(parameter) for parameter in small.parameters]
    # Aer runs a circuit without parameters once, whatever the number of sets.
    times = 1 if columns else math.prod(sets)
    arguments = values[..., columns] if columns else None
    program = QuantumProgram(shots * times, [CircuitItem(small, circuit_arguments=arguments)])
    done = run_quantum_program(SubDevice(device.backend, qubits), program, SimulatorOptions(seed_simulator=seed))
    return {
        name: np.array(array, dtype=bool).reshape(*sets, shots, array.shape[-1])
        for name, array in dict(done[0]).items()
    }


def split(circuit: QuantumCircuit) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Qubits to simulate together, and such to follow one by one, both ascending; together they are all that matter.

    A qubit matters if it, or one that gates join it to, is read. Where there are few, all are simulated together.
    """
    group, measured = list(range(circuit.num_qubits)), set[int]()
    for entry in circuit.data:
        qubits = [circuit.find_bit(qubit).index for qubit in entry.qubits]
        if entry.operation.name == "measure":
            measured.update(qubits)
        elif entry.operation.name != "barrier":
            roots = {_root(group, qubit) for qubit in qubits}
            for root in roots:
                group[root] = min(roots)
    roots_read = {_root(group, qubit) for qubit in measured}
    matter = [qubit for qubit in range(circuit.num_qubits) if _root(group, qubit) in roots_read]
    if len(matter) <= TOGETHER:
        return tuple(matter), ()
    sizes = Counter(_root(group, qubit) for qubit in matter)
    alone = [q for q in matter if sizes[_root(group, q)] == 1 and lone.simple(circuit, q)]
    return tuple(q for q in matter if q not in set(alone)), tuple(alone)


def _root(group: list[int], qubit: int) -> int:
    while group[qubit] != qubit:
        qubit = group[qubit]
    return qubit


def cut(circuit: QuantumCircuit, qubits: tuple[int, ...]) -> QuantumCircuit:
    """A circuit on some of its qubits alone, renumbered in the order given; its clbits stay."""
    from qiskit import QuantumCircuit, QuantumRegister

    wire = {qubit: number for number, qubit in enumerate(qubits)}
    small = QuantumCircuit(QuantumRegister(len(qubits), "q"), circuit.clbits, global_phase=circuit.global_phase)
    for register in circuit.cregs:
        small.add_register(register)
    for entry in circuit.data:
        place = [circuit.find_bit(qubit).index for qubit in entry.qubits]
        kept = [wire[qubit] for qubit in place if qubit in wire]
        operation = entry.operation
        if not kept:
            continue
        if len(kept) != len(place):  # a barrier
            operation = type(operation)(len(kept), label=operation.label)
        small.append(operation, kept, entry.clbits, copy=False)
    return small
