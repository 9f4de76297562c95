"""From requests to jobs: which rows share a PUB, which PUBs a job, and what the primitives are given.

Requests with the same circuit in one call share a PUB: the Sampler's read every qubit, so that one run answers every
observable; the Estimator's must ask for the same observables too. A job that passes the service's limits is halved
until its parts fit. That rule does not depend on how the limits are found, so that whoever replays a run finds the
parts again without knowing them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.quantum_info import PauliList, SparsePauliOp

from backends.observables import check_requests, pauli_sum, z_strings
from backends.protocol import FloatArray, Request
from backends.runtime.cost import executions
from backends.runtime.digest import circuit_text, free_parameters, observables_text, request_digest
from backends.runtime.types import JobLimits, RuntimeOptions
from backends.target import Target
from circuits.errors import QrunError, UsageError
from circuits.types import CompiledCircuit
from circuits.waiting import without_idle_delays


@dataclass(frozen=True)
class Pub:
    """A circuit, its observables (none for the Sampler) and its parameter values, (rows, len(parameters)), radians."""

    circuit: CompiledCircuit
    observables: tuple[SparsePauliOp, ...]
    values: FloatArray
    text: tuple[str, str]

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Of the columns of `values`."""
        return free_parameters(self.circuit)

    @property
    def rows(self) -> int:
        """Parameter sets."""
        return len(self.values)

    @property
    def bases(self) -> int:
        """Bases that its observables are measured in: groups of Pauli strings that commute qubit by qubit."""
        if not self.observables:
            return 1
        paulis = PauliList([pauli for observable in self.observables for pauli in observable.paulis])
        return len(paulis.group_qubit_wise_commuting())


@dataclass(frozen=True)
class Slice:
    """Rows [start, stop) of a request (by its position in the call) are rows [row, ...) of a PUB of a job."""

    request: int
    start: int
    stop: int
    pub: int
    row: int


@dataclass(frozen=True)
class Part:
    """One job.

    Attributes:
        path: Its place in the call: part of the ledger's key.
        pubs: What it runs.
        slices: Which rows of which requests these are.
        options: With which options.
        seed: Of the call.
        digest: SHA-256, hex, of all that defines its result.
    """

    path: str
    pubs: tuple[Pub, ...]
    slices: tuple[Slice, ...]
    options: RuntimeOptions
    seed: int | None
    digest: str = ""

    @property
    def rows(self) -> int:
        """Parameter sets in all PUBs."""
        return sum(pub.rows for pub in self.pubs)


def check(requests: Sequence[Request], options: RuntimeOptions) -> None:
    """Check requests against what the primitives take.

    Raises:
        UsageError: A wrong shape, a value that is not finite, or an observable with X or Y for the Sampler.
        QrunError: An observable on another number of qubits, or with a coefficient that is no real number.
    """
    check_requests(requests)
    for position, request in enumerate(requests):
        if options.resilience_level is not None and not request.observables:
            raise UsageError(f"request {position} asks for no observable: there is nothing to estimate.")
        for observable in request.observables:
            if options.resilience_level is not None:
                pauli_sum(observable, request.circuit.num_qubits)
                continue
            try:
                z_strings(observable, request.circuit.num_qubits)
            except QrunError as error:
                if not observable.paulis.x.any():
                    raise
                raise UsageError(
                    f"request {position}: {error.message}",
                    "Counts are of Z and I only. Take a resilience level (0, 1 or 2): the Estimator rotates by itself.",
                ) from None


def parts(
    requests: Sequence[Request],
    target: Target,
    options: RuntimeOptions,
    seed: int | None,
    *,
    local: bool,
    limits: JobLimits,
) -> list[Part]:
    """The jobs of a call. Locally each runs on one cut of the device, so that requests on other qubits go in another.

    Locally nothing waits either, so that delays that stand for idle time are left out (`circuits.waiting`).

    Raises:
        UsageError: More shots than the service takes in a job.
    """
    if options.shots > limits.executions:
        raise UsageError(f"{options.shots} shots are more than a job may have ({limits.executions}).", "Take fewer.")
    if local:
        plain = {id(request.circuit): without_idle_delays(request.circuit) for request in requests}
        requests = [replace(request, circuit=plain[id(request.circuit)]) for request in requests]
    devices: dict[tuple[int, ...], list[int]] = {}
    for position, request in enumerate(requests):
        if len(request.inputs):
            devices.setdefault(request.circuit.physical_qubits if local else (), []).append(position)
    found: list[Part] = []
    for number, positions in enumerate(devices.values()):
        whole = _whole(str(number), [(position, requests[position]) for position in positions], options, seed)
        found += _fit(_signed(whole, target, local), target, local, limits)
    return found


def halves(part: Part, target: Target, *, local: bool) -> tuple[Part, Part] | None:
    """A job in two with half of its rows each (the first has the odd one); None where it has one row only."""
    if part.rows < 2:
        return None
    middle = (part.rows + 1) // 2
    return (
        _signed(_cut(part, 0, middle, f"{part.path}.0"), target, local),
        _signed(_cut(part, middle, part.rows, f"{part.path}.1"), target, local),
    )


def _executions(part: Part) -> int:
    """Shots of all circuits of a job."""
    return sum(pub.rows * pub.bases for pub in part.pubs) * executions(part.options)


def _fit(part: Part, target: Target, local: bool, limits: JobLimits) -> list[Part]:
    if part.rows <= limits.circuits and _executions(part) <= limits.executions:
        return [part]
    two = halves(part, target, local=local)
    if two is None:
        return [part]  # one row cannot be split; the service says whether it takes it
    return [piece for half in two for piece in _fit(half, target, local, limits)]


def _whole(path: str, requests: Sequence[tuple[int, Request]], options: RuntimeOptions, seed: int | None) -> Part:
    """All requests as one job."""
    texts: dict[int, str] = {}  # of circuits that are the same object
    order: dict[Any, int] = {}
    rows: list[list[FloatArray]] = []
    first: list[tuple[Request, tuple[str, str]]] = []
    slices: list[Slice] = []
    for position, request in requests:
        text = texts.setdefault(id(request.circuit), "") or circuit_text(request.circuit)
        texts[id(request.circuit)] = text
        observed = "" if options.resilience_level is None else observables_text(request.observables)
        values = _values(request)
        # A PUB without parameters has no rows: each sample is a PUB of its own.
        chunks = [values] if values.shape[1] else [values[row : row + 1] for row in range(len(values))]
        start = 0
        for chunk in chunks:
            key = (text, observed) if values.shape[1] else (text, observed, position, start)
            pub = order.setdefault(key, len(order))
            if pub == len(rows):
                rows.append([])
                first.append((request, (text, observed)))
            row = sum(map(len, rows[pub]))
            rows[pub].append(chunk)
            slices.append(Slice(position, start, start + len(chunk), pub, row))
            start += len(chunk)
    pubs = tuple(
        Pub(
            request.circuit,
            () if options.resilience_level is None else request.observables,
            np.concatenate(chunk),
            text,
        )
        for (request, text), chunk in zip(first, rows, strict=True)
    )
    return Part(path, pubs, tuple(slices), options, seed)


def _values(request: Request) -> FloatArray:
    """(batch, free parameters), in the order of `free_parameters`."""
    circuit, batch = request.circuit, len(request.inputs)
    weights = np.broadcast_to(request.weights, (batch, len(circuit.weights)))
    everything = np.concatenate([request.inputs, weights], axis=1).astype(np.float64)
    free = set(free_parameters(circuit))
    kept = [column for column, p in enumerate((*circuit.inputs, *circuit.weights)) if p in free]
    return np.ascontiguousarray(everything[:, kept])


def _cut(part: Part, start: int, stop: int, path: str) -> Part:
    """The rows [start, stop) of a job, counted over its PUBs in order."""
    pubs: list[Pub] = []
    moved: dict[int, tuple[int, int, int]] = {}  # PUB -> its new number, and which of its rows stay
    offset = 0
    for number, pub in enumerate(part.pubs):
        low, high = max(start - offset, 0), min(stop - offset, pub.rows)
        offset += pub.rows
        if low < high:
            moved[number] = (len(pubs), low, high)
            pubs.append(Pub(pub.circuit, pub.observables, pub.values[low:high], pub.text))
    slices = []
    for piece in part.slices:
        if piece.pub in moved:
            number, low, high = moved[piece.pub]
            a, b = max(piece.row, low), min(piece.row + piece.stop - piece.start, high)
            if a < b:
                begin = piece.start + a - piece.row
                slices.append(Slice(piece.request, begin, begin + b - a, number, a - low))
    return Part(path, tuple(pubs), tuple(slices), part.options, part.seed)


def _signed(part: Part, target: Target, local: bool) -> Part:
    texts = [(*pub.text, pub.values) for pub in part.pubs]
    digest = request_digest(target, part.options, part.seed, local=local, path=part.path, pubs=texts)
    return replace(part, digest=digest)


def placed(pub: Pub, wires: Sequence[int], width: int) -> tuple[QuantumCircuit, list[SparsePauliOp] | None]:
    """A PUB's circuit (measured, for the Sampler) and observables on a device.

    Args:
        pub: What to run.
        wires: Where wire w of the compiled circuit goes.
        width: Qubits of the device.
    """
    compiled = pub.circuit
    reads = [wires[wire] for wire in compiled.final_layout]
    if pub.observables:
        circuit = QuantumCircuit(width)
        circuit.compose(compiled.circuit, qubits=list(wires), inplace=True)
        return circuit, [observable.apply_layout(reads, width) for observable in pub.observables]
    circuit = QuantumCircuit(width, compiled.num_qubits)
    circuit.compose(compiled.circuit, qubits=list(wires), inplace=True)
    circuit.measure(reads, range(compiled.num_qubits))
    return circuit, None
