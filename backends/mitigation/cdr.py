"""Clifford data regression: what noise does to a value, learned from near-Clifford circuits whose values are known.

Most rotations of the circuit, at parameters of the call, are turned to the nearest Clifford angle (Mitiq's
`generate_training_circuits`); such circuits have the same gates and much the same noise, and are simulated without it.
The line ideal = a noisy + b, fitted for each observable by least squares, is then applied to the values of interest
(Czarnik et al., Quantum 5, 592 (2021)). Of Clifford circuits most have values of zero, and teach nothing: four times as
many are drawn, and those are run whose ideal values are spread out most (Czarnik et al., arXiv:2204.07109).

Every rotation whose angle is free or no multiple of pi/2 becomes a parameter of its own, once (`lift`): training
circuits are rows of one template, with the same gates in the same places. The fit is shared by the whole batch, and
counts as a constant for gradients.

By default three in ten of the rotations stay as they are: with one in ten, at angles anywhere, training circuits are
too unlike the circuit. How many times less the mean error is than without, exact values, readout set aside, reps 4,
angles uniform in [-pi, pi], by that share:

| | 0 | .1 | .3 | .5 |
|---|---|---|---|---|
| fake_kyiv 4 qubits | 1.1 | 2.5 | 3.2 | 3.5 |
| fake_kyiv 8 | 1.1 | 1.7 | 2.8 | 3.4 |
| fake_torino 4 | 1.1 | 4.0 | 4.9 | 5.7 |
| fake_manila 4 | 1.1 | 2.5 | 2.8 | 2.9 |

An observable whose training values are all alike, noisy or ideal, keeps its values: no line goes through a point.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from qiskit.quantum_info import SparsePauliOp

from backends.catalog import get_target
from backends.engines import make_executor
from backends.mitigation.lift import Lifted, lift, near_clifford
from backends.mitigation.types import Asked, Context, Part, Rows
from backends.protocol import Executor, FloatArray, Request
from circuits.errors import QrunError, UsageError
from circuits.types import CompiledCircuit

_DRAWN = 4
"""Training circuits that are drawn for each that is run."""

_TWIN_WIRES = 8
"""Up to here the twin evolves training circuits without noise; beyond, Aer follows their state vectors."""

_MOST_WIRES = 20
"""What state vectors are followed for."""

_ALIKE = 1e-2
"""Standard deviation of training values below which they count as alike."""

_KEPT = 64


class Cdr:
    """The requests as they are, and `training_circuits` rows of the lifted circuit that show what noise does to them.

    Raises:
        UsageError: Fewer than 2 training circuits, or a share of rotations outside [0, 1).
    """

    name = "cdr"
    by_value = True

    def __init__(self, context: Context) -> None:
        number, fraction = context.options.training_circuits, context.options.fraction_non_clifford
        if not isinstance(number, int) or isinstance(number, bool) or number < 2:
            raise UsageError(
                f"training_circuits must be 2 or more, not {number!r}.", "Give a whole number, such as 10."
            )
        if isinstance(fraction, bool) or not isinstance(fraction, int | float) or not 0.0 <= fraction < 1.0:
            raise UsageError(
                f"fraction_non_clifford must be at least 0 and below 1, not {fraction!r}.", "Give a share, such as 0.3."
            )
        self._number, self._fraction, self._seed = number, float(fraction), context.options.seed
        self._lifted: OrderedDict[int, Lifted] = OrderedDict()
        self._engines: dict[str, Executor] = {}

    def circuits(self, circuit: CompiledCircuit, batch: int) -> int:
        """As `types.Technique`."""
        return batch + self._number

    def expand(self, asked: Asked) -> Regression:
        """The request's own circuit, and the training circuits with their ideal values.

        Raises:
            UsageError: A circuit that is no rotations between Clifford gates, or too wide to be simulated.
        """
        lifted = self.lifted(asked.circuit)
        seed = np.random.MT19937(np.random.SeedSequence(self._seed))
        # Of a step with thousands of rows, as many as there are training circuits say what its circuits are like.
        batch, few = len(asked.inputs), min(len(asked.inputs), self._number)
        some = np.arange(few) * batch // few
        angles = lifted.at(asked.inputs[some], asked.weights if asked.weights.ndim == 1 else asked.weights[some])
        rows = near_clifford(angles, _DRAWN * self._number, self._fraction, np.random.RandomState(seed))
        ideal = self._ideal(lifted.circuit, asked.observables, rows)
        chosen = spread_out(ideal, self._number)
        training = Rows(np.zeros((self._number, 0)), rows[chosen])
        parts = (
            Part(asked.circuit, asked.observables),
            Part(lifted.circuit, asked.observables, training),
        )
        return Regression(parts, ideal[chosen])

    def lifted(self, circuit: CompiledCircuit) -> Lifted:
        """The template of a circuit, the same object each time.

        Raises:
            UsageError: As `expand`.
        """
        known = self._lifted.get(id(circuit))
        if known is None:
            known = self._lifted[id(circuit)] = lift(circuit)
            if len(self._lifted) > _KEPT:
                self._lifted.popitem(last=False)
        else:
            self._lifted.move_to_end(id(circuit))
        return known

    def _ideal(self, circuit: CompiledCircuit, observables: tuple[SparsePauliOp, ...], rows: FloatArray) -> FloatArray:
        """(rows, m): values without noise.

        Raises:
            UsageError: It is too wide, or has an observable that the simulator does not take.
        """
        wires = circuit.circuit.num_qubits
        if wires > _MOST_WIRES:
            raise UsageError(
                f"cdr simulates its training circuits without noise, and this one has {wires} qubits: it goes up to "
                f"{_MOST_WIRES}.",
                "Take fewer qubits, or another technique (zne).",
            )
        name = "twin" if wires <= _TWIN_WIRES else "aer"
        try:
            (result,) = self._engine(name).run([Request(circuit, observables, np.zeros((len(rows), 0)), rows)])
        except QrunError as error:
            raise UsageError(f"cdr cannot simulate its training circuits: {error.message}", error.hint) from None
        return result.values

    def _engine(self, name: str) -> Executor:
        if name not in self._engines:
            ideal = get_target("ideal")
            if name == "twin":
                self._engines[name] = make_executor("twin", ideal, precision="float64")
            else:
                from backends.aer import AerExecutor

                self._engines[name] = AerExecutor(ideal, shots=None)
        return self._engines[name]


def spread_out(values: FloatArray, number: int) -> list[int]:
    """Which rows to take, so that the values of every observable differ as far as can be; ascending.

    Greedy: each next row is the one that raises sum_i log(eps + n sum y_i^2 - (sum y_i)^2) most, the determinant of the
    normal equations of a line through the values y_i of observable i; of rows as good, the one with the larger values.

    Args:
        values: (rows, m).
        number: How many to take, at most rows.
    """
    left = list(range(len(values)))
    chosen: list[int] = []
    total, squares = np.zeros(values.shape[1]), np.zeros(values.shape[1])
    while len(chosen) < number:
        rows = values[left]
        determinants = (len(chosen) + 1) * (squares + rows**2) - (total + rows) ** 2
        # Rounded, so that equal gains are equal on every machine, and the first of them is taken.
        gains = np.log(1e-2 + np.maximum(determinants, 0.0)).sum(axis=1) + 1e-4 * (rows**2).sum(axis=1)
        best = left.pop(int(np.argmax(np.round(gains, 9))))
        chosen.append(best)
        total, squares = total + values[best], squares + values[best] ** 2
    return sorted(chosen)


@dataclass(frozen=True)
class Lines:
    """ideal = slope noisy + shift, one line an observable.

    Attributes:
        slope, shift: (m,).
        residual: (m,) variance of what the line leaves over.
        middle, inertia: (m,) mean of the noisy training values, and sum of their squared distances from it; inertia is
            infinite where nothing was fitted.
        number: Of training values.
    """

    slope: FloatArray
    shift: FloatArray
    residual: FloatArray
    middle: FloatArray
    inertia: FloatArray
    number: int

    def variance(self, values: FloatArray) -> FloatArray:
        """Of the line at noisy values (batch, m), squared standard error."""
        found: FloatArray = self.residual * (1.0 / self.number + (values - self.middle) ** 2 / self.inertia)
        return found


def fit(noisy: FloatArray, ideal: FloatArray) -> Lines:
    """Least squares for each observable; the identity where training values are alike.

    Args:
        noisy, ideal: (training circuits, m).
    """
    number = len(noisy)
    middle, centre = noisy.mean(axis=0), ideal.mean(axis=0)
    inertia = ((noisy - middle) ** 2).sum(axis=0)
    alike = np.minimum(noisy.std(axis=0), ideal.std(axis=0)) < _ALIKE
    inertia = np.where(alike, np.inf, inertia)
    slope = np.where(alike, 1.0, ((noisy - middle) * (ideal - centre)).sum(axis=0) / inertia)
    shift = np.where(alike, 0.0, centre - slope * middle)
    left = ((ideal - slope * noisy - shift) ** 2).sum(axis=0)
    residual = np.where(alike | (number < 3), 0.0, left / max(1, number - 2))
    return Lines(slope, shift, residual, middle, inertia, number)


@dataclass(frozen=True)
class Regression:
    """Values of interest on the line that the training values define.

    Attributes:
        parts: The request as it is, and the training circuits.
        ideal: (training circuits, m) values of these without noise.
    """

    parts: tuple[Part, ...]
    ideal: FloatArray

    def combine(self, values: Sequence[torch.Tensor]) -> torch.Tensor:
        """As `types.Expansion`; the line is a constant to the gradient."""
        asked, training = values
        lines = fit(training.detach().cpu().to(torch.float64).numpy(), self.ideal)
        slope, shift = (
            torch.as_tensor(each, dtype=asked.dtype, device=asked.device) for each in (lines.slope, lines.shift)
        )
        return slope * asked + shift

    def spread(self, values: Sequence[FloatArray], errors: Sequence[FloatArray]) -> FloatArray:
        """Standard errors of the values, led through the line, with those of the line.

        The line's come from what it leaves over, shots of the training circuits among it, so that they are there with
        exact values too, and say how well a line describes the noise. Two training circuits leave nothing over.
        """
        lines = fit(values[1], self.ideal)
        total: FloatArray = np.sqrt((lines.slope * errors[0]) ** 2 + lines.variance(values[0]))
        return total
