"""Layerwise Richardson extrapolation: parts of the circuit are folded by themselves, led back to no noise together."""

from __future__ import annotations

import math

import cirq
import numpy as np
from mitiq.lre import construct_circuits
from mitiq.lre.inference import multivariate_richardson_coefficients

from backends.mitigation.folding import FOLDINGS, folder
from backends.mitigation.linear import Linear
from backends.mitigation.tokens import from_tokens, to_tokens, with_circuit
from backends.mitigation.types import Asked, Context, Expansion, Part
from circuits.errors import UsageError
from circuits.types import CompiledCircuit

_FOLDS = 1
"""Steps of the noise scales of a chunk: 1, 3, 5 ..."""

_MOST = 100
"""Circuits in place of one; Mitiq's coefficients are ratios of determinants of matrices of that size."""

_DEGREE = 10
"""Beyond, the determinants are lost in rounding."""

_MONOMIALS = 100_000
"""Mitiq goes through (degree + 1)^chunks of them: from here on that takes seconds, and soon years."""
_ROUNDING = 1e-6
_EXAMPLE = "for example lre_degree = 2 and lre_chunks = 2 (6 circuits)"


class Lre:
    """Cuts the circuit's layers into chunks, folds each by itself, and extrapolates in all their noise scales at once.

    The polynomial of degree d in the scales of l chunks has (l + d choose d) coefficients, and so many circuits are
    run (V. Russo and A. Mari, arXiv:2402.04000). One chunk is Richardson extrapolation at 1, 3, ..., 2 d + 1. Mitiq
    cuts, folds and gives the coefficients, on the device's own gates (`tokens`).

    Args:
        context: `options.lre_degree`, `lre_chunks`, `folding` (of each chunk) and, for random folding, `seed`.

    Raises:
        UsageError: A degree or a number of chunks that does not go.
    """

    name = "lre"
    by_value = False

    def __init__(self, context: Context) -> None:
        options = context.options
        for what, value in (("lre_degree", options.lre_degree), ("lre_chunks", options.lre_chunks)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UsageError(f"{what} must be a whole number of 1 or more, not {value!r}.", "Take for example 2.")
        if options.folding not in FOLDINGS:
            raise UsageError(f"unknown folding {options.folding!r}.", f"Known: {', '.join(FOLDINGS)}.")
        self.degree, self.chunks = options.lre_degree, options.lre_chunks
        self.target, self.seed, self.folding = context.target, options.seed, options.folding
        self.number = math.comb(self.chunks + self.degree, self.degree)
        if self.number > _MOST or self.degree > _DEGREE or (self.degree + 1) ** self.chunks > _MONOMIALS:
            raise UsageError(
                f"lre with degree {self.degree} and {self.chunks} chunks is beyond what can be done: it takes "
                f"{self.number} circuits in place of one. At most {_MOST} circuits, degree {_DEGREE}, and "
                f"(degree + 1)^chunks = {_MONOMIALS} are possible.",
                f"Take fewer chunks or a lower degree, {_EXAMPLE}.",
            )
        self.coefficients = _coefficients(self.degree, self.chunks)

    def expand(self, asked: Asked) -> Expansion:
        """One part for each combination of noise scales; the first is the compiled circuit itself.

        Raises:
            UsageError: More chunks than the circuit has layers.
            QrunError: A gate that has no inverse among the device's own.
        """
        circuit = asked.circuit
        tokens = to_tokens(circuit.circuit)
        if self.chunks > len(tokens):
            raise UsageError(
                f"lre_chunks = {self.chunks} is more than the {len(tokens)} layers of {circuit.ansatz.name}.",
                f"Take {max(len(tokens), 1)} or fewer; 2 to 4 are usual.",
            )
        fold = folder(self.folding, circuit, self.target, self.seed)
        made = construct_circuits(tokens, self.degree, _FOLDS, fold, self.chunks)
        folded = [circuit, *(with_circuit(circuit, from_tokens(each, circuit.circuit)) for each in made[1:])]
        return Linear(tuple(Part(each, asked.observables) for each in folded), self.coefficients)

    def circuits(self, circuit: CompiledCircuit, batch: int) -> int:
        """As many as the polynomial has coefficients."""
        return batch * self.number


def _coefficients(degree: int, chunks: int) -> tuple[float, ...]:
    """Mitiq's, which hang on the number of chunks alone; they add up to 1, where their determinants can be had.

    Raises:
        UsageError: They cannot, in double precision.
    """
    layers = cirq.Circuit(cirq.Moment() for _ in range(chunks))
    try:
        with np.errstate(all="ignore"):
            found = tuple(float(c) for c in multivariate_richardson_coefficients(layers, degree, _FOLDS, chunks))
    except (ValueError, AssertionError, ZeroDivisionError):
        found = ()
    if not abs(sum(found) - 1.0) < _ROUNDING:
        raise UsageError(
            f"the coefficients of lre with degree {degree} and {chunks} chunks cannot be had in double precision.",
            f"Take fewer chunks or a lower degree, {_EXAMPLE}.",
        )
    return found
