"""Qubits that no gate joins to others, all parameter sets at once: one density matrix each.

The Runtime's Estimator reads every qubit of the device, and turns each of them at random: on 127 qubits no simulator of
the whole would do. The errors are those of Aer's noise model of the device.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from backends.runtime.standin.devices import device

if TYPE_CHECKING:
    from qiskit import QuantumCircuit

GATES = frozenset({"rz", "sx", "x", "id", "delay", "measure"})
"""What such a qubit may have on it; `measure` once, at the end."""
Floats = npt.NDArray[np.float64]
Complexes = npt.NDArray[np.complex128]


@dataclass(frozen=True)
class Errors:
    """What a qubit suffers.

    Attributes:
        gates: Superoperators (4, 4) of gates with their errors, on column-stacked density matrices.
        model: Aer's noise model of this qubit alone.
        read: P(1 | 0) and P(1 | 1).
        dt: Seconds of a unit of time.
    """

    gates: dict[str, Complexes]
    model: Any
    read: tuple[float, float]
    dt: float


@functools.lru_cache(maxsize=1024)
def errors(fake: str, qubit: int) -> Errors:
    """The errors of a qubit of a fake device."""
    from qiskit.circuit.library import get_standard_gate_name_mapping
    from qiskit.quantum_info import Operator, SuperOp
    from qiskit_aer.noise import NoiseModel

    from backends.target import SubDevice

    alone = SubDevice(device(fake).backend, (qubit,))
    model, known = NoiseModel.from_backend(alone), get_standard_gate_name_mapping()
    gates = {}
    for name in ("sx", "x", "id"):
        ideal = SuperOp(Operator(known[name]))
        error = model._local_quantum_errors.get(name, {}).get((0,))
        gates[name] = (ideal if error is None else ideal.compose(SuperOp(error))).data
    readout = model._local_readout_errors.get((0,))
    read = (0.0, 1.0) if readout is None else tuple(float(row[1]) for row in readout.probabilities)
    return Errors(gates, model, (read[0], read[1]), float(alone.target.dt or 0.0))


def simple(circuit: QuantumCircuit, qubit: int) -> bool:
    """Whether `probabilities` can follow this qubit."""
    names = [entry.operation.name for entry in _on(circuit, qubit)]
    return set(names) <= GATES and names.count("measure") == 1 and names[-1] == "measure"


def bit(circuit: QuantumCircuit, qubit: int) -> int:
    """The clbit that the qubit is read into."""
    return int(circuit.find_bit(_on(circuit, qubit)[-1].clbits[0]).index)


def probabilities(circuit: QuantumCircuit, qubit: int, values: Floats, suffered: Errors) -> Floats:
    """The probability of reading 1, for every parameter set.

    Args:
        circuit: For which `simple` holds.
        qubit: Which.
        values: (sets, parameters), radians, in the order of `circuit.parameters`.
        suffered: `errors` of the qubit.

    Returns:
        (sets,)
    """
    state: Complexes = np.zeros((len(values), 4), dtype=np.complex128)
    state[:, 0] = 1.0
    for entry in _on(circuit, qubit)[:-1]:
        name = entry.operation.name
        if name == "rz":
            turn = np.exp(1j * angles(circuit, entry.operation.params[0], values))
            # Column-stacked: 1 is row 1, column 0; rz turns it by +angle.
            state[:, 1] *= turn
            state[:, 2] *= turn.conj()
        elif name == "delay":
            state = state @ _relaxation(suffered, entry.operation).T
        else:
            state = state @ suffered.gates[name].T
    one = np.clip(state[:, 3].real, 0.0, 1.0)
    return np.asarray((1.0 - one) * suffered.read[0] + one * suffered.read[1])


def angles(circuit: QuantumCircuit, expression: Any, values: Floats) -> Floats:
    """The angle for every parameter set: (sets,)."""
    free = list(getattr(expression, "parameters", ()))
    if not free:
        return np.full(len(values), float(expression))
    column = {parameter: index for index, parameter in enumerate(circuit.parameters)}
    if expression in column:
        return np.asarray(values[:, column[expression]])
    bound = [float(expression.bind({each: row[column[each]] for each in free})) for row in values]
    return np.array(bound)


def _on(circuit: QuantumCircuit, qubit: int) -> list[Any]:
    wanted = circuit.qubits[qubit]
    return [entry for entry in circuit.data if wanted in entry.qubits and entry.operation.name != "barrier"]


def _relaxation(suffered: Errors, operation: Any) -> Complexes:
    """Relaxation over a delay, as Aer's noise model adds it."""
    from qiskit.quantum_info import SuperOp

    matrix = np.eye(4, dtype=np.complex128)
    for each in suffered.model._custom_noise_passes:
        error = each._thermal_relaxation_error(operation, [0])
        if error is not None:
            matrix = SuperOp(error).data @ matrix
    return matrix
