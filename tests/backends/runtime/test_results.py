"""Bytes of results: what the decoders take, and that nothing else gets through."""

from __future__ import annotations

import base64
import json
import tracemalloc
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.observables import single_z, z_strings
from backends.protocol import Request
from backends.runtime.executor import RuntimeExecutor
from backends.runtime.ledger import MemoryLedger
from backends.runtime.local import LocalClient
from backends.runtime.pubs import Part, parts
from backends.runtime.results import Counts, decode, join, mean_of
from backends.runtime.types import JobLimits, RuntimeContext, RuntimeOptions
from circuits.errors import QrunError
from tests.backends.runtime.scripted import answer, hardware, requests, tensor

TARGET, COMPILED = hardware()
SHOTS = RuntimeOptions(shots=16)


def part_of(asked: list[Request] | None = None, options: RuntimeOptions = SHOTS, local: bool = False) -> Part:
    (part,) = parts(asked or requests(COMPILED), TARGET, options, 1, local=local, limits=JobLimits())
    return part


def local_result(options: RuntimeOptions = SHOTS) -> bytes:
    ledger = MemoryLedger()
    RuntimeExecutor(TARGET, RuntimeContext(options), ledger, LocalClient(TARGET)).run(requests(COMPILED), seed=1)
    return ledger.result(ledger.jobs()[0])


def test_the_services_counts_are_read_bit_by_bit() -> None:
    part = part_of()
    bits = np.unpackbits(
        np.frombuffer(zlib.decompress(base64.b64decode(tree()["data"][0]["results"]["c"]["data"])), np.uint8),
        bitorder="little",
    )[: 3 * 16 * 2].reshape(3, 16, 2)
    (counts,) = decode(part, answer(part), local=False)
    assert isinstance(counts, Counts)
    # Column v of the register is virtual qubit v.
    np.testing.assert_array_equal(counts.array[..., 0], bits[..., 0] + 2 * bits[..., 1])
    ((values, errors),) = join(requests(COMPILED), [part], [[counts]])
    signs = 1.0 - 2.0 * bits
    np.testing.assert_allclose(values, signs.mean(axis=1), atol=1e-15)
    np.testing.assert_allclose(errors, signs.std(axis=1, ddof=1) / 4, atol=1e-15)


def tree() -> dict[str, Any]:
    return dict(json.loads(answer(part_of())))


def _set(path: list[Any], value: Any) -> bytes:
    changed = tree()
    where: Any = changed
    for key in path[:-1]:
        where = where[key]
    where[path[-1]] = value
    return json.dumps(changed).encode()


RESULTS = ["data", 0, "results"]


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b"<html>502</html>",
        b'{"schema_version": "v2.0"}',
        b"[" * 100_000,
        _set(["semantic_role"], "estimator_v2"),
        _set(["semantic_role"], None),
        _set(["schema_version"], "v9.9"),
        _set(["program"], {"id": "executor"}),
        _set(["data"], []),
        _set(["data"], tree()["data"] * 2),
        _set(["data"], [{"results": {}, "metadata": {}}]),
        _set(["metadata", "chunk_timing"], [{"__type__": "settings", "__module__": "os", "__value__": {}}]),
        _set(["passthrough_data"], {"post_processor": None}),
        _set(["passthrough_data"], {"post_processor": {"__type__": "QuantumCircuit", "__value__": "eJwDAAAAAAE="}}),
        _set(RESULTS, {"d": tensor(np.zeros((3, 16, 2), dtype=bool))}),
        _set([*RESULTS, "c"], tensor(np.zeros((3, 15, 2), dtype=bool))),
        _set([*RESULTS, "c"], tensor(np.zeros((2, 16, 2), dtype=bool))),
        _set([*RESULTS, "c"], tensor(np.zeros((3, 16, 3), dtype=bool))),
        _set([*RESULTS, "c"], tensor(np.zeros((3, 2, 16), dtype=bool))),
        _set([*RESULTS, "c", "shape"], [3, 16, -2]),
        _set([*RESULTS, "c", "shape"], [2**62, 2**62]),
        _set([*RESULTS, "c", "data"], "!!!"),
        _set([*RESULTS, "c", "data"], base64.b64encode(b"not packed").decode()),
        _set([*RESULTS, "c", "dtype"], "f64"),
        _set([*RESULTS, "c", "dtype"], "object"),
    ],
)
def test_what_is_no_result_of_the_service_is_refused(raw: bytes) -> None:
    with pytest.raises(QrunError, match="the result of a job"):
        decode(part_of(), raw, local=False)


def test_a_tensor_that_unpacks_to_gigabytes_is_refused_before_it_does() -> None:
    bomb = base64.b64encode(zlib.compress(bytes(2**28), 9)).decode()
    raw = _set([*RESULTS, "c"], {"data": bomb, "shape": [2**31], "dtype": "bool"})
    tracemalloc.start()
    try:
        with pytest.raises(QrunError, match="larger"):
            decode(part_of(), raw, local=False)
        assert tracemalloc.get_traced_memory()[1] < 200 * 2**20
    finally:
        tracemalloc.stop()


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_any_bytes(raw: bytes) -> None:
    for local in (False, True):
        with pytest.raises(QrunError):
            decode(part_of(local=local), raw, local=local)


@settings(max_examples=150, deadline=None)
@given(st.data(), st.booleans(), st.sampled_from([None, 0]))
def test_damage(data: st.DataObject, local: bool, level: int | None) -> None:
    """A changed byte gives counts of the right shape, or one line that says no."""
    local = local or level == 0
    options = RuntimeOptions(shots=16, resilience_level=level)
    part = part_of(options=options, local=local)
    raw = bytearray(_KEPT[level] if local else answer(part))
    where = data.draw(st.integers(0, len(raw) - 1))
    raw[where] = data.draw(st.integers(32, 126))
    try:
        (found,) = decode(part, bytes(raw), local=local)
    except QrunError:
        return
    if isinstance(found, Counts):
        assert found.array.shape == (3, 16, 1)
        assert found.array.max() < 4
    else:
        assert found.values.shape == found.errors.shape == (3, 2)
        assert np.isfinite(found.values).all()


_KEPT = {level: local_result(RuntimeOptions(shots=16, resilience_level=level)) for level in (None, 0)}


def test_a_local_result_that_is_not_of_this_request() -> None:
    with pytest.raises(QrunError, match="none of what was asked"):
        decode(part_of(requests(COMPILED, batch=4), local=True), _KEPT[None], local=True)
    with pytest.raises(QrunError, match="none of what was asked"):
        decode(part_of(options=RuntimeOptions(shots=17), local=True), _KEPT[None], local=True)
    with pytest.raises(QrunError, match="none of what was asked"):
        decode(part_of(options=RuntimeOptions(shots=16, resilience_level=1), local=True), _KEPT[None], local=True)


def test_an_extrapolation_that_knows_no_error_gets_the_norm_of_its_observable() -> None:
    from qiskit.primitives.containers import DataBin, PrimitiveResult, PubResult

    from backends.runtime.local import encode

    asked = [Request(COMPILED, tuple(3 * z for z in single_z(2)), r.inputs, r.weights) for r in requests(COMPILED)]
    part = part_of(asked, RuntimeOptions(shots=16, resilience_level=2), local=True)

    def raw(evs: float, stds: float) -> bytes:
        data = DataBin(evs=np.full((3, 2), evs), stds=np.full((3, 2), stds), shape=(3, 2))
        return encode(PrimitiveResult([PubResult(data)]))

    (found,) = decode(part, raw(0.5, np.inf), local=True)
    assert (found.errors == 3.0).all()  # type: ignore[union-attr]
    for evs, stds in ((np.nan, 0.1), (np.inf, 0.1), (0.5, -0.1)):
        with pytest.raises(QrunError):
            decode(part, raw(evs, stds), local=True)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 20), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_means_and_errors_are_those_of_the_shots(qubits: int, shots: int, seed: int) -> None:
    from qiskit.primitives.containers import BitArray
    from qiskit.quantum_info import SparsePauliOp

    rng = np.random.default_rng(seed)
    bits = rng.random((2, shots, qubits)) < 0.4
    array = BitArray.from_bool_array(bits, order="little").array
    labels = ["".join(rng.choice(["I", "Z"], qubits)) for _ in range(3)]
    for observable in (SparsePauliOp(labels[0], 1.5), SparsePauliOp(labels, rng.normal(size=3))):
        strings = z_strings(observable, qubits)
        values, errors = mean_of(array, strings)
        each = sum(c * (1 - 2 * (bits[..., list(on)].sum(axis=2) % 2)) for c, on in strings)
        np.testing.assert_allclose(values, each.mean(axis=1), atol=1e-12)
        expected = each.std(axis=1, ddof=1) / np.sqrt(shots) if shots > 1 else np.zeros(2)
        np.testing.assert_allclose(errors, expected, atol=1e-7)
