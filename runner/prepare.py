"""What is tried before a run begins: the target, the generator compiled for it, a step of its training."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from backends.devices import resolve_device
from backends.engines import make_executor
from backends.layer import ExpectationLayer
from backends.protocol import Executor
from backends.runtime.ledger import JobLedger
from backends.runtime.types import RuntimeContext
from backends.target import Target
from circuits.compile import compile_ansatz
from circuits.errors import QrunError, QrunWarning, UsageError
from circuits.types import CompiledCircuit
from experiments.base import find
from experiments.models.qgan import QGAN
from runner.calibration import target_of
from runner.config import RunConfig
from runner.progress import Reporter
from runner.seeds import derive, generator

_THREADS = 4
"""At most so many threads share a step of the twin, fewer where memory is short."""


@dataclass(frozen=True)
class Prepared:
    """What a run works with.

    Attributes:
        target: Of the config's backend.
        circuit: The generator, compiled for it.
        device: Where torch computes, "cpu" or "cuda".
        seconds: That it took to prepare.
        run_on: The device that trained models go to, where the config names one ...
        run_on_circuit: ... and the generator compiled for it.
    """

    target: Target
    circuit: CompiledCircuit
    device: str
    seconds: float
    run_on: Target | None = None
    run_on_circuit: CompiledCircuit | None = None


def prepare(
    config: RunConfig, reporter: Reporter, *, device: str | None = None, folder: Path | None = None
) -> Prepared:
    """The target and the generator on it, tried once; before anything is written, so that a mistake costs nothing.

    Nothing is sent to a device.

    Args:
        config: What to run.
        reporter: Told of the progress.
        device: Where an earlier attempt computed, "cpu" or "cuda"; by default what the config's device means here.
        folder: The run's, which keeps the calibration of a hardware device.

    Raises:
        UsageError: unknown names, more qubits than the device has, a GPU that is not there, idle noise without noise.
        QrunError: the device has no usable layout, or the engine cannot run the circuit here, for want of memory too.
    """
    begin = time.perf_counter()
    target = target_of(config.backend, config.snapshot_sha256, folder)
    if config.idle_noise and target.backend is None:
        raise UsageError(f"--idle-noise: {target.name} has no noise.", "Take a device (`qrun backends list`).")
    circuit = _compiled(config, target, reporter)
    run_on, run_on_circuit = None, None
    if config.runtime is not None and config.runtime.run_on is not None:
        run_on = target_of(config.runtime.run_on, config.runtime.run_on_sha256, folder)
        same = (run_on.name, run_on.snapshot_sha256) == (target.name, target.snapshot_sha256)
        run_on_circuit = circuit if same else _compiled(config, run_on, reporter)
    # Other engines than the twin compute on the CPU, whatever their number of qubits.
    wanted = (device or config.device) if config.engine == "twin" else "cpu"
    try:
        resolved = resolve_device(wanted, len(circuit.physical_qubits))
    except UsageError:
        if device is None:
            raise
        raise QrunError(
            "the run began on a CUDA device, and there is none here.",
            "Resume it where it began, or start it anew with --device cpu: another device rounds otherwise.",
        ) from None
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", QrunWarning)
        # What cannot be run on the Runtime is refused as the engine is made: a rehearsal there would be a job.
        if run_on is not None and run_on_circuit is not None:
            device_executor(config, run_on)
        model = model_for(config, target, circuit, resolved)
        if config.engine != "runtime":
            with model.executor:
                _rehearse(model, config)
    _tell(told, reporter)
    return Prepared(target, circuit, resolved, time.perf_counter() - begin, run_on, run_on_circuit)


def _compiled(config: RunConfig, target: Target, reporter: Reporter) -> CompiledCircuit:
    available = target.num_qubits
    if available is not None and config.model.qubits > available:
        raise UsageError(
            f"--qubits {config.model.qubits}: {target.name} has {available} qubits.",
            "Take fewer, or a larger device (`qrun backends list`).",
        )
    reporter.stage(f"compiling {config.model.qubits} qubits for {target.name}")
    ansatz = find(config.experiment).ansatz(config.model)
    return compile_ansatz(ansatz, target.backend, seed=derive(config.seed, "layout") % 2**31)


def _tell(told: Sequence[warnings.WarningMessage], reporter: Reporter) -> None:
    for warning in told:
        if issubclass(warning.category, QrunWarning):
            reporter.notice("Calibration", str(warning.message))
        else:
            warnings.showwarning(warning.message, warning.category, warning.filename, warning.lineno)


def _rehearse(model: QGAN, config: RunConfig) -> None:
    """What a step of the training asks the engine for, once: what would be refused then is refused now."""
    start = model.initial(generator(config.seed, "initial"))
    layer = ExpectationLayer(model.executor, model.circuit, model.observables, gradient=model.gradient)
    if config.engine != "twin":
        model.generate(start, 2, 0)  # sampled circuits take long, and no more memory for more of them
        return
    latents = torch.zeros(config.model.batch, len(model.circuit.inputs), dtype=model.dtype)
    layer(latents, torch.tensor(start["generator"], dtype=model.dtype, requires_grad=True))


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
        return QGAN(settings, executor, circuit)
    executor = make_executor(
        config.engine,
        target,
        shots=config.shots,
        precision=settings.precision,
        idle_noise=config.idle_noise,
        device=device,
        threads=_threads(config, device),
    )
    return QGAN(settings, executor, circuit)


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
