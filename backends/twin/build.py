"""From a compiled circuit to a program: gates, their noise and waiting, folded into runs and blocks."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from qiskit.circuit import Delay, Gate, Instruction, ParameterExpression
from qiskit.circuit.library import CXGate, HGate, SXGate

from backends.twin.channels import Channels
from backends.twin.expressions import coefficients
from backends.twin.instructions import check_instruction, unitary_of
from backends.twin.pauli import Array, commutes_with_rz, ptm_of_unitary, rz
from backends.twin.program import Angle, Block, Program, Run
from backends.twin.wires import order_wires
from circuits.errors import QrunError
from circuits.types import CompiledCircuit

_HALF_TURN = math.pi / 2
_ONE = np.eye(4)
_H = ptm_of_unitary(HGate().to_matrix())
_SX = ptm_of_unitary(SXGate().to_matrix())
_S = np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
_CX = ptm_of_unitary(CXGate().to_matrix())
_SWAPPED = np.arange(16).reshape(4, 4).T.reshape(-1)
"""Index order that exchanges the two qubits of a 16x16 matrix."""


def build_program(
    compiled: CompiledCircuit,
    channels: Channels,
    *,
    readout_error: bool = True,
    unitaries: dict[str, Array] | None = None,
) -> Program:
    """Turn a compiled circuit into a program, with the noise of `channels` after every gate and during every delay.

    Args:
        compiled: Compiled for the device.
        channels: The noise of its qubits.
        readout_error: Whether readout errors count.
        unitaries: Channels of qiskit's own gates that are known already, by name; what is read here is added.

    Raises:
        QrunError: A gate on more than two qubits, a gate or an angle that this engine cannot read, or a gate that the
            device does not have there.
    """
    builder = _Builder(compiled, channels, {} if unitaries is None else unitaries)
    index = {qubit: wire for wire, qubit in enumerate(compiled.circuit.qubits)}
    for instruction in compiled.circuit.data:
        wires = tuple(index[qubit] for qubit in instruction.qubits)
        builder.add(instruction.operation, wires, standard=instruction.is_standard_gate())
    return builder.finish(readout_error)


class _Builder:
    """Collects primitives wire by wire, and closes a run wherever a two-qubit gate comes."""

    def __init__(self, compiled: CompiledCircuit, channels: Channels, unitaries: dict[str, Array]) -> None:
        self.compiled, self.channels = compiled, channels
        self.inputs = {parameter: i for i, parameter in enumerate(compiled.inputs)}
        self.weights = {parameter: i for i, parameter in enumerate(compiled.weights)}
        self.width = compiled.circuit.num_qubits
        self.positions = order_wires(compiled)
        self.present = [wire for wire in range(self.width) if self.positions[wire] >= 0]
        self.fixed: list[list[Array]] = [[_ONE] for _ in range(self.width)]
        self.angles: list[list[Angle]] = [[] for _ in range(self.width)]
        self.first: dict[int, Run] = {}
        self.blocks: list[Block] = []
        self.latest: dict[int, int] = {}  # wire -> number of its last block
        self.unitaries = unitaries

    def add(self, operation: Instruction, wires: tuple[int, ...], *, standard: bool) -> None:
        """Add a gate and its noise. The name of a `standard` gate, one of qiskit's own, says what it does."""
        name = operation.name
        if not standard or len(wires) > 2:
            check_instruction(operation, wires)
            if name == "barrier":
                return
            if isinstance(operation, Delay):
                if self.positions[wires[0]] < 0:
                    return
                waiting = self.channels.delay(wires[0], float(operation.duration), operation.unit)
                if waiting is not None:
                    self._fix(wires[0], waiting)
                return
        noise = self.channels.after(name, wires)
        if len(wires) == 2:
            self._two_qubit(operation, wires, noise, standard=standard)
            return
        self._one_qubit(operation, wires[0], standard=standard)
        if noise is not None:
            self._fix(wires[0], noise)

    def finish(self, readout_error: bool) -> Program:
        first: list[Run] = []
        last: list[Run | None] = []
        by_position = sorted(self.present, key=lambda wire: self.positions[wire])
        for wire in by_position:
            run = self._close(wire)
            last.append(run if wire in self.first else None)
            first.append(self.first.get(wire, run))
        readout = np.tile([0.0, 1.0], (len(self.present), 1))
        if readout_error:
            for wire in self.present:
                p01, p10 = self.channels.readout(wire)
                readout[self.positions[wire]] = (p10 - p01, 1.0 - p01 - p10)
        self.channels.warn_uncalibrated()
        return Program(
            positions=self.positions,
            first=tuple(first),
            blocks=tuple(self.blocks),
            last=tuple(last),
            readout=readout,
            outputs=tuple(self.positions[wire] for wire in self.compiled.final_layout),
        )

    def _fix(self, wire: int, channel: Array) -> None:
        self.fixed[wire][-1] = channel @ self.fixed[wire][-1]

    def _rotate(self, wire: int, value: float | ParameterExpression, *, plus: float = 0.0) -> None:
        """Rz(value + plus): a fixed channel without parameters, else a step, or part of the one before it."""
        if not isinstance(value, ParameterExpression):
            self._fix(wire, rz(float(value) + plus))
            return
        angle, angles, fixed = self._affine(value, plus), self.angles[wire], self.fixed[wire]
        both = angles[-1] + angle if angles else angle
        if angle.is_fixed:
            self._fix(wire, rz(angle.constant))
        elif angles and both.is_fixed and commutes_with_rz(fixed[-1]):
            # Rz(a) Rz(c - a), as where a circuit and its inverse meet.
            angles.pop()
            self._fix(wire, fixed.pop() @ rz(both.constant))
        elif angles and np.array_equal(fixed[-1], _ONE):
            angles[-1] = both
        else:
            angles.append(angle)
            fixed.append(_ONE)

    def _one_qubit(self, operation: Gate, wire: int, *, standard: bool) -> None:
        """Ideal single-qubit gates in terms of Z rotations and fixed channels (global phases do not matter)."""
        name, params = operation.name, operation.params
        if not standard:
            self._fix(wire, self._unitary(operation, standard=False))
        elif name in ("rz", "p", "u1"):
            self._rotate(wire, params[0])
        elif name == "rx":
            self._fix(wire, _H)
            self._rotate(wire, params[0])
            self._fix(wire, _H)
        elif name == "ry":  # RY = S RX S^-1 = S H RZ H S^-1
            self._fix(wire, _H @ _S.T)
            self._rotate(wire, params[0])
            self._fix(wire, _S @ _H)
        elif name in ("u", "u3"):  # U(t, f, l) = RZ(f + pi) SX RZ(t + pi) SX RZ(l)
            theta, phi, lam = params
            self._rotate(wire, lam)
            self._fix(wire, _SX)
            self._rotate(wire, theta, plus=math.pi)
            self._fix(wire, _SX)
            self._rotate(wire, phi, plus=math.pi)
        elif name == "u2":  # U2(f, l) = RZ(f + pi/2) SX RZ(l - pi/2)
            phi, lam = params
            self._rotate(wire, lam, plus=-_HALF_TURN)
            self._fix(wire, _SX)
            self._rotate(wire, phi, plus=_HALF_TURN)
        else:
            self._fix(wire, self._unitary(operation, standard=True))

    def _two_qubit(self, operation: Gate, wires: tuple[int, ...], noise: Array | None, *, standard: bool) -> None:
        after = np.eye(16) if noise is None else noise
        if standard and operation.name == "rzz":  # RZZ = CX (1 x RZ) CX
            self._block(wires, _CX)
            self._rotate(wires[1], operation.params[0])
            self._block(wires, after @ _CX)
        else:
            self._block(wires, after @ self._unitary(operation, standard=standard))

    def _block(self, wires: tuple[int, ...], channel: Array) -> None:
        low, high = sorted(wires, key=lambda wire: self.positions[wire])
        if low != wires[0]:
            channel = channel[np.ix_(_SWAPPED, _SWAPPED)]
        number = self.latest.get(low)
        if number is not None and number == self.latest.get(high) and not (self.angles[low] or self.angles[high]):
            (first,), (second,) = self._close(low).fixed, self._close(high).fixed
            between = (first[:, None, :, None] * second[None, :, None, :]).reshape(16, 16)
            before = self.blocks[number]
            self.blocks[number] = replace(before, channel=channel @ between @ before.channel)
            return
        runs: list[Run | None] = []
        for wire in (low, high):
            run = self._close(wire)
            runs.append(run if wire in self.first else None)
            self.first.setdefault(wire, run)
            self.latest[wire] = len(self.blocks)
        self.blocks.append(Block(self.positions[low], self.positions[high], runs[0], runs[1], channel))

    def _close(self, wire: int) -> Run:
        run = Run(tuple(self.fixed[wire]), tuple(self.angles[wire]))
        self.fixed[wire], self.angles[wire] = [_ONE], []
        return run

    def _unitary(self, operation: Gate, *, standard: bool) -> Array:
        """The PTM of a gate without free parameters."""
        if any(isinstance(value, ParameterExpression) and value.parameters for value in operation.params):
            raise QrunError(
                f"this engine cannot vary the parameter of a {operation.name!r} gate.",
                "It varies rx, ry, rz, p, u, u1, u2, u3 and rzz: compile to one of them.",
            )
        # Kept by name where that says it all: not for gates with values, nor for those that a user has named.
        name = operation.name if standard and not operation.params else None
        if name is not None and name in self.unitaries:
            return self.unitaries[name]
        channel = ptm_of_unitary(unitary_of(operation))
        if name is not None:
            self.unitaries[name] = channel
        return channel

    def _affine(self, value: ParameterExpression, plus: float) -> Angle:
        inputs, weights = np.zeros(len(self.inputs)), np.zeros(len(self.weights))
        linear = coefficients(value)
        if linear is None:
            raise QrunError(
                f"this engine takes angles that are linear in the parameters, not {value}.",
                "TwinEstimator and TwinModule take any angle.",
            )
        constant, slopes = linear
        for parameter, slope in slopes.items():
            if parameter in self.inputs:
                inputs[self.inputs[parameter]] = slope
            elif parameter in self.weights:
                weights[self.weights[parameter]] = slope
            else:
                raise QrunError(f"the circuit's parameter {parameter.name} is neither an input nor a weight.")
        return Angle(constant + plus, inputs, weights)
