"""What a result says of the Runtime's options, against what they come to there; and parameter shift as one job."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit_ibm_runtime.executor_estimator.finalize_options import finalize_estimator_options
from qiskit_ibm_runtime.options_models.estimator import EstimatorOptions

from backends.layer import ExpectationLayer
from backends.observables import single_z
from backends.protocol import Request
from backends.runtime.ledger import MemoryLedger
from backends.runtime.local import ignored
from backends.runtime.types import RuntimeOptions
from backends.twin.executor import TwinExecutor
from circuits.types import Ansatz, CompiledCircuit
from tests.backends.runtime.test_local import COMPILED, TARGET, asked, exact, made

TWIRLED = {(False, False): "off", (True, False): "gates", (False, True): "measure", (True, True): "all"}
"""(enable_gates, enable_measure) -> our name."""
ENABLED = {name: {"enable_gates": gates, "enable_measure": measure} for (gates, measure), name in TWIRLED.items()}


@pytest.mark.parametrize("twirling", ["off", "gates", "measure", "all"])
@pytest.mark.parametrize("level", [None, 0, 1, 2])
def test_the_twirling_that_is_told_is_the_one_in_force(
    level: int | None, twirling: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Resilience levels twirl by themselves, and the Runtime warns of nothing that it has to overrule."""
    final: list[Any] = []

    def watched(finalize: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def watch(given: Any) -> Any:
            final.append(finalize(given))
            return final[-1]

        return watch

    for kind in ("sampler", "estimator"):
        module = import_module(f"qiskit_ibm_runtime.executor_{kind}.prepare")
        name = f"finalize_{kind}_options"
        monkeypatch.setattr(module, name, watched(getattr(module, name)))
    options = RuntimeOptions(shots=64, resilience_level=level, twirling=twirling)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="twirling")
        about = made(options).run([asked(batch=1)], seed=3)[0].metadata
    came_to = {TWIRLED[one.twirling.enable_gates, one.twirling.enable_measure] for one in final}
    assert came_to == {about["twirling"]}
    assert options.in_force().twirling == about["twirling"]
    if level is not None:
        given = {} if twirling == "off" else ENABLED[twirling]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            plain = finalize_estimator_options(EstimatorOptions(resilience_level=level, twirling=given)).twirling
        assert TWIRLED[plain.enable_gates, plain.enable_measure] == about["twirling"]
    else:
        assert about["twirling"] == twirling


def test_dynamical_decoupling_only_costs_here() -> None:
    """What `ignored` says of it: qubit 0 waits, excited, for the others, and decays only where pulses are put in."""
    circuit = QuantumCircuit(3)
    circuit.x(0)
    circuit.barrier()
    for _ in range(100):
        circuit.cx(1, 2)
    wires = (0, 1, 2)
    waiting = CompiledCircuit(Ansatz("waiting", circuit, (), ()), circuit, (), (), wires, wires, wires, 101, 100, {})
    request = Request(waiting, single_z(3), np.zeros((1, 0)), np.zeros(0))
    off = made(RuntimeOptions(shots=4096)).run([request], seed=1)[0].values[0, 0]
    options = RuntimeOptions(shots=4096, dynamical_decoupling="XY4")
    on = made(options).run([request], seed=1)[0].values[0, 0]
    assert abs(off - exact(request)[0, 0]) < 0.03
    assert on > off + 0.1
    assert "decay" in ignored(options)[-1]


def test_a_step_of_parameter_shift_is_one_job() -> None:
    ledger, rng = MemoryLedger(), np.random.default_rng(5)
    inputs, start = torch.tensor(rng.uniform(-1, 1, (2, 3))), rng.uniform(-1, 1, len(COMPILED.weights))
    engines: list[tuple[Any, Any]] = [
        (made(RuntimeOptions(shots=4096), ledger), "parameter-shift"),
        (TwinExecutor(TARGET, dtype=torch.float64), "exact"),
    ]
    gradients = []
    for executor, method in engines:
        layer = ExpectationLayer(executor, COMPILED, single_z(3), gradient=method, seed=7)
        weights = torch.tensor(start, requires_grad=True)
        with executor:
            layer(inputs, weights).sum().backward()
        assert weights.grad is not None
        gradients.append(weights.grad)
    (job,) = ledger.jobs()
    assert job.circuits == 2 * (1 + 2 * len(COMPILED.weights))
    # A sum of 6 values, each half a difference of two means of 4096 shots: its deviation is below 0.03.
    assert (gradients[0] - gradients[1]).abs().max() < 0.15
    assert gradients[1].abs().max() > 0.5
