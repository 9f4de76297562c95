"""Circuits that somebody else compiled: from a device's physical qubits to the wires that an engine runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from qiskit import QuantumCircuit
from qiskit.circuit import ControlFlowOp, Gate, Instruction, Parameter
from qiskit.circuit.library import Barrier

from backends.target import Target
from circuits.errors import UsageError
from circuits.types import Ansatz, CompiledCircuit

_TRANSPILE = (
    "Transpile it for this device (generate_preset_pass_manager(backend=backend, optimization_level=3).run(circuit)) "
    "and lay the observables out with it (observable.apply_layout(isa_circuit.layout))."
)


def from_isa(
    circuit: QuantumCircuit,
    inputs: Iterable[Parameter] = (),
    weights: Iterable[Parameter] | None = None,
    *,
    qubits: Iterable[int] = (),
) -> CompiledCircuit:
    """Renumber an ISA circuit onto the qubits that it uses.

    Qubit q of `circuit` is the device's qubit q, whether the circuit is as wide as the device or narrower. The result
    has a virtual qubit for each qubit with a gate, and for each of `qubits`, in ascending order. Further qubits on
    which others wait, through delays and barriers, are wires without a virtual qubit. Final measurements are left out
    (`final_measurements` says where they are), and so is what makes nobody wait.

    Args:
        circuit: In the device's gates, on its physical qubits.
        inputs: Parameters that are bound per sample.
        weights: The other parameters; by default those of the circuit that are not inputs, in the circuit's order.
        qubits: Physical qubits to keep although they have no gate: those that an observable or a measurement reads.

    Raises:
        UsageError: A measurement before the end, a reset, control flow, a qubit that the circuit does not have, or a
            parameter twice or not named.
    """
    final_measurements(circuit)  # refuses what is not a plain circuit
    own = tuple(inputs)
    free = _gate_parameters(circuit)
    others = tuple(p for p in circuit.parameters if p in free and p not in own) if weights is None else tuple(weights)
    _check_parameters(circuit, free, own, others)
    index = {qubit: number for number, qubit in enumerate(circuit.qubits)}
    kept = sorted(_gated(circuit, index).union(_checked(circuit, qubits))) or [0]
    physical = sorted({*kept, *_awaited(circuit, index, kept)})
    wire = {qubit: position for position, qubit in enumerate(physical)}
    out = _on_wires(circuit, index, wire)
    narrow = out if physical == kept else _on_wires(circuit, index, {q: v for v, q in enumerate(kept)})
    counts = {str(name): int(number) for name, number in sorted(narrow.count_ops().items())}
    layout = tuple(wire[qubit] for qubit in kept)
    return CompiledCircuit(
        ansatz=Ansatz(circuit.name, narrow, own, others),
        circuit=out,
        inputs=own,
        weights=others,
        physical_qubits=tuple(physical),
        initial_layout=layout,
        final_layout=layout,
        depth=int(narrow.depth()),
        two_qubit_gates=sum(1 for i in out.data if isinstance(i.operation, Gate) and len(i.qubits) == 2),
        gate_counts=counts,
    )


def _on_wires(circuit: QuantumCircuit, index: dict[object, int], wire: dict[int, int]) -> QuantumCircuit:
    """The part of a circuit on the qubits that have a wire, up to the measurements."""
    out = QuantumCircuit(len(wire), name=circuit.name)
    measured: set[int] = set()
    for instruction in circuit.data:
        where = [index[qubit] for qubit in instruction.qubits]
        operation = instruction.operation
        if operation.name == "measure":
            measured.update(where)
            continue
        on = [wire[qubit] for qubit in where if qubit in wire and qubit not in measured]
        if operation.name == "barrier":
            if on:
                out.append(Barrier(len(on)), on)
        elif on:
            out.append(operation, on)
    return out


def final_measurements(circuit: QuantumCircuit) -> dict[int, int]:
    """Classical bit -> qubit of the measurements at the end; a bit that is written twice holds the later one.

    Raises:
        UsageError: A measurement that something follows on its qubit, a reset, or control flow.
    """
    found: dict[int, int] = {}
    done: set[int] = set()
    index = {qubit: number for number, qubit in enumerate(circuit.qubits)}
    bits = {bit: number for number, bit in enumerate(circuit.clbits)}
    for instruction in circuit.data:
        operation, where = instruction.operation, [index[qubit] for qubit in instruction.qubits]
        if isinstance(operation, ControlFlowOp) or operation.name == "reset":
            raise UsageError(
                f"the circuit {circuit.name} has a {operation.name!r}: the twin runs gates and final measurements.",
                "Leave it out, or sample the circuit on AerSimulator.from_backend(backend).",
            )
        if operation.name in ("barrier", "delay"):
            continue
        again = done.intersection(where)
        if again:
            raise UsageError(
                f"the circuit {circuit.name} measures qubit {min(again)} before the end: {operation.name!r} follows.",
                "Measure each qubit once, after its last gate, or sample the circuit on "
                "AerSimulator.from_backend(backend).",
            )
        if operation.name == "measure":
            done.update(where)
            found[bits[instruction.clbits[0]]] = where[0]
    return found


def check_isa(circuit: QuantumCircuit, target: Target) -> None:
    """Check that the device has every gate of the circuit where the circuit has it.

    Raises:
        UsageError: More qubits than the device has, or a gate that the device lacks there; says what to do.
    """
    if target.backend is None:
        return
    if target.num_qubits is not None and circuit.num_qubits > target.num_qubits:
        raise UsageError(
            f"the circuit {circuit.name} has {circuit.num_qubits} qubits, and {target.name} has {target.num_qubits}.",
            _TRANSPILE,
        )
    device = target.backend.target
    index = {qubit: number for number, qubit in enumerate(circuit.qubits)}
    seen: set[tuple[str, tuple[int, ...]]] = set()
    for instruction in circuit.data:
        name, where = instruction.operation.name, tuple(index[qubit] for qubit in instruction.qubits)
        if name in ("barrier", "delay", "measure") or (name, where) in seen:
            continue
        seen.add((name, where))
        if not device.instruction_supported(name, where):
            lacks = "no such gate" if name not in device.operation_names else "it not there, or not in that direction"
            raise UsageError(
                f"the circuit {circuit.name} is not one for {target.name}: {name} on "
                f"{'qubits' if len(where) > 1 else 'qubit'} {', '.join(map(str, where))}, and the device has {lacks}.",
                _TRANSPILE,
            )


def leading_parameters(circuit: QuantumCircuit) -> tuple[Parameter, ...]:
    """The parameters that occur only in single-qubit gates before the first two-qubit gate of their qubit.

    In the circuit's order. For one set of the other parameters, all values of these cost the twin one walk through
    the circuit.
    """
    entangled: set[int] = set()
    late: set[Parameter] = set()
    index = {qubit: number for number, qubit in enumerate(circuit.qubits)}
    for instruction in circuit.data:
        where = [index[qubit] for qubit in instruction.qubits]
        if len(where) > 1 and instruction.operation.name != "barrier":
            entangled.update(where)
        if entangled.intersection(where):
            late |= parameters_of(instruction.operation)
    early = _gate_parameters(circuit) - late
    return tuple(parameter for parameter in circuit.parameters if parameter in early)


def parameters_of(operation: Instruction) -> set[Parameter]:
    """The free parameters of an operation."""
    return {parameter for value in operation.params for parameter in getattr(value, "parameters", ())}


def _gate_parameters(circuit: QuantumCircuit) -> set[Parameter]:
    """Those of the gates: one that is only in the global phase changes nothing that can be measured."""
    return set[Parameter]().union(*(parameters_of(instruction.operation) for instruction in circuit.data))


def _gated(circuit: QuantumCircuit, index: dict[object, int]) -> set[int]:
    """Qubits with a gate. One that only waits or is measured stays in |0>."""
    idle = ("barrier", "delay", "measure")
    return {index[q] for i in circuit.data if i.operation.name not in idle for q in i.qubits}


def _awaited(circuit: QuantumCircuit, index: dict[object, int], kept: Iterable[int]) -> list[int]:
    """Qubits outside `kept` that make others wait: for a delay beside a barrier, or for one barrier after another.

    Without a delay, a qubit puts one barrier after another, unless some other has all its barriers, too.
    """
    does: dict[int, list[tuple[int, bool]]] = {}
    measured: set[int] = set()
    for number, instruction in enumerate(circuit.data):
        name, where = instruction.operation.name, [index[qubit] for qubit in instruction.qubits]
        if name == "measure":
            measured.update(where)
        elif name in ("barrier", "delay"):
            for qubit in set(where) - measured:
                does.setdefault(qubit, []).append((number, name == "delay"))
    found: list[int] = []
    seen = [{number for number, delay in does.get(qubit, ()) if not delay} for qubit in kept]
    for qubit in sorted(does.keys() - set(kept)):
        barriers = {number for number, delay in does[qubit] if not delay}
        waits = len(barriers) < len(does[qubit])
        if not barriers or (not waits and (len(barriers) == 1 or any(barriers <= others for others in seen))):
            continue
        found.append(qubit)
        seen.append(barriers)
    return found


def _checked(circuit: QuantumCircuit, qubits: Iterable[int]) -> list[int]:
    wanted = list(qubits)
    for qubit in wanted:
        if not 0 <= qubit < circuit.num_qubits:
            raise UsageError(f"qubit {qubit} was asked for, and the circuit has 0 to {circuit.num_qubits - 1}.")
    return wanted


def _check_parameters(
    circuit: QuantumCircuit, free: set[Parameter], inputs: Sequence[Parameter], weights: Sequence[Parameter]
) -> None:
    named = [*inputs, *weights]
    twice = {p.name for p in named if named.count(p) > 1}
    if twice:
        raise UsageError(f"parameters named twice: {', '.join(sorted(twice))}.", "Each is either an input or a weight.")
    missing = sorted(p.name for p in free.difference(named))
    if missing:
        raise UsageError(
            f"parameters of {circuit.name} that are neither inputs nor weights: {', '.join(missing)}.",
            "Name them, or leave the weights out: then they are all parameters that are not inputs.",
        )
    strange = sorted(p.name for p in set(named).difference(circuit.parameters))
    if strange:
        raise UsageError(f"{circuit.name} has no parameters {', '.join(strange)}.")
