"""A torch module around an engine: expectation values of a circuit with a gradient of one's choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import torch
from qiskit.circuit import Parameter
from qiskit.quantum_info import SparsePauliOp

from backends.protocol import DifferentiableExecutor, Executor, FloatArray, Request
from backends.twin.expressions import coefficients
from circuits.errors import QrunError, UsageError
from circuits.types import CompiledCircuit

GradientMethod = Literal["exact", "parameter-shift", "spsa"]

_SHIFTABLE = frozenset({"rx", "ry", "rz", "p", "rxx", "ryy", "rzz", "rzx"})
"""Gates exp(-i theta P / 2) with P^2 = 1 (up to a global phase), for which the two-point rule is exact."""

_PERTURBATION, _SAMPLING = 0, 1
"""Purposes of the seeds of a step."""


@dataclass(frozen=True)
class Further:
    """A circuit that is evaluated in the same call as the layer's own, with the same inputs and weights.

    Attributes:
        circuit: Its inputs and weights are those of the layer's circuit; a weight may stand in it several times.
        observables: Of it.
        raw: Whether the device's own answer is asked for, also where the engine mitigates.
    """

    circuit: CompiledCircuit
    observables: tuple[SparsePauliOp, ...]
    raw: bool = False


class ExpectationLayer(torch.nn.Module):
    """Expectation values of `observables` after `circuit`, as a differentiable function of inputs and weights.

    - "exact": the engine's own gradient, for inputs and weights.
    - "parameter-shift": d f / d theta = (f(theta + pi/2) - f(theta - pi/2)) / 2 for every weight, which is exact also
      under noise that does not depend on theta.
    - "spsa": (f(theta + c D) - f(theta - c D)) / (2 c) * D with a random sign vector D: an unbiased estimate up to
      O(c^2) from two evaluations (J. C. Spall, IEEE Trans. Autom. Control 37, 332 (1992)).

    The last two give gradients for the weights only. Where weights require a gradient, `forward` sends the values and
    all shifted circuits in one call of the engine, so that a device gets a step as one job; without (torch.no_grad)
    it sends the values alone.

    Further circuits go the same way, in the same call. Where a weight stands in R rotations of one of them,
    parameter-shift takes 2 R shifts of it, (2 k - 1) pi / (2 R), instead of two: the value has frequencies up to R
    then, and the rule is exact for them, also under noise (D. Wierichs et al., Quantum 6, 677 (2022)).

    `step` counts the forward calls. All randomness of a call comes from (seed, step): to resume a run, set `step` to
    what it was.

    Args:
        executor: The engine.
        circuit: The compiled circuit.
        observables: m sums of Pauli strings on the circuit's virtual qubits.
        gradient: See above.
        seed: Of perturbations and of the engine's sampling.
        spsa_step: c, radians.
        further: Circuits whose values stand behind those of `circuit`, in this order.

    Raises:
        UsageError: An unknown gradient, a step that is not positive, or a gradient that engine or circuit do not have.
    """

    def __init__(
        self,
        executor: Executor,
        circuit: CompiledCircuit,
        observables: tuple[SparsePauliOp, ...],
        *,
        gradient: GradientMethod = "exact",
        seed: int = 0,
        spsa_step: float = 0.2,
        further: Sequence[Further] = (),
    ) -> None:
        super().__init__()
        if gradient not in ("exact", "parameter-shift", "spsa"):
            raise UsageError(f"unknown gradient {gradient!r}.", "Known: exact, parameter-shift, spsa.")
        if gradient == "exact" and not executor.differentiable:
            raise UsageError(
                f"the engine {executor.name} has no exact gradient.",
                "Choose spsa or parameter-shift, or --engine twin.",
            )
        for other in further:
            if (other.circuit.inputs, other.circuit.weights) != (circuit.inputs, circuit.weights):
                raise UsageError("a further circuit of the layer has other inputs or weights than the layer's own.")
        if gradient == "parameter-shift":
            _check_shiftable(circuit)
        if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
            raise UsageError(f"the seed must be 0 or more, not {seed!r}.", "Give a whole number.")
        if not (isinstance(spsa_step, int | float) and spsa_step > 0.0):
            raise UsageError(f"the SPSA step must be positive, not {spsa_step!r}.")
        self.executor, self.circuit, self.observables = executor, circuit, tuple(observables)
        self.gradient, self.seed, self.spsa_step = gradient, int(seed), spsa_step
        self.further = tuple(further)
        # How often a weight stands in each circuit, the layer's own first.
        shifting = gradient == "parameter-shift"
        self.occurrences = (1, *(_occurrences(other.circuit) if shifting else 1 for other in self.further))
        self.step = 0

    def forward(self, inputs: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """(batch, n_inputs), (n_weights,) -> (batch, m), in the dtype and on the device of `weights`.

        The values of further circuits are further columns.

        Raises:
            UsageError: No tensors of real numbers, a wrong shape, or a value that is not finite.
            QrunError: The inputs require a gradient, and this layer's method has none for them.
        """
        check_tensor("inputs", inputs)
        check_tensor("weights", weights)
        step = self.step
        self.step += 1
        if self.gradient == "exact":
            engine = cast(DifferentiableExecutor, self.executor)
            # The engine may compute on another device than the one that the rest of the model is on.
            values = engine.expectations(self.circuit, self.observables, inputs, weights).to(weights)
            if not self.further:
                return values
            # What mitigates is around the engine, and knows it.
            plain = getattr(engine, "unmitigated", engine)
            others = [
                (plain if other.raw else engine).expectations(other.circuit, other.observables, inputs, weights)
                for other in self.further
            ]
            return torch.cat([values, *(other.to(weights) for other in others)], dim=1)
        if inputs.requires_grad and torch.is_grad_enabled():
            raise QrunError(
                f"the {self.gradient} gradient is for weights only, and the inputs require one.",
                'Detach the inputs, or use gradient="exact" on the twin engine.',
            )
        call = (self, step, torch.is_grad_enabled() and weights.requires_grad)
        result: torch.Tensor = _Estimated.apply(call, inputs, weights)
        return result

    def seed_of(self, step: int, purpose: int) -> np.random.SeedSequence:
        """The seed sequence of a call and a purpose."""
        return np.random.SeedSequence([self.seed, step, purpose])

    def evaluate(self, step: int, inputs: FloatArray, shifted: Sequence[list[FloatArray]]) -> list[list[FloatArray]]:
        """Values (batch, m) for each weight vector of each circuit, in one call of the engine; one request a circuit.

        `shifted` has a list of weight vectors for the layer's own circuit and for each further one.
        """
        batch = len(inputs)
        circuits = (Further(self.circuit, self.observables), *self.further)
        requests = [
            Request(
                each.circuit,
                each.observables,
                np.tile(inputs, (len(vectors), 1)),
                np.repeat(np.stack(vectors), batch, axis=0) if len(vectors) > 1 else vectors[0],
                raw=each.raw,
            )
            for each, vectors in zip(circuits, shifted, strict=True)
        ]
        seed = int(self.seed_of(step, _SAMPLING).generate_state(1)[0])
        answers = self.executor.run(requests, seed=seed)
        return [
            list(answer.values.reshape(len(vectors), batch, len(each.observables)))
            for answer, vectors, each in zip(answers, shifted, circuits, strict=True)
        ]


Rule = list[tuple[float, float]]
"""(shift, coefficient): the slope along a direction is the sum of coefficient * (f(+shift) - f(-shift))."""


class _Estimated(torch.autograd.Function):
    """Values now, and with them what the backward pass needs: finite differences along fixed directions."""

    @staticmethod
    def forward(
        ctx: Any, call: tuple[ExpectationLayer, int, bool], inputs: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        layer, step, differentiate = call
        z, theta = _numpy(inputs), _numpy(weights)
        directions: FloatArray = np.zeros((0, len(theta)))
        rules: list[Rule] = [[] for _ in layer.occurrences]
        if differentiate:
            if layer.gradient == "spsa":
                random = np.random.default_rng(layer.seed_of(step, _PERTURBATION))
                directions, reach = random.choice([-1.0, 1.0], (1, len(theta))), layer.spsa_step
                rules = [[(reach, 1.0 / (2.0 * reach))]] * len(rules)
            else:
                directions, rules = np.eye(len(theta)), [shift_rule(times) for times in layer.occurrences]
        shifted = [
            [theta, *(theta + sign * reach * row for row in directions for reach, _ in rule for sign in (1.0, -1.0))]
            for rule in rules
        ]
        values = layer.evaluate(step, z, shifted)
        slopes = [_slopes(each, rule) for each, rule in zip(values, rules, strict=True)]
        ctx.directions = directions
        ctx.differences = [np.concatenate(parts, axis=1) for parts in zip(*slopes, strict=True)]
        now = np.concatenate([each[0] for each in values], axis=1)
        return torch.as_tensor(now, dtype=weights.dtype, device=weights.device)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, cotangent: torch.Tensor) -> tuple[None, None, torch.Tensor]:
        outer = _numpy(cotangent)
        slopes = np.array([np.sum(outer * difference) for difference in ctx.differences])
        return None, None, torch.as_tensor(slopes @ ctx.directions, dtype=cotangent.dtype, device=cotangent.device)


def shift_rule(occurrences: int) -> Rule:
    """Shifts and coefficients that are exact where a weight stands in so many rotations (see `ExpectationLayer`)."""
    if occurrences == 1:
        return [(np.pi / 2, 0.5)]
    shifts = [(2 * k - 1) * np.pi / (2 * occurrences) for k in range(1, occurrences + 1)]
    return [(x, (-1.0) ** k / (4.0 * occurrences * np.sin(x / 2) ** 2)) for k, x in enumerate(shifts)]


def _slopes(values: list[FloatArray], rule: Rule) -> list[FloatArray]:
    """Slopes (batch, m), one a direction, from the values after the first: by direction, shift and sign."""
    terms = [
        scale * (plus - minus)
        for number, (plus, minus) in enumerate(zip(values[1::2], values[2::2], strict=True))
        for _, scale in [rule[number % len(rule)]]
    ]
    each = len(rule)
    return [sum(terms[first + 1 : first + each], terms[first]) for first in range(0, len(terms), each or 1)]


def check_tensor(name: str, value: object) -> None:
    """Check that angles were given as a tensor of real numbers.

    Raises:
        UsageError: Something else, or complex numbers, whose imaginary part would be lost.
    """
    if not isinstance(value, torch.Tensor):
        raise UsageError(f"{name} must be a torch.Tensor, not {type(value).__name__}.", "Take torch.as_tensor(...).")
    if value.is_complex():
        raise UsageError(f"{name} are complex ({value.dtype}), and angles are real.", "Take their real part.")


def _check_shiftable(circuit: CompiledCircuit) -> None:
    """The two-point rule asks that each weight stands alone in one rotation of the ansatz."""
    weights = set(circuit.weights)
    seen: set[Parameter] = set()
    for instruction in circuit.ansatz.circuit.data:
        for value in instruction.operation.params:
            free = set(getattr(value, "parameters", ())) & weights
            if not free:
                continue
            alone = value in weights and instruction.operation.name in _SHIFTABLE
            if not alone or free & seen:
                names = ", ".join(sorted(parameter.name for parameter in free))
                raise UsageError(
                    f"parameter-shift needs each weight alone in one rotation of {circuit.ansatz.name}, and {names} "
                    "is not.",
                    "Choose spsa, or the exact gradient of the twin engine.",
                )
            seen |= free


def _occurrences(circuit: CompiledCircuit) -> int:
    """In how many rotations of the compiled circuit a weight stands at most; with a slope of 1 or -1 in each."""
    weights = set(circuit.weights)
    found: dict[Parameter, int] = {}
    for instruction in circuit.circuit.data:
        for value in instruction.operation.params:
            free = set(getattr(value, "parameters", ())) & weights
            if not free:
                continue
            linear = coefficients(value)
            known = instruction.operation.name in _SHIFTABLE and instruction.is_standard_gate() and linear is not None
            for parameter in sorted(free, key=lambda each: each.name):
                if not known or linear is None or abs(linear[1][parameter]) != 1.0:
                    raise UsageError(
                        f"parameter-shift needs weights in rotations, and {parameter.name} stands in a "
                        f"{instruction.operation.name} of a circuit that goes with {circuit.ansatz.name}.",
                        "Choose spsa, or the exact gradient of the twin engine.",
                    )
                found[parameter] = found.get(parameter, 0) + 1
    return max(found.values(), default=1)


def _numpy(tensor: torch.Tensor) -> FloatArray:
    return tensor.detach().cpu().to(torch.float64).numpy()
