"""Pauli symmetries of ansaetze, against dense statevectors: none too many, and none missed."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qiskit import QuantumCircuit
from qiskit.circuit import Gate, Parameter
from qiskit.circuit.library import HGate, UnitaryGate, efficient_su2
from qiskit.quantum_info import Pauli, Statevector, random_clifford

from circuits.qgan import generator
from circuits.symmetry import pauli_symmetries, sentence
from circuits.types import Ansatz

CLIFFORDS = ("h", "s", "sdg", "x", "y", "z", "sx", "sxdg", "cx", "cy", "cz", "ecr", "swap", "iswap", "dcx")
SINGLE = ("rx", "ry", "rz", "p", "rxx", "ryy", "rzz", "rzx")
CONTROLLED = ("crx", "cry", "crz", "cp")
"""Several rotations by one parameter."""
ROTATIONS = (*SINGLE, *CONTROLLED)
NEUTRAL = ("rzz", "rxx", "ryy", "swap", "rz", "x", "cz", "p")
"""What keeps the parity Z...Z, up to its sign."""


def of(circuit: QuantumCircuit) -> Ansatz:
    return Ansatz("own", circuit, (), tuple(circuit.parameters))


def circuit_of(words: list[tuple[str, int, int]], qubits: int) -> QuantumCircuit:
    """Every rotation with a parameter of its own."""
    circuit = QuantumCircuit(qubits)
    for number, (name, place, step) in enumerate(words):
        first, second = place % qubits, (place + 1 + step % max(qubits - 1, 1)) % qubits
        angle = [Parameter(f"t{number}")] if name in ROTATIONS else []
        try:
            getattr(circuit, name)(*angle, first)
        except TypeError:
            if qubits > 1:
                getattr(circuit, name)(*angle, first, second)
    return circuit


def states(circuit: QuantumCircuit, count: int = 4) -> list[Statevector]:
    random = np.random.default_rng(7)
    draws = random.uniform(-np.pi, np.pi, (count, circuit.num_parameters))
    return [Statevector(circuit.assign_parameters(draw)) for draw in draws]


def group(ansatz: Ansatz) -> dict[str, int]:
    """All products of the generators, but the identity: label -> sign."""
    found, out = pauli_symmetries(ansatz), {}
    for size in range(1, len(found) + 1):
        for some in itertools.combinations(found, size):
            product = Pauli("I" * ansatz.circuit.num_qubits)
            for each in some:
                product = product @ (Pauli(each.label) if each.sign > 0 else -Pauli(each.label))
            assert product.phase in (0, 2)  # they commute
            out[str(Pauli((product.z, product.x)))] = 1 if product.phase == 0 else -1
    assert len(out) == 2 ** len(found) - 1  # they are independent
    return out


def by_hand(circuit: QuantumCircuit) -> dict[str, int]:
    """All Pauli strings of which random states of the circuit are eigenstates with the same eigenvalue."""
    every = states(circuit)
    out = {}
    for letters in itertools.product("IXYZ", repeat=circuit.num_qubits):
        label = "".join(letters)
        values = [float(state.expectation_value(Pauli(label)).real) for state in every]
        if set(letters) != {"I"} and (np.allclose(values, 1) or np.allclose(values, -1)):
            out[label] = round(values[0])
    return out


def lists(names: tuple[str, ...]) -> st.SearchStrategy[list[tuple[str, int, int]]]:
    return st.lists(st.tuples(st.sampled_from(names), st.integers(0, 2), st.integers(0, 2)), max_size=10)


neutral = lists(NEUTRAL)


@settings(max_examples=60)
@given(lists(CLIFFORDS + SINGLE) | neutral, st.integers(1, 3))
def test_they_are_all_that_dense_states_have(words: list[tuple[str, int, int]], qubits: int) -> None:
    circuit = circuit_of(words, qubits)
    everything = group(of(circuit))
    assert everything == by_hand(circuit)
    # What is made of Z and I comes first, and as much of it as there is.
    plain = [set(each.label) <= set("IZ") for each in pauli_symmetries(of(circuit))]
    assert plain == sorted(plain, reverse=True)
    assert 2 ** sum(plain) - 1 == sum(set(label) <= set("IZ") for label in everything)


@settings(max_examples=40)
@given(lists(CLIFFORDS + ROTATIONS), st.integers(1, 3))
def test_with_controlled_rotations_none_too_many(words: list[tuple[str, int, int]], qubits: int) -> None:
    circuit = circuit_of(words, qubits)
    assert group(of(circuit)).items() <= by_hand(circuit).items()


@settings(max_examples=30)
@given(neutral, st.integers(0, 7))
def test_parity_is_kept_and_found(words: list[tuple[str, int, int]], prepared: int) -> None:
    circuit = QuantumCircuit(3)
    for qubit in range(3):
        if prepared >> qubit & 1:
            circuit.x(qubit)
    circuit.compose(circuit_of([word for word in words if word[0] not in ("x", "rx")], 3), inplace=True)
    assert group(of(circuit))["ZZZ"] == (-1) ** prepared.bit_count()


@settings(max_examples=20)
@given(st.integers(0, 10**6))
def test_stabilisers_of_a_random_clifford_state(seed: int) -> None:
    clifford = random_clifford(3, seed=seed)
    stabilisers = {label[1:]: 1 if label[0] == "+" else -1 for label in clifford.to_labels(mode="S")}
    for circuit in (clifford.to_circuit(), QuantumCircuit(3).compose(clifford.to_instruction(), range(3))):
        found = group(of(circuit))
        assert len(found) == 7
        assert stabilisers.items() <= found.items()


@pytest.mark.parametrize("qubits", [1, 2, 4, 6])
def test_the_generator_has_none_and_says_so(qubits: int) -> None:
    ansatz = generator(qubits)
    assert pauli_symmetries(ansatz) == ()
    assert f"{ansatz.name} has no Pauli symmetry" in sentence(ansatz)
    assert "rzz, rxx and ryy" in sentence(ansatz)


def test_words_for_what_there_is() -> None:
    circuit = QuantumCircuit(2)
    circuit.x(0)
    circuit.rzz(Parameter("a"), 0, 1)
    assert sentence(of(circuit)) == "own has 2 independent Pauli symmetries: -IZ, +ZI (qubit 0 last)."
    circuit.rxx(Parameter("b"), 0, 1)
    assert sentence(of(circuit)) == "own has one Pauli symmetry: -ZZ (qubit 0 last)."


def test_bound_angles_quarters_of_a_turn_are_clifford_gates() -> None:
    quarter, other, close = QuantumCircuit(1), QuantumCircuit(1), QuantumCircuit(1)
    quarter.ry(np.pi / 2, 0)
    other.ry(0.3, 0)
    close.ry(np.pi / 2 + 1e-6, 0)
    assert [str(each) for each in pauli_symmetries(of(quarter))] == ["+X"]
    assert pauli_symmetries(of(other)) == pauli_symmetries(of(close)) == ()
    euler = QuantumCircuit(1)
    euler.u(np.pi / 2, Parameter("a"), np.pi, 0)
    assert pauli_symmetries(of(euler)) == ()
    euler = QuantumCircuit(1)
    euler.u(np.pi, Parameter("a"), 0.3, 0)
    assert [str(each) for each in pauli_symmetries(of(euler))] == ["-Z"]


def test_gates_with_a_definition_are_seen_through() -> None:
    inner = QuantumCircuit(2, name="mine")
    inner.rzz(Parameter("a"), 0, 1)
    inner.rxx(Parameter("b"), 0, 1)
    circuit = QuantumCircuit(3)
    circuit.append(inner.to_gate(), [2, 0])
    assert {str(each) for each in pauli_symmetries(of(circuit))} == {"+ZIZ", "+IZI"}
    whole = QuantumCircuit(2)
    whole.append(efficient_su2(2, reps=1).to_gate(), [0, 1])
    assert pauli_symmetries(of(whole)) == ()
    toffoli = QuantumCircuit(3)  # of h, t and cx: what is found of it is right
    toffoli.ccx(0, 1, 2)
    assert group(of(toffoli)).items() <= by_hand(toffoli).items()


def test_what_is_no_known_gate_ends_the_symmetries_of_its_qubits_alone() -> None:
    random = np.linalg.qr(np.random.default_rng(1).normal(size=(4, 4)))[0]
    for what in (UnitaryGate(random), Gate("unknown", 2, [])):
        circuit = QuantumCircuit(3)
        circuit.append(what, [0, 1])
        assert [str(each) for each in pauli_symmetries(of(circuit))] == ["+ZII"]
    measured = QuantumCircuit(2, 1)
    measured.measure(0, 0)
    measured.reset(0)
    assert [str(each) for each in pauli_symmetries(of(measured))] == ["+ZI"]


def test_a_gate_of_ones_own_is_not_taken_for_its_namesake() -> None:
    body = QuantumCircuit(1)
    body.ry(0.4, 0)
    false = Gate("x", 1, [])
    false.definition = body
    circuit = QuantumCircuit(1)
    circuit.append(false, [0])
    assert pauli_symmetries(of(circuit)) == ()
    rotation = Gate("rz", 1, [Parameter("a")])
    circuit = QuantumCircuit(1)
    circuit.append(rotation, [0])
    assert pauli_symmetries(of(circuit)) == ()
    known = QuantumCircuit(1)
    known.append(UnitaryGate(HGate().to_matrix()), [0])
    assert [str(each) for each in pauli_symmetries(of(known))] == ["+X"]
