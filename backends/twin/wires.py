"""The order of wires in which the twin keeps a state."""

from __future__ import annotations

from qiskit.circuit import Barrier, Delay

from circuits.types import CompiledCircuit


def order_wires(compiled: CompiledCircuit) -> tuple[int, ...]:
    """Tensor positions of the wires: Cuthill and McKee's order of the coupling graph, so that blocks are adjacent.

    -1 for wires without a gate and without a virtual qubit.
    """
    neighbours: dict[int, set[int]] = {wire: set() for wire in compiled.final_layout}
    index = {qubit: wire for wire, qubit in enumerate(compiled.circuit.qubits)}
    for instruction in compiled.circuit.data:
        wires = [index[qubit] for qubit in instruction.qubits]
        if all(wire in neighbours and neighbours[wire].issuperset(set(wires) - {wire}) for wire in wires):
            continue  # as with most gates
        if isinstance(instruction.operation, Barrier | Delay):
            continue
        for wire in wires:
            neighbours.setdefault(wire, set()).update(other for other in wires if other != wire)
    order: list[int] = []
    by_degree = sorted(neighbours, key=lambda wire: (len(neighbours[wire]), wire))
    for start in by_degree:
        queue = [start]
        while queue:
            wire = queue.pop(0)
            if wire in order:
                continue
            order.append(wire)
            queue += sorted(neighbours[wire] - set(order), key=lambda other: (len(neighbours[other]), other))
    position = {wire: number for number, wire in enumerate(order)}
    return tuple(position.get(wire, -1) for wire in range(compiled.circuit.num_qubits))
