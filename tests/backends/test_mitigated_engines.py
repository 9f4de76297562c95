"""What mitigation asks of the engines: a step stays one job, and pulses in idle time cost what they cost."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import Delay

from backends.aer import AerExecutor
from backends.catalog import get_target
from backends.engines import make_executor
from backends.layer import ExpectationLayer
from backends.mitigation.make import mitigated
from backends.mitigation.stack import parse
from backends.mitigation.types import MitigationOptions
from backends.observables import single_z
from backends.protocol import Request
from backends.runtime.pubs import parts
from backends.runtime.types import JobLimits, RuntimeOptions
from backends.twin.executor import TwinExecutor
from circuits.types import CompiledCircuit
from circuits.waiting import without_idle_delays
from tests.backends.reference import compiled, draw


class CountingAer(AerExecutor):
    """Aer, and how many circuits each of its jobs had."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.jobs: list[int] = []

    def _job(self, requests: Any, *rest: Any) -> Any:
        self.jobs.append(sum(len(request.inputs) for request in requests))
        return super()._job(requests, *rest)


@pytest.mark.parametrize("gradient", ["spsa", "parameter-shift"])
@pytest.mark.parametrize(("stack", "times"), [("none", 1), ("readout+zne", 3), ("ddd+twirl+zne", 6)])
def test_a_step_is_one_job_on_aer(stack: str, times: int, gradient: str) -> None:
    target, circuit = get_target("fake_kyiv"), compiled("fake_kyiv", 2, 1, "linear")
    inner = CountingAer(target, shots=20)
    engine = mitigated(inner, target, MitigationOptions(stack=parse(stack), twirl_circuits=2), exact=False)
    layer = ExpectationLayer(engine, circuit, single_z(2), gradient=gradient)
    inputs, weights = (torch.tensor(part) for part in draw(circuit, 2, 1))
    layer(inputs, weights.requires_grad_()).sum().backward()
    assert weights.grad is not None
    vectors = 3 if gradient == "spsa" else 1 + 2 * len(weights)
    assert inner.jobs == [2 * vectors * times]


def filled(device: str, circuit: CompiledCircuit) -> CompiledCircuit:
    """The circuit that ddd makes of one."""
    target, seen = get_target(device), []

    class Watching(TwinExecutor):
        def run(self, requests: Any, **options: Any) -> Any:
            seen.extend(requests)
            return super().run(requests, **options)

    engine = mitigated(Watching(target), target, MitigationOptions(stack=("ddd",)), exact=True)
    engine.run([Request(circuit, single_z(circuit.num_qubits), *draw(circuit, 1, 1))])
    return seen[0].circuit


def pulses_alone(circuit: CompiledCircuit) -> QuantumCircuit:
    result = QuantumCircuit(circuit.circuit.num_qubits)
    for instruction in circuit.circuit.data:
        if instruction.operation.name != "delay":
            result.append(instruction.operation, [circuit.circuit.find_bit(q).index for q in instruction.qubits])
    return result


@pytest.mark.parametrize("device", ["fake_kyiv", "fake_torino"])
def test_without_idle_noise_waiting_between_pulses_costs_nothing(device: str) -> None:
    target, plain = get_target(device), compiled(device, 4, 2, "linear")
    circuit = filled(device, plain)
    assert circuit.idle_delays
    assert circuit.circuit.count_ops()["delay"] > 0
    assert circuit.circuit.count_ops()["x"] > plain.circuit.count_ops().get("x", 0)
    bare = replace(circuit, circuit=pulses_alone(circuit), idle_delays=False)
    counting = replace(circuit, idle_delays=False)
    arrays, observables = draw(plain, 2, 3), single_z(4)

    def values(engine: Any, which: CompiledCircuit) -> np.ndarray:
        return engine.run([Request(which, observables, *arrays)], seed=1)[0].values

    twin, aer = TwinExecutor(target), AerExecutor(target, shots=None)
    np.testing.assert_allclose(values(twin, circuit), values(twin, bare), rtol=0, atol=1e-14)
    np.testing.assert_allclose(values(aer, circuit), values(twin, circuit), rtol=0, atol=2e-8)
    np.testing.assert_allclose(values(aer, counting), values(twin, counting), rtol=0, atol=2e-8)
    # Delays of a user's own count, and so does what waits where there is idle noise.
    assert np.abs(values(twin, counting) - values(twin, bare)).max() > 1e-4
    idle = TwinExecutor(target, idle_noise=True)
    assert np.abs(values(idle, circuit) - values(twin, circuit)).max() > 1e-4


def test_a_device_gets_the_delays_and_the_local_mode_does_not() -> None:
    target, plain = get_target("fake_kyiv"), compiled("fake_kyiv", 4, 2, "linear")
    circuit = filled("fake_kyiv", plain)
    request = Request(circuit, single_z(4), *draw(plain, 2, 3))
    for local in (True, False):
        (part,) = parts([request, request], target, RuntimeOptions(), 1, local=local, limits=JobLimits())
        assert len(part.pubs) == 1
        delays = [i for i in part.pubs[0].circuit.circuit.data if isinstance(i.operation, Delay)]
        assert bool(delays) is not local


def test_the_local_mode_counts_no_waiting_between_pulses() -> None:
    target, plain = get_target("fake_kyiv"), compiled("fake_kyiv", 3, 1, "linear")
    circuit = filled("fake_kyiv", plain)
    request = Request(circuit, single_z(3), *draw(plain, 1, 3))
    (exact,) = TwinExecutor(target).run([request])
    with make_executor("runtime", target, shots=4000) as engine:
        (found,) = engine.run([request], seed=3)
    assert (np.abs(found.values - exact.values) < 5 * found.standard_errors).all()


def test_delays_of_the_circuits_own_stay() -> None:
    plain = compiled("fake_kyiv", 2, 1, "linear")
    assert without_idle_delays(plain) is plain
