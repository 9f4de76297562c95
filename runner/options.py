"""From what the user gave (config file, options) and the experiment's defaults to a RunConfig."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backends.engines import DEFAULT_SHOTS
from circuits.errors import UsageError
from experiments.base import find
from experiments.settings import DataSettings, ModelSettings, Settings
from runner.config import RunConfig, build_config, merge, read_toml


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
    tables: tuple[tuple[str, type[Settings]], ...] = (("model", ModelSettings), ("data", DataSettings))
    for key, value in options.items():
        table = next((name for name, model in tables if key in model.model_fields), None)
        out = merge(out, {key: value} if table is None else {table: {key: value}})
    return out


def config_from(experiment: str, options: Mapping[str, Any], file: Path | None = None) -> RunConfig:
    """The run's config: the experiment's defaults, the file's values over them, the options over both.

    Raises:
        UsageError: unknown experiment, key or value, in one line.
    """
    from backends.catalog import canonical_name

    found = find(experiment)
    values = merge({"experiment": experiment}, found.defaults())
    if file is not None:
        from_file = read_toml(file)
        if from_file.get("experiment", experiment) != experiment:
            raise UsageError(f"{file}: experiment = {from_file['experiment']!r}, but the command names {experiment!r}.")
        build_config(_complete(merge(values, from_file)), origin=str(file))
        values = merge(values, from_file)
    config = build_config(_complete(merge(values, nest(given(options)))))
    return config.model_copy(update={"backend": canonical_name(config.backend)})


def _complete(values: dict[str, Any]) -> dict[str, Any]:
    """Aer always samples; without --shots it takes the default, so that the digest names the true number."""
    if values.get("engine") == "aer" and values.get("shots") is None:
        return {**values, "shots": DEFAULT_SHOTS}
    return values
