"""Baselines by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from circuits.errors import UsageError
from experiments.models.baselines.base import Baseline
from experiments.models.qgan import QGAN

QGAN_NAME = "qgan"
"""The federated quantum GAN itself: a run, and no baseline."""


@dataclass(frozen=True)
class Spec:
    """A baseline, before it is made.

    Attributes:
        name: What it is asked for by.
        summary: What it is, in a line.
        features: "agreed": those of the run's feature map; "all": all columns that the map stands on.
        supervised: Whether it sees the attacks of the training part.
        make: A new one; given the run's QGAN (made when it is called for) and its number of epochs.
    """

    name: str
    summary: str
    make: Callable[[Callable[[], QGAN], int], Baseline]
    features: Literal["agreed", "all"] = "agreed"
    supervised: bool = False


def _pca(components: int) -> Callable[[Callable[[], QGAN], int], Baseline]:
    def make(model: Callable[[], QGAN], epochs: int) -> Baseline:
        from experiments.models.baselines.pca import Pca

        return Pca(components)

    return make


def _isolation_forest(model: Callable[[], QGAN], epochs: int) -> Baseline:
    from experiments.models.baselines.isolation_forest import Forest

    return Forest()


def _one_class(model: Callable[[], QGAN], epochs: int) -> Baseline:
    from experiments.models.baselines.one_class_svm import OneClass

    return OneClass()


def _mixture(model: Callable[[], QGAN], epochs: int) -> Baseline:
    from experiments.models.baselines.gaussian_mixture import Mixture

    return Mixture()


def _autoencoder(model: Callable[[], QGAN], epochs: int) -> Baseline:
    from experiments.models.baselines.autoencoder import Autoencoder

    return Autoencoder()


def _supervised(model: Callable[[], QGAN], epochs: int) -> Baseline:
    from experiments.models.baselines.random_forest import Supervised

    return Supervised()


def _gan(variant: str) -> Callable[[Callable[[], QGAN], int], Baseline]:
    def make(model: Callable[[], QGAN], epochs: int) -> Baseline:
        from experiments.models.baselines.gan import Gan
        from experiments.models.generators import VARIANTS

        return Gan(model(), VARIANTS[variant], epochs)

    return make


BASELINES: dict[str, Spec] = {
    spec.name: spec
    for spec in (
        Spec("qgan-central", "the same QGAN, trained in one place on all nodes' records", _gan("trained")),
        Spec("random-circuits", "the same with random circuits: the generator untrained", _gan("untrained")),
        Spec("classical-gan", "the same with a network of the generator's number of parameters", _gan("classical")),
        Spec("classical-gan-10x", "the same with a network of ten times as many", _gan("classical-10x")),
        Spec("gaussian-mixture", "density of benign traffic: 32 Gaussians", _mixture),
        Spec("autoencoder", "reconstruction by a network with a narrow middle", _autoencoder),
        Spec("one-class-svm", "a boundary around benign traffic", _one_class),
        Spec("isolation-forest", "how few random cuts set a record apart", _isolation_forest),
        Spec("pca", "reconstruction from principal components, of the agreed features", _pca(1)),
        Spec("pca-all", "the same, 6 components of all columns", _pca(6), features="all"),
        Spec(
            "random-forest",
            "supervised, on all columns: it sees attacks in training, an upper line",
            _supervised,
            features="all",
            supervised=True,
        ),
    )
}


def find(name: str) -> Spec:
    """The baseline of that name.

    Raises:
        UsageError: unknown name, with the nearest one.
    """
    if name in BASELINES:
        return BASELINES[name]
    known = [QGAN_NAME, *BASELINES]
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(known)}."
    raise UsageError(f"unknown model {name!r}.", hint)
