"""Gates that a user has made are told apart by what they do, whatever they are called."""

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.circuit import Gate, Parameter
from qiskit.circuit.library import PauliEvolutionGate
from qiskit.quantum_info import Operator, SparsePauliOp, Statevector

from backends.catalog import get_target
from backends.observables import single_z
from backends.protocol import Request
from backends.twin.executor import TwinExecutor
from backends.twin.primitives.estimator import TwinEstimator
from backends.twin.primitives.prepare import fingerprint
from circuits.compile import compile_ansatz
from circuits.errors import QrunError
from circuits.types import Ansatz

IDEAL = get_target("ideal")
ZI = SparsePauliOp("ZI")


def named(angle: float, name: str = "foo") -> Gate:
    inner = QuantumCircuit(1, name=name)
    inner.rx(angle, 0)
    return inner.to_gate()


def plain(angle: float) -> Gate:
    return named(angle)


def controlled(angle: float) -> Gate:
    return named(angle).control(1)


def twice_controlled_inside(angle: float) -> Gate:
    inner = QuantumCircuit(2, name="outer")
    inner.append(named(angle).control(1), [0, 1])
    return inner.to_gate()


def evolution(angle: float) -> Gate:
    return PauliEvolutionGate(SparsePauliOp("XX", angle), time=0.7)


def named_like_qiskits(angle: float) -> Gate:
    return named(angle, "rz")


KINDS = [plain, controlled, twice_controlled_inside, evolution, named_like_qiskits]


def around(*gates: Gate) -> QuantumCircuit:
    circuit = QuantumCircuit(2)
    circuit.h(0)
    for gate in gates:
        circuit.append(gate, list(range(2 - gate.num_qubits, 2)))
        circuit.ry(0.4, 1)
    return circuit


@pytest.mark.parametrize("make", KINDS)
def test_gates_of_one_name_are_not_one_gate(make) -> None:
    estimator = TwinEstimator(IDEAL)
    circuits = [around(make(0.5)), around(make(1.5)), around(make(0.5), make(1.5))]
    got = [estimator.run([(circuit, ZI)]).result()[0].data.evs for circuit in circuits]
    expected = [Statevector(circuit).expectation_value(ZI).real for circuit in circuits]
    assert np.abs(np.subtract(got, expected)).max() < 1e-13
    assert abs(expected[0] - expected[1]) > 1e-3
    assert len({fingerprint(circuit) for circuit in circuits}) == 3
    assert fingerprint(circuits[0]) == fingerprint(around(make(0.5)))


def test_what_a_gate_is_controlled_on_counts() -> None:
    closed, opened = (around(named(0.5).control(1, ctrl_state=state)) for state in (1, 0))
    assert fingerprint(closed) != fingerprint(opened)
    engine, wanted = TwinExecutor(IDEAL), (ZI, SparsePauliOp("XY"))
    both = closed.compose(opened)
    compiled = compile_ansatz(Ansatz("both", both, (), ()), None, seed=1)
    (got,) = engine.run([Request(compiled, wanted, np.zeros((1, 0)), np.zeros(0))])
    exact = [Statevector(both).expectation_value(o).real for o in wanted]
    assert np.abs(got.values[0] - exact).max() < 1e-13


def test_gates_without_a_matrix() -> None:
    free = named(Parameter("a"))
    hidden = Gate("hidden", 1, [])
    hidden.definition = free.definition
    for gate, says in (
        (Gate("mine", 1, []), "'mine' has neither a matrix nor a definition.*gate.definition = circuit"),
        (hidden, "'hidden' has neither a matrix nor a definition without free parameters"),
    ):
        circuit = QuantumCircuit(1)
        circuit.append(gate, [0])
        with pytest.raises(QrunError, match=says):
            TwinEstimator(IDEAL).run([(circuit, SparsePauliOp("Z"))])
        compiled = compile_ansatz(Ansatz("own", circuit, (), ()), None, seed=1)
        with pytest.raises(QrunError, match=says):
            TwinExecutor(IDEAL).run([Request(compiled, single_z(1), np.zeros((1, 0)), np.zeros(0))])


@pytest.mark.parametrize("gate", [Gate("rz", 1, [Parameter("a")]), named(Parameter("a")).control(1)])
def test_free_parameters_of_own_gates_are_refused(gate: Gate) -> None:
    circuit = QuantumCircuit(2)
    circuit.append(gate, list(range(gate.num_qubits)))
    with pytest.raises(QrunError, match="cannot vary the parameter"):
        TwinEstimator(IDEAL).run([(circuit, ZI, [0.3])]).result()


def test_control_flow_and_wide_gates_are_refused_in_words() -> None:
    loop = QuantumCircuit(1, 1, name="loop")
    with loop.if_test((loop.clbits[0], 1)):
        loop.x(0)
    with pytest.raises(QrunError, match="loop has a 'if_else'"):
        TwinEstimator(IDEAL).run([(loop, SparsePauliOp("Z"))])
    wide = QuantumCircuit(3)
    wide.append(Gate("wide", 3, []), [0, 1, 2])
    with pytest.raises(QrunError, match="not 'wide' on 3"):
        TwinEstimator(IDEAL).run([(wide, SparsePauliOp("ZZZ"))]).result()


def test_a_devices_own_gate_of_any_name() -> None:
    """The matrix comes from the gate, the noise from the name."""
    gate = named(0.8, "sx")
    circuit = QuantumCircuit(5)
    circuit.append(gate, [0])
    usual = QuantumCircuit(5)
    usual.sx(0)
    estimator, z = TwinEstimator(get_target("fake_lima"), readout_error=False), SparsePauliOp("IIIIZ")
    got = estimator.run([(circuit, z)]).result()[0].data.evs
    assert Operator(gate).data[0, 0].real == pytest.approx(np.cos(0.4))
    assert 1e-5 < abs(np.cos(0.8) - got) < 1e-2
    assert abs(estimator.run([(usual, z)]).result()[0].data.evs) < 1e-2
