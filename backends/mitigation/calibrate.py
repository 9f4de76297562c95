"""Which mitigation a run is best off with: near-Clifford versions of its own circuit, through every stack in budget."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from qiskit.quantum_info import Statevector

from backends.mitigation.executor import count
from backends.mitigation.make import mitigated, techniques
from backends.mitigation.stack import TECHNIQUES
from backends.mitigation.types import Context, MitigationOptions
from backends.observables import single_z
from backends.protocol import Executor, FloatArray, Request
from backends.target import Target
from circuits.errors import QrunError, UsageError
from circuits.types import CompiledCircuit

CIRCUITS = 8
"""Calibration circuits."""

DRAWN = 64
"""How many are drawn to choose them from."""

FREE = 0.15
"""Share of the angles that are no multiple of pi/2."""

AUTO_BUDGET = 10.0
"""Most circuits for each unmitigated one, where nothing else is said."""

_START = 0.6
"""As in forecast.py: angles at the start of a training, radians."""


_ROUNDING = 1e-9
"""Differences below are none: stacks may come to the same values (cdr fits readout errors away with the gates')."""


@dataclass(frozen=True)
class Tried:
    """What became of one stack.

    Attributes:
        stack: As "readout+zne"; "none".
        overhead: Circuits for each unmitigated one; None where the technique cannot be had here.
        error: Mean |error| of <Z_i> over the calibration circuits; None where it was not run.
        uncertainty: Its standard error over the circuits.
        why_not: Why it was not run; empty where it was.
    """

    stack: str
    overhead: float | None
    error: float | None = None
    uncertainty: float | None = None
    why_not: str = ""

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Choice:
    """The stack that wins, why in a sentence, and all that were looked at, the best first."""

    stack: str
    why: str
    table: tuple[Tried, ...]

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {"stack": self.stack, "why": self.why, "table": [tried.to_json() for tried in self.table]}


def candidates() -> tuple[tuple[str, ...], ...]:
    """None, every technique alone, and readout with every other."""
    others = [name for name in TECHNIQUES if name != "readout"]
    return ((), ("readout",), *((name,) for name in others), *(("readout", name) for name in others))


def choose(
    make_engine: Callable[[], Executor],
    target: Target,
    circuit: CompiledCircuit,
    *,
    shots: int | None,
    budget: float = AUTO_BUDGET,
    seed: int,
    options: MitigationOptions | None = None,
    batch: int = 32,
) -> Choice:
    """Run calibration circuits through every candidate within the budget, and take the best.

    The circuits are the run's own with other parameters, so that they have its gates, its layout and its errors. Angles
    are multiples of pi/2 but for a few; of many drawn, those are taken whose ideal values are as far from zero as the
    run's own at its start. The cheapest stack wins whose mean |error| is within one standard error of the best one's
    (paired over the circuits); "none" may win.

    Args:
        make_engine: Makes the engine that circuits are run on, closed.
        target: Where it runs them.
        circuit: Compiled for it.
        shots: That the engine takes a circuit; None for exact values.
        budget: Most circuits for each unmitigated one.
        seed: Of the circuits' angles and of the shots: the same seed, the same choice.
        options: Of the techniques; the stack in them does not count.
        batch: Samples a step, which the overhead is of.

    Raises:
        UsageError: A budget below 1.
        QrunError: The engine does not take the circuit.
    """
    if isinstance(budget, bool) or not (isinstance(budget, int | float) and math.isfinite(budget) and budget >= 1.0):
        raise UsageError(f"the budget of --mitigation auto must be 1 or more circuits, not {budget!r}.")
    options = options or MitigationOptions()
    inputs, weights, ideal = _calibration(circuit, seed)
    request = Request(circuit, single_z(circuit.num_qubits), inputs, weights)
    tried: list[Tried] = []
    errors: dict[str, FloatArray] = {}
    with make_engine() as engine:
        for stack in candidates():
            mine, name = replace(options, stack=stack), "+".join(stack) or "none"
            try:
                overhead = count(techniques(Context(target, mine, shots is None)), circuit, batch) / batch
                if overhead > budget:
                    tried.append(Tried(name, overhead, why_not="over the budget"))
                    continue
                around = mitigated(engine, target, mine, exact=shots is None)
                (result,) = around.run([request], seed=seed % 2**63)
            except QrunError as error:
                if not stack:
                    raise  # the engine does not take the circuit at all
                tried.append(Tried(name, None, why_not=error.message))
                continue
            each = np.abs(result.values - ideal).mean(1)  # of one circuit; its values hang together
            errors[name] = each
            tried.append(Tried(name, overhead, float(each.mean()), _standard_error(each)))
    table = tuple(sorted(tried, key=lambda t: (t.error is None, t.error or 0.0, t.overhead or 0.0)))
    return _decide(table, errors, shots, budget)


def _decide(table: tuple[Tried, ...], errors: dict[str, FloatArray], shots: int | None, budget: float) -> Choice:
    """The cheapest that is within a standard error of the best; of equally cheap ones the shorter, then the better."""
    best = table[0].stack
    good = []
    for tried in table:
        if tried.error is None:
            continue
        behind = errors[tried.stack] - errors[best]
        if behind.mean() <= max(_standard_error(behind), _ROUNDING):
            good.append(tried)
    won = min(good, key=lambda t: (t.overhead or 0.0, 0 if t.stack == "none" else t.stack.count("+") + 1))
    none = next(t for t in table if t.stack == "none")
    at = "exact values" if shots is None else f"{shots:,} shots"
    if won.stack == "none":
        why = f"none: no stack of at most {budget:g} circuits for each is better than none, at {at}"
    else:
        why = (
            f"{won.stack}: mean error {won.error:.2g} on {CIRCUITS} near-Clifford versions of the circuit, at {at}, "
            f"against {none.error:.2g} without"
        )
    if won.stack != best and won.overhead != table[0].overhead:
        why += f"; {best} ({table[0].error:.2g}) is not better beyond the uncertainty and costs more"
    return Choice(won.stack, f"{why}.", table)


def _calibration(circuit: CompiledCircuit, seed: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Inputs (CIRCUITS, n_inputs), weights (CIRCUITS, n_weights), ideal <Z_i> (CIRCUITS, n)."""
    random = np.random.default_rng([seed, 1])
    ni, nw = len(circuit.inputs), len(circuit.weights)

    def values(angles: FloatArray) -> FloatArray:
        return np.stack([_ideal(circuit, row) for row in angles])

    own = random.uniform(-1.0, 1.0, (CIRCUITS, ni + nw)) * np.r_[np.full(ni, np.pi), np.full(nw, _START)]
    level = float(np.abs(values(own)).mean())
    count_drawn = DRAWN if circuit.num_qubits <= 12 else 2 * CIRCUITS  # a state of 20 qubits takes seconds
    drawn: FloatArray = np.asarray(random.integers(0, 4, (count_drawn, ni + nw)) * (np.pi / 2), dtype=np.float64)
    # Random Clifford circuits have values of zero nearly all, on which no error of a gate shows: most angles turn by
    # nothing or by half.
    still = random.random(drawn.shape) < random.uniform(0.5, 1.0, (count_drawn, 1))
    drawn[still] = random.integers(0, 2, int(still.sum())) * np.pi
    free = random.random(drawn.shape) < FREE
    drawn[free] = random.uniform(-np.pi, np.pi, int(free.sum()))
    ideal = values(drawn)
    order = np.argsort(np.abs(np.abs(ideal).mean(1) - level), kind="stable")[:CIRCUITS]
    return drawn[order, :ni], drawn[order, ni:], ideal[order]


def _ideal(circuit: CompiledCircuit, angles: FloatArray) -> FloatArray:
    """(n_inputs + n_weights,) -> (n,): <Z_i> of the ansatz, from its state."""
    ansatz = circuit.ansatz
    bound = ansatz.circuit.assign_parameters(dict(zip((*ansatz.inputs, *ansatz.weights), angles, strict=True)))
    n = circuit.num_qubits
    share = Statevector(bound).probabilities().reshape((2,) * n)
    # Little-endian: qubit 0 is the last axis.
    found = [np.diff(share.sum(tuple(a for a in range(n) if a != n - 1 - q))) for q in range(n)]
    return -np.concatenate(found)


def _standard_error(values: FloatArray) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else 0.0
