"""A run's mitigation before it begins: what it takes, what is forecast of it, and what must not be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.layer import ExpectationLayer
from backends.mitigation.executor import MitigatedExecutor
from backends.mitigation.make import Mitigation, Purpose
from backends.protocol import Request
from backends.target import Target
from circuits.errors import QrunError, UsageError
from circuits.types import CompiledCircuit
from runner.config import RunConfig
from runner.progress import Reporter
from runner.seeds import derive, generator

if TYPE_CHECKING:
    from backends.mitigation.forecast import Forecast
    from experiments.models.qgan import QGAN

SPSA = 3
"""Weight vectors of a step: where it stands, and the two of the difference."""
PURPOSES: tuple[Purpose, ...] = ("training", "evaluation")


@dataclass(frozen=True)
class Outlook:
    """What is known of a run's mitigation before it begins.

    Attributes:
        target: Where circuits run.
        circuits: By purpose, how many circuits are run for each unmitigated one; what is not mitigated is not in it.
        forecast: Of the run's engine on its target; None where there is none, and `reason` says why.
        reason: The same in words.
        device: The same of the device that trained models go to; None without one.
    """

    target: str
    circuits: dict[Purpose, float]
    forecast: Forecast | None
    reason: str = ""
    device: Outlook | None = None


def mitigation_of(config: RunConfig, target: Target, *, exact: bool) -> Mitigation | None:
    """What the run's model mitigates on a target; None for nothing.

    Args:
        config: The run's.
        target: Where circuits run.
        exact: Whether the engine gives exact values.
    """
    said = config.mitigation
    if said is None:
        return None
    return Mitigation(
        target,
        said.options(derive(config.seed, "mitigation")),
        exact,
        training=said.apply in ("both", "training"),
        evaluation=said.apply in ("both", "evaluation"),
    )


def is_exact(config: RunConfig) -> bool:
    """Whether the run's engine gives exact values."""
    return config.engine == "twin" and config.shots is None


def vectors(config: RunConfig, circuit: CompiledCircuit) -> int:
    """Weight vectors that a step of the run's training asks for."""
    gradient = config.model.gradient
    if gradient == "parameter-shift":
        return 1 + 2 * len(circuit.weights)
    exact = gradient == "exact" or (gradient == "auto" and (is_exact(config) or config.engine == "qml"))
    return 1 if exact else SPSA


def rows_of(config: RunConfig, circuit: CompiledCircuit) -> dict[Purpose, int]:
    """Bound circuits of a call without mitigation, by purpose."""
    return {"training": vectors(config, circuit) * config.model.batch, "evaluation": config.model.samples}


def device_rows(config: RunConfig) -> dict[Purpose, int]:
    """The same on the device that trained models go to, where it makes a node's share of the samples."""
    assert config.runtime is not None
    tuned = SPSA * config.model.batch if config.runtime.fine_tune else 0
    return {"training": tuned, "evaluation": -(-config.runtime.samples // config.nodes)}


def requests_of(config: RunConfig, model: QGAN, purpose: Purpose, rows: int) -> list[Request]:
    """What a call of the run asks for, with the angles that training begins with.

    Args:
        config: The run's.
        model: On the engine that is asked.
        purpose: Training asks for the echo too, where the loss has the infidelity in it (circuits/echo.py).
        rows: Samples of the generator's own circuit.
    """
    start, seed = model.initial(generator(config.seed, "initial")), derive(config.seed, "rehearsal")
    request = model.request(start, rows, seed)
    if purpose != "training" or model.settings.infidelity_weight is None:
        return [request]
    echo = model.echo
    latents = np.resize(request.inputs, (echo_rows(model, rows), request.inputs.shape[1]))
    return [request, Request(echo.circuit, echo.observables, latents, request.weights, raw=echo.raw)]


def echo_rows(model: QGAN, rows: int) -> int:
    """Samples of the echo in a step that takes so many of the generator's circuit; 0 where there is no echo."""
    if model.settings.infidelity_weight is None:
        return 0
    if model.gradient != "parameter-shift":
        return rows
    shifts = 2 * len(model.circuit.weights)
    times = rehearsed_layer(model).occurrences[1]
    return rows * (1 + shifts * times) // (1 + shifts)


def rehearsed_layer(model: QGAN) -> ExpectationLayer:
    """The layer that the model is trained through."""
    further = () if model.settings.infidelity_weight is None else (model.echo,)
    engine = model.engine("training")
    return ExpectationLayer(engine, model.circuit, model.observables, gradient=model.gradient, further=further)


def planned(model: QGAN, purpose: Purpose, requests: Sequence[Request]) -> list[Request]:
    """What is run in place of requests, in one call."""
    engine = model.engine(purpose)
    return engine.plan(requests) if isinstance(engine, MitigatedExecutor) else list(requests)


def overhead(model: QGAN, rows: Mapping[Purpose, int]) -> dict[Purpose, float]:
    """Circuits for each unmitigated one, by purpose; what is not mitigated is left out.

    Raises:
        UsageError: A technique cannot be had on the model's target, or with these options.
    """
    found: dict[Purpose, float] = {}
    for purpose in PURPOSES:
        engine = model.engine(purpose)
        if isinstance(engine, MitigatedExecutor) and rows.get(purpose):
            found[purpose] = engine.circuits(model.circuit, rows[purpose]) / rows[purpose]
    return found


def check_budget(config: RunConfig, circuits: Sequence[Mapping[Purpose, float]], takes: Callable[[], str]) -> None:
    """Refuse an overhead past `mitigation.budget`.

    Args:
        config: The run's.
        circuits: As `overhead` gives them.
        takes: What the run would take, in words: said first.

    Raises:
        UsageError: It is past the budget.
    """
    said = config.mitigation
    most = max((number for one in circuits for number in one.values()), default=0.0)
    if said is not None and most > said.budget:
        raise UsageError(
            f"{takes()}; mitigation {said.stack} takes {_plain(most)} circuits for each unmitigated one, and "
            f"the budget is {said.budget:g}.",
            "Take fewer circuits (options in [mitigation]), another stack, or raise --mitigation-budget.",
        )


def _plain(number: float) -> str:
    """Four digits of a small number, all of a large one before the point."""
    return f"{number:,.0f}" if number >= 1000 else f"{number:.4g}"


def run_takes(config: RunConfig, model: QGAN, there: QGAN | None) -> str:
    """What the whole run would take, in words: circuits as they are counted, at the length of the plain ones."""
    from runner.estimate import ON_DEVICE, calls_of, estimate_counted

    plain, circuits = 0, 0.0
    for name, purpose, calls in calls_of(config, model.circuit):
        for rows, times in calls.items() if name not in ON_DEVICE else ():
            plain += rows * times
            circuits += rows * times * overhead(model, {purpose: rows}).get(purpose, 1.0)
            echo = echo_rows(model, rows) * times if purpose == "training" else 0
            plain, circuits = plain + echo, circuits + echo
    said = f"with mitigation the run takes {circuits:,.0f} circuits in place of {plain:,}"
    device = model if config.engine == "runtime" else there
    if device is None:
        return said
    found = estimate_counted(config, device)
    jobs = f"{found.total.jobs:,} jobs and at least {found.total.qpu_seconds:,.0f} QPU seconds on {found.backend}"
    return f"{said}, {jobs}" if config.engine == "runtime" else f"{said}; {jobs}"


def check_shift(config: RunConfig, model: QGAN, rehearsed: list[Request]) -> None:
    """Refuse the two-point rule where mitigation puts a weight into several rotations of a circuit.

    Raises:
        UsageError: It does.
    """
    if model.gradient != "parameter-shift" or config.mitigation is None:
        return
    most = _uses(model.circuit)
    for request in rehearsed:
        uses = _uses(request.circuit)
        for weight in model.circuit.weights:
            if uses.get(weight, 0) > most.get(weight, 0):
                local = " or mitigation.folding = 'local'," if config.mitigation.folding not in (None, "local") else ""
                raise UsageError(
                    f"parameter-shift needs each weight in one rotation, and mitigation {config.mitigation.stack} puts "
                    f"{weight.name} into {uses[weight]}.",
                    f"Take --mitigation-at evaluation,{local} or model.gradient = 'spsa'.",
                )


def _uses(circuit: CompiledCircuit) -> dict[Any, int]:
    """Parameter -> instructions that depend on it."""
    found: dict[Any, int] = {}
    for instruction in circuit.circuit.data:
        for value in instruction.operation.params:
            for parameter in getattr(value, "parameters", ()):
                found[parameter] = found.get(parameter, 0) + 1
    return found


def look_ahead(config: RunConfig, model: QGAN, shots: int | None, circuits: dict[Purpose, float]) -> Outlook:
    """What mitigation will do to a model's circuit, from the exact twin of its target."""
    from backends.mitigation.forecast import forecast

    assert model.mitigation is not None
    target, circuit = model.mitigation.target, model.circuit
    try:
        found = forecast(
            target,
            circuit,
            model.mitigation.options,
            shots=shots,
            seed=derive(config.seed, "forecast"),
            idle_noise=config.idle_noise and model.executor.name == "twin",
            batch=rows_of(config, circuit)["training"],
        )
    except UsageError:
        raise
    except QrunError as error:
        return Outlook(target.name, circuits, None, error.message)
    return Outlook(target.name, circuits, found)


def tell_outlook(outlook: Outlook, reporter: Reporter) -> None:
    """Tell it before the run; that a stack makes things worse in plain words."""
    if outlook.forecast is None:
        reporter.notice("Mitigation", outlook.reason)
        return
    worse = "Mitigation makes things worse here. " if outlook.forecast.worse else ""
    reporter.notice("Mitigation", f"{worse}On {outlook.target}: {outlook.forecast.sentence}")


def describe_mitigation(config: RunConfig, outlook: Outlook | None, chosen: str | None) -> dict[str, Any] | None:
    """As the result has it; None without mitigation.

    Args:
        config: The run's.
        outlook: What was known before it began.
        chosen: Why `auto` came to the stack; None where it was named.
    """
    if config.mitigation is None or outlook is None:
        return None
    return {
        "stack": config.mitigation.stack,
        "apply": config.mitigation.apply,
        "chosen": chosen,
        **_described(outlook),
        "device": None if outlook.device is None else _described(outlook.device),
    }


def _described(outlook: Outlook) -> dict[str, Any]:
    circuits = {purpose: round(outlook.circuits[purpose], 6) for purpose in PURPOSES if purpose in outlook.circuits}
    return {"circuits": circuits, "forecast": None if outlook.forecast is None else _figures(outlook.forecast)}


def _figures(forecast: Forecast) -> dict[str, Any]:
    """Figures to six digits: another machine rounds otherwise."""
    told = {k: v for k, v in asdict(forecast).items() if k not in ("stack", "overhead")}
    figures = {k: round(v, 6) if isinstance(v, float) else v for k, v in told.items()}
    return {**figures, "worse": bool(forecast.worse), "sentence": forecast.sentence}
