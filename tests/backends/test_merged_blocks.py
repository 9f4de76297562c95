"""Gates on one pair of wires with no free angle between them are one block: the same values, as quick as one gate."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.circuit.library import SXGate, XGate

from backends.catalog import get_target
from backends.observables import single_z
from backends.protocol import Request
from backends.twin import build
from backends.twin.build import build_program
from backends.twin.channels import Channels
from backends.twin.executor import TwinExecutor
from backends.twin.pauli import commutes_with_rz, ptm_of_unitary, rz, thermal_relaxation
from backends.twin.program import Program
from backends.twin.schedule import with_delays
from circuits.inverse import append_inverse
from circuits.types import Ansatz, CompiledCircuit
from tests.backends.isa import paulis
from tests.backends.reference import Evolution, compiled, draw

DEVICES = ["fake_kyiv", "fake_torino", "fake_lima"]
"""With ecr, cz and cx."""
EXACT = 1e-12


class _Forgetful(dict[int, int]):
    """Knows no block that another one could be merged with."""

    def get(self, *_: object) -> None:
        return None


@contextmanager
def unmerged() -> Iterator[None]:
    """Programs with a block for every gate, and a step for every rotation."""
    original = build._Builder.__init__

    def start(self: build._Builder, *args: object) -> None:
        original(self, *args)
        self.latest = _Forgetful()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build._Builder, "__init__", start)
        patch.setattr(build, "commutes_with_rz", lambda _: False)
        yield


def folded(circuit: CompiledCircuit, times: int = 1) -> CompiledCircuit:
    """Every gate but rz as G (G^-1 G)^times."""
    source, result = circuit.circuit, QuantumCircuit(circuit.circuit.num_qubits)
    for instruction in source.data:
        wires = [source.find_bit(qubit).index for qubit in instruction.qubits]
        result.append(instruction.operation, wires)
        if instruction.operation.name in ("rz", "barrier", "delay"):
            continue
        for _ in range(times):
            append_inverse(result, instruction, wires)
            result.append(instruction.operation, wires)
    return replace(circuit, circuit=result)


def mirrored(circuit: CompiledCircuit) -> CompiledCircuit:
    """C C^-1 C."""
    source, result = circuit.circuit, circuit.circuit.copy()
    for instruction in reversed(source.data):
        append_inverse(result, instruction, [source.find_bit(qubit).index for qubit in instruction.qubits])
    return replace(circuit, circuit=result.compose(source))


def on_device(circuit: QuantumCircuit, physical: tuple[int, ...]) -> CompiledCircuit:
    """A circuit on wires that are qubits of a device, its parameters as weights."""
    wires, ansatz = tuple(range(circuit.num_qubits)), Ansatz("hand", circuit, (), tuple(circuit.parameters))
    return CompiledCircuit(ansatz, circuit, (), ansatz.weights, physical, wires, wires, 0, 0, {})


def program_of(device: str, circuit: CompiledCircuit) -> Program:
    return build_program(circuit, Channels(get_target(device).backend.target, circuit.physical_qubits))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("idle", [False, True])
def test_a_folded_circuit_has_as_many_blocks_as_the_one_that_it_folds(device: str, idle: bool) -> None:
    plain = compiled(device, 3, 2, "linear")
    circuits = [plain, folded(plain), folded(plain, 2)]
    if idle:
        circuits = [with_delays(circuit, get_target(device).backend.target) for circuit in circuits]
    first, *others = (program_of(device, circuit) for circuit in circuits)
    for program in others:
        assert [(b.low, b.high) for b in program.blocks] == [(b.low, b.high) for b in first.blocks]
        assert program.inputs_come_first
        runs = zip((*first.first, *first.last), (*program.first, *program.last), strict=True)
        assert all(len(a.angles) == len(b.angles) for a, b in runs if a is not None and b is not None)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("path", ["heisenberg", "density"])
@pytest.mark.parametrize("idle", [False, True])
def test_values_gradients_and_derivatives_are_those_of_single_gates(device: str, path: str, idle: bool) -> None:
    circuit = folded(compiled(device, 3, 1, "linear"))
    inputs, weights = (torch.tensor(part, requires_grad=True) for part in draw(circuit, 3, 1))
    observables = paulis(3)

    def evaluate() -> list[np.ndarray]:
        engine = TwinExecutor(get_target(device), path=path, idle_noise=idle)
        values = engine.expectations(circuit, observables, inputs, weights)
        slopes = torch.autograd.grad(values.square().sum(), (inputs, weights))
        arrays = inputs.detach().numpy(), weights.detach().numpy()
        return [values.detach().numpy(), *(s.numpy() for s in slopes), *engine.jacobian(circuit, observables, *arrays)]

    merged = evaluate()
    with unmerged():
        single = evaluate()
    for a, b in zip(merged, single, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=EXACT)


def test_a_folded_circuit_against_qiskit() -> None:
    for device in DEVICES:
        circuit = folded(compiled(device, 3, 1, "linear"))
        inputs, weights = draw(circuit, 1, 2)
        (result,) = TwinExecutor(get_target(device)).run([Request(circuit, paulis(3), inputs, weights)])
        evolution = Evolution(get_target(device), circuit)
        expected = evolution.values(paulis(3), inputs[0], weights)
        off = 1e-11 + sum(abs(o.coeffs).sum() for o in paulis(3)) * evolution.dropped_by_aer()
        np.testing.assert_allclose(result.values[0], expected, rtol=0, atol=off)


def test_shots_are_drawn_from_the_same_distribution() -> None:
    circuit = folded(compiled("fake_kyiv", 3, 1, "linear"))
    request = Request(circuit, single_z(3), *draw(circuit, 2, 3))

    def sample() -> np.ndarray:
        return TwinExecutor(get_target("fake_kyiv"), shots=1000).run([request], seed=5)[0].values

    merged = sample()
    with unmerged():
        np.testing.assert_array_equal(sample(), merged)


@pytest.mark.parametrize("idle", [False, True])
def test_where_a_circuit_meets_its_inverse_the_rotations_cancel(idle: bool) -> None:
    circuit = mirrored(compiled("fake_kyiv", 2, 1, "linear"))
    inputs, weights = draw(circuit, 2, 4)
    request = Request(circuit, paulis(2), inputs, weights)
    merged = program_of("fake_kyiv", circuit)
    engine = TwinExecutor(get_target("fake_kyiv"), idle_noise=idle)
    (found,) = engine.run([request])
    with unmerged():
        single = program_of("fake_kyiv", circuit)
        (expected,) = TwinExecutor(get_target("fake_kyiv"), idle_noise=idle).run([request])
    np.testing.assert_allclose(found.values, expected.values, rtol=0, atol=EXACT)
    count = [sum(len(run.angles) for run in (*p.first, *p.last) if run is not None) for p in (merged, single)]
    between = [
        sum(len(r.angles) for b in p.blocks for r in (b.before_low, b.before_high) if r is not None)
        for p in (merged, single)
    ]
    assert sum(count) > 0
    assert count[0] + between[0] < count[1] + between[1]


def test_a_swap_is_one_block_and_a_gate_that_stands_between_keeps_blocks_apart() -> None:
    swap = QuantumCircuit(3)
    for a, b in ((0, 1), (1, 0), (0, 1)):
        swap.cx(a, b)
    assert len(program_of("fake_lima", on_device(swap, (0, 1, 2))).blocks) == 1
    between = QuantumCircuit(3)
    for a, b in ((0, 1), (1, 2), (0, 1)):
        between.cx(a, b)
    assert len(program_of("fake_lima", on_device(between, (0, 1, 2))).blocks) == 3
    free = QuantumCircuit(2)
    free.cx(0, 1)
    free.rz(Parameter("a"), 0)
    free.cx(0, 1)
    assert len(program_of("fake_lima", on_device(free, (0, 1))).blocks) == 2


def test_what_commutes_with_z_rotations() -> None:
    relaxed, turn = thermal_relaxation(1e-6, 1e-4, 7e-5), rz(0.3)
    for channel in (np.eye(4), relaxed, turn, relaxed @ relaxed):
        assert commutes_with_rz(channel)
        np.testing.assert_allclose(channel @ turn, turn @ channel, rtol=0, atol=1e-15)
    for gate in (SXGate(), XGate()):
        assert not commutes_with_rz(ptm_of_unitary(gate.to_matrix()))


GATES = st.one_of(
    st.tuples(st.just("rz"), st.sampled_from([0, 1, 2]), st.one_of(st.floats(-4, 4), st.sampled_from("ab"))),
    st.tuples(st.sampled_from(["sx", "x", "delay"]), st.sampled_from([0, 1, 2]), st.none()),
    st.tuples(st.just("cx"), st.sampled_from([(0, 1), (1, 0), (1, 2), (2, 1)]), st.none()),
)


@settings(max_examples=60, deadline=None)
@given(gates=st.lists(GATES, max_size=24))
def test_any_circuit_is_the_same_merged_or_not(gates: list[tuple[str, object, object]]) -> None:
    circuit, free = QuantumCircuit(3), {name: Parameter(name) for name in "ab"}
    for name, where, value in gates:
        if name == "rz":
            circuit.rz(free[value] if isinstance(value, str) else value, where)
        elif name == "delay":
            circuit.delay(300, where, unit="ns")
        else:
            getattr(circuit, name)(*(where if isinstance(where, tuple) else (where,)))
    hand = on_device(circuit, (0, 1, 2))
    weights = np.array([0.7, -1.9])[: len(hand.weights)]
    request = Request(hand, paulis(3), np.zeros((1, 0)), weights)
    (merged,) = TwinExecutor(get_target("fake_lima")).run([request])
    with unmerged():
        (single,) = TwinExecutor(get_target("fake_lima")).run([request])
    np.testing.assert_allclose(merged.values, single.values, rtol=0, atol=EXACT)
