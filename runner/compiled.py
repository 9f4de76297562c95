"""The generator of a run on a device: compiled in one way by whoever runs, estimates, attacks or audits it."""

from __future__ import annotations

from backends.target import Target
from circuits.compile import compile_ansatz
from circuits.types import CompiledCircuit
from experiments.base import find
from runner.config import RunConfig
from runner.seeds import derive


def generator_for(config: RunConfig, target: Target) -> CompiledCircuit:
    """The config's generator, compiled for a target.

    Raises:
        UsageError: The device has too few qubits.
        QrunError: No usable layout, or none within `model.max_depth`.
    """
    ansatz, seed = find(config.experiment).ansatz(config.model), derive(config.seed, "layout") % 2**31
    return compile_ansatz(ansatz, target.backend, seed=seed, max_depth=config.model.max_depth)
