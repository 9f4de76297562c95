"""What an engine has read: programs by circuit, and jobs by circuit and observables."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from qiskit.quantum_info import SparsePauliOp

from backends.observables import PauliSum, pauli_sum
from backends.target import Target
from backends.twin.channels import Channels
from backends.twin.heisenberg.evaluate import Heisenberg, plans_for
from backends.twin.heisenberg.jacobian import Jacobian
from backends.twin.heisenberg.plan import Plan
from backends.twin.paths import Path, choose
from backends.twin.program import Program, build_program
from backends.twin.schedule import with_delays
from circuits.errors import UsageError
from circuits.types import CompiledCircuit

_CIRCUITS, _JOBS = 64, 64
"""How many programs, and programs with observables, are kept."""


@dataclass
class Job:
    """A circuit with observables, read once, and what was made of it.

    `fits` is the largest batch that was found to fit into memory.
    """

    circuit: CompiledCircuit
    sums: tuple[PauliSum, ...]
    program: Program
    plans: tuple[Plan, ...]
    owners: tuple[int, ...]
    forced: str
    kernel: Heisenberg | None = None
    jacobian: Jacobian | None = None
    fits: int = -1
    paths: dict[tuple[int, int], Path] = field(default_factory=dict)

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
        self._programs: OrderedDict[int, tuple[CompiledCircuit, Program]] = OrderedDict()
        self._same: OrderedDict[tuple[int, int], tuple[tuple[SparsePauliOp, ...], Job]] = OrderedDict()
        self._alike: OrderedDict[tuple[int, tuple[PauliSum, ...]], Job] = OrderedDict()

    def program(self, circuit: CompiledCircuit) -> Program:
        """The circuit as a program, with the device's noise."""
        known = self._programs.get(id(circuit))
        if known is None:
            backend = self._target.backend
            whole = None if backend is None else backend.target
            scheduled = with_delays(circuit, whole) if self._idle_noise and whole is not None else circuit
            channels = Channels(whole, circuit.physical_qubits)
            known = circuit, build_program(scheduled, channels, readout_error=self._readout_error)
            keep(self._programs, id(circuit), known, _CIRCUITS)
        return known[1]

    def job(self, circuit: CompiledCircuit, observables: Sequence[SparsePauliOp]) -> Job:
        """The circuit with the observables.

        A tuple that comes again is known by its identity, for reading it takes longer than a small step; any other
        sequence by what it says.

        Raises:
            UsageError: No observables, or something else in their place.
        """
        key = (id(circuit), id(observables))
        known = self._same.get(key)
        if known is not None:
            self._same.move_to_end(key)
            return known[1]
        if isinstance(observables, SparsePauliOp) or not all(isinstance(o, SparsePauliOp) for o in observables):
            raise UsageError("observables are a tuple of SparsePauliOp.", "For a single one, give a tuple of it.")
        if not observables:
            raise UsageError("a request has no observables.", "Give at least one, for example single_z(qubits).")
        sums = tuple(pauli_sum(observable, circuit.num_qubits) for observable in observables)
        job = self._alike.get((id(circuit), sums))
        if job is None:
            program = self.program(circuit)
            job = Job(circuit, sums, program, *plans_for(program, sums), self._forced)
            keep(self._alike, (id(circuit), sums), job, _JOBS)
        else:
            self._alike.move_to_end((id(circuit), sums))
        if isinstance(observables, tuple):
            keep(self._same, key, (observables, job), _JOBS)
        return job

    def all(self) -> list[Job]:
        """The jobs that are known, the oldest first."""
        return list(self._alike.values())

    def clear(self) -> None:
        """Forget all."""
        for cache in (self._programs, self._same, self._alike):
            cache.clear()


def keep(cache: OrderedDict[Any, Any], key: Any, value: Any, most: int) -> None:
    """Add to a cache that holds so many; what was longest unused goes first."""
    cache[key] = value
    if len(cache) > most:
        cache.popitem(last=False)
