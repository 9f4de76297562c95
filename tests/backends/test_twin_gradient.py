import numpy as np
import pytest
import torch

from backends.aer import AerExecutor
from backends.catalog import get_target
from backends.observables import single_z
from backends.protocol import Request
from backends.twin.executor import TwinExecutor
from tests.backends.reference import Evolution, compiled, draw
from tests.backends.test_twin_exact import mixed_paulis, observables


@pytest.mark.parametrize(
    ("device", "qubits", "entanglement"),
    [("fake_kyiv", 3, "circular"), ("fake_fez", 3, "linear"), ("fake_fractional", 2, "full"), ("ideal", 3, "sca")],
)
@pytest.mark.parametrize("path", ["heisenberg", "density"])
def test_equals_parameter_shift_on_the_exact_evolution(device: str, qubits: int, entanglement: str, path: str) -> None:
    target, circuit = get_target(device), compiled(device, qubits, 1, entanglement)
    z, w = draw(circuit, 1, 9)
    wanted = (*observables(qubits, 9), mixed_paulis(qubits, 9))
    evolution, pull = Evolution(target, circuit), np.random.default_rng(3).normal(size=len(wanted))
    inputs, weights = torch.tensor(z, requires_grad=True), torch.tensor(w, requires_grad=True)
    values = TwinExecutor(target, path=path).expectations(circuit, wanted, inputs, weights)
    (values @ torch.tensor(pull)).sum().backward()

    def shifted(by_z: np.ndarray, by_w: np.ndarray) -> float:
        up = evolution.values(wanted, z[0] + by_z, w + by_w)
        down = evolution.values(wanted, z[0] - by_z, w - by_w)
        return float(pull @ (up - down)) / 2

    quarter = np.pi / 2
    of_z = [shifted(quarter * row, np.zeros_like(w)) for row in np.eye(z.shape[1])]
    of_w = [shifted(np.zeros(z.shape[1]), quarter * row) for row in np.eye(len(w))]
    assert np.abs(inputs.grad.numpy()[0] - of_z).max() < 1e-10
    assert np.abs(weights.grad.numpy() - of_w).max() < 1e-10
    assert np.abs(of_w).max() > 0.01


@pytest.mark.parametrize(
    ("device", "entanglement", "reuploads", "path"),
    [
        ("fake_kyiv", "full", 0, "heisenberg"),
        ("fake_kyiv", "full", 0, "density"),
        ("fake_almaden", "circular", 0, "heisenberg"),
        ("fake_almaden", "circular", 0, "density"),
        ("fake_kyiv", "linear", 1, "density"),
    ],
)
def test_gradcheck(device: str, entanglement: str, reuploads: int, path: str) -> None:
    target, circuit = get_target(device), compiled(device, 3, 1, entanglement, reuploads=reuploads)
    z, w = (torch.tensor(x, requires_grad=True) for x in draw(circuit, 2, 4))
    engine, wanted = TwinExecutor(target, path=path), (*observables(3, 1), mixed_paulis(3, 1))
    assert torch.autograd.gradcheck(lambda a, b: engine.expectations(circuit, wanted, a, b), (z, w))


def test_last_rz_weights_have_no_gradient() -> None:
    circuit = compiled("fake_kyiv", 3, 2, "linear")
    z, w = (torch.tensor(x, requires_grad=True) for x in draw(circuit, 5, 4))
    TwinExecutor(get_target("fake_kyiv")).expectations(circuit, single_z(3), z, w).square().sum().backward()
    assert w.grad[-3:].abs().max() < 1e-14
    assert w.grad[:-3].abs().min() > 1e-8


def test_single_precision_gradient() -> None:
    circuit, gradients = compiled("fake_fez", 4, 4, "reverse_linear"), {}
    for dtype in (torch.float32, torch.float64):
        z, w = (torch.tensor(x, dtype=dtype, requires_grad=True) for x in draw(circuit, 8, 4))
        values = TwinExecutor(get_target("fake_fez"), dtype=dtype).expectations(circuit, single_z(4), z, w)
        assert values.dtype == dtype
        values.mean().backward()
        gradients[dtype] = (z.grad.double(), w.grad.double())
    for a, b in zip(*gradients.values(), strict=True):
        assert (a - b).abs().max() < 1e-5


@pytest.mark.parametrize("path", ["heisenberg", "density"])
def test_graphs_that_live_at_once_do_not_disturb_each_other(path: str) -> None:
    """Buffers are reused between steps, and only when the graph that needs them is gone."""
    circuit, engine = compiled("fake_kyiv", 3, 1, "linear"), TwinExecutor(get_target("fake_kyiv"), path=path)
    z, w = draw(circuit, 2, 1)

    def gradient(weights: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(values.sum(), weights, retain_graph=True)[0]

    first, second = (torch.tensor(w + shift, requires_grad=True) for shift in (0.0, 1.0))
    values = [engine.expectations(circuit, single_z(3), torch.tensor(z), weights) for weights in (first, second)]
    one = gradient(first, values[0])
    with torch.no_grad():
        engine.expectations(circuit, single_z(3), torch.tensor(z), second)
    two = gradient(second, values[1])
    assert torch.equal(gradient(first, values[0]), one)
    del values
    for weights, expected in ((first, one), (second, two)):
        again = engine.expectations(circuit, single_z(3), torch.tensor(z), weights)
        assert torch.equal(gradient(weights, again), expected)


@pytest.mark.parametrize("qubits", [3, 4])
def test_equals_parameter_shift_on_aer(qubits: int) -> None:
    """With Aer's exact density matrix; it drops terms below 1e-10, hence 1e-8."""
    target, circuit = get_target("fake_kyiv"), compiled("fake_kyiv", qubits, 1, "reverse_linear")
    z, w = draw(circuit, 2, 6)
    weights = torch.tensor(w, requires_grad=True)
    values = TwinExecutor(target, path="heisenberg").expectations(circuit, single_z(qubits), torch.tensor(z), weights)
    values.sum().backward()
    shifts = np.pi / 2 * np.eye(len(w))
    rows = np.repeat(np.concatenate([w + shifts, w - shifts]), 2, axis=0)
    request = Request(circuit, single_z(qubits), np.tile(z, (2 * len(w), 1)), rows)
    (answer,) = AerExecutor(target, shots=None).run([request])
    up, down = answer.values.reshape(2, len(w), -1).sum(2)
    assert np.abs(weights.grad.numpy() - (up - down) / 2).max() < 1e-8
