"""How much noise an epsilon asks for: the accounting of differentially private training (decision 12).

Every discriminator step that looks at records is one Poisson-subsampled Gaussian mechanism (experiments/models/
private.py). What all of them come to is counted by Opacus' accountant of Rényi differential privacy, which is a bound,
not an estimate. Opacus is an extra, loaded where epsilon is asked for.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from circuits.errors import QrunError, UsageError
from experiments.settings import ModelSettings

DELTA = 1e-5
"""Of every guarantee: under one in the number of any node's records, up to all of KDDTrain+ on one node."""
ORDERS = (*(1 + k / 10 for k in range(1, 100)), *range(12, 64), 64, 80, 96, 128, 192, 256, 512)
"""Of Rényi divergences. Opacus' own end at 63, which is no use for an epsilon under 0.1."""
LEAST, MOST = 0.05, 1e5
"""Noise multipliers that are tried."""


@dataclass(frozen=True)
class Phase:
    """Steps of one sampling rate."""

    rate: float
    steps: int


@dataclass(frozen=True)
class Budget:
    """What a node spends on its training records.

    Attributes:
        epsilon: That was asked for.
        spent: That all steps come to, at DELTA; at most `epsilon`.
        multiplier: Standard deviation of the noise, in units of a record's largest influence.
    """

    epsilon: float
    spent: float
    multiplier: float


def phases(settings: ModelSettings, rounds: int, records: int) -> tuple[Phase, ...]:
    """All steps of a task that look at a node's records.

    Args:
        settings: Of the model.
        rounds: In which a node trains a model that it publishes.
        records: That the node trains on.
    """
    adversarial = rounds * settings.epochs * settings.steps_per_epoch * settings.discriminator_steps
    alone = rounds * settings.detector_steps
    both = (Phase(rate(settings.batch, records), adversarial), Phase(rate(settings.detector_batch, records), alone))
    return tuple(phase for phase in both if phase.steps)


def rate(batch: int, records: int) -> float:
    """Chance of a record to be in a batch that is expected to have so many, or all."""
    return min(1.0, batch / records)


def budget(settings: ModelSettings, rounds: int, records: int) -> Budget:
    """The least noise that keeps all steps within the settings' epsilon.

    Raises:
        UsageError: no noise does.
        QrunError: Opacus is not installed.
    """
    if settings.dp is None:
        raise ValueError("the settings ask for no epsilon")
    multiplier, spent = _least(settings.dp, phases(settings, rounds, records))
    return Budget(settings.dp, spent, multiplier)


@lru_cache(maxsize=256)
def _least(epsilon: float, steps: tuple[Phase, ...]) -> tuple[float, float]:
    high = 1.0
    spent = epsilon_of(high, steps)
    while spent > epsilon:
        high *= 2
        if high > MOST:
            raise UsageError(
                f"model.dp = {epsilon:g}: no noise keeps {sum(s.steps for s in steps):,} steps within that epsilon at "
                f"delta {DELTA:g}.",
                "Take a larger epsilon, or fewer rounds and steps.",
            )
        spent = epsilon_of(high, steps)
    low = high / 2
    while low > LEAST and (less := epsilon_of(low, steps)) <= epsilon:
        low, high, spent = low / 2, low, less
    while high > 1.001 * low:
        middle = (low * high) ** 0.5
        found = epsilon_of(middle, steps)
        if found > epsilon:
            low = middle
        else:
            high, spent = middle, found
    return high, spent


def epsilon_of(multiplier: float, steps: tuple[Phase, ...]) -> float:
    """What all phases together spend at DELTA with so much noise."""
    accountant = accountants().RDPAccountant()
    accountant.history = [(multiplier, phase.rate, phase.steps) for phase in steps]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a larger order might do better: what these give holds as well
        return float(accountant.get_epsilon(DELTA, alphas=list(ORDERS)))


def accountants() -> Any:
    """Opacus' module of accountants.

    Raises:
        QrunError: Opacus is not installed.
    """
    try:
        from opacus import accountants as found
    except ImportError:
        raise QrunError(
            "differentially private training (model.dp) needs the package opacus.", "pip install 'qrun[dp]'"
        ) from None
    return found
