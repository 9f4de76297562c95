"""The echo ends where it started, in the device's own gates."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from qiskit import QuantumCircuit
from qiskit.circuit import Gate, Parameter
from qiskit.quantum_info import Operator, Statevector

from circuits.compile import compile_ansatz
from circuits.echo import echo, echo_observables, infidelity
from circuits.errors import QrunError
from circuits.inverse import append_inverse
from circuits.types import Ansatz
from tests.backends.reference import compiled, scattered


@pytest.mark.parametrize("device", ["fake_kyiv", "fake_torino", "fake_lima", "ideal"])
def test_there_and_back(device: str) -> None:
    forth = compiled(device, 3, 1, "full")
    back = echo(forth)
    assert (back.inputs, back.weights, back.physical_qubits) == (forth.inputs, forth.weights, forth.physical_qubits)
    assert back.final_layout == back.initial_layout == forth.initial_layout
    assert set(back.gate_counts) - {"barrier"} <= set(forth.gate_counts) | {"rz"}
    assert back.two_qubit_gates == 2 * forth.two_qubit_gates
    assert back.depth > 1.5 * forth.depth
    random = np.random.default_rng(1)
    bound = back.circuit.assign_parameters(random.uniform(-np.pi, np.pi, back.circuit.num_parameters))
    assert abs(Statevector(bound).data[0]) == pytest.approx(1.0, abs=1e-12)


def test_it_ends_where_it_started_also_where_routing_moved_qubits() -> None:
    forth = scattered("fake_kyiv", (0, 3, 6))
    assert forth.initial_layout != forth.final_layout
    assert echo(forth).final_layout == forth.initial_layout


NAMES = {
    "": "x y z h s sdg t sx sxdg id barrier",
    "p": "rz p rx ry",
    "w": "cx cy cz ch ecr swap iswap",
    "pw": "rxx ryy rzz rzx crz cp",
    "ppp": "u",
    "pp": "r",
}
"""A p for each parameter, a w for a second wire."""
GATES = sorted((name, kind) for kind, names in NAMES.items() for name in names.split())


@settings(max_examples=60)
@given(st.lists(st.sampled_from(GATES), max_size=8), st.integers(0, 1))
def test_every_inverse_is_one(gates: list[tuple[str, str]], first: int) -> None:
    """Up to a phase, at random angles."""
    circuit = QuantumCircuit(2)
    for number, (name, kind) in enumerate(gates):
        wires = [first, 1 - first] if "w" in kind else [first]
        getattr(circuit, name)(*(Parameter(f"a{number}_{k}") for k in range(kind.count("p"))), *wires)
    back = circuit.copy()
    for instruction in reversed(list(circuit.data)):
        append_inverse(back, instruction, [circuit.find_bit(qubit).index for qubit in instruction.qubits])
    bound = back.assign_parameters(np.random.default_rng(0).uniform(0.1, 3, back.num_parameters))
    assert Operator(bound).equiv(Operator(np.eye(4)))


def test_a_gate_without_a_known_inverse_is_refused() -> None:
    circuit = QuantumCircuit(1)
    circuit.append(Gate("own", 1, []), [0])
    with pytest.raises(QrunError, match="'own' has no inverse"):
        echo(compile_ansatz(Ansatz("own", circuit, (), ()), None, seed=0))


def test_the_figure_is_half_of_what_two_passes_lose() -> None:
    (observable,) = echo_observables(4)
    assert observable.num_qubits == 4
    np.testing.assert_allclose(observable.coeffs, 0.25)
    assert float(infidelity(torch.tensor([[1.0], [0.8]]))) == pytest.approx(0.025)
