"""What is tried before a run begins: the target, the generator compiled for it, a step of its training."""

from __future__ import annotations

import os
import time
import warnings
from dataclasses import dataclass

import torch

from backends.catalog import get_target
from backends.devices import resolve_device
from backends.engines import make_executor
from backends.layer import ExpectationLayer
from backends.target import Target
from circuits.compile import compile_ansatz
from circuits.errors import QrunError, QrunWarning, UsageError
from circuits.types import CompiledCircuit
from experiments.base import find
from experiments.models.qgan import QGAN
from runner.config import RunConfig
from runner.progress import Reporter
from runner.seeds import derive, generator

_THREADS = 4
"""At most so many threads share a step of the twin, fewer where memory is short."""


@dataclass(frozen=True)
class Prepared:
    """The target, the generator compiled for it, the torch device ("cpu" or "cuda"), and the seconds that took."""

    target: Target
    circuit: CompiledCircuit
    device: str
    seconds: float


def prepare(config: RunConfig, reporter: Reporter, *, device: str | None = None) -> Prepared:
    """The target and the generator on it, tried once; before anything is written, so that a mistake costs nothing.

    Args:
        config: What to run.
        reporter: Told of the progress.
        device: Where an earlier attempt computed, "cpu" or "cuda"; by default what the config's device means here.

    Raises:
        UsageError: unknown names, more qubits than the device has, a GPU that is not there, idle noise without noise.
        QrunError: the device has no usable layout, or the engine cannot run the circuit here, for want of memory too.
    """
    begin = time.perf_counter()
    experiment = find(config.experiment)
    target = get_target(config.backend)
    if target.snapshot_sha256 != config.snapshot_sha256:
        raise QrunError(
            f"{config.backend} is not the snapshot file that this run is defined by: its SHA-256 is "
            f"{target.snapshot_sha256}, not {config.snapshot_sha256}.",
            "Put that file back, or start a new run.",
        )
    available = target.num_qubits
    if available is not None and config.model.qubits > available:
        raise UsageError(
            f"--qubits {config.model.qubits}: {target.name} has {available} qubits.",
            "Take fewer, or a larger device (`qrun backends list`).",
        )
    if config.idle_noise and target.backend is None:
        raise UsageError(f"--idle-noise: {target.name} has no noise.", "Take a device (`qrun backends list`).")
    reporter.stage(f"compiling {config.model.qubits} qubits for {target.name}")
    ansatz = experiment.ansatz(config.model)
    circuit = compile_ansatz(ansatz, target.backend, seed=derive(config.seed, "layout") % 2**31)
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
    model = model_for(config, target, circuit, resolved)
    with warnings.catch_warnings(record=True) as told, model.executor:
        warnings.simplefilter("always", QrunWarning)
        _rehearse(model, config)
    for warning in told:
        if issubclass(warning.category, QrunWarning):
            reporter.notice("Calibration", str(warning.message))
        else:
            warnings.showwarning(warning.message, warning.category, warning.filename, warning.lineno)
    return Prepared(target, circuit, resolved, time.perf_counter() - begin)


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


def model_for(config: RunConfig, target: Target, circuit: CompiledCircuit, device: str) -> QGAN:
    """The run's model on an executor of its own, closed; `device` is "cpu" or "cuda"."""
    settings = config.model
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
