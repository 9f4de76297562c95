import pickle

import numpy as np
import pytest
from qiskit.quantum_info import Operator, Statevector

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


@pytest.mark.parametrize("uploads", [0, 1, 2, 3])
def test_latents_come_again_after_the_first_repetitions(uploads: int) -> None:
    ansatz = generator(3, 3, reuploads=uploads)
    assert [w.name for w in ansatz.weights] == [w.name for w in generator(3, 3).weights]
    names = [op.operation.name for op in ansatz.circuit]
    uploaded = [i for i, op in enumerate(ansatz.circuit) if set(op.operation.params) & set(ansatz.inputs)]
    assert len(uploaded) == 3 * (1 + uploads)
    # Two CX a repetition of three qubits on a line: how many there are before each further encoding.
    assert [names[:at].count("cx") for at in uploaded[3::3]] == [2 * (k + 1) for k in range(uploads)]


@pytest.mark.parametrize(("uploads", "reps"), [(0, 2), (1, 2), (2, 2)])
def test_an_output_has_one_frequency_more_with_each_further_encoding(uploads: int, reps: int) -> None:
    ansatz = generator(1, reps, reuploads=uploads)
    weights = dict(zip(ansatz.weights, np.random.default_rng(4).uniform(-3, 3, len(ansatz.weights)), strict=True))
    z = np.arange(16) * 2 * np.pi / 16
    values = []
    for angle in z:
        p = Statevector(ansatz.circuit.assign_parameters({**weights, ansatz.inputs[0]: float(angle)})).probabilities()
        values.append(p[0] - p[1])
    strength = np.abs(np.fft.rfft(values)) / 16
    assert (strength[uploads + 2 :] < 1e-12).all()
    assert strength[uploads + 1] > 1e-3


def test_the_same_with_other_repetitions_survives_a_copy() -> None:
    fewer = pickle.loads(pickle.dumps(generator(2, 3, reuploads=2))).with_reps(1)
    assert (fewer.reps, fewer.name) == (1, generator(2, 1, reuploads=1).name)
    assert fewer.circuit.count_ops()["ry"] == 2 * (1 + 1) + 2 * 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"qubits": 0}, "at least 1 qubit"),
        ({"qubits": 2.0}, "at least 1 qubit"),
        ({"qubits": True}, "at least 1 qubit"),
        ({"qubits": 2, "reps": -1}, "reps"),
        ({"qubits": 2, "reps": 2, "reuploads": 3}, "reuploads must be 0 to 2"),
        ({"qubits": 2, "reuploads": -1}, "reuploads"),
        ({"qubits": 2, "reuploads": True}, "reuploads"),
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
