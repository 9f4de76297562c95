"""What a run sends to a device, before anything is sent: jobs, circuits, shots, QPU seconds, and the plan's share.

It counts what the run does (runner/contribution.py, federation.py, device_stage.py) where every node takes part in
every round and nothing has to be sent twice:

    on the device throughout (engine runtime), per round:
        training         a job a generator step and node, with 3 x batch circuits by SPSA, 1 + 2 x weights times the
                         batch by parameter shift
        validation       a job a node, with model.samples circuits: its own model, scored
        aggregates       a job, with as many: the common model, scored. None where it is a node's own model (a single
                         node, or krum): a request that was answered once is not sent again
        final            none, for the same reason: the models of the last round are scored already
    trained on the twin (--run-on):
        fine-tuning      a job a step and node, 3 x batch circuits, in the last round alone
        device run       a job a node, with its part of the samples

Where a call is mitigated, its circuits are those that the techniques make of it, all in the same job; with an
infidelity weight every step has its echo's circuits besides (circuits/echo.py).

QPU seconds are those of `backends.runtime.cost`, job by job, split as the service's limits ask. A session is charged
from its first job to its end, so that waiting between its jobs comes on top; no figure of a device tells how long.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from backends.mitigation.make import Purpose
from backends.runtime.budget import estimated
from backends.runtime.cost import executions, job_seconds
from backends.runtime.pubs import parts
from backends.runtime.types import JobLimits, RuntimeOptions
from backends.target import Target
from circuits.errors import UsageError
from circuits.types import CompiledCircuit
from runner.config import RunConfig
from runner.mitigated import SPSA, echo_rows, mitigation_of, overhead, planned, requests_of, vectors

if TYPE_CHECKING:
    from experiments.models.qgan import QGAN

OPEN_PLAN_SECONDS = 600.0
"""QPU time of IBM's Open plan in 28 days."""


@dataclass(frozen=True)
class Stage:
    """A part of the run's work.

    Attributes:
        name: "training", "validation", "aggregates", "final", "fine-tuning", "device run", or "total".
        jobs: Sent to the device.
        circuits: Parameter sets in all of them.
        shots: Of all circuits together.
        qpu_seconds: Of all jobs together.
    """

    name: str
    jobs: int
    circuits: int
    shots: int
    qpu_seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Plain types, ready for JSON."""
        return {**asdict(self), "qpu_seconds": round(self.qpu_seconds, 3)}


@dataclass(frozen=True)
class Share:
    """What a run takes of a plan's allowance.

    Attributes:
        share: 1.0 is all of it; None where nothing is left.
        seconds: The allowance.
        of: Whose: what the service says is left, or the Open plan's, where the service was not asked.
    """

    share: float | None
    seconds: float
    of: str

    def to_dict(self) -> dict[str, Any]:
        """Plain types, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Estimate:
    """What a run sends to a device.

    Attributes:
        backend: The device.
        way: "on the device", or "trained on the twin".
        shots: A circuit.
        stages: In the order of the run.
        total: Their sum.
        mitigation: The stack; None for none.
        overhead: By purpose, circuits for each unmitigated one.
    """

    backend: str
    way: str
    shots: int
    stages: tuple[Stage, ...]
    total: Stage
    mitigation: str | None = None
    overhead: Mapping[Purpose, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain types, ready for JSON."""
        stages = [stage.to_dict() for stage in self.stages]
        mitigated: dict[str, Any] = {}
        if self.mitigation is not None:
            mitigated = {"mitigation": self.mitigation, "overhead": dict(self.overhead)}
        return {
            "backend": self.backend,
            "way": self.way,
            "shots_per_circuit": self.shots,
            "stages": stages,
            "total": self.total.to_dict(),
            **mitigated,
        }


def estimate(
    config: RunConfig, circuit: CompiledCircuit, target: Target, *, limits: JobLimits | None = None
) -> Estimate:
    """What a run sends to its device.

    Args:
        config: With the engine runtime, or with `runtime.run_on`.
        circuit: The generator compiled for the device that jobs go to.
        target: That device.
        limits: What a job may hold.

    Raises:
        UsageError: The run sends nothing to a device.
        QrunError: The ideal target, or a circuit that was compiled for another device.
    """
    return _estimate(config, _model(config, circuit, target), limits, exactly=True)


def estimate_counted(config: RunConfig, model: QGAN) -> Estimate:
    """The same for a run whose circuits would be too many to be made: they are counted, at the plain one's length.

    Args:
        config: As for `estimate`.
        model: The run's on the device.
    """
    return _estimate(config, model, None, exactly=False)


def _model(config: RunConfig, circuit: CompiledCircuit, target: Target) -> QGAN:
    """The run's model on a device, as far as it is asked what it would run."""
    from backends.runtime.replay import ReplayExecutor
    from experiments.models.qgan import QGAN

    if config.runtime is None:
        raise UsageError(f"a run with the engine {config.engine} sends no jobs.", "Take --engine runtime, or --run-on.")
    executor = ReplayExecutor(target, RuntimeOptions(), lambda _: None)  # which never sends anything
    elsewhere = {"gradient": "spsa"} if config.runtime.run_on is not None else {}
    settings = config.model.model_copy(update=elsewhere)
    return QGAN(settings, executor, circuit, mitigation_of(config, target, exact=False))


def _estimate(config: RunConfig, model: QGAN, limits: JobLimits | None, *, exactly: bool) -> Estimate:
    runtime, circuit, target = config.runtime, model.circuit, _target_of(model)
    assert runtime is not None
    direct = config.engine == "runtime"
    shots = (config.shots or 0) if direct else runtime.shots
    options = runtime.options(shots)
    bounds = JobLimits() if limits is None else limits

    def jobs_of(purpose: Purpose, asked: int) -> list[tuple[int, float]]:
        """Circuits and QPU seconds of each job of a call."""
        factor = overhead(model, {purpose: asked}).get(purpose) if asked else None
        echo = echo_rows(model, asked) if purpose == "training" else 0
        if (factor is None and not echo) or not exactly:
            rows = split(round(asked * (factor or 1.0)) + echo, options, bounds)
            return [(count, job_seconds(circuit, target, options, count)) for count in rows]
        requests = planned(model, purpose, requests_of(config, model, purpose, asked))
        local = target.kind != "hardware"
        return [
            (part.rows, estimated(part, target))
            for part in parts(requests, target, options, 0, local=local, limits=bounds)
        ]

    def stage(name: str, purpose: Purpose, calls: Mapping[int, int]) -> Stage:
        """`calls`: circuits of a call of the engine, before mitigation -> how many such calls."""
        jobs = circuits = 0
        seconds = 0.0
        for asked, times in calls.items():
            for rows, each in jobs_of(purpose, asked) if times else ():
                jobs += times
                circuits += times * rows
                seconds += times * each
        return Stage(name, jobs, circuits, circuits * shots, seconds)

    calls = calls_of(config, circuit)
    stages = tuple(stage(*call) for call in calls if direct or call[0] in ON_DEVICE)
    total = Stage(
        "total",
        sum(s.jobs for s in stages),
        sum(s.circuits for s in stages),
        sum(s.shots for s in stages),
        sum(s.qpu_seconds for s in stages),
    )
    most: dict[Purpose, int] = {}
    for name, purpose, asked in calls:
        if direct or name in ON_DEVICE:
            most[purpose] = max([most.get(purpose, 0), *(rows for rows, times in asked.items() if times)])
    stack = None if config.mitigation is None else config.mitigation.stack
    way = "on the device" if direct else "trained on the twin"
    return Estimate(target.name, way, shots, stages, total, stack, overhead(model, most))


def _target_of(model: QGAN) -> Target:
    executor: Any = model.executor
    target: Target = executor.target
    return target


def split(circuits: int, options: RuntimeOptions, limits: JobLimits) -> Iterator[int]:
    """Circuits of each job that a call becomes: halved until the limits take it, as `backends.runtime.pubs` does."""
    if circuits == 0:
        return
    fits = circuits <= limits.circuits and circuits * executions(options) <= limits.executions
    if fits or circuits == 1:
        yield circuits
        return
    yield from split((circuits + 1) // 2, options, limits)
    yield from split(circuits // 2, options, limits)


ON_DEVICE = ("fine-tuning", "device run")
"""Stages of a run whose models go to a device: all that it sends."""


def calls_of(config: RunConfig, circuit: CompiledCircuit) -> list[tuple[str, Purpose, dict[int, int]]]:
    """Stages of a run with what is asked of its engine, and after them of the device that models go to.

    Returns:
        Name, purpose, and circuits of a call before mitigation -> how many such calls.
    """
    model, played = config.model, config.rounds * config.nodes
    own = config.nodes == 1 or config.federation.aggregation == "krum"
    found: list[tuple[str, Purpose, dict[int, int]]] = [
        (
            "training",
            "training",
            {vectors(config, circuit) * model.batch: played * model.epochs * model.steps_per_epoch},
        ),
        ("validation", "evaluation", {model.samples: played}),
        ("aggregates", "evaluation", {model.samples: 0 if own else config.rounds}),
        ("final", "evaluation", {}),
    ]
    runtime = config.runtime
    if runtime is None or runtime.run_on is None:
        return found
    each, more = divmod(runtime.samples, config.nodes)
    shares = {each: config.nodes - more, each + 1: more}
    samples = {count: nodes for count, nodes in shares.items() if count and nodes}
    return [
        *found,
        ("fine-tuning", "training", {SPSA * model.batch: config.nodes * runtime.fine_tune}),
        ("device run", "evaluation", samples),
    ]


def share_of(found: Estimate, target: Target) -> Share:
    """What a run takes of the plan: of what the service says is left where the device is real, else of the Open plan's.

    Where the service cannot be asked, the share is of the Open plan's allowance too, and says why.
    """
    from backends.runtime.account import allowance, available, connect
    from backends.runtime.errors import ServiceError

    why = "no account was asked"
    if target.kind == "hardware" and available():
        try:
            plan = allowance(connect())
        except ServiceError as error:
            why = error.message.rstrip(".")
        else:
            if plan.remaining is not None:
                name = f"the {plan.plan} plan" if plan.plan else "the plan"
                part = found.total.qpu_seconds / plan.remaining if plan.remaining else None
                return Share(
                    part, plan.remaining, f"the {plan.remaining:.0f} s that {name} has left, as the service says"
                )
            why = "the service names no limit"
    return Share(
        found.total.qpu_seconds / OPEN_PLAN_SECONDS, OPEN_PLAN_SECONDS, f"the Open plan's 10 minutes in 28 days ({why})"
    )


def compiled_for(config: RunConfig) -> tuple[Target, CompiledCircuit]:
    """The device that a config's jobs go to, and the generator compiled for it as the run would.

    Raises:
        UsageError: The run sends nothing to a device, or the device has too few qubits.
        QrunError: No usable layout, or the device's calibration is not kept any more.
    """
    from runner.calibration import target_of
    from runner.compiled import generator_for

    if config.runtime is None:
        raise UsageError(f"a run with the engine {config.engine} sends no jobs.", "Take --engine runtime, or --run-on.")
    there = config.runtime.run_on
    target = (
        target_of(config.backend, config.snapshot_sha256)
        if there is None
        else target_of(there, config.runtime.run_on_sha256)
    )
    return target, generator_for(config, target)
