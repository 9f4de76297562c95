"""The part of a device that a compiler may use: connected, and without gates that are out of order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from qiskit import QuantumCircuit
from qiskit.circuit import Gate
from qiskit.transpiler import InstructionProperties, Target

from circuits.targets import copy_target


@dataclass(frozen=True)
class Part:
    """A connected part of a device: its Target, renumbered, and which physical qubits its qubits are."""

    target: Target
    qubits: tuple[int, ...]

    def cut(self, qubits: Iterable[int]) -> Part:
        """The part that consists of some of its qubits."""
        kept = sorted(qubits)
        return Part(copy_target(self.target, qubits=kept), tuple(self.qubits[qubit] for qubit in kept))


def _is_broken(operation: object, properties: InstructionProperties | None) -> bool:
    """An error of 1.0 is how a calibration marks a gate that does not work at present."""
    if not isinstance(operation, Gate):
        return False
    return properties is None or properties.error is None or properties.error >= 1.0


def usable_part(target: Target) -> Part:
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
        return Part(target, tuple(largest))
    dropped = set(pairs) - usable
    part = copy_target(
        target, qubits=largest, keep=lambda name, where, _: name not in dropped and (name, where) not in broken
    )
    return Part(part, tuple(largest))


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


def first_uncalibrated(isa: QuantumCircuit, part: Part, target: Target) -> str | None:
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
