"""Angles that are no linear function of the parameters, and those that are no numbers at all."""

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter, ParameterExpression
from qiskit.quantum_info import SparsePauliOp

from backends.catalog import get_target
from backends.observables import single_z
from backends.protocol import Request
from backends.twin.executor import TwinExecutor
from backends.twin.expressions import coefficients, derivative, evaluate, is_linear
from backends.twin.primitives.angles import Angles, straighten
from backends.twin.primitives.estimator import TwinEstimator
from backends.twin.primitives.module import TwinModule
from circuits.compile import compile_ansatz
from circuits.errors import QrunError, UsageError
from circuits.types import Ansatz

IDEAL = get_target("ideal")
P, Q = Parameter("p"), Parameter("q")
CURVES = {
    "abs": (P.abs(), np.abs, -1.0),
    "cubic": (P * (P - 1) * (P - 0.3), lambda p: p * (p - 1) * (p - 0.3), 2.0),  # linear at 0, 1 and 0.3
    "inverse": (1 / P, lambda p: 1 / p, 0.7),
    "log": (P.log(), np.log, 0.7),
    "sign": (P.sign(), np.sign, -2.0),
    "quotient": (P * P / P, lambda p: p, 2.0),  # linear, but without a value at 0
}


def rotated(angle: ParameterExpression) -> QuantumCircuit:
    circuit = QuantumCircuit(1)
    circuit.rx(angle, 0)
    return circuit


def test_angles_that_are_not_linear() -> None:
    x, y, w = Parameter("x"), Parameter("y"), Parameter("w")
    product = 2 * (np.pi - x) * (np.pi - y)
    assert coefficients(2 * x + y / 3 - 1) == (-1.0, {x: 2.0, y: 1 / 3})
    assert coefficients(x) == (0.0, {x: 1.0})
    assert coefficients(x * 0 + 1) == (1.0, {x: 0.0})
    assert not is_linear(product)
    assert not is_linear(x.sin())
    circuit = QuantumCircuit(1)
    for value in (product, w + x, w.sin(), product):
        circuit.rz(value, 0)
    straight, stands = straighten(circuit)
    assert len(stands) == 2, "equal angles are one parameter"
    assert circuit.data[0].operation.params[0] == product, "the circuit that was given stays as it is"
    given = list(circuit.parameters)  # w, x, y
    wanted = [*stands, w, x]
    rows = np.random.default_rng(0).normal(size=(3, 3))
    table = Angles(given, wanted, stands)
    ww, xx, yy = rows.T
    expected = np.stack([2 * (np.pi - xx) * (np.pi - yy), np.sin(ww), ww, xx], 1)
    assert np.abs(table.values(rows) - expected).max() < 1e-14
    outer = np.random.default_rng(1).normal(size=(3, 2, 4))
    by = np.stack(
        [
            outer[..., 1] * np.cos(ww)[:, None] + outer[..., 2],
            outer[..., 0] * -2 * (np.pi - yy)[:, None] + outer[..., 3],
            outer[..., 0] * -2 * (np.pi - xx)[:, None],
        ],
        2,
    )
    assert np.abs(table.pull_back(outer, rows) - by).max() < 1e-13
    assert straighten(QuantumCircuit(1)) == (QuantumCircuit(1), {})
    assert straight.num_parameters == 4


@pytest.mark.parametrize("name", CURVES)
def test_no_curve_passes_for_a_line(name: str) -> None:
    angle, function, at = CURVES[name]
    assert not is_linear(angle)
    (got,) = TwinEstimator(IDEAL).run([(rotated(angle), SparsePauliOp("Z"), [at])]).result()
    assert got.data.evs == pytest.approx(np.cos(function(at)), abs=1e-14)
    compiled = compile_ansatz(Ansatz("curve", rotated(angle), (), (P,)), None, seed=1)
    with pytest.raises(QrunError, match=r"linear in the parameters, not .*TwinEstimator and TwinModule take any"):
        TwinExecutor(IDEAL).run([Request(compiled, single_z(1), np.zeros((1, 0)), np.array([at]))])


@pytest.mark.parametrize("name", [name for name in CURVES if name != "sign"])
def test_slopes_of_curves(name: str) -> None:
    angle, function, at = CURVES[name]
    module = TwinModule(rotated(angle), [SparsePauliOp("Z")], IDEAL, initial_weights=[at], dtype="float64")
    module().sum().backward()
    step = 1e-6
    expected = (np.cos(function(at + step)) - np.cos(function(at - step))) / (2 * step)
    assert module.weight.grad.item() == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize(
    ("angle", "at"), [(1 / P, 0.0), (P.log(), 0.0), (P.log(), -1.0), (P.arcsin(), 2.0), (P.exp(), 800.0), (1j * P, 1.0)]
)
def test_angles_that_are_no_numbers(angle: ParameterExpression, at: float) -> None:
    with pytest.raises(UsageError, match=r"in an angle is no finite real number at p = .*Give values where"):
        TwinEstimator(IDEAL).run([(rotated(angle), SparsePauliOp("Z"), [at])]).result()


def test_slopes_that_do_not_exist() -> None:
    with pytest.raises(UsageError, match=r"sign\(p\) has no derivative by p that qiskit knows"):
        derivative(P.sign(), P)
    for angle, at, says in ((P.sign(), 1.0, "no derivative by p"), (P.abs(), 0.0, "no finite real number at p = 0")):
        module = TwinModule(rotated(angle), [SparsePauliOp("Z")], IDEAL, initial_weights=[at])
        with torch.no_grad():
            assert module().item() == pytest.approx(np.cos(at), abs=1e-6)
        with pytest.raises(UsageError, match=says):
            module().sum().backward()


def test_values_of_expressions() -> None:
    assert evaluate(P + 2 * Q, {Q: 0.5, P: 1.0, Parameter("r"): 9.0}) == 2.0
    assert evaluate(1.5, {}) == 1.5
    with pytest.raises(UsageError, match="nan in an angle is no finite real number at any value"):
        evaluate(float("nan"), {})
