"""A device with its noise scaled."""

from __future__ import annotations

import math

import numpy as np
import pytest

from backends.catalog import get_target
from backends.engines import make_executor
from backends.protocol import Request
from backends.scaled import scaled, scaled_error
from backends.target import Target
from circuits.compile import compile_ansatz
from circuits.errors import UsageError
from circuits.qgan import generator
from circuits.types import CompiledCircuit
from experiments.models.outputs import z_strings


def compiled(target: Target, qubits: int = 3) -> CompiledCircuit:
    return compile_ansatz(generator(qubits, 2, "reverse_linear"), target.layout_backend, seed=5)


def shape(circuit: CompiledCircuit) -> list[tuple[str, list[int]]]:
    where = circuit.circuit.find_bit
    return [(i.operation.name, [where(q).index for q in i.qubits]) for i in circuit.circuit.data]


def values(target: Target, circuit: CompiledCircuit, engine: str = "twin", **options: object) -> np.ndarray:
    rng = np.random.default_rng(1)
    inputs = rng.uniform(-3, 3, (4, len(circuit.inputs)))
    weights = rng.uniform(-3, 3, len(circuit.weights))
    request = Request(circuit, z_strings(circuit.num_qubits, circuit.num_qubits), inputs, weights)
    with make_executor(engine, target, precision="float64", **options) as executor:  # type: ignore[arg-type]
        return executor.run([request], seed=3)[0].values


@pytest.mark.parametrize("name", ["fake_manila", "fake_kyiv", "fake_torino"])
@pytest.mark.parametrize("idle", [False, True])
def test_without_noise_it_is_ideal_on_the_same_layout(name: str, idle: bool) -> None:
    device = get_target(name)
    quiet = scaled(device, 0.0)
    circuit = compiled(device)
    assert compiled(quiet).physical_qubits == circuit.physical_qubits
    assert shape(compiled(quiet)) == shape(circuit)
    found = values(quiet, circuit, idle_noise=idle)
    ideal = get_target("ideal")
    np.testing.assert_allclose(found, values(ideal, compiled(ideal)), atol=1e-12)
    assert np.abs(values(device, circuit, idle_noise=idle) - found).max() > 1e-3


def test_at_one_it_is_the_device_and_further_up_it_is_farther_from_ideal() -> None:
    device = get_target("fake_kyiv")
    assert scaled(device, 1.0) is device
    circuit, ideal = compiled(device), get_target("ideal")
    truth = values(ideal, compiled(ideal))
    near = scaled(device, 1.0 + 1e-9)
    np.testing.assert_allclose(values(near, circuit), values(device, circuit), atol=1e-7)
    apart = [np.abs(values(scaled(device, f), circuit) - truth).mean() for f in (0.0, 0.5, 1.0, 2.0, 3.0)]
    assert apart == sorted(apart)
    assert apart[2] / apart[1] == pytest.approx(2.0, rel=0.1)  # errors are small: they add up


def test_every_figure_of_the_calibration_is_scaled() -> None:
    device = get_target("fake_manila")
    twice = scaled(device, 2.0)
    assert device.backend is not None
    assert twice.backend is not None
    before, after = device.backend.target, twice.backend.target
    for name in ("cx", "sx", "measure"):
        for where, properties in before[name].items():
            assert after[name][where].error == pytest.approx(2 * properties.error)
            assert after[name][where].duration == properties.duration
    assert after.qubit_properties[0].t1 == pytest.approx(before.qubit_properties[0].t1 / 2)
    assert after.qubit_properties[0].t2 == pytest.approx(before.qubit_properties[0].t2 / 2)
    assert twice.readout_errors(0) == pytest.approx([2 * p for p in device.readout_errors(0)])
    assert before["cx"][(0, 1)].error == get_target("fake_manila").backend.target["cx"][(0, 1)].error  # type: ignore[union-attr]


def test_aer_runs_it_too() -> None:
    device = get_target("fake_manila")
    circuit = compiled(device)
    for factor in (0.0, 2.0):
        target = scaled(device, factor)
        exact = values(target, circuit)
        sampled = values(target, circuit, engine="aer", shots=20_000)
        assert np.abs(sampled - exact).max() < 0.04


def test_an_error_ends_where_nothing_is_left_and_what_is_out_of_order_stays() -> None:
    assert scaled_error(0.3, 3.0, 1) == 0.5
    assert scaled_error(0.3, 3.0, 2) == 0.75
    assert scaled_error(1.0, 0.0, 2) == 1.0
    assert scaled_error(0.9, 3.0, 1) == 0.9
    assert scaled_error(0.9, 0.0, 1) == 0.0


@pytest.mark.parametrize("factor", [-0.1, 10.5, math.nan, math.inf, True])
def test_what_is_no_factor_is_refused(factor: float) -> None:
    with pytest.raises(UsageError, match="noise cannot be scaled"):
        scaled(get_target("fake_manila"), factor)


def test_ideal_has_no_noise_to_scale() -> None:
    with pytest.raises(UsageError, match="no noise to scale"):
        scaled(get_target("ideal"), 2.0)
