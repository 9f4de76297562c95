"""Generators in the circuit's place: trained by the same code, and different in nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from experiments.models.generators import (
    VARIANTS,
    Network,
    Uniform,
    Untrained,
    generator_parameters,
    with_generator,
)
from experiments.models.qgan import QGAN
from experiments.models.score import Scorer
from tests.experiments.test_qgan import benign, model


def start_of(qgan: QGAN) -> dict[str, np.ndarray]:
    return qgan.initial(np.random.default_rng(0))


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_is_trained_and_scores_and_repeats(name: str) -> None:
    qgan = VARIANTS[name].make(model(target="fake_manila"))
    start = start_of(qgan)
    x = benign(qubits=2)
    one, two = (qgan.train(start, x, epochs=1, seed=3).parameters for _ in range(2))
    for key, value in one.items():
        np.testing.assert_array_equal(value, two[key])
    assert (one["discriminator.0.weight"] != start["discriminator.0.weight"]).any()
    moved = bool((np.abs(one["generator"] - start["generator"]) > 1e-6).any())  # beyond what float32 rounds
    assert moved == (name not in ("untrained", "uniform"))
    scorer = Scorer(qgan, one, 5)
    assert scorer.samples.shape == (64, 2)
    assert (np.abs(scorer.samples) <= 1).all()
    found = scorer.scores(x, scorer.part_counts(x))
    assert np.isfinite(found).all()


def test_an_untrained_generator_gives_what_the_circuit_gives() -> None:
    plain = model(target="fake_manila")
    untrained = VARIANTS["untrained"].make(plain)
    start = start_of(plain)
    np.testing.assert_allclose(untrained.generate(start, 20, 7), plain.generate(start, 20, 7), atol=1e-6)


def test_classical_generators_have_about_as_many_parameters_and_ten_times_as_many() -> None:
    plain = model(qubits=4)
    weights = generator_parameters(plain)
    one, ten = (generator_parameters(VARIANTS[name].make(plain)) for name in ("classical", "classical-10x"))
    assert abs(one - weights) <= (4 + 1 + 4) / 2 + 4
    assert abs(ten - 10 * weights) <= (4 + 1 + 4) / 2 + 4


@pytest.mark.parametrize(("parameters", "inputs", "outputs"), [(60, 6, 6), (600, 6, 6), (80, 8, 24), (1, 2, 2)])
def test_the_network_of_about_so_many_parameters_is_the_nearest(parameters: int, inputs: int, outputs: int) -> None:
    hidden = Network.of_about(parameters, inputs, outputs, 0.6).hidden
    found = abs(Network.weights(inputs, hidden, outputs) - parameters)
    assert found <= min(abs(Network.weights(inputs, h, outputs) - parameters) for h in range(1, 200))
    assert hidden >= 1


def test_a_network_has_the_gradient_of_what_it_computes() -> None:
    plain = model()
    network = Network(2, 3, 2, 0.6)
    z = torch.rand(5, 2, dtype=torch.float64)
    weights = torch.rand(Network.weights(2, 3, 2), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda w: network.expectations(plain.circuit, plain.observables, z, w), (weights,))


def test_uniform_samples_are_uniform_and_fixed_by_the_latents() -> None:
    qgan = with_generator(model(trained_readout=False), Uniform())
    start = start_of(qgan)
    found = qgan.generate(start, 4000, 1)
    np.testing.assert_array_equal(found, qgan.generate(start, 4000, 1))
    assert (found != qgan.generate(start, 4000, 2)).any()
    assert np.abs(found.mean(0)).max() < 0.05
    assert np.abs(found.var(0) - 1 / 3).max() < 0.03


def test_untrained_weights_have_a_gradient_of_nothing() -> None:
    plain = model()
    engine = Untrained(plain.executor)
    weights = torch.zeros(len(plain.circuit.weights), requires_grad=True)
    with plain.executor:
        engine.expectations(plain.circuit, plain.observables, torch.rand(3, 2), weights).sum().backward()
    assert weights.grad is not None
    assert (weights.grad == 0).all()
