"""Generators to hold the quantum one against, each behind the interface of an engine.

A QGAN asks its executor for samples and for their gradient, and nothing else. So whatever answers in place of the
circuit is trained, joined, scored and measured by the same code: the latents, the discriminator, the negatives, the
score stay what they are, and the generator alone differs.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

import numpy as np
import torch
from qiskit.circuit import Parameter
from qiskit.quantum_info import SparsePauliOp

from backends.protocol import Executor, FloatArray, Request, Result
from circuits.types import CompiledCircuit
from experiments.models.qgan import QGAN
from experiments.settings import ModelSettings


class _Generator:
    """What they have in common: an engine that is exact, and differentiable."""

    name = "generator"
    differentiable = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def expectations(
        self,
        circuit: CompiledCircuit,
        observables: tuple[SparsePauliOp, ...],
        inputs: torch.Tensor,
        weights: torch.Tensor,
    ) -> torch.Tensor:
        """(batch, n_inputs), (n_weights,) -> (batch, len(observables))."""
        raise NotImplementedError

    def run(self, requests: Sequence[Request], *, seed: int | None = None) -> list[Result]:
        """As an engine's; exact, so that `seed` does nothing."""
        out = []
        for r in requests:
            with torch.no_grad():
                inputs, weights = torch.as_tensor(r.inputs), torch.as_tensor(r.weights)
                values = self.expectations(r.circuit, r.observables, inputs, weights).double().numpy()
            out.append(Result(values, np.zeros_like(values), {"engine": self.name}))
        return out


class Network(_Generator):
    """A multilayer perceptron with one hidden layer, tanh after both: z -> values in [-1, 1].

    The weights are those of a compiled circuit with as many: uniform in +-`spread` at first. Within a layer they count
    1 / (spread sqrt(fan in)) times, so that it begins as torch's own layers do.
    """

    name = "network"

    def __init__(self, inputs: int, hidden: int, outputs: int, spread: float) -> None:
        self.inputs, self.hidden, self.outputs, self.spread = inputs, hidden, outputs, spread

    @staticmethod
    def weights(inputs: int, hidden: int, outputs: int) -> int:
        """How many parameters it has."""
        return (inputs + 1) * hidden + (hidden + 1) * outputs

    @classmethod
    def of_about(cls, parameters: int, inputs: int, outputs: int, spread: float) -> Network:
        """The one whose number of parameters is nearest; of two as near, the greater."""
        hidden = min(range(1, parameters + 2), key=lambda h: (abs(cls.weights(inputs, h, outputs) - parameters), -h))
        return cls(inputs, hidden, outputs, spread)

    def expectations(
        self,
        circuit: CompiledCircuit,
        observables: tuple[SparsePauliOp, ...],
        inputs: torch.Tensor,
        weights: torch.Tensor,
    ) -> torch.Tensor:
        """(batch, n_inputs), (n_weights,) -> (batch, len(observables))."""
        n, h, d = self.inputs, self.hidden, self.outputs
        first, bias, second, last = weights.split([n * h, h, h * d, d])
        z = inputs.to(weights)
        one, two = 1 / (self.spread * math.sqrt(n)), 1 / (self.spread * math.sqrt(h))
        middle = torch.tanh(z @ first.view(n, h) * one + bias * one)
        return torch.tanh(middle @ second.view(h, d) * two + last * two)


class Untrained(_Generator):
    """Samples of another engine, whose weights have no gradient: they stay what they were at first."""

    name = "untrained"

    def __init__(self, executor: Executor) -> None:
        self.executor = executor

    def expectations(
        self,
        circuit: CompiledCircuit,
        observables: tuple[SparsePauliOp, ...],
        inputs: torch.Tensor,
        weights: torch.Tensor,
    ) -> torch.Tensor:
        """(batch, n_inputs), (n_weights,) -> (batch, len(observables))."""
        z, theta = (t.detach().double().cpu().numpy() for t in (inputs, weights))
        values = torch.as_tensor(self.executor.run([Request(circuit, observables, z, theta)], seed=0)[0].values)
        return values.to(weights) + 0.0 * weights.sum()


class Uniform(_Generator):
    """No generator: samples uniform in [-1, 1], fixed by the latents."""

    name = "uniform"

    def expectations(
        self,
        circuit: CompiledCircuit,
        observables: tuple[SparsePauliOp, ...],
        inputs: torch.Tensor,
        weights: torch.Tensor,
    ) -> torch.Tensor:
        """(batch, n_inputs), (n_weights,) -> (batch, len(observables))."""
        latents: FloatArray = inputs.detach().double().cpu().numpy()
        seed = int.from_bytes(hashlib.sha256(np.ascontiguousarray(latents).tobytes()).digest()[:8], "little")
        values = np.random.default_rng(seed).uniform(-1, 1, (len(latents), len(observables)))
        return torch.as_tensor(values).to(weights) + 0.0 * weights.sum()


@dataclass(frozen=True)
class Variant:
    """A generator by name.

    Attributes:
        name: What it is called.
        summary: What it is, in a line.
        make: The QGAN with it, from the QGAN with the circuit.
    """

    name: str
    summary: str
    make: Callable[[QGAN], QGAN]


def with_generator(model: QGAN, executor: Executor, weights: int | None = None) -> QGAN:
    """The same model on another executor; with so many generator weights, where they are not the circuit's."""
    circuit = model.circuit
    if weights is not None:
        circuit = replace(circuit, weights=tuple(Parameter(f"w{k}") for k in range(weights)))
    # The noise-aware loss and the gradient are the circuit's: whatever stands in for it is differentiated exactly.
    settings = model.settings.model_copy(update={"infidelity_weight": None, "gradient": "auto"})
    return type(model)(settings, executor, circuit)


def generator_parameters(model: QGAN) -> int:
    """How many parameters its generator has, whatever that is."""
    return sum(math.prod(shape) for name, shape in model.shapes().items() if name.split(".")[0] == "generator")


def _classical(times: int) -> Callable[[QGAN], QGAN]:
    def make(model: QGAN) -> QGAN:
        wanted, inputs, outputs = times * len(model.circuit.weights), len(model.circuit.inputs), len(model.observables)
        network = Network.of_about(wanted, inputs, outputs, model.settings.initial_range)
        return with_generator(model, network, Network.weights(inputs, network.hidden, outputs))

    return _switched(f"classical:{times}", make)


def _switched(value: str, make: Callable[[QGAN], QGAN]) -> Callable[[QGAN], QGAN]:
    """By the model's own switch, where it has one; else by what `make` puts behind the engine's interface."""
    if "generator" not in ModelSettings.model_fields:
        return make
    return lambda model: type(model)(
        model.settings.model_copy(update={"generator": value}), model.executor, model.circuit, model.mitigation
    )


VARIANTS: dict[str, Variant] = {
    v.name: v
    for v in (
        Variant("trained", "the quantum generator, trained", lambda model: model),
        Variant(
            "untrained",
            "random circuits: the same, its angles left as they were at first",
            _switched("untrained", lambda model: with_generator(model, Untrained(model.engine("evaluation")))),
        ),
        Variant("classical", "a network with the generator's number of parameters", _classical(1)),
        Variant("classical-10x", "a network with ten times as many", _classical(10)),
        Variant(
            "uniform",
            "uniform noise for generated samples",
            _switched("uniform", lambda model: with_generator(model, Uniform())),
        ),
    )
}
