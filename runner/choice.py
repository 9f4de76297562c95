"""What is said of mitigation (file, options) as one table, and `--mitigation auto` as a stack."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from backends.mitigation.stack import parse
from backends.runtime.types import Tell
from circuits.errors import QrunWarning, UsageError
from runner.config import RunConfig, build_config, check_runtime, merge
from runner.seeds import derive
from runner.settings import TECHNIQUE_OPTIONS

if TYPE_CHECKING:
    from backends.protocol import Executor
    from backends.target import Target
    from circuits.types import CompiledCircuit

Table = dict[str, Any]
OPTIONS = {"apply": "--mitigation-at", "budget": "--mitigation-budget"}
"""Values that are also options of the command line."""


def spelled(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values with the table that a stack's name alone stands for: mitigation = "readout+zne".

    Raises:
        UsageError: It is a list.
    """
    said = values.get("mitigation")
    if isinstance(said, list | tuple):
        raise UsageError(f"mitigation = {said!r} is a list.", 'Write the stack as text, for example "readout+zne".')
    if isinstance(said, str):
        return {**values, "mitigation": {"stack": said}}
    return dict(values)


def joined(of_file: Any, said: Any) -> Any:
    """What holds: what the options say over what the file says; None for no mitigation.

    Where the options name another stack, the file's options of techniques that it does not have are turned off with
    them.

    Args:
        of_file: The file's table; None for none.
        said: That of the options.

    Returns:
        A table with a stack, which may still be "auto"; or what is no table, for the config's own check to refuse.

    Raises:
        UsageError: A technique that is not known, or an option that does nothing.
    """
    for table in (of_file, said):
        if table is not None and not isinstance(table, Mapping):
            return table
    if of_file is None and said is None:
        return None
    kept, told = dict(of_file or {}), dict(said or {})
    if told.get("stack") is not None:
        names = _names(told["stack"])
        if not names and _nothing_else(told):
            return None  # an option turns off what the file turns on
        if names not in (("auto",), ()):
            kept = {k: v for k, v in kept.items() if k not in TECHNIQUE_OPTIONS or _has(names, k)}
    table = merge(kept, told)
    if table.get("stack") is None:
        if not any(value is not None for value in table.values()):
            raise UsageError(
                "the table [mitigation] is empty.", 'Write stack = "readout+zne" into it, or leave it out.'
            )
        first = next(str(name) for name in table if table[name] is not None)
        raise UsageError(
            f"{OPTIONS.get(first, f'mitigation.{first}')}: there is no mitigation that it would be of.",
            "Name the techniques with --mitigation, for example --mitigation readout+zne.",
        )
    if not _names(table["stack"]):
        idle = next((str(name) for name in table if name != "stack" and table[name] is not None), None)
        if idle is not None:
            raise UsageError(
                f"{OPTIONS.get(idle, f'mitigation.{idle}')}: mitigation is none, and it would do nothing.",
                "Leave it out, or name techniques with --mitigation.",
            )
        return None
    return table


def _nothing_else(told: Mapping[str, Any]) -> bool:
    return all(value is None for name, value in told.items() if name != "stack")


def _has(names: tuple[str, ...], option: str) -> bool:
    return any(name in names for name in TECHNIQUE_OPTIONS[option][0])


def _names(stack: Any) -> tuple[str, ...]:
    """Techniques; ("auto",) for auto, none for none."""
    if str(stack).strip().lower() == "auto":
        return ("auto",)
    return parse(stack)


def is_auto(table: Any) -> bool:
    """Whether the stack is yet to be chosen."""
    return isinstance(table, Mapping) and str(table.get("stack")).strip().lower() == "auto"


def check_auto(table: Mapping[str, Any], config: RunConfig, origin: str = "the options") -> None:
    """Check what stands beside `auto`, before anything is run for the choice.

    Raises:
        UsageError: A value that cannot be, or the Runtime mitigates by itself.
    """
    rest = {k: v for k, v in table.items() if k != "stack"}
    common = {k: v for k, v in rest.items() if k not in TECHNIQUE_OPTIONS}
    tried: list[Table] = [{"stack": "readout", **common}]
    tried += [{"stack": TECHNIQUE_OPTIONS[k][0][0], k: v} for k, v in rest.items() if k in TECHNIQUE_OPTIONS]
    for one in tried:
        build_config({"experiment": config.experiment, "mitigation": one}, origin)
    if config.runtime is not None:
        try:
            check_runtime((), None, config.runtime)
        except ValueError as error:
            raise UsageError(f"{origin}: {error}.") from None


def resolve(config: RunConfig, table: Mapping[str, Any], tell: Tell) -> RunConfig:
    """The config with the stack that calibration circuits find best; without mitigation where none is.

    They are run on the run's own engine. Where that is hardware, or the models go to a device, the twin of the device
    stands in, with the run's shots: nothing is paid before the run.

    Args:
        config: Of the run, without mitigation.
        table: With "auto" as the stack.
        tell: Told that a choice begins, which takes seconds; then what was chosen, and why.

    Raises:
        UsageError: As the techniques.
        QrunError: The circuit cannot be compiled or run here.
    """
    check_auto(table, config)
    if config.backend == "ideal":
        why = "auto: ideal has no errors to mitigate; none is taken."
        tell("Mitigation", why)
        return config.with_choice(why)
    from backends.mitigation.calibrate import choose
    from backends.mitigation.types import MitigationOptions

    tell("Mitigation", "auto: choosing a stack by calibration circuits.")
    said = {k: v for k, v in table.items() if v is not None}
    own: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in said.items() if k in TECHNIQUE_OPTIONS}
    budget: dict[str, float] = {} if "budget" not in said else {"budget": float(said["budget"])}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", QrunWarning)  # `prepare` tells them
        bench = _bench(config)
        choice = choose(
            bench.make,
            bench.target,
            bench.circuit,
            shots=bench.shots,
            seed=derive(config.seed, "mitigation auto"),
            options=MitigationOptions(seed=derive(config.seed, "mitigation"), **own),
            batch=bench.batch,
            **budget,
        )
    why = f"auto, by calibration circuits on {bench.words}: {choice.why}"
    tell("Mitigation", why)
    names = parse(choice.stack)
    if not names:
        return config.with_choice(why)
    of_stack = {k: v for k, v in said.items() if k not in TECHNIQUE_OPTIONS or _has(names, k)}
    made = {**config.model_dump(mode="json"), "mitigation": {**of_stack, "stack": choice.stack}}
    return build_config(made).with_choice(why)


@dataclass(frozen=True)
class _Bench:
    """Where calibration circuits are run: the engine that `make` makes, on a target, with a circuit compiled for it."""

    make: Callable[[], Executor]
    target: Target
    circuit: CompiledCircuit
    shots: int | None
    batch: int
    words: str


def _bench(config: RunConfig) -> _Bench:
    from backends.devices import resolve_device
    from backends.engines import make_executor
    from runner.access import on_hardware
    from runner.calibration import target_for, target_of
    from runner.compiled import generator_for
    from runner.mitigated import is_exact, rows_of
    from runner.models import model_for

    run_on = None if config.runtime is None else config.runtime.run_on
    if config.runtime is not None and run_on is not None:
        target, shots = target_of(run_on, config.runtime.run_on_sha256), config.runtime.shots
    else:
        target, shots = target_for(config), config.shots or 0
    circuit = generator_for(config, target)
    batch = rows_of(config, circuit)["training"]
    if run_on is not None or on_hardware(config):
        words = f"the twin of {target.name}, with {shots:,} shots: nothing is sent before the run"
        return _Bench(lambda: make_executor("twin", target, shots=shots), target, circuit, shots, batch, words)
    device = resolve_device(config.device, len(circuit.physical_qubits)) if config.engine == "twin" else "cpu"
    words = f"the engine {config.engine} on {target.name}"
    given = None if is_exact(config) else shots
    return _Bench(lambda: model_for(config, target, circuit, device).executor, target, circuit, given, batch, words)
