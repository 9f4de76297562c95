"""From requests to jobs and back: every row of every request is run once and comes back to its place."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qiskit.quantum_info import Operator, SparsePauliOp

from backends.observables import single_z
from backends.protocol import Request
from backends.runtime.pubs import Part, check, halves, parts, placed
from backends.runtime.results import Estimates, join
from backends.runtime.types import JobLimits, RuntimeOptions
from circuits.compile import compile_ansatz
from circuits.errors import QrunError, UsageError
from circuits.qgan import generator
from tests.backends.runtime.scripted import hardware

TARGET, SMALL = hardware()
OTHER = compile_ansatz(generator(2, reps=0), TARGET.backend, seed=5)


def request(which: int, batch: int, observables: int, seed: int) -> Request:
    circuit = (SMALL, OTHER)[which]
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(batch, len(circuit.weights)) if seed % 2 else len(circuit.weights))
    return Request(circuit, single_z(2)[:observables], rng.normal(size=(batch, 2)), weights)


REQUESTS = st.lists(
    st.builds(request, st.integers(0, 1), st.integers(0, 9), st.integers(1, 2), st.integers(0, 1000)), max_size=5
)


def told(part: Part) -> list[Estimates]:
    """As if an observable's value were the sum of the row's parameters, and its number."""
    found = []
    for pub in part.pubs:
        values = pub.values.sum(axis=1)[:, None] + np.arange(2)[None, : max(len(pub.observables), 1)]
        found.append(Estimates(values, values / 2))
    return found


@settings(max_examples=200, deadline=None)
@given(REQUESTS, st.integers(1, 12), st.booleans())
def test_every_row_comes_back_to_its_place(requests: list[Request], most: int, local: bool) -> None:
    options = RuntimeOptions(shots=8, resilience_level=0)
    made = parts(requests, TARGET, options, 1, local=local, limits=JobLimits(circuits=most))
    assert all(1 <= part.rows <= most for part in made)
    assert sum(part.rows for part in made) == sum(len(r.inputs) for r in requests)
    assert len({part.digest for part in made}) == len({part.path for part in made}) == len(made)
    for asked, (values, errors) in zip(requests, join(requests, made, [told(part) for part in made]), strict=True):
        weights = np.broadcast_to(asked.weights, (len(asked.inputs), len(asked.circuit.weights)))
        sums = asked.inputs.sum(axis=1) + weights.sum(axis=1)
        expected = sums[:, None] + np.arange(len(asked.observables))[None, :]
        np.testing.assert_allclose(values, expected, atol=1e-12)
        np.testing.assert_allclose(errors, expected / 2, atol=1e-12)


@settings(max_examples=50, deadline=None)
@given(REQUESTS, st.integers(1, 6))
def test_whoever_halves_finds_the_parts_without_knowing_the_limits(requests: list[Request], most: int) -> None:
    options = RuntimeOptions(shots=8)
    wanted = {p.digest for p in parts(requests, TARGET, options, 1, local=False, limits=JobLimits(circuits=most))}
    found, stack = set(), parts(requests, TARGET, options, 1, local=False, limits=JobLimits())
    while stack:
        part = stack.pop()
        if part.digest in wanted:
            found.add(part.digest)
            continue
        two = halves(part, TARGET, local=False)
        assert two is not None
        stack += two
    assert found == wanted


def test_what_shares_a_pub() -> None:
    asked = [request(0, 2, 1, 0), request(0, 3, 2, 1), request(1, 1, 1, 2)]
    (counts,) = parts(asked, TARGET, RuntimeOptions(), 1, local=False, limits=JobLimits())
    assert [pub.rows for pub in counts.pubs] == [5, 1]
    (estimates,) = parts(asked, TARGET, RuntimeOptions(resilience_level=1), 1, local=False, limits=JobLimits())
    assert [pub.rows for pub in estimates.pubs] == [2, 3, 1]
    locally = parts(asked, TARGET, RuntimeOptions(), 1, local=True, limits=JobLimits())
    devices = {r.circuit.physical_qubits for r in asked}
    assert len(locally) == len(devices)


def test_bases_count_against_the_executions() -> None:
    (asked,) = [request(0, 4, 2, 0)]
    rotated = Request(asked.circuit, (SparsePauliOp("XX"), SparsePauliOp("ZZ")), asked.inputs, asked.weights)
    limits = JobLimits(executions=4 * 64)
    options = RuntimeOptions(shots=64, resilience_level=0)
    assert len(parts([asked], TARGET, options, 1, local=False, limits=limits)) == 1
    assert len(parts([rotated], TARGET, options, 1, local=False, limits=limits)) == 2


def test_a_circuit_on_the_whole_device_does_what_it_does_on_its_own_qubits() -> None:
    """With observables that are laid out: the same expectation values, whatever the order of wires."""
    asked = request(0, 1, 2, 3)
    (part,) = parts([asked], TARGET, RuntimeOptions(resilience_level=0), 1, local=False, limits=JobLimits())
    (pub,) = part.pubs
    wide, laid = placed(pub, pub.circuit.physical_qubits, 5)
    width = len(pub.circuit.physical_qubits)
    narrow, own = placed(pub, range(width), width)
    assert laid is not None
    assert own is not None
    values = dict(zip(pub.parameters, pub.values[0], strict=True))
    for observable, small in zip(laid, own, strict=True):
        pair = []
        for circuit, what in ((wide, observable), (narrow, small)):
            state = Operator(circuit.assign_parameters(values)).data[:, 0]
            pair.append((state.conj() @ what.to_matrix() @ state).real)
        assert pair[0] == pytest.approx(pair[1], abs=1e-12)
    (sampled,) = parts([asked], TARGET, RuntimeOptions(), 1, local=False, limits=JobLimits())
    measured, _ = placed(sampled.pubs[0], pub.circuit.physical_qubits, 5)
    reads = {
        measured.find_bit(i.clbits[0]).index: measured.find_bit(i.qubits[0]).index
        for i in measured.data
        if i.operation.name == "measure"
    }
    assert reads == {v: pub.circuit.physical_qubits[w] for v, w in enumerate(pub.circuit.final_layout)}


@pytest.mark.parametrize("level", [None, 0])
def test_wrong_requests(level: int | None) -> None:
    good, options = request(0, 2, 1, 0), RuntimeOptions(resilience_level=level)
    check([good], options)
    with pytest.raises(UsageError, match="request 1: inputs"):
        check([good, Request(SMALL, single_z(2), np.zeros((2, 7)), good.weights)], options)
    with pytest.raises(UsageError, match="finite"):
        check([Request(SMALL, single_z(2), np.full((2, 2), np.nan), good.weights)], options)
    with pytest.raises(QrunError, match="3 qubits"):
        check([Request(SMALL, single_z(3), good.inputs, good.weights)], options)
    with pytest.raises(QrunError, match="real"):
        check([Request(SMALL, (SparsePauliOp("ZZ", 1j),), good.inputs, good.weights)], options)


def test_an_estimate_of_nothing() -> None:
    good = request(0, 2, 1, 0)
    nothing = Request(SMALL, (), good.inputs, good.weights)
    check([nothing], RuntimeOptions())
    with pytest.raises(UsageError, match="no observable"):
        check([nothing], RuntimeOptions(resilience_level=0))
