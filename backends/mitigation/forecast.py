"""What mitigation will do to expectation values, said before anything is run: from the exact twin of the device."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import erf

from backends.engines import make_executor
from backends.mitigation.executor import count
from backends.mitigation.expected import ExpectedExecutor
from backends.mitigation.make import mitigated, techniques
from backends.mitigation.types import Context, MitigationOptions
from backends.observables import single_z
from backends.protocol import FloatArray, Request
from backends.target import Target
from circuits.compile import compile_ansatz
from circuits.errors import QrunError
from circuits.types import CompiledCircuit

MOST_WIRES = 10
"""The exact twin of more qubits takes too long for a word beforehand."""

_SETS = 6
"""Random parameter sets: each has weights and a latent of its own."""

_START = 0.6
"""The generator's angles at the start of a training: uniform in +- this, radians (`ModelSettings.initial_range`)."""

_MOST_SHOTS = 10**9
"""Nobody takes more: beyond, mitigation does not pay."""

_EXACT = 1e-6
"""Differences below are rounding."""


@dataclass(frozen=True)
class Forecast:
    """Expected errors of single expectation values <Z_i>, without mitigation and with.

    Attributes:
        stack: As "readout+zne".
        shots: A circuit; None for exact values.
        error_without, error_with: Mean expected |error| of a value, sampling included.
        bias_without, bias_with: Mean |error| that is left with infinitely many shots.
        spread_without, spread_with: Mean standard deviation at these shots.
        uncertainty: Standard error of error_with - error_without, over the parameter sets that were tried.
        overhead: Circuits for each unmitigated one, in a step of `batch` samples.
        pays_from: The least number of shots from which the error with mitigation is the smaller one; None where it
            pays at none. 1 where it always does.
    """

    stack: str
    shots: int | None
    error_without: float
    error_with: float
    bias_without: float
    bias_with: float
    spread_without: float
    spread_with: float
    uncertainty: float
    overhead: float
    pays_from: int | None

    @property
    def worse(self) -> bool:
        """Whether values get worse, beyond what the estimate is uncertain by (two standard errors)."""
        return self.error_with - self.error_without > max(2.0 * self.uncertainty, _EXACT)

    @property
    def sentence(self) -> str:
        """What is expected, in words."""
        at = "with exact values" if self.shots is None else f"at {self.shots:,} shots"
        said = (
            f"{self.stack} {at}: expected error of an expectation value {_figure(self.error_with)} against "
            f"{_figure(self.error_without)} without, for {self.overhead:.3g} times the circuits"
        )
        if self.shots is None:
            return f"{said}; it makes things worse." if self.worse else f"{said}."
        if self.pays_from is None:
            return f"{said}; on this device it pays at no number of shots."
        if self.pays_from > self.shots:
            return f"{said}; it pays from about {_rounded(self.pays_from):,} shots on."
        return f"{said}."


def forecast(
    target: Target,
    circuit: CompiledCircuit,
    options: MitigationOptions,
    *,
    shots: int | None,
    seed: int,
    idle_noise: bool = False,
    readout_error: bool = True,
    batch: int = 32,
) -> Forecast:
    """Estimate what a stack does to <Z_i>, from the exact twin of the target at a handful of parameters.

    Bias is exact; the spread is what so many shots of every circuit have, propagated through the combination to first
    order; |error| of a value is the mean of a normal distribution folded at zero.

    Args:
        target: The device; hardware stands for its exact twin.
        circuit: Compiled for it.
        options: The stack and how.
        shots: A circuit; None for exact values.
        seed: Of the parameters that are tried.
        idle_noise: Whether qubits relax while they wait: without, ddd has nothing to undo.
        readout_error: Whether readout errors count.
        batch: Samples a step, which the overhead is of.

    Raises:
        UsageError: A technique does not take the circuit, the target or its options.
        QrunError: The circuit is too wide for the exact twin, or the twin does not take it.
    """
    if len(circuit.physical_qubits) > MOST_WIRES:
        raise QrunError(
            f"what {'+'.join(options.stack) or 'none'} will do is not forecast: the circuit takes "
            f"{len(circuit.physical_qubits)} of the device's qubits, and the exact twin of more than {MOST_WIRES} "
            "is too slow for that."
        )
    context = Context(target, options, shots is None)
    overhead = count(techniques(context), circuit, batch) / batch
    observables = single_z(circuit.num_qubits)
    random = np.random.default_rng([seed, 0])
    inputs = random.uniform(-np.pi, np.pi, (_SETS, len(circuit.inputs)))
    weights = random.uniform(-_START, _START, (_SETS, len(circuit.weights)))
    ideal = ideal_values(circuit, inputs, weights)
    twin = make_executor(
        "twin", target, precision="float64", idle_noise=idle_noise and target.backend is not None,
        readout_error=readout_error,
    )  # fmt: skip
    with ExpectedExecutor(twin, shots) as engine:
        request = Request(circuit, observables, inputs, weights)
        (plain,) = engine.run([request], seed=seed)
        (better,) = mitigated(engine, target, options, exact=shots is None).run([request], seed=seed)
    bias = plain.values - ideal, better.values - ideal
    spread = plain.standard_errors, better.standard_errors
    without, with_ = (folded(b, s) for b, s in zip(bias, spread, strict=True))
    difference = (with_ - without).mean(1)  # of one parameter set; its values hang together
    return Forecast(
        stack="+".join(options.stack) or "none",
        shots=shots,
        error_without=float(without.mean()),
        error_with=float(with_.mean()),
        bias_without=float(np.abs(bias[0]).mean()),
        bias_with=float(np.abs(bias[1]).mean()),
        spread_without=float(spread[0].mean()),
        spread_with=float(spread[1].mean()),
        uncertainty=float(difference.std(ddof=1) / math.sqrt(len(difference))),
        overhead=overhead,
        pays_from=None if shots is None else _pays_from(bias, spread, shots),
    )


def ideal_values(circuit: CompiledCircuit, inputs: FloatArray, weights: FloatArray) -> FloatArray:
    """(batch, n_inputs), (n_weights,) or (batch, n_weights) -> (batch, n): <Z_i> of the ansatz without any noise."""
    from backends.catalog import get_target

    without_noise = compile_ansatz(circuit.ansatz, None, seed=0)
    with make_executor("twin", get_target("ideal"), precision="float64") as engine:
        (result,) = engine.run([Request(without_noise, single_z(circuit.num_qubits), inputs, weights)])
    return result.values


def folded(bias: FloatArray, spread: FloatArray) -> FloatArray:
    """E |b + s N(0, 1)| elementwise: s sqrt(2/pi) exp(-b^2 / 2 s^2) + b erf(b / (s sqrt 2)); |b| where s is zero."""
    safe = np.where(spread > 0.0, spread, 1.0)
    ratio = bias / safe
    mean = safe * math.sqrt(2.0 / math.pi) * np.exp(-(ratio**2) / 2.0) + bias * erf(ratio / math.sqrt(2.0))
    found: FloatArray = np.where(spread > 0.0, mean, np.abs(bias))
    return found


def _pays_from(bias: tuple[FloatArray, FloatArray], spread: tuple[FloatArray, FloatArray], shots: int) -> int | None:
    """The least shots at which mitigation has the smaller mean |error|, spreads going as 1 / sqrt(shots)."""

    def gain(number: float) -> float:
        scale = math.sqrt(shots / number)
        without, with_ = (float(folded(b, scale * s).mean()) for b, s in zip(bias, spread, strict=True))
        return without - with_

    grid = np.geomspace(1.0, _MOST_SHOTS, 145)
    pays = [gain(number) > 0.0 for number in grid]
    if not pays[-1]:
        return None
    first = len(pays)
    while first > 0 and pays[first - 1]:
        first -= 1
    if first == 0:
        return 1
    low, high = float(grid[first - 1]), float(grid[first])
    for _ in range(40):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if gain(middle) > 0.0 else (middle, high)
    return math.ceil(high)


def _figure(value: float) -> str:
    return f"{value:.2g}" if value < 0.1 else f"{value:.2f}"


def _rounded(number: int) -> int:
    """Two digits: it is an estimate."""
    digits = max(len(str(number)) - 2, 0)
    return int(round(number, -digits))
