import pytest
from qiskit.quantum_info import Operator

from circuits.errors import UsageError
from circuits.qgan import ENTANGLEMENTS, generator


@pytest.mark.parametrize("entanglement", ENTANGLEMENTS)
@pytest.mark.parametrize("qubits", [1, 2, 5])
def test_shape_and_order_of_parameters(qubits: int, entanglement: str) -> None:
    ansatz = generator(qubits, 3, entanglement)
    assert len(ansatz.inputs) == qubits
    assert len(ansatz.weights) == 2 * qubits * 4
    assert {*ansatz.inputs, *ansatz.weights} == set(ansatz.circuit.parameters)
    assert [p.name for p in ansatz.inputs] == [f"z[{i}]" for i in range(qubits)]
    assert [p.index for p in ansatz.weights] == list(range(len(ansatz.weights)))


def test_no_repetitions_is_a_product_circuit() -> None:
    ansatz = generator(3, reps=0)
    assert len(ansatz.weights) == 6
    assert ansatz.circuit.num_nonlocal_gates() == 0


def test_inputs_come_first_and_weights_zero_leave_them() -> None:
    from qiskit import QuantumCircuit

    ansatz = generator(1, reps=1)
    bound = ansatz.circuit.assign_parameters({ansatz.inputs[0]: 0.7, **dict.fromkeys(ansatz.weights, 0.0)})
    expected = QuantumCircuit(1)
    expected.ry(0.7, 0)
    assert Operator(bound).equiv(Operator(expected))


def test_rotation_blocks() -> None:
    assert len(generator(3, 1, rotation_blocks=("rx",)).weights) == 6


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"qubits": 0}, "at least 1 qubit"),
        ({"qubits": 2.0}, "at least 1 qubit"),
        ({"qubits": True}, "at least 1 qubit"),
        ({"qubits": 2, "reps": -1}, "reps"),
        ({"qubits": 2, "entanglement": "reverse-linaer"}, "Did you mean reverse_linear"),
        ({"qubits": 2, "entanglement": "xyz"}, "Known: full, linear"),
        ({"qubits": 2, "rotation_blocks": ("ry", "h")}, "rotation block 'h'"),
        ({"qubits": 2, "rotation_blocks": "ry"}, "rotation_blocks"),
        ({"qubits": 2, "rotation_blocks": ()}, "rotation_blocks"),
    ],
)
def test_wrong_arguments(arguments: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError) as caught:
        generator(**arguments)  # type: ignore[arg-type]
    assert says in str(caught.value)
