"""From the bytes of a job's result to values and standard errors. Bytes are kept as they came and read from there
every time, by resume and by strangers who verify a run: hostile until checked.

The service's text goes through qiskit-ibm-runtime's own decoders, after its tensors were measured (they are packed, and
could unpack to any size) and whatever makes the decoders build other objects was refused. The local mode's text is read
here, number by number.
"""

from __future__ import annotations

import base64
import binascii
import io
import math
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from backends.observables import ZString, z_strings
from backends.protocol import FloatArray, Request
from backends.runtime.cost import executions
from backends.runtime.pubs import Part, Pub
from circuits.errors import QrunError
from circuits.hostile import load_json

Bytes = npt.NDArray[np.uint8]

_KEYS = {"schema_version", "data", "metadata", "passthrough_data", "semantic_role"}


@dataclass(frozen=True)
class Counts:
    """What was read: (rows, shots, ceil(bits / 8)) bytes, big-endian, the last bit of a shot is virtual qubit 0."""

    array: Bytes
    bits: int


@dataclass(frozen=True)
class Estimates:
    """(rows, observables) expectation values and their standard errors."""

    values: FloatArray
    errors: FloatArray


def decode(part: Part, raw: bytes, *, local: bool) -> list[Counts | Estimates]:
    """What each PUB of a job gave.

    Args:
        part: What was asked.
        raw: The result as it came.
        local: Whether the local testing mode gave it.

    Raises:
        QrunError: These bytes are no result of this job.
    """
    try:
        pubs = _local(part, raw) if local else _service(part, raw)
        if len(pubs) != len(part.pubs):
            raise _Wrong(f"{len(pubs)} PUBs instead of {len(part.pubs)}")
        checked = _counts if part.options.resilience_level is None else _estimates
        return [checked(part, pub, found) for pub, found in zip(part.pubs, pubs, strict=True)]
    except _Wrong as error:
        raise QrunError(f"the result of a job ({part.digest[:16]}) is none of what was asked: {error}.") from None
    except QrunError as error:
        raise QrunError(f"the result of a job ({part.digest[:16]}) cannot be read: {error.message}") from None


class _Wrong(Exception):
    """What is wrong with a result."""


def _counts(part: Part, pub: Pub, found: dict[str, Any]) -> Counts:
    array, bits = found.get("c", (None, None))
    width, shots = pub.circuit.num_qubits, executions(part.options)
    shape = (pub.rows, shots, -(-width // 8))
    if not isinstance(array, np.ndarray) or array.dtype != np.uint8 or bits != width or array.size != math.prod(shape):
        raise _Wrong(f"no counts of {pub.rows} x {shots} shots on {width} qubits")
    array = array.reshape(shape)
    if width % 8 and (array[..., 0] >> (width % 8)).any():
        raise _Wrong(f"bits beyond {width} qubits")
    return Counts(array, width)


def _estimates(part: Part, pub: Pub, found: dict[str, Any]) -> Estimates:
    shape = (pub.rows, len(pub.observables))
    arrays = []
    for name in ("evs", "stds"):
        array = found.get(name)
        if not isinstance(array, np.ndarray) or array.dtype.kind != "f" or array.size != math.prod(shape):
            raise _Wrong(f"{name} are not {shape[0]} x {shape[1]} numbers")
        arrays.append(array.astype(np.float64).reshape(shape))
    values, errors = arrays
    if not np.isfinite(values).all() or (errors < 0).any():
        raise _Wrong("expectation values that are not finite, or negative errors")
    # An extrapolation may say nothing about its error (infinite); the norm of the observable says as much.
    norms = np.array([np.abs(observable.coeffs).sum() for observable in pub.observables])
    return Estimates(values, np.where(np.isfinite(errors), errors, norms))


def _bound(part: Part) -> int:
    """Bytes that a job's tensors may unpack to: far above what they do, far below what hurts."""
    width = max(pub.circuit.num_qubits for pub in part.pubs)
    device = 1024 if part.options.resilience_level is not None else width
    shots = sum((pub.rows + 1) * pub.bases for pub in part.pubs) * executions(part.options)
    return 2**24 + 4 * shots * (8 + -(-device // 8))


# The service


def _service(part: Part, raw: bytes) -> list[dict[str, Any]]:
    limit = _bound(part)
    tree = load_json(raw, max_bytes=2 * limit, what="result")
    if not isinstance(tree, dict) or not tree.keys() <= _KEYS:
        raise _Wrong("not in the service's form")
    role = "sampler_v2" if part.options.resilience_level is None else "estimator_v2"
    if tree.get("semantic_role") != role:
        raise _Wrong(f"of {tree.get('semantic_role')!r}, not of {role!r}"[:200])
    if _measure(tree, limit) > limit:
        raise _Wrong("larger than any result of this job")
    from qiskit_ibm_runtime.decoders.defaults import DEFAULT_DECODERS

    data: Any = raw.decode()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for decoder in DEFAULT_DECODERS["executor"]:
                data = decoder.decode(data) if decoder.is_applicable(data) else data
        return [_plain(pub) for pub in data]
    except Exception as error:  # whatever the decoders raise on what somebody else wrote
        raise _Wrong(f"{type(error).__name__}: {str(error)[:200]}") from None


def _measure(tree: Any, limit: int) -> int:
    """Bytes that all tensors of a result unpack to, or more than the limit."""
    total, stack = 0, [tree]
    while stack and total <= limit:
        value = stack.pop()
        if isinstance(value, dict):
            if "__type__" in value:
                raise _Wrong("it holds an object that results have not")
            if isinstance(value.get("data"), str) and "shape" in value:
                total += len(_unpack(value["data"], limit))
            stack += value.values()
        elif isinstance(value, list):
            stack += value
    return total


def _plain(pub: Any) -> dict[str, Any]:
    from qiskit.primitives.containers import BitArray

    found: dict[str, Any] = {}
    for name in pub.data:
        value = pub.data[name]
        found[name] = (value.array, value.num_bits) if isinstance(value, BitArray) else np.asarray(value)
    return found


# The local mode


def _local(part: Part, raw: bytes) -> list[dict[str, Any]]:
    limit = _bound(part)
    result = _typed(load_json(raw, max_bytes=2 * limit, what="result"), "PrimitiveResult")
    pubs = result.get("pub_results")
    if not isinstance(pubs, list):
        raise _Wrong("it has no PUBs")
    found = []
    for pub in pubs:
        fields = _typed(_typed(pub, "PubResult").get("data"), "DataBin").get("fields")
        if not isinstance(fields, dict):
            raise _Wrong("a PUB has no data")
        found.append({name: _field(value, limit) for name, value in fields.items()})
    return found


def _field(value: Any, limit: int) -> Any:
    if isinstance(value, dict) and value.get("__type__") == "BitArray":
        bits = _typed(value, "BitArray")
        return _array(bits.get("array"), limit), bits.get("num_bits")
    return np.asarray(value, dtype=np.float64) if isinstance(value, int | float) else _array(value, limit)


def _array(value: Any, limit: int) -> npt.NDArray[Any]:
    if not isinstance(value, dict) or value.get("__type__") != "ndarray" or not isinstance(value.get("__value__"), str):
        raise _Wrong("no array where one should be")
    data = _unpack(value["__value__"], limit)
    if len(data) > limit:
        raise _Wrong("larger than any result of this job")
    try:
        array = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    except Exception as error:  # numpy parses the header as a Python literal
        raise _Wrong(f"no array of numpy: {type(error).__name__}") from None
    return np.asarray(array)


def _typed(value: Any, kind: str) -> dict[str, Any]:
    inner = value.get("__value__") if isinstance(value, dict) and value.get("__type__") == kind else None
    if not isinstance(inner, dict):
        raise _Wrong(f"no {kind} where one should be")
    return inner


def _unpack(data: str, limit: int) -> bytes:
    """Base64 of zlib, up to one byte more than the limit."""
    try:
        return zlib.decompressobj().decompress(base64.b64decode(data, validate=True), limit + 1)
    except (binascii.Error, ValueError, zlib.error):
        raise _Wrong("a tensor that cannot be unpacked") from None


# Values


def join(
    requests: Sequence[Request], parts: Sequence[Part], found: Sequence[Sequence[Counts | Estimates]]
) -> list[tuple[FloatArray, FloatArray]]:
    """(values, standard errors) of every request, each (batch, m), from what the PUBs of all jobs gave."""
    answers: list[tuple[FloatArray, FloatArray]] = [
        (np.zeros((len(r.inputs), len(r.observables))), np.zeros((len(r.inputs), len(r.observables)))) for r in requests
    ]
    for part, pubs in zip(parts, found, strict=True):
        for piece in part.slices:
            rows, here = slice(piece.start, piece.stop), slice(piece.row, piece.row + piece.stop - piece.start)
            values, errors = answers[piece.request]
            given = pubs[piece.pub]
            if isinstance(given, Estimates):
                values[rows], errors[rows] = given.values[here], given.errors[here]
                continue
            request = requests[piece.request]
            for m, observable in enumerate(request.observables):
                strings = z_strings(observable, request.circuit.num_qubits)
                values[rows, m], errors[rows, m] = mean_of(given.array[here], strings)
    return answers


def mean_of(array: Bytes, strings: Sequence[ZString]) -> tuple[FloatArray, FloatArray]:
    """Means of a sum of Z strings over shots, (rows,), and their standard errors: sample deviation over sqrt(shots).

    Sums are exact (whole numbers, or math.fsum), so that they are the same on every machine.
    """
    rows, shots, width = array.shape
    signs = []
    for coefficient, qubits in strings:
        mask = np.zeros(width, dtype=np.uint8)
        for qubit in qubits:
            mask[width - 1 - qubit // 8] |= 1 << (qubit % 8)
        odd = np.bitwise_count(array & mask).sum(axis=2, dtype=np.int64) & 1
        signs.append((coefficient, 1 - 2 * odd))
    if len(signs) == 1:
        coefficient, sign = signs[0]
        mean = sign.sum(axis=1) / shots
        spread = (1.0 - mean) * (1.0 + mean)
        errors = np.sqrt(np.maximum(spread, 0.0) / max(shots - 1, 1))
        return coefficient * mean, abs(coefficient) * errors * (shots > 1)
    each = np.zeros((rows, shots))
    for coefficient, sign in signs:
        each += coefficient * sign
    means = np.array([math.fsum(row) / shots for row in each.tolist()])
    squares = np.array([math.fsum(row) for row in ((each - means[:, None]) ** 2).tolist()])
    return means, np.sqrt(squares / shots / max(shots - 1, 1)) * (shots > 1)
