"""What every peer is given: a compiled circuit, its noise as Kraus operators, inputs and weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from qiskit.circuit import ParameterExpression
from qiskit.quantum_info import SparsePauliOp

from backends.catalog import get_target
from backends.observables import single_z
from backends.target import Target
from backends.twin.channels import Channels
from backends.twin.pauli import Array, ptm_of_unitary
from circuits.compile import compile_ansatz
from circuits.qgan import generator
from circuits.types import CompiledCircuit

ComplexArray = npt.NDArray[np.complex128]
SEED = 7

_PAULIS = np.array([[[1, 0], [0, 1]], [[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]])


@dataclass(frozen=True)
class Rotation:
    """RZ(constant + inputs . z + weights . theta) on a wire."""

    wire: int
    constant: float
    inputs: Array
    weights: Array


@dataclass(frozen=True)
class Channel:
    """A gate and its noise on one or two wires: Kraus operators (r, d, d), first wire most significant."""

    wires: tuple[int, ...]
    kraus: ComplexArray


@dataclass(frozen=True)
class Answer:
    """What a step gave: values (batch, m); gradients of mean(values^2) by weights and inputs, None if not computed."""

    values: Array
    by_weights: Array | None = None
    by_inputs: Array | None = None


@dataclass(frozen=True)
class Peer:
    """A prepared engine.

    Attributes:
        step: One generator step, or the stated part of it.
        answer: What a whole step gives; may run it once more.
        packages: Distributions whose versions are printed.
        scale: Seconds of `step` times this are those of a whole step.
        part: Which part `step` is; empty for the whole.
        sampled: Shots, None where values are exact.
        plan_flops: Floating point operations of the engine's own plan, where it says.
    """

    step: Callable[[], object]
    answer: Callable[[], Answer]
    packages: tuple[str, ...]
    scale: float = 1.0
    part: str = ""
    sampled: int | None = None
    plan_flops: float | None = None


@dataclass(frozen=True)
class Job:
    """One generator step: RY(z) + EfficientSU2 (reps, reverse_linear) on a device, Z on every qubit."""

    target: Target
    circuit: CompiledCircuit
    inputs: Array
    weights: Array
    observables: tuple[SparsePauliOp, ...] = field(repr=False)

    @classmethod
    def build(cls, device: str, qubits: int, batch: int, reps: int = 4) -> Job:
        """Compile, and draw inputs (batch, n_inputs) and weights (n_weights,) uniformly over the circle."""
        target = get_target(device)
        circuit = compile_ansatz(generator(qubits, reps), target.backend, seed=SEED)
        random = np.random.default_rng(SEED)
        return cls(
            target,
            circuit,
            random.uniform(-np.pi, np.pi, (batch, len(circuit.inputs))),
            random.uniform(-np.pi, np.pi, len(circuit.weights)),
            single_z(qubits),
        )

    def operations(self) -> list[Rotation | Channel]:
        """The circuit in time order: rotations with free parameters, and all between them as channels.

        Gates without parameters and their noise are one channel, and become part of a two-qubit one that follows:
        what a careful user would hand to a simulator, so that no peer is timed with more operations than it needs.
        """
        backend = self.target.backend
        channels = Channels(None if backend is None else backend.target, self.circuit.physical_qubits)
        circuit, result = self.circuit.circuit, list[Rotation | Channel]()
        waiting: dict[int, Array] = {}

        def flush(wire: int) -> None:
            if wire in waiting:
                result.append(Channel((wire,), kraus_of(waiting.pop(wire))))

        for instruction in circuit.data:
            operation, wires = instruction.operation, tuple(circuit.find_bit(q).index for q in instruction.qubits)
            if operation.name == "barrier":
                continue
            noise = channels.after(operation.name, wires)
            if operation.name == "rz" and getattr(operation.params[0], "parameters", ()):
                flush(wires[0])
                result.append(self._rotation(operation.params[0], wires[0]))
                after = np.eye(4)
            else:
                after = ptm_of_unitary(np.asarray(operation.to_matrix(), dtype=np.complex128))
            after = after if noise is None else noise @ after
            before = [waiting.pop(wire, np.eye(4)) for wire in wires]
            if len(wires) == 1:
                waiting[wires[0]] = after @ before[0]
            else:
                result.append(Channel(wires, kraus_of(after @ np.kron(*before))))
        for wire in list(waiting):
            flush(wire)
        return [o for o in result if isinstance(o, Rotation) or not _is_identity(o)]

    def readout(self) -> tuple[tuple[int, float, float], ...]:
        """(wire, a, b) of every virtual qubit: a measured Z is a + b Z."""
        errors = [self.target.readout_errors(self.circuit.physical_qubits[w]) for w in self.circuit.final_layout]
        return tuple(
            (wire, p10 - p01, 1.0 - p01 - p10)
            for wire, (p01, p10) in zip(self.circuit.final_layout, errors, strict=True)
        )

    def _rotation(self, value: ParameterExpression, wire: int) -> Rotation:
        parameters = sorted(value.parameters, key=lambda parameter: parameter.name)

        def at(**ones: float) -> float:
            return float(value.bind({p: ones.get(p.name, 0.0) for p in parameters}))

        constant = at()
        slopes = {parameter: at(**{parameter.name: 1.0}) - constant for parameter in parameters}
        return Rotation(
            wire,
            constant,
            np.array([slopes.get(parameter, 0.0) for parameter in self.circuit.inputs]),
            np.array([slopes.get(parameter, 0.0) for parameter in self.circuit.weights]),
        )


def _is_identity(channel: Channel) -> bool:
    return len(channel.kraus) == 1 and np.allclose(np.abs(np.trace(channel.kraus[0])), len(channel.kraus[0]))


def kraus_of(ptm: Array) -> ComplexArray:
    """A channel's PTM R (index 4 * first + second) as Kraus operators (r, d, d), first qubit most significant.

    The Choi matrix J = sum_ij R_ij P_j^T x P_i / d has the eigenvectors v_r, and K_r = sqrt(l_r) v_r as a matrix
    (M.-D. Choi, Linear Algebra Appl. 10, 285 (1975)).
    """
    basis = _PAULIS if ptm.shape == (4, 4) else np.array([np.kron(a, b) for a in _PAULIS for b in _PAULIS])
    dimension = basis.shape[1]
    choi = np.einsum("ij,jba,icd->acbd", ptm, basis, basis) / dimension
    strengths, vectors = np.linalg.eigh(choi.reshape(dimension**2, dimension**2))
    kept = strengths > 1e-13
    shaped = vectors[:, kept].T.reshape(-1, dimension, dimension)
    return np.sqrt(strengths[kept])[:, None, None] * shaped.transpose(0, 2, 1)
