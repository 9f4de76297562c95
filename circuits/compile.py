"""From an ansatz to a circuit in a device's native gates, on the device's best qubits."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice

from qiskit import QuantumCircuit
from qiskit.circuit import Gate
from qiskit.providers import BackendV2
from qiskit.transpiler import TranspilerError, generate_preset_pass_manager

from circuits.depth import push_rotations, shallowest, sum_rotations, too_deep
from circuits.errors import QrunError, UsageError
from circuits.parts import Part, first_uncalibrated, usable_part
from circuits.types import Ansatz, CompiledCircuit

ATTEMPTS = 4
"""How many transpiler seeds are tried on the device, and where routing spreads out, again on a part of it."""


_ROUNDS = 3
"""Rounds of tries for each other number of repetitions."""

_FURTHER = ((3, 0), (1, 0), (3, 1), (2, 0), (3, 2), (1, 1))
"""Where a depth is asked for: (optimisation level, which seeds) of further rounds, each with `_candidates`."""


def compile_ansatz(
    ansatz: Ansatz,
    backend: BackendV2 | None,
    *,
    seed: int,
    optimization_level: int = 3,
    max_depth: int | None = None,
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
        max_depth: Depth that the circuit may have, every gate counted; None for any. Where the circuit is deeper,
            rotations are summed up (`circuits.depth`), and further seeds, layouts and levels tried until it holds.

    Raises:
        UsageError: More qubits than the device has, an unknown optimisation level, or no depth.
        QrunError: The device has no layout for the circuit whose gates are all calibrated, or none within `max_depth`:
            says which depth there is, and what would hold the limit.
    """
    if max_depth is not None and (isinstance(max_depth, bool) or not isinstance(max_depth, int) or max_depth < 1):
        raise UsageError(f"max_depth must be a whole number, 1 or more, not {max_depth!r}.")
    compiled = _compile(ansatz, backend, seed, optimization_level)
    if max_depth is None or compiled.depth <= max_depth:
        return compiled
    found, least = _within(compiled, backend, seed, max_depth)
    if found is not None:
        return found
    raise too_deep(
        least,
        "the ideal target" if backend is None else backend.name,
        max_depth,
        _fewer(ansatz, backend, seed, max_depth),
    )


def _compile(ansatz: Ansatz, backend: BackendV2 | None, seed: int, optimization_level: int) -> CompiledCircuit:
    """`compile_ansatz` without a limit."""
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
    device = usable_part(backend.target)
    why, best = f"its largest connected part has {len(device.qubits)}", None
    fits = needed <= len(device.qubits)
    for part, isa in _candidates(ansatz.circuit, device, seed, optimization_level) if fits else ():
        problem = isa if isinstance(isa, str) else first_uncalibrated(isa, part, backend.target)
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


def _within(
    compiled: CompiledCircuit, backend: BackendV2 | None, seed: int, max_depth: int
) -> tuple[CompiledCircuit | None, CompiledCircuit]:
    """A circuit within the depth, None where there is none, and the shallowest one that was found."""
    least = compiled
    for tries in _tries(compiled, backend, seed):
        least = min(least, *tries, key=lambda one: one.depth)
        found = shallowest(tries, max_depth)
        if found is not None:
            return found, least
    return None, least


def _tries(compiled: CompiledCircuit, backend: BackendV2 | None, seed: int) -> Iterator[list[CompiledCircuit]]:
    """Shallower forms of a circuit, then of others for the same ansatz: round by round, the quickest first."""
    yield _shallower(compiled)
    if backend is None:
        return
    ansatz, device = compiled.ansatz, usable_part(backend.target)
    summed = sum_rotations(ansatz.circuit)
    for level, number in _FURTHER:
        tries: list[CompiledCircuit] = []
        for part, isa in _candidates(summed, device, seed + ATTEMPTS * number, level):
            if not isinstance(isa, str) and first_uncalibrated(isa, part, backend.target) is None:
                tries += _shallower(_renumber(ansatz, isa, part))
        if tries:
            yield tries


def _shallower(compiled: CompiledCircuit) -> list[CompiledCircuit]:
    """A circuit, with its rotations summed up, and with those led forward: sometimes the one is less deep."""
    layout = compiled.physical_qubits, compiled.initial_layout, compiled.final_layout
    forms = (
        compiled.circuit,
        sum_rotations(compiled.circuit),
        sum_rotations(push_rotations(compiled.circuit, compiled.inputs)),
    )
    return [_describe(compiled.ansatz, circuit, *layout) for circuit in forms]


def _fewer(ansatz: Ansatz, backend: BackendV2 | None, seed: int, max_depth: int) -> tuple[int, int] | None:
    """The largest number of repetitions, with its depth, that is found to hold the limit soon; None where none is."""
    if ansatz.with_reps is None or ansatz.reps is None:
        return None
    best, low, high = None, 1, ansatz.reps - 1
    while low <= high:
        reps = (low + high) // 2
        compiled = _compile(ansatz.with_reps(reps), backend, seed, 3)
        rounds = chain([[compiled]], islice(_tries(compiled, backend, seed), _ROUNDS))
        found = next((one for tries in rounds if (one := shallowest(tries, max_depth)) is not None), None)
        if found is not None:
            best, low = (reps, found.depth), reps + 1
        else:
            high = reps - 1
    return best


def _candidates(
    circuit: QuantumCircuit, device: Part, seed: int, optimization_level: int
) -> Iterator[tuple[Part, QuantumCircuit | str]]:
    """ISA circuits, or why there is none: on the whole device, then on a line of as many qubits as are needed."""

    def attempt(what: QuantumCircuit, where: Part, number: int) -> QuantumCircuit | str:
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


def _renumber(ansatz: Ansatz, isa: QuantumCircuit, part: Part) -> CompiledCircuit:
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
