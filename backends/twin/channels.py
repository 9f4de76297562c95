"""The noise of a device's gates, from the calibration of the qubits in use.

What Aer's `NoiseModel.from_backend` has (gate and readout errors, zero temperature, no idle noise), written down
directly: the noise after a gate is a depolarising channel and then thermal relaxation of every qubit for the gate's
length, with the depolarising strength chosen so that the two together have the reported gate error e = 1 - F:

    p = d (e - e_relax) / (d F_relax - 1),   e_relax = 1 - F_relax,   d = 2^k,

capped at the largest p that is a channel, 4^k / (4^k - 1); none where relaxation alone already exceeds e.
"""

from __future__ import annotations

from collections.abc import Sequence

from qiskit.circuit import Gate
from qiskit.transpiler import Target as QiskitTarget

from backends.target import readout_errors
from backends.twin.pauli import Array, average_infidelity, depolarising, product, thermal_relaxation
from circuits.errors import QrunError


class Channels:
    """The noise channels of some physical qubits, by wire.

    Args:
        target: The device's qiskit Target; None for no noise at all.
        physical_qubits: Wire w is the device's qubit `physical_qubits[w]`.
    """

    def __init__(self, target: QiskitTarget | None, physical_qubits: Sequence[int]) -> None:
        self._target = target
        self._physical = tuple(physical_qubits)
        self._known: dict[tuple[str, tuple[int, ...]], Array | None] = {}

    def after(self, name: str, wires: tuple[int, ...]) -> Array | None:
        """The PTM of the noise that follows the gate `name` on `wires` (first wire first); None where there is none.

        Raises:
            QrunError: The device has no such gate on these qubits, or not in this direction.
        """
        if self._target is None:
            return None
        key = (name, wires)
        if key not in self._known:
            self._known[key] = _noise(self._target, name, tuple(self._physical[wire] for wire in wires))
        return self._known[key]

    def readout(self, wire: int) -> tuple[float, float]:
        """(P(read 1 | prepared 0), P(read 0 | prepared 1)) of a wire."""
        return (0.0, 0.0) if self._target is None else readout_errors(self._target, self._physical[wire])


def _noise(target: QiskitTarget, name: str, qubits: tuple[int, ...]) -> Array | None:
    entries = target[name] if name in target.operation_names else {}
    if entries is None or None in entries:
        return None  # a gate that the device has everywhere, without errors
    if qubits not in entries:
        raise QrunError(
            f"the device has no gate {name} on qubits {', '.join(map(str, qubits))}.",
            "Compile the circuit for this device first (circuits.compile.compile_ansatz); two-qubit gates have a "
            "direction.",
        )
    properties = entries[qubits]
    if properties is None:
        return None
    relaxation: Array | None = None
    if properties.duration and target.qubit_properties:
        of_qubit = [target.qubit_properties[qubit] for qubit in qubits]
        relaxation = product([thermal_relaxation(properties.duration, q.t1, q.t2) for q in of_qubit])
    depolarisation: Array | None = None
    if properties.error and isinstance(target.operation_from_name(name), Gate):
        depolarisation = _depolarising_for(float(properties.error), len(qubits), relaxation)
    if relaxation is None or depolarisation is None:
        return depolarisation if relaxation is None else relaxation
    return relaxation @ depolarisation


def _depolarising_for(error: float, qubits: int, relaxation: Array | None) -> Array | None:
    lost = 0.0 if relaxation is None else average_infidelity(relaxation)
    if error <= lost:
        return None
    dimension = 2**qubits
    error = min(error, dimension / (dimension + 1))  # beyond that no channel has it
    parameter = dimension * (error - lost) / (dimension * (1.0 - lost) - 1.0)
    return depolarising(min(parameter, 4**qubits / (4**qubits - 1)), qubits)
