"""The echo of a compiled circuit: forth and back again, so that all that is missing at the end is what noise took.

Without noise the circuit followed by its inverse leaves every qubit in |0>: <Z_i> = 1 whatever the parameters (a
Loschmidt echo). Under noise the share of qubits that are found in 1 is an error of the compiled circuit that a device
measures by itself, without a simulation of what would have been right; mirror circuits (T. Proctor et al., Nat. Phys.
18, 75 (2022)) rest on the same. It depends on the angles, unlike the product of the gates' fidelities: a qubit in |1>
decays and one in |0> does not, and an error counts as far as the state feels it.

Most of it no angle changes. As a term of the generator's loss with the weights 5 and 50, it fell by a tenth and a fifth
on the twin of fake_kyiv with 4 qubits, on that of fake_torino by under 1 % and by 3 % (five seeds, on the official
data). A gain in detection is not shown: of the differences in hold-out AUROC from W = 0, the largest upwards is 0.005,
at W = 50 on fake_kyiv, with a standard error of 0.002, and others point down (tests/benchmarks/noise_aware.py).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from qiskit import QuantumCircuit
from qiskit.circuit import Gate
from qiskit.quantum_info import SparsePauliOp

from circuits.inverse import append_inverse
from circuits.types import CompiledCircuit

if TYPE_CHECKING:
    import torch


def echo(compiled: CompiledCircuit) -> CompiledCircuit:
    """The circuit and then its inverse in native gates, as many and as noisy; it ends where it started.

    Inputs, weights and physical qubits are those of `compiled`; every parameter stands in it twice as often, with
    opposite signs. A barrier in the middle keeps a compiler from cancelling the two halves.

    Raises:
        QrunError: A gate that has no inverse among the device's own.
    """
    forth = compiled.circuit
    circuit = QuantumCircuit(forth.num_qubits)
    wires = [[forth.find_bit(qubit).index for qubit in instruction.qubits] for instruction in forth.data]
    for instruction, where in zip(forth.data, wires, strict=True):
        circuit.append(instruction.operation, where)
    circuit.barrier()
    for instruction, where in reversed(list(zip(forth.data, wires, strict=True))):
        append_inverse(circuit, instruction, where)
    return replace(
        compiled,
        circuit=circuit,
        final_layout=compiled.initial_layout,
        depth=int(circuit.depth()),
        two_qubit_gates=sum(1 for i in circuit.data if isinstance(i.operation, Gate) and len(i.qubits) == 2),
        gate_counts={str(name): int(number) for name, number in sorted(circuit.count_ops().items())},
    )


def echo_observables(qubits: int) -> tuple[SparsePauliOp]:
    """The one observable of an echo: the mean of all Z_i."""
    strings = [("Z", [qubit], 1.0 / qubits) for qubit in range(qubits)]
    return (SparsePauliOp.from_sparse_list(strings, num_qubits=qubits),)


def infidelity(mean_z: torch.Tensor) -> torch.Tensor:
    """Expected infidelity of one pass, () from the echo's mean <Z_i>, (batch, 1).

    The chance that a qubit of the echo is found in 1 is E_z mean_i (1 - <Z_i>) / 2. The echo has the noise of two
    passes; to first order in the errors they share it alike, so that one pass has half of it. That is a local figure
    (per qubit, as a feature is), and contains half of a readout error, which does not depend on the angles.
    """
    return ((1.0 - mean_z) / 4.0).mean()
