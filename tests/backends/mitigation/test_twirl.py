"""Pauli twirling: tables against matrix algebra, the unitary unchanged, coherent errors made stochastic."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.circuit.library import CXGate, CZGate, ECRGate, RXXGate, SwapGate, TGate
from qiskit.quantum_info import Operator, Pauli

from backends.catalog import get_target
from backends.mitigation.paulis import NativePaulis, conjugation, times
from backends.mitigation.tokens import with_circuit
from backends.mitigation.twirl import MITIQ_TABLES, tables, twirled
from backends.mitigation.types import Asked
from backends.twin.pauli import ptm_of_unitary
from circuits.errors import QrunWarning, UsageError
from circuits.inverse import append_inverse
from tests.backends.mitigation.devices import DEVICES, around, compiled, expand, noiseless, request, technique, twin

GATES = {"cx": CXGate(), "cz": CZGate(), "ecr": ECRGate(), "swap": SwapGate()}


def pair(first: int, second: int) -> np.ndarray:
    """Matrix of two Paulis as qiskit orders qubits: the first is the last factor."""
    return Pauli("IXYZ"[second] + "IXYZ"[first]).to_matrix()


class Fixed:
    """A generator that draws one given pair for every gate."""

    def __init__(self, chosen: tuple[int, int]) -> None:
        self.chosen = chosen

    def integers(self, high: int, size: tuple[int, int]) -> np.ndarray:
        assert high == 4
        return np.tile(self.chosen, (size[0], 1))


def with_error(circuit: QuantumCircuit, error: np.ndarray) -> np.ndarray:
    """The unitary of a circuit on two qubits whose two-qubit gates are each followed by `error`."""
    total = np.eye(4, dtype=complex)
    for instruction in circuit.data:
        wires = [circuit.find_bit(qubit).index for qubit in instruction.qubits]
        one = QuantumCircuit(2)
        one.append(instruction.operation, wires)
        total = Operator(one).data @ total
        if len(wires) == 2:
            total = error @ total
    return total


@pytest.mark.parametrize("name", GATES)
def test_a_table_is_conjugation(name: str) -> None:
    matrix = Operator(GATES[name]).data
    table = conjugation(matrix)
    assert table is not None
    assert len(set(table.values())) == 16
    for before, after in table.items():
        product = pair(*after) @ matrix @ pair(*before) @ matrix.conj().T
        assert abs(np.trace(product)) == pytest.approx(4.0)
    if name in MITIQ_TABLES:
        assert MITIQ_TABLES[name] == table


def test_no_table_for_gates_that_are_not_clifford() -> None:
    assert conjugation(Operator(RXXGate(0.3)).data) is None
    assert conjugation(Operator(RXXGate(np.pi / 2)).data) is not None
    assert conjugation(np.kron(np.eye(2), TGate().to_matrix())) is None


def test_products_of_paulis() -> None:
    for a in range(4):
        for b in range(4):
            product = Pauli("IXYZ"[a]).to_matrix() @ Pauli("IXYZ"[b]).to_matrix()
            assert abs(np.trace(product.conj().T @ Pauli("IXYZ"[times(a, b)]).to_matrix())) == pytest.approx(2.0)


@pytest.mark.parametrize("device", [*DEVICES, "ideal"])
def test_every_instance_has_the_same_unitary(device: str) -> None:
    asked = request(device, 3, batch=1, reps=2)
    parts = expand(device, "twirl", asked, twirl_circuits=4).parts
    names = (*asked.circuit.inputs, *asked.circuit.weights)
    values = dict(zip(names, (*asked.inputs[0], *asked.weights), strict=True))
    plain = Operator(asked.circuit.circuit.assign_parameters(values))
    for part in parts:
        assert Operator(part.circuit.circuit.assign_parameters(values)).equiv(plain)
        assert part.circuit.circuit.count_ops() == part.circuit.gate_counts
        assert part.circuit.two_qubit_gates == asked.circuit.two_qubit_gates
    assert len({str(part.circuit.circuit.count_ops()) + str(part.circuit.circuit.data) for part in parts}) == 4
    np.testing.assert_allclose(around("ideal", "twirl").run([asked])[0].values, noiseless(asked), atol=1e-12)


def test_the_average_makes_a_coherent_error_stochastic() -> None:
    over_rotation = Operator(RXXGate(0.2)).data @ np.kron(np.eye(2), Operator.from_label("X").power(0.1).data)
    paulis = NativePaulis(get_target("ideal"))
    for name in ("cx", "cz", "ecr"):
        circuit = QuantumCircuit(2)
        circuit.append(GATES[name], [1, 0])
        found, ideal = tables(circuit), ptm_of_unitary(Operator(circuit).data)

        def error(chosen: tuple[int, int], circuit=circuit, found=found, ideal=ideal) -> np.ndarray:
            instance = twirled(circuit, found, paulis, Fixed(chosen))
            return ideal.T @ ptm_of_unitary(with_error(instance, over_rotation))

        once = error((0, 0))
        average = np.mean([error((p, q)) for p in range(4) for q in range(4)], axis=0)
        assert np.abs(once - np.diag(np.diag(once))).max() > 0.1
        np.testing.assert_allclose(average, np.diag(np.diag(once)), atol=1e-12)


def test_paulis_that_meet_are_one() -> None:
    folded = QuantumCircuit(2)
    for _ in range(3):
        folded.ecr(0, 1)
    parts = expand("fake_kyiv", "twirl", replace(request("fake_kyiv", 2), circuit=of(folded)), twirl_circuits=20).parts
    for part in parts:
        kinds = [tuple(instruction.qubits) for instruction in part.circuit.circuit.data if instruction.name == "x"]
        assert max([kinds.count(kind) for kind in set(kinds)], default=0) <= 4


def of(circuit: QuantumCircuit):
    return with_circuit(compiled("fake_kyiv", 2), circuit)


def test_gates_between_keep_paulis_apart() -> None:
    circuit = QuantumCircuit(2)
    for _ in range(2):
        circuit.cx(0, 1)
        circuit.barrier()
        circuit.sx(0)
    instance = twirled(circuit, tables(circuit), NativePaulis(get_target("ideal")), Fixed((1, 0)))
    assert [i.name for i in instance.data if instance.qubits[0] in i.qubits] == ["x", "cx", "x", "sx"] * 2
    assert Operator(instance).equiv(Operator(circuit))


@pytest.mark.parametrize("device", DEVICES)
def test_under_noise_a_value_moves_by_what_the_pulses_cost(device: str) -> None:
    asked = request(device, 3)
    plain = twin(device).run([asked])[0].values
    with_paulis = around(device, "twirl").run([asked])[0]
    assert 0 < np.abs(with_paulis.values - plain).mean() < 0.3 * np.abs(plain - noiseless(asked)).mean()
    assert with_paulis.metadata["circuits"] == 8 * len(asked.inputs)


def test_the_seed_says_which() -> None:
    asked = request("fake_kyiv", 3)

    def drawn(seed: int) -> list[str]:
        return [str(part.circuit.circuit.data) for part in expand("fake_kyiv", "twirl", asked, seed=seed).parts]

    state = np.random.get_state()[1].copy()
    assert drawn(3) == drawn(3)
    assert drawn(3) != drawn(4)
    np.testing.assert_array_equal(np.random.get_state()[1], state)


def test_u3_devices_have_paulis_too() -> None:
    target = replace(get_target("fake_lima"), native_gates=("cx", "id", "u1", "u2", "u3"))
    paulis = NativePaulis(target)
    assert paulis.pulse == "u3"
    for pauli in range(4):
        circuit = QuantumCircuit(1)
        paulis.append(circuit, pauli, 0)
        assert Operator(circuit).equiv(Pauli("IXYZ"[pauli]))
    with pytest.raises(UsageError, match="neither x nor u3"):
        NativePaulis(replace(target, native_gates=("cx", "rz", "h")))


def test_what_is_no_clifford_gate_is_left_and_said() -> None:
    both, only = QuantumCircuit(2), QuantumCircuit(2)
    both.rzz(0.3, 0, 1)
    both.cz(0, 1)
    only.rzz(0.3, 0, 1)
    with pytest.warns(QrunWarning, match="leaves 1 rzz"):
        assert list(tables(both)) == [1]
    with pytest.raises(UsageError, match="its two-qubit gates are rzz"):
        tables(only)
    with pytest.raises(UsageError, match="no two-qubit gates"):
        expand("fake_kyiv", "twirl", request("fake_kyiv", 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tables(compiled("fake_kyiv", 2).circuit)


@pytest.mark.parametrize("number", [0, -1, 2.0, True])
def test_a_number_of_instances_that_cannot_be(number: object) -> None:
    with pytest.raises(UsageError, match="twirl_circuits must be 1 or more"):
        technique("fake_kyiv", "twirl", twirl_circuits=number)


def test_a_folded_circuit_is_twirled_as_it_stands() -> None:
    asked = request("fake_kyiv", 3, reps=1)
    folded = QuantumCircuit(3)
    for instruction in asked.circuit.circuit.data:
        wires = [asked.circuit.circuit.find_bit(qubit).index for qubit in instruction.qubits]
        folded.append(instruction.operation, wires)
        if len(wires) == 2:
            append_inverse(folded, instruction, wires)
            folded.append(instruction.operation, wires)
    circuit = with_circuit(asked.circuit, folded)
    found = technique("fake_kyiv", "twirl").expand(Asked(circuit, asked.observables, asked.inputs, asked.weights))
    for part in found.parts:
        np.testing.assert_allclose(noiseless(replace(asked, circuit=part.circuit)), noiseless(asked), atol=1e-12)
