"""A torch module around an engine: expectation values of a circuit with a gradient of one's choice."""

from __future__ import annotations

from typing import Any, Literal, cast

import numpy as np
import torch
from qiskit.circuit import Parameter
from qiskit.quantum_info import SparsePauliOp

from backends.protocol import DifferentiableExecutor, Executor, FloatArray, Request
from circuits.errors import QrunError, UsageError
from circuits.types import CompiledCircuit

GradientMethod = Literal["exact", "parameter-shift", "spsa"]

_SHIFTABLE = frozenset({"rx", "ry", "rz", "p", "rxx", "ryy", "rzz", "rzx"})
"""Gates exp(-i theta P / 2) with P^2 = 1 (up to a global phase), for which the two-point rule is exact."""

_PERTURBATION, _SAMPLING = 0, 1
"""Purposes of the seeds of a step."""


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

    `step` counts the forward calls. All randomness of a call comes from (seed, step): to resume a run, set `step` to
    what it was.

    Args:
        executor: The engine.
        circuit: The compiled circuit.
        observables: m sums of Pauli strings on the circuit's virtual qubits.
        gradient: See above.
        seed: Of perturbations and of the engine's sampling.
        spsa_step: c, radians.

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
    ) -> None:
        super().__init__()
        if gradient not in ("exact", "parameter-shift", "spsa"):
            raise UsageError(f"unknown gradient {gradient!r}.", "Known: exact, parameter-shift, spsa.")
        if gradient == "exact" and not executor.differentiable:
            raise UsageError(
                f"the engine {executor.name} has no exact gradient.",
                "Choose spsa or parameter-shift, or --engine twin.",
            )
        if gradient == "parameter-shift":
            _check_shiftable(circuit)
        if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
            raise UsageError(f"the seed must be 0 or more, not {seed!r}.", "Give a whole number.")
        if not (isinstance(spsa_step, int | float) and spsa_step > 0.0):
            raise UsageError(f"the SPSA step must be positive, not {spsa_step!r}.")
        self.executor, self.circuit, self.observables = executor, circuit, tuple(observables)
        self.gradient, self.seed, self.spsa_step = gradient, int(seed), spsa_step
        self.step = 0

    def forward(self, inputs: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """(batch, n_inputs), (n_weights,) -> (batch, m), in the dtype and on the device of `weights`.

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
            return engine.expectations(self.circuit, self.observables, inputs, weights).to(weights)
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

    def evaluate(self, step: int, inputs: FloatArray, shifted: list[FloatArray]) -> list[FloatArray]:
        """Values (batch, m) for each weight vector, in one call of the engine; equal requests are batched in one."""
        batch = len(inputs)
        request = Request(
            self.circuit,
            self.observables,
            np.tile(inputs, (len(shifted), 1)),
            np.repeat(np.stack(shifted), batch, axis=0) if len(shifted) > 1 else shifted[0],
        )
        seed = int(self.seed_of(step, _SAMPLING).generate_state(1)[0])
        (answer,) = self.executor.run([request], seed=seed)
        return list(answer.values.reshape(len(shifted), batch, len(self.observables)))


class _Estimated(torch.autograd.Function):
    """Values now, and with them what the backward pass needs: finite differences along fixed directions."""

    @staticmethod
    def forward(
        ctx: Any, call: tuple[ExpectationLayer, int, bool], inputs: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        layer, step, differentiate = call
        z, theta = _numpy(inputs), _numpy(weights)
        shifted = [theta]
        directions: FloatArray = np.zeros((0, len(theta)))
        scale = 1.0
        if differentiate:
            if layer.gradient == "spsa":
                random = np.random.default_rng(layer.seed_of(step, _PERTURBATION))
                directions, reach = random.choice([-1.0, 1.0], (1, len(theta))), layer.spsa_step
                scale = 1.0 / (2.0 * reach)
            else:
                directions, reach, scale = np.eye(len(theta)), np.pi / 2, 0.5
            shifted += [theta + sign * reach * row for row in directions for sign in (1.0, -1.0)]
        values = layer.evaluate(step, z, shifted)
        differences = [scale * (plus - minus) for plus, minus in zip(values[1::2], values[2::2], strict=True)]
        ctx.directions, ctx.differences = directions, differences
        return torch.as_tensor(values[0], dtype=weights.dtype, device=weights.device)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, cotangent: torch.Tensor) -> tuple[None, None, torch.Tensor]:
        outer = _numpy(cotangent)
        slopes = np.array([np.sum(outer * difference) for difference in ctx.differences])
        return None, None, torch.as_tensor(slopes @ ctx.directions, dtype=cotangent.dtype, device=cotangent.device)


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


def _numpy(tensor: torch.Tensor) -> FloatArray:
    return tensor.detach().cpu().to(torch.float64).numpy()
