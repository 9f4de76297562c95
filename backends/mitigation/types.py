"""The seams of error mitigation: options, what a technique makes of a request, and what comes back.

A technique takes a compiled circuit with its observables, and says which circuits are run in its place (`parts`) and
how their expectation values become the mitigated ones (`combine`). Circuits are a pure function of the compiled circuit
and of the options, so that they are made once and serve every latent, every step and every replay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from qiskit.quantum_info import SparsePauliOp

from backends.protocol import FloatArray
from backends.target import Target
from circuits.types import CompiledCircuit

if TYPE_CHECKING:
    import torch

Folding = Literal["local", "global", "random"]
Extrapolation = Literal["auto", "richardson", "linear", "quadratic", "exponential"]


@dataclass(frozen=True)
class MitigationOptions:
    """All that defines what mitigation does to a request.

    Attributes:
        stack: Names of techniques, innermost (nearest to the device) first: ("readout", "zne"). See `stack.parse`.
        scale_factors: zne: noise scales, ascending; one that stands twice is run twice. "auto" picks by whether values
            are exact and by the extrapolation.
        folding: zne, lre: "local" folds every noisy gate where it stands, "global" the whole circuit, "random" single
            gates drawn by the seed (the one that reaches scales between the odd numbers).
        extrapolation: zne: how the values are led back to no noise; "auto" picks by whether values are exact.
        ddd_rule: ddd: the sequence of pulses, "xx", "yy" or "xyxy".
        training_circuits: cdr: near-Clifford circuits a call.
        fraction_non_clifford: cdr: share of the rotations that stay as they are in them.
        pec_samples: pec: sampled circuits.
        lre_degree: lre: degree of the polynomial.
        lre_chunks: lre: parts of the circuit that are folded by themselves.
        twirl_circuits: twirl: random instances that are averaged.
        readout: readout: where the confusion matrices come from, the device's "calibration", or two "circuits" of
            each call (all qubits in 0, all in 1).
        seed: Of everything random here.
    """

    stack: tuple[str, ...] = ()
    scale_factors: tuple[float, ...] | Literal["auto"] = "auto"
    folding: Folding = "local"
    extrapolation: Extrapolation = "auto"
    ddd_rule: Literal["xx", "yy", "xyxy"] = "xx"
    training_circuits: int = 10
    fraction_non_clifford: float = 0.3
    pec_samples: int = 100
    lre_degree: int = 2
    lre_chunks: int = 2
    twirl_circuits: int = 8
    readout: Literal["calibration", "circuits"] = "calibration"
    seed: int = 0


@dataclass(frozen=True)
class Rows:
    """Parameters of a part that has its own: inputs (rows, n_inputs) and weights (rows, n_weights), radians."""

    inputs: FloatArray
    weights: FloatArray


@dataclass(frozen=True)
class Part:
    """A circuit that is run in place of the one that was asked for.

    Attributes:
        circuit: On the same physical qubits, in the device's native gates; never compiled again.
        observables: m_p of them, on its virtual qubits.
        rows: Its own parameters; None for those of the request, whose inputs and weights it then takes.
    """

    circuit: CompiledCircuit
    observables: tuple[SparsePauliOp, ...]
    rows: Rows | None = None


class Expansion(Protocol):
    """What a technique makes of a circuit with its observables."""

    @property
    def parts(self) -> tuple[Part, ...]:
        """What is run."""
        ...

    def combine(self, values: Sequence[torch.Tensor]) -> torch.Tensor:
        """One tensor a part, (rows, m_p) -> (batch, m) mitigated values; differentiable in those of the request's rows.

        Values are not clipped.
        """
        ...

    def spread(self, values: Sequence[FloatArray], errors: Sequence[FloatArray]) -> FloatArray:
        """Standard errors (batch, m) of `combine`, to first order, from those of the parts, (rows, m_p) each."""
        ...


@dataclass(frozen=True)
class Asked:
    """What a technique is told about a call.

    Attributes:
        circuit: The compiled circuit.
        observables: m of them.
        inputs: (batch, n_inputs), radians; for techniques whose circuits depend on them (cdr).
        weights: (n_weights,) or (batch, n_weights), radians.
    """

    circuit: CompiledCircuit
    observables: tuple[SparsePauliOp, ...]
    inputs: FloatArray
    weights: FloatArray


class Technique(Protocol):
    """One kind of mitigation, for one target.

    Attributes:
        name: As in a stack.
        by_value: Whether its circuits depend on the parameters' values, so that nothing is kept between calls.
    """

    name: str
    by_value: bool

    def expand(self, asked: Asked) -> Expansion:
        """What is run in place of a request.

        Raises:
            UsageError: The circuit, the observables or the options do not allow it; says why and what does.
        """
        ...

    def circuits(self, circuit: CompiledCircuit, batch: int) -> int:
        """How many bound circuits a request of `batch` samples becomes: the overhead, before anything is run."""
        ...


@dataclass(frozen=True)
class Context:
    """What techniques are made from.

    Attributes:
        target: Where circuits run: calibration, readout errors, native gates.
        options: Of the whole stack.
        exact: Whether values come without sampling error.
    """

    target: Target
    options: MitigationOptions
    exact: bool
