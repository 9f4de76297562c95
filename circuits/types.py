"""The types that pass between the packages: an ansatz before, a compiled circuit after the compiler."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from qiskit import QuantumCircuit
from qiskit.circuit import Parameter


@dataclass(frozen=True)
class Ansatz:
    """A parametrised circuit on `circuit.num_qubits` virtual qubits, without measurements.

    `inputs` are bound per sample (the latent z), `weights` per step; together they are all parameters of `circuit`,
    and their order is the order of the columns of every array that goes with it. Where it is made of repetitions,
    `reps` is their number, and `with_reps` makes the same ansatz with another one.
    """

    name: str
    circuit: QuantumCircuit
    inputs: tuple[Parameter, ...]
    weights: tuple[Parameter, ...]
    reps: int | None = None
    with_reps: Callable[[int], Ansatz] | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class CompiledCircuit:
    """An ISA circuit, renumbered onto the qubits in use.

    `circuit` has `k = len(physical_qubits)` wires in the device's native gates; wire w stands for the device's qubit
    `physical_qubits[w]` (ascending). `initial_layout[v]` and `final_layout[v]` are the wires that virtual qubit v
    starts from and ends on (they differ where the router put SWAPs); observables are given on virtual qubits and laid
    out through `final_layout`. k may exceed the number of virtual qubits where routing went through others.

    `idle_delays` says that the circuit's delays write down waiting that is there without them, as where dynamical
    decoupling fills it with pulses: they count where idle noise does (`circuits.waiting`).
    """

    ansatz: Ansatz
    circuit: QuantumCircuit
    inputs: tuple[Parameter, ...]
    weights: tuple[Parameter, ...]
    physical_qubits: tuple[int, ...]
    initial_layout: tuple[int, ...]
    final_layout: tuple[int, ...]
    depth: int
    two_qubit_gates: int
    gate_counts: dict[str, int]
    idle_delays: bool = False

    @property
    def num_qubits(self) -> int:
        """Virtual qubits, those that observables speak of."""
        return self.ansatz.circuit.num_qubits
