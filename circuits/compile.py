"""From an ansatz to a circuit in a device's native gates, on the device's best qubits."""

from __future__ import annotations

from qiskit import QuantumCircuit
from qiskit.circuit import Gate
from qiskit.providers import BackendV2
from qiskit.transpiler import InstructionProperties, Target, TranspilerError, generate_preset_pass_manager

from circuits.errors import QrunError, UsageError
from circuits.targets import copy_target
from circuits.types import Ansatz, CompiledCircuit

ATTEMPTS = 8
"""How many transpiler seeds are tried before a device is said to have no calibrated layout."""


def compile_ansatz(
    ansatz: Ansatz, backend: BackendV2 | None, *, seed: int, optimization_level: int = 3
) -> CompiledCircuit:
    """Compile an ansatz to a device, renumbered onto the qubits in use.

    Where routing went through further qubits, a few more seeds are tried and the circuit on the fewest qubits wins,
    then the one with the fewest two-qubit gates: every further qubit makes exact simulation 16 times dearer.

    Gates that the calibration reports as broken (error 1.0) or does not report at all are kept from the transpiler,
    so that the layout avoids them; the result is checked against the calibration all the same.

    Args:
        ansatz: What to compile; parameters stay free.
        backend: The device, or None for an ideal one: all-to-all, any gate, nothing compiled.
        seed: Fixes layout and routing: the same seed gives the same circuit.
        optimization_level: 0 to 3, as in qiskit's preset pass managers.

    Raises:
        UsageError: More qubits than the device has, or an unknown optimisation level.
        QrunError: The device has no layout for the circuit whose gates are all calibrated.
    """
    if optimization_level not in (0, 1, 2, 3):
        raise UsageError(f"optimization_level must be 0, 1, 2 or 3, not {optimization_level!r}.")
    if backend is None:
        wires = tuple(range(ansatz.circuit.num_qubits))
        return _describe(ansatz, ansatz.circuit.copy(), wires, wires, wires)

    needed, available = ansatz.circuit.num_qubits, backend.target.num_qubits
    if needed > available:
        raise UsageError(
            f"the circuit needs {needed} qubits, and {backend.name} has {available}.",
            "Choose fewer qubits or a larger device (`qrun backends list`).",
        )
    target = backend.target
    usable = _without_broken_gates(target)
    why, best = "", None
    for attempt in range(ATTEMPTS):
        manager = generate_preset_pass_manager(optimization_level, target=usable, seed_transpiler=seed + attempt)
        try:
            isa = manager.run(ansatz.circuit)
        except TranspilerError as error:
            why = str(error).strip("'\"").splitlines()[0]
            continue
        broken = _first_uncalibrated(isa, target)
        if broken is not None:
            why = broken
            continue
        compiled = _renumber(ansatz, isa)
        if best is None or _cost(compiled) < _cost(best):
            best = compiled
        if len(best.physical_qubits) == needed:
            break
    if best is not None:
        return best
    raise QrunError(
        f"{backend.name} has no layout of {needed} qubits whose gates are all calibrated: {why}.",
        "Choose fewer qubits, another entanglement or another device (`qrun backends show NAME`).",
    )


def _cost(compiled: CompiledCircuit) -> tuple[int, int]:
    return len(compiled.physical_qubits), compiled.two_qubit_gates


def _is_broken(operation: object, properties: InstructionProperties | None) -> bool:
    """An error of 1.0 is how a calibration marks a gate that does not work at present."""
    if not isinstance(operation, Gate):
        return False
    return properties is None or properties.error is None or properties.error >= 1.0


def _without_broken_gates(target: Target) -> Target:
    """Leave out broken gates, and every gate on a qubit that has a broken single-qubit gate."""
    bad: set[tuple[str, tuple[int, ...]]] = set()
    bad_qubits: set[int] = set()
    for name in target.operation_names:
        operation, entries = target.operation_from_name(name), target[name]
        if entries is None or None in entries:
            continue
        for where, properties in entries.items():
            if _is_broken(operation, properties):
                bad.add((name, where))
                if len(where) == 1:
                    bad_qubits.add(where[0])
    if not bad:
        return target
    return copy_target(target, keep=lambda name, where, _: (name, where) not in bad and bad_qubits.isdisjoint(where))


def _first_uncalibrated(isa: QuantumCircuit, target: Target) -> str | None:
    """Name the first gate that the device's calibration does not cover, None where all are good."""
    for instruction in isa.data:
        if not isinstance(instruction.operation, Gate):
            continue
        name = instruction.operation.name
        where = tuple(isa.find_bit(qubit).index for qubit in instruction.qubits)
        entries = target[name] if name in target.operation_names else {}
        if entries is None or None in entries:
            continue
        if where not in entries or _is_broken(instruction.operation, entries[where]):
            return f"{name} on qubits {', '.join(map(str, where))} has no usable calibration"
    return None


def _renumber(ansatz: Ansatz, isa: QuantumCircuit) -> CompiledCircuit:
    initial = isa.layout.initial_index_layout(filter_ancillas=True)
    final = isa.layout.final_index_layout()
    used = {isa.find_bit(qubit).index for instruction in isa.data for qubit in instruction.qubits}
    physical = tuple(sorted(used.union(initial, final)))
    wire = {qubit: position for position, qubit in enumerate(physical)}
    circuit = QuantumCircuit(len(physical), global_phase=isa.global_phase)
    for instruction in isa.data:
        circuit.append(instruction.operation, [wire[isa.find_bit(qubit).index] for qubit in instruction.qubits])
    return _describe(
        ansatz, circuit, physical, tuple(wire[qubit] for qubit in initial), tuple(wire[qubit] for qubit in final)
    )


def _describe(
    ansatz: Ansatz,
    circuit: QuantumCircuit,
    physical: tuple[int, ...],
    initial: tuple[int, ...],
    final: tuple[int, ...],
) -> CompiledCircuit:
    counts = {str(name): int(number) for name, number in sorted(circuit.count_ops().items())}
    return CompiledCircuit(
        ansatz=ansatz,
        circuit=circuit,
        inputs=ansatz.inputs,
        weights=ansatz.weights,
        physical_qubits=physical,
        initial_layout=initial,
        final_layout=final,
        depth=int(circuit.depth()),
        two_qubit_gates=sum(1 for i in circuit.data if isinstance(i.operation, Gate) and len(i.qubits) == 2),
        gate_counts=counts,
    )
