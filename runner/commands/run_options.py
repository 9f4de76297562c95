"""The options that define a run, declared once for all commands that make a config of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from runner.commands.base import complete_backend
from runner.commands.played import MitigationAtOption, MitigationBudgetOption, MitigationOption

R = TypeVar("R")

DpOption = Annotated[
    float | None,
    typer.Option(
        "--dp",
        metavar="EPSILON",
        help="Differentially private training: what the models of the whole run may tell of a record, 0.05 to 1000.",
    ),
]


@dataclass(frozen=True)
class Asked:
    """What the command line says of a run.

    Attributes:
        values: As `config_from` takes them; None for what was not given.
        file: TOML file of values, under them.
    """

    values: dict[str, Any]
    file: Path | None


def _options(
    *,
    preset: Annotated[
        str | None,
        typer.Option(help="Named settings: fast (seconds), default, better, best (minutes); options given here win."),
    ] = None,
    backend: Annotated[
        str | None,
        typer.Option(
            help="ideal, a device (see `qrun backends list`), or a snapshot FILE.json. \\[default: fake_kyiv]",
            autocompletion=complete_backend,
        ),
    ] = None,
    nodes: Annotated[int | None, typer.Option(help="Federated nodes. \\[default: 3]")] = None,
    rounds: Annotated[int | None, typer.Option(help="Rounds. \\[default: 5]")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs a round (of 60 steps each). \\[default: 1]")] = None,
    qubits: Annotated[int | None, typer.Option(help="Qubits of the generator. \\[default: 6]")] = None,
    reps: Annotated[int | None, typer.Option(help="Repetitions of EfficientSU2. \\[default: 4]")] = None,
    entanglement: Annotated[
        str | None,
        typer.Option(help="full, linear, reverse_linear, pairwise, circular or sca. \\[default: reverse_linear]"),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            help="twin (exact, noisy), aer (shots), runtime (IBM's Runtime: devices, or its local mode), or qml "
            "(EstimatorQNN on Aer, slow: a reference). \\[default: twin]"
        ),
    ] = None,
    shots: Annotated[
        int | None,
        typer.Option(
            help="Shots a circuit: the twin samples instead of being exact; aer, qml, runtime take 1024 if not told. "
            "With --run-on: of the device."
        ),
    ] = None,
    idle_noise: Annotated[
        bool | None,
        typer.Option("--idle-noise/--no-idle-noise", help="Qubits also relax while they wait, with --engine twin."),
    ] = None,
    noise_scale: Annotated[
        float | None, typer.Option(help="The device's noise so many times as large, 0 to 10; the layout stays.")
    ] = None,
    layout: Annotated[
        int | None, typer.Option(help="0: the device's best qubits; 1: the best of those that are left ...")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu or cuda: where the twin computes. \\[default: auto]")
    ] = None,
    partition: Annotated[
        str | None,
        typer.Option(
            help="How benign records are dealt: iid, or dirichlet:ALPHA over protocol and service. \\[default: iid]"
        ),
    ] = None,
    aggregation: Annotated[
        str | None,
        typer.Option(
            help="How models are joined: reputation, mean, median, trimmed-mean or krum. \\[default: reputation]"
        ),
    ] = None,
    signatures: Annotated[
        str | None,
        typer.Option(help="How models are signed: secp256k1, or ml-dsa-65 (post-quantum). \\[default: secp256k1]"),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of all the experiment's randomness. \\[default: 0]")] = None,
    full: Annotated[bool | None, typer.Option("--full", help="Train on KDDTrain+, all 125,973 records.")] = None,
    no_test: Annotated[bool | None, typer.Option("--no-test", help="Leave the test file alone.")] = None,
    mitigation: MitigationOption = None,
    mitigation_at: MitigationAtOption = None,
    mitigation_budget: MitigationBudgetOption = None,
    max_depth: Annotated[
        int | None, typer.Option(help="Depth that the compiled generator may have, else it is laid out anew.")
    ] = None,
    infidelity_weight: Annotated[
        float | None,
        typer.Option(help="Weight of the compiled circuit's expected infidelity in the generator's loss."),
    ] = None,
    dp: DpOption = None,
    config: Annotated[Path | None, typer.Option(help="TOML file of values; options given here win.")] = None,
) -> Asked:
    values: dict[str, Any] = {
        "preset": preset,
        "backend": backend,
        "nodes": nodes,
        "rounds": rounds,
        "engine": engine,
        "shots": shots,
        "idle_noise": idle_noise,
        "noise_scale": noise_scale,
        "layout": layout,
        "device": device,
        "seed": seed,
        "partition": partition,
        "full": full,
        "test": None if no_test is None else not no_test,
        "epochs": epochs,
        "qubits": qubits,
        "reps": reps,
        "entanglement": entanglement,
        "aggregation": aggregation,
        "signatures": signatures,
        "model": {"max_depth": max_depth, "infidelity_weight": infidelity_weight, "dp": dp},
        "mitigation": {"stack": mitigation, "apply": mitigation_at, "budget": mitigation_budget},
    }
    return Asked(values, config)


def defines_a_run(command: Callable[..., R]) -> Callable[..., R]:
    """Give a command the options that define a run, before its own; what they say comes as its argument `asked`."""
    own = inspect.signature(command, eval_str=True)
    shared = inspect.signature(_options, eval_str=True).parameters

    @wraps(command)
    def inner(*args: Any, **kwargs: Any) -> R:
        said = {name: kwargs.pop(name) for name in shared if name in kwargs}
        return command(*args, asked=_options(**said), **kwargs)

    mine = [parameter for name, parameter in own.parameters.items() if name != "asked"]
    first = [parameter for parameter in mine if parameter.kind is not inspect.Parameter.KEYWORD_ONLY]
    parameters = [*first, *shared.values(), *mine[len(first) :]]
    # Typer reads both.
    inner.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    inner.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return inner
