import copy
import pickle

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.quantum_info import SparsePauliOp

from backends.catalog import get_target
from backends.engines import make_executor
from backends.observables import single_z
from backends.protocol import DifferentiableExecutor, Request
from backends.qml import QmlExecutor
from backends.twin.executor import TwinExecutor
from circuits.compile import compile_ansatz
from circuits.errors import QrunError, UsageError
from circuits.types import Ansatz
from runner.options import config_from
from tests.backends.reference import compiled, draw, scattered

LIMA = get_target("fake_lima")


def test_agrees_with_the_exact_twin() -> None:
    """Every value within 5 of its sigma (60 of them: fails with 4e-5 if sound), and it sees readout errors."""
    circuit = compiled("fake_lima", 3, 1, "linear")
    inputs, weights = draw(circuit, 10, 1)
    wanted = (*single_z(3), SparsePauliOp("ZZI"), SparsePauliOp("IZZ"), SparsePauliOp("ZZZ"))
    request = Request(circuit, wanted, 0.1 * inputs, 0.1 * weights)
    (there,), (without,) = (TwinExecutor(LIMA, readout_error=r).run([request]) for r in (True, False))
    (sampled,) = QmlExecutor(LIMA, shots=10_000).run([request], seed=3)
    scores = (sampled.values - there.values) / sampled.standard_errors
    assert np.abs(scores).max() < 5
    assert np.abs((sampled.values - without.values) / sampled.standard_errors).max() > 5
    assert sampled.metadata["shots"] == 10_000


def test_gradients_agree_with_the_exact_twin() -> None:
    """Routing through another wire, so that the layout counts; 24 gradients of 2 x 40000 shots a term."""
    target, circuit = get_target("fake_almaden"), scattered("fake_almaden", (0, 2))
    assert len(circuit.physical_qubits) > 2
    inputs, weights = draw(circuit, 2, 4)
    found = []
    for engine in (QmlExecutor(target, shots=40_000), TwinExecutor(target)):
        assert isinstance(engine, DifferentiableExecutor)
        z, w = (torch.tensor(a, requires_grad=True) for a in (inputs, weights))
        values = engine.expectations(circuit, single_z(2), z, w)
        values.sum().backward()
        found.append([t.detach().numpy() for t in (values, z.grad, w.grad)])  # type: ignore[union-attr]
    # A value's sigma is at most 1/200, that of a weight's gradient (8 halves of values) at most sqrt(2)/200.
    for mine, other in zip(*found, strict=True):
        assert np.abs(mine - other).max() < 5 * np.sqrt(2) / 200
    assert np.abs(found[1][2]).max() > 0.1


def test_seeds() -> None:
    circuit = compiled("fake_lima", 2, 1, "linear")
    inputs, weights = draw(circuit, 2, 1)
    request, engine = Request(circuit, single_z(2), inputs, weights), QmlExecutor(LIMA, shots=50)
    first, again, other = (engine.run([request, request], seed=s) for s in (1, 1, 2))
    assert np.array_equal(first[0].values, again[0].values)
    assert not np.array_equal(first[0].values, first[1].values)
    assert not np.array_equal(first[0].values, other[0].values)
    z, w = torch.tensor(inputs), torch.tensor(weights)
    step = engine.expectations(circuit, single_z(2), z, w)
    assert torch.equal(step, QmlExecutor(LIMA, shots=50).expectations(circuit, single_z(2), z, w))
    assert not torch.equal(step, engine.expectations(circuit, single_z(2), z, w + 1e-9))


def test_rows_of_weights_and_parameters_that_the_compiler_removed() -> None:
    p = ParameterVector("p", 3)
    circuit = QuantumCircuit(1)
    circuit.rz(p[1], 0)
    circuit.ry(p[0], 0)
    ansatz = compile_ansatz(Ansatz("short", circuit, (p[0],), (p[1], p[2])), None, seed=1)
    rows = np.array([[0.1, 0.2], [0.3, 0.4]])
    request = Request(ansatz, single_z(1), np.array([[0.0], [np.pi]]), rows)
    (result,) = QmlExecutor(get_target("ideal"), shots=10).run([request], seed=1)
    assert result.values.tolist() == [[1.0], [-1.0]]
    w = torch.tensor(rows[0], requires_grad=True)
    values = QmlExecutor(get_target("ideal"), shots=10).expectations(ansatz, single_z(1), torch.tensor([[np.pi]]), w)
    values.sum().backward()
    assert w.grad is not None
    assert w.grad[1] == 0.0


def test_fixed_circuits_and_empty_batches() -> None:
    fixed = QuantumCircuit(2)
    fixed.x(1)
    circuit = compile_ansatz(Ansatz("fixed", fixed, (), ()), None, seed=1)
    engine = QmlExecutor(get_target("ideal"), shots=10)
    requests = [Request(circuit, single_z(2), np.zeros((batch, 0)), np.zeros(0)) for batch in (3, 0)]
    three, none = engine.run(requests, seed=1)
    assert np.array_equal(three.values, [[1.0, -1.0]] * 3)
    assert none.values.shape == (0, 2)
    with pytest.raises(QrunError, match="has no weights"):
        engine.expectations(circuit, single_z(2), torch.zeros(1, 0), torch.zeros(0))


def test_wrong_requests() -> None:
    circuit = compiled("fake_lima", 2, 1, "linear")
    inputs, weights = draw(circuit, 2, 1)
    engine = QmlExecutor(LIMA)
    with pytest.raises(UsageError, match="request 0: inputs have shape"):
        engine.run([Request(circuit, single_z(2), inputs[:, :1], weights)])
    with pytest.raises(QrunError, match="an observable is on 3 qubits"):
        engine.run([Request(circuit, single_z(3), inputs, weights)])
    with pytest.raises(UsageError, match="expectations takes"):
        engine.expectations(circuit, single_z(2), torch.tensor(inputs), torch.zeros(2, len(weights)))
    for shots in (0, 1.5, True):
        with pytest.raises(UsageError, match="shots must be 1 or more"):
            QmlExecutor(LIMA, shots=shots)  # type: ignore[arg-type]


def test_by_name() -> None:
    engine = make_executor("qml", LIMA)
    assert isinstance(engine, QmlExecutor)
    assert engine.shots == 1024
    assert make_executor("qml", LIMA, shots=7).shots == 7  # type: ignore[attr-defined]
    config = config_from("nsl-kdd", {"engine": "qml"})
    assert (config.shots, config.model.gradient) == (1024, "auto")
    assert config_from("nsl-kdd", {"engine": "qml", "model": {"gradient": "exact"}}).engine == "qml"
    with pytest.raises(UsageError, match="--engine twin"):
        config_from("nsl-kdd", {"engine": "qml", "idle_noise": True})


def test_a_backward_pass_after_other_calls() -> None:
    """Each call keeps to its own flag for the inputs' gradient, and to its own draws."""
    circuit = compiled("fake_lima", 2, 1, "linear")
    inputs, weights = draw(circuit, 2, 1)

    def call(engine: QmlExecutor, *, by_inputs: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        z, w = torch.tensor(inputs, requires_grad=by_inputs), torch.tensor(weights, requires_grad=True)
        return z, w, engine.expectations(circuit, single_z(2), z, w)

    alone, shared = QmlExecutor(LIMA, shots=50), QmlExecutor(LIMA, shots=50)
    z, w, values = call(alone, by_inputs=True)
    values.sum().backward()
    z2, w2, values2 = call(shared, by_inputs=True)
    _, w3, without = call(shared, by_inputs=False)
    other = torch.tensor(weights + 1.0, requires_grad=True)
    shared.expectations(circuit, single_z(2), torch.tensor(inputs), other)
    values2.sum().backward()
    assert z2.grad is not None
    assert torch.equal(z2.grad, z.grad)
    assert torch.equal(w2.grad, w.grad)
    without.sum().backward()
    assert torch.equal(without, values)
    assert w3.grad.abs().max() > 0


def test_copies_modes_and_what_it_refuses() -> None:
    circuit = compiled("fake_lima", 2, 1, "linear")
    inputs, weights = (torch.tensor(a) for a in draw(circuit, 2, 1))
    engine = QmlExecutor(LIMA, shots=50)
    values = engine.expectations(circuit, single_z(2), inputs, weights)
    for again in (copy.deepcopy(engine), pickle.loads(pickle.dumps(engine))):
        assert torch.equal(again.expectations(circuit, single_z(2), inputs, weights), values)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(engine.expectations(circuit, single_z(2), inputs, weights), values)
        assert engine.expectations(circuit, single_z(2), inputs.bfloat16(), weights).shape == (2, 2)
    z, w = torch.zeros(0, 2, requires_grad=True), weights.clone().requires_grad_()
    engine.expectations(circuit, single_z(2), z, w).sum().backward()
    assert torch.equal(w.grad, torch.zeros_like(w))
    assert z.grad.shape == (0, 2)
    with pytest.raises(UsageError, match="inputs are complex"):
        engine.expectations(circuit, single_z(2), inputs + 1j, weights)
    with pytest.raises(UsageError, match="weights must be a torch"):
        engine.expectations(circuit, single_z(2), inputs, weights.numpy())  # type: ignore[arg-type]
