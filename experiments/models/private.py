"""Differentially private discriminator steps: each record's gradient is clipped, the sum gets Gaussian noise (DP-SGD;
Abadi et al., CCS 2016).

Of the loss only softplus(-D(x)) looks at records x. A step takes every record with the same chance (Poisson sampling),
cuts the gradient of sum_h softplus(-D_h(x)), over all parameters of all discriminators at once, to the norm C, sums,
adds N(0, (m C)^2) to every component, and divides by the expected number of records. Whatever else is in the loss
touches no record, and gets its ordinary gradient. The discriminators being perceptrons, a record's gradient is an outer
product in every layer: its norm follows from the layer's inputs and errors, and no gradient of a record is laid out.

Sampling and noise come from the operating system. From the run's seed, which stands in the published config, anybody
could draw the noise again and take it off; and torch's generator knows 2^32 seeds.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from experiments.models.budget import Budget, rate

FloatArray = npt.NDArray[np.float64]

CLIP = 1.0
"""Norm that a record's gradient is cut to."""
SLOPE = 0.2
"""Of the discriminators' leaky ReLU, below 0."""


class Randomness(Protocol):
    """Where samples and noise come from; numpy's Generator is one, for tests."""

    def random(self, size: int) -> FloatArray:
        """Uniform in [0, 1)."""
        ...

    def standard_normal(self, size: int) -> FloatArray:
        """Gaussian."""
        ...


class SystemRandomness:
    """The operating system's, which nobody can draw again."""

    def random(self, size: int) -> FloatArray:
        """Uniform in [0, 1), with 53 bits."""
        return np.asarray((np.frombuffer(os.urandom(8 * size), dtype=np.uint64) >> np.uint64(11)) * 2.0**-53)

    def standard_normal(self, size: int) -> FloatArray:
        """Gaussian: the quantiles of uniform numbers, none of them 0 or 1."""
        middles = torch.from_numpy(self.random(size) + 2.0**-54)
        out: FloatArray = torch.special.ndtri(middles.clamp_(max=1 - 2.0**-53)).numpy()
        return out


@dataclass(frozen=True)
class Private:
    """How a node's discriminators look at its records.

    Attributes:
        multiplier: Standard deviation of the noise, in units of `clip`.
        clip: Norm that a record's gradient is cut to.
        source: Of samples and noise.
    """

    multiplier: float
    clip: float = CLIP
    source: Randomness = field(default_factory=SystemRandomness)

    @classmethod
    def within(cls, spent: Budget) -> Private:
        """With the noise that a budget asks for."""
        return cls(spent.multiplier)

    def sample(self, x: torch.Tensor, batch: int) -> torch.Tensor:
        """The records of a step: each of (N, features) with the chance batch / N. They may be none."""
        return x[torch.from_numpy(self.source.random(len(x)) < rate(batch, len(x)))]

    def add(self, weights: Mapping[str, torch.Tensor], x: torch.Tensor, *, batch: int, share: float = 1.0) -> None:
        """Add a step's gradient of the records' loss, made private, to that which the weights have.

        Args:
            weights: Of the discriminators; their gradients are changed.
            x: The whole node's records, (N, features).
            batch: Records that a step is expected to take.
            share: What the loss counts: 1 for the sum over discriminators, 1/h for the mean of h.
        """
        found = clipped_sum(weights, self.sample(x, batch), self.clip)
        scale, deviation = share / min(batch, len(x)), self.multiplier * self.clip
        for name, total in found.items():
            made = scale * total
            if deviation:
                noise = torch.from_numpy(self.source.standard_normal(total.numel())).reshape(total.shape)
                made = scale * (total + deviation * noise.to(total.dtype))
            gradient = weights[name].grad
            weights[name].grad = made if gradient is None else gradient + made


@torch.no_grad()
def clipped_sum(weights: Mapping[str, torch.Tensor], x: torch.Tensor, clip: float) -> dict[str, torch.Tensor]:
    """Sum over records of the gradients of sum_h softplus(-D_h(x)), each cut to the norm `clip`.

    Args:
        weights: discriminator.K.weight (h, out, in) and discriminator.K.bias (h, 1, out) of the layers K.
        x: (n, features) records; for none of them the sum is 0.
        clip: Norm over all of the weights.

    Returns:
        Name -> gradient, as the weights.
    """
    layers = len(weights) // 2
    matrices = [weights[f"discriminator.{k}.weight"] for k in range(layers)]
    value = x.expand(len(matrices[0]), *x.shape)
    inputs, slopes = [], []
    for k, matrix in enumerate(matrices):
        inputs.append(value)
        value = torch.baddbmm(weights[f"discriminator.{k}.bias"], value, matrix.transpose(1, 2))
        if k < layers - 1:
            slopes.append(torch.ones_like(value).masked_fill_(value <= 0, SLOPE))
            value = torch.nn.functional.leaky_relu(value, SLOPE)
    errors = [-torch.sigmoid(-value)]
    for k in range(layers - 1, 0, -1):
        errors.insert(0, (errors[0] @ matrices[k]) * slopes[k - 1])
    # A record's gradient is error x input in a layer's matrix, and the error in its bias.
    squared = sum((e**2).sum(-1) * ((a**2).sum(-1) + 1) for e, a in zip(errors, inputs, strict=True))
    norms = torch.as_tensor(squared).sum(0).sqrt()
    share = (clip / norms).clamp(max=1.0)[None, :, None]
    out: dict[str, torch.Tensor] = {}
    for k, (error, given) in enumerate(zip(errors, inputs, strict=True)):
        kept = error * share
        out[f"discriminator.{k}.weight"] = kept.transpose(1, 2) @ given
        out[f"discriminator.{k}.bias"] = kept.sum(1, keepdim=True)
    return out
