"""The choice among stacks by calibration circuits."""

from __future__ import annotations

import numpy as np
import pytest

from backends.catalog import get_target
from backends.engines import make_executor
from backends.mitigation.calibrate import Choice, Tried, _calibration, _decide, candidates, choose
from backends.mitigation.forecast import ideal_values
from backends.protocol import Executor
from circuits.compile import compile_ansatz
from circuits.errors import UsageError
from circuits.qgan import generator

TARGET = get_target("fake_manila")
CIRCUIT = compile_ansatz(generator(3, 1), TARGET.backend, seed=0)


def choice(shots: int | None, *, budget: float = 10.0, seed: int = 0) -> Choice:
    def engine() -> Executor:
        return make_executor("twin", TARGET, shots=shots, precision="float64")

    return choose(engine, TARGET, CIRCUIT, shots=shots, budget=budget, seed=seed)


def test_the_ideal_values_of_calibration_circuits_are_known_and_say_something() -> None:
    inputs, weights, ideal = _calibration(CIRCUIT, 0)
    assert ideal == pytest.approx(ideal_values(CIRCUIT, inputs, weights), abs=1e-12)
    assert np.abs(ideal).mean() > 0.2
    angles = np.concatenate([inputs, weights], axis=1) / (np.pi / 2)
    assert np.isclose(angles, np.round(angles)).mean() > 0.7


def test_exact_values_choose_an_extrapolation_and_the_choice_repeats() -> None:
    found = choice(None)
    assert found.stack in ("readout+zne", "readout+lre", "readout+cdr")
    assert found.stack in found.why
    by = {tried.stack: tried for tried in found.table}
    assert set(by) == {"+".join(stack) or "none" for stack in candidates()}
    best, none = by[found.stack].error, by["none"].error
    assert best is not None
    assert none is not None
    assert best < none / 3
    assert by["pec"].why_not == "over the budget"
    assert found == choice(None)


def test_a_budget_of_one_leaves_what_needs_no_further_circuit() -> None:
    found = choice(None, budget=1.0)
    assert found.stack == "readout"
    ran = {tried.stack for tried in found.table if tried.error is not None}
    assert ran <= {"none", "readout", "ddd", "readout+ddd", "symmetry", "readout+symmetry"}


def test_none_wins_where_nothing_is_better() -> None:
    table = (Tried("zne", 3.0, 0.10, 0.02), Tried("none", 1.0, 0.105, 0.02), Tried("lre", 6.0, None, None, "dear"))
    errors = {"zne": np.array([0.0, 0.2, 0.1]), "none": np.array([0.2, 0.05, 0.065])}
    found = _decide(table, errors, 10, 10.0)
    assert found.stack == "none"
    assert "no stack" in found.why
    assert "zne (0.1) is not better beyond the uncertainty" in found.why


def test_of_the_same_values_the_shorter_stack_is_taken() -> None:
    table = (Tried("readout+cdr", 1.3, 0.02, 0.0), Tried("cdr", 1.3, 0.02, 0.0), Tried("none", 1.0, 0.1, 0.0))
    errors = {"readout+cdr": np.full(3, 0.02), "cdr": np.full(3, 0.02) + 1e-16, "none": np.full(3, 0.1)}
    found = _decide(table, errors, None, 10.0)
    assert found.stack == "cdr"
    assert found.why.startswith("cdr: mean error 0.02")


@pytest.mark.parametrize("budget", [0.5, float("nan"), float("inf"), True])
def test_a_budget_that_cannot_be_is_refused(budget: float) -> None:
    with pytest.raises(UsageError, match="budget"):
        choice(None, budget=budget)
