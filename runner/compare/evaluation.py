"""What is kept of a finished model under a profile: a file in the run's folder, under the digest of what it is of.

    RUN/evaluations/DIGEST.json

A profile is a config that differs from the run's in where circuits are run, and how (`WHERE`). The same model, data and
profile give the same file, so that a comparison that was killed goes on, and a report computes nothing twice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from circuits.errors import QrunError
from circuits.hostile import load_json, read_regular
from runner.config import RunConfig
from runner.store import on_disk, write_durably

FORMAT = "qrun-evaluation/1"
FOLDER = "evaluations"
MAX_BYTES = 4 << 20

WHERE = ("backend", "snapshot_sha256", "engine", "shots", "idle_noise", "noise_scale", "layout", "mitigation")
"""What a profile may change of a run's config."""

Evaluation = dict[str, Any]


def profile_of(config: RunConfig) -> dict[str, Any]:
    """Where a config runs circuits, as plain values; of mitigation what evaluation has of it."""
    values = config.model_dump(mode="json")
    found = {name: values.get(name) for name in WHERE}
    said = found["mitigation"]
    if said is not None:
        kept = {k: v for k, v in said.items() if k not in ("apply", "budget")}
        found["mitigation"] = None if said["apply"] == "training" else kept
    if found["snapshot_sha256"] is not None:
        found["backend"] = Path(str(found["backend"])).name  # where the file lies says nothing
    return found


def ideal(config: RunConfig) -> RunConfig:
    """The same without noise, exactly."""
    model = config.model
    if model.infidelity_weight is not None:
        model = model.model_copy(update={"infidelity_weight": None})
    if model.gradient != "auto":
        model = model.model_copy(update={"gradient": "auto"})
    nowhere = {
        "backend": "ideal",
        "snapshot_sha256": None,
        "engine": "twin",
        "shots": None,
        "idle_noise": False,
        "noise_scale": None,
        "layout": None,
        "mitigation": None,
        "runtime": None,
        "model": model,
    }
    return config.model_copy(update=nowhere)


def digest_of(result: Mapping[str, Any], profile: RunConfig) -> str:
    """What a run's model under a profile is known by, hex."""
    about = {
        "format": FORMAT,
        "config": result["config_digest"],
        "model": result["final"]["cid"],
        "data": result["dataset"]["sha256"],
        "profile": profile_of(profile),
    }
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def recall(folder: Path, result: Mapping[str, Any], profile: RunConfig) -> Evaluation | None:
    """What was kept; None where there is nothing, or nothing sound: it is then made again."""
    digest = digest_of(result, profile)
    try:
        data = read_regular(folder / FOLDER / f"{digest}.json", max_bytes=MAX_BYTES, what="evaluation")
        body = load_json(data, max_bytes=MAX_BYTES, what="evaluation")
    except QrunError:
        return None
    return body if _is_sound(body, digest) else None


def keep(folder: Path, evaluation: Evaluation) -> None:
    """Write it down, whole or not at all."""
    with on_disk(folder):
        (folder / FOLDER).mkdir(exist_ok=True)
        data = json.dumps(evaluation, sort_keys=True, allow_nan=False).encode()
        write_durably(folder / FOLDER / f"{evaluation['digest']}.json", data)


Number = Annotated[float, Field(allow_inf_nan=False)]
Text = Annotated[str, Field(max_length=500)]


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Metrics(_Shape):
    accuracy: Number
    precision: Number
    recall: Number
    f1: Number
    auroc: Number
    threshold: Number


class _Parts(_Shape):
    holdout: _Metrics
    test: _Metrics | None
    test_without_seen: _Metrics | None


class _Qubit(_Shape):
    qubit: int
    t1: Number | None
    t2: Number | None
    readout: Number
    one_qubit: Number | None


class _Pair(_Shape):
    gate: Text
    qubits: list[int]
    error: Number | None
    times: int


class _Device(_Shape):
    name: Text
    calibration_date: Text | None
    native_gates: list[Text]
    two_qubit_gate: Text | None
    qubits: list[_Qubit]
    pairs: list[_Pair]


class _Circuit(_Shape):
    physical_qubits: list[int]
    depth: int
    gates: int
    two_qubit_gates: int
    seconds: Number | None
    fidelity: Number | None


class _Curve(_Shape):
    fpr: list[Number]
    tpr: list[Number]

    @model_validator(mode="after")
    def _fits(self) -> _Curve:
        if len(self.fpr) != len(self.tpr):
            raise ValueError("rates do not go together")
        return self


class _Curves(_Shape):
    holdout: _Curve
    test: _Curve | None


class _Histogram(_Shape):
    edges: list[Number]
    benign: list[Number]
    attack: list[Number]

    @model_validator(mode="after")
    def _fits(self) -> _Histogram:
        if not len(self.edges) - 1 == len(self.benign) == len(self.attack) > 0:
            raise ValueError("bins do not go together")
        return self


class _Zne(_Shape):
    scales: list[Number]
    extrapolation: Text
    values: list[list[Number]]
    extrapolated: list[Number]
    ideal: list[Number]

    @model_validator(mode="after")
    def _fits(self) -> _Zne:
        width = len(self.ideal)
        rows = [self.extrapolated, *self.values]
        if not width or len(self.values) != len(self.scales) or any(len(row) != width for row in rows):
            raise ValueError("values do not go together")
        return self


class _OnDevice(_Shape):
    jobs: int
    circuits: int
    qpu_seconds: Number


class _Cost(_Shape):
    circuits: int
    overhead: Number
    shots: int | None
    qpu_seconds: Number | None
    on_device: _OnDevice | None


class _Distances(_Shape):
    mmd2: Number
    wasserstein: Number
    sliced: Number


class _Apart(_Shape):
    mean: Number
    rms: Number
    largest: Number


class _Evaluation(_Shape):
    """What `evaluate` makes: the folder that it is read from may have come from anybody."""

    format: Text
    digest: Text
    run: Text
    model: Text
    config_digest: Text
    dataset: dict[str, Any]
    profile: dict[str, Any]
    device: _Device
    circuit: _Circuit
    metrics: _Parts
    as_trained: _Parts | None
    distances: _Distances
    expectations: _Apart
    roc: _Curves
    histogram: _Histogram
    zne: _Zne | None
    cost: _Cost
    seconds: Number


def _is_sound(body: Any, digest: str) -> bool:
    try:
        found = _Evaluation.model_validate(body)
    except ValidationError:
        return False
    return (found.format, found.digest) == (FORMAT, digest)
