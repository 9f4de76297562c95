"""Further circuits of a layer: one call, the right gradients, and answers that nothing mitigates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.circuit.library import UGate
from qiskit.quantum_info import SparsePauliOp

from backends.aer import AerExecutor
from backends.catalog import get_target
from backends.layer import ExpectationLayer, Further, shift_rule
from backends.mitigation.executor import MitigatedExecutor
from backends.mitigation.make import mitigated
from backends.mitigation.types import MitigationOptions
from backends.observables import single_z
from backends.protocol import Request, Result
from backends.twin.executor import TwinExecutor
from circuits.echo import echo, echo_observables
from circuits.errors import UsageError
from circuits.types import Ansatz
from tests.backends.reference import compiled, draw

DEVICE = "fake_kyiv"


class Listening(TwinExecutor):
    """A twin that keeps what it was asked; `exactly` says whether it may differentiate."""

    def __init__(self, *, exactly: bool = False) -> None:
        super().__init__(get_target(DEVICE))
        self.differentiable = exactly
        self.asked: list[list[Request]] = []

    def run(self, requests: Sequence[Request], *, seed: int | None = None) -> list[Result]:
        self.asked.append(list(requests))
        return super().run(requests, seed=seed)


def further(*, raw: bool = True) -> Further:
    return Further(echo(compiled(DEVICE, 3, 1, "linear")), echo_observables(3), raw=raw)


def layer(engine: object, gradient: str, *others: Further, **options: object) -> ExpectationLayer:
    circuit = compiled(DEVICE, 3, 1, "linear")
    return ExpectationLayer(engine, circuit, single_z(3), gradient=gradient, further=others, **options)  # type: ignore[arg-type]


def tensors(batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    z, w = draw(compiled(DEVICE, 3, 1, "linear"), batch, 2)
    return torch.tensor(z), torch.tensor(w, requires_grad=True)


def slope(module: ExpectationLayer, columns: slice = slice(None)) -> torch.Tensor:
    z, w = tensors()
    (gradient,) = torch.autograd.grad(module(z, w)[:, columns].square().sum(), w)
    return gradient


def test_columns_in_order_and_one_call() -> None:
    z, w = tensors()
    other = further()
    exact = layer(Listening(exactly=True), "exact", other)(z, w)
    assert exact.shape == (2, 4)
    direct = TwinExecutor(get_target(DEVICE)).run(
        [Request(other.circuit, other.observables, z.numpy(), w.detach().numpy())]
    )
    np.testing.assert_allclose(exact[:, 3:].detach(), direct[0].values, atol=1e-12)
    assert (exact[:, 3] < 0.99).all()
    for gradient in ("spsa", "parameter-shift"):
        engine = Listening()
        values = layer(engine, gradient, other)(z, w)
        np.testing.assert_allclose(values.detach(), exact.detach(), atol=1e-12)
        ((first, second),) = engine.asked
        assert (first.raw, second.raw) == (False, True)
        # Each weight stands twice in the echo: four shifts of it, and two of the circuit itself.
        steps = 2 * len(w) if gradient == "parameter-shift" else 2
        assert len(first.inputs) == 2 * (1 + steps)
        assert len(second.inputs) == 2 * (1 + (2 * steps if gradient == "parameter-shift" else steps))


def test_parameter_shift_is_exact_under_noise_where_a_weight_stands_twice() -> None:
    exact = slope(layer(Listening(exactly=True), "exact", further()))
    shifted = slope(layer(Listening(), "parameter-shift", further()))
    np.testing.assert_allclose(shifted, exact, atol=1e-12)
    of_echo = slope(layer(Listening(exactly=True), "exact", further()), slice(3, None))
    assert of_echo.abs().max() > 1e-3
    np.testing.assert_allclose(
        slope(layer(Listening(), "parameter-shift", further()), slice(3, None)), of_echo, atol=1e-12
    )
    # Two shifts would be wrong.
    module = layer(Listening(), "parameter-shift", further())
    module.occurrences = (1, 1)
    assert (slope(module, slice(3, None)) - of_echo).abs().max() > 1e-4


def test_spsa_moves_all_circuits_along_the_same_signs() -> None:
    exact = slope(layer(Listening(exactly=True), "exact", further()))
    module = layer(Listening(), "spsa", further(), spsa_step=0.01)
    draws = torch.stack([slope(module) for _ in range(120)])
    assert ((draws.mean(0) - exact).abs() < 5 * draws.std(0) / 120**0.5 + 1e-3).all()


def test_without_further_circuits_the_call_is_what_it_was() -> None:
    for gradient in ("spsa", "parameter-shift"):
        alone, beside = Listening(), Listening()
        a, b = slope(layer(alone, gradient)), slope(layer(beside, gradient, further()), slice(0, 3))
        np.testing.assert_allclose(a, b, atol=1e-13)
        ((asked,),) = alone.asked
        np.testing.assert_array_equal(asked.weights, beside.asked[0][0].weights)


def test_shots_of_the_own_circuit_do_not_depend_on_further_ones() -> None:
    z, w = tensors()
    engines = [TwinExecutor(get_target(DEVICE), shots=100) for _ in range(2)]
    alone, beside = layer(engines[0], "spsa"), layer(engines[1], "spsa", further())
    assert torch.equal(alone(z, w), beside(z, w)[:, :3])
    aer = layer(AerExecutor(get_target(DEVICE), shots=50), "spsa", further())
    assert aer(z, w).shape == (2, 4)


@pytest.mark.parametrize("occurrences", [1, 2, 3, 5])
def test_the_rule_is_exact_for_all_frequencies_that_occur(occurrences: int) -> None:
    random = np.random.default_rng(occurrences)
    frequencies, at = np.arange(occurrences + 1), 0.37
    a, b = random.normal(size=(2, occurrences + 1))

    def value(x: float) -> float:
        return float(a @ np.cos(frequencies * x) + b @ np.sin(frequencies * x))

    found = sum(scale * (value(at + shift) - value(at - shift)) for shift, scale in shift_rule(occurrences))
    expected = frequencies * (b * np.cos(frequencies * at) - a * np.sin(frequencies * at))
    assert found == pytest.approx(expected.sum(), abs=1e-12)


# Mitigation around the engine


def readout(engine: Listening) -> MitigatedExecutor:
    found = mitigated(engine, get_target(DEVICE), MitigationOptions(stack=("readout", "zne")), exact=True)
    assert isinstance(found, MitigatedExecutor)
    return found


@pytest.mark.parametrize("gradient", ["exact", "spsa", "parameter-shift"])
def test_what_is_raw_is_not_mitigated_and_goes_in_the_same_call(gradient: str) -> None:
    z, w = tensors()
    engine = Listening(exactly=gradient == "exact")
    plain = layer(Listening(exactly=True), "exact", further())(z, w)
    mitigated_alone = layer(readout(Listening(exactly=True)), "exact")(z, w)
    values = layer(readout(engine), gradient, further())(z, w)
    np.testing.assert_allclose(values[:, 3].detach(), plain[:, 3].detach(), atol=1e-12)
    np.testing.assert_allclose(values[:, :3].detach(), mitigated_alone.detach(), atol=1e-12)
    assert (values[:, :3] - plain[:, :3]).abs().max() > 1e-3
    asked_raw = layer(readout(Listening(exactly=True)), "exact", further(raw=False))(z, w)
    assert (asked_raw[:, 3] - plain[:, 3]).abs().max() > 1e-3
    if gradient != "exact":
        (requests,) = engine.asked
        assert [request.raw for request in requests] == [False, False, False, True]


def test_answers_of_a_mixed_call_come_in_order_and_say_what_they_are() -> None:
    other = further()
    z, w = (each.detach().numpy() for each in tensors())
    circuit = compiled(DEVICE, 3, 1, "linear")
    raw = Request(other.circuit, other.observables, z, w, raw=True)
    asked = Request(circuit, single_z(3), z, w)
    engine = Listening()
    first, second, third = readout(engine).run([raw, asked, replace(asked, raw=True)])
    plain = Listening().run([raw, asked])
    np.testing.assert_array_equal(first.values, plain[0].values)
    np.testing.assert_array_equal(third.values, plain[1].values)
    assert np.abs(second.values - plain[1].values).max() > 1e-3
    assert "mitigation" not in first.metadata
    assert second.metadata["mitigation"] == "readout+zne"
    assert len(engine.asked) == 1


# What does not go


def test_other_parameters_are_refused() -> None:
    other = further()
    wrong = replace(other, circuit=replace(other.circuit, weights=other.circuit.weights[:-1]))
    with pytest.raises(UsageError, match="other inputs or weights"):
        layer(Listening(), "spsa", wrong)


def test_parameter_shift_refuses_what_no_rule_is_known_for() -> None:
    own = compiled(DEVICE, 3, 1, "linear")
    weight: Parameter = own.weights[0]
    for scale, gate in ((2.0, None), (1.0, UGate)):
        circuit = QuantumCircuit(own.circuit.num_qubits)
        if gate is None:
            circuit.rz(scale * weight, 0)
        else:
            circuit.append(gate(weight, 0.1, 0.2), [0])
        ansatz = Ansatz("odd", own.ansatz.circuit, own.inputs, own.weights)
        odd = Further(replace(own, circuit=circuit, ansatz=ansatz), (SparsePauliOp("ZZZ"),))
        with pytest.raises(UsageError, match=r"of a circuit that goes with odd.*Choose spsa"):
            layer(Listening(), "parameter-shift", odd)
        layer(Listening(), "spsa", odd)
