"""A compiled circuit as a program of Pauli-transfer matrices.

Every single-qubit gate is written as fixed channels around rotations about Z, whose angles are affine in inputs and
weights. Between two entangling gates a wire thus carries one *run*

    F_K Rz(a_K) F_{K-1} ... Rz(a_1) F_0,      a = constant + C_in z + C_w theta,

and the circuit is: a run on every wire (the product state), then *blocks*, each a two-qubit channel after a run on
either wire, then a last run on every wire. Gates on the same pair of wires with no free angle between them are one
block: a SWAP of three CX, or a gate that was folded (G G^-1 G) with its noise, takes as long as a single gate. `build`
makes it, knowing qiskit; torch evaluates it.
"""

from __future__ import annotations

from dataclasses import dataclass

from backends.twin.pauli import Array


@dataclass(frozen=True)
class Angle:
    """constant + inputs . z + weights . theta, radians."""

    constant: float
    inputs: Array
    weights: Array

    def __add__(self, other: Angle) -> Angle:
        return Angle(self.constant + other.constant, self.inputs + other.inputs, self.weights + other.weights)

    @property
    def is_fixed(self) -> bool:
        """Whether it depends on no parameter."""
        return not self.inputs.any() and not self.weights.any()


@dataclass(frozen=True)
class Run:
    """Fixed 4x4 channels around Z rotations: fixed[K] Rz(angles[K-1]) ... Rz(angles[0]) fixed[0]."""

    fixed: tuple[Array, ...]
    angles: tuple[Angle, ...]

    @property
    def takes_inputs(self) -> bool:
        """Whether an angle depends on the inputs."""
        return any(angle.inputs.any() for angle in self.angles)


@dataclass(frozen=True)
class Block:
    """A two-qubit channel on tensor positions low < high, after a run on each (None: the identity).

    `channel` is 16x16, index 4 * (Pauli at low) + (Pauli at high).
    """

    low: int
    high: int
    before_low: Run | None
    before_high: Run | None
    channel: Array


@dataclass(frozen=True)
class Program:
    """The whole circuit on k tensor positions.

    Attributes:
        positions: positions[w] is the tensor position of wire w; entangled wires are near each other. -1 for a wire
            without a gate that no virtual qubit is on: others may wait for it, and its own state does not matter.
        first: (k) the run at each position before its first block.
        blocks: In time order.
        last: (k) the run after the last block; None where there was no block.
        readout: (k, 2) a measured Z is readout[p, 0] I + readout[p, 1] Z.
        outputs: Tensor position of each virtual qubit at the end.
    """

    positions: tuple[int, ...]
    first: tuple[Run, ...]
    blocks: tuple[Block, ...]
    last: tuple[Run | None, ...]
    readout: Array
    outputs: tuple[int, ...]

    @property
    def inputs_come_first(self) -> bool:
        """Whether inputs enter only before the first entangling gate on their wire (what `heisenberg` needs)."""
        later = [run for block in self.blocks for run in (block.before_low, block.before_high)]
        return not any(run is not None and run.takes_inputs for run in (*later, *self.last))

    @property
    def shape(self) -> tuple[object, ...]:
        """What plans of walks depend on: alike for circuits that differ in single-qubit gates and channels only."""
        return len(self.first), self.outputs, tuple((block.low, block.high) for block in self.blocks)

    @property
    def nbytes(self) -> int:
        """About how much memory it takes."""
        runs = [*self.first, *self.last]
        for block in self.blocks:
            runs += [block.before_low, block.before_high]
        fixed = sum(len(run.fixed) for run in runs if run is not None)
        angles = [angle for run in runs if run is not None for angle in run.angles]
        arrays = len(self.blocks) + fixed + 2 * len(angles)
        entries = 256 * len(self.blocks) + 16 * fixed + sum(len(a.inputs) + len(a.weights) for a in angles)
        return 8 * entries + 128 * arrays
