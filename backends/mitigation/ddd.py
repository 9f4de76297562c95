"""Digital dynamical decoupling: pulses that cancel, in the time in which a qubit waits.

The circuit is scheduled as late as possible with the device's own gate lengths, so that a window is the true time from
the end of one gate of a qubit to the start of its next, and not the number of moments between them. Each window is cut
into slices of the length of one pulse. All windows together are handed to Mitiq as one circuit (a qubit a window, a
moment a slice), whose `insert_ddd_sequences` puts the rule's pulses into the slack; they come back as native gates,
with the waiting between them as explicit delays, so that they stay apart on a device. A window too short for the
sequence stays as it is, and so does the time before a qubit's first gate, for |0> loses nothing.

What this is for is hardware, where waiting qubits pick up slow, correlated phases. The idle noise that a simulator has
here is Markovian (T1 and T2): no pulses refocus it, so that this costs the pulses' errors and gains nothing. A target
without gate lengths, as the ideal one, has no waiting that is known, and nothing is changed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cirq
from mitiq.ddd import insert_ddd_sequences, rules
from qiskit import QuantumCircuit
from qiskit.circuit import Barrier, Delay
from qiskit.transpiler import Target as QiskitTarget

from backends.mitigation.linear import Linear
from backends.mitigation.paulis import NativePaulis, X, Y
from backends.mitigation.tokens import Token, with_circuit
from backends.mitigation.types import Asked, Context, Part
from backends.twin.channels import describe_gate, gate_entries
from backends.twin.schedule import with_delays
from circuits.errors import UsageError
from circuits.types import CompiledCircuit

RULES = {"xx": rules.xx, "yy": rules.yy, "xyxy": rules.xyxy}
_PULSES = {cirq.X: X, cirq.Y: Y}

_MOST = 2000
"""Slices of the longest window that is filled: 0.1 ms, in which a qubit loses its state whatever is done."""

Pulses = tuple[tuple[int, int], ...]
"""(slice, Pauli) in order."""


@dataclass
class _Window:
    """A time in which a wire waits, between two gates or after the last: its delays' places in the schedule.

    `pulses` are as Mitiq put them.
    """

    wire: int
    places: list[int]
    length: float
    pulses: Pulses = ()


class Ddd:
    """The circuit with its windows filled; a single circuit, as it costs no others.

    Raises:
        UsageError: An unknown rule, or a device whose gates make no Paulis.
    """

    name = "ddd"
    by_value = False

    def __init__(self, context: Context) -> None:
        rule = context.options.ddd_rule
        if rule not in RULES:
            raise UsageError(f"unknown ddd rule {rule!r}.", f"Known: {', '.join(RULES)}.")
        self._rule, self._target = RULES[rule], context.target
        self._paulis = NativePaulis(context.target)
        self._sequences: dict[int, Pulses] = {}

    def circuits(self, circuit: CompiledCircuit, batch: int) -> int:
        """As `types.Technique`."""
        return batch

    def expand(self, asked: Asked) -> Linear:
        """The circuit with pulses in its windows; the circuit itself where there is none that takes a sequence.

        Raises:
            UsageError: The calibration does not say how long a gate takes, or the circuit cannot be scheduled.
        """
        circuit = asked.circuit
        if self._target.backend is not None:
            circuit = self._filled(circuit, self._target.backend.target)
        return Linear((Part(circuit, asked.observables),), (1.0,))

    def _filled(self, compiled: CompiledCircuit, target: QiskitTarget) -> CompiledCircuit:
        pulses = _pulse_lengths(compiled, target, self._paulis.pulse)
        scheduled = with_delays(compiled, target).circuit
        found = windows(scheduled)
        # A little more than it is, for lengths in seconds are rounded.
        slices = [int(window.length / pulses[window.wire] * (1.0 + 1e-9)) for window in found]
        self._sequences |= sequences(sorted({n for n in slices if 1 < n <= _MOST} - set(self._sequences)), self._rule)
        for window, number in zip(found, slices, strict=True):
            window.pulses = self._sequences.get(number, ())
        filled = [window for window in found if window.pulses]
        if not filled:
            return compiled
        # A device schedules what is left to it in the same way: delays stand where there are pulses to keep apart,
        # and wherever the circuit had some.
        waits = any(isinstance(instruction.operation, Delay) for instruction in compiled.circuit.data)
        start = {window.places[0]: window for window in filled}
        inside = {place for window in filled for place in window.places}
        result = QuantumCircuit(scheduled.num_qubits, global_phase=scheduled.global_phase)
        for place, instruction in enumerate(scheduled.data):
            wires = [scheduled.find_bit(qubit).index for qubit in instruction.qubits]
            if place in start:
                self._write(result, start[place], pulses[start[place].wire], instruction.operation.unit)
            elif place in inside or (isinstance(instruction.operation, Delay) and not waits):
                continue
            else:
                result.append(instruction.operation, wires)
        # Delays of its own count on every engine; these are the waiting that was there before.
        return replace(with_circuit(compiled, result), idle_delays=not waits)

    def _write(self, circuit: QuantumCircuit, window: _Window, pulse: float, unit: str) -> None:
        """Pulses and delays in a window; in all they take as long as it is."""
        now: float = 0
        for where, pauli in window.pulses:
            start = where * pulse
            if start > now:
                circuit.append(Delay(start - now, unit), [window.wire])
            self._paulis.append(circuit, pauli, window.wire)
            now = start + pulse
        left = window.length - now
        if left > 1e-6 * pulse:
            circuit.append(Delay(left, unit), [window.wire])


def windows(scheduled: QuantumCircuit) -> list[_Window]:
    """The times in which a wire waits after its first gate, in the order in which they start in the circuit."""
    found: list[_Window] = []
    waiting: dict[int, _Window] = {}
    begun: set[int] = set()
    for place, instruction in enumerate(scheduled.data):
        if isinstance(instruction.operation, Barrier):
            continue
        wires = [scheduled.find_bit(qubit).index for qubit in instruction.qubits]
        if not isinstance(instruction.operation, Delay):
            begun.update(wires)
            for wire in wires:
                waiting.pop(wire, None)
        elif wires[0] in begun and instruction.operation.duration > 0:
            (wire,) = wires
            if wire not in waiting:
                waiting[wire] = _Window(wire, [], 0)
                found.append(waiting[wire])
            waiting[wire].places.append(place)
            waiting[wire].length += instruction.operation.duration
    return found


def sequences(lengths: Sequence[int], rule: Callable[[int], cirq.Circuit]) -> dict[int, Pulses]:
    """What Mitiq puts into windows of so many slices: each is a qubit, each slice a moment; what is beyond is busy."""
    lines = dict(zip(lengths, cirq.LineQubit.range(len(lengths)), strict=True))
    busy = Token(-1, 1)
    moments = [
        cirq.Moment((cirq.I if moment < slices else busy).on(line) for slices, line in lines.items())
        for moment in range(max(lengths, default=0))
    ]
    filled = insert_ddd_sequences(cirq.Circuit(moments), rule)
    found: dict[int, Pulses] = {}
    for slices, line in lines.items():
        gates = [filled.operation_at(line, moment) for moment in range(slices)]
        found[slices] = tuple(
            (number, _PULSES[operation.gate])
            for number, operation in enumerate(gates)
            if operation is not None and operation.gate in _PULSES
        )
    return found


def _pulse_lengths(compiled: CompiledCircuit, target: QiskitTarget, pulse: str) -> dict[int, float]:
    """The length of a pulse on each wire, in whole dt where the device has a dt, else in seconds.

    Raises:
        UsageError: The length of a gate in use is not known, so that there is no saying when a qubit waits.
    """
    circuit = compiled.circuit
    used = [
        (instruction.operation.name, tuple(circuit.find_bit(qubit).index for qubit in instruction.qubits))
        for instruction in circuit.data
        if not isinstance(instruction.operation, Barrier | Delay)
    ]
    lengths: dict[int, float] = {}
    wires = dict.fromkeys(itertools.chain.from_iterable(where for _, where in used))
    for name, where in (*used, *((pulse, (wire,)) for wire in wires)):
        qubits = tuple(compiled.physical_qubits[wire] for wire in where)
        entries = gate_entries(target, name, qubits)
        properties = None if entries is None else entries[qubits]
        if properties is None or properties.duration is None:
            raise UsageError(
                f"ddd needs the length of every gate, and the calibration has none for {describe_gate(name, qubits)}.",
                "Leave ddd out of the stack, or choose other qubits.",
            )
        if name == pulse:
            seconds = properties.duration
            lengths[where[0]] = round(seconds / target.dt) if target.dt else seconds
    return lengths
