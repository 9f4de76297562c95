"""The QGAN and its score on small circuits: reproducible, learning, honest about divergence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from backends.catalog import get_target
from backends.engines import make_executor
from backends.mitigation.make import Mitigation
from backends.mitigation.types import MitigationOptions
from backends.protocol import Request, Result
from backends.twin.executor import TwinExecutor
from circuits.compile import compile_ansatz
from circuits.errors import QrunError
from circuits.qgan import generator
from experiments.metrics import evaluate
from experiments.models.qgan import QGAN, z_observables
from experiments.models.score import Scorer
from experiments.settings import ModelSettings


def model(qubits: int = 2, target: str = "ideal", engine: str = "twin", **settings: object) -> QGAN:
    place = get_target(target)
    chosen = ModelSettings.model_validate(
        {"qubits": qubits, "reps": 2, "steps_per_epoch": 20, "samples": 64, "hidden": (16,), **settings}
    )
    circuit = compile_ansatz(generator(qubits, chosen.reps), place.backend, seed=1)
    return QGAN(chosen, make_executor(engine, place, shots=64 if engine == "aer" else None), circuit)


def benign(count: int = 300, qubits: int = 2, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.clip(rng.normal([0.5, -0.4, 0.1, 0.0][:qubits], 0.08, (count, qubits)), -1, 1)


def test_training_repeats_bit_for_bit() -> None:
    qgan = model(target="fake_manila")
    start = qgan.initial(np.random.default_rng(0))
    a, b = (qgan.train(start, benign(), epochs=1, seed=5) for _ in range(2))
    other = qgan.train(start, benign(), epochs=1, seed=6)
    for name, value in a.parameters.items():
        np.testing.assert_array_equal(value, b.parameters[name])
    assert any((a.parameters[n] != other.parameters[n]).any() for n in a.parameters)
    assert a.generator_loss == b.generator_loss


def test_training_does_not_touch_torchs_global_generator() -> None:
    qgan = model()
    torch.manual_seed(3)
    before = torch.get_rng_state()
    qgan.train(qgan.initial(np.random.default_rng(0)), benign(), epochs=1, seed=5)
    assert torch.equal(before, torch.get_rng_state())


def test_the_start_is_not_changed() -> None:
    qgan = model()
    start = qgan.initial(np.random.default_rng(0))
    copy = {k: v.copy() for k, v in start.items()}
    qgan.train(start, benign(), epochs=1, seed=5)
    for name in start:
        np.testing.assert_array_equal(start[name], copy[name])


def test_shapes_are_those_of_the_parameters() -> None:
    qgan = model(3)
    start = qgan.initial(np.random.default_rng(0))
    assert {k: v.shape for k, v in start.items()} == qgan.shapes()
    assert qgan.shapes()["generator"] == (2 * 3 * 3,)


def test_it_learns_to_tell_what_is_not_benign() -> None:
    qgan = model(steps_per_epoch=80, discriminator_rate=0.005)
    start = qgan.initial(np.random.default_rng(0))
    trained = qgan.train(start, benign(), epochs=2, seed=5).parameters
    odd = np.random.default_rng(1).uniform(-1, 1, (300, 2))
    x = np.concatenate([benign(300, seed=2), odd])
    attack = np.arange(600) >= 300

    def auroc(parameters: dict[str, np.ndarray]) -> float:
        scorer = Scorer(qgan, parameters, 3)
        calibration = scorer.calibrate(benign(500, seed=3))
        return evaluate(scorer.scores(x, calibration.parts), attack, scorer.threshold(calibration)).auroc

    # Uniform records are nearly never within 3 sd of the benign mean: 0.9 leaves room for a short training.
    assert auroc(trained) > 0.9


def test_the_threshold_lets_the_quantile_of_benign_records_pass() -> None:
    qgan = model()
    scorer = Scorer(qgan, qgan.initial(np.random.default_rng(0)), 3)
    x = benign(2000, seed=4)
    calibration = scorer.calibrate(x)
    passed = (scorer.scores(x, calibration.parts) <= scorer.threshold(calibration)).mean()
    assert passed == pytest.approx(0.95, abs=0.01)


def test_counts_of_nodes_add_up_to_the_counts_of_all() -> None:
    qgan = model()
    scorer = Scorer(qgan, qgan.initial(np.random.default_rng(0)), 3)
    x = benign(500, seed=4)
    together = scorer.part_counts(x)
    np.testing.assert_array_equal(together, scorer.part_counts(x[:123]) + scorer.part_counts(x[123:]))
    np.testing.assert_array_equal(
        scorer.score_counts(x, together), scorer.score_counts(x[:9], together) + scorer.score_counts(x[9:], together)
    )


def test_distance_is_the_mean_to_the_nearest_samples() -> None:
    qgan = model(neighbours=3)
    scorer = Scorer(qgan, qgan.initial(np.random.default_rng(0)), 3)
    x = benign(5, seed=4)
    direct = np.sort(np.linalg.norm(x[:, None] - scorer.samples[None], axis=2), axis=1)[:, :3].mean(1)
    np.testing.assert_allclose(scorer.parts(x)[:, 1], direct, atol=1e-7)


@pytest.mark.parametrize("gradient", ["auto", "spsa", "parameter-shift"])
def test_a_sampling_engine_trains_too(gradient: str) -> None:
    qgan = model(engine="aer", gradient=gradient, steps_per_epoch=2, batch=4)
    start = qgan.initial(np.random.default_rng(0))
    a, b = (qgan.train(start, benign(), epochs=1, seed=5) for _ in range(2))
    assert (a.parameters["generator"] != start["generator"]).any()
    np.testing.assert_array_equal(a.parameters["generator"], b.parameters["generator"])


def test_exact_gradients_of_a_sampling_engine_are_refused() -> None:
    with pytest.raises(QrunError, match="exact gradient"):
        model(engine="aer", gradient="exact")


def test_divergence_is_said() -> None:
    qgan = model()
    with pytest.raises(QrunError, match="diverged at step 1"):
        qgan.train(qgan.initial(np.random.default_rng(0)), np.full((64, 2), np.nan), epochs=1, seed=5)


def test_observables_are_z_on_each_qubit() -> None:
    assert [o.to_list()[0][0] for o in z_observables(3)] == ["IIZ", "IZI", "ZII"]


# The noise-aware term


class Calls(TwinExecutor):
    """A twin that counts calls and requests."""

    def __init__(self, target: str, *, exactly: bool) -> None:
        super().__init__(get_target(target))
        self.differentiable = exactly
        self.calls: list[int] = []

    def run(self, requests: Sequence[Request], *, seed: int | None = None) -> list[Result]:
        self.calls.append(len(requests))
        return super().run(requests, seed=seed)


def aware(target: str, weight: float | None, *, exactly: bool = True, **settings: object) -> tuple[QGAN, Calls]:
    chosen = ModelSettings.model_validate(
        {"qubits": 2, "reps": 2, "hidden": (16,), "samples": 64, "infidelity_weight": weight, **settings}
    )
    engine = Calls(target, exactly=exactly)
    return QGAN(chosen, engine, compile_ansatz(generator(2, 2), get_target(target).backend, seed=1)), engine


def test_the_infidelity_falls_where_it_counts() -> None:
    found = {}
    for weight in (None, 300.0):
        qgan, _ = aware("fake_manila", weight, steps_per_epoch=60)
        trained = qgan.train(qgan.initial(np.random.default_rng(0)), benign(), epochs=1, seed=5)
        found[weight] = qgan.infidelity(trained.parameters, 200, 1)
        assert len(trained.infidelity) == (0 if weight is None else 1)
    assert found[300.0] < 0.9 * found[None]


def test_the_loss_is_that_of_the_generator_plus_the_weighted_infidelity() -> None:
    start = aware("fake_manila", None)[0].initial(np.random.default_rng(0))
    plain, both = (
        aware("fake_manila", weight, steps_per_epoch=1)[0].train(start, benign(), epochs=1, seed=5)
        for weight in (None, 2.0)
    )
    assert both.generator_loss[0] == pytest.approx(plain.generator_loss[0] + 2.0 * both.infidelity[0], abs=1e-6)
    assert both.discriminator_loss == plain.discriminator_loss
    assert both.infidelity[0] > 1e-3


def test_without_noise_there_is_nothing_to_descend_on() -> None:
    start = aware("ideal", None)[0].initial(np.random.default_rng(0))
    plain, both = (
        aware("ideal", weight, steps_per_epoch=5, precision="float64")[0].train(start, benign(), epochs=1, seed=5)
        for weight in (None, 5.0)
    )
    assert both.infidelity[0] == pytest.approx(0.0, abs=1e-12)
    np.testing.assert_allclose(both.parameters["generator"], plain.parameters["generator"], atol=1e-9)


@pytest.mark.parametrize("gradient", ["spsa", "parameter-shift"])
def test_a_step_stays_one_call(gradient: str) -> None:
    for weight, requests in ((None, 1), (1.0, 2)):
        qgan, engine = aware("fake_manila", weight, exactly=False, gradient=gradient, steps_per_epoch=3, batch=4)
        qgan.train(qgan.initial(np.random.default_rng(0)), benign(), epochs=1, seed=5)
        assert engine.calls == [requests] * 3


def test_the_echo_is_not_mitigated() -> None:
    options = MitigationOptions(stack=("readout",))
    start = aware("fake_manila", None)[0].initial(np.random.default_rng(0))
    found = []
    for wanted in (None, Mitigation(get_target("fake_manila"), options, exact=True)):
        qgan, _ = aware("fake_manila", 1.0, steps_per_epoch=1)
        qgan.mitigation = wanted
        found.append(qgan.train(start, benign(), epochs=1, seed=5))
    assert found[0].infidelity == found[1].infidelity
    assert found[0].generator_loss != found[1].generator_loss
