"""What a job of the program "executor" asks and what it gives, in the service's own encoding (schema v2.0)."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from backends.runtime.standin.replies import Refused

if TYPE_CHECKING:
    from qiskit import QuantumCircuit

SCHEMA = "v2.0"
ORIGIN = datetime(2000, 1, 1, tzinfo=UTC)
"""Chunks are timed from here, so that the same job gives the same bytes."""
Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Program:
    """A decoded job.

    Attributes:
        quantum_program: The Runtime's QuantumProgram.
        shots: A parameter set.
        circuits: Parameter sets in all items, randomizations included.
        shapes: Of the items, without shots.
        repetition_delay: Seconds, None for the device's own.
        digest: SHA-256 of all that defines the counts, see `digest`.
    """

    quantum_program: Any
    shots: int
    circuits: int
    shapes: tuple[tuple[int, ...], ...]
    repetition_delay: float | None
    digest: bytes


def decode(params: Any) -> Program:
    """Read what a job asks.

    Raises:
        Refused: 400, where it is no sound program of schema v2.0.
    """
    from pydantic import ValidationError
    from qiskit_ibm_runtime.quantum_program.params_converters import QUANTUM_PROGRAM_PARAMS_CONVERTERS

    version = params.get("schema_version") if isinstance(params, dict) else None
    if version != SCHEMA:
        raise _invalid(f"params.schema_version must be {SCHEMA} here, not {version!r}.")
    converter = QUANTUM_PROGRAM_PARAMS_CONVERTERS[SCHEMA]
    try:
        quantum_program, options = converter.decoder(converter.model.model_validate(params))
    except ValidationError as error:
        first = error.errors()[0]
        raise _invalid(f"params.{'.'.join(map(str, first['loc']))}: {first['msg']}.") from None
    except Exception as error:
        # From outside: QPY and samplexes are read by qiskit and samplomatic, which raise what they like.
        raise _invalid(f"params cannot be read: {type(error).__name__}.") from None
    if quantum_program.meas_level != "classified":
        raise _invalid("the stand-in knows meas_level classified alone.")
    if not quantum_program.items:
        raise _invalid("there is no item in the program.")
    shapes = tuple(tuple(item.shape) for item in quantum_program.items)
    return Program(
        quantum_program=quantum_program,
        shots=int(quantum_program.shots),
        circuits=sum(math.prod(shape) for shape in shapes),
        shapes=shapes,
        repetition_delay=options.execution.rep_delay,
        digest=digest(quantum_program, options.execution.rep_delay),
    )


def _invalid(reason: str) -> Refused:
    return Refused(400, f"Request validation of body failed, because: {reason}", 1208)


def digest(quantum_program: Any, repetition_delay: float | None) -> bytes:
    """SHA-256 of what defines a job's counts.

    Not of the bytes that were sent: QPY holds identifiers of parameters, which every process draws anew.
    """
    sha = hashlib.sha256(f"{SCHEMA}/{quantum_program.shots}/{repetition_delay}".encode())
    for item in quantum_program.items:
        sha.update(f"/{type(item).__name__}/{tuple(item.shape)}".encode())
        for line in _lines(item.circuit):
            sha.update(line.encode())
        named: dict[str, Any] = {"circuit_arguments": getattr(item, "circuit_arguments", None)}
        if named["circuit_arguments"] is None:
            given: Any = item.samplex_arguments
            named = {name: given[name] for name in sorted(spec.name for spec in given.specs) if name in given}
        for name, value in named.items():
            array = value if isinstance(value, np.ndarray) else None
            content = repr(value).encode() if array is None else np.ascontiguousarray(array).tobytes()
            sha.update(f"/{name}/{None if array is None else array.shape}".encode())
            sha.update(content)
    return sha.digest()


def _lines(circuit: QuantumCircuit) -> list[str]:
    """A circuit in words: instructions with their parameters, qubits and clbits, in order."""
    lines = [f"{circuit.num_qubits}/{[(register.name, register.size) for register in circuit.cregs]}"]
    for instruction in circuit.data:
        qubits = [circuit.find_bit(qubit).index for qubit in instruction.qubits]
        clbits = [circuit.find_bit(clbit).index for clbit in instruction.clbits]
        operation = instruction.operation
        values = [str(value) for value in operation.params]
        lines.append(f"{operation.name}/{values}/{getattr(operation, 'duration', None)}/{qubits}/{clbits}")
    return lines


def encode(program: Program, results: list[Arrays], seconds: float) -> str:
    """What a job gave, as the service writes it.

    Args:
        program: What it asked.
        results: Arrays of every item by their names.
        seconds: QPU seconds, for the chunk's times.
    """
    from ibm_quantum_schemas.common import CompressedTensorModel  # type: ignore[import-untyped]
    from ibm_quantum_schemas.executor.version_2_0 import models  # type: ignore[import-untyped]
    from qiskit_ibm_runtime.quantum_program.converters.converters_2_0 import passthrough_data_to_2_0

    parts = [
        models.ChunkPart(
            idx_item=index,
            size=math.prod(shape),
            permutation=list(range(len(shape))),
            element_range=(0, math.prod(shape), 1),
        )
        for index, shape in enumerate(program.shapes)
    ]
    span = models.ChunkSpan(start=ORIGIN, stop=ORIGIN + timedelta(seconds=seconds), parts=parts)
    items = [
        models.QuantumProgramResultItemModel(
            results={name: CompressedTensorModel.from_numpy(array) for name, array in arrays.items()},
            metadata=models.ItemMetadataModel(),
        )
        for arrays in results
    ]
    result: str = models.QuantumProgramResultModel(
        data=items,
        metadata=models.MetadataModel(chunk_timing=[span]),
        passthrough_data=passthrough_data_to_2_0(program.quantum_program.passthrough_data),
        semantic_role=program.quantum_program._semantic_role,
    ).model_dump_json()
    return result
