"""The comparison's rows: their statistics, and drawing again from distributions that are kept."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from backends.catalog import get_target
from backends.mitigation.compare import Comparison, Row, Setup
from backends.mitigation.resample import ResamplingExecutor
from backends.observables import single_z
from backends.protocol import Request
from backends.twin.executor import TwinExecutor
from circuits.compile import compile_ansatz
from circuits.errors import QrunError, UsageError
from circuits.qgan import generator

TARGET = get_target("fake_manila")
CIRCUIT = compile_ansatz(generator(3, 1), TARGET.backend, seed=0)
SETUP = Setup(sets=4, repetitions=40, draws=2, readout_error=False)


def rows(setup: Setup, stacks: list[tuple[str, ...]], shots: int | None) -> dict[str, Row]:
    with Comparison(TARGET, CIRCUIT, setup) as comparison:
        return {row.stack: row for row in comparison.rows(stacks, shots)}


def figure(value: float | None) -> float:
    assert value is not None
    return value


def test_exact_values_have_bias_and_no_spread() -> None:
    found = rows(SETUP, [(), ("zne",), ("readout",)], None)
    none, zne = found["none"], found["zne"]
    assert (none.spread, none.gain, none.worse, none.circuits, zne.circuits) == (0.0, 1.0, False, 1.0, 3.0)
    assert none.error == pytest.approx(none.bias)
    assert figure(zne.error) < figure(none.error) / 5
    assert zne.gain == pytest.approx(figure(none.error) / figure(zne.error))
    assert found["readout"].error is None
    assert "set aside" in found["readout"].why_not


def test_the_stated_errors_are_the_spread() -> None:
    found = rows(SETUP, [(), ("zne",)], 500)
    for row in found.values():
        assert row.spread == pytest.approx(row.reported, rel=0.15)
    assert not found["zne"].worse
    polynomial = replace(SETUP, options=replace(SETUP.options, extrapolation="richardson"))
    assert rows(polynomial, [("zne",)], 500)["zne"].worse
    assert not rows(polynomial, [("zne",)], 1_000_000)["zne"].worse


def test_rows_repeat_by_the_seed_and_draws_are_a_part_of_the_spread() -> None:
    def figures(row: Row) -> Row:
        return replace(row, seconds=None)

    one, other = (rows(SETUP, [("twirl",)], None)["twirl"] for _ in range(2))
    assert figures(one) == figures(other)
    assert figure(one.spread) > 0
    assert figures(rows(replace(SETUP, seed=1), [("twirl",)], None)["twirl"]) != figures(one)


def test_aer_gives_the_same_within_its_shots() -> None:
    setup = replace(SETUP, repetitions=4, sets=2)
    twin, aer = (rows(replace(setup, engine=engine), [()], 20_000)["none"] for engine in ("twin", "aer"))
    assert figure(twin.error) == pytest.approx(figure(aer.error), abs=0.006)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"sets": 1}, "--sets 1"),
        ({"draws": 0}, "--draws 0"),
        ({"repetitions": 1}, "--repetitions 1"),
        ({"seed": -1}, "--seed -1"),
        ({"engine": "qml"}, "unknown engine 'qml'"),
        ({"engine": "aer", "idle_noise": True}, "no idle noise"),
    ],
)
def test_what_cannot_be_is_refused(values: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Setup(**values)  # type: ignore[arg-type]


def test_drawing_again_is_what_the_twin_draws() -> None:
    """Mean and stated errors agree with the twin's own, for observables of several terms that share shots."""
    z = single_z(3)
    observables = (z[0], (0.5 * z[1] - 0.25 * z[2] + 0.1 * (z[0] @ z[1])).simplify())
    random = np.random.default_rng(0)
    request = Request(
        CIRCUIT, observables, random.uniform(-2, 2, (2, 3)), random.uniform(-2, 2, (2, len(CIRCUIT.weights)))
    )
    twin = TwinExecutor(TARGET, dtype=torch.float64, shots=4000)
    again = ResamplingExecutor(twin, 4000)
    (own,) = twin.run([request], seed=0)
    drawn = [again.run([request], seed=seed)[0] for seed in range(100)]
    exact = TwinExecutor(TARGET, dtype=torch.float64).run([request])[0].values
    assert np.mean([d.values for d in drawn], axis=0) == pytest.approx(exact, abs=0.006)
    assert drawn[0].standard_errors == pytest.approx(own.standard_errors, rel=0.05)
    assert np.std([d.values for d in drawn], axis=0, ddof=1) == pytest.approx(own.standard_errors, rel=0.35)
    assert (again.run([request], seed=5)[0].values == drawn[5].values).all()
    assert (again.at(400).run([request], seed=5)[0].standard_errors > 2 * own.standard_errors).any()


def test_only_what_is_read_from_z_can_be_drawn_again() -> None:
    from qiskit.quantum_info import SparsePauliOp

    request = Request(CIRCUIT, (SparsePauliOp("XII"),), np.zeros((1, 3)), np.zeros(len(CIRCUIT.weights)))
    with pytest.raises(QrunError, match="Z and I only"):
        ResamplingExecutor(TwinExecutor(TARGET, shots=10), 10).run([request], seed=0)
