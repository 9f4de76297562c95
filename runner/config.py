"""All that defines a run. Where a run lives (folder, chain, store, data) is not part of it, and neither is a secret."""

from __future__ import annotations

import difflib
import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, PrivateAttr, ValidationError, field_validator, model_validator

from backends.snapshot_file import is_file_name
from circuits.errors import UsageError
from experiments.settings import DataSettings, ModelSettings, Settings
from runner.settings import FederationSettings, GradeSettings, MitigationSettings, RuntimeSettings

MAX_CONFIG_BYTES = 1 << 20


def canonical(values: Mapping[str, Any]) -> bytes:
    """Canonical JSON: sorted keys, no white space.

    Of a snapshot file counts what is in it, not where it lies: the same file gives the same digest on every machine.
    """
    if values.get("snapshot_sha256") is not None and is_file_name(str(values.get("backend"))):
        values = {**values, "backend": "snapshot"}
    runtime = values.get("runtime")
    if isinstance(runtime, Mapping) and runtime.get("run_on_sha256") and is_file_name(str(runtime.get("run_on"))):
        values = {**values, "runtime": {**runtime, "run_on": "snapshot"}}
    return json.dumps(values, sort_keys=True, separators=(",", ":")).encode()


class RunConfig(Settings):
    """A run, whole: the same config on the same data gives the same CIDs and metrics.

    That holds for the same torch wheel, instruction set and device; not with `model.dp`, whose noise has no seed.

    `digest` names it: every figure in a result traces to these values, and to the data's hashes in the result.
    `snapshot_sha256` is of a snapshot file, or of the calibration that a hardware device had when the run began.
    `runtime` is there where IBM's Runtime has a part in the run, `mitigation` where something is mitigated; they
    are else left out of every form that is written. So are `noise_scale` (the device's noise so many times as large,
    the circuit laid out as without it) and `layout` (0 the device's best qubits, 1 the best of those that are left ...)
    where they say nothing.
    """

    left_out: ClassVar[tuple[str, ...]] = ("noise_scale", "layout", "runtime", "mitigation")

    experiment: str
    backend: str = "fake_kyiv"
    snapshot_sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    engine: Literal["twin", "aer", "qml", "runtime"] = "twin"
    shots: int | None = Field(None, ge=1, le=10_000_000)
    idle_noise: bool = False
    noise_scale: float | None = Field(None, ge=0, le=10, allow_inf_nan=False)
    layout: int | None = Field(None, ge=0, le=50)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    nodes: int = Field(3, ge=1, le=50)
    rounds: int = Field(5, ge=1, le=1000)
    seed: int = Field(0, ge=0, le=2**63 - 1)
    data: DataSettings = Field(default_factory=DataSettings)
    model: ModelSettings = Field(default_factory=ModelSettings)
    federation: FederationSettings = Field(default_factory=FederationSettings)
    grades: GradeSettings = Field(default_factory=GradeSettings)
    runtime: RuntimeSettings | None = None
    mitigation: MitigationSettings | None = None

    _chosen: str | None = PrivateAttr(None)

    @property
    def chosen(self) -> str | None:
        """Why `--mitigation auto` came to the stack; None where the user named it. No part of what is written."""
        return self._chosen

    def with_choice(self, why: str) -> RunConfig:
        """The same config, knowing why its mitigation was chosen."""
        copy = self.model_copy()
        copy._chosen = why
        return copy

    @field_validator("noise_scale")
    @classmethod
    def _as_it_is(cls, value: float | None) -> float | None:
        return None if value == 1 else value

    @field_validator("layout")
    @classmethod
    def _the_best(cls, value: int | None) -> int | None:
        return value or None

    @model_validator(mode="after")
    def _on_a_device(self) -> RunConfig:
        ideal = self.backend.strip().lower() == "ideal"
        for name in ("noise_scale", "layout"):
            if getattr(self, name) is None:
                continue
            if ideal:
                raise ValueError(f"{name}: ideal has no noise and no layout; name a device")
            if self.engine == "runtime" or self.runtime is not None:
                raise ValueError(f"{name}: a device runs with the noise and the qubits that it has; take the twin")
        return self

    @model_validator(mode="after")
    def _fit_together(self) -> RunConfig:
        sampled = self.engine in ("aer", "runtime") or (self.engine == "twin" and self.shots)
        if self.model.gradient == "exact" and sampled:
            raise ValueError(
                "model.gradient: whoever samples shots has no exact gradient; take 'spsa' or 'parameter-shift'"
            )
        if self.engine != "twin" and self.idle_noise:
            raise ValueError("idle_noise: only the twin knows the noise of idle qubits; take --engine twin")
        if self.engine != "twin" and self.device == "cuda":
            raise ValueError("device: only the twin computes on a GPU; take --engine twin, or --device cpu")
        run_on = None if self.runtime is None else self.runtime.run_on
        if self.engine == "runtime":
            if self.runtime is None or self.shots is None:
                raise ValueError("engine runtime: a device samples; give shots and the table [runtime]")
            if run_on is not None:
                raise ValueError("runtime.run_on: the engine runtime is on its device already; name it with --backend")
            if self.backend.strip().lower() == "ideal":
                raise ValueError("backend: the engine runtime needs a device; ideal is none")
        elif self.runtime is not None:
            if run_on is None:
                raise ValueError("runtime: for --engine runtime, or with --run-on NAME")
            if self.engine != "twin":
                raise ValueError("runtime.run_on: models for a device are trained on the twin; take --engine twin")
            if run_on.strip().lower() == "ideal":
                raise ValueError("runtime.run_on: ideal is no device")
        return self

    @model_validator(mode="after")
    def _mitigated_once(self) -> RunConfig:
        elsewhere = self.runtime is not None and self.runtime.run_on is not None
        without_noise = self.backend.strip().lower() == "ideal" and not elsewhere
        if self.model.infidelity_weight is not None and without_noise:
            raise ValueError("model.infidelity_weight: ideal loses nothing; leave it out, or name a device")
        if self.model.dp is not None and self.runtime is not None and self.runtime.fine_tune:
            raise ValueError("runtime.fine_tune: steps on the device would spend more than model.dp; leave one out")
        if self.mitigation is None:
            return self
        if without_noise:
            raise ValueError("mitigation: ideal has no errors to mitigate; leave --mitigation out, or name a device")
        if self.runtime is not None:
            check_runtime(self.mitigation.names, self.mitigation.readout, self.runtime)
        return self

    def canonical(self) -> bytes:
        """The config as canonical JSON (sorted keys, no white space): what the digest is taken of."""
        return canonical(self.model_dump(mode="json"))

    @property
    def digest(self) -> bytes:
        """SHA-256 of the canonical form, 32 bytes."""
        return hashlib.sha256(self.canonical()).digest()


def check_runtime(names: Sequence[str], readout: str | None, runtime: RuntimeSettings) -> None:
    """Refuse what the Runtime would mitigate once more by itself.

    Args:
        names: Techniques; none for a stack that is yet to be chosen.
        readout: Where confusion matrices come from, if readout is among them.
        runtime: Its own options.

    Raises:
        ValueError: which of the two to leave out.
    """
    stack, level = "+".join(names) or "auto", runtime.resilience_level
    if level is not None and level >= 1:
        raise ValueError(
            f"mitigation {stack} and resilience level {level} would mitigate twice; leave --mitigation out, or "
            "--resilience-level (0 is the Estimator without mitigation)"
        )
    if "twirl" in names and runtime.twirling in ("gates", "all"):
        raise ValueError(f"mitigation twirl and --twirling {runtime.twirling} would twirl gates twice; leave out one")
    if "ddd" in names and runtime.dynamical_decoupling != "off":
        raise ValueError(f"mitigation ddd and --dd {runtime.dynamical_decoupling} would decouple twice; leave out one")
    if readout == "calibration" and runtime.twirling in ("measure", "all"):
        raise ValueError(
            f"--twirling {runtime.twirling} changes the readout errors that the calibration has; take "
            "mitigation.readout = 'circuits', or leave --twirling out"
        )


TABLES: dict[str, type[Settings]] = {
    "data": DataSettings,
    "model": ModelSettings,
    "federation": FederationSettings,
    "grades": GradeSettings,
    "runtime": RuntimeSettings,
    "mitigation": MitigationSettings,
}


def _unknown(where: tuple[str, ...]) -> str:
    """A hint for an unknown key: the table that it belongs into, or the nearest known key."""
    key, table = where[-1], TABLES.get(where[0]) if len(where) > 1 else None
    if table is not None and key in RunConfig.model_fields:
        return "It belongs above all tables."
    home = next((name for name, model in TABLES.items() if key in model.model_fields), None)
    if home is not None and (table is None or home != where[0]):
        return f"It belongs into the table [{home}]."
    known = list((table or RunConfig).model_fields)
    if table is None:
        close = difflib.get_close_matches(key, [*known, *(k for t in TABLES.values() for k in t.model_fields)], n=1)
    else:
        close = difflib.get_close_matches(key, known, n=1)
    return f"Did you mean {close[0]!r}?" if close else f"Known keys: {', '.join(known)}."


def _explain(error: ValidationError, origin: str) -> UsageError:
    """The first thing that is wrong, in one line that names the key and what would do."""
    first = error.errors()[0]
    where = tuple(str(part) for part in first["loc"])
    key = ".".join(where)
    if first["type"] == "extra_forbidden":
        return UsageError(f"{origin}: unknown key {key!r}.", _unknown(where))
    if first["type"] == "missing":
        return UsageError(f"{origin}: {key} is missing.")
    if key == "data":
        return UsageError(f"{origin}: data is a table of settings.", "The folder of the files is --data or data_dir.")
    message = str(first["msg"]).removeprefix("Value error, ").rstrip(".")
    message = message[0].lower() + message[1:]
    shown = repr(first.get("input"))
    if key and not isinstance(first.get("input"), dict):
        return UsageError(f"{origin}: {key} = {shown[:60]}: {message}.")
    return UsageError(f"{origin}: {message}.")


def build_config(values: Mapping[str, Any], origin: str = "the options") -> RunConfig:
    """A checked RunConfig from nested values.

    Raises:
        UsageError: in one line, naming the key, the value and what it should be.
    """
    try:
        return RunConfig.model_validate(dict(values))
    except ValidationError as error:
        raise _explain(error, origin) from None


def read_toml(path: Path) -> dict[str, Any]:
    """The values of a TOML config file (hostile until checked: size, syntax).

    Raises:
        UsageError: no such file, too large, or no TOML; names the line.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_CONFIG_BYTES + 1)
    except OSError as error:
        raise UsageError(f"config file {path}: {error.strerror or error}.", "Give the path of a TOML file.") from None
    if len(raw) > MAX_CONFIG_BYTES:
        raise UsageError(f"config file {path}: larger than 1 MiB.", "Is it the right file?")
    try:
        return tomllib.loads(raw.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"config file {path}: {error}.", "It has to be TOML; see the README for an example.") from None


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid on `base`, tables merged key by key; what the command line says wins over the file."""
    out = dict(base)
    for key, value in over.items():
        old = out.get(key)
        out[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return out
