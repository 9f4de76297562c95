"""Which device a circuit fares best on: its estimated fidelity on each device's best qubits, and the queues.

The estimate is the product of all that can go right, from the device's own calibration:

    F = prod_gates (1 - e_g)  x  prod_measured (1 - (p01 + p10) / 2)  x  prod_qubits F_idle(t_idle)
    F_idle(t) = 1/2 + exp(-t / T1) / 6 + exp(-t / T2) / 3

The first two factors are the estimated success probability that noise-adaptive compilers go by (Murali et al., ASPLOS
2019, arXiv:1901.11054; Nishio et al., JETC 2020, arXiv:1903.10963). Waiting counts as one more gate, with the average
fidelity that relaxation leaves for that long (Nielsen, Phys. Lett. A 303, 249 (2002), for the channel with decay of
populations exp(-t/T1) and of coherences exp(-t/T2)): the same measure that a calibration's gate errors are given in.
A qubit waits from its first gate on, in a schedule as late as possible, until all are measured.

It is an estimate to compare devices by, not the fidelity of a state: errors are taken as independent, and each as one
that spoils the result. How well it orders devices, as against the exact noisy twin, is a test
(tests/backends/runtime/test_rank.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from backends.runtime.cost import circuit_seconds, gate_seconds
from backends.runtime.types import RuntimeOptions
from backends.target import Target
from circuits.compile import compile_ansatz
from circuits.errors import QrunError, UsageError
from circuits.types import Ansatz, CompiledCircuit

NEAR = 0.05
"""Devices whose estimated fidelity is less than this share below the best count as good: the queue decides."""

Progress = Callable[[str, int, int], None]
"""Told (device, done, of)."""


@dataclass(frozen=True)
class Ranked:
    """A device, for one circuit.

    Attributes:
        name: Of the target.
        fidelity: Estimated; None where the circuit does not run there.
        two_qubit_gates: Of the circuit compiled for it.
        depth: Of the same.
        physical_qubits: Those in use.
        shot_seconds: Repetition delay and circuit.
        queue: Jobs that wait; None where it is not known.
        calibration_date: ISO 8601.
        reason: Why it stands where it stands.
    """

    name: str
    fidelity: float | None
    two_qubit_gates: int | None
    depth: int | None
    physical_qubits: tuple[int, ...]
    shot_seconds: float | None
    queue: int | None
    calibration_date: str | None
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Plain types, ready for JSON."""
        return {**asdict(self), "physical_qubits": list(self.physical_qubits)}


def estimated_fidelity(compiled: CompiledCircuit, target: Target) -> float:
    """The estimated fidelity of a compiled circuit on its device, from 0 to 1.

    Raises:
        QrunError: The ideal target, or a gate that the device does not have there.
    """
    if target.backend is None:
        raise QrunError(f"the target {target.name} is no device: it has no errors.", "Name a device.")
    device, circuit = target.backend.target, compiled.circuit
    fidelity = 1.0
    # Times count from the end: a schedule as late as possible is one as early as possible, read backwards.
    begin, busy = [0.0] * circuit.num_qubits, [0.0] * circuit.num_qubits
    for instruction in reversed(circuit.data):
        wires = [circuit.find_bit(qubit).index for qubit in instruction.qubits]
        physical = tuple(compiled.physical_qubits[wire] for wire in wires)
        length = gate_seconds(instruction.operation, physical, target)
        before = max(begin[wire] for wire in wires) + length
        waits = instruction.operation.name in ("barrier", "delay")
        for wire in wires:
            begin[wire] = before
            busy[wire] += 0.0 if waits else length
        fidelity *= 1.0 - _error(device, instruction.operation.name, physical)
    for wire, qubit in enumerate(compiled.physical_qubits):
        fidelity *= _waiting(device, qubit, begin[wire] - busy[wire])
    for wire in compiled.final_layout:
        fidelity *= 1.0 - sum(target.readout_errors(compiled.physical_qubits[wire])) / 2
    return min(max(fidelity, 0.0), 1.0)


def rank(
    ansatz: Ansatz,
    targets: Sequence[Target],
    queues: Mapping[str, int | None] | None = None,
    *,
    seed: int = 0,
    max_depth: int | None = None,
    progress: Progress | None = None,
) -> list[Ranked]:
    """Devices in order: the best first, those that cannot run the circuit last.

    First come those whose estimated fidelity is within `NEAR` of the best, the shortest queue in front (one that is
    not known counts as the longest); then all others by fidelity.

    Args:
        ansatz: What is to run; it is compiled for every device.
        targets: Devices.
        queues: Jobs that wait, by name.
        seed: Of layout and routing.
        max_depth: Depth that the compiled circuit may have; where it cannot, the device does not run it.
        progress: Told before each device, and once at the end.
    """
    known = queues or {}
    found = []
    for number, target in enumerate(targets):
        if progress is not None:
            progress(target.name, number, len(targets))
        found.append(_judge(ansatz, target, known.get(target.name), seed, max_depth))
    if progress is not None:
        progress("", len(targets), len(targets))
    able = sorted((d for d in found if d.fidelity is not None), key=lambda d: (-(d.fidelity or 0.0), d.name))
    unable = sorted((d for d in found if d.fidelity is None), key=lambda d: d.name)
    if not able:
        return unable
    top = able[0]
    floor = (top.fidelity or 0.0) * (1.0 - NEAR)
    near = sorted((d for d in able if (d.fidelity or 0.0) >= floor), key=_near_order)
    far = [d for d in able if (d.fidelity or 0.0) < floor]
    first = replace(near[0], reason=_why_first(near, top))
    others = [replace(d, reason=_why_near(d, near[0])) for d in near[1:]]
    below = [replace(d, reason=f"{1 - (d.fidelity or 0.0) / (top.fidelity or 1.0):.0%} below the best") for d in far]
    return [first, *others, *below, *unable]


def best(ranked: Sequence[Ranked]) -> Ranked:
    """The first of a ranking.

    Raises:
        UsageError: No device can run the circuit.
    """
    if not ranked or ranked[0].fidelity is None:
        why = f" {ranked[0].name}: {ranked[0].reason}" if ranked else ""
        raise UsageError(f"no device can run this circuit.{why}", "Take fewer qubits (--qubits).")
    return ranked[0]


def _judge(ansatz: Ansatz, target: Target, queue: int | None, seed: int, max_depth: int | None) -> Ranked:
    try:
        compiled = compile_ansatz(ansatz, target.backend, seed=seed, max_depth=max_depth)
        fidelity = estimated_fidelity(compiled, target)
        seconds = circuit_seconds(compiled, target, RuntimeOptions())
    except QrunError as error:
        return Ranked(target.name, None, None, None, (), None, queue, target.calibration_date, error.message)
    return Ranked(
        name=target.name,
        fidelity=fidelity,
        two_qubit_gates=compiled.two_qubit_gates,
        depth=compiled.depth,
        physical_qubits=compiled.physical_qubits,
        shot_seconds=seconds,
        queue=queue,
        calibration_date=target.calibration_date,
        reason="",
    )


def _near_order(device: Ranked) -> tuple[float, float, str]:
    return math.inf if device.queue is None else device.queue, -(device.fidelity or 0.0), device.name


def _why_first(near: Sequence[Ranked], top: Ranked) -> str:
    first = near[0]
    if len(near) == 1:
        return f"estimated fidelity {first.fidelity:.3f}; no other comes within {NEAR:.0%} of it"
    if first.queue is None:
        return f"the best estimated fidelity, {first.fidelity:.3f}; queues are not known"
    waiting = f"the shortest queue ({first.queue} job(s)) of the {len(near)} within {NEAR:.0%} of the best"
    if first.name == top.name:
        return f"the best estimated fidelity, {first.fidelity:.3f}, and {waiting}"
    return f"estimated fidelity {first.fidelity:.3f}, {waiting} ({top.name}, {top.fidelity:.3f})"


def _why_near(device: Ranked, first: Ranked) -> str:
    if device.queue is None or first.queue is None:
        return f"within {NEAR:.0%} of the best"
    longer = "as long a" if device.queue == first.queue else "a longer"
    return f"within {NEAR:.0%} of the best, with {longer} queue"


def _error(device: Any, name: str, physical: tuple[int, ...]) -> float:
    entries = device[name] if name in device.operation_names else None
    if not entries or None in entries:
        return 0.0
    return float(getattr(entries.get(physical), "error", None) or 0.0)


def _waiting(device: Any, qubit: int, seconds: float) -> float:
    """The average fidelity that is left after waiting; a time that the calibration leaves out decays nothing."""
    if not device.qubit_properties or seconds <= 0.0:
        return 1.0
    figures = device.qubit_properties[qubit]
    t1, t2 = getattr(figures, "t1", None), getattr(figures, "t2", None)
    populations = math.exp(-seconds / t1) if t1 else 1.0
    coherences = math.exp(-seconds / t2) if t2 else 1.0
    return 0.5 + populations / 6 + coherences / 3
