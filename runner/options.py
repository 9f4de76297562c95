"""From what the user gave (config file, options) and the experiment's defaults to a RunConfig."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backends.engines import DEFAULT_SHOTS
from backends.runtime.types import Tell, silent
from circuits.errors import QrunError, UsageError
from experiments.base import find, preset_of
from runner import choice
from runner.config import TABLES, RunConfig, build_config, merge, read_toml
from runner.seeds import derive

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


def config_from(
    experiment: str, options: Mapping[str, Any], file: Path | None = None, *, tell: Tell = silent
) -> RunConfig:
    """The run's config: defaults of the experiment, then values of preset, file and options, each over the former.

    A preset is named by the option or by the file's key `preset`. The config has its values, not its name.

    A hardware device is asked for its calibration here (unless the config names one that is kept), for that is part of
    what defines the run; `least-busy` and `best` become the name of one. So does mitigation "auto" become a stack, by
    calibration circuits (runner/choice.py).

    Args:
        experiment: Its name.
        options: As the command line and Python users give them.
        file: TOML file of values.
        tell: Told which device was chosen, and why.

    Raises:
        UsageError: unknown experiment, key or value, in one line.
        ServiceError: a hardware device is named, and the service cannot be asked.
    """
    found = find(experiment)
    values = merge({"experiment": experiment}, found.defaults())
    options = dict(options)
    from_file = {} if file is None else read_toml(file)
    preset = options.pop("preset", None), from_file.pop("preset", None)
    named = next((name for name in preset if name is not None), None)
    if named is not None:
        values = merge(values, preset_of(found, str(named)))
    said = nest(given(choice.spelled(options)))
    of_file = None
    if file is not None:
        from_file = choice.spelled(from_file)
        if from_file.get("experiment", experiment) != experiment:
            raise UsageError(f"{file}: experiment = {from_file['experiment']!r}, but the command names {experiment!r}.")
        of_file = from_file.pop("mitigation", None)
        _check_file(merge(values, from_file), said, str(file), of_file)
        values = merge(values, from_file)
    table = choice.joined(of_file, said.pop("mitigation", None))
    values = merge(values, said)
    auto = choice.is_auto(table)
    if table is not None and not auto:
        values["mitigation"] = table
    runtime = values.get("runtime")
    if isinstance(runtime, Mapping) and runtime.get("run_on") is not None:
        # A twin of the device that its models go to, unless another is named.
        values = {"backend": runtime["run_on"], **values}
    config = build_config(_complete(values))
    if auto:
        choice.check_auto(table, config)
    config = _with_backends(config, tell)
    return choice.resolve(config, table, tell) if auto else config


def _check_file(values: Mapping[str, Any], said: Mapping[str, Any], origin: str, mitigation: Any) -> None:
    """Check what a file says under its own name. It may leave to the command line where things run; and an option may
    turn off what would not fit there.

    Args:
        values: Of the file, over the defaults; without its mitigation.
        said: Of the options.
        origin: The file's name.
        mitigation: What the file says of it; its stack may be the command line's.

    Raises:
        UsageError: It is wrong, with and without what the options say of engine and device.
    """
    try:
        build_config(_complete(dict(values)), origin=origin)
    except UsageError:
        build_config(_complete(merge(_where(said), values)), origin=origin)
    if isinstance(mitigation, Mapping) and mitigation.get("stack") is not None:
        table = choice.joined(mitigation, None)
        if choice.is_auto(table):
            choice.check_auto(table, build_config({"experiment": values["experiment"]}), origin)
        elif table is not None:
            build_config({"experiment": values["experiment"], "mitigation": table}, origin=origin)
    elif mitigation is not None and not isinstance(mitigation, Mapping):
        build_config({"experiment": values["experiment"], "mitigation": mitigation}, origin=origin)


def _where(said: Mapping[str, Any]) -> dict[str, Any]:
    """Of what the options say: engine, and device that models are run on."""
    runtime = said.get("runtime")
    run_on = runtime.get("run_on") if isinstance(runtime, Mapping) else None
    return given({"engine": said.get("engine"), "runtime": {"run_on": run_on}})


def _with_backends(config: RunConfig, tell: Tell) -> RunConfig:
    """The config with its devices' names spelled out, and the hashes of the files or calibrations that they stand for.

    Raises:
        UsageError: No such backend or file; or the config asks for a file of another content.
    """
    name, sha256 = _spelled(
        config.backend, config.snapshot_sha256, config, tell, key="snapshot_sha256", option="--backend"
    )
    update: dict[str, Any] = {"backend": name, "snapshot_sha256": sha256}
    runtime = config.runtime
    if runtime is not None and runtime.run_on is not None:
        if runtime.run_on == config.backend and runtime.run_on_sha256 in (None, sha256):
            there = name, sha256  # asked once: a calibration may change between two looks
        else:
            wanted = runtime.run_on_sha256
            there = _spelled(runtime.run_on, wanted, config, tell, key="runtime.run_on_sha256", option="--run-on")
        update["runtime"] = runtime.model_copy(update={"run_on": there[0], "run_on_sha256": there[1]})
    return config.model_copy(update=update)


def _spelled(
    name: str, wanted: str | None, config: RunConfig, tell: Tell, *, key: str, option: str
) -> tuple[str, str | None]:
    """A device's own name, and the SHA-256 of its file or calibration, hex; None where the name says it all."""
    from backends.live import is_hardware_name

    if is_hardware_name(name):
        return _hardware(name, wanted, config, tell, key)
    from backends.catalog import canonical_name, snapshot_of

    snapshot = snapshot_of(name)
    found = None if snapshot is None else snapshot.sha256
    if wanted not in (None, found):
        raise UsageError(
            f"{key} = {wanted[:12]}..., but {name} "
            + ("is no snapshot file." if found is None else f"has {found[:12]}...."),
            f"Give the file that is meant with {option}, or leave {key} out.",
        )
    return canonical_name(name), found


def _hardware(name: str, wanted: str | None, config: RunConfig, tell: Tell, key: str) -> tuple[str, str]:
    """A hardware device's name and the SHA-256 of its calibration, which is kept."""
    from backends import live
    from runner import calibration

    if wanted is not None:
        try:
            snapshot = calibration.find(name, wanted)
        except QrunError:
            raise UsageError(
                f"{key} = {wanted[:12]}..., and no such calibration of {name} is kept here.",
                f"Leave {key} out to take the device's present one.",
            ) from None
        return snapshot.name, wanted
    if not live.is_concrete(name):
        seed = derive(config.seed, "layout") % 2**31
        ansatz = find(config.experiment).ansatz(config.model)
        name, why = live.pick(name, ansatz, seed=seed, max_depth=config.model.max_depth)
        tell("Device", why)
    fetched = live.fetch(name)
    calibration.keep(fetched.content)
    return fetched.name, fetched.sha256


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
