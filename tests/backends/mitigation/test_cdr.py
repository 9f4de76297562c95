"""Clifford data regression: the lifted circuit, its near-Clifford rows, the line, and what it gains."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from mitiq.cdr import generate_training_circuits, linear_fit_function
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.quantum_info import Clifford, Operator, SparsePauliOp
from scipy.optimize import curve_fit

from backends.mitigation.cdr import Cdr, fit, spread_out
from backends.mitigation.lift import lift, near_clifford
from backends.mitigation.tokens import with_circuit
from backends.mitigation.types import Asked
from backends.protocol import Request
from circuits.errors import UsageError
from circuits.types import CompiledCircuit
from tests.backends.mitigation.devices import DEVICES, around, compiled, noiseless, request, technique, twin


def asked_of(asked: Request) -> Asked:
    return Asked(asked.circuit, asked.observables, asked.inputs, asked.weights)


def of(circuit: QuantumCircuit) -> CompiledCircuit:
    return replace(with_circuit(compiled("ideal", circuit.num_qubits), circuit), inputs=(), weights=())


def is_quarter(angles: np.ndarray) -> np.ndarray:
    return np.abs(angles / (np.pi / 2) - np.round(angles / (np.pi / 2))) < 1e-9


# -- the lifted circuit ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", [*DEVICES, "ideal"])
def test_the_lifted_circuit_is_the_circuit_at_its_angles(device: str) -> None:
    asked = request(device, 3, reps=2)
    lifted = lift(asked.circuit)
    rows = lifted.at(asked.inputs, asked.weights)
    assert rows.shape == (3, len(lifted.circuit.weights))
    assert lifted.circuit.circuit.count_ops() == asked.circuit.circuit.count_ops()
    assert set(lifted.circuit.circuit.parameters) == set(lifted.circuit.weights)
    as_rows = Request(lifted.circuit, asked.observables, np.zeros((3, 0)), rows)
    for name in (device, "ideal"):
        np.testing.assert_allclose(twin(name).run([as_rows])[0].values, twin(name).run([asked])[0].values, atol=1e-12)
    many = np.tile(asked.weights, (3, 1)) + np.arange(3)[:, None]
    np.testing.assert_allclose(lifted.at(asked.inputs, many)[1], lifted.at(asked.inputs[1:2], many[1])[0])


def test_what_is_clifford_as_it_stands_has_no_angle() -> None:
    a, circuit = Parameter("a"), QuantumCircuit(2)
    circuit.rz(np.pi, 0)
    circuit.rz(0.3, 0)
    circuit.ry(2 * a, 1)
    circuit.rzz(a - 1, 0, 1)
    circuit.barrier()
    circuit.ecr(0, 1)
    circuit.sx(0)
    lifted = lift(replace(of(circuit), weights=(a,)))
    np.testing.assert_allclose(lifted.at(np.zeros((1, 0)), np.array([0.7])), [[0.3, 1.4, -0.3]])
    bound = lifted.circuit.circuit.assign_parameters(dict(zip(lifted.circuit.weights, [0.3, 1.4, -0.3], strict=True)))
    assert Operator(bound).equiv(Operator(circuit.assign_parameters({a: 0.7})))


@pytest.mark.parametrize("gate", ["t", "u", "custom"])
def test_other_gates_are_refused(gate: str) -> None:
    circuit = QuantumCircuit(2)
    if gate == "t":
        circuit.t(0)
    elif gate == "u":
        circuit.u(0.1, 0.2, 0.3, 0)
    else:
        inner = QuantumCircuit(1, name="sx")  # a name that says nothing
        inner.rx(0.4, 0)
        circuit.append(inner.to_gate(), [0])
    with pytest.raises(UsageError, match="cdr needs a circuit of Clifford gates and rotations of one angle"):
        lift(of(circuit))


# -- near-Clifford rows ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5])
def test_rows_are_the_nearest_clifford_angles(fraction: float) -> None:
    angles = np.random.default_rng(0).uniform(-9.0, 9.0, (3, 40))
    rows = near_clifford(angles, 8, fraction, np.random.RandomState(1))
    for number, row in enumerate(rows):
        source = angles[number % 3]
        kept = row == source
        assert kept.sum() == round(fraction * 40)
        assert is_quarter(row[~kept]).all()
        distance = np.angle(np.exp(1j * (row - source)))
        assert np.abs(distance).max() <= np.pi / 4 + 1e-4
    assert len({row.tobytes() for row in rows}) == (8 if fraction else 3)


def test_the_circuits_are_clifford_where_no_rotation_stays() -> None:
    asked = request("fake_kyiv", 3, reps=1)
    lifted = lift(asked.circuit)
    (row,) = near_clifford(lifted.at(asked.inputs, asked.weights), 1, 0.0, np.random.RandomState(0))
    assert Clifford(lifted.circuit.circuit.assign_parameters(dict(zip(lifted.circuit.weights, row, strict=True))))


def test_mitiq_is_asked_for_what_it_would_do_to_the_whole_circuit() -> None:
    """The same rotations on a circuit of cirq's own gates: as many stay, and each is turned to the same angle."""
    import cirq

    random = np.random.default_rng(2)
    lines, angles, operations = cirq.LineQubit.range(2), [], []
    for _ in range(10):
        for line in lines:
            angles.append(random.uniform(0, 2 * np.pi))
            operations += [cirq.rz(angles[-1]).on(line), (cirq.X**0.5).on(line)]
        operations.append(cirq.CZ(*lines))
    (theirs,) = generate_training_circuits(cirq.Circuit(operations), 1, 0.0, random_state=0)
    turned: dict[object, list[float]] = {line: [] for line in lines}
    for operation in theirs.all_operations():
        if isinstance(operation.gate, cirq.Rz):
            turned[operation.qubits[0]].append(operation.gate.exponent * np.pi)
    (ours,) = near_clifford(np.array([angles]), 1, 0.0, np.random.RandomState(0))
    np.testing.assert_allclose(ours.reshape(10, 2).T, [turned[line] for line in lines], atol=1e-12)


def test_ties_are_broken_by_the_seed() -> None:
    angles = (np.arange(40)[None, :] * 2 + 1) * np.pi / 4
    state = np.random.get_state()[1].copy()
    first, again, other = (near_clifford(angles, 2, 0.1, np.random.RandomState(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    np.testing.assert_array_equal(np.random.get_state()[1], state)
    assert ((first == angles) | is_quarter(first)).all()
    assert near_clifford(np.zeros((2, 0)), 5, 0.1, np.random.RandomState(0)).shape == (5, 0)


def test_rows_that_differ_are_chosen() -> None:
    values = np.zeros((12, 2))
    values[[3, 5, 8, 9]] = [[1.0, 0.0], [-1.0, 0.0], [0.0, 0.7], [0.0, -0.7]]
    assert spread_out(values, 4) == [3, 5, 8, 9]
    assert spread_out(values, 12) == list(range(12))
    assert spread_out(np.ones((5, 1)), 2) == [0, 1]


# -- the line ----------------------------------------------------------------------------------------------------------


def test_the_line_is_mitiqs() -> None:
    random = np.random.default_rng(0)
    noisy = random.uniform(-1, 1, (10, 3))
    ideal = 1.2 * noisy - 0.05 + 0.02 * random.normal(size=(10, 3))
    lines = fit(noisy, ideal)
    for column in range(3):
        theirs, covariance = curve_fit(
            lambda x, *parameters: linear_fit_function(x, parameters), noisy[:, [column]].T, ideal[:, column], p0=[0, 0]
        )
        np.testing.assert_allclose([lines.slope[column], lines.shift[column]], theirs, rtol=1e-6)
        at = np.array([0.3, 1.0])
        said = lines.variance(np.full((1, 3), 0.3))[0, column]
        assert said == pytest.approx(at @ covariance @ at, rel=1e-5)


def test_where_all_is_alike_values_stay() -> None:
    random = np.random.default_rng(0)
    spread, flat = random.uniform(-1, 1, (6, 1)), np.full((6, 1), 0.2)
    for noisy, ideal in ((flat, spread), (spread, flat), (flat, flat), (flat + 1e-4 * spread, spread)):
        lines = fit(noisy, ideal)
        assert (lines.slope[0], lines.shift[0], lines.residual[0]) == (1.0, 0.0, 0.0)
        assert lines.variance(np.array([[0.5]]))[0, 0] == 0.0


def test_two_points_have_a_line_and_leave_nothing_over() -> None:
    lines = fit(np.array([[0.1], [0.5]]), np.array([[0.0], [0.8]]))
    assert lines.slope[0] == pytest.approx(2.0)
    assert lines.variance(np.array([[0.3]]))[0, 0] == 0.0


# -- the technique -----------------------------------------------------------------------------------------------------


def test_a_noise_that_is_a_line_is_undone_exactly() -> None:
    asked = request("fake_kyiv", 3)
    found = technique("fake_kyiv", "cdr").expand(asked_of(asked))
    training = found.parts[1]
    values = [noiseless(asked), noiseless(Request(training.circuit, training.observables, *_rows(training)))]
    noisy = [torch.from_numpy(0.7 * each + 0.1) for each in values]
    np.testing.assert_allclose(found.combine(noisy).numpy(), values[0], atol=1e-9)


def _rows(part) -> tuple[np.ndarray, np.ndarray]:
    return part.rows.inputs, part.rows.weights


@pytest.mark.parametrize(("device", "better"), [("fake_kyiv", 1.5), ("fake_torino", 2.5)])
def test_it_cuts_the_error(device: str, better: float) -> None:
    plain = mitigated = fewer = 0.0
    for seed in range(3):
        asked = request(device, 4, batch=4, seed=seed)
        plain += np.abs(twin(device).run([asked])[0].values - noiseless(asked)).mean()
        mitigated += np.abs(around(device, "cdr", seed=seed).run([asked])[0].values - noiseless(asked)).mean()
        less = around(device, "cdr", seed=seed, fraction_non_clifford=0.1)
        fewer += np.abs(less.run([asked])[0].values - noiseless(asked)).mean()
    assert mitigated < plain / better
    assert mitigated < 0.9 * fewer  # why the default share is what it is


def test_without_noise_it_changes_nothing() -> None:
    asked = request("ideal", 3)
    result = around("ideal", "cdr").run([asked])[0]
    np.testing.assert_allclose(result.values, noiseless(asked), atol=1e-12)
    np.testing.assert_allclose(result.standard_errors, 0.0, atol=1e-12)


def test_one_template_serves_all_calls() -> None:
    asked, found = request("fake_torino", 3), technique("fake_torino", "cdr", seed=3)
    first, again = found.expand(asked_of(asked)), found.expand(asked_of(asked))
    other = found.expand(asked_of(replace(asked, weights=asked.weights + 0.8)))
    assert found.by_value
    assert found.circuits(asked.circuit, 32) == 42
    for expansion in (first, again, other):
        plain, training = expansion.parts
        assert plain.circuit is asked.circuit
        assert plain.rows is None
        assert plain.observables is training.observables is asked.observables
        assert training.circuit is first.parts[1].circuit
        assert len(training.rows.weights) == 10
    np.testing.assert_array_equal(first.parts[1].rows.weights, again.parts[1].rows.weights)
    assert (first.parts[1].rows.weights != other.parts[1].rows.weights).any()
    lifted = found.lifted(asked.circuit)
    given = lifted.at(asked.inputs, asked.weights)
    for row in first.parts[1].rows.weights:
        left = ~is_quarter(row)
        assert left.sum() == round(0.3 * len(row))
        assert any((given[b][left] == row[left]).all() for b in range(3))


def test_the_gradient_goes_through_the_line() -> None:
    asked = request("fake_torino", 2, reps=1)
    engine = around("fake_torino", "cdr")
    inputs, weights = torch.from_numpy(asked.inputs), torch.from_numpy(asked.weights).requires_grad_()
    values = engine.expectations(asked.circuit, asked.observables, inputs, weights)
    np.testing.assert_allclose(values.detach().numpy(), engine.run([asked])[0].values, atol=1e-12)
    (gradient,) = torch.autograd.grad(values[0, 1], weights)
    again = torch.from_numpy(asked.weights).requires_grad_()
    plain = twin("fake_torino").expectations(asked.circuit, asked.observables, inputs, again)
    (unmitigated,) = torch.autograd.grad(plain[0, 1], again)
    slope = (gradient @ unmitigated / (unmitigated @ unmitigated)).item()
    assert 1.0 < slope < 1.3
    np.testing.assert_allclose(gradient.numpy(), slope * unmitigated.numpy(), atol=1e-12)


def test_shots_are_in_the_standard_error() -> None:
    asked = request("fake_torino", 2, reps=1, batch=2)
    engine = around("fake_torino", "cdr", shots=2000)
    runs = [engine.run([asked], seed=seed)[0] for seed in range(30)]
    deviation = np.std([run.values for run in runs], axis=0, ddof=1)
    said = np.sqrt(np.mean([run.standard_errors**2 for run in runs], axis=0))
    assert (said > 0.5 * deviation).all()
    assert (said < 2.5 * deviation).all()


def test_wide_circuits_are_simulated_by_aer_or_refused() -> None:
    wide = request("ideal", 9, batch=1, reps=1)
    found = technique("fake_kyiv", "cdr", training_circuits=2)
    training = found.expand(asked_of(wide)).parts[1]
    assert training.rows.weights.shape == (2, len(training.circuit.weights))
    by_aer = found._ideal(training.circuit, training.observables, training.rows.weights)
    by_twin = twin("ideal").run([Request(training.circuit, training.observables, *_rows(training))])[0].values
    np.testing.assert_allclose(by_aer, by_twin, atol=1e-9)
    with pytest.raises(UsageError, match=r"cdr cannot simulate its training circuits: .*Z and I only"):
        found.expand(asked_of(replace(wide, observables=(SparsePauliOp("X" * 9),))))
    with pytest.raises(UsageError, match="has 21 qubits: it goes up to 20"):
        found.expand(asked_of(request("ideal", 21, batch=1, reps=0)))


@pytest.mark.parametrize("number", [1, 0, 2.0, True])
def test_a_number_of_training_circuits_that_cannot_be(number: object) -> None:
    with pytest.raises(UsageError, match="training_circuits must be 2 or more"):
        technique("fake_kyiv", "cdr", training_circuits=number)


@pytest.mark.parametrize("fraction", [-0.1, 1.0, float("nan"), True, "0.1"])
def test_a_share_that_cannot_be(fraction: object) -> None:
    with pytest.raises(UsageError, match="fraction_non_clifford must be at least 0 and below 1"):
        technique("fake_kyiv", "cdr", fraction_non_clifford=fraction)


def test_as_many_templates_as_are_kept() -> None:
    found = technique("fake_kyiv", "cdr")
    assert isinstance(found, Cdr)
    circuits = [replace(compiled("ideal", 1, 0)) for _ in range(70)]
    templates = [found.lifted(circuit) for circuit in circuits]
    assert found.lifted(circuits[-1]) is templates[-1]
    assert found.lifted(circuits[0]) is not templates[0]
    assert all(template.source is circuit for template, circuit in zip(templates, circuits, strict=True))
