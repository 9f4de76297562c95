"""When every gate happens: a compiled circuit with a delay wherever a qubit waits.

Qubits decohere while they wait, and a circuit as it is compiled does not say how long that is. Here qiskit's own
scheduler places every gate as late as possible (a qubit that is still in |0> loses nothing by waiting) and the gaps
become explicit delays, which `program` turns into thermal relaxation. All qubits are measured together at the end.
"""

from __future__ import annotations

import warnings
from dataclasses import replace

from qiskit import QuantumCircuit
from qiskit.circuit import Delay, Instruction, Parameter
from qiskit.transpiler import PassManager, TranspilerError
from qiskit.transpiler import Target as QiskitTarget
from qiskit.transpiler.passes import ALAPScheduleAnalysis, PadDelay, TimeUnitConversion

from backends.twin.channels import describe_gate, gate_entries
from backends.twin.instructions import check_instruction
from circuits.errors import QrunError
from circuits.targets import copy_target
from circuits.types import CompiledCircuit


def with_delays(compiled: CompiledCircuit, target: QiskitTarget) -> CompiledCircuit:
    """Schedule a compiled circuit as late as possible, and write the waiting down as delays.

    Gate lengths are the calibration's, rounded to whole dt where the device has a dt; then the delays are in dt, else
    in seconds. Delays that the circuit has already stay, and what waits beside them waits as long. Depth and counts
    are still those of the compiled circuit.

    Args:
        compiled: Compiled for this device.
        target: The qiskit Target of the whole device.

    Raises:
        QrunError: An instruction that the twin cannot run, a gate that the device does not have there, or one whose
            length the calibration does not say.
    """
    source = compiled.circuit
    circuit = QuantumCircuit(source.num_qubits, global_phase=source.global_phase)
    for instruction in source.data:
        wires = tuple(source.find_bit(qubit).index for qubit in instruction.qubits)
        check_instruction(instruction.operation, wires)
        _check_length(instruction.operation, tuple(compiled.physical_qubits[wire] for wire in wires), target)
        circuit.append(instruction.operation, wires)
    cut = copy_target(target, qubits=compiled.physical_qubits)
    if "delay" not in cut.operation_names:  # the scheduler pads no qubit that cannot wait
        cut.add_instruction(Delay(Parameter("t")), None)
    passes = PassManager([TimeUnitConversion(target=cut), ALAPScheduleAnalysis(target=cut), PadDelay(target=cut)])
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Duration is rounded")
            scheduled = passes.run(circuit)
    except TranspilerError as error:
        raise QrunError(
            f"the circuit cannot be scheduled on these qubits: {str(error.message).splitlines()[0]}",
            "Leave idle noise out, or give delays that this device can time.",
        ) from None
    return replace(compiled, circuit=scheduled)


def _check_length(operation: Instruction, qubits: tuple[int, ...], target: QiskitTarget) -> None:
    if operation.name == "barrier" or isinstance(operation, Delay):
        return
    entries = gate_entries(target, operation.name, qubits)
    properties = None if entries is None else entries[qubits]
    if properties is None or properties.duration is None:
        raise QrunError(
            f"idle noise needs the length of every gate, and the calibration has none for "
            f"{describe_gate(operation.name, qubits)}.",
            "Leave idle noise out, or choose other qubits.",
        )
