import numpy as np
import pytest
from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister
from qiskit.circuit import Parameter, ParameterVector

from backends.catalog import get_target
from backends.twin.primitives.isa import check_isa, final_measurements, from_isa, leading_parameters
from backends.twin.primitives.prepare import Preparer, as_dtype, as_target, fingerprint, terms_of
from circuits.errors import UsageError

LIMA = get_target("fake_lima")  # 0-1-2, 1-3-4; cx both ways


def wide() -> QuantumCircuit:
    a, b = Parameter("a"), Parameter("b")
    circuit = QuantumCircuit(5, 2, name="wide")
    circuit.rz(a, 3)
    circuit.sx(3)
    circuit.barrier()
    circuit.cx(3, 1)
    circuit.rz(b, 1)
    circuit.delay(100, 0)
    circuit.measure([1, 3], [0, 1])
    return circuit


def test_renumbers_onto_the_qubits_in_use() -> None:
    circuit = wide()
    compiled = from_isa(circuit, [circuit.parameters[0]], qubits=(4,))
    assert compiled.physical_qubits == (0, 1, 3, 4), "qubit 0 has a delay beside a barrier"
    assert compiled.initial_layout == compiled.final_layout == (1, 2, 3)
    assert [p.name for p in compiled.inputs] == ["a"]
    assert [p.name for p in compiled.weights] == ["b"]
    found = [
        (i.operation.name, tuple(compiled.circuit.find_bit(q).index for q in i.qubits)) for i in compiled.circuit.data
    ]
    assert found == [
        ("rz", (2,)),
        ("sx", (2,)),
        ("barrier", (0, 1, 2, 3)),
        ("cx", (2, 1)),
        ("rz", (1,)),
        ("delay", (0,)),
    ]
    assert (compiled.two_qubit_gates, compiled.num_qubits, compiled.gate_counts["rz"]) == (1, 3, 2)


def test_an_empty_circuit_keeps_a_wire() -> None:
    assert from_isa(QuantumCircuit(3)).physical_qubits == (0,)
    assert from_isa(QuantumCircuit(3), qubits=(2,)).physical_qubits == (2,)


def test_final_measurements() -> None:
    assert final_measurements(wide()) == {0: 1, 1: 3}
    twice = QuantumCircuit(2, 1)
    twice.measure([0, 1], [0, 0])
    assert final_measurements(twice) == {0: 1}, "the later one counts"


def late_gate(circuit: QuantumCircuit) -> None:
    circuit.measure(0, 0)
    circuit.x(0)


def conditional(circuit: QuantumCircuit) -> None:
    circuit.measure(0, 0)
    with circuit.if_test((circuit.clbits[0], 1)):
        circuit.x(1)


def measured_twice(circuit: QuantumCircuit) -> None:
    circuit.measure(0, 0)
    circuit.measure(0, 1)


@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        (late_gate, "measures qubit 0 before the end: 'x' follows"),
        (conditional, "has a 'if_else': the twin runs gates and final measurements"),
        (measured_twice, "before the end: 'measure' follows. Measure each qubit once"),
        (lambda c: c.reset(1), "has a 'reset'"),
    ],
)
def test_only_gates_and_final_measurements(break_it: object, says: str) -> None:
    circuit = QuantumCircuit(2, 2)
    break_it(circuit)  # type: ignore[operator]
    with pytest.raises(UsageError, match=says):
        from_isa(circuit)


def test_parameters_are_named_once() -> None:
    circuit = wide()
    a, b = circuit.parameters
    with pytest.raises(UsageError, match="neither inputs nor weights: b"):
        from_isa(circuit, [a], [])
    with pytest.raises(UsageError, match="named twice: a"):
        from_isa(circuit, [a], [a, b])
    with pytest.raises(UsageError, match="has no parameters c"):
        from_isa(circuit, [a], [b, Parameter("c")])
    with pytest.raises(UsageError, match="qubit 9 was asked for, and the circuit has 0 to 4"):
        from_isa(circuit, qubits=(9,))


@pytest.mark.parametrize(
    ("add", "says"),
    [
        (lambda c: c.h(2), "not one for fake_lima: h on qubit 2, and the device has no such gate"),
        (lambda c: c.cx(0, 4), "cx on qubits 0, 4, and the device has it not there"),
    ],
)
def test_circuits_for_another_device(add: object, says: str) -> None:
    circuit = QuantumCircuit(5)
    add(circuit)  # type: ignore[operator]
    with pytest.raises(UsageError, match=says) as error:
        check_isa(circuit, LIMA)
    assert "generate_preset_pass_manager" in error.value.hint
    assert "apply_layout" in error.value.hint
    check_isa(circuit, get_target("ideal"))


def test_the_wrong_direction_and_too_many_qubits() -> None:
    kyiv = get_target("fake_kyiv")
    (low, high), *_ = kyiv.backend.target["ecr"]
    circuit = QuantumCircuit(127)
    circuit.ecr(low, high)
    check_isa(circuit, kyiv)
    circuit.ecr(high, low)
    with pytest.raises(UsageError, match=f"ecr on qubits {high}, {low}.*direction"):
        check_isa(circuit, kyiv)
    with pytest.raises(UsageError, match="has 6 qubits, and fake_lima has 5"):
        check_isa(QuantumCircuit(6), LIMA)


def test_leading_parameters() -> None:
    p = ParameterVector("p", 5)
    circuit = QuantumCircuit(3, global_phase=Parameter("phase"))
    circuit.rz(p[4], 0)
    circuit.rz(p[1] + p[2], 1)
    circuit.cx(0, 1)
    circuit.rz(p[2], 1)
    circuit.rz(p[0], 2)
    circuit.barrier()
    circuit.rz(p[3], 2)
    assert [x.index for x in leading_parameters(circuit)] == [0, 1, 3, 4]


def test_circuits_that_change_are_prepared_again() -> None:
    preparer, circuit = Preparer(LIMA), wide()
    first = preparer.prepare(circuit)
    assert preparer.prepare(circuit.copy()) is first
    assert preparer.prepare(circuit, (0,)) is not first
    circuit.data.insert(0, circuit.data[1])
    assert preparer.prepare(circuit).compiled.gate_counts["sx"] == 2
    assert fingerprint(circuit) != fingerprint(wide())
    made = []
    for angle in (1, 2, 2):
        inner, outer = QuantumCircuit(1, name="mine"), QuantumCircuit(1)
        inner.rx(angle, 0)
        outer.append(inner.to_gate(), [0])
        made.append(outer)
    assert fingerprint(made[0]) != fingerprint(made[1]) == fingerprint(made[2]), "a name is not all of a gate"
    matrices = [np.eye(2), np.diag([1, -1])]
    for matrix, circuit in zip(matrices, (QuantumCircuit(1), QuantumCircuit(1)), strict=True):
        circuit.unitary(matrix, [0])
        made.append(circuit)
    assert fingerprint(made[3]) != fingerprint(made[4])


def test_rows_are_split_into_inputs_and_weights() -> None:
    prepared = Preparer(LIMA).prepare(wide())
    inputs, weights = prepared.split(np.array([[1.0, 2.0], [3.0, 2.0]]))
    assert inputs.tolist() == [[1.0], [3.0]]
    assert weights.tolist() == [2.0], "one row of weights for all is the cheap case"
    assert prepared.split(np.array([[1.0, 2.0], [3.0, 4.0]]))[1].tolist() == [[2.0], [4.0]]


def test_targets_dtypes_and_terms() -> None:
    assert as_target(LIMA) is LIMA
    with pytest.raises(UsageError, match=r"not from str 'fake_kyiv'.*qrun\.get_target"):
        as_target("fake_kyiv")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="unknown dtype 'half'"):
        as_dtype("half")
    assert terms_of("ZIX") == (("XZ", (0, 2), 1.0),)
    register = QuantumCircuit(QuantumRegister(1), ClassicalRegister(1))
    assert fingerprint(register) != fingerprint(QuantumCircuit(1))
