"""The run's model on an engine: on the one that it is trained on, and on the device that it goes to."""

from __future__ import annotations

import os

from backends.engines import make_executor
from backends.protocol import Executor
from backends.runtime.ledger import JobLedger
from backends.runtime.types import RuntimeContext
from backends.target import Target
from circuits.types import CompiledCircuit
from experiments.models.qgan import QGAN
from runner.config import RunConfig
from runner.mitigated import is_exact, mitigation_of

_THREADS = 4
"""At most so many threads share a step of the twin, fewer where memory is short."""


def _threads(config: RunConfig, device: str) -> int:
    """How many of this machine's cores share a step; results do not depend on it.

    Each takes the memory of a walk of its own (2 GiB at 12 qubits), and a GPU is busy with one.
    """
    if device != "cpu":
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(_THREADS, cores)


def model_for(
    config: RunConfig,
    target: Target,
    circuit: CompiledCircuit,
    device: str,
    *,
    runtime: RuntimeContext | None = None,
    ledger: JobLedger | None = None,
) -> QGAN:
    """The run's model on an executor of its own, closed.

    Args:
        config: What to run.
        target: Where.
        circuit: The generator compiled for it.
        device: Where the twin computes, "cpu" or "cuda".
        runtime: Of the engine runtime: how jobs are run and the service is asked; by default the config's options.
        ledger: Where its jobs are written down; by default in memory.
    """
    settings = config.model
    if config.engine == "runtime":
        if runtime is None and config.runtime is not None and config.shots is not None:
            runtime = RuntimeContext(config.runtime.options(config.shots))
        executor = make_executor("runtime", target, shots=config.shots, runtime=runtime, ledger=ledger)
        return QGAN(settings, executor, circuit, mitigation_of(config, target, exact=False))
    executor = make_executor(
        config.engine,
        target,
        shots=config.shots,
        precision=settings.precision,
        idle_noise=config.idle_noise,
        device=device,
        threads=_threads(config, device),
    )
    return QGAN(settings, executor, circuit, mitigation_of(config, target, exact=is_exact(config)))


def device_executor(
    config: RunConfig, run_on: Target, *, runtime: RuntimeContext | None = None, ledger: JobLedger | None = None
) -> Executor:
    """The Runtime on the device that trained models go to, closed; for a config with `runtime.run_on`."""
    if config.runtime is None or config.runtime.run_on is None:
        raise ValueError("the config names no device that trained models go to")
    shots = config.runtime.shots
    if runtime is None:
        runtime = RuntimeContext(config.runtime.options(shots))
    return make_executor("runtime", run_on, shots=shots, runtime=runtime, ledger=ledger)


def device_model(config: RunConfig, run_on: Target, circuit: CompiledCircuit, executor: Executor) -> QGAN:
    """The run's model on the device that it goes to; whatever its gradient on the twin, on a device it is SPSA's.

    Args:
        config: The run's.
        run_on: The device.
        circuit: The generator compiled for it.
        executor: There.
    """
    settings = config.model.model_copy(update={"gradient": "spsa"})
    return QGAN(settings, executor, circuit, mitigation_of(config, run_on, exact=False))
