"""Readout errors undone: as Mitiq's inverse confusion matrix does it, on every engine, calibrated or measured."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mitiq import MeasurementResult
from mitiq.rem import generate_tensored_inverse_confusion_matrix, mitigate_measurements
from qiskit.quantum_info import SparsePauliOp

from backends.catalog import get_target
from backends.engines import make_executor
from backends.mitigation.confusion import as_operator, undo_of, undone
from backends.mitigation.make import mitigated
from backends.mitigation.readout import Readout
from backends.mitigation.types import Context, MitigationOptions
from backends.observables import pauli_sum, single_z
from backends.protocol import Executor, Request
from backends.target import Target
from circuits.errors import QrunError, UsageError
from tests.backends.mitigation.devices import compiled, context, expand, request, twin
from tests.backends.reference import scattered

SUMS = (
    SparsePauliOp.from_list([("ZZI", 1.0), ("IIZ", -0.4), ("III", 0.3)]),
    SparsePauliOp.from_list([("ZZZ", 0.7), ("ZZI", 0.2)]),
)


class Unequal:
    """A target whose qubits misread 0 and 1 unlike, each in its own way."""

    def __init__(self, target: Target) -> None:
        self._target = target

    def __getattr__(self, name: str) -> object:
        return getattr(self._target, name)

    def readout_errors(self, qubit: int) -> tuple[float, float]:
        return 0.01 + 0.003 * (qubit % 7), 0.05 + 0.004 * (qubit % 5)


def asked_with(device: str, *observables: SparsePauliOp, qubits: int = 3, batch: int = 4) -> Request:
    return replace(request(device, qubits, batch=batch, reps=2), observables=(*single_z(qubits), *observables))


def through(engine: Executor, target: Target, *, exact: bool, **options: object) -> Executor:
    return mitigated(engine, target, MitigationOptions(stack=("readout",), **options), exact=exact)


def engine(device: str, name: str, shots: int | None) -> Executor:
    return make_executor(name, get_target(device), shots=shots, precision="float64")


def read(probabilities: np.ndarray, strings: SparsePauliOp) -> float:
    """The value of Z strings under a distribution whose index has qubit 0 last, as Mitiq orders bits."""
    qubits, total = strings.num_qubits, 0.0
    for coefficient, factors in pauli_sum(strings, qubits):
        signs = np.ones(2**qubits)
        for qubit, _ in factors:
            signs *= 1 - 2 * ((np.arange(2**qubits) >> qubit) & 1)
        total += coefficient * float(signs @ probabilities)
    return total


@given(
    st.lists(st.tuples(st.floats(0.0, 0.3), st.floats(0.0, 0.3)), min_size=3, max_size=3),
    st.integers(0, 2**32 - 1),
)
def test_it_is_mitiqs_inverse_confusion_matrix(errors: list[tuple[float, float]], seed: int) -> None:
    matrices = [np.array([[1 - p01, p10], [p01, 1 - p10]]) for p01, p10 in errors]
    # Mitiq's first matrix is that of the first bit, qiskit's last qubit.
    inverse = generate_tensored_inverse_confusion_matrix(3, matrices[::-1])
    true = np.random.default_rng(seed).dirichlet(np.ones(8))
    noisy = reduce(np.kron, matrices[::-1]) @ true
    undo = {qubit: undo_of(*each) for qubit, each in enumerate(errors)}
    for observable in (*single_z(3), *SUMS):
        measured = as_operator(undone(pauli_sum(observable, 3), undo), 3)
        assert read(noisy, measured) == pytest.approx(read(inverse @ noisy, observable), abs=1e-9)
        assert read(noisy, measured) == pytest.approx(read(true, observable), abs=1e-9)


def test_it_is_what_mitiqs_mitigate_measurements_gives() -> None:
    """Mitiq resamples bitstrings from the quasi-distribution: the same value up to that sampling."""
    errors = [(0.02, 0.06), (0.01, 0.04)]
    matrices = [np.array([[1 - p01, p10], [p01, 1 - p10]]) for p01, p10 in errors]
    random, shots = np.random.default_rng(0), 40_000
    noisy = reduce(np.kron, matrices[::-1]) @ np.array([0.5, 0.1, 0.15, 0.25])
    drawn = [f"{index:02b}" for index in random.choice(4, shots, p=noisy)]
    state = np.random.get_state()
    np.random.seed(1)
    try:
        inverse = generate_tensored_inverse_confusion_matrix(2, matrices[::-1])
        after = mitigate_measurements(MeasurementResult(drawn), inverse)
    finally:
        np.random.set_state(state)
    share, found = (
        np.bincount([int("".join(map(str, bits)), 2) for bits in each], minlength=4) / shots
        for each in (drawn, after.result)
    )
    undo = {qubit: undo_of(*each) for qubit, each in enumerate(errors)}
    for label in ("IZ", "ZI", "ZZ"):
        observable = SparsePauliOp.from_list([(label, 1.0)])
        measured = as_operator(undone(pauli_sum(observable, 2), undo), 2)
        # Mitiq's resampling has a standard error of at most 1 / sqrt(shots) = 0.005.
        assert read(share, measured) == pytest.approx(read(found, observable), abs=0.02)


@pytest.mark.parametrize("device", ["fake_kyiv", "fake_torino", "fake_lima"])
def test_exact_values_are_those_without_readout_errors(device: str) -> None:
    asked = asked_with(device, *SUMS)
    truth = twin(device).run([asked])[0].values
    noisy = engine(device, "twin", None).run([asked])[0].values
    assert np.abs(noisy - truth).max() > 1e-3
    (found,) = through(engine(device, "twin", None), get_target(device), exact=True).run([asked])
    np.testing.assert_allclose(found.values, truth, atol=1e-12)
    assert not found.standard_errors.any()


def test_x_and_y_are_read_through_the_same_errors() -> None:
    asked = asked_with("fake_kyiv", SparsePauliOp.from_list([("XYZ", 1.0), ("XII", 0.5)]))
    truth = twin("fake_kyiv").run([asked])[0].values
    (found,) = through(engine("fake_kyiv", "twin", None), get_target("fake_kyiv"), exact=True).run([asked])
    np.testing.assert_allclose(found.values, truth, atol=1e-12)


def test_on_a_routed_circuit_the_qubit_that_is_read_counts() -> None:
    circuit = scattered("fake_kyiv", (0, 2, 4))
    assert circuit.initial_layout != circuit.final_layout
    random = np.random.default_rng(0)
    asked = Request(
        circuit,
        (*single_z(3), *SUMS),
        random.uniform(-3, 3, (3, 3)),
        random.uniform(-3, 3, len(circuit.weights)),
    )
    truth = twin("fake_kyiv").run([asked])[0].values
    exact = engine("fake_kyiv", "twin", None)
    (found,) = through(exact, get_target("fake_kyiv"), exact=True).run([asked])
    np.testing.assert_allclose(found.values, truth, atol=1e-12)
    wrong = replace(asked, circuit=replace(circuit, final_layout=circuit.initial_layout))
    assert np.abs(through(exact, get_target("fake_kyiv"), exact=True).run([wrong])[0].values - truth).max() > 1e-2


@pytest.mark.parametrize("source", ["calibration", "circuits"])
@pytest.mark.parametrize("name", ["twin", "aer"])
def test_sampled_values_agree_within_their_errors(name: str, source: str) -> None:
    asked = asked_with("fake_kyiv", *SUMS, batch=6)
    truth = twin("fake_kyiv").run([asked])[0].values
    sampled = through(engine("fake_kyiv", name, 20_000), get_target("fake_kyiv"), exact=False, readout=source)
    (found,) = sampled.run([asked], seed=1)
    # 30 values: one beyond 4 standard errors once in 500 seeds. Measured readout is off by the error of X, 4e-4.
    assert (np.abs(found.values - truth) < 4 * found.standard_errors + 5e-4).all()
    assert (found.standard_errors > 0).all()
    again = sampled.run([asked], seed=1)[0]
    np.testing.assert_array_equal(again.values, found.values)


@pytest.mark.parametrize("source", ["calibration", "circuits"])
def test_standard_errors_are_what_sampling_gives(source: str) -> None:
    """Sums have the covariances of what is measured together; measured readout has its own sampling error."""
    target = get_target("fake_kyiv")
    asked = asked_with("fake_kyiv", SparsePauliOp.from_list([("IIZ", 1.0), ("IZI", 1.0), ("ZII", 1.0)]), batch=1)
    sampled = through(engine("fake_kyiv", "twin", 300), target, exact=False, readout=source)
    results = [sampled.run([asked], seed=seed)[0] for seed in range(150)]
    values, errors = (np.array([getattr(each, name)[0] for each in results]) for name in ("values", "standard_errors"))
    # 150 runs know a deviation to 6%: four of these.
    np.testing.assert_allclose(values.std(0), errors.mean(0), rtol=0.24)


def test_what_measured_errors_add_to_a_standard_error() -> None:
    """<Z> = (2 m - z0 - z1) / (z0 - z1) from m as read, z0 in 0 and z1 in 1: its derivatives by hand."""
    asked = asked_with("fake_kyiv")
    expansion = Readout(context("fake_kyiv", "readout", exact=False, readout="circuits")).expand(asked)
    m, z0, z1, sigma = 0.3, 0.96, -0.9, 0.01
    width = len(expansion.parts[0].observables)
    values = [np.full((1, width), m), np.full((1, 3), z0), np.full((1, 3), z1)]
    nothing = [np.zeros_like(each) for each in values]
    by_z0, by_z1 = (2 * z1 - 2 * m) / (z0 - z1) ** 2, (2 * m - 2 * z0) / (z0 - z1) ** 2
    for which, slope in ((1, by_z0), (2, by_z1)):
        errors = list(nothing)
        errors[which] = np.full((1, 3), sigma)
        np.testing.assert_allclose(expansion.spread(values, errors), np.full((1, 3), abs(slope) * sigma), rtol=1e-6)
    assert not expansion.spread(values, nothing).any()


def test_measured_errors_are_those_of_the_device() -> None:
    asked = asked_with("fake_kyiv", *SUMS)
    truth = twin("fake_kyiv").run([asked])[0].values
    (found,) = through(engine("fake_kyiv", "twin", None), get_target("fake_kyiv"), exact=True, readout="circuits").run(
        [asked]
    )
    pulse = max(get_target("fake_kyiv").backend.target["x"][(q,)].error for q in asked.circuit.physical_qubits)
    # The X that prepares 1 errs: it moves a factor by its error, and a sum of |weights| 1.7 with up to 3 factors.
    assert 0 < np.abs(found.values - truth).max() < 1.7 * 3 * 2 * pulse
    assert found.metadata["circuits"] == len(asked.inputs) + 2
    # Where there are none, nothing changes.
    (clean,) = through(twin("fake_kyiv"), get_target("fake_kyiv"), exact=True, readout="circuits").run([asked])
    assert np.abs(clean.values - truth).max() < 1.7 * 3 * 2 * pulse


def test_errors_of_0_and_1_may_differ() -> None:
    """Against the twin's own distribution, misread by unequal errors."""
    target = Unequal(get_target("fake_kyiv"))
    asked = asked_with("fake_kyiv", *SUMS)
    circuit = asked.circuit
    (part,) = Readout(Context(target, MitigationOptions(), True)).expand(asked).parts
    true = twin("fake_kyiv").probabilities(circuit, asked.inputs, asked.weights)
    matrices = []
    for qubit in reversed(range(3)):
        p01, p10 = target.readout_errors(circuit.physical_qubits[circuit.final_layout[qubit]])
        matrices.append(np.array([[1 - p01, p10], [p01, 1 - p10]]))
    noisy = true @ reduce(np.kron, matrices).T
    for before, after in zip(asked.observables, part.observables, strict=True):
        for right, misread in zip(true, noisy, strict=True):
            assert read(misread, after) == pytest.approx(read(right, before), abs=1e-9)


def test_the_gradient_is_that_without_readout_errors() -> None:
    asked = asked_with("fake_kyiv", *SUMS)
    for source, slack in (("calibration", 1e-10), ("circuits", 2e-3)):
        slopes = []
        for each in (
            twin("fake_kyiv"),
            through(engine("fake_kyiv", "twin", None), get_target("fake_kyiv"), exact=True, readout=source),
        ):
            inputs, weights = (torch.tensor(a, requires_grad=True) for a in (asked.inputs, asked.weights))
            values = each.expectations(asked.circuit, asked.observables, inputs, weights)
            slopes.append(torch.autograd.grad((values**2).sum(), (inputs, weights)))
        for one, other in zip(*slopes, strict=True):
            torch.testing.assert_close(one, other, atol=slack, rtol=slack)


def test_the_ideal_target_has_nothing_to_undo() -> None:
    asked = request("ideal", 3, reps=1)
    (part,) = expand("ideal", "readout", asked).parts
    assert part.observables is asked.observables


def test_symmetric_errors_add_no_strings() -> None:
    assert undo_of(0.03, 0.03).offset == 0.0
    assert undo_of(0.03, 0.03).scale == pytest.approx(1 / 0.94)


def test_without_a_term_an_observable_is_zero() -> None:
    operator = as_operator({}, 2)
    assert operator.num_qubits == 2
    assert not operator.coeffs.any()


@pytest.mark.parametrize("errors", [(0.5, 0.5), (0.7, 0.6), (0.48, 0.48)])
def test_a_coin_toss_is_refused_by_name(errors: tuple[float, float], monkeypatch: pytest.MonkeyPatch) -> None:
    asked = request("fake_kyiv", 3, reps=1)
    worst = asked.circuit.physical_qubits[asked.circuit.final_layout[1]]
    target = get_target("fake_kyiv")
    real = Target.readout_errors
    monkeypatch.setattr(Target, "readout_errors", lambda self, qubit: errors if qubit == worst else real(self, qubit))
    with pytest.raises(UsageError, match=f"readout of qubit {worst} of fake_kyiv .* coin toss"):
        Readout(Context(target, MitigationOptions(), True)).expand(asked)
    # A qubit that is not measured may be what it is.
    Readout(Context(target, MitigationOptions(), True)).expand(replace(asked, observables=single_z(3)[:1]))
    # Measured by circuits, it shows when it is read.
    technique = Readout(Context(target, MitigationOptions(readout="circuits"), True))
    expansion = technique.expand(asked)
    read_as = [torch.zeros(2, 3), torch.ones(1, 3), torch.tensor([[-1.0, 0.95, -1.0]])]
    with pytest.raises(QrunError, match=f"readout of qubit {worst} of fake_kyiv"):
        expansion.combine([each.double() for each in read_as])


def test_a_string_too_long_is_refused() -> None:
    circuit = SimpleNamespace(num_qubits=13, physical_qubits=tuple(range(13)), final_layout=tuple(range(13)))
    asked = SimpleNamespace(circuit=circuit, observables=(SparsePauliOp("Z" * 13),))
    with pytest.raises(UsageError, match="13 factors"):
        Readout(context("fake_kyiv", "readout")).expand(asked)


def test_an_unknown_source_is_said() -> None:
    with pytest.raises(UsageError, match=r"'guess'.* Known: calibration, circuits"):
        Readout(context("fake_kyiv", "readout", readout="guess"))


def test_one_shot_has_no_spread_and_is_no_error() -> None:
    asked = asked_with("fake_kyiv", batch=2)
    for source in ("calibration", "circuits"):
        sampled = through(engine("fake_kyiv", "twin", 1), get_target("fake_kyiv"), exact=False, readout=source)
        found = sampled.run([asked], seed=0)[0]
        assert np.isnan(found.standard_errors).all()
        assert np.isfinite(found.values).all()


def test_the_overhead_is_known_before() -> None:
    circuit = compiled("fake_kyiv", 3)
    assert Readout(context("fake_kyiv", "readout")).circuits(circuit, 5) == 5
    assert Readout(context("fake_kyiv", "readout", readout="circuits")).circuits(circuit, 5) == 7
