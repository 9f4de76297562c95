"""What a device made of a model, beside its twin: the samples as a file, how far the two are apart, the result's part.

With values y of the device, t of the exact twin for the same latents, and standard errors e of y, over samples i and
features j:

    mean absolute difference   D = mean_ij |y_ij - t_ij|
    its standard error         sqrt(sum_i (mean_j e_ij)^2) / samples: features of a sample share its shots, and the
                               bound holds however they hang together
    from shots alone           sqrt(2 / pi) mean_ij e_ij: what D would be if the device were its twin
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from backends.runtime.types import RuntimeOptions
from backends.target import Target
from circuits.types import CompiledCircuit
from experiments.metrics import Metrics
from runner.job_record import DIGITS, describe_options, mode_of, seconds_of

FloatArray = npt.NDArray[np.float64]
Scored = dict[str, Metrics | None]

SAMPLES = "qrun-samples/1"
"""Format of the file of samples in the content store."""


@dataclass(frozen=True)
class Sampled:
    """A node's samples.

    Attributes:
        device: (count, features) samples made of what the device measured ...
        errors: ... and their standard errors.
        twin: (count, features) samples of the exact twin for the same latents.
        tags: Of the jobs that made them.
    """

    device: FloatArray
    errors: FloatArray
    twin: FloatArray
    tags: tuple[str, ...]


def samples_file(model: str, sampled: Mapping[int, Sampled]) -> bytes:
    """The samples as they are published: canonical JSON, a row a sample, a column a feature."""
    nodes = [
        {"id": node, "device": s.device.tolist(), "standard_errors": s.errors.tolist(), "twin": s.twin.tolist()}
        for node, s in sorted(sampled.items())
    ]
    body = {"format": SAMPLES, "model": model, "nodes": nodes}
    return json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def agreement(device: FloatArray, twin: FloatArray, errors: FloatArray) -> dict[str, Any]:
    """How far the device is from its twin.

    Args:
        device: (samples, features) samples of the device.
        twin: The same latents' exact values.
        errors: Standard errors of the device's.

    Returns:
        features: mean and standard deviation over the samples, of both; mean_absolute_difference, standard_error and
        from_shots (the module's formulas); largest_difference.
    """
    apart = np.abs(device - twin)
    return {
        "features": [
            {
                "twin_mean": float(twin[:, j].mean()),
                "device_mean": float(device[:, j].mean()),
                "twin_sd": float(twin[:, j].std()),
                "device_sd": float(device[:, j].std()),
            }
            for j in range(device.shape[1])
        ],
        "mean_absolute_difference": float(apart.mean()),
        "largest_difference": float(apart.max()),
        "standard_error": float(math.sqrt((errors.mean(axis=1) ** 2).sum()) / len(errors)),
        "from_shots": float(math.sqrt(2 / math.pi) * errors.mean()),
    }


def agreement_of(sampled: Mapping[int, Sampled]) -> dict[str, Any]:
    """`agreement` over all nodes' samples."""
    every = [sampled[node] for node in sorted(sampled)]
    return agreement(
        np.concatenate([s.device for s in every]),
        np.concatenate([s.twin for s in every]),
        np.concatenate([s.errors for s in every]),
    )


@dataclass(frozen=True)
class DeviceRun:
    """What the device stage came to.

    Attributes:
        target: The device.
        circuit: The generator compiled for it.
        options: With which its jobs ran.
        sampled: By node.
        scores: What the model was scored with -> part -> metrics.
        samples_cid: Of the published samples.
        round: Of the model.
    """

    target: Target
    circuit: CompiledCircuit
    options: RuntimeOptions
    sampled: Mapping[int, Sampled]
    scores: Mapping[str, Scored]
    samples_cid: str
    round: int


def describe(
    stage: DeviceRun,
    jobs: Sequence[Mapping[str, Any]],
    sessions: Sequence[Mapping[str, Any]],
    snapshot_cid: str | None,
) -> dict[str, Any]:
    """The result's `device_run`.

    Args:
        stage: What the device stage came to.
        jobs: The result's `jobs`.
        sessions: And its `sessions`.
        snapshot_cid: Of the device's calibration, where it is in the store.
    """
    nodes: list[dict[str, Any]] = [
        {
            "id": node,
            "samples": len(s.device),
            "jobs": list(s.tags),
            "qpu_seconds": round(seconds_of(jobs, sessions, ["device"], (stage.round, 0, node)).total, DIGITS),
        }
        for node, s in sorted(stage.sampled.items())
    ]
    tags = {tag for node in nodes for tag in node["jobs"]}
    return {
        **device_figures(stage),
        "snapshot_cid": snapshot_cid,
        "mode": mode_of([job for job in jobs if job["tag"] in tags], stage.target.name),
        "samples": sum(node["samples"] for node in nodes),
        "qpu_seconds": round(sum(node["qpu_seconds"] for node in nodes), DIGITS),
        "nodes": nodes,
        "samples_cid": stage.samples_cid,
    }


def device_figures(stage: DeviceRun) -> dict[str, Any]:
    """The part of it that follows from the samples and the device alone."""
    target, circuit = stage.target, stage.circuit
    ran = describe_options(stage.options, target)
    return {
        "backend": target.name,
        "calibration_date": target.calibration_date,
        "snapshot_sha256": target.snapshot_sha256,
        "engine": "local" if ran["local"] else "service",
        "shots": stage.options.shots,
        "options": ran["options"],
        "ignored": ran["ignored"],
        "physical_qubits": list(circuit.physical_qubits),
        "depth": circuit.depth,
        "two_qubit_gates": circuit.two_qubit_gates,
        "metrics": {
            part: {name: _metrics(scores[part]) for name, scores in stage.scores.items()}
            for part in next(iter(stage.scores.values()))
        },
        "agreement": rounded_figures(agreement_of(stage.sampled)),
    }


def _metrics(metrics: Metrics | None) -> dict[str, float] | None:
    """Metrics as they stand in a result; None for records that the run has not."""
    return None if metrics is None else {k: round(float(v), DIGITS) for k, v in metrics.to_dict().items()}


def rounded_figures(figures: Any) -> Any:
    """Figures as they stand in a result."""
    if isinstance(figures, dict):
        return {name: rounded_figures(value) for name, value in figures.items()}
    return [rounded_figures(value) for value in figures] if isinstance(figures, list) else round(figures, DIGITS)
