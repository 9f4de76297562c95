"""Native circuits as tokens and back: the same instructions, and inverses that undo every native gate."""

from __future__ import annotations

import cirq
import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.circuit import Gate, Parameter
from qiskit.circuit.library import (
    CXGate,
    CZGate,
    ECRGate,
    HGate,
    RXGate,
    RYGate,
    RZGate,
    RZZGate,
    SdgGate,
    SGate,
    SwapGate,
    SXdgGate,
    SXGate,
    TGate,
    XGate,
)
from qiskit.quantum_info import Operator

from backends.mitigation.tokens import Token, from_tokens, quiet, to_tokens, with_circuit
from circuits.errors import QrunError
from tests.backends.mitigation.devices import DEVICES, compiled
from tests.backends.reference import scattered

GATES = (XGate(), SXGate(), SXdgGate(), HGate(), SGate(), SdgGate(), TGate(), RXGate(0.3), RYGate(0.4), RZGate(0.5))
PAIRS = (CXGate(), CZGate(), ECRGate(), RZZGate(0.6), SwapGate())


def same_unitary(one: QuantumCircuit, other: QuantumCircuit) -> bool:
    """Up to a global phase."""
    free = sorted(one.parameters, key=lambda each: each.name)
    angles = dict(zip(free, np.random.default_rng(0).uniform(-3, 3, len(free)), strict=True))
    first, second = (
        Operator(each.assign_parameters({p: v for p, v in angles.items() if p in each.parameters}))
        for each in (one, other)
    )
    return bool(first.equiv(second))


def by_wire(circuit: QuantumCircuit) -> list[list[tuple[str, tuple[object, ...], tuple[int, ...]]]]:
    """What each wire sees, in order: two circuits with the same lists are the same circuit."""
    seen: list[list[tuple[str, tuple[object, ...], tuple[int, ...]]]] = [[] for _ in circuit.qubits]
    for instruction in circuit.data:
        where = tuple(circuit.find_bit(qubit).index for qubit in instruction.qubits)
        for wire in where:
            seen[wire].append((instruction.operation.name, tuple(instruction.operation.params), where))
    return seen


@pytest.mark.parametrize("device", DEVICES)
def test_there_and_back(device: str) -> None:
    circuit = compiled(device, 4).circuit
    back = from_tokens(to_tokens(circuit), circuit)
    assert by_wire(back) == by_wire(circuit)
    assert back.global_phase == circuit.global_phase
    assert list(back.parameters) == list(circuit.parameters)


def test_a_routed_circuit_there_and_back() -> None:
    routed = scattered("fake_kyiv", (0, 2, 4, 15))
    assert routed.initial_layout != routed.final_layout
    assert len(routed.physical_qubits) > routed.num_qubits
    assert by_wire(from_tokens(to_tokens(routed.circuit), routed.circuit)) == by_wire(routed.circuit)
    again = with_circuit(routed, from_tokens(to_tokens(routed.circuit), routed.circuit))
    assert (again.initial_layout, again.final_layout) == (routed.initial_layout, routed.final_layout)
    assert (again.depth, again.two_qubit_gates, again.gate_counts) == (
        routed.depth,
        routed.two_qubit_gates,
        routed.gate_counts,
    )


@pytest.mark.parametrize("gate", [*GATES, *PAIRS], ids=lambda gate: gate.name)
def test_a_token_and_its_inverse_are_nothing(gate: Gate) -> None:
    for wires in ([0, 1], [1, 0]):
        circuit = QuantumCircuit(2)
        circuit.append(gate, wires[: gate.num_qubits])
        tokens = to_tokens(circuit)
        both = from_tokens(tokens + cirq.inverse(tokens), circuit)
        assert same_unitary(both, QuantumCircuit(2))
        # Inverted twice, it is the token that it was: no chain of inverses grows.
        assert cirq.inverse(cirq.inverse(tokens)) == tokens


@pytest.mark.parametrize("device", DEVICES)
def test_a_native_circuit_and_its_inverse_are_nothing(device: str) -> None:
    circuit = compiled(device, 3).circuit
    tokens = to_tokens(circuit)
    assert same_unitary(from_tokens(tokens + cirq.inverse(tokens), circuit), QuantumCircuit(circuit.num_qubits))
    back = from_tokens(cirq.inverse(tokens), circuit)
    # As noisy as the circuit: no pulse more, none less.
    kept = [name for name in circuit.count_ops() if name != "rz"]
    assert {name: back.count_ops()[name] for name in kept} == {name: circuit.count_ops()[name] for name in kept}


def test_barriers_go_and_delays_stay() -> None:
    circuit = QuantumCircuit(2)
    circuit.sx(0)
    circuit.barrier()
    circuit.delay(100, 1, unit="dt")
    circuit.cx(0, 1)
    back = from_tokens(to_tokens(circuit), circuit)
    assert dict(back.count_ops()) == {"sx": 1, "delay": 1, "cx": 1}
    (delay,) = (each.operation for each in back.data if each.operation.name == "delay")
    assert (delay.duration, delay.unit) == (100, "dt")
    inverse = from_tokens(cirq.inverse(to_tokens(circuit)), circuit)
    assert [each.operation.name for each in inverse.data if each.operation.name == "delay"] == ["delay"]


def test_what_has_no_errors_is_quiet() -> None:
    circuit = QuantumCircuit(2)
    circuit.rz(Parameter("a"), 0)
    circuit.sx(0)
    circuit.delay(100, 1, unit="dt")
    circuit.id(1)
    circuit.cz(0, 1)
    places = {token.place for token in quiet(to_tokens(circuit))}
    # A calibration has an error for the identity, which is a wait of a pulse's length: the twin and Aer apply it.
    assert places == {0, 2}


def test_tokens_are_told_apart_by_their_place() -> None:
    assert Token(1, 1) == Token(1, 1)
    assert Token(1, 1) != Token(2, 1)
    assert Token(1, 1) ** -1 != Token(1, 1)
    assert (Token(1, 2) ** -1) ** -1 == Token(1, 2)
    assert len({Token(1, 1), Token(1, 1), Token(1, 1) ** -1}) == 2


def test_a_gate_without_an_inverse_is_said() -> None:
    circuit = QuantumCircuit(1)
    circuit.append(Gate("pulse", 1, []), [0])
    with pytest.raises(QrunError, match="'pulse' has no inverse"):
        from_tokens(cirq.inverse(to_tokens(circuit)), circuit)


def test_a_gate_of_mitiqs_own_is_said_or_written_down() -> None:
    circuit = QuantumCircuit(1)
    circuit.sx(0)
    tokens = to_tokens(circuit) + cirq.Circuit(cirq.X(cirq.LineQubit(0)))
    with pytest.raises(QrunError, match="stands for none of the device's"):
        from_tokens(tokens, circuit)
    back = from_tokens(tokens, circuit, lambda into, gate, wires: into.x(wires[0]))
    assert [each.operation.name for each in back.data] == ["sx", "x"]
