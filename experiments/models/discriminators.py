"""The QGAN's discriminators: multilayer perceptrons side by side, their losses, and their training without generator.

Losses as in experiments/models/qgan.py. With `waves` they see a record through that many random cosines,

    phi_k(x) = sqrt(2) cos(w_k . x + b_k),    w_k ~ N(0, s_k^2), log s_k ~ U[log WIDTHS], b_k ~ U[0, 2 pi],

each has its own, the same for all peers. Products of phi approximate a Gaussian kernel (Rahimi and Recht, NIPS
2007), so that what is learned about a record holds for its neighbourhood, and for that alone. With `negatives_near`
benign records moved by Gaussian noise, from the width of that neighbourhood down to a tenth of it, are negatives too.

Where training is differentially private, records enter a step by experiments/models/private.py alone, and losses that
are told have no term of records.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch

from circuits.errors import QrunError
from experiments.models.adam import Adam
from experiments.models.private import SLOPE, Private
from experiments.settings import ModelSettings

Weights = Mapping[str, torch.Tensor]

WIDTHS: tuple[float, ...] = (0.2, 1.2)
"""Smallest and largest standard deviation s of the waves' directions: a mean of the kernels exp(-s^2 |x - y|^2 / 2)."""
NEAR = (0.05, 0.5)
"""Smallest and largest standard deviation of the noise around records; its logarithm is uniform."""
SEED = 7
"""Of the waves: part of the model's definition, as its layers are."""


def make_waves(settings: ModelSettings, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor] | None:
    """(h, features, waves) directions and (h, 1, waves) offsets, radians, the same for everybody; None of none."""
    if settings.waves is None:
        return None
    rng = np.random.default_rng(SEED)
    many = settings.discriminators
    widths = np.exp(rng.uniform(math.log(WIDTHS[0]), math.log(WIDTHS[1]), (many, 1, settings.waves)))
    directions = widths * rng.normal(0.0, 1.0, (many, settings.features, settings.waves))
    offsets = rng.uniform(0.0, 2 * math.pi, (many, 1, settings.waves))
    return torch.tensor(directions, dtype=dtype), torch.tensor(offsets, dtype=dtype)


class Discriminators:
    """What is done with the discriminators' weights; it has none itself.

    Args:
        settings: Of the model.
        dtype: Of all tensors.
    """

    def __init__(self, settings: ModelSettings, dtype: torch.dtype) -> None:
        self.settings, self.dtype = settings, dtype
        self.waves = make_waves(settings, dtype)

    def logit(self, weights: Weights, x: torch.Tensor) -> torch.Tensor:
        """(N, features), or (h, N, features) -> (h, N) logits of h discriminators: benign above, made up below."""
        last = len(self.settings.hidden)
        x = x if x.dim() == 3 else x.expand(self.settings.discriminators, *x.shape)
        if self.waves is not None:
            directions, offsets = self.waves
            x = math.sqrt(2.0) * torch.cos(torch.baddbmm(offsets, x, directions))
        for k in range(last + 1):
            x = torch.baddbmm(
                weights[f"discriminator.{k}.bias"], x, weights[f"discriminator.{k}.weight"].transpose(1, 2)
            )
            if k < last:
                x = torch.nn.functional.leaky_relu(x, SLOPE)
        return x[..., 0]

    def step(
        self,
        weights: Weights,
        optimiser: Adam,
        x: torch.Tensor,
        fake: torch.Tensor,
        *,
        source: torch.Generator,
        private: Private | None,
    ) -> float:
        """One adversarial step.

        Args:
            weights: They are changed.
            optimiser: Of the weights.
            x: (N, features) benign features, of which a batch is taken.
            fake: (batch, features) samples of the generator.
            source: Of all randomness but the private one.
            private: How records are looked at; None for plainly.

        Returns:
            The loss, a mean over records and discriminators.
        """
        batch = self.settings.batch
        real = None if private is not None else x[torch.randint(len(x), (batch,), generator=source)]
        optimiser.zero_grad()
        loss = self._loss(weights, real, fake, source)
        loss.backward()
        if private is not None:
            private.add(weights, x, batch=batch, share=1 / self.settings.discriminators)
        optimiser.step()
        return float(loss.detach())

    def train(
        self,
        weights: Weights,
        x: torch.Tensor,
        seen: torch.Tensor,
        *,
        source: torch.Generator,
        private: Private | None,
    ) -> None:
        """Steps without the generator; each discriminator has records and negatives of its own.

        Where training is private all have the same records: a step is then one look at them.

        Args:
            weights: They are changed.
            x: (N, features) benign features.
            seen: (M, features) samples that the generator gave in this round.
            source: Of all randomness but the private one.
            private: How records are looked at; None for plainly.

        Raises:
            QrunError: the loss is no longer finite.
        """
        s = self.settings
        optimiser = Adam(list(weights.values()), rate=s.detector_rate, betas=(0.9, 0.99))
        shape = (s.discriminators, s.detector_batch)
        softplus = torch.nn.functional.softplus
        for step in range(s.detector_steps):
            optimiser.rates[:] = [s.detector_rate * (1.0 - 0.9 * step / s.detector_steps)] * len(weights)
            real = [] if private is not None else [x[torch.randint(len(x), shape, generator=source)]]
            near = self._moved(seen[torch.randint(len(seen), shape, generator=source)], source)
            uniform = torch.rand(near.shape, generator=source, dtype=self.dtype) * 2 - 1
            kinds = [*real, near, uniform]
            if s.negatives_near is not None:
                kinds.insert(0, self._beside(x[torch.randint(len(x), shape, generator=source)], source))
            *benign, moved, noise = self.logit(weights, torch.cat(kinds, dim=1)).split(s.detector_batch, dim=1)
            each = s.negatives_perturbed * softplus(moved).mean(1)
            if s.negatives_near is not None:
                each = each + s.negatives_near * softplus(benign.pop(0)).mean(1)
            if benign:
                each = softplus(-benign[0]).mean(1) + each
            # A sum over discriminators: each one's step is its own, however many there are.
            loss = (each + s.negatives_noise * softplus(noise).mean(1)).sum()
            optimiser.zero_grad()
            loss.backward()
            if private is not None:
                private.add(weights, x, batch=s.detector_batch)
            optimiser.step()
        if s.detector_steps and not math.isfinite(float(loss.detach())):
            raise QrunError(
                "training diverged: the loss of the discriminators is not finite.", "Lower model.detector_rate."
            )

    def _moved(self, samples: torch.Tensor, source: torch.Generator) -> torch.Tensor:
        """Samples (..., features) moved by Gaussian noise whose standard deviation is drawn per sample."""
        low, high = self.settings.perturbation
        spread = low + (high - low) * torch.rand(*samples.shape[:-1], 1, generator=source, dtype=self.dtype)
        return (samples + spread * torch.randn(samples.shape, generator=source, dtype=self.dtype)).clamp(-1, 1)

    def _beside(self, records: torch.Tensor, source: torch.Generator) -> torch.Tensor:
        """Records (..., features) moved a little: by Gaussian noise, the logarithm of its sd drawn per record."""
        low, high = (math.log(sd) for sd in NEAR)
        drawn = torch.rand(*records.shape[:-1], 1, generator=source, dtype=self.dtype)
        noise = torch.randn(records.shape, generator=source, dtype=self.dtype)
        return (records + torch.exp(low + (high - low) * drawn) * noise).clamp(-1, 1)

    def _loss(
        self, weights: Weights, real: torch.Tensor | None, fake: torch.Tensor, source: torch.Generator
    ) -> torch.Tensor:
        """The mean over records and discriminators; without records that of what is made up."""
        s = self.settings
        softplus = torch.nn.functional.softplus
        uniform = torch.rand(fake.shape, generator=source, dtype=self.dtype) * 2 - 1
        moved = self._moved(fake, source)
        # One pass through D for all kinds: the layers are so small that calls cost more than arithmetic.
        kinds = [fake, uniform, moved] if real is None else [real, fake, uniform, moved]
        *benign, g, u, p = self.logit(weights, torch.cat(kinds)).split(len(fake), dim=1)
        loss = softplus(g).mean()
        if benign:
            loss = softplus(-benign[0]).mean() + loss
        return loss + s.negatives_noise * softplus(u).mean() + s.negatives_perturbed * softplus(p).mean()
