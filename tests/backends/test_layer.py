import copy
import pickle
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter

from backends.aer import AerExecutor
from backends.catalog import get_target
from backends.layer import ExpectationLayer
from backends.observables import single_z
from backends.protocol import Request, Result
from backends.twin.executor import TwinExecutor
from circuits.compile import compile_ansatz
from circuits.errors import QrunError, UsageError
from circuits.types import Ansatz
from tests.backends.reference import compiled, draw


class Counting:
    """An engine without gradients that counts its calls."""

    name, differentiable = "counting", False

    def __init__(self, device: str) -> None:
        self.inner, self.calls, self.seeds = TwinExecutor(get_target(device)), [], []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def run(self, requests: Sequence[Request], *, seed: int | None = None) -> list[Result]:
        self.calls.append(sum(len(r.inputs) for r in requests))
        self.seeds.append(seed)
        return self.inner.run(requests)


def tensors(device: str = "fake_kyiv", batch: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    z, w = draw(compiled(device, 3, 1, "linear"), batch, 2)
    return torch.tensor(z), torch.tensor(w, requires_grad=True)


def layer(engine: object, **options: object) -> ExpectationLayer:
    return ExpectationLayer(engine, compiled("fake_kyiv", 3, 1, "linear"), single_z(3), **options)  # type: ignore[arg-type]


def slope(module: ExpectationLayer, inputs: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    (gradient,) = torch.autograd.grad(module(inputs, weights).square().sum(), weights)
    return gradient


def test_parameter_shift_is_the_exact_gradient_in_one_call() -> None:
    z, w = tensors()
    exact = slope(layer(TwinExecutor(get_target("fake_kyiv"))), z, w)
    engine = Counting("fake_kyiv")
    shifted = slope(layer(engine, gradient="parameter-shift"), z, w)
    assert (exact - shifted).abs().max() < 1e-12
    assert exact.abs().max() > 0.01
    assert engine.calls == [3 * (1 + 2 * len(w))]


def test_spsa_is_an_unbiased_estimate_in_one_call_a_step() -> None:
    z, w = tensors()
    exact = slope(layer(TwinExecutor(get_target("fake_kyiv"))), z, w)
    engine = Counting("fake_kyiv")
    module = layer(engine, gradient="spsa", spsa_step=0.01)
    draws = torch.stack([slope(module, z, w) for _ in range(400)])
    assert engine.calls == [9] * 400
    # Mean of 400 draws: each of the 12 components within 5 standard errors (false alarm 7e-6; seeds are fixed).
    error = draws.std(0) / 20
    assert ((draws.mean(0) - exact).abs() < 5 * error + 1e-3).all()
    # Each draw is a multiple of a vector of signs.
    assert torch.allclose(draws[0].abs(), draws[0].abs()[0].expand(len(w)))


def test_values_alone_without_a_gradient() -> None:
    z, w = tensors()
    engine = Counting("fake_kyiv")
    module = layer(engine, gradient="spsa")
    with torch.no_grad():
        values = module(z, w)
    module(z, w.detach())
    assert engine.calls == [3, 3]
    assert not values.requires_grad
    assert torch.allclose(values, layer(TwinExecutor(get_target("fake_kyiv")))(z, w).detach())


def test_all_randomness_comes_from_seed_and_step() -> None:
    z, w = tensors()
    run = [
        slope(module, z, w) for module in [layer(AerExecutor(get_target("fake_kyiv"), shots=50), gradient="spsa")] * 4
    ]
    assert not torch.equal(run[2], run[3])
    resumed = layer(AerExecutor(get_target("fake_kyiv"), shots=50), gradient="spsa")
    resumed.step = 2
    assert torch.equal(slope(resumed, z, w), run[2])
    assert torch.equal(slope(resumed, z, w), run[3])
    assert resumed.step == 4
    other = layer(AerExecutor(get_target("fake_kyiv"), shots=50), gradient="spsa", seed=1)
    other.step = 2
    assert not torch.equal(slope(other, z, w), run[2])


def test_sampled_parameter_shift_points_along_the_exact_gradient() -> None:
    z, w = tensors(batch=2)
    exact = slope(layer(TwinExecutor(get_target("fake_kyiv"))), z, w)
    sampled = slope(layer(AerExecutor(get_target("fake_kyiv"), shots=4000), gradient="parameter-shift"), z, w)
    assert torch.nn.functional.cosine_similarity(exact, sampled, dim=0) > 0.98


def test_exact_gives_gradients_to_inputs_and_the_others_refuse() -> None:
    z, w = tensors()
    z.requires_grad_()
    layer(TwinExecutor(get_target("fake_kyiv")))(z, w).sum().backward()
    assert z.grad is not None
    assert z.grad.abs().max() > 0
    for gradient in ("spsa", "parameter-shift"):
        with pytest.raises(QrunError, match="Detach the inputs"):
            layer(Counting("fake_kyiv"), gradient=gradient)(z, w)


def test_dtype_follows_the_weights() -> None:
    z, w = tensors()
    for gradient in ("exact", "spsa"):
        module = layer(TwinExecutor(get_target("fake_kyiv")), gradient=gradient)
        values = module(z.float(), w.float())
        assert values.dtype == torch.float32
        (g,) = torch.autograd.grad(values.sum(), w)
        assert g.dtype == torch.float64


def test_wrong_options() -> None:
    for options, says in (
        ({"gradient": "adjoint"}, "unknown gradient 'adjoint'"),
        ({"gradient": "exact"}, "counting has no exact gradient"),
        ({"gradient": "spsa", "spsa_step": 0.0}, "must be positive"),
        ({"gradient": "spsa", "spsa_step": float("nan")}, "must be positive"),
        ({"gradient": "spsa", "seed": -1}, "seed must be 0 or more"),
        ({"gradient": "spsa", "seed": 1.5}, "seed must be 0 or more"),
        ({"gradient": "spsa", "spsa_step": "a"}, "must be positive"),
    ):
        with pytest.raises(UsageError, match=says):
            layer(Counting("fake_kyiv"), **options)


def test_parameter_shift_refuses_weights_that_are_not_alone() -> None:
    a = Parameter("a")
    twice, scaled = QuantumCircuit(1), QuantumCircuit(1)
    twice.rx(a, 0)
    twice.ry(a, 0)
    scaled.rx(2 * a, 0)
    for circuit in (twice, scaled):
        ready = compile_ansatz(Ansatz("own", circuit, (), (a,)), None, seed=1)
        with pytest.raises(UsageError, match="each weight alone"):
            ExpectationLayer(Counting("ideal"), ready, single_z(1), gradient="parameter-shift")


@pytest.mark.parametrize("again", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
@pytest.mark.parametrize("gradient", ["exact", "spsa"])
def test_copies(gradient: str, again: Callable[[ExpectationLayer], ExpectationLayer]) -> None:
    z, w = tensors()
    module = layer(TwinExecutor(get_target("fake_kyiv"), readout_error=False), gradient=gradient, seed=3)
    slope(module, z, w)  # now its engine has programs and buffers
    twin = again(module)
    assert twin.step == 1
    assert torch.equal(slope(twin, z, w), slope(module, z, w))


def test_autocast_leaves_it_alone() -> None:
    z, w = tensors()
    for gradient in ("exact", "spsa"):
        found = []
        for enabled in (False, True):
            module = layer(TwinExecutor(get_target("fake_kyiv"), dtype=torch.float32), gradient=gradient)
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                values = module(z, w)
            found.append((values.detach(), *torch.autograd.grad(values.sum(), w)))
        assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_an_empty_batch_has_gradients_of_zero() -> None:
    z, w = tensors()
    z = z[:0].requires_grad_()
    values = layer(TwinExecutor(get_target("fake_kyiv")))(z, w)
    assert values.shape == (0, 3)
    by_inputs, by_weights = torch.autograd.grad(values.sum(), (z, w))
    assert by_inputs.shape == z.shape
    assert torch.equal(by_weights, torch.zeros_like(w))


def test_what_is_no_tensor_of_real_numbers() -> None:
    z, w = tensors()
    for gradient in ("exact", "spsa"):
        module = layer(TwinExecutor(get_target("fake_kyiv")), gradient=gradient)
        for inputs, weights, says in (
            (z.tolist(), w, "inputs must be a torch.Tensor, not list"),
            (z, w.detach().numpy(), "weights must be a torch.Tensor, not ndarray"),
            (z + 1j, w, "inputs are complex"),
            (z, w + 0j, "weights are complex"),
            (z * torch.nan, w, r"inputs\[0, 0\] is nan. Parameters must be finite. If it is training"),
        ):
            with pytest.raises(UsageError, match=says):
                module(inputs, weights)
    circuit = compiled("fake_kyiv", 3, 1, "linear")
    numbers = z.numpy(), w.detach().numpy()
    for wrong in (numbers[0] * 1j, numbers[0].astype(str), numbers[0].tolist(), numbers[0].astype(object)):
        with pytest.raises(UsageError, match="request 0: inputs must be a numpy array of real numbers, not"):
            TwinExecutor(get_target("fake_kyiv")).run([Request(circuit, single_z(3), wrong, numbers[1])])
