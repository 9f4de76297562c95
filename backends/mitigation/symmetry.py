"""Symmetry verification: what does not respect the ansatz's Pauli symmetries is left out of the averages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from qiskit.quantum_info import Pauli, SparsePauliOp

from backends.mitigation.stack import check_symmetry
from backends.mitigation.types import Asked, Context, Expansion, Part
from backends.protocol import FloatArray
from circuits.errors import QrunError, UsageError
from circuits.symmetry import Bits, PauliSymmetry, null_space, pauli_symmetries, reduced, sentence
from circuits.types import Ansatz, CompiledCircuit

MOST = 5
"""Symmetries that are verified at once: g of them make 2^g Pauli strings of each."""

_KEPT = 16


class Symmetry:
    """Verifies the ansatz's Pauli symmetries by post-processing, without a further circuit or qubit.

    Errors that take the state out of the subspace where P = s holds are projected away,

        <O> = Tr(O Pi rho) / Tr(Pi rho),   Pi = prod_k (1 + s_k P_k) / 2

    (X. Bonet-Monroig et al., Phys. Rev. A 98, 062339 (2018); S. McArdle, X. Yuan, S. Benjamin, Phys. Rev. Lett.
    122, 180501 (2019)). For each observable those symmetries count that can be read from the same shots: their
    factors agree with its factors qubit by qubit, and are Z where it has none. Of more than `MOST` the shortest are
    taken. An observable that goes with none of them stays as it is, where others have some.

    Args:
        context: `options.stack`: whether readout is mitigated below, and what runs above.

    Raises:
        UsageError: It stands in a stack with a technique that runs other states.
    """

    name = "symmetry"
    by_value = False

    def __init__(self, context: Context) -> None:
        stack = context.options.stack
        check_symmetry(stack)
        self.below = "readout" in stack
        self._known: dict[int, tuple[Ansatz, tuple[PauliSymmetry, ...]]] = {}

    def expand(self, asked: Asked) -> Expansion:
        """One part: every O Pi, and then every Pi that differs.

        Raises:
            UsageError: The ansatz has no symmetry, or none goes with any of the observables.
        """
        ansatz = asked.circuit.ansatz
        symmetries = self._symmetries(ansatz)
        if not symmetries:
            raise UsageError(sentence(ansatz), "Leave symmetry out of the stack.")
        chosen = [readable(symmetries, observable) for observable in asked.observables]
        if not any(chosen) and asked.observables:
            raise UsageError(
                f"no Pauli symmetry of {ansatz.name} can be read from the same shots as any of the observables: "
                f"{', '.join(map(str, symmetries))} (qubit 0 last).",
                "Take observables whose factors agree with theirs qubit by qubit, or leave symmetry out of the stack.",
            )
        kinds = list(dict.fromkeys(each for each in chosen if each))
        projectors = [projector(each) for each in kinds]
        numerators = [
            (observable @ projectors[kinds.index(each)]).simplify(atol=0.0) if each else observable
            for observable, each in zip(asked.observables, chosen, strict=True)
        ]
        observables = tuple(_real(each) for each in (*numerators, *projectors))
        joint = [
            not self.below and not any(p.paulis.x.any() for p in (observable, projectors[kinds.index(each)]))
            if each
            else False
            for observable, each in zip(asked.observables, chosen, strict=True)
        ]
        return Ratio(
            (Part(asked.circuit, observables),),
            tuple(kinds.index(each) if each else len(kinds) for each in chosen),
            tuple(2.0 ** -len(each) for each in kinds),
            tuple(joint),
        )

    def circuits(self, circuit: CompiledCircuit, batch: int) -> int:
        """As many as without."""
        return batch

    def _symmetries(self, ansatz: Ansatz) -> tuple[PauliSymmetry, ...]:
        """Found once for an ansatz: folded circuits and such are of the same."""
        known = self._known.get(id(ansatz))
        if known is None:
            if len(self._known) >= _KEPT:
                self._known.pop(next(iter(self._known)))
            known = self._known[id(ansatz)] = ansatz, pauli_symmetries(ansatz)
        return known[1]


@dataclass(frozen=True)
class Ratio:
    """Values of O Pi over values of Pi.

    Attributes:
        parts: One, with m values of O Pi and then d of Pi.
        which: (m,) for each observable its Pi, d for none.
        shares: (d,) what each Pi would be of a state that noise has erased, 2^-g.
        joint: (m,) whether both come from the same shots, as they are.
    """

    parts: tuple[Part, ...]
    which: tuple[int, ...]
    shares: tuple[float, ...]
    joint: tuple[bool, ...]

    def combine(self, values: Sequence[torch.Tensor]) -> torch.Tensor:
        """As `types.Expansion`.

        Raises:
            QrunError: Fewer shots respect the symmetries than chance would have it.
        """
        (value,) = values
        m = len(self.which)
        kept = value[:, m:]
        for number, share in enumerate(self.shares):
            if bool((kept[:, number] > share / 4).logical_not().any()):
                raise QrunError(
                    f"symmetry verification is left with {float(kept[:, number].min()):.1%} of the shots, and of a "
                    f"state that noise has erased {share:.1%} would pass: there is nothing to verify.",
                    "Take more shots, a shorter circuit or a better device, or leave symmetry out of the stack.",
                )
        below = torch.cat([kept, torch.ones_like(value[:, :1])], dim=1)
        return value[:, :m] / below[:, list(self.which)]

    def spread(self, values: Sequence[FloatArray], errors: Sequence[FloatArray]) -> FloatArray:
        """Delta method for r = N / D.

        From the same shots cov(N, D) = r var(D), since Pi^2 = Pi, and var(r) = (var(N) - r^2 var(D)) / D^2: the
        deviation over the shots that pass. Where N and D are not plain averages over the same shots (readout mitigated
        below, other bases) the covariance is left out: it has the sign of r, so that the error is then stated too large
        rather than too small.
        """
        (value,), (error,) = values, errors
        m = len(self.which)
        ones, zeros = np.ones((len(value), 1)), np.zeros((len(value), 1))
        columns = list(self.which)
        d, of_d = np.hstack([value[:, m:], ones])[:, columns], np.hstack([error[:, m:], zeros])[:, columns]
        of_n, r = error[:, :m], value[:, :m] / d
        apart = of_n**2 + (r * of_d) ** 2
        together = of_n**2 - (r * of_d) ** 2
        # An engine's own errors may leave covariances between Pauli strings out, so that this is no variance.
        exact = np.array(self.joint, dtype=bool)[None] & (together > -1e-9 * apart)
        total: FloatArray = np.sqrt(np.where(exact, np.maximum(together, 0.0), apart)) / np.abs(d)
        return total


def readable(symmetries: Sequence[PauliSymmetry], observable: SparsePauliOp) -> tuple[PauliSymmetry, ...]:
    """Independent products of symmetries that are read from the same shots as an observable, at most `MOST`.

    Raises:
        UsageError: The observable is on another number of qubits.
    """
    strings = [Pauli(each.label) if each.sign > 0 else -Pauli(each.label) for each in symmetries]
    n = observable.num_qubits
    if any(string.num_qubits != n for string in strings):
        raise UsageError(f"an observable is on {n} qubits, the circuit on {strings[0].num_qubits}.")
    x, z = np.array([string.x for string in strings]), np.array([string.z for string in strings])
    conditions = []
    for qubit in range(n):
        at_x, at_z = observable.paulis.x[:, qubit], observable.paulis.z[:, qubit]
        kinds = {(bool(a), bool(b)) for a, b in zip(at_x, at_z, strict=True)} - {(False, False)}
        if kinds <= {(False, True)}:
            conditions.append(x[:, qubit])
        elif kinds == {(True, False)}:
            conditions.append(z[:, qubit])
        elif kinds == {(True, True)}:
            conditions.append(x[:, qubit] ^ z[:, qubit])
        else:
            conditions += [x[:, qubit], z[:, qubit]]
    products = null_space(np.array(conditions, dtype=bool), len(strings))
    # Short strings feel fewer readout errors, and a reduced basis has short ones.
    whole = (products.astype(int) @ np.hstack([x, z]).astype(int)) % 2 == 1
    found = []
    for row in reduced(whole):
        signed = _member(strings, row)
        found.append(PauliSymmetry(Pauli((signed.z, signed.x)).to_label(), 1 if signed.phase == 0 else -1))
    found.sort(key=lambda each: (n - each.label.count("I"), each.label))
    return tuple(found[:MOST])


def _member(strings: Sequence[Pauli], wanted: Bits) -> Pauli:
    """The product of some of the strings, with its sign, that has these X and Z factors (2n,)."""
    rows = np.array([np.hstack([string.x, string.z]) for string in strings], dtype=bool)
    # wanted = c . rows: a solution has its last entry set in the null space of (rows, wanted) as columns.
    solutions = null_space(np.vstack([rows, wanted[None]]).T, len(rows) + 1)
    solution = next(each for each in solutions if each[-1])
    product = Pauli("I" * strings[0].num_qubits)
    for string, taken in zip(strings, solution[:-1], strict=True):
        if taken:
            product = product @ string
    return product


def projector(symmetries: Sequence[PauliSymmetry]) -> SparsePauliOp:
    """prod_k (1 + s_k P_k) / 2."""
    n = len(symmetries[0].label)
    one = SparsePauliOp("I" * n)
    product = one
    for each in symmetries:
        product = (product @ (one + each.sign * SparsePauliOp(each.label))) / 2
    return _real(product.simplify(atol=0.0))


def _real(operator: SparsePauliOp) -> SparsePauliOp:
    """Products of commuting strings: what is left of imaginary parts is none."""
    return SparsePauliOp(operator.paulis, np.real(operator.coeffs))
