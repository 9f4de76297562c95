"""What a run did on devices, decoded again from the results that were kept. Nothing is sent."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backends.protocol import Request, Result
from backends.runtime.pubs import Part
from backends.runtime.replay import ReplayExecutor
from backends.runtime.types import RuntimeOptions
from backends.target import Target
from circuits.errors import QrunError
from contracts.errors import ContentError
from experiments.models.qgan import QGAN
from runner import calibration
from runner.audit.checks import Findings
from runner.audit.figures import FILE
from runner.audit.jobs import FIGURES, KeptJobs, close
from runner.audit.samples import read_samples
from runner.config import RunConfig
from runner.contribution import OnDevice
from runner.device_report import DeviceRun, FloatArray, device_figures
from runner.device_stage import on_device
from runner.mitigated import mitigation_of
from runner.models import model_for
from runner.prepare import Prepared
from runner.run_folder import MAX_BYTES

TOLERANCE = 2e-3
"""Metrics may differ by so much between machines: a record or two near the threshold."""


class Kept(ReplayExecutor):
    """The replay as the device stage asks for it: sent, then collected. What it asks for is noted.

    Args:
        target: As the run's.
        options: As the run's.
        kept: The results that answer; None for none.
    """

    def __init__(self, target: Target, options: RuntimeOptions, kept: KeptJobs | None) -> None:
        super().__init__(target, options, (lambda _: None) if kept is None else kept.bytes_of)
        self._asked = {} if kept is None else kept.asked

    def _find(self, part: Part) -> list[tuple[Part, bytes]]:
        self._asked[part.digest] = part.rows
        return super()._find(part)

    def send(self, requests: Sequence[Request], *, seed: int | None = None) -> tuple[list[Request], int | None]:
        """Remember what is asked."""
        return list(requests), seed

    def collect(self, handle: tuple[list[Request], int | None]) -> list[Result]:
        """Answer it."""
        return self.run(handle[0], seed=handle[1])


def replayed_model(config: RunConfig, prepared: Prepared, kept: KeptJobs | None) -> QGAN:
    """The run's model; of the engine runtime on the results that were kept, else on the engine itself."""
    if config.engine != "runtime" or config.runtime is None:
        return model_for(config, prepared.target, prepared.circuit, prepared.device)
    options = config.runtime.options(config.shots or 0)
    mitigation = mitigation_of(config, prepared.target, exact=False)
    return QGAN(config.model, Kept(prepared.target, options, kept), prepared.circuit, mitigation)


def replayed_on_device(config: RunConfig, prepared: Prepared, kept: KeptJobs | None) -> OnDevice | None:
    """A node's model on the device that trained models went to, on the results that were kept."""
    if config.runtime is None or prepared.run_on is None or prepared.run_on_circuit is None:
        return None
    there = Kept(prepared.run_on, config.runtime.options(config.runtime.shots), kept)
    return on_device(config, prepared.run_on, prepared.run_on_circuit, there)


def with_devices(config: RunConfig, result: Mapping[str, Any] | None, store: Any, folder: Path) -> RunConfig:
    """The config with devices that can be built here: calibrations from the store, put into a folder.

    Args:
        config: As the chain has it: it leaves out where a snapshot file lies.
        result: The run's, which names them.
        store: Where they are read from.
        folder: Where they are put.

    Raises:
        QrunError: nothing says where a snapshot file is.
    """
    told = {} if result is None else result
    backend = _device(config.backend, config.snapshot_sha256, told.get("backend"), store, folder)
    if backend == FILE:
        path = _mapping(told.get("config")).get("backend")
        if not isinstance(path, str):
            raise QrunError("the run's backend is a snapshot file, and nothing here says where it is.")
        backend = path
    changed: dict[str, Any] = {"backend": backend}
    runtime = config.runtime
    if runtime is not None and runtime.run_on is not None:
        run_on = _device(runtime.run_on, runtime.run_on_sha256, told.get("device_run"), store, folder)
        if run_on == FILE:
            run_on = str(_mapping(_mapping(told.get("config")).get("runtime")).get("run_on"))
        changed["runtime"] = runtime.model_copy(update={"run_on": run_on})
    return config.model_copy(update=changed)


def _device(name: str, sha256: str | None, told: Any, store: Any, folder: Path) -> str:
    """The device's name, or the path of its snapshot file as the store has it."""
    cid = _mapping(told).get("snapshot_cid")
    if sha256 is None or not isinstance(cid, str):
        return name
    try:
        data = store.get(cid, max_bytes=MAX_BYTES)
    except ContentError:
        return name
    if hashlib.sha256(data).hexdigest() != sha256:
        return name
    calibration.keep(data, folder)
    return str(folder / calibration.file_name(sha256)) if name == FILE else name


def check_device(findings: Findings, result: Mapping[str, Any], store: Any, again: Callable[[], DeviceRun]) -> None:
    """That samples, agreement and metrics of the device follow from the kept results.

    Args:
        findings: Where statements are noted.
        result: The run's.
        store: Where the samples are.
        again: The device stage on the kept results.
    """
    told = _mapping(result.get("device_run"))
    claim = "the samples of the device are those of the kept results, and the twin's those of the model"
    try:
        stage = again()
    except QrunError as error:
        findings.false("metrics/device/samples", claim, error.message)
        return
    samples = read_samples(store, str(told.get("samples_cid")), model=str(_mapping(result.get("final")).get("cid")))
    wrong = samples if isinstance(samples, str) else _apart(samples, stage)
    findings.test(not wrong, "metrics/device/samples", claim, wrong, str(told.get("samples_cid")))
    bounds = {"metrics": TOLERANCE}
    for name, value in device_figures(stage).items():
        same = close(told.get(name), value, bounds.get(name, FIGURES))
        findings.test(
            same, f"metrics/device/{name}", f"device: {name} is that of the kept results",
            f"it says {str(told.get(name))[:150]}; it is {str(value)[:150]}",
        )  # fmt: skip


def _apart(samples: Mapping[int, Mapping[str, FloatArray]], stage: DeviceRun) -> str:
    """What of the published samples is not what the kept results and the twin give; empty where all is."""
    if samples.keys() != stage.sampled.keys():
        return "other nodes made them"
    for node, s in stage.sampled.items():
        for name, values in (("device", s.device), ("standard_errors", s.errors), ("twin", s.twin)):
            found = samples[node][name]
            if found.shape != values.shape or not np.allclose(found, values, rtol=0, atol=FIGURES):
                return f"node {node}: {name} has other values"
    return ""


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
