"""Probabilistic error cancellation: circuits with random Paulis, weighted so that on average they undo the noise.

The noise of a gate is taken for a Pauli channel, the one that the calibration says: the gate's reported error with the
relaxation (T1, T2) that happens during its length, as `backends.twin.channels` puts them together, less what no Pauli
channel has. Its inverse is a sum of Paulis with coefficients eta_P of both signs,

    eta_P = sum_Q (+-1) / lambda_Q / 4^k,    lambda_Q: what is left of the Pauli Q,   + where P and Q commute,

and a circuit is the product of its gates' sums: gamma = prod sum |eta| is what the variance grows with (Temme, Bravyi
and Gambetta, Phys. Rev. Lett. 119, 180509 (2017); van den Berg et al., Nat. Phys. 19, 1116 (2023)). Where a calibration
knows a gate's average infidelity r alone, that is a depolarising channel of p = r d / (d - 1), and eta is what Mitiq's
`represent_operation_with_global_depolarizing_noise` has at the noise level (1 - 1 / d^2) p, d = 2^k.

The representations are Mitiq's; Mitiq's `sample_circuit` is not taken, since it needs a quarter of a second a circuit
on 4 qubits. The term without any Pauli, most of the sum, is run once with its exact coefficient, and only the rest is
sampled, in strata: unbiased like Mitiq's sampling of everything, with a far smaller variance.

What stays: relaxation pulls towards |0>, which no Pauli channel does (with twirl below, that of the two-qubit gates
averages out), idle time, and the errors of the pulses that are put in.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import cirq
import numpy as np
import numpy.typing as npt
from mitiq.pec import NoisyOperation, OperationRepresentation
from qiskit import QuantumCircuit

from backends.mitigation.linear import Linear
from backends.mitigation.paulis import NativePaulis
from backends.mitigation.tokens import VIRTUAL, Token, with_circuit
from backends.mitigation.types import Asked, Context, Part
from backends.protocol import FloatArray
from backends.twin.channels import Channels, describe_gate
from circuits.errors import QrunWarning, UsageError
from circuits.types import CompiledCircuit

_CIRQ = (cirq.I, cirq.X, cirq.Y, cirq.Z)
_COMMUTE = np.array([[1, 1, 1, 1], [1, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]], dtype=np.float64)
"""+1 where two Paulis commute, -1 where they do not."""

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Sampled(Linear):
    """The plain circuit with its exact coefficient, and as many samples of all others, with the sign of each.

    All samples have a coefficient of the same size: `rest` over their number.
    """

    rest: float = 0.0

    def spread(self, values: Sequence[FloatArray], errors: Sequence[FloatArray]) -> FloatArray:
        """Standard errors: of the plain circuit's value, and of the mean over the sampled circuits.

        The second is estimated from the variance between samples, so that it contains which circuits were drawn as
        well as their shots; it is an upper bound, for the samples are drawn in strata. A circuit is expanded once, and
        the same samples then serve every call: over calls, that part of the error does not average out.
        """
        if len(values) < 3:
            return super().spread(values, errors)
        signed = [np.sign(c) * value for c, value in zip(self.coefficients[1:], values[1:], strict=True)]
        sampling = self.rest * np.std(signed, axis=0, ddof=1) / np.sqrt(len(signed))
        total: FloatArray = np.hypot(self.coefficients[0] * errors[0], sampling)
        return total


class Pec:
    """`pec_samples` circuits, the plain one among them. On a target without errors it changes nothing.

    Raises:
        UsageError: Fewer than 2 samples, or a device whose gates make no Paulis.
    """

    name = "pec"
    by_value = False

    def __init__(self, context: Context) -> None:
        number = context.options.pec_samples
        if not isinstance(number, int) or isinstance(number, bool) or number < 2:
            raise UsageError(f"pec_samples must be 2 or more, not {number!r}.", "Give a whole number, such as 100.")
        self._number, self._seed, self._target = number, context.options.seed, context.target
        self._paulis = NativePaulis(context.target)
        self._known: dict[tuple[str, tuple[int, ...]], OperationRepresentation | None] = {}

    def circuits(self, circuit: CompiledCircuit, batch: int) -> int:
        """As `types.Technique`."""
        return (self._number if self.representations(circuit) else 1) * batch

    def overhead(self, circuit: CompiledCircuit) -> float:
        """gamma^2: by how much sampling all of the circuit's sum would multiply the variance.

        Raises:
            UsageError: As `expand`.
        """
        return float(np.prod([found.norm for found in self.representations(circuit).values()]) ** 2)

    def expand(self, asked: Asked) -> Linear:
        """The plain circuit and samples of those with Paulis in it.

        Raises:
            UsageError: A gate whose noise has no inverse; names it.
        """
        found = self.representations(asked.circuit)
        plain = Part(asked.circuit, asked.observables)
        if not found:
            return Linear((plain,), (1.0,))
        places, source = list(found), asked.circuit.circuit
        draws, signs, kept, rest = sample(list(found.values()), self._number - 1, np.random.default_rng(self._seed))
        parts = [plain]
        for draw in draws:
            chosen = {places[gate]: int(draw[gate]) for gate in np.flatnonzero(draw)}
            parts.append(Part(with_circuit(asked.circuit, self._insert(source, chosen)), asked.observables))
        each = rest / len(draws)
        return Sampled(tuple(parts), (kept, *(float(sign) * each for sign in signs)), rest)

    def representations(self, circuit: CompiledCircuit) -> dict[int, OperationRepresentation]:
        """Mitiq's representation of every noisy gate, by its place; the number k of a basis operation is the Pauli k,
        in base 4 with the first qubit first.

        Raises:
            UsageError: As `expand`.
        """
        backend, source = self._target.backend, circuit.circuit
        if backend is None:
            return {}
        channels = Channels(backend.target, circuit.physical_qubits)
        found = {}
        for place, instruction in enumerate(source.data):
            name = instruction.operation.name
            if name in VIRTUAL:
                continue
            wires = tuple(source.find_bit(qubit).index for qubit in instruction.qubits)
            key = name, tuple(circuit.physical_qubits[wire] for wire in wires)
            if key not in self._known:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", QrunWarning)  # a broken gate is refused, not warned of
                    noise = channels.after(name, wires)
                self._known[key] = None if noise is None else represent(noise, Token(place, len(wires)), *key)
            known = self._known[key]
            if known is not None:
                found[place] = known
        return found

    def _insert(self, source: QuantumCircuit, chosen: dict[int, int]) -> QuantumCircuit:
        """Paulis after the gates at some places."""
        result = QuantumCircuit(source.num_qubits, global_phase=source.global_phase)
        for place, instruction in enumerate(source.data):
            wires = [source.find_bit(qubit).index for qubit in instruction.qubits]
            result.append(instruction.operation, wires)
            number = chosen.get(place, 0)
            for wire in reversed(wires):
                number, pauli = divmod(number, 4)
                self._paulis.append(result, pauli, wire)
        return result


def represent(noise: FloatArray, token: Token, name: str, qubits: tuple[int, ...]) -> OperationRepresentation | None:
    """The gate without noise, as a sum of the noisy gate with a Pauli after it; None where there is no noise.

    Args:
        noise: (4^k, 4^k) PTM of what follows the gate; its diagonal is what counts.
        token: Stands for the gate.
        name, qubits: Of the gate, for errors.

    Raises:
        UsageError: The channel has no inverse.
    """
    left = np.diag(noise)
    if left.min() <= 0.0:
        raise UsageError(
            f"pec cannot undo {describe_gate(name, qubits)}: the calibration reports an error at which nothing is left "
            "of the state.",
            "Choose other qubits, or leave pec out of the stack.",
        )
    signs = _COMMUTE if len(qubits) == 1 else np.kron(_COMMUTE, _COMMUTE)
    coefficients = signs @ (1.0 / left) / len(left)
    if np.abs(coefficients[1:]).sum() < 1e-15:
        return None
    lines = cirq.LineQubit.range(len(qubits))
    gate = token.on(*lines)
    operations = [
        NoisyOperation(cirq.Circuit([gate, *(_CIRQ[p].on(q) for p, q in zip(paulis, lines, strict=True) if p)]))
        for paulis in itertools.product(range(4), repeat=len(qubits))
    ]
    return OperationRepresentation(cirq.Circuit(gate), operations, coefficients.tolist())


def sample(
    representations: Sequence[OperationRepresentation], number: int, random: np.random.Generator
) -> tuple[IntArray, IntArray, float, float]:
    """Draw terms of a product of sums, other than the one that takes the first of each.

    The place of the first Pauli in a circuit is drawn in strata, all later ones independently.

    Args:
        representations: The gates' sums, in the order of the circuit.
        number: How many are drawn.
        random: Draws.

    Returns:
        (number, gates) which term of each sum, (number,) signs, the coefficient of the product of the first terms, and
        the sum of the other coefficients' absolute values.
    """
    first = np.array([found.coeffs[0] / found.norm for found in representations])  # probability of no Pauli
    before = np.concatenate([[1.0], np.cumprod(first)[:-1]])
    some = before * (1.0 - first)  # probability that this gate is the first with a Pauli
    gamma = float(np.prod([found.norm for found in representations]))
    kept = float(np.prod([found.coeffs[0] for found in representations]))
    others = [np.asarray(found.distribution[1:]) / sum(found.distribution[1:]) for found in representations]
    share = np.cumsum(np.concatenate([weight * other for weight, other in zip(some, others, strict=True)]))
    where = [(gate, 1 + term) for gate, other in enumerate(others) for term in range(len(other))]
    places = (np.arange(number) + random.random(number)) / number * share[-1]
    draws = np.zeros((number, len(representations)), dtype=np.int64)
    signs = np.ones(number, dtype=np.int64)
    later = random.random((number, len(representations)))
    which = random.random((number, len(representations)))
    for row, position in enumerate(np.minimum(np.searchsorted(share, places, side="right"), len(where) - 1)):
        gate, term = where[position]
        draws[row, gate] = term
        for other in range(gate + 1, len(representations)):
            if later[row, other] >= first[other]:
                last = len(others[other]) - 1
                drawn = np.searchsorted(np.cumsum(others[other]), which[row, other], side="right")
                draws[row, other] = 1 + min(int(drawn), last)
        for other in np.flatnonzero(draws[row]):
            signs[row] *= int(np.sign(representations[other].coeffs[draws[row, other]]))
    return draws, signs, kept, gamma - kept
