"""The QGAN: a quantum generator against a small torch discriminator, trained on benign records alone.

Generator G: z ~ U[-r, r]^n, RY(z) and EfficientSU2, the expectation values <Z_i> are the sample, one feature a qubit.
Discriminator D: a multilayer perceptron with one logit. Losses are the non-saturating ones (Goodfellow et al., 2014),

    L_D = E softplus(-D(x)) + E softplus(D(G(z))) + w_u E softplus(D(u)) + w_p E softplus(D(clip(G(z) + s e)))
    L_G = E softplus(-D(G(z)))

with two further kinds of negatives that keep D a detector once G is good: uniform noise u, and generated samples moved
by Gaussian noise whose standard deviation s is drawn per sample. x are benign features in [-1, 1].

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
from qiskit.quantum_info import SparsePauliOp

from backends.layer import ExpectationLayer, Further
from backends.mitigation.make import Mitigation, Purpose
from backends.protocol import Executor, Request
from circuits.echo import echo, echo_observables, infidelity
from circuits.errors import QrunError
from circuits.types import CompiledCircuit
from experiments.models.adam import Adam
from experiments.settings import ModelSettings

FloatArray = npt.NDArray[np.float64]
Parameters = dict[str, FloatArray]
"""Named blocks: generator (weights,), discriminator.K.weight (out, in), discriminator.K.bias (out,)."""

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


def z_observables(qubits: int) -> tuple[SparsePauliOp, ...]:
    """Z on each virtual qubit, in order."""
    return tuple(SparsePauliOp.from_sparse_list([("Z", [i], 1.0)], num_qubits=qubits) for i in range(qubits))


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
        self.observables = z_observables(circuit.num_qubits)
        self.dtype = torch.float32 if settings.precision == "float32" else torch.float64
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
        """Width of a sample: one feature an observable."""
        return len(self.observables)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Block name -> shape."""
        out: dict[str, tuple[int, ...]] = {"generator": (len(self.circuit.weights),)}
        widths = [self.features, *self.settings.hidden, 1]
        for k, (fan_in, fan_out) in enumerate(pairwise(widths)):
            out[f"discriminator.{k}.weight"] = (fan_out, fan_in)
            out[f"discriminator.{k}.bias"] = (fan_out,)
        return out

    def initial(self, rng: np.random.Generator) -> Parameters:
        """The common start: angles uniform in +-initial_range, layers uniform in +-1/sqrt(fan in) as torch has it."""
        out: Parameters = {}
        for name, shape in self.shapes().items():
            if name == "generator":
                bound = self.settings.initial_range
            else:
                layer = int(name.split(".")[1])
                bound = 1 / math.sqrt([self.features, *self.settings.hidden][layer])
            out[name] = rng.uniform(-bound, bound, shape)
        return out

    # -- the two players --------------------------------------------------------------------------------------------

    def _tensors(self, parameters: Mapping[str, FloatArray]) -> dict[str, torch.Tensor]:
        return {name: torch.tensor(value, dtype=self.dtype) for name, value in parameters.items()}

    def _logit(self, weights: Mapping[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        """(N, features) -> (N,) logits of D: benign above, made up below."""
        last = len(self.settings.hidden)
        for k in range(last + 1):
            x = torch.nn.functional.linear(x, weights[f"discriminator.{k}.weight"], weights[f"discriminator.{k}.bias"])
            if k < last:
                x = torch.nn.functional.leaky_relu(x, 0.2)
        return x[:, 0]

    def logits(self, parameters: Mapping[str, FloatArray], x: FloatArray) -> FloatArray:
        """(N, features) -> (N,) logits of the discriminator."""
        with torch.no_grad():
            out = self._logit(self._tensors(parameters), torch.tensor(x, dtype=self.dtype))
        return out.numpy().astype(np.float64)

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
        return self.engine("evaluation").run([self.request(parameters, count, seed)], seed=seed)[0].values

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
    ) -> Trained:
        """Adversarial training from `start` on benign features.

        Args:
            start: Parameters to start from; not changed.
            data: (N, features) benign features in [-1, 1].
            epochs: How many epochs.
            seed: Fixes batches, latents, noise and shots: the same call gives the same parameters.
            progress: Called after every step.
            steps: Generator steps an epoch; None for the settings' `steps_per_epoch`.

        Raises:
            QrunError: a loss is no longer finite.
        """
        s = self.settings
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
        tensors = self._tensors(start)
        angles = tensors.pop("generator").requires_grad_(True)
        weights = {name: value.requires_grad_(True) for name, value in tensors.items()}
        to_generate = Adam([angles], rate=s.generator_rate, betas=(0.5, 0.9))
        to_discriminate = Adam(list(weights.values()), rate=s.discriminator_rate, betas=(0.5, 0.9))
        x = torch.tensor(data, dtype=self.dtype)
        losses_g, losses_d, lost = [], [], []
        done = 0
        for _ in range(epochs):
            sum_g = sum_d = sum_i = 0.0
            for _ in range(per_epoch):
                layer.step = done
                values = layer(self._latents(s.batch, source).to(self.dtype), angles).to(self.dtype)
                fake = values[:, : self.features]
                for _ in range(s.discriminator_steps):
                    real = x[torch.randint(len(x), (s.batch,), generator=source)]
                    to_discriminate.zero_grad()
                    loss_d = self._discriminator_loss(weights, real, fake.detach(), source)
                    loss_d.backward()
                    to_discriminate.step()
                to_generate.zero_grad()
                frozen = {name: value.detach() for name, value in weights.items()}
                loss_g = torch.nn.functional.softplus(-self._logit(frozen, fake)).mean()
                if s.infidelity_weight is not None:
                    expected = infidelity(values[:, self.features :])
                    loss_g = loss_g + s.infidelity_weight * expected
                    sum_i += float(expected.detach())
                loss_g.backward()
                to_generate.step()
                done += 1
                g, d = float(loss_g.detach()), float(loss_d.detach())
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
        trained = {"generator": angles, **weights}
        return Trained(
            {name: value.detach().numpy().astype(np.float64) for name, value in trained.items()},
            losses_g,
            losses_d,
            lost,
        )

    def _discriminator_loss(
        self, weights: Mapping[str, torch.Tensor], real: torch.Tensor, fake: torch.Tensor, source: torch.Generator
    ) -> torch.Tensor:
        s = self.settings
        softplus = torch.nn.functional.softplus
        low, high = s.perturbation
        uniform = torch.rand(real.shape, generator=source, dtype=self.dtype) * 2 - 1
        spread = low + (high - low) * torch.rand(len(fake), 1, generator=source, dtype=self.dtype)
        moved = (fake + spread * torch.randn(fake.shape, generator=source, dtype=self.dtype)).clamp(-1, 1)
        # One pass through D for all four kinds: the layers are so small that calls cost more than arithmetic.
        logit = self._logit(weights, torch.cat([real, fake, uniform, moved]))
        x, g, u, p = logit.split([len(real), len(fake), len(uniform), len(moved)])
        return (
            softplus(-x).mean()
            + softplus(g).mean()
            + s.negatives_noise * softplus(u).mean()
            + s.negatives_perturbed * softplus(p).mean()
        )
