"""From an ansatz to a circuit in a device's native gates, on the device's best qubits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from qiskit import QuantumCircuit
from qiskit.circuit import Gate
from qiskit.providers import BackendV2
from qiskit.transpiler import InstructionProperties, Target, TranspilerError, generate_preset_pass_manager

from circuits.errors import QrunError, UsageError
from circuits.targets import copy_target
from circuits.types import Ansatz, CompiledCircuit

ATTEMPTS = 4
"""How many transpiler seeds are tried on the device, and where routing spreads out, again on a part of it."""


def compile_ansatz(
    ansatz: Ansatz, backend: BackendV2 | None, *, seed: int, optimization_level: int = 3
) -> CompiledCircuit:
    """Compile an ansatz to a device, renumbered onto the qubits in use.

    Where routing went through further qubits, a few more seeds are tried, also on as many qubits as are needed, in a
    good line, alone. The circuit on the fewest qubits wins, then the one with the fewest two-qubit gates: every further
    qubit makes exact simulation 16 times dearer.

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
    device = _usable_part(backend.target)
    why, best = f"its largest connected part has {len(device.qubits)}", None
    fits = needed <= len(device.qubits)
    for part, isa in _candidates(ansatz.circuit, device, seed, optimization_level) if fits else ():
        problem = isa if isinstance(isa, str) else _first_uncalibrated(isa, part, backend.target)
        if problem is not None:
            why = problem
            continue
        compiled = _renumber(ansatz, isa, part)
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


@dataclass(frozen=True)
class _Part:
    """A connected part of a device: its Target, renumbered, and which physical qubits its qubits are."""

    target: Target
    qubits: tuple[int, ...]

    def cut(self, qubits: Iterable[int]) -> _Part:
        """The part that consists of some of its qubits."""
        kept = sorted(qubits)
        return _Part(copy_target(self.target, qubits=kept), tuple(self.qubits[qubit] for qubit in kept))


def _candidates(
    circuit: QuantumCircuit, device: _Part, seed: int, optimization_level: int
) -> Iterator[tuple[_Part, QuantumCircuit | str]]:
    """ISA circuits, or why there is none: on the whole device, then on a line of as many qubits as are needed."""

    def attempt(what: QuantumCircuit, where: _Part, number: int) -> QuantumCircuit | str:
        manager = generate_preset_pass_manager(optimization_level, target=where.target, seed_transpiler=seed + number)
        try:
            return manager.run(what)
        except TranspilerError as error:
            return str(error).strip("'\"").splitlines()[0]

    for number in range(ATTEMPTS):
        yield device, attempt(circuit, device, number)
    line = QuantumCircuit(circuit.num_qubits)
    for qubit in range(circuit.num_qubits - 1):
        line.cx(qubit, qubit + 1)
    placed = attempt(line, device, 0)
    if isinstance(placed, str):
        return
    chosen = {placed.find_bit(qubit).index for instruction in placed.data for qubit in instruction.qubits}
    if len(chosen) < circuit.num_qubits:
        return
    part = device.cut(chosen)
    for number in range(ATTEMPTS):
        yield part, attempt(circuit, part, number)


def _cost(compiled: CompiledCircuit) -> tuple[int, int]:
    return len(compiled.physical_qubits), compiled.two_qubit_gates


def _is_broken(operation: object, properties: InstructionProperties | None) -> bool:
    """An error of 1.0 is how a calibration marks a gate that does not work at present."""
    if not isinstance(operation, Gate):
        return False
    return properties is None or properties.error is None or properties.error >= 1.0


def _usable_part(target: Target) -> _Part:
    """The largest connected part of a device without broken gates, and without qubits that have a broken gate alone.

    A target in several parts is cut to one, since qiskit's layout can fail on the others. Where some pairs have one
    entangling gate and some another (fake_cairo), qiskit cannot orient them, and the part is that of one gate.
    """
    broken: set[tuple[str, tuple[int, ...]]] = set()
    pairs: dict[str, set[tuple[int, ...]]] = {}
    everywhere = False
    for name in target.operation_names:
        operation, entries = target.operation_from_name(name), target[name]
        if entries is None or None in entries:
            everywhere = everywhere or (isinstance(operation, Gate) and operation.num_qubits == 2)
            continue
        for where, properties in entries.items():
            if _is_broken(operation, properties):
                broken.add((name, where))
            elif len(where) == 2:
                pairs.setdefault(name, set()).add((min(where), max(where)))
    dead = {where[0] for _, where in broken if len(where) == 1}
    alive = [qubit for qubit in range(target.num_qubits) if qubit not in dead]
    union = set[tuple[int, ...]]().union(*pairs.values())
    usable = set(pairs)
    largest = alive if everywhere else _largest_component(alive, union)
    if pairs and not everywhere and union not in pairs.values():
        parts = {name: _largest_component(alive, pairs[name]) for name in sorted(pairs)}
        best = max(parts, key=lambda name: len(parts[name]))
        usable, largest = {best}, parts[best]
    if not broken and usable == set(pairs) and len(largest) == target.num_qubits:
        return _Part(target, tuple(largest))
    dropped = set(pairs) - usable
    part = copy_target(
        target, qubits=largest, keep=lambda name, where, _: name not in dropped and (name, where) not in broken
    )
    return _Part(part, tuple(largest))


def _largest_component(qubits: Sequence[int], pairs: Iterable[tuple[int, ...]]) -> list[int]:
    """Ascending; of several as large, the one with the lowest qubit."""
    neighbours: dict[int, set[int]] = {qubit: set() for qubit in qubits}
    for a, b in pairs:
        if a in neighbours and b in neighbours:
            neighbours[a].add(b)
            neighbours[b].add(a)
    largest: list[int] = []
    unseen = dict.fromkeys(qubits)
    while unseen:
        queue, component = [next(iter(unseen))], set[int]()
        while queue:
            qubit = queue.pop()
            if qubit not in component:
                component.add(qubit)
                unseen.pop(qubit)
                queue.extend(neighbours[qubit] - component)
        if len(component) > len(largest):
            largest = sorted(component)
    return largest


def _first_uncalibrated(isa: QuantumCircuit, part: _Part, target: Target) -> str | None:
    """Name the first gate that the device's calibration does not cover, None where all are good."""
    for instruction in isa.data:
        if not isinstance(instruction.operation, Gate):
            continue
        name = instruction.operation.name
        where = tuple(part.qubits[isa.find_bit(qubit).index] for qubit in instruction.qubits)
        entries = target[name] if name in target.operation_names else {}
        if entries is None or None in entries:
            continue
        if where not in entries or _is_broken(instruction.operation, entries[where]):
            return f"{name} on qubits {', '.join(map(str, where))} has no usable calibration"
    return None


def _renumber(ansatz: Ansatz, isa: QuantumCircuit, part: _Part) -> CompiledCircuit:
    initial = isa.layout.initial_index_layout(filter_ancillas=True)
    final = isa.layout.final_index_layout()
    used = {isa.find_bit(qubit).index for instruction in isa.data for qubit in instruction.qubits}
    kept = sorted(used.union(initial, final))
    physical = tuple(part.qubits[qubit] for qubit in kept)  # ascending, as the part's qubits are
    wire = {qubit: position for position, qubit in enumerate(kept)}
    circuit = QuantumCircuit(len(kept), global_phase=isa.global_phase)
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
