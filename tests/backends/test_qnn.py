import copy
import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from qiskit import QuantumCircuit
from qiskit.quantum_info import SparsePauliOp
from qiskit_machine_learning.connectors import TorchConnector
from qiskit_machine_learning.gradients import ParamShiftEstimatorGradient
from qiskit_machine_learning.neural_networks import EstimatorQNN

from backends.catalog import get_target
from backends.twin.primitives.estimator import TwinEstimator
from backends.twin.primitives.gradient import TwinEstimatorGradient
from circuits.errors import UsageError
from tests.backends.isa import angles, exact, paulis, reference, transpiled

LIMA = get_target("fake_lima").backend


def split(isa: QuantumCircuit) -> tuple[list[object], list[object]]:
    """Inputs and weights of the circuits of `tests.backends.isa`."""
    inputs = [p for p in isa.parameters if not p.name.startswith("w")]
    return inputs, [p for p in isa.parameters if p.name.startswith("w")]


def network(isa: QuantumCircuit, qubits: int, **options: object) -> EstimatorQNN:
    inputs, weights = split(isa)
    laid_out = [o.apply_layout(isa.layout) for o in paulis(qubits, 3)]
    return EstimatorQNN(circuit=isa, observables=laid_out, input_params=inputs, weight_params=weights, **options)


def shifted(isa: QuantumCircuit, qubits: int, rows: np.ndarray) -> np.ndarray:
    """(batch, P) -> (batch, m, P): central differences of fourth order of the evolution."""
    evolution, wanted, step = reference("fake_lima", isa, qubits), paulis(qubits, 3), 1e-3
    columns = []
    for column in range(isa.num_parameters):
        move = step * np.eye(isa.num_parameters)[column]
        near, far = (
            exact(evolution, wanted, rows + k * move) - exact(evolution, wanted, rows - k * move) for k in (1, 2)
        )
        columns.append((8 * near - far) / (12 * step))
    return np.stack(columns, 2)


@pytest.mark.parametrize("kind", ["linear", "feature_map"])
def test_forward_and_backward_equal_parameter_shift(kind: str) -> None:
    isa = transpiled("fake_lima", kind, 2)
    twin = TwinEstimator(LIMA, exact=True)
    ours = network(isa, 2, estimator=twin, gradient=TwinEstimatorGradient(twin), input_gradients=True)
    stock = network(isa, 2, estimator=TwinEstimator(LIMA), default_precision=0.0, input_gradients=True)
    assert isinstance(stock.gradient, ParamShiftEstimatorGradient)
    rng = np.random.default_rng(1)
    z, w = rng.uniform(-2, 2, (3, ours.num_inputs)), rng.uniform(-2, 2, ours.num_weights)
    inputs, weights = split(isa)
    order = [(*inputs, *weights).index(p) for p in isa.parameters]
    rows = np.concatenate([z, np.tile(w, (3, 1))], axis=1)[:, order]
    assert np.abs(ours.forward(z, w) - exact(reference("fake_lima", isa, 2), paulis(2, 3), rows)).max() < 1e-10
    assert np.array_equal(ours.forward(z, w), stock.forward(z, w))
    for mine, other in zip(ours.backward(z, w), stock.backward(z, w), strict=True):
        assert np.abs(mine - other).max() < 1e-10
    by_inputs, by_weights = ours.backward(z, w)
    found = np.concatenate([by_inputs, by_weights], axis=2)[:, :, order]
    assert np.abs(found - shifted(isa, 2, rows)).max() < 1e-8


def test_torch_trains_through_the_connector() -> None:
    isa = transpiled("fake_lima", "linear", 2)
    twin = TwinEstimator(LIMA, exact=True)
    model = TorchConnector(network(isa, 2, estimator=twin, gradient=TwinEstimatorGradient(twin)), np.zeros(8))
    z = torch.linspace(-1, 1, 8).reshape(4, 2)
    optimiser, losses = torch.optim.Adam(model.parameters(), lr=0.1), []
    for _ in range(10):
        optimiser.zero_grad()
        loss = model(z)[:, :2].add(0.5).square().sum()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_one_argument_without_exact_samples_as_the_device_would() -> None:
    """EstimatorQNN asks for a precision of 1/64; the estimator answers with 4096 shots."""
    isa = transpiled("fake_lima", "linear", 2)
    z, w = np.zeros((2, 2)), np.linspace(-1, 1, 8)
    first, again = (network(isa, 2, estimator=TwinEstimator(LIMA, seed=1)).forward(z, w) for _ in range(2))
    there = network(isa, 2, estimator=TwinEstimator(LIMA, exact=True)).forward(z, w)
    assert np.array_equal(first, again)
    deviation = np.abs(first - there)[:, :2]
    assert 0 < deviation.max() < 5 / 64


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**16), count=st.integers(1, 9))
def test_any_list_of_circuits_observables_and_parameters(seed: int, count: int) -> None:
    """Mixed and repeated circuits and observables, values in any order, some of the parameters: as parameter shift."""
    random = np.random.default_rng(seed)
    circuits = [transpiled("fake_lima", "linear", 2), transpiled("fake_lima", "feature_map", 2)]
    pool = [[o.apply_layout(isa.layout) for o in paulis(2, 3)] for isa in circuits]
    rows = [angles(isa, 2, seed) for isa in circuits]
    which = random.integers(2, size=count)
    asked = [circuits[c] for c in which]
    observables = [pool[c][random.integers(3)] for c in which]
    values = [rows[c][random.integers(2)] for c in which]
    parameters = [
        None if random.random() < 0.3 else list(random.permutation(np.array(isa.parameters, dtype=object))[:3])
        for isa in asked
    ]
    twin = TwinEstimator(LIMA)
    ours = TwinEstimatorGradient(twin).run(asked, observables, values, parameters).result()
    stock = ParamShiftEstimatorGradient(twin).run(asked, observables, values, parameters).result()
    assert len(ours.gradients) == count
    for mine, other in zip(ours.gradients, stock.gradients, strict=True):
        assert mine.shape == other.shape
        assert np.abs(mine - other).max() < 1e-10


def test_a_batch_is_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    isa, twin, calls = transpiled("fake_lima", "linear", 2), TwinEstimator(LIMA, exact=True), []
    engine = twin.executor(None)
    whole = type(engine).jacobian

    def count(circuit: object, observables: tuple[object, ...], inputs: np.ndarray, weights: np.ndarray) -> object:
        calls.append((len(observables), inputs.shape, weights.shape))
        return whole(engine, circuit, observables, inputs, weights)  # type: ignore[arg-type]

    monkeypatch.setattr(engine, "jacobian", count)
    qnn = network(isa, 2, estimator=twin, gradient=TwinEstimatorGradient(twin))
    qnn.backward(np.random.default_rng(0).normal(size=(5, 2)), np.ones(8))
    # Leading weights count as inputs of the engine: they vary at no cost.
    assert [(m, inputs[0], len(weights)) for m, inputs, weights in calls] == [(3, 5, 1)]


def test_made_from_a_device_or_an_estimator() -> None:
    gradient = TwinEstimatorGradient(LIMA, readout_error=False)
    isa = transpiled("fake_lima", "linear", 2)
    z = SparsePauliOp("IZ").apply_layout(isa.layout)
    ((without,), (with_it,)) = (
        g.run([isa], [z], angles(isa, 1)).result().gradients for g in (gradient, TwinEstimatorGradient(LIMA))
    )
    assert np.abs(without - with_it).max() > 1e-3
    with pytest.raises(UsageError, match="dtype: the gradient takes its settings from the TwinEstimator"):
        TwinEstimatorGradient(TwinEstimator(LIMA), dtype="float32")
    with pytest.raises(UsageError, match="made from a device"):
        TwinEstimatorGradient(None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="number of qubits"):
        gradient.run([isa], [SparsePauliOp("IZ")], angles(isa, 1))
    with pytest.raises(UsageError, match="is nan"):
        gradient.run([isa], [z], np.full((1, isa.num_parameters), np.nan)).result()


@pytest.mark.parametrize("again", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_trained_connector_can_be_copied(again: Callable[[TorchConnector], TorchConnector]) -> None:
    """As one over StatevectorEstimator can: for ensembles, moving averages, and to keep the best of a training."""
    isa = transpiled("fake_lima", "linear", 2)
    twin = TwinEstimator(LIMA, exact=True)
    model = TorchConnector(network(isa, 2, estimator=twin, gradient=TwinEstimatorGradient(twin)), np.linspace(-1, 1, 8))
    z = torch.linspace(-1, 1, 8).reshape(4, 2)
    slopes = []
    model(z).sum().backward()  # now it has engines, circuits and buffers
    for own in (model, again(model)):
        own.zero_grad()
        values = own(z)
        values.square().sum().backward()
        slopes.append((values.detach(), own.weight.grad))
    assert all(torch.equal(a, b) for a, b in zip(*slopes, strict=True))
    assert slopes[0][1].abs().max() > 0.01
