"""Readout errors undone in what is measured: no circuit is added, or two that measure the errors first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from qiskit import QuantumCircuit
from qiskit.quantum_info import SparsePauliOp

from backends.mitigation.confusion import (
    LEAST,
    Factors,
    Undo,
    as_operator,
    calibrated,
    checked,
    physical_qubit,
    terms_of,
    undo_of,
    undone,
)
from backends.mitigation.linear import Linear
from backends.mitigation.paulis import NativePaulis, X
from backends.mitigation.types import Asked, Context, Expansion, Part, Rows
from backends.observables import PauliSum, single_z
from backends.protocol import FloatArray
from circuits.errors import QrunError, UsageError
from circuits.types import Ansatz, CompiledCircuit

_NO_ROWS = Rows(np.zeros((1, 0)), np.zeros(0))
_NO_ERROR = Undo(1.0, 0.0)
_KEPT = 64
_STEP = 1e-4
"""Of finite differences, far below the least slope (LEAST) and far above rounding."""


class Readout:
    """Undoes readout errors, as independent ones of each qubit (a tensored confusion matrix).

    - "calibration": the device's own figures. A mitigated observable is an observable of more terms, which every
      engine measures as any other, with its standard errors and gradients.
    - "circuits": two circuits more in each call, all qubits in 0 and in 1, with as many shots as each of the others;
      their sampling errors are in the standard errors. The X that prepares 1 has an error of its own, which counts as
      one of readout; on today's devices it is tens of times smaller.

    Args:
        context: `options.readout` says where the confusion matrices come from.

    Raises:
        UsageError: An unknown source.
    """

    name = "readout"
    by_value = False

    def __init__(self, context: Context) -> None:
        self.source = context.options.readout
        if self.source not in ("calibration", "circuits"):
            raise UsageError(f"unknown source of readout errors {self.source!r}.", "Known: calibration, circuits.")
        self.target, self.exact = context.target, context.exact
        self._paulis = NativePaulis(context.target) if self.source == "circuits" else None
        self._parts: OrderedDict[tuple[object, ...], tuple[Part, Part]] = OrderedDict()

    def expand(self, asked: Asked) -> Expansion:
        """The same circuit with mitigated observables; with "circuits" also the two that measure the errors.

        Raises:
            UsageError: A string of too many factors, or a qubit whose readout says nothing.
        """
        circuit = asked.circuit
        terms = terms_of(asked.observables, circuit)
        if self.source == "calibration":
            undo = calibrated(self.target, circuit, _qubits(terms))
            if all(each == _NO_ERROR for each in undo.values()):
                return Linear((Part(circuit, asked.observables),), (1.0,))
            return Linear((Part(circuit, _mitigated(terms, undo, circuit)),), (1.0,))
        return self._measured(circuit, terms)

    def circuits(self, circuit: CompiledCircuit, batch: int) -> int:
        """None more, or the two that measure the errors."""
        return batch + (2 if self.source == "circuits" else 0)

    def _measured(self, circuit: CompiledCircuit, terms: tuple[PauliSum, ...]) -> Measured:
        qubits = _qubits(terms)
        strings = tuple(dict.fromkeys(string for each in terms for string in undone(each, dict.fromkeys(qubits, _ANY))))
        strings = tuple(string for string in strings if string)
        observables = [as_operator({string: 1.0}, circuit.num_qubits) for string in strings]
        scales: FloatArray | None = None
        if not self.exact:
            # What is measured together has covariances, which the engine knows of a sum alone: the observable as the
            # calibration has it is measured too, and gives the standard error up to the scale.
            expected = {qubit: self._expected(circuit, qubit) for qubit in qubits}
            observables += _mitigated(terms, expected, circuit)
            scales = np.array([_size(undone(each, expected)) for each in terms])
        main = Part(circuit, tuple(observables))
        names = tuple(f"qubit {physical_qubit(circuit, qubit)} of {self.target.name}" for qubit in qubits)
        return Measured((main, *self._calibrations(circuit)), terms, strings, qubits, names, scales)

    def _expected(self, circuit: CompiledCircuit, qubit: int) -> Undo:
        p01, p10 = self.target.readout_errors(physical_qubit(circuit, qubit))
        return undo_of(p01, p10) if 1.0 - p01 - p10 > LEAST else _NO_ERROR

    def _calibrations(self, circuit: CompiledCircuit) -> tuple[Part, Part]:
        """All qubits in 0, all in 1; the same objects for all circuits that are read on the same qubits."""
        key = (circuit.num_qubits, circuit.physical_qubits, circuit.final_layout)
        if key not in self._parts:
            observables = single_z(circuit.num_qubits)
            self._parts[key] = (
                Part(self._prepared(circuit, excited=False), observables, _NO_ROWS),
                Part(self._prepared(circuit, excited=True), observables, _NO_ROWS),
            )
            if len(self._parts) > _KEPT:
                self._parts.popitem(last=False)
        return self._parts[key]

    def _prepared(self, circuit: CompiledCircuit, *, excited: bool) -> CompiledCircuit:
        virtual, wires = QuantumCircuit(circuit.num_qubits), QuantumCircuit(circuit.circuit.num_qubits)
        if excited and self._paulis is not None:
            virtual.x(range(circuit.num_qubits))
            for wire in sorted(circuit.final_layout):
                self._paulis.append(wires, X, wire)
        return CompiledCircuit(
            ansatz=Ansatz(f"readout-{int(excited)}-{circuit.num_qubits}q", virtual, (), ()),
            circuit=wires,
            inputs=(),
            weights=(),
            physical_qubits=circuit.physical_qubits,
            initial_layout=circuit.final_layout,
            final_layout=circuit.final_layout,
            depth=int(wires.depth()),
            two_qubit_gates=0,
            gate_counts={str(name): int(number) for name, number in sorted(wires.count_ops().items())},
        )


_ANY = Undo(1.0, 1.0)
"""Stands for errors that are not known yet: all strings that may be needed."""


@dataclass(frozen=True)
class Measured:
    """Observables with the readout errors that two circuits of the same call measured.

    Attributes:
        parts: The circuit with all strings that are needed, and after them, where values are sampled, the observables
            as the calibration mitigates them; then all qubits in 0 and all in 1, a Z on each.
        terms: Of the observables that were asked for.
        strings: What `parts[0]` measures, one by one.
        qubits: The virtual qubits that have factors.
        names: Theirs, for messages.
        scales: (m,) size of the calibration's weights; None where values are exact.
    """

    parts: tuple[Part, ...]
    terms: tuple[PauliSum, ...]
    strings: tuple[Factors, ...]
    qubits: tuple[int, ...]
    names: tuple[str, ...]
    scales: FloatArray | None

    def combine(self, values: Sequence[torch.Tensor]) -> torch.Tensor:
        """As `types.Expansion`; the measured errors count as constants.

        Raises:
            QrunError: A qubit that was read no better than by a coin.
        """
        main, zeros, ones = values
        constant, weights = self._weights(_row(zeros), _row(ones))
        matrix = torch.as_tensor(weights, dtype=main.dtype, device=main.device)
        return main[:, : len(self.strings)] @ matrix + torch.as_tensor(constant, dtype=main.dtype, device=main.device)

    def spread(self, values: Sequence[FloatArray], errors: Sequence[FloatArray]) -> FloatArray:
        """Of the circuit's own values, by the observables as the calibration mitigates them; and of what was measured.

        The latter by the derivatives with respect to each qubit's Z in 0 and in 1 (delta method).
        """
        main = np.asarray(values[0])[:, : len(self.strings)]
        if self.scales is None:
            return np.zeros((len(main), len(self.terms)))
        z0, z1 = _row(values[1]), _row(values[2])
        _, weights = self._weights(z0, z1)
        sizes = np.sqrt((weights**2).sum(0))
        ratio = np.divide(sizes, self.scales, out=np.ones_like(sizes), where=self.scales > 0.0)
        squares = (np.asarray(errors[0])[:, len(self.strings) :] * ratio) ** 2
        for which, each in enumerate((_row(errors[1]), _row(errors[2]))):
            for qubit in self.qubits:
                if not each[qubit]:
                    continue
                step = np.zeros((2, len(z0)))
                step[which, qubit] = _STEP
                up, down = (self._values(main, z0 + sign * step[0], z1 + sign * step[1]) for sign in (1.0, -1.0))
                squares += ((up - down) / (2.0 * _STEP) * each[qubit]) ** 2
        total: FloatArray = np.sqrt(squares)
        return total

    def _values(self, main: FloatArray, z0: FloatArray, z1: FloatArray) -> FloatArray:
        constant, weights = self._weights(z0, z1)
        return main @ weights + constant

    def _weights(self, z0: FloatArray, z1: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Z of every qubit in 0 and in 1 -> constants (m,), and the weights (strings, m)."""
        undo = {
            qubit: checked((1.0 - float(z0[qubit])) / 2.0, (1.0 + float(z1[qubit])) / 2.0, name, QrunError)
            for qubit, name in zip(self.qubits, self.names, strict=True)
        }
        constant, weights = np.zeros(len(self.terms)), np.zeros((len(self.strings), len(self.terms)))
        number = {string: row for row, string in enumerate(self.strings)}
        for column, terms in enumerate(self.terms):
            for string, weight in undone(terms, undo).items():
                if string:
                    weights[number[string], column] = weight
                else:
                    constant[column] = weight
        return constant, weights


def _qubits(terms: Sequence[PauliSum]) -> tuple[int, ...]:
    """The virtual qubits that have factors, ascending."""
    return tuple(sorted({qubit for each in terms for _, factors in each for qubit, _ in factors}))


def _mitigated(terms: Sequence[PauliSum], undo: dict[int, Undo], circuit: CompiledCircuit) -> tuple[SparsePauliOp, ...]:
    return tuple(as_operator(undone(each, undo), circuit.num_qubits) for each in terms)


def _size(strings: dict[Factors, float]) -> float:
    return float(np.sqrt(sum(weight**2 for string, weight in strings.items() if string)))


def _row(values: torch.Tensor | FloatArray) -> FloatArray:
    """The one row of a part without parameters, (1, n) -> (n,)."""
    plain = values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else values
    row: FloatArray = np.asarray(plain, dtype=np.float64)[0]
    return row
