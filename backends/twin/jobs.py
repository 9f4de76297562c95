"""What an engine has read: programs by circuit, and jobs by circuit and observables."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from qiskit.quantum_info import SparsePauliOp

from backends.observables import PauliSum, pauli_sum
from backends.target import Target
from backends.twin.build import build_program
from backends.twin.cache import Cache
from backends.twin.channels import Channels
from backends.twin.heisenberg.evaluate import Heisenberg, plans_for
from backends.twin.heisenberg.jacobian import Jacobian
from backends.twin.heisenberg.plan import Plan
from backends.twin.heisenberg.walk import Itinerary
from backends.twin.paths import Path, choose
from backends.twin.pauli import Array
from backends.twin.program import Program
from backends.twin.schedule import with_delays
from circuits.errors import UsageError
from circuits.types import CompiledCircuit
from circuits.waiting import without_idle_delays

_CIRCUITS, _JOBS = 2**28, 2**29
"""Bytes of programs, and of programs with observables, that are kept: some hundreds of circuits on ten qubits."""

_SAME = 4096
"""How many tuples of observables are known by their identity; that takes next to nothing."""

_GATE = 256
"""Bytes of a gate in a circuit that is kept."""

KERNEL = 4
"""What evaluates a program takes so many times its memory: rotations are three matrices, blocks stand there twice."""


@dataclass
class Walks:
    """How a set of observables is walked back through all programs of one shape.

    Folded, twirled and otherwise varied circuits have the shape of the one that they are made of: plans, and the
    workspaces of their walks, are shared by all of them.
    """

    plans: tuple[Plan, ...]
    owners: tuple[int, ...]
    itineraries: list[Itinerary] = field(default_factory=list)


@dataclass
class Job:
    """A circuit with observables, read once, and what was made of it.

    `fits` is the largest batch that was found to fit into memory.
    """

    circuit: CompiledCircuit
    sums: tuple[PauliSum, ...]
    program: Program
    walks: Walks
    forced: str
    kernel: Heisenberg | None = None
    jacobian: Jacobian | None = None
    fits: int = -1
    paths: dict[tuple[int, int], Path] = field(default_factory=dict)

    @property
    def plans(self) -> tuple[Plan, ...]:
        """Of the walks."""
        return self.walks.plans

    def path(self, batch: int, weight_vectors: int) -> Path:
        """The way for so many samples and different weight vectors."""
        key = (batch, weight_vectors)
        if key not in self.paths:
            self.paths[key] = choose(
                self.program, self.plans, batch, weight_vectors, observables=len(self.sums), forced=self.forced
            )
        return self.paths[key]


class Jobs:
    """Reads circuits and observables once. Neither may be changed afterwards.

    Args:
        target: Where the circuits run.
        readout_error, idle_noise: As `TwinExecutor` has them.
        forced: The path that was asked for, "auto" for none.
    """

    def __init__(self, target: Target, *, readout_error: bool, idle_noise: bool, forced: str) -> None:
        self._target, self._readout_error, self._idle_noise, self._forced = target, readout_error, idle_noise, forced
        # By identity; what has it is kept beside, so that it stays its own.
        self._programs: Cache[tuple[CompiledCircuit, Program]] = Cache(_CIRCUITS)
        self._alike: Cache[Job] = Cache(_JOBS)
        self._same: OrderedDict[tuple[int, int], tuple[tuple[SparsePauliOp, ...], weakref.ref[Job]]] = OrderedDict()
        self._walks: weakref.WeakValueDictionary[tuple[object, ...], Walks] = weakref.WeakValueDictionary()
        # Noise hangs on the qubits, not on the circuit: what is read of the calibration serves all circuits on them.
        self._channels: dict[tuple[int, ...], Channels] = {}
        self._unitaries: dict[str, Array] = {}

    def program(self, circuit: CompiledCircuit) -> Program:
        """The circuit as a program, with the device's noise."""
        known = self._programs.get(id(circuit))
        if known is not None:
            return known[1]
        backend = self._target.backend
        whole = None if backend is None else backend.target
        if self._idle_noise and whole is not None:
            scheduled = with_delays(circuit, whole)
        else:
            scheduled = without_idle_delays(circuit)
        channels = self._channels.get(circuit.physical_qubits)
        if channels is None:
            channels = self._channels[circuit.physical_qubits] = Channels(whole, circuit.physical_qubits)
        program = build_program(scheduled, channels, readout_error=self._readout_error, unitaries=self._unitaries)
        self._programs.put(id(circuit), (circuit, program), program.nbytes + _GATE * len(circuit.circuit.data))
        return program

    def job(self, circuit: CompiledCircuit, observables: Sequence[SparsePauliOp]) -> Job:
        """The circuit with the observables.

        A tuple that comes again is known by its identity, for reading it takes longer than a small step; any other
        sequence by what it says.

        Raises:
            UsageError: No observables, or something else in their place.
        """
        key = (id(circuit), id(observables))
        known = self._same.get(key)
        job = None if known is None else known[1]()
        if job is not None:
            self._same.move_to_end(key)
            self._alike.get((id(circuit), id(job.walks)))
            return job
        if isinstance(observables, SparsePauliOp) or not all(isinstance(o, SparsePauliOp) for o in observables):
            raise UsageError("observables are a tuple of SparsePauliOp.", "For a single one, give a tuple of it.")
        if not observables:
            raise UsageError("a request has no observables.", "Give at least one, for example single_z(qubits).")
        sums = tuple(pauli_sum(observable, circuit.num_qubits) for observable in observables)
        program = self.program(circuit)
        walks = self._walks_of(program, sums)
        job = self._alike.get((id(circuit), id(walks)))
        if job is None:
            job = Job(circuit, sums, program, walks, self._forced)
            size = KERNEL * program.nbytes + _GATE * len(circuit.circuit.data)
            self._alike.put((id(circuit), id(walks)), job, size)
        if isinstance(observables, tuple):
            self._same[key] = observables, weakref.ref(job)
            if len(self._same) > _SAME:
                self._same.popitem(last=False)
        return job

    def _walks_of(self, program: Program, sums: tuple[PauliSum, ...]) -> Walks:
        key = (program.shape, sums)
        walks = self._walks.get(key)
        if walks is None:
            walks = self._walks[key] = Walks(*plans_for(program, sums))
        return walks

    def all(self) -> list[Job]:
        """The jobs that are known, the oldest first."""
        return self._alike.values()

    def clear(self) -> None:
        """Forget all."""
        self._programs.clear()
        self._alike.clear()
        self._same.clear()
        self._channels.clear()
