"""The digest of a request: one text of all that defines a job's result, the same on every machine and in every process.

It is not taken over QPY: its bytes change with qiskit's version, and names of parameters and registers change nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
from qiskit.circuit import Parameter, ParameterExpression
from qiskit.quantum_info import SparsePauliOp

from backends.protocol import FloatArray
from backends.runtime.types import RuntimeOptions
from backends.target import Target
from backends.twin.expressions import coefficients
from circuits.types import CompiledCircuit

FORMAT = "qrun runtime request 1"
"""Raised whenever a request of the same text would give another job."""


def free_parameters(compiled: CompiledCircuit) -> tuple[Parameter, ...]:
    """The parameters that the compiled circuit still has: inputs, then weights."""
    free = set(compiled.circuit.parameters)
    return tuple(parameter for parameter in (*compiled.inputs, *compiled.weights) if parameter in free)


def circuit_text(compiled: CompiledCircuit) -> str:
    """Gates with their qubits and angles, where they run and what is read. Parameters are called by their place."""
    numbers = {parameter: number for number, parameter in enumerate(free_parameters(compiled))}
    lines = [
        f"circuit {compiled.circuit.num_qubits} {_number(compiled.circuit.global_phase, numbers)}",
        f"physical {' '.join(map(str, compiled.physical_qubits))}",
        f"final {' '.join(map(str, compiled.final_layout))}",
    ]
    for instruction in compiled.circuit.data:
        wires = ",".join(str(compiled.circuit.find_bit(qubit).index) for qubit in instruction.qubits)
        angles = " ".join(_number(angle, numbers) for angle in instruction.operation.params)
        lines.append(f"{instruction.operation.name} {wires} {angles}".rstrip())
    return "\n".join(lines)


def observables_text(observables: Sequence[SparsePauliOp]) -> str:
    """Every Pauli string with its coefficient, in the order given."""
    lines = [f"observables {len(observables)}"]
    for observable in observables:
        coefficients_ = np.asarray(observable.coeffs, dtype=np.complex128)
        terms = zip(observable.paulis.to_labels(), coefficients_, strict=True)
        lines.append(" ".join(f"{label} {_hex(c.real)} {_hex(c.imag)}" for label, c in terms))
    return "\n".join(lines)


def request_digest(
    target: Target,
    options: RuntimeOptions,
    seed: int | None,
    *,
    local: bool,
    path: str,
    pubs: Iterable[tuple[str, str, FloatArray]],
) -> str:
    """SHA-256, hex, of a job's request.

    Args:
        target: Its device. Locally its calibration counts too, for it is what is simulated.
        options: All of them.
        seed: Of the call.
        local: Whether the local testing mode runs it.
        path: Which part of the call it is: parts that ask the same are to be independent samples.
        pubs: For each PUB `circuit_text`, `observables_text` and its parameter values, (rows, parameters).
    """
    sha = hashlib.sha256()

    def add(text: str) -> None:
        data = text.encode()
        sha.update(len(data).to_bytes(8, "little") + data)

    add(FORMAT)
    calibration = f"{target.snapshot_sha256 or ''} {target.calibration_date or ''}" if local else ""
    add(f"{'local' if local else 'service'} {target.name} {calibration}")
    add(
        f"shots {options.shots} dd {options.dynamical_decoupling} twirling {options.twirling} "
        f"level {options.resilience_level} seed {seed} part {path}"
    )
    for circuit, observables, values in pubs:
        add(circuit)
        add(observables)
        add(f"values {'x'.join(map(str, values.shape))}")
        # -0.0 and 0.0 are the same angle.
        sha.update(np.ascontiguousarray(values + 0.0, dtype="<f8").tobytes())
    return sha.hexdigest()


def _number(value: object, numbers: dict[Parameter, int]) -> str:
    """An angle: a number, a linear expression as its coefficients, or an expression as qiskit writes it."""
    if not isinstance(value, ParameterExpression):
        return _hex(float(value)) if isinstance(value, int | float | np.number) else str(value)
    linear = coefficients(value)
    if linear is not None:
        constant, slopes = linear
        terms = sorted((numbers[parameter], slope) for parameter, slope in slopes.items())
        return "+".join([_hex(constant), *(f"{_hex(slope)}*p{number}" for number, slope in terms)])
    used = sorted((numbers[parameter], parameter.name) for parameter in value.parameters)
    return f"({value} {' '.join(f'p{number}={name}' for number, name in used)})".replace(" ", "_")


def _hex(value: float) -> str:
    return (float(value) + 0.0).hex()
