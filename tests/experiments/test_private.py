"""Differentially private steps: what a record may do to a sum, what noise is added, what it all spends."""

from __future__ import annotations

import builtins
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from circuits.errors import QrunError, UsageError
from experiments.models.budget import DELTA, LEAST, Phase, budget, epsilon_of, phases
from experiments.models.private import Private, SystemRandomness, clipped_sum
from experiments.models.qgan import QGAN, Trained
from experiments.settings import ModelSettings
from tests.experiments.test_qgan import benign, model

Weights = dict[str, torch.Tensor]


def weights(features: int = 5, hidden: tuple[int, ...] = (7, 4), many: int = 3, seed: int = 0) -> Weights:
    rng = np.random.default_rng(seed)
    widths = [features, *hidden, 1]
    out: Weights = {}
    for k in range(len(widths) - 1):
        out[f"discriminator.{k}.weight"] = torch.tensor(rng.normal(0, 1, (many, widths[k + 1], widths[k])))
        out[f"discriminator.{k}.bias"] = torch.tensor(rng.normal(0, 1, (many, 1, widths[k + 1])))
    return out


def records(count: int, features: int = 5, seed: int = 1) -> torch.Tensor:
    return torch.tensor(np.random.default_rng(seed).uniform(-1, 1, (count, features)))


def by_autograd(given: Mapping[str, torch.Tensor], record: torch.Tensor) -> Weights:
    """A single record's gradient, by the model's own forward pass."""
    leaves = {name: value.clone().requires_grad_(True) for name, value in given.items()}
    layers, x = len(leaves) // 2, record[None]
    total = torch.zeros((), dtype=x.dtype)
    for h in range(len(leaves["discriminator.0.weight"])):
        value = x
        for k in range(layers):
            matrix, bias = leaves[f"discriminator.{k}.weight"][h], leaves[f"discriminator.{k}.bias"][h]
            value = value @ matrix.T + bias
            if k < layers - 1:
                value = torch.nn.functional.leaky_relu(value, 0.2)
        total = total + torch.nn.functional.softplus(-value).sum()
    return dict(zip(leaves, torch.autograd.grad(total, list(leaves.values())), strict=True))


def norm(gradient: Mapping[str, torch.Tensor]) -> float:
    return math.sqrt(sum(float((g**2).sum()) for g in gradient.values()))


@pytest.mark.parametrize("hidden", [(), (6,), (7, 4)])
@pytest.mark.parametrize("clip", [0.05, 2.0, 1e9])
def test_the_sum_is_that_of_gradients_taken_and_cut_one_by_one(hidden: tuple[int, ...], clip: float) -> None:
    given, x = weights(hidden=hidden), records(40)
    wanted = {name: torch.zeros_like(value) for name, value in given.items()}
    cut = 0
    for record in x:
        own = by_autograd(given, record)
        share = min(1.0, clip / norm(own))
        cut += share < 1
        for name, gradient in own.items():
            wanted[name] += share * gradient
    found = clipped_sum(given, x, clip)
    assert clip != 1e9 or cut == 0
    assert set(found) == set(given)
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, wanted[name], rtol=1e-9, atol=1e-12)


def test_a_record_moves_the_sum_by_no_more_than_the_clip() -> None:
    for seed in range(20):
        given, x = weights(seed=seed), records(30, seed=seed)
        extreme = torch.cat([x, torch.full((1, 5), float((-1) ** seed), dtype=x.dtype)])
        for clip in (0.1, 1.0):
            one, other = clipped_sum(given, x, clip), clipped_sum(given, extreme, clip)
            assert norm({name: other[name] - one[name] for name in one}) <= clip * (1 + 1e-9)
            assert norm(clipped_sum(given, extreme[-1:], clip)) <= clip * (1 + 1e-9)


def test_no_record_and_a_record_without_gradient_give_nothing() -> None:
    given = weights()
    assert norm(clipped_sum(given, records(0), 1.0)) == 0
    given["discriminator.2.bias"] += 1e6  # softplus(-D) is flat there
    found = clipped_sum(given, records(3), 1.0)
    assert all(torch.isfinite(g).all() for g in found.values())
    assert norm(found) == 0


def test_noise_has_the_standard_deviation_that_it_should() -> None:
    given = weights(hidden=(64, 32), many=4)
    for value in given.values():
        value.grad = torch.zeros_like(value)
    none = records(200)[:0]
    private = Private(2.5, clip=0.3, source=np.random.default_rng(7))
    # No record is drawn of two at so small a rate: what is added is noise alone.
    x = torch.cat([none, records(2)])
    quiet = Private(0.0, clip=0.0, source=np.random.default_rng(7))
    quiet.add(given, x, batch=1)
    assert norm({name: value.grad for name, value in given.items() if value.grad is not None}) == 0
    private.add(given, x, batch=1, share=0.5)
    noise = torch.cat([value.grad.flatten() for value in given.values() if value.grad is not None])
    # A gradient of norm 0.3 among some 10,000 components does not show.
    wanted = 0.5 * 2.5 * 0.3 / 1
    assert float(noise.std()) == pytest.approx(wanted, rel=4 / math.sqrt(2 * len(noise)))
    assert abs(float(noise.mean())) < 4 * wanted / math.sqrt(len(noise))


def test_the_gradient_is_added_to_what_is_there() -> None:
    given, x = weights(), records(6)
    for value in given.values():
        value.grad = torch.ones_like(value)
    Private(0.0, clip=0.7, source=np.random.default_rng(0)).add(given, x, batch=99, share=0.25)
    for name, total in clipped_sum(given, x, 0.7).items():  # at a rate of 1 all records are taken
        torch.testing.assert_close(given[name].grad, 1 + 0.25 * total / 6)


def test_every_record_is_drawn_with_the_same_chance_and_none_depends_on_another() -> None:
    private, x = Private(1.0, source=np.random.default_rng(5)), torch.arange(50.0)[:, None]
    drawn = np.zeros((4000, 50))
    for row in drawn:
        row[private.sample(x, 10).long().numpy()[:, 0]] = 1
    assert np.abs(drawn.mean(0) - 0.2).max() < 5 * math.sqrt(0.2 * 0.8 / 4000)
    # The size is binomial, not fixed.
    assert drawn.sum(1).var() == pytest.approx(50 * 0.2 * 0.8, rel=0.12)


def test_the_systems_randomness_is_uniform_and_gaussian_and_never_the_same() -> None:
    source = SystemRandomness()
    uniform, normal = source.random(200_000), source.standard_normal(200_000)
    assert 0 <= uniform.min() <= uniform.max() < 1
    assert uniform.mean() == pytest.approx(0.5, abs=0.005)
    assert np.isfinite(normal).all()
    assert normal.mean() == pytest.approx(0, abs=0.015)
    assert normal.std() == pytest.approx(1, abs=0.01)
    assert (np.abs(normal) > 1.959964).mean() == pytest.approx(0.05, abs=0.003)
    assert (source.random(4) != source.random(4)).all()


class Edges(SystemRandomness):
    """The least and the largest that there is."""

    def random(self, size: int) -> np.ndarray:
        return np.resize([0.0, 1 - 2.0**-53], size)


def test_the_ends_of_uniform_numbers_are_finite_noise() -> None:
    low, high = Edges().standard_normal(2)
    assert -9 < low < -8
    assert 8 < high < 9


# -- what it spends ---------------------------------------------------------------------------------------------------


def test_all_steps_of_all_rounds_are_counted() -> None:
    settings = ModelSettings(
        dp=1, epochs=2, steps_per_epoch=7, discriminator_steps=3, detector_steps=11, batch=10, detector_batch=40
    )
    assert phases(settings, 5, 200) == (Phase(0.05, 5 * 2 * 7 * 3), Phase(0.2, 5 * 11))
    assert phases(settings, 1, 20) == (Phase(0.5, 42), Phase(1.0, 11))
    assert phases(settings.model_copy(update={"detector_steps": 0}), 1, 200) == (Phase(0.05, 42),)


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 8.0, 100.0])
def test_the_noise_is_enough_and_hardly_more(epsilon: float) -> None:
    settings = ModelSettings(dp=epsilon)
    found = budget(settings, 5, 3138)
    steps = phases(settings, 5, 3138)
    assert found.epsilon == epsilon
    assert found.spent == epsilon_of(found.multiplier, steps) <= epsilon
    assert epsilon_of(found.multiplier / 1.01, steps) > epsilon


def test_phases_compose() -> None:
    one, other = Phase(0.01, 900), Phase(0.02, 2000)
    together = epsilon_of(2.0, (one, other))
    assert max(epsilon_of(2.0, (one,)), epsilon_of(2.0, (other,))) < together
    assert together < epsilon_of(2.0, (one,)) + epsilon_of(2.0, (other,))
    # Halves of a phase are the phase.
    assert epsilon_of(2.0, (Phase(0.02, 1000), Phase(0.02, 1000))) == pytest.approx(epsilon_of(2.0, (other,)))


def test_a_single_step_on_all_records_is_the_gaussian_mechanism() -> None:
    # Its exact delta at an epsilon (Balle and Wang, 2018); the accountant gives no less than it, and not much more.
    sigma = 4.0
    spent = epsilon_of(sigma, (Phase(1.0, 1),))

    def cdf(x: float) -> float:
        return 0.5 * math.erfc(-x / math.sqrt(2))

    exact = cdf(1 / (2 * sigma) - spent * sigma) - math.exp(spent) * cdf(-1 / (2 * sigma) - spent * sigma)
    assert DELTA / 20 < exact <= DELTA


def test_more_rounds_and_fewer_records_take_more_noise() -> None:
    settings = ModelSettings(dp=2)
    noise = [budget(settings, *case).multiplier for case in ((5, 3138), (10, 3138), (5, 1000))]
    assert noise[0] < min(noise[1:])


def test_hardly_any_step_takes_the_least_noise() -> None:
    settings = ModelSettings(dp=1000, steps_per_epoch=1, discriminator_steps=1, detector_steps=0)
    assert budget(settings, 1, 100_000).multiplier <= 2 * LEAST


def test_an_epsilon_that_no_noise_keeps_is_bad_usage() -> None:
    settings = ModelSettings(dp=0.05, steps_per_epoch=100_000, epochs=1000, batch=4096)
    with pytest.raises(UsageError, match=r"model\.dp = 0\.05: no noise keeps .* steps within"):
        budget(settings, 1000, 100)


def test_without_opacus_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **more: Any) -> Any:
        if name.startswith("opacus"):
            raise ImportError(name)
        return real(name, *args, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(QrunError) as told:
        budget(ModelSettings(dp=1.2345), 3, 77)
    assert "pip install 'qrun[dp]'" in str(told.value)


# -- training ---------------------------------------------------------------------------------------------------------


def trained(qgan: QGAN, data: np.ndarray, private: Private, seed: int = 5) -> Trained:
    return qgan.train(qgan.initial(np.random.default_rng(0)), data, epochs=1, seed=seed, private=private)


def same(one: Trained, other: Trained) -> bool:
    return all((value == other.parameters[name]).all() for name, value in one.parameters.items())


def test_the_same_randomness_gives_the_same_model_and_the_systems_does_not() -> None:
    qgan = model(dp=3)
    a, b = (trained(qgan, benign(), Private(1.0, source=np.random.default_rng(2))) for _ in range(2))
    assert same(a, b)
    assert not same(a, trained(qgan, benign(), Private(1.0, source=np.random.default_rng(3))))
    c, d = (trained(qgan, benign(), Private(1.0)) for _ in range(2))
    assert not same(c, d)


@pytest.mark.parametrize("multiplier", [0.0, 1.0])
def test_records_reach_the_model_through_the_clipped_sum_alone(multiplier: float) -> None:
    qgan = model(dp=3)
    data, other = benign(), -benign(seed=8)
    # With a clip of nothing the sum is nothing: the records may be any.
    one, two = (trained(qgan, x, Private(multiplier, 0.0, np.random.default_rng(2))) for x in (data, other))
    assert same(one, two)
    assert (one.generator_loss, one.discriminator_loss) == (two.generator_loss, two.discriminator_loss)
    # And with one they do reach it.
    one, two = (trained(qgan, x, Private(multiplier, 1.0, np.random.default_rng(2))) for x in (data, other))
    assert not same(one, two)


def test_without_clip_and_noise_at_a_rate_of_one_it_descends_on_all_records() -> None:
    qgan = model(dp=3, detector_steps=0, steps_per_epoch=1, discriminator_steps=1, batch=300, precision="float64")
    plain = qgan.settings.model_copy(update={"dp": None})
    start = qgan.initial(np.random.default_rng(0))
    tensors = {name: torch.tensor(v).requires_grad_(True) for name, v in start.items() if "discr" in name}
    x = torch.tensor(benign(300))
    torch.nn.functional.softplus(-qgan.discriminators.logit(tensors, x)).mean().backward()
    found = {name: value.detach().clone() for name, value in tensors.items()}
    Private(0.0, 1e9, np.random.default_rng(0)).add(found, x, batch=plain.batch, share=1 / plain.discriminators)
    for name, value in tensors.items():
        torch.testing.assert_close(found[name].grad, value.grad)


def test_an_epsilon_and_how_records_are_looked_at_go_together() -> None:
    for qgan, private in ((model(dp=3), None), (model(), Private(1.0))):
        with pytest.raises(ValueError, match="private goes with an epsilon"):
            qgan.train(qgan.initial(np.random.default_rng(0)), benign(), epochs=1, seed=0, private=private)


def test_it_still_learns() -> None:
    qgan = model(dp=8, steps_per_epoch=60, discriminator_rate=0.005)
    found = trained(qgan, benign(3000), Private(0.7, source=np.random.default_rng(2))).parameters
    odd = np.random.default_rng(1).uniform(-1, 1, (300, 2))
    assert np.median(qgan.logits(found, benign(300, seed=2))) > np.median(qgan.logits(found, odd))
