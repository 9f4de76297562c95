"""How noise is scaled: Mitiq's folding functions on a device's tokens, leaving alone what has no errors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import cirq
import numpy as np
from mitiq.zne.scaling import fold_all, fold_gates_at_random, fold_global

from backends.mitigation.tokens import Token, quiet
from backends.mitigation.types import Folding
from backends.target import Target
from circuits.errors import UsageError
from circuits.types import CompiledCircuit

Fold = Callable[[cirq.Circuit, float], cirq.Circuit]
"""(tokens, noise scale) -> tokens of the same unitary with about so many times the noise."""

FOLDINGS = ("local", "global", "random")


def folder(folding: Folding, circuit: CompiledCircuit, target: Target, seed: int) -> Fold:
    """The folding function of that name for a circuit's tokens.

    - "local": G -> G (G^-1 G)^k for every gate that has errors, scale 2 k + 1 (Mitiq's `fold_all`).
    - "global": U -> U (U^-1 U)^k for the whole circuit (`fold_global`); between the odd numbers its last operations are
      folded once more, counted without regard to their errors, so that such a scale is only nearly met.
    - "random": as local, and between the odd numbers single gates, drawn by `seed`, once more, until the calibrated
      errors of the folded gates add up to the scale (`fold_gates_at_random`).

    Local and random folding leave gates without errors alone (rz, which a device does in software): a free angle then
    still stands alone in its rotation, so that the parameter-shift rule stays exact. In a globally folded circuit an
    angle stands forwards and backwards with noise in between, and that rule is off by the size of the noise.

    Raises:
        UsageError: Another name.
    """
    if folding not in FOLDINGS:
        raise UsageError(f"unknown folding {folding!r}.", f"Known: {', '.join(FOLDINGS)}.")
    if folding == "global":
        return _global
    if folding == "local":
        return _local
    fidelities = _fidelities(circuit, target)
    # RandomState takes 32 bits, and a run's seeds have more.
    state = int(np.random.SeedSequence(seed).generate_state(1)[0])

    def at_random(tokens: cirq.Circuit, scale: float) -> cirq.Circuit:
        return _random(tokens, scale, fidelities, state)

    return at_random


def _local(tokens: cirq.Circuit, scale: float) -> cirq.Circuit:
    return fold_all(tokens, scale, exclude=quiet(tokens))


def _global(tokens: cirq.Circuit, scale: float) -> cirq.Circuit:
    return fold_global(tokens, scale)


def _random(tokens: cirq.Circuit, scale: float, fidelities: dict[str, float], seed: int) -> cirq.Circuit:
    """Mitiq's weights go by a gate's width, and cannot tell rz from sx: it draws among the noisy tokens alone."""
    silent = quiet(tokens)
    noisy = cirq.Circuit(op for op in tokens.all_operations() if op.gate not in silent)
    drawn = fold_gates_at_random(noisy, scale, seed=seed, fidelities=fidelities)
    times = Counter(op.gate.place for op in drawn.all_operations() if isinstance(op.gate, Token))
    folded = cirq.Circuit()
    for op in tokens.all_operations():
        folds = times[op.gate.place] // 2 if op.gate not in silent else 0
        folded.append([op, *[cirq.inverse(op), op] * folds])
    return folded


def _fidelities(circuit: CompiledCircuit, target: Target) -> dict[str, float]:
    """Mean fidelity of the circuit's gates on one ("single") and on two qubits ("double"), as calibrated.

    Kinds without any figure are left out, so that Mitiq's own weight stands for them.
    """
    if target.backend is None:
        return {}
    device, errors = target.backend.target, dict[int, list[float]]()
    for instruction in circuit.circuit.data:
        name = instruction.operation.name
        where = tuple(circuit.physical_qubits[circuit.circuit.find_bit(q).index] for q in instruction.qubits)
        entries = device[name] if name in device.operation_names else None
        properties = entries.get(where) if entries else None
        if properties is not None and properties.error:
            errors.setdefault(len(where), []).append(float(properties.error))
    kinds = {"single": 1, "double": 2}
    return {kind: max(1.0 - float(np.mean(errors[n])), 1e-9) for kind, n in kinds.items() if n in errors}
