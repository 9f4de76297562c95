"""How values at several noise scales are led back to no noise; Mitiq's factories define the formulas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from mitiq.zne.inference import LinearFactory, PolyFactory, RichardsonFactory

from backends.mitigation.types import Extrapolation, Part
from backends.protocol import FloatArray
from circuits.errors import UsageError

EXTRAPOLATIONS: dict[str, int] = {"richardson": 2, "linear": 2, "quadratic": 3, "exponential": 2}
"""Name -> least number of different noise scales."""

_VANISHED = 1e-6
"""Below this a value is taken as 0, as Mitiq's `eps` does; an exponential has no logarithm to fit there."""


def coefficients(extrapolation: Extrapolation, scales: Sequence[float]) -> tuple[float, ...]:
    """Of the linear combination that an extrapolation is, one a scale: what it makes of the unit vectors.

    - "richardson": the polynomial through all values (Temme et al., Phys. Rev. Lett. 119, 180509 (2017)); through the
      mean of those whose scale is the same.
    - "linear", "quadratic": the least-squares polynomial of that degree.

    Raises:
        UsageError: An extrapolation that is not linear in the values, or an unknown one.
    """
    unit, factors = np.eye(len(scales)), list(scales)
    if extrapolation == "richardson":
        each, place, times = np.unique(factors, return_inverse=True, return_counts=True)
        through = [RichardsonFactory.extrapolate(list(each), list(row)) for row in np.eye(len(each))]
        found = [through[p] / times[p] for p in place]
    elif extrapolation == "linear":
        found = [LinearFactory.extrapolate(factors, list(row)) for row in unit]
    elif extrapolation == "quadratic":
        found = [PolyFactory.extrapolate(factors, list(row), 2) for row in unit]
    else:
        raise UsageError(f"{extrapolation!r} is no linear extrapolation.", "Known: richardson, linear, quadratic.")
    return tuple(float(each) for each in found)


@dataclass(frozen=True)
class Exponential:
    """y(s) = A exp(-c s) fitted to the parts' values, and A: towards 0, which a fully depolarised Pauli string reads.

    The fit is Mitiq's (`ExpFactory` with asymptote 0): log |y| on a straight line, where each value counts as much as
    it is large, since a logarithm's error is that of the value over the value. In closed form, with weights w = |y|,

        log |A| = (S_xx S_l - S_x S_xl) / (S S_xx - S_x^2),   S_xl = sum w s log |y| ...

    Where the values of an observable have different signs, or one of them is below 1e-6, there is no such exponential;
    those entries are extrapolated by the straight line through the values (`linear`) instead. So are those where the
    exponential leads to more than `furthest` times the value of the least noise: half of it would be lost there, and at
    five times the noise all but 1/16 of what is left, so that the ratio is one of sampling errors.
    """

    parts: tuple[Part, ...]
    scales: tuple[float, ...]
    linear: tuple[float, ...]
    furthest: float = 2.0

    def combine(self, values: Sequence[torch.Tensor]) -> torch.Tensor:
        """As `types.Expansion`."""
        y = torch.stack(tuple(values))
        across = (-1,) + (1,) * (y.ndim - 1)
        line = (torch.tensor(self.linear, dtype=y.dtype, device=y.device).reshape(across) * y).sum(0)
        s = torch.tensor(self.scales, dtype=y.dtype, device=y.device).reshape(across)
        fits = ((y > _VANISHED).all(0) | (y < -_VANISHED).all(0)).detach()
        # Where it does not fit, numbers that have logarithms: what is not taken must not make the gradient nan.
        w = torch.where(fits, y.abs(), torch.exp(-s))
        logs = torch.log(w)
        total, x, xx = w.sum(0), (w * s).sum(0), (w * s * s).sum(0)
        level, mixed = (w * logs).sum(0), (w * s * logs).sum(0)
        height = (xx * level - x * mixed) / (total * xx - x * x)
        near = fits & (height.detach() <= logs[0].detach() + float(np.log(self.furthest)))
        height = torch.where(near, height, torch.zeros_like(height))
        return torch.where(near, torch.sign(y[0]) * torch.exp(height), line)

    def spread(self, values: Sequence[FloatArray], errors: Sequence[FloatArray]) -> FloatArray:
        """By the derivatives of `combine` (delta method): errors of parts are independent."""
        leaves = [torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in values]
        with torch.enable_grad():
            slopes = torch.autograd.grad(self.combine(leaves).sum(), leaves)
        squares = [(slope.numpy() * error) ** 2 for slope, error in zip(slopes, errors, strict=True)]
        total: FloatArray = np.sqrt(np.sum(squares, axis=0))
        return total
