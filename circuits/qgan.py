"""The generator of the hybrid quantum GAN: RY(z) on every qubit, then a hardware-efficient SU(2) ansatz.

With re-uploading, RY(z) comes again after repetitions of the ansatz (Perez-Salinas et al., Quantum 4, 226, 2020): an
output is then a Fourier series in z of as many higher frequencies (Schuld, Sweke and Meyer, Phys. Rev. A 103, 032430).
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from functools import partial

from qiskit import QuantumCircuit
from qiskit.circuit import CircuitInstruction, ParameterVector
from qiskit.circuit.library import efficient_su2

from circuits.errors import UsageError
from circuits.types import Ansatz

ENTANGLEMENTS = ("full", "linear", "reverse_linear", "pairwise", "circular", "sca")
"""The entangling patterns of qiskit's `efficient_su2`."""

ROTATIONS = ("rx", "ry", "rz")
"""Rotation gates that a block may use; all have generators with eigenvalues +-1/2."""


def generator(
    qubits: int,
    reps: int = 4,
    entanglement: str = "reverse_linear",
    rotation_blocks: Sequence[str] = ("ry", "rz"),
    reuploads: int = 0,
) -> Ansatz:
    """Build U(z, theta) = EfficientSU2(theta) . prod_i RY(z_i) on `qubits` qubits, z encoded again `reuploads` times.

    With rotation blocks (ry, rz) there are 2 * qubits * (reps + 1) weights. The last `qubits` RZ weights commute with
    every Pauli-Z observable (unless RY(z) follows them), so that their gradient is zero there; they stay, so that the
    ansatz is the library's own.

    Args:
        qubits: Number of qubits, at least 1; also the number of inputs.
        reps: How often an entangling layer and a rotation layer follow the first rotation layer; at least 0.
        entanglement: One of `ENTANGLEMENTS`.
        rotation_blocks: The rotations of a layer, in order; each one of `ROTATIONS`.
        reuploads: After how many of the repetitions, from the first on, RY(z) follows again; at most `reps`.

    Returns:
        The ansatz, with inputs z_0 ... and weights in the order of the library.

    Raises:
        UsageError: A number out of range or an unknown name.
    """
    if not isinstance(qubits, int) or isinstance(qubits, bool) or qubits < 1:
        raise UsageError(f"a generator needs at least 1 qubit, not {qubits!r}.", "Give a whole number of 1 or more.")
    if not isinstance(reps, int) or isinstance(reps, bool) or reps < 0:
        raise UsageError(f"reps must be 0 or more, not {reps!r}.", "Give a whole number, for example 4.")
    if not isinstance(reuploads, int) or isinstance(reuploads, bool) or not 0 <= reuploads <= reps:
        raise UsageError(
            f"reuploads must be 0 to {reps}, the number of repetitions, not {reuploads!r}.", "Lower it, or raise reps."
        )
    _one_of(entanglement, ENTANGLEMENTS, "entanglement")
    if isinstance(rotation_blocks, str) or not rotation_blocks:
        raise UsageError(f"rotation_blocks must be a list of gate names, not {rotation_blocks!r}.", 'Try ("ry", "rz").')
    for block in rotation_blocks:
        _one_of(block, ROTATIONS, "rotation block")

    inputs = ParameterVector("z", qubits)
    circuit = QuantumCircuit(qubits)
    _upload(circuit, inputs)
    layers = efficient_su2(qubits, list(rotation_blocks), entanglement=entanglement, reps=reps, insert_barriers=True)
    parts: list[list[CircuitInstruction]] = [[]]
    for instruction in layers:
        if instruction.operation.name == "barrier":
            parts.append([])
        else:
            parts[-1].append(instruction)
    # Rotations, and then entangling gates and rotations in turn: a repetition ends with every second part.
    for number, part in enumerate(parts):
        for instruction in part:
            circuit.append(instruction.operation, instruction.qubits)
        if number in range(2, 2 * reuploads + 1, 2):
            _upload(circuit, inputs)
    uploads = f"-{reuploads}u" if reuploads else ""
    return Ansatz(
        name=f"qgan-{qubits}q-{reps}r-{entanglement}-{'+'.join(rotation_blocks)}{uploads}",
        circuit=circuit,
        inputs=tuple(inputs),
        weights=tuple(layers.parameters),
        reps=reps,
        with_reps=partial(_of_reps, qubits, entanglement, tuple(rotation_blocks), reuploads),
    )


def _of_reps(qubits: int, entanglement: str, rotation_blocks: Sequence[str], reuploads: int, reps: int) -> Ansatz:
    return generator(qubits, reps, entanglement, rotation_blocks, min(reuploads, reps))


def _upload(circuit: QuantumCircuit, inputs: ParameterVector) -> None:
    for qubit, z in enumerate(inputs):
        circuit.ry(z, qubit)


def _one_of(name: str, known: Sequence[str], what: str) -> None:
    if name in known:
        return
    close = difflib.get_close_matches(str(name).lower().replace("-", "_"), known, n=1)
    hint = f"Did you mean {close[0]}? " if close else ""
    raise UsageError(f"unknown {what} {name!r}.", f"{hint}Known: {', '.join(known)}.")
