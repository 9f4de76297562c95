"""Discriminators that see records through random cosines, and negatives beside the records."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from circuits.errors import UsageError
from experiments.models.discriminators import NEAR, WIDTHS, Discriminators, make_waves
from experiments.settings import ModelSettings
from runner.options import config_from
from tests.experiments.test_qgan import benign, model


def test_products_of_waves_are_gaussian_kernels_of_several_widths() -> None:
    """Against the kernels' mean, by quadrature; a mean of bounded terms: four standard errors of 4,096 of them."""
    settings = ModelSettings(waves=4096, discriminators=2, features=20)
    made = make_waves(settings, torch.float64)
    assert made is not None
    directions, offsets = made
    rng = np.random.default_rng(0)
    x = torch.tensor(rng.uniform(-1, 1, (12, 20)))
    middle = (torch.arange(2000) + 0.5) / 2000
    widths = torch.exp(math.log(WIDTHS[0]) + (math.log(WIDTHS[1]) - math.log(WIDTHS[0])) * middle)
    squared = ((x[:, None] - x[None]) ** 2).sum(-1)
    kernel = torch.exp(-0.5 * squared[..., None] * widths**2).mean(-1)
    for h in range(2):
        phi = math.sqrt(2) * torch.cos(x @ directions[h] + offsets[h])
        assert float((phi @ phi.T / 4096 - kernel).abs().max()) < 4 * math.sqrt(2 / 4096)
    assert not torch.equal(directions[0], directions[1])


def test_peers_have_the_same_waves() -> None:
    settings = ModelSettings(waves=16, discriminators=2)
    one, other = (Discriminators(settings, torch.float32).waves for _ in range(2))
    assert one is not None
    assert other is not None
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert Discriminators(ModelSettings(), torch.float32).waves is None


def test_a_record_is_scored_alike_alone_and_among_others() -> None:
    qgan = model(waves=32, discriminators=3)
    parameters = qgan.initial(np.random.default_rng(0))
    assert parameters["discriminator.0.weight"].shape == (3, 16, 32)
    x = benign(300)
    together = qgan.logits(parameters, x)
    np.testing.assert_allclose(together[[0, 137, 299]], qgan.logits(parameters, x[[0, 137, 299]]), atol=1e-6)


def test_noise_beside_records_has_the_told_spread() -> None:
    beside = Discriminators(ModelSettings(features=64), torch.float64)
    moved = beside._beside(torch.zeros(4000, 64, dtype=torch.float64), torch.Generator().manual_seed(0))
    spread = moved.std(1, unbiased=False)
    # A standard deviation of 64 values is known to a tenth; few noises reach the edge at 1, where they are cut.
    assert NEAR[0] * 0.65 < float(spread.min()) < NEAR[0] * 1.1
    assert NEAR[1] * 0.85 < float(spread.max()) < NEAR[1] * 1.3
    # Its logarithm is uniform: the median is the geometric mean of the ends.
    assert float(spread.median()) == pytest.approx(math.sqrt(NEAR[0] * NEAR[1]), rel=0.1)


def test_negatives_beside_records_draw_the_border_nearer() -> None:
    """Records moved by 0.3 in both features lie within the discriminators' border without them, and outside with."""
    x, rng = benign(400), np.random.default_rng(3)
    off = np.clip(benign(400, seed=1) + rng.choice([-0.3, 0.3], (400, 2)), -1, 1)
    inside = {}
    for weight in (None, 3.0):
        qgan = model(
            generator="uniform", negatives_near=weight, waves=64, discriminators=2, detector_steps=400,
            negatives_noise=0.1, negatives_perturbed=0.1,
        )  # fmt: skip
        trained = qgan.train(qgan.initial(np.random.default_rng(0)), x, epochs=1, seed=1).parameters
        inside[weight] = float((qgan.logits(trained, off) > 0).mean())
    assert inside[3.0] < 0.1
    assert inside[None] > 0.3


def test_training_with_both_repeats_bit_for_bit() -> None:
    qgan = model(target="fake_manila", waves=16, negatives_near=1.0)
    start = qgan.initial(np.random.default_rng(0))
    one, other = (qgan.train(start, benign(), epochs=1, seed=5).parameters for _ in range(2))
    assert all((one[name] == other[name]).all() for name in one)


def test_configs_without_them_have_the_digest_that_they_had() -> None:
    plain = config_from("nsl-kdd", {})
    assert plain.digest.hex() == "c6ebe722d13a0f19d8b88a22fa287ecd06edabd787de8f39294f9e2730e99401"
    best = config_from("nsl-kdd", {"preset": "best"})
    assert (best.model.waves, best.model.negatives_near) == (256, None)
    assert best.digest != plain.digest


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"waves": 3}, "waves"),
        ({"waves": 5000}, "waves"),
        ({"negatives_near": 0.0}, "negatives_near"),
        ({"negatives_near": float("nan")}, "negatives_near"),
        ({"waves": 64, "dp": 1.0}, "private training knows no such"),
        ({"negatives_near": 1.0, "dp": 1.0}, "private training knows no such"),
    ],
    ids=str,
)
def test_wrong_values_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        config_from("nsl-kdd", {"model": given})
