"""From what the user gave (config file, options) and the experiment's defaults to a RunConfig."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backends.engines import DEFAULT_SHOTS
from circuits.errors import UsageError
from experiments.base import find
from runner.config import TABLES, RunConfig, build_config, merge, read_toml

RUNTIME_SAMPLES = 256
"""Generated samples that the distance is taken to, where a device generates them and nobody says otherwise."""


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values without those that are None, in nested tables too."""
    out: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            inner = given(value)
            if inner:
                out[key] = inner
        elif value is not None:
            out[key] = value
    return out


def nest(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as the command line and Python users give them (qubits=4, partition="iid") put into their tables."""
    out: dict[str, Any] = {}
    for key, value in options.items():
        # Some names are in several places: `shots` is the run's, `samples` the model's.
        top = key in RunConfig.model_fields
        table = None if top else next((name for name, model in TABLES.items() if key in model.model_fields), None)
        out = merge(out, {key: value} if table is None else {table: {key: value}})
    return out


def config_from(experiment: str, options: Mapping[str, Any], file: Path | None = None) -> RunConfig:
    """The run's config: the experiment's defaults, the file's values over them, the options over both.

    Raises:
        UsageError: unknown experiment, key or value, in one line.
    """
    found = find(experiment)
    values = merge({"experiment": experiment}, found.defaults())
    if file is not None:
        from_file = read_toml(file)
        if from_file.get("experiment", experiment) != experiment:
            raise UsageError(f"{file}: experiment = {from_file['experiment']!r}, but the command names {experiment!r}.")
        build_config(_complete(merge(values, from_file)), origin=str(file))
        values = merge(values, from_file)
    config = build_config(_complete(merge(values, nest(given(options)))))
    return _with_backend(config)


def _with_backend(config: RunConfig) -> RunConfig:
    """The config with the backend's name spelled out, and the hash of its content where it is a file.

    Raises:
        UsageError: No such backend or file; or the config asks for a file of another content.
    """
    from backends.catalog import canonical_name, snapshot_of

    snapshot = snapshot_of(config.backend)
    found, wanted = None if snapshot is None else snapshot.sha256, config.snapshot_sha256
    if wanted not in (None, found):
        raise UsageError(
            f"snapshot_sha256 = {wanted[:12]}..., but {config.backend} "
            + ("is no snapshot file." if found is None else f"has {found[:12]}...."),
            "Give the file that is meant with --backend, or leave snapshot_sha256 out.",
        )
    return config.model_copy(update={"backend": canonical_name(config.backend), "snapshot_sha256": found})


def _complete(values: dict[str, Any]) -> dict[str, Any]:
    """The values with those that an engine takes unless told, so that the digest names the true numbers.

    Aer, qml and the Runtime always sample; on a device samples are few, for its minutes are.
    """
    out = dict(values)
    if out.get("engine") in ("aer", "qml", "runtime") and out.get("shots") is None:
        out["shots"] = DEFAULT_SHOTS
    if out.get("engine") == "runtime":
        # A table that is no table is told of by the config's own check.
        model, runtime = out.get("model", {}), out.get("runtime")
        if isinstance(model, Mapping) and model.get("samples") is None:
            out["model"] = {**model, "samples": RUNTIME_SAMPLES}
        out["runtime"] = {} if runtime is None else runtime
    return out
