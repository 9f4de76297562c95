"""The QGAN: a quantum generator against small torch discriminators, trained on benign records alone.

Generator G: z ~ U[-r, r]^n, RY(z) and EfficientSU2; a sample is made of expectation values of strings of Z
(experiments/models/outputs.py). Discriminators D: multilayer perceptrons with one logit each, trained side by side;
their mean is what scores. Losses are the non-saturating ones (Goodfellow et al., 2014),

    L_D = E softplus(-D(x)) + E softplus(D(G(z))) + w_u E softplus(D(u)) + w_p E softplus(D(clip(G(z) + s e)))
    L_G = E softplus(-D(G(z))) + w_e energy(x, G(z))

with two further kinds of negatives that keep D a detector once G is good: uniform noise u, and generated samples moved
by Gaussian noise whose standard deviation s is drawn per sample. x are benign features in [-1, 1]. The energy distance
is what makes G follow the benign distribution: against D alone it does not.

After the adversarial steps of a round D goes on alone for some steps, without the second term: what is told from benign
traffic then is noise around the samples that G gave in this round, so that no circuit is run for it.

With an epsilon (model.dp) the discriminators' steps are differentially private in the records
(experiments/models/private.py), and the energy distance, which looks at records too, is left out: the generator knows
them through D alone.

With an infidelity weight W the generator's loss is L_G + W I, where I is the expected infidelity of the compiled
circuit at the same latents and angles, taken from its echo (circuits/echo.py). The echo is measured as it is, never
mitigated: its noise is what counts. A step then runs three times the gates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch

from backends.layer import ExpectationLayer, Further
from backends.mitigation.make import Mitigation, Purpose
from backends.protocol import Executor, Request
from circuits.echo import echo, echo_observables, infidelity
from circuits.errors import QrunError
from circuits.types import CompiledCircuit
from experiments.models.adam import Adam
from experiments.models.discriminators import Discriminators
from experiments.models.outputs import energy_distance, hidden_layer, hidden_units, z_strings
from experiments.models.private import Private
from experiments.settings import ModelSettings

FloatArray = npt.NDArray[np.float64]
Parameters = dict[str, FloatArray]
"""Named blocks: generator (weights,), generator.readout.weight (features, observables), generator.readout.bias
(features,), and of h discriminators discriminator.K.weight (h, out, in) and discriminator.K.bias (h, 1, out)."""

RECORDS = 128
"""Records that are scored at a time: a peer's memory holds no layer of all of them."""
WEIGHT, BIAS = "generator.readout.weight", "generator.readout.bias"

Progress = Callable[[int, float, float], None]
"""Called after a step with (steps done, generator loss, discriminator loss)."""


@dataclass(frozen=True)
class Trained:
    """Parameters after training, and the mean losses of each epoch: (epochs,) each.

    `generator_loss` is all that the generator descends on; `infidelity` the expected infidelity in it, before its
    weight, empty where none is asked for.
    """

    parameters: Parameters
    generator_loss: list[float]
    discriminator_loss: list[float]
    infidelity: list[float] = field(default_factory=list)


class QGAN:
    """Model of one node. Stateless between calls: parameters go in and come out.

    Args:
        settings: Every hyperparameter.
        executor: Where circuits are run; opened by the caller.
        circuit: The compiled generator.
        mitigation: What is mitigated of what the executor gives; None for nothing.
    """

    def __init__(
        self,
        settings: ModelSettings,
        executor: Executor,
        circuit: CompiledCircuit,
        mitigation: Mitigation | None = None,
    ) -> None:
        self.settings = settings
        self.executor = executor
        self.mitigation = mitigation
        self._around: dict[Purpose, tuple[Executor, Executor]] = {}
        self.circuit = circuit
        self.observables = z_strings(
            circuit.num_qubits, settings.measured if settings.trained_readout else settings.features
        )
        self.dtype = torch.float32 if settings.precision == "float32" else torch.float64
        self.discriminators = Discriminators(settings, self.dtype)
        gradient = settings.gradient
        if gradient == "auto":
            gradient = "exact" if executor.differentiable else "spsa"
        if gradient == "exact" and not executor.differentiable:
            raise QrunError(
                f"engine {executor.name} cannot give exact gradients.", "Take model.gradient = 'spsa' or 'auto'."
            )
        self.gradient = gradient
        self._echo: Further | None = None

    def engine(self, purpose: Purpose) -> Executor:
        """The executor for a purpose, mitigated where the model is; opened and closed with `executor`."""
        if self.mitigation is None:
            return self.executor
        known = self._around.get(purpose)
        if known is None or known[0] is not self.executor:  # someone has put a meter around it
            known = self.executor, self.mitigation.around(self.executor, purpose)
            self._around[purpose] = known
        return known[1]

    @property
    def echo(self) -> Further:
        """The compiled circuit forth and back, with the mean of all Z_i; made once.

        Raises:
            QrunError: A gate of the device has no inverse among its own.
        """
        if self._echo is None:
            self._echo = Further(echo(self.circuit), echo_observables(self.circuit.num_qubits), raw=True)
        return self._echo

    def infidelity(self, parameters: Mapping[str, FloatArray], count: int, seed: int) -> float:
        """Expected infidelity of the compiled circuit over `count` latents, on this model's engine, unmitigated."""
        latents = self._latents(count, torch.Generator().manual_seed(seed)).numpy()
        further = self.echo
        request = Request(further.circuit, further.observables, latents, parameters["generator"], raw=True)
        return float(infidelity(torch.from_numpy(self.executor.run([request], seed=seed)[0].values)))

    @property
    def features(self) -> int:
        """Width of a sample."""
        return self.settings.features

    @property
    def hidden_units(self) -> int:
        """Of the network in the circuit's place; 0 where there is none."""
        return hidden_units(self.settings, len(self.circuit.weights)) if "classical" in self.settings.generator else 0

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Block name -> shape."""
        units = self.hidden_units
        angles = units * (len(self.circuit.inputs) + 1) if units else len(self.circuit.weights)
        out: dict[str, tuple[int, ...]] = {"generator": (angles,)}
        if self.settings.trained_readout:
            out[WEIGHT] = (self.features, units or len(self.observables))
            out[BIAS] = (self.features,)
        widths, many = [self.settings.waves or self.features, *self.settings.hidden, 1], self.settings.discriminators
        for k, (fan_in, fan_out) in enumerate(pairwise(widths)):
            out[f"discriminator.{k}.weight"] = (many, fan_out, fan_in)
            out[f"discriminator.{k}.bias"] = (many, 1, fan_out)
        return out

    def initial(self, rng: np.random.Generator) -> Parameters:
        """The common start: angles uniform in +-initial_range, layers uniform in +-1/sqrt(fan in) as torch has it.

        The readout is uniform in +-0.5/sqrt(fan in), its bias 0; a classical hidden layer is as the angles.
        """
        out: Parameters = {}
        for name, shape in self.shapes().items():
            if name == "generator":
                bound = self.settings.initial_range
            elif name == WEIGHT:
                bound = 0.5 / math.sqrt(shape[1])
            elif name == BIAS:
                bound = 0.0
            else:
                layer = int(name.split(".")[1])
                bound = 1 / math.sqrt([self.features, *self.settings.hidden][layer])
            out[name] = rng.uniform(-bound, bound, shape)
        return out

    # -- the two players --------------------------------------------------------------------------------------------

    def _tensors(self, parameters: Mapping[str, FloatArray]) -> dict[str, torch.Tensor]:
        return {name: torch.tensor(value, dtype=self.dtype) for name, value in parameters.items()}

    def _logit(self, weights: Mapping[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        """(N, features) -> (h, N) logits."""
        return self.discriminators.logit(weights, x)

    def logits(self, parameters: Mapping[str, FloatArray], x: FloatArray) -> FloatArray:
        """(N, features) -> (N,) mean logits of the discriminators; the layers of so many records at a time."""
        weights, out = self._tensors(parameters), np.empty(len(x))
        with torch.no_grad():
            for i in range(0, len(x), RECORDS):
                some = self._logit(weights, torch.tensor(x[i : i + RECORDS], dtype=self.dtype))
                out[i : i + RECORDS] = some.numpy().astype(np.float64).mean(0)
        return out

    def benign_loss(self, parameters: Mapping[str, FloatArray], x: FloatArray) -> float:
        """Mean softplus(-D(x)) over benign records: what a grader holds against a peer's discriminator."""
        return float(np.logaddexp(0.0, -self.logits(parameters, x)).mean())

    def _latents(self, count: int, source: torch.Generator) -> torch.Tensor:
        z = torch.rand(count, len(self.circuit.inputs), generator=source, dtype=torch.float64)
        return (2 * z - 1) * self.settings.latent_range

    def request(self, parameters: Mapping[str, FloatArray], count: int, seed: int) -> Request:
        """What an engine is asked for `count` samples, with latents fixed by `seed`."""
        latents = self._latents(count, torch.Generator().manual_seed(seed)).numpy()
        return Request(self.circuit, self.observables, latents, parameters["generator"])

    def generate(self, parameters: Mapping[str, FloatArray], count: int, seed: int) -> FloatArray:
        """`count` generated samples, (count, features), with latents and shots fixed by `seed`."""
        if not self.settings.is_quantum:
            source = torch.Generator().manual_seed(seed)
            with torch.no_grad():
                made = self._in_place(self._tensors(parameters), self._latents(count, source), source)
            return np.clip(made.numpy().astype(np.float64), -1.0, 1.0)
        answer = self.engine("evaluation").run([self.request(parameters, count, seed)], seed=seed)[0]
        return self.sample(parameters, answer.values)

    def sample(self, parameters: Mapping[str, FloatArray], values: FloatArray) -> FloatArray:
        """(N, observables) expectation values -> (N, features) samples in [-1, 1]."""
        if not self.settings.trained_readout:
            return values
        return np.clip(values @ parameters[WEIGHT].T + parameters[BIAS], -1.0, 1.0)

    def sample_errors(self, parameters: Mapping[str, FloatArray], errors: FloatArray) -> FloatArray:
        """(N, observables) standard errors -> (N, features) those of samples, as if observables erred independently."""
        if not self.settings.trained_readout:
            return errors
        return np.sqrt(errors**2 @ (parameters[WEIGHT] ** 2).T)

    def _in_place(
        self, parameters: Mapping[str, torch.Tensor], latents: torch.Tensor, source: torch.Generator
    ) -> torch.Tensor:
        """(N, features) samples of what stands in the circuit's place: a network, or uniform noise."""
        if self.settings.generator == "uniform":
            return torch.rand(len(latents), self.features, generator=source, dtype=self.dtype) * 2 - 1
        hidden = hidden_layer(parameters["generator"], latents.to(self.dtype), self.hidden_units)
        return torch.nn.functional.linear(hidden, parameters[WEIGHT], parameters[BIAS])

    # -- training ---------------------------------------------------------------------------------------------------

    def train(
        self,
        start: Mapping[str, FloatArray],
        data: FloatArray,
        *,
        epochs: int,
        seed: int,
        progress: Progress | None = None,
        steps: int | None = None,
        private: Private | None = None,
    ) -> Trained:
        """Adversarial training from `start` on benign features.

        Args:
            start: Parameters to start from; not changed.
            data: (N, features) benign features in [-1, 1].
            epochs: How many epochs.
            seed: Fixes batches, latents, noise and shots: the same call gives the same parameters.
            progress: Called after every step.
            steps: Generator steps an epoch; None for the settings' `steps_per_epoch`.
            private: How the discriminators look at records, where the settings ask for an epsilon. What it draws is its
                own, not of `seed`; losses then have no term of records, so that they give nothing away either.

        Raises:
            QrunError: a loss is no longer finite.
        """
        s = self.settings
        if (s.dp is None) != (private is None):
            raise ValueError("private goes with an epsilon (model.dp), and an epsilon with it")
        per_epoch = s.steps_per_epoch if steps is None else steps
        source = torch.Generator().manual_seed(seed)
        layer = ExpectationLayer(
            self.engine("training"),
            self.circuit,
            self.observables,
            gradient=self.gradient,
            seed=seed,
            spsa_step=s.spsa_step,
            further=() if s.infidelity_weight is None else (self.echo,),
        )
        tensors = {name: value.requires_grad_(True) for name, value in self._tensors(start).items()}
        weights = {name: value for name, value in tensors.items() if name.startswith("discriminator")}
        to_generate = self._generator_optimiser(tensors)
        to_discriminate = Adam(list(weights.values()), rate=s.discriminator_rate, betas=(0.5, 0.9))
        x = torch.tensor(data, dtype=self.dtype)
        losses_g, losses_d, lost = [], [], []
        seen: list[torch.Tensor] = []
        done = 0
        for _ in range(epochs):
            sum_g = sum_d = sum_i = 0.0
            for _ in range(per_epoch):
                layer.step = done
                fake, echoed = self._fake(layer, tensors, source)
                seen.append(fake.detach().clamp(-1, 1))
                for _ in range(s.discriminator_steps):
                    d = self.discriminators.step(
                        weights, to_discriminate, x, fake.detach(), source=source, private=private
                    )
                frozen = {name: value.detach() for name, value in weights.items()}
                loss_g = torch.nn.functional.softplus(-self._logit(frozen, fake)).mean()
                if s.energy_weight:
                    real = x[torch.randint(len(x), (s.batch,), generator=source)]
                    loss_g = loss_g + s.energy_weight * energy_distance(real, fake)
                if s.infidelity_weight is not None and s.is_quantum:
                    expected = infidelity(echoed)
                    loss_g = loss_g + s.infidelity_weight * expected
                    sum_i += float(expected.detach())
                if to_generate is not None:
                    to_generate.zero_grad()
                    loss_g.backward()
                    to_generate.step()
                done += 1
                g = float(loss_g.detach())
                if not (math.isfinite(g) and math.isfinite(d)):
                    raise QrunError(
                        f"training diverged at step {done}: a loss is not finite.",
                        "Lower model.generator_rate or model.discriminator_rate.",
                    )
                sum_g, sum_d = sum_g + g, sum_d + d
                if progress is not None:
                    progress(done, g, d)
            losses_g.append(sum_g / per_epoch)
            losses_d.append(sum_d / per_epoch)
            if s.infidelity_weight is not None:
                lost.append(sum_i / per_epoch)
        self.discriminators.train(weights, x, torch.cat(seen), source=source, private=private)
        return Trained(
            {name: value.detach().numpy().astype(np.float64) for name, value in tensors.items()},
            losses_g,
            losses_d,
            lost,
        )

    def _generator_optimiser(self, tensors: Mapping[str, torch.Tensor]) -> Adam | None:
        """Adam on what the settings train of the generator; None where that is nothing."""
        s = self.settings
        if s.generator in ("untrained", "uniform"):
            return None
        rates: dict[str, float] = {}
        if s.generator != "reservoir":
            rates["generator"] = s.generator_rate
        if s.trained_readout:
            rates |= {WEIGHT: s.readout_rate, BIAS: s.readout_rate}
        return Adam([tensors[name] for name in rates], rate=list(rates.values()), betas=(0.5, 0.9))

    def _fake(
        self, layer: ExpectationLayer, tensors: Mapping[str, torch.Tensor], source: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """A batch of samples (batch, features) with their gradient, and the echo's values beside them."""
        latents = self._latents(self.settings.batch, source).to(self.dtype)
        if not self.settings.is_quantum:
            return self._in_place(tensors, latents, source), latents[:, :0]
        angles = tensors["generator"]
        if self.settings.generator in ("untrained", "reservoir"):
            angles = angles.detach()
        values = layer(latents, angles).to(self.dtype)
        values, echoed = values[:, : len(self.observables)], values[:, len(self.observables) :]
        if self.settings.trained_readout:
            values = torch.nn.functional.linear(values, tensors[WEIGHT], tensors[BIAS])
        return values, echoed
