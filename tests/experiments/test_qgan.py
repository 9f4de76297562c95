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
from experiments.models.outputs import circuit_parameters, energy_distance, z_strings
from experiments.models.qgan import BIAS, QGAN, WEIGHT
from experiments.models.score import Calibration, Scorer
from experiments.settings import ModelSettings


def model(qubits: int = 2, target: str = "ideal", engine: str = "twin", **settings: object) -> QGAN:
    place = get_target(target)
    chosen = ModelSettings.model_validate(
        {
            "qubits": qubits,
            "features": qubits,
            "reps": 2,
            "steps_per_epoch": 20,
            "detector_steps": 20,
            "samples": 64,
            "hidden": (16,),
            **settings,
        }
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
    assert qgan.shapes()[WEIGHT] == (3, 7)  # Z, ZZ and ZZZ of three qubits are all that there is
    assert qgan.shapes()["discriminator.0.weight"] == (4, 16, 3)


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
    own = scorer.calibrate(x)
    scores = scorer.scores(x, own.parts)
    together = Calibration(own.parts, scorer.score_counts(x, own.parts))
    assert (scores <= scorer.threshold(together)).mean() == pytest.approx(0.96, abs=0.003)
    # A node's own threshold, which it publishes, is one of few.
    assert 0.96 <= (scores <= scorer.threshold(own)).mean() < 0.98


def test_the_validated_threshold_has_the_best_f1_of_all_edges() -> None:
    qgan = model()
    scorer = Scorer(qgan, qgan.initial(np.random.default_rng(0)), 3)
    x, odd = benign(400, seed=4), np.random.default_rng(1).uniform(-1, 1, (150, 2))
    parts = scorer.part_counts(x)
    calibration = Calibration(parts, scorer.score_counts(x, parts))
    found = scorer.validated_threshold(calibration, scorer.score_counts(odd, parts))
    low, high = scorer.score_range(parts)
    scores = np.concatenate([scorer.scores(x, parts), scorer.scores(odd, parts)])
    attack = np.arange(len(scores)) >= len(x)
    edges = np.linspace(low, high, len(calibration.score) + 1)[1:]
    every = [evaluate(scores, attack, float(edge)).f1 for edge in edges]
    assert evaluate(scores, attack, found).f1 == pytest.approx(max(every), abs=1e-9)
    with pytest.raises(QrunError, match="no attacks"):
        scorer.validated_threshold(calibration, np.zeros(len(calibration.score), dtype=np.int64))


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
    np.testing.assert_allclose(scorer.parts(x)[:, scorer.names.index("distance")], direct, atol=1e-7)


def test_the_score_is_made_of_the_parts_that_are_asked_for() -> None:
    weights = {"residual": 0.5, "discriminator": 1.0, "distance": 2.0}
    qgan = model(score=weights)
    start = qgan.initial(np.random.default_rng(0))
    x = benign(200, seed=4)
    scorer = Scorer(qgan, start, 3)
    whole, counts = scorer.parts(x), scorer.part_counts(x)
    np.testing.assert_array_equal(whole[:, scorer.names.index("residual")], x[:, -1])
    np.testing.assert_allclose(whole[:, scorer.names.index("discriminator")], -qgan.logits(start, x), atol=1e-6)
    total = np.zeros(len(x))
    for k, name in enumerate(scorer.names):
        alone = Scorer(model(score={name: weights[name]}), start, 3)
        np.testing.assert_array_equal(alone.parts(x)[:, 0], whole[:, k])
        assert (len(alone.samples) > 0) == (name == "distance")
        total += alone.scores(x, counts[k : k + 1])
    np.testing.assert_allclose(scorer.scores(x, counts), total)
    assert total.max() <= scorer.score_range(counts)[1]


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


def test_observables_are_strings_of_z_short_and_near_ones_first() -> None:
    def names(qubits: int, count: int) -> list[str]:
        return [o.to_list()[0][0] for o in z_strings(qubits, count)]

    assert names(3, 3) == ["IIZ", "IZI", "ZII"]
    assert names(3, 99) == ["IIZ", "IZI", "ZII", "IZZ", "ZZI", "ZIZ", "ZZZ"]
    assert names(20, 21)[-1] == "I" * 18 + "ZZ"


# The generator


def test_samples_are_the_readout_of_the_observables() -> None:
    qgan = model(3, features=5)
    start = qgan.initial(np.random.default_rng(0))
    start[BIAS] = np.linspace(-1.2, 0.3, 5)
    (answer,) = qgan.executor.run([qgan.request(start, 6, 4)], seed=4)
    wanted = np.clip(answer.values @ start[WEIGHT].T + start[BIAS], -1, 1)
    np.testing.assert_allclose(qgan.generate(start, 6, 4), wanted, atol=1e-6)
    assert (wanted == -1).any()
    errors = qgan.sample_errors(start, np.full((6, 7), 0.1))
    np.testing.assert_allclose(errors, np.broadcast_to(0.1 * np.linalg.norm(start[WEIGHT], axis=1), (6, 5)))


def test_without_a_readout_features_are_observables() -> None:
    qgan = model(3, features=4, trained_readout=False)
    start = qgan.initial(np.random.default_rng(0))
    assert WEIGHT not in start
    assert [o.to_list()[0][0] for o in qgan.observables] == ["IIZ", "IZI", "ZII", "IZZ"]
    (answer,) = qgan.executor.run([qgan.request(start, 6, 4)], seed=4)
    np.testing.assert_array_equal(qgan.generate(start, 6, 4), answer.values)
    trained = qgan.train(start, benign(qubits=4), epochs=1, seed=5).parameters
    assert (trained["generator"] != start["generator"]).any()
    with pytest.raises(ValueError, match="7 are measured"):
        model(3, features=8, trained_readout=False)


def energy(qgan: QGAN, parameters: dict[str, np.ndarray], data: np.ndarray) -> float:
    return float(energy_distance(torch.tensor(data), torch.tensor(qgan.generate(parameters, 300, 7))))


def test_the_energy_distance_is_zero_in_the_mean_for_one_distribution() -> None:
    rng = np.random.default_rng(0)
    x, y = (torch.tensor(rng.normal(size=(400, 3))) for _ in range(2))
    assert abs(float(energy_distance(x, y))) < 0.02
    assert float(energy_distance(x, y + 1)) > 0.3
    direct = 2 * torch.cdist(x, y).mean() - sum(torch.cdist(z, z).sum() / (400 * 399) for z in (x, y))
    assert float(energy_distance(x, y)) == pytest.approx(float(direct), abs=1e-9)


def test_the_generator_learns_the_benign_distribution() -> None:
    data = benign(600, qubits=3)
    found = {}
    for kind in ("quantum", "reservoir", "untrained", "uniform", "classical:1"):
        qgan = model(3, features=3, generator=kind, steps_per_epoch=150, detector_steps=0)
        start = qgan.initial(np.random.default_rng(0))
        trained = qgan.train(start, data, epochs=1, seed=5).parameters
        found[kind] = energy(qgan, trained, benign(300, qubits=3, seed=9))
        moved = {name for name in start if (trained[name] != start[name].astype(np.float32)).any()}
        assert ("generator" in moved) == (kind in ("quantum", "classical:1"))
        assert (WEIGHT in moved) == (kind in ("quantum", "classical:1", "reservoir"))
        assert qgan.generate(trained, 5, 1).shape == (5, 3)
        np.testing.assert_array_equal(qgan.generate(trained, 5, 1), qgan.generate(trained, 5, 1))
    assert max(found["quantum"], found["reservoir"]) < 0.05 < min(found["untrained"], found["uniform"])


@pytest.mark.parametrize("factor", [1, 10])
def test_a_classical_generator_has_the_circuits_number_of_parameters(factor: int) -> None:
    qgan = model(4, features=8, generator=f"classical:{factor}")
    own = sum(int(np.prod(shape)) for name, shape in qgan.shapes().items() if name.startswith("generator"))
    wanted = factor * circuit_parameters(qgan.settings, len(qgan.circuit.weights))
    # A hidden unit more or less is (qubits + 1 + features) parameters.
    assert abs(own - wanted) <= (4 + 1 + 8) / 2


def test_discriminators_are_trained_side_by_side_and_averaged() -> None:
    qgan = model(discriminators=3)
    start = qgan.initial(np.random.default_rng(0))
    trained = qgan.train(start, benign(), epochs=1, seed=5).parameters
    x = benign(6, seed=4)
    each = []
    for k in range(3):
        one = {name: v[k : k + 1] if name.startswith("discriminator") else v for name, v in trained.items()}
        each.append(model(discriminators=1).logits(one, x))
    np.testing.assert_allclose(qgan.logits(trained, x), np.mean(each, axis=0), atol=1e-5)
    assert np.std(each, axis=0).min() > 0


def test_the_detectors_steps_run_no_circuit() -> None:
    calls = {}
    for steps in (0, 50):
        qgan, engine = aware(
            "fake_manila", None, exactly=False, gradient="spsa", steps_per_epoch=3, detector_steps=steps
        )
        trained = qgan.train(qgan.initial(np.random.default_rng(0)), benign(), epochs=1, seed=5)
        calls[steps] = engine.calls, trained.parameters
    assert calls[0][0] == calls[50][0]
    np.testing.assert_array_equal(calls[0][1]["generator"], calls[50][1]["generator"])
    assert (calls[0][1]["discriminator.0.weight"] != calls[50][1]["discriminator.0.weight"]).any()


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
        {
            "qubits": 2,
            "features": 2,
            "reps": 2,
            "hidden": (16,),
            "samples": 64,
            "detector_steps": 5,
            "trained_readout": False,
            "energy_weight": 0.0,
            "infidelity_weight": weight,
            **settings,
        }
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
