"""What is tried before a run begins: the target, the generator compiled for it, a step of its training."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from backends.devices import resolve_device
from backends.mitigation.make import Purpose
from backends.target import Target
from circuits.errors import QrunError, QrunWarning, UsageError
from circuits.types import CompiledCircuit
from experiments.models.budget import accountants
from experiments.models.qgan import QGAN
from runner.calibration import target_for, target_of
from runner.compiled import generator_for
from runner.config import RunConfig
from runner.mitigated import (
    PURPOSES,
    Outlook,
    check_budget,
    check_shift,
    device_rows,
    is_exact,
    look_ahead,
    overhead,
    planned,
    rehearsed_layer,
    requests_of,
    rows_of,
    run_takes,
    tell_outlook,
)
from runner.models import device_executor, device_model, model_for
from runner.progress import Reporter
from runner.seeds import generator


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
        outlook: What is known of the run's mitigation, where it has one.
    """

    target: Target
    circuit: CompiledCircuit
    device: str
    seconds: float
    run_on: Target | None = None
    run_on_circuit: CompiledCircuit | None = None
    outlook: Outlook | None = None


def prepare(
    config: RunConfig, reporter: Reporter, *, device: str | None = None, folder: Path | None = None
) -> Prepared:
    """The target and the generator on it, tried once; before anything is written, so that a mistake costs nothing.

    Nothing is sent to a device. What mitigation takes is counted, and what it will do is forecast and told.

    Args:
        config: What to run.
        reporter: Told of the progress.
        device: Where an earlier attempt computed, "cpu" or "cuda"; by default what the config's device means here.
        folder: The run's, which keeps the calibration of a hardware device.

    Raises:
        UsageError: unknown names, more qubits than the device has, a GPU that is not there, idle noise without noise,
            mitigation that cannot be had or is past its budget.
        QrunError: the device has no usable layout, or the engine cannot run the circuit here, for want of memory too;
            an epsilon is asked for, and what counts it is not installed.
    """
    begin = time.perf_counter()
    if config.model.dp is not None:
        accountants()
    target = target_for(config, folder)
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
        model, there = model_for(config, target, circuit, resolved), None
        if run_on is not None and run_on_circuit is not None:
            there = device_model(config, run_on, run_on_circuit, device_executor(config, run_on))
        costs = _costs(config, model, there)
        if config.engine != "runtime":
            with model.executor:
                _rehearse(model, config)
        on_runtime = model if config.engine == "runtime" else there
        if on_runtime is not None:
            _plan(on_runtime, config)
    _tell(told, reporter)
    outlook = None if config.mitigation is None else _outlook(config, model, there, costs, reporter)
    return Prepared(target, circuit, resolved, time.perf_counter() - begin, run_on, run_on_circuit, outlook)


def _compiled(config: RunConfig, target: Target, reporter: Reporter) -> CompiledCircuit:
    available = target.num_qubits
    if available is not None and config.model.qubits > available:
        raise UsageError(
            f"--qubits {config.model.qubits}: {target.name} has {available} qubits.",
            "Take fewer, or a larger device (`qrun backends list`).",
        )
    reporter.stage(f"compiling {config.model.qubits} qubits for {target.name}")
    return generator_for(config, target)


def _tell(told: Sequence[warnings.WarningMessage], reporter: Reporter) -> None:
    for warning in told:
        if issubclass(warning.category, QrunWarning):
            reporter.notice("Calibration", str(warning.message))
        else:
            warnings.showwarning(warning.message, warning.category, warning.filename, warning.lineno)


def _rehearse(model: QGAN, config: RunConfig) -> None:
    """What a step of the training asks the engine for, once: what would be refused then is refused now."""
    start, layer = model.initial(generator(config.seed, "initial")), rehearsed_layer(model)
    asked = requests_of(config, model, "training", 2)
    check_shift(config, model, planned(model, "training", asked[:1]))
    if config.engine != "twin" or config.mitigation is not None:
        model.generate(start, 2, 0)  # sampled circuits take long, and no more memory for more of them
    if config.engine != "twin":
        if config.mitigation is not None or len(asked) > 1:
            model.engine("training").run(asked, seed=0)
        return
    latents = torch.zeros(config.model.batch, len(model.circuit.inputs), dtype=model.dtype)
    layer(latents, torch.tensor(start["generator"], dtype=model.dtype, requires_grad=True))


def _plan(model: QGAN, config: RunConfig) -> None:
    """What a step would send to the Runtime, checked and not sent."""
    from backends.runtime.pubs import check

    assert config.runtime is not None
    options = config.runtime.options(config.shots or config.runtime.shots)
    for purpose in PURPOSES:
        asked = requests_of(config, model, purpose, 2)
        check(planned(model, purpose, asked), options)
        if purpose == "training":
            check_shift(config, model, planned(model, purpose, asked[:1]))


def _costs(config: RunConfig, model: QGAN, there: QGAN | None) -> tuple[dict[Purpose, float], dict[Purpose, float]]:
    """Circuits for each unmitigated one, of the run's engine and of the device that models go to, within the budget.

    Raises:
        UsageError: They are past it; the estimate stands first.
    """
    if config.mitigation is None:
        return {}, {}
    own = overhead(model, rows_of(config, model.circuit))
    device = {} if there is None else overhead(there, device_rows(config))
    check_budget(config, [own, device], partial(run_takes, config, model, there))
    return own, device


def _outlook(
    config: RunConfig,
    model: QGAN,
    there: QGAN | None,
    costs: tuple[dict[Purpose, float], dict[Purpose, float]],
    reporter: Reporter,
) -> Outlook:
    """What mitigation will do, told before the run."""
    reporter.stage("forecasting the mitigation")
    own = look_ahead(config, model, None if is_exact(config) else config.shots, costs[0])
    tell_outlook(own, reporter)
    if there is None or config.runtime is None:
        return own
    device = look_ahead(config, there, config.runtime.shots, costs[1])
    tell_outlook(device, reporter)
    return replace(own, device=device)
