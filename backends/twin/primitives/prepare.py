"""An ISA circuit made ready for the twin: what the primitives, the gradient and the module share."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import Gate, Instruction, Parameter
from qiskit.exceptions import QiskitError
from qiskit.primitives.containers.observables_array import ObservablesArray
from qiskit.providers import BackendV2
from qiskit.quantum_info import SparseObservable, SparsePauliOp

from backends.protocol import FloatArray
from backends.target import Target
from backends.twin.instructions import unitary_of
from backends.twin.primitives.angles import Angles, straighten
from backends.twin.primitives.isa import check_isa, from_isa, leading_parameters, parameters_of
from circuits.errors import UsageError
from circuits.types import CompiledCircuit

_KEPT = 64
"""How many prepared circuits, and sets of observables of each, are kept."""

SparseTerms = tuple[tuple[str, tuple[int, ...], float], ...]
"""An observable as (Pauli letters, the qubits that they stand on, coefficient)."""


@dataclass(frozen=True)
class Prepared:
    """A circuit as the engine runs it.

    Attributes:
        compiled: On the qubits in use; `from_isa` says which.
        wires: Physical qubit -> virtual qubit of `compiled`, for those with a gate and those that are read.
        angles: From the circuit's parameters, in its order, to inputs and weights of `compiled`.
    """

    compiled: CompiledCircuit
    wires: dict[int, int]
    angles: Angles
    _observables: OrderedDict[tuple[SparseTerms, ...], tuple[SparsePauliOp, ...]] = field(
        default_factory=OrderedDict, compare=False, repr=False
    )

    def split(self, rows: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(batch, P) values of the circuit's parameters -> inputs (batch, n_inputs) and the engine's weights.

        The weights have shape (n_weights,) where they are the same in all rows, else (batch, n_weights).
        """
        values = self.angles.values(rows)
        inputs, weights = np.split(values, [len(self.compiled.inputs)], axis=1)
        alike = len(weights) == 0 or bool((weights == weights[:1]).all())
        single = weights[0] if len(weights) else np.zeros(weights.shape[1])
        return np.ascontiguousarray(inputs), np.ascontiguousarray(single if alike else weights)

    def observables(self, wanted: tuple[SparseTerms, ...]) -> tuple[SparsePauliOp, ...]:
        """Observables on the device's qubits, on the wires; the same tuple each time, which the engine knows again."""
        known = self._observables.get(wanted)
        if known is None:
            known = self._observables[wanted] = tuple(self._on_wires(terms) for terms in wanted)
            if len(self._observables) > _KEPT:
                self._observables.popitem(last=False)
        self._observables.move_to_end(wanted)
        return known

    def _on_wires(self, terms: SparseTerms) -> SparsePauliOp:
        placed = [(letters, [self.wires[q] for q in where], c) for letters, where, c in terms]
        return SparsePauliOp.from_sparse_list(placed, num_qubits=len(self.wires))


class Preparer:
    """Prepares circuits for a target, each once: circuits with the same gates on the same qubits are one."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._start()

    def _start(self) -> None:
        self._known: OrderedDict[Hashable, Prepared] = OrderedDict()
        self._lock = threading.Lock()  # jobs run in threads of their own

    def __getstate__(self) -> dict[str, Any]:
        """A copy knows the target, and starts afresh."""
        return {"target": self.target}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.target = state["target"]
        self._start()

    def prepare(
        self, circuit: QuantumCircuit, qubits: Iterable[int] = (), inputs: Sequence[Parameter] | None = None
    ) -> Prepared:
        """Check, renumber and straighten a circuit.

        Args:
            circuit: An ISA circuit on the device's physical qubits.
            qubits: Physical qubits that are read, to be kept even without a gate.
            inputs: Parameters that vary within a batch; by default those that the engine can vary at little cost.

        Raises:
            UsageError: A circuit that is not in the device's gates, or has more than gates and final measurements.
        """
        read = tuple(sorted(set(qubits)))
        key = (fingerprint(circuit), read, None if inputs is None else tuple(inputs))
        with self._lock:
            known = self._known.get(key)
            if known is None:
                known = self._known[key] = self._prepare(circuit, read, inputs)
                if len(self._known) > _KEPT:
                    self._known.popitem(last=False)
            self._known.move_to_end(key)
        return known

    def _prepare(
        self, circuit: QuantumCircuit, qubits: tuple[int, ...], inputs: Sequence[Parameter] | None
    ) -> Prepared:
        check_isa(circuit, self.target)
        straight, stands = straighten(circuit)
        first: Iterable[Parameter] = leading_parameters(straight)
        if inputs is not None:
            # An angle that reads an input varies with it.
            varying = set(inputs)
            used = {p for i in straight.data for value in i.operation.params for p in getattr(value, "parameters", ())}
            first = [p for p in straight.parameters if p in used and not varying.isdisjoint(_reads(p, stands))]
        compiled = from_isa(straight, first, qubits=qubits)
        qubits_of = compiled.physical_qubits
        wires = {qubits_of[wire]: virtual for virtual, wire in enumerate(compiled.final_layout)}
        return Prepared(
            compiled,
            wires,
            Angles(tuple(circuit.parameters), (*compiled.inputs, *compiled.weights), stands),
        )


def _reads(parameter: Parameter, stands: dict[Parameter, Any]) -> set[Parameter]:
    return set(stands[parameter].parameters) if parameter in stands else {parameter}


def fingerprint(circuit: QuantumCircuit) -> Hashable:
    """What a circuit does, as a key: circuits can change after they were run, so that their id would not do."""
    index = {bit: number for number, bit in enumerate((*circuit.qubits, *circuit.clbits))}
    gates = []
    for instruction in circuit.data:
        where = tuple(index[bit] for bit in (*instruction.qubits, *instruction.clbits))
        what = tuple(instruction.params) if instruction.is_standard_gate() else _kind(instruction.operation)
        gates.append((instruction.name, where, what))
    # The parameters are named beside the gates: one in the global phase alone is a column of the values, too.
    return circuit.num_qubits, circuit.num_clbits, tuple(circuit.parameters), tuple(gates)


def _kind(operation: Instruction) -> Hashable:
    """What the name of an operation leaves open, for all but qiskit's standard gates.

    Gates as the engine runs them are their unitary: names and values need not say it all (those of a controlled gate
    leave out what it controls). What has free parameters, or is on more qubits, the engine refuses; it is told apart
    by its type, its values, what it is made of, and a delay's unit.

    Raises:
        QrunError: A gate without a matrix or a definition.
    """
    if isinstance(operation, Gate) and operation.num_qubits <= 2 and not parameters_of(operation):
        return unitary_of(operation).tobytes()
    values = tuple(_value(value) for value in operation.params)
    made_of = None if operation.definition is None else fingerprint(operation.definition)
    return type(operation), values, made_of, getattr(operation, "unit", None)


def _value(value: Any) -> Hashable:
    if isinstance(value, np.ndarray):
        return value.shape, value.tobytes()
    if isinstance(value, QuantumCircuit):  # the body of a loop
        return fingerprint(value)
    hashable: Hashable = value
    return hashable


def as_target(backend: BackendV2 | Target) -> Target:
    """The target of a device.

    Raises:
        UsageError: Something else was given.
    """
    if isinstance(backend, Target):
        return backend
    if isinstance(backend, BackendV2):
        return Target.of_backend(backend)
    raise UsageError(
        f"the twin is made from a device (a qiskit BackendV2), not from {type(backend).__name__} {backend!r:.60}.",
        "Give one, for example qiskit_ibm_runtime.fake_provider.FakeKyiv(), or qrun.get_target(name).",
    )


def as_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """torch.float32 or torch.float64 from it or its name.

    Raises:
        UsageError: Another one.
    """
    known = {"float32": torch.float32, "float64": torch.float64}
    found = known.get(dtype) if isinstance(dtype, str) else dtype
    if found not in known.values():
        raise UsageError(f"unknown dtype {dtype!r}.", "Known: float32, float64.")
    assert found is not None
    return found


def as_flag(name: str, value: object) -> bool:
    """A bool that was given as an option: 'no' is no False.

    Raises:
        UsageError: Something else was given.
    """
    if not isinstance(value, bool | np.bool_):
        raise UsageError(f"{name} must be True or False, not {value!r}.")
    return bool(value)


def sparse_terms(observable: SparseObservable) -> SparseTerms:
    """A SparseObservable's Pauli terms; projectors are written out as Paulis."""
    return tuple(
        (str(letters), tuple(int(qubit) for qubit in where), float(np.real(coefficient)))
        for letters, where, coefficient in observable.as_paulis().simplify().to_sparse_list()
    )


def terms_of(observable: Any) -> SparseTerms:
    """`sparse_terms` of whatever qiskit's primitives take as one observable.

    Raises:
        UsageError: They do not take it; with their reason.
    """
    return sparse_terms(as_observable(observable))


def as_observable(observable: Any) -> SparseObservable:
    """What qiskit's primitives take as one observable, in the form that they give it.

    Raises:
        UsageError: They do not take it; with their reason.
    """
    try:
        return ObservablesArray.coerce_observable(observable)
    except (TypeError, ValueError, QiskitError) as error:
        raise UsageError(
            f"{observable!r:.60} is no observable: {str(error).rstrip('.')}.",
            "Take a SparsePauliOp with real coefficients, a Pauli, or a string such as 'ZZI'.",
        ) from None


def support(observables: Iterable[SparseTerms]) -> set[int]:
    """The qubits that observables read."""
    return {qubit for terms in observables for _, where, _ in terms for qubit in where}
