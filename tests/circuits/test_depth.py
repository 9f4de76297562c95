"""Circuits within a depth: the same unitary on the same outputs, and a plain answer where there is none."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.quantum_info import Operator
from qiskit_ibm_runtime.fake_provider import FakeKyiv, FakeTorino

from circuits.compile import _shallower, compile_ansatz
from circuits.depth import push_rotations, sum_rotations
from circuits.errors import QrunError, UsageError
from circuits.qgan import generator
from circuits.types import Ansatz, CompiledCircuit
from tests.circuits.test_compile import same_state, uncalibrated

DEVICES = {"kyiv": FakeKyiv(), "torino": FakeTorino()}
A, B = Parameter("a"), Parameter("b")
GATES = st.one_of(
    st.tuples(st.sampled_from(["rz", "rz", "ry", "rx"]), st.integers(0, 2), st.sampled_from([A, B, -A, 0.3, np.pi])),
    st.tuples(st.sampled_from(["sx", "x", "h"]), st.integers(0, 2), st.none()),
    st.tuples(st.sampled_from(["cz", "cx", "ecr", "swap"]), st.permutations([0, 1, 2]), st.none()),
    st.tuples(st.just("rzz"), st.permutations([0, 1, 2]), st.just(0.7)),
    st.tuples(st.just("barrier"), st.none(), st.none()),
)


def circuit_of(gates: list[tuple]) -> QuantumCircuit:
    circuit = QuantumCircuit(3)
    for name, where, angle in gates:
        if name == "barrier":
            circuit.barrier()
            continue
        wires = where[:2] if isinstance(where, list) else [where]
        getattr(circuit, name)(*([] if angle is None else [angle]), *wires)
    return circuit


@settings(max_examples=150)
@given(gates=st.lists(GATES, max_size=20), keep=st.sampled_from([(), (A,), (A, B)]))
def test_summed_and_pushed_rotations_are_the_same_unitary(gates: list[tuple], keep: tuple[Parameter, ...]) -> None:
    circuit = circuit_of(gates)
    values = {A: 0.81, B: -2.3}

    def unitary(of: QuantumCircuit) -> Operator:
        return Operator(of.assign_parameters({p: v for p, v in values.items() if p in of.parameters}))

    for made in (sum_rotations(circuit), push_rotations(circuit, keep)):
        assert unitary(made).equiv(unitary(circuit))
        assert made.size() <= circuit.size()
        others = [{n: c for n, c in of.count_ops().items() if n not in ("rx", "ry", "rz")} for of in (made, circuit)]
        assert others[0] == others[1]


def test_what_meets_is_one_and_what_cancels_is_gone() -> None:
    circuit = QuantumCircuit(2)
    circuit.rz(A, 0)
    circuit.ecr(0, 1)
    circuit.rz(A, 0)  # the first arrives here as -a
    circuit.rz(B, 1)
    circuit.cz(0, 1)
    circuit.rz(0.5, 1)
    pushed = push_rotations(circuit, ())
    assert [(i.operation.name, i.operation.params) for i in pushed.data] == [
        ("ecr", []),
        ("cz", []),
        ("rz", [B + 0.5]),
    ]
    kept = push_rotations(circuit, (B,))
    assert [i.operation.name for i in kept.data] == ["ecr", "rz", "cz", "rz"]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("entanglement", ["reverse_linear", "full"])
def test_a_limit_that_holds_changes_nothing(device: str, entanglement: str) -> None:
    ansatz = generator(4, 1, entanglement)
    plain = compile_ansatz(ansatz, DEVICES[device], seed=3)
    limited = compile_ansatz(ansatz, DEVICES[device], seed=3, max_depth=plain.depth)
    assert limited == plain


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("entanglement", ["reverse_linear", "full"])
def test_a_shallower_circuit_is_the_ansatz_all_the_same(device: str, entanglement: str) -> None:
    ansatz, backend = generator(4, 1, entanglement), DEVICES[device]
    plain = compile_ansatz(ansatz, backend, seed=0)
    summed = min(form.depth for form in _shallower(plain))
    assert summed < plain.depth
    found = compile_ansatz(ansatz, backend, seed=0, max_depth=summed)
    assert found.depth == found.circuit.depth() <= summed
    assert (found.physical_qubits, found.two_qubit_gates) == (plain.physical_qubits, plain.two_qubit_gates)
    for circuit in (found, *_shallower(plain)):
        check(circuit, backend)


@pytest.mark.parametrize(("device", "qubits", "reps"), [("torino", 4, 1), ("kyiv", 4, 1), ("kyiv", 4, 2)])
def test_a_limit_that_takes_further_tries(device: str, qubits: int, reps: int) -> None:
    """Full entanglement needs SWAPs: which, hangs on seeds and levels."""
    ansatz, backend = generator(qubits, reps, "full"), DEVICES[device]
    first = min(form.depth for form in _shallower(compile_ansatz(ansatz, backend, seed=0)))
    found = compile_ansatz(ansatz, backend, seed=0, max_depth=first - 4)
    assert found.depth <= first - 4
    assert len(found.physical_qubits) == qubits
    check(found, backend)
    assert compile_ansatz(ansatz, backend, seed=0, max_depth=first - 4) == found  # nothing here is left to chance


def check(compiled: CompiledCircuit, backend: object) -> None:
    random = np.random.default_rng(4)
    values = random.uniform(-np.pi, np.pi, len(compiled.inputs) + len(compiled.weights))
    assert same_state(compiled, values) < 1e-12
    assert not uncalibrated(compiled, backend)
    assert set(compiled.circuit.parameters) <= {*compiled.inputs, *compiled.weights}
    assert sum(compiled.gate_counts.values()) == compiled.circuit.size()


def test_inputs_stay_before_the_first_entangling_gate() -> None:
    ansatz = generator(3, 1, "linear", ("rz", "ry"))
    plain = compile_ansatz(ansatz, DEVICES["torino"], seed=0)
    for form in _shallower(plain):
        seen: set[int] = set()
        for instruction in form.circuit.data:
            wires = [form.circuit.find_bit(qubit).index for qubit in instruction.qubits]
            if len(wires) == 2:
                seen.update(wires)
            free = {p for value in instruction.operation.params for p in getattr(value, "parameters", ())}
            assert seen.isdisjoint(wires) or free.isdisjoint(form.inputs)


def test_a_limit_that_nothing_holds_names_the_least_depth_and_the_reps_that_do() -> None:
    backend = DEVICES["torino"]
    with pytest.raises(QrunError) as caught:
        compile_ansatz(generator(3, 4), backend, seed=0, max_depth=20)
    message = str(caught.value)
    least = int(re.search(r"has depth (\d+),", message).group(1))
    reps, needs = map(int, re.search(r"Take --reps (\d+), which needs (\d+)\.", message).groups())
    assert 20 < least < compile_ansatz(generator(3, 4), backend, seed=0).depth
    assert f"Or allow --max-depth {least}." in message
    assert "more than 20" in message
    assert "cz" in message
    assert needs <= 20
    held = compile_ansatz(generator(3, reps), backend, seed=0, max_depth=20)
    assert held.depth == needs
    with pytest.raises(QrunError):
        compile_ansatz(generator(3, reps + 1), backend, seed=0, max_depth=20)
    assert compile_ansatz(generator(3, 4), backend, seed=0, max_depth=least).depth == least


def test_what_else_it_says() -> None:
    with pytest.raises(QrunError, match=r"One repetition is the least\. A linear or reverse_linear entanglement"):
        compile_ansatz(generator(4, 1, "full"), DEVICES["torino"], seed=0, max_depth=5)
    with pytest.raises(QrunError, match="Not even a single repetition holds it"):
        compile_ansatz(generator(2, 3), DEVICES["torino"], seed=0, max_depth=2)
    circuit = QuantumCircuit(2)
    for _ in range(5):
        circuit.h(0)
        circuit.cx(0, 1)
    with pytest.raises(
        QrunError, match=r"for own on the ideal target has depth 10, more than 3.*Or allow --max-depth 10"
    ):
        compile_ansatz(Ansatz("own", circuit, (), ()), None, seed=0, max_depth=3)


@pytest.mark.parametrize("depth", [0, -3, 2.5, True, "9"])
def test_no_depth(depth: object) -> None:
    with pytest.raises(UsageError, match="max_depth must be a whole number, 1 or more"):
        compile_ansatz(generator(2, 1), DEVICES["torino"], seed=0, max_depth=depth)
