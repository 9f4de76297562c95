"""Expansions whose combination is linear: a sum of the parts' values with fixed coefficients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from backends.mitigation.types import Part
from backends.protocol import FloatArray


@dataclass(frozen=True)
class Linear:
    """sum_p coefficients[p] * values[p]; all parts have the request's observables, or as many in their place."""

    parts: tuple[Part, ...]
    coefficients: tuple[float, ...]

    def combine(self, values: Sequence[torch.Tensor]) -> torch.Tensor:
        """As `types.Expansion`."""
        total = self.coefficients[0] * values[0]
        for coefficient, value in zip(self.coefficients[1:], values[1:], strict=True):
            total = total + coefficient * value
        return total

    def spread(self, values: Sequence[FloatArray], errors: Sequence[FloatArray]) -> FloatArray:
        """Errors of parts are independent: each is run by itself."""
        squares = [(coefficient * error) ** 2 for coefficient, error in zip(self.coefficients, errors, strict=True)]
        total: FloatArray = np.sqrt(np.sum(squares, axis=0))
        return total
