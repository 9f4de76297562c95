"""Zero-noise extrapolation: folded as Mitiq folds, extrapolated as Mitiq extrapolates, and worth it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import combinations_with_replacement

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from mitiq.zne.inference import ExpFactory, LinearFactory, PolyFactory, RichardsonFactory
from qiskit.quantum_info import Operator

from backends.catalog import get_target
from backends.engines import make_executor
from backends.mitigation import make
from backends.mitigation.extrapolate import Exponential, coefficients
from backends.mitigation.folding import FOLDINGS, folder
from backends.mitigation.linear import Linear
from backends.mitigation.tokens import VIRTUAL, to_tokens
from backends.mitigation.types import Asked, MitigationOptions
from backends.mitigation.zne import Zne, auto_scales
from backends.protocol import Executor, Request
from backends.runtime.budget import estimated
from backends.runtime.cost import OVERHEAD, job_seconds
from backends.runtime.executor import RuntimeExecutor
from backends.runtime.pubs import parts
from backends.runtime.types import JobLimits, RuntimeContext, RuntimeOptions
from circuits.errors import UsageError
from circuits.types import CompiledCircuit
from tests.backends.mitigation.devices import DEVICES, around, compiled, context, expand, noiseless, request, twin

SCALES = ((1.0, 3.0), (1.0, 3.0, 5.0), (1.0, 1.5, 2.0, 4.0), (1.0, 1.0, 5.0))


def noisy(circuit: CompiledCircuit) -> dict[str, int]:
    return {name: number for name, number in circuit.gate_counts.items() if name not in VIRTUAL}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("folding", FOLDINGS)
def test_gates_with_errors_are_scaled_and_the_circuit_itself_is_scale_one(device: str, folding: str) -> None:
    asked = request(device, 3, reps=2)
    parts = expand(device, "zne", asked, folding=folding, scale_factors=(1, 3, 5)).parts
    assert parts[0].circuit is asked.circuit
    for part, scale in zip(parts, (1, 3, 5), strict=True):
        assert part.observables is asked.observables
        assert part.rows is None
        assert noisy(part.circuit) == {name: scale * n for name, n in noisy(asked.circuit).items()}
        assert part.circuit.final_layout == asked.circuit.final_layout


def test_the_angles_of_a_locally_folded_circuit_stand_once() -> None:
    asked = request("fake_kyiv", 3, reps=2)
    for part in expand("fake_kyiv", "zne", asked).parts[1:]:
        assert part.circuit.gate_counts["rz"] >= asked.circuit.gate_counts["rz"]
        free = [
            each
            for each in part.circuit.circuit.data
            if getattr(each.operation, "params", ()) and getattr(each.operation.params[0], "parameters", ())
        ]
        plain = [
            each
            for each in asked.circuit.circuit.data
            if getattr(each.operation, "params", ()) and getattr(each.operation.params[0], "parameters", ())
        ]
        assert len(free) == len(plain)


def test_random_folding_reaches_scales_in_between_by_the_calibrated_errors() -> None:
    device, circuit = get_target("fake_kyiv"), compiled("fake_kyiv", 4)
    errors = device.backend.target

    def error(name: str, where: tuple[int, ...]) -> float:
        found = errors[name][where].error
        return float(found or 0.0)

    def total(made: CompiledCircuit) -> float:
        return sum(
            error(i.operation.name, tuple(made.physical_qubits[made.circuit.find_bit(q).index] for q in i.qubits))
            for i in made.circuit.data
        )

    asked = request("fake_kyiv", 4)
    parts = expand("fake_kyiv", "zne", asked, folding="random", scale_factors=(1, 1.5, 2, 2.5), seed=3).parts
    reached = [total(part.circuit) / total(circuit) for part in parts]
    # One two-qubit gate is the step: 1/12 of the errors, and these gates' errors are not all the same.
    np.testing.assert_allclose(reached, [1, 1.5, 2, 2.5], atol=0.25)
    again = expand("fake_kyiv", "zne", asked, folding="random", scale_factors=(1, 1.5, 2, 2.5), seed=3).parts
    other = expand("fake_kyiv", "zne", asked, folding="random", scale_factors=(1, 1.5, 2, 2.5), seed=4).parts
    assert [part.circuit.circuit for part in again] == [part.circuit.circuit for part in parts]
    assert [part.circuit.circuit for part in other] != [part.circuit.circuit for part in parts]


def test_random_folding_stops_at_the_gate_that_meets_the_scale() -> None:
    """By the mean errors of gates on one and on two qubits: no further off than half a folded two-qubit gate."""
    asked, device = request("fake_kyiv", 4), get_target("fake_kyiv").backend.target
    plain = asked.circuit

    def mean_error(names: tuple[str, ...]) -> float:
        found = [
            device[i.operation.name][
                tuple(plain.physical_qubits[plain.circuit.find_bit(q).index] for q in i.qubits)
            ].error
            for i in plain.circuit.data
            if i.operation.name in names
        ]
        return float(np.mean(found))

    of = {"sx": mean_error(("sx", "x")), "x": mean_error(("sx", "x")), "ecr": mean_error(("ecr",))}
    total = sum(of.get(name, 0.0) * number for name, number in plain.gate_counts.items())
    for seed in range(8):
        part = expand("fake_kyiv", "zne", asked, folding="random", scale_factors=(1, 2), seed=seed).parts[1]
        reached = sum(of.get(name, 0.0) * number for name, number in part.circuit.gate_counts.items())
        assert abs(reached / total - 2.0) <= of["ecr"] / total + 1e-9


@pytest.mark.parametrize("folding", ["random", "global"])
def test_scales_between_which_nothing_is_folded_are_refused(folding: str) -> None:
    asked = request("fake_kyiv", 3, reps=1)
    for scales in ((1, 1.0000001), (1, 3, 3.0001)):
        with pytest.raises(UsageError, match=rf"scales {scales[-2]:.1f} and {scales[-1]} are one and the same"):
            expand("fake_kyiv", "zne", asked, folding=folding, scale_factors=scales)


def test_random_folding_leaves_the_global_generator_alone() -> None:
    fold = folder("random", compiled("fake_kyiv", 3), get_target("fake_kyiv"), 2**70)
    before = np.random.get_state()[1].copy()
    fold(to_tokens(compiled("fake_kyiv", 3).circuit), 2.0)
    np.testing.assert_array_equal(np.random.get_state()[1], before)


@pytest.mark.parametrize("scales", SCALES)
def test_coefficients_are_mitiqs_formula(scales: tuple[float, ...]) -> None:
    values = np.random.default_rng(1).normal(size=len(scales))
    known = {"linear": LinearFactory.extrapolate(scales, values)}
    if len(set(scales)) == len(scales):
        known["richardson"] = RichardsonFactory.extrapolate(scales, values)
    if len(set(scales)) > 2:
        known["quadratic"] = PolyFactory.extrapolate(scales, values, 2)
    for name, value in known.items():
        assert np.dot(coefficients(name, scales), values) == pytest.approx(value, abs=1e-12)
    # What does not change with noise stays.
    assert sum(coefficients("linear", scales)) == pytest.approx(1.0)


def test_richardson_is_lagranges_polynomial() -> None:
    np.testing.assert_allclose(coefficients("richardson", (1, 3, 5)), [15 / 8, -10 / 8, 3 / 8], atol=1e-12)


@given(st.lists(st.sampled_from([1, 1.5, 2, 3, 5, 7]), min_size=2, max_size=8).map(sorted))
def test_a_scale_that_stands_twice_counts_twice(scales: list[float]) -> None:
    """Repeated values are as good as their mean, with so much more weight: of a line as of the polynomial."""
    each, times = np.unique(scales, return_counts=True)
    assume(len(each) > 1)
    for name in ("linear", "richardson"):
        found = np.array(coefficients(name, scales))
        assert found.sum() == pytest.approx(1.0)
        assert found @ scales == pytest.approx(0.0, abs=1e-8)  # a straight line is led to where it begins
        by_scale = [found[np.array(scales) == scale] for scale in each]
        for copies in by_scale:
            np.testing.assert_allclose(copies, copies[0], atol=1e-9)
        mean = (times * each).sum() / times.sum()
        slope = times * (each - mean) / (times * (each - mean) ** 2).sum()
        wanted = times / times.sum() - mean * slope if name == "linear" else coefficients(name, tuple(each))
        np.testing.assert_allclose([copies.sum() for copies in by_scale], wanted, atol=1e-9)


def variance(scales: tuple[float, ...]) -> float:
    """Of a line's value at no noise, where each circuit's value has the variance 1."""
    return float(np.square(coefficients("linear", scales)).sum())


def test_of_all_three_circuits_those_of_auto_know_a_line_best() -> None:
    taken = auto_scales("auto", exact=False)
    assert taken == auto_scales("exponential", exact=False) == auto_scales("linear", exact=False) == (1, 1, 5)
    others = [each for each in combinations_with_replacement((1.0, 3.0, 5.0), 3) if len(set(each)) > 1]
    assert min(others, key=variance) == taken
    assert variance(taken) == pytest.approx(0.84375)
    assert variance((1, 3, 5)) == pytest.approx(1.458333)
    for exact in (True, False):
        assert auto_scales("richardson", exact=exact) == auto_scales("quadratic", exact=exact) == (1, 3, 5)
    assert auto_scales("exponential", exact=True) == (1, 3, 5)


@given(st.lists(st.sampled_from([1, 2, 3, 4, 5]), min_size=2, max_size=12).map(sorted))
def test_no_scales_are_better_than_the_ends_by_their_weights(scales: list[float]) -> None:
    assume(len(set(scales)) > 1)
    bound = ((5 + 1) / (5 - 1)) ** 2
    assert variance(tuple(scales)) * len(scales) >= bound - 1e-9
    assert variance((1, 1, 1, 1, 1, 5)) * 6 == pytest.approx(bound)


def exponential(scales: tuple[float, ...]) -> Exponential:
    return Exponential((), scales, coefficients("linear", scales))


@pytest.mark.parametrize("scales", SCALES)
def test_the_exponential_is_mitiqs(scales: tuple[float, ...]) -> None:
    random = np.random.default_rng(2)
    height = random.choice([-1, 1], (5, 3)) * random.uniform(0.05, 1.0, (5, 3))
    decay = random.uniform(0.01, 0.2, (5, 3))
    s = np.array(scales).reshape(-1, 1, 1)
    clean = height * np.exp(-decay * s)
    found = exponential(scales).combine([torch.tensor(each) for each in clean])
    np.testing.assert_allclose(found, height, atol=1e-12)
    values = clean * (1 + 0.05 * random.normal(size=clean.shape))
    found = exponential(scales).combine([torch.tensor(each) for each in values])
    for where in np.ndindex(5, 3):
        expected = ExpFactory.extrapolate(scales, [float(each[where]) for each in values], asymptote=0.0)
        assert float(found[where]) == pytest.approx(expected, rel=1e-9)


def test_where_no_exponential_goes_through_it_is_the_line() -> None:
    fit = exponential((1.0, 3.0, 5.0))
    columns = np.array([[0.1, -0.01, 0.02], [0.0, 0.0, 0.0], [0.3, 0.2, 0.0], [0.3, 1e-5, 2e-6], [-0.3, -0.2, -0.1]]).T
    found = fit.combine([torch.tensor(row[None, :]) for row in columns])[0]
    line = np.array(coefficients("linear", (1, 3, 5))) @ columns
    np.testing.assert_allclose(found[:4], line[:4], atol=1e-12)
    assert abs(float(found[4]) - line[4]) > 0.01
    errors = [np.full((1, 5), 0.01)] * 3
    spread = fit.spread([row[None, :] for row in columns], errors)[0]
    np.testing.assert_allclose(spread[:4], 0.01 * np.linalg.norm(coefficients("linear", (1, 3, 5))), atol=1e-12)
    assert np.isfinite(spread).all()


def test_an_exponential_that_more_than_doubles_a_value_is_not_believed() -> None:
    fit = exponential((1.0, 1.0, 5.0))
    rows = [torch.tensor([[0.3, 0.3]]), torch.tensor([[0.3, 0.3]]), torch.tensor([[0.3 / 15.9, 0.3 / 16.1]])]
    found = fit.combine([row.to(torch.float64) for row in rows])[0]
    assert float(found[0]) == pytest.approx(0.3 * 15.9**0.25, rel=1e-6)
    assert float(found[1]) == pytest.approx(0.3 + (0.3 - 0.3 / 16.1) / 4, rel=1e-6)


def test_the_exponentials_gradient_is_its_slope() -> None:
    fit = exponential((1.0, 3.0, 5.0))
    values = [
        torch.tensor([[0.4, -0.2, 0.1, 0.0]], dtype=torch.float64, requires_grad=True),
        torch.tensor([[0.3, -0.15, -0.1, 0.0]], dtype=torch.float64, requires_grad=True),
        torch.tensor([[0.25, -0.1, 0.05, 0.0]], dtype=torch.float64, requires_grad=True),
    ]
    assert torch.autograd.gradcheck(lambda *each: fit.combine(each), values)


def test_the_exponentials_spread_is_what_sampling_gives() -> None:
    fit, random = exponential((1.0, 3.0, 5.0)), np.random.default_rng(5)
    clean, sigma = np.array([0.5, 0.4, 0.33]), 0.005
    drawn = clean[:, None] + sigma * random.normal(size=(3, 20000))
    found = fit.combine([torch.tensor(row[None, :]) for row in drawn]).numpy()
    said = fit.spread([each.reshape(1, 1) for each in clean], [np.full((1, 1), sigma)] * 3)[0, 0]
    # The deviation of 20,000 draws is known to 0.5%; beyond first order come (sigma / value)^2 = 2e-4.
    assert found.std() == pytest.approx(said, rel=0.02)


def test_richardsons_spread_is_what_sampling_gives() -> None:
    asked = request("fake_kyiv", 3, batch=1, reps=1)
    asked = replace(asked, inputs=np.tile(asked.inputs, (800, 1)))
    (found,) = around("fake_kyiv", "zne", shots=400, extrapolation="richardson").run([asked], seed=0)
    # 800 samples know a deviation to 2.5%: four of these.
    np.testing.assert_allclose(found.values.std(0), found.standard_errors.mean(0), rtol=0.1)


@pytest.mark.parametrize("engine", ["twin", "aer", "runtime"])
def test_two_circuits_at_one_scale_are_two_samples_and_the_spread_says_so(engine: str) -> None:
    asked = request("fake_kyiv", 3, batch=1, reps=1)
    asked = replace(asked, inputs=np.tile(asked.inputs, (400, 1)))
    inner = sampling(engine, 400)
    one, other = inner.run([asked, asked], seed=4)
    for column in range(3):
        assert abs(np.corrcoef(one.values[:, column], other.values[:, column])[0, 1]) < 4 / np.sqrt(400)
    outer = make.mitigated(inner, get_target("fake_kyiv"), MitigationOptions(stack=("zne",)), exact=False)
    (found,) = outer.run([asked], seed=0)
    # 400 samples know a deviation to 3.5%: four of these.
    np.testing.assert_allclose(found.values.std(0), found.standard_errors.mean(0), rtol=0.15)


def sampling(engine: str, shots: int) -> Executor:
    device = get_target("fake_kyiv")
    if engine == "runtime":
        return RuntimeExecutor(device, RuntimeContext(RuntimeOptions(shots=shots)))
    return make_executor(engine, device, shots=shots)


@settings(max_examples=10)
@given(st.sampled_from([(1, 1, 5), (1, 3, 5), (1, 1, 1, 3, 3, 7), (3, 3, 5)]), st.integers(1, 4))
def test_circuits_and_shots_are_as_many_as_the_scales(scales: tuple[float, ...], batch: int) -> None:
    """In one job, in which each circuit's rows share a PUB, and counted as such before it is sent."""
    asked, device = request("fake_kyiv", 2, batch=batch, reps=1), get_target("fake_kyiv")
    technique = Zne(context("fake_kyiv", "zne", exact=False, scale_factors=scales, extrapolation="linear"))
    made = [replace(asked, circuit=part.circuit) for part in technique.expand(_asked(asked)).parts]
    assert technique.circuits(asked.circuit, batch) == batch * len(scales) == sum(len(each.inputs) for each in made)
    options = RuntimeOptions(shots=100)
    (job,) = parts(made, device, options, 0, local=True, limits=JobLimits())
    times = Counter(scales)
    assert [pub.rows for pub in job.pubs] == [batch * times[scale] for scale in sorted(times)]
    alone = [job_seconds(each.circuit, device, options, batch) - OVERHEAD for each in made]
    assert estimated(job, device) == pytest.approx(OVERHEAD + sum(alone))
    # What is run for one scale is one circuit: compiled programs and PUBs serve all its copies.
    assert len({id(each.circuit) for each in made}) == len(times)


@pytest.mark.parametrize(
    ("device", "qubits", "times"),
    [
        ("fake_kyiv", 4, 10),
        ("fake_torino", 4, 10),
        ("fake_fez", 4, 10),
        ("fake_kyiv", 8, 5),
        ("fake_torino", 8, 5),
        ("fake_fez", 8, 5),
    ],
)
def test_exact_values_gain_what_was_promised(device: str, qubits: int, times: float) -> None:
    asked = request(device, qubits, batch=6)
    truth = noiseless(asked)
    plain = np.abs(twin(device).run([asked])[0].values - truth).mean()
    mitigated = np.abs(around(device, "zne").run([asked])[0].values - truth).mean()
    assert plain / mitigated >= times


@pytest.mark.parametrize(
    ("device", "qubits", "shots"),
    [
        ("fake_kyiv", 4, 32768),
        ("fake_torino", 4, 131072),
        ("fake_fez", 4, 131072),
        ("fake_kyiv", 8, 32768),
        ("fake_torino", 8, 131072),
        ("fake_fez", 8, 131072),
    ],
)
def test_sampled_values_halve_the_error(device: str, qubits: int, shots: int) -> None:
    plain, mitigated = 0.0, 0.0
    for seed in range(6):
        asked = request(device, qubits, batch=6, seed=seed)
        truth = noiseless(asked)
        plain += np.abs(twin(device, shots).run([asked], seed=seed)[0].values - truth).mean()
        mitigated += np.abs(around(device, "zne", shots=shots).run([asked], seed=9 + seed)[0].values - truth).mean()
    assert plain / mitigated >= 2


def test_with_readout_errors_both_together_halve_the_error_at_8_qubits() -> None:
    asked = request("fake_kyiv", 8, batch=12)
    engine = make_executor("twin", get_target("fake_kyiv"), precision="float64", shots=32768)
    stack = make.mitigated(engine, get_target("fake_kyiv"), MitigationOptions(stack=("readout", "zne")), exact=False)
    truth = noiseless(asked)
    plain, mitigated = (np.abs(each.run([asked], seed=1)[0].values - truth).mean() for each in (engine, stack))
    assert plain / mitigated >= 2


def test_auto_takes_what_was_measured_best() -> None:
    asked = request("fake_kyiv", 2, reps=1)
    sampled = Zne(context("fake_kyiv", "zne", exact=False)).expand(_asked(asked))
    assert isinstance(sampled, Exponential)
    assert sampled.scales == (1, 1, 5)
    assert sampled.parts[0].circuit is sampled.parts[1].circuit is asked.circuit
    exact = Zne(context("fake_kyiv", "zne", exact=True)).expand(_asked(asked))
    assert isinstance(exact, Linear)
    assert exact.coefficients == coefficients("richardson", (1.0, 3.0, 5.0))


def _asked(asked: Request) -> Asked:
    return Asked(asked.circuit, asked.observables, asked.inputs, asked.weights)


def test_global_folding_undoes_itself() -> None:
    asked = request("fake_kyiv", 3, reps=1)
    plain = asked.circuit.circuit
    angles = dict(zip(plain.parameters, np.random.default_rng(0).uniform(-3, 3, len(plain.parameters)), strict=True))
    for part in expand("fake_kyiv", "zne", asked, folding="global", scale_factors=(1, 2.3, 3)).parts:
        assert Operator(part.circuit.circuit.assign_parameters(angles)).equiv(Operator(plain.assign_parameters(angles)))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scale_factors": (1,)}, ("at least two", "[1, 3, 5]")),
        ({"scale_factors": ()}, ("at least two",)),
        ({"scale_factors": "135"}, ("list of numbers",)),
        ({"scale_factors": (1, 5, 3, 3)}, ("ascend", "[1, 3, 3, 5]")),
        ({"scale_factors": (3, 1)}, ("ascend", "[1, 3]")),
        ({"scale_factors": (3, 3)}, ("two scale factors that differ", "[1, 3, 5]")),
        ({"scale_factors": (1, 1, 5), "extrapolation": "quadratic"}, ("3 different scale factors", "there are 2")),
        ({"scale_factors": (0.5, 3)}, ("1 or more", "0.5")),
        ({"scale_factors": (1, float("nan"))}, ("nan",)),
        ({"scale_factors": (1, float("inf"))}, ("inf",)),
        ({"scale_factors": (True, 3)}, ("True",)),
        ({"scale_factors": (1, 2, 3)}, ("odd", "Near ones: 1, 3", 'folding = "random"')),
        ({"scale_factors": (1, 6.5)}, ("6.5", "1, 5, 7")),
        ({"scale_factors": (1, 3), "extrapolation": "quadratic"}, ("needs 3 different scale factors", "linear")),
        ({"extrapolation": "cubic"}, ("'cubic'", "richardson")),
        ({"folding": "half"}, ("'half'", "local")),
    ],
)
def test_what_cannot_be_is_said(options: dict[str, object], words: tuple[str, ...]) -> None:
    with pytest.raises(UsageError) as caught:
        Zne(context("fake_kyiv", "zne", **options))
    for word in words:
        assert word in str(caught.value)


def test_the_overhead_is_known_before() -> None:
    technique = Zne(context("fake_kyiv", "zne"))
    assert technique.circuits(compiled("fake_kyiv", 2), 7) == 21
