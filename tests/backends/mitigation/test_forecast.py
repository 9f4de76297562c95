"""What is said of a stack before a run: against samples that are really drawn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from backends.catalog import get_target
from backends.engines import make_executor
from backends.mitigation.expected import ExpectedExecutor
from backends.mitigation.forecast import Forecast, folded, forecast, ideal_values
from backends.mitigation.make import mitigated
from backends.mitigation.types import MitigationOptions
from backends.observables import single_z
from backends.protocol import Request
from circuits.compile import compile_ansatz
from circuits.errors import QrunError
from circuits.qgan import generator

TARGET = get_target("fake_manila")
CIRCUIT = compile_ansatz(generator(3, 1), TARGET.backend, seed=0)
ZNE = MitigationOptions(stack=("zne",))


def test_the_mean_of_a_folded_normal() -> None:
    drawn = np.random.default_rng(0).normal(size=400_000)
    for bias, spread in ((0.0, 1.0), (0.3, 0.1), (-0.2, 0.5)):
        assert folded(np.array([bias]), np.array([spread]))[0] == pytest.approx(
            np.abs(bias + spread * drawn).mean(), abs=3e-3
        )
    assert folded(np.array([-0.25]), np.array([0.0]))[0] == 0.25


@pytest.mark.parametrize("stack", [(), ("zne",), ("readout",)])
def test_expected_errors_are_those_of_drawn_values(stack: tuple[str, ...]) -> None:
    """The spread that is propagated from exact variances is the standard deviation over repetitions."""
    random = np.random.default_rng(3)
    inputs, weights = random.uniform(-1, 1, (2, 3)), random.uniform(-1, 1, len(CIRCUIT.weights))
    request = Request(CIRCUIT, single_z(3), inputs, weights)
    options = replace(ZNE, stack=stack)
    with ExpectedExecutor(make_executor("twin", TARGET, precision="float64"), 2000) as engine:
        (said,) = mitigated(engine, TARGET, options, exact=False).run([request])
    around = mitigated(make_executor("twin", TARGET, shots=2000), TARGET, options, exact=False)
    drawn = np.stack([around.run([request], seed=seed)[0].values for seed in range(200)])
    assert drawn.mean(0) == pytest.approx(said.values, abs=0.005)
    assert drawn.std(0, ddof=1) == pytest.approx(said.standard_errors, rel=0.25)


def test_exact_values_get_better_with_zne() -> None:
    found = forecast(TARGET, CIRCUIT, ZNE, shots=None, seed=0, readout_error=False)
    assert found.error_with < found.error_without / 5
    assert found.error_without == found.bias_without
    assert (found.overhead, found.spread_with, found.pays_from, found.worse) == (3.0, 0.0, None, False)
    assert "zne with exact values" in found.sentence
    assert found == forecast(TARGET, CIRCUIT, ZNE, shots=None, seed=0, readout_error=False)


def test_few_shots_make_it_worse_and_it_says_from_where_it_pays() -> None:
    few = forecast(TARGET, CIRCUIT, replace(ZNE, extrapolation="richardson"), shots=50, seed=0, readout_error=False)
    assert few.worse
    assert few.pays_from is not None
    assert few.pays_from > 50
    assert "it pays from about" in few.sentence
    more = {
        factor: forecast(
            TARGET,
            CIRCUIT,
            replace(ZNE, extrapolation="richardson"),
            shots=int(few.pays_from * factor),
            seed=0,
            readout_error=False,
        )
        for factor in (0.9, 1.1)
    }
    assert more[0.9].error_with > more[0.9].error_without
    assert more[1.1].error_with < more[1.1].error_without


def test_where_it_never_pays_it_says_so() -> None:
    """Nothing to undo on the ideal target: extrapolation only adds noise."""
    ideal = get_target("ideal")
    polynomial = replace(ZNE, extrapolation="richardson")
    found = forecast(ideal, compile_ansatz(generator(2, 1), None, seed=0), polynomial, shots=1000, seed=0)
    assert found.worse
    assert found.pays_from is None
    assert "at no number of shots" in found.sentence
    assert not forecast(ideal, compile_ansatz(generator(2, 1), None, seed=0), ZNE, shots=None, seed=0).worse


def test_worse_needs_more_than_the_estimate_is_uncertain_by() -> None:
    made = Forecast("zne", 100, 0.1, 0.11, 0.1, 0.0, 0.0, 0.1, uncertainty=0.006, overhead=3.0, pays_from=200)
    assert not made.worse
    assert replace(made, uncertainty=0.004).worse


def test_a_circuit_too_wide_for_the_twin_is_refused() -> None:
    target = get_target("fake_kyiv")
    circuit = compile_ansatz(generator(11, 1), target.backend, seed=0)
    with pytest.raises(QrunError, match=r"zne .* not forecast.* 11 of the device"):
        forecast(target, circuit, ZNE, shots=None, seed=0)


def test_ideal_values_are_those_of_the_ansatz() -> None:
    inputs = np.array([[0.3, -0.4, 1.0]])
    assert ideal_values(CIRCUIT, inputs, np.zeros(len(CIRCUIT.weights)))[0, 0] == pytest.approx(np.cos(0.3))
