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

QPU seconds are those of `backends.runtime.cost`, job by job, split as the service's limits ask. A session is charged
from its first job to its end, so that waiting between its jobs comes on top; no figure of a device tells how long.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from backends.runtime.cost import executions, job_seconds
from backends.runtime.types import JobLimits, RuntimeOptions
from backends.target import Target
from circuits.errors import UsageError
from circuits.types import CompiledCircuit
from runner.config import RunConfig

OPEN_PLAN_SECONDS = 600.0
"""QPU time of IBM's Open plan in 28 days."""

SPSA = 3
"""Weight vectors of a step: where it stands, and the two of the difference."""


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
    """

    backend: str
    way: str
    shots: int
    stages: tuple[Stage, ...]
    total: Stage

    def to_dict(self) -> dict[str, Any]:
        """Plain types, ready for JSON."""
        stages = [stage.to_dict() for stage in self.stages]
        return {
            "backend": self.backend,
            "way": self.way,
            "shots_per_circuit": self.shots,
            "stages": stages,
            "total": self.total.to_dict(),
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
    if config.runtime is None:
        raise UsageError(f"a run with the engine {config.engine} sends no jobs.", "Take --engine runtime, or --run-on.")
    direct = config.engine == "runtime"
    shots = (config.shots or 0) if direct else config.runtime.shots
    options = config.runtime.options(shots)
    counts = JobLimits() if limits is None else limits

    def stage(name: str, calls: dict[int, int]) -> Stage:
        """`calls`: circuits of a call of the engine -> how many such calls."""
        jobs = circuits = 0
        seconds = 0.0
        for asked, times in calls.items():
            for rows in split(asked, options, counts):
                jobs += times
                seconds += times * job_seconds(circuit, target, options, rows)
            circuits += asked * times
        return Stage(name, jobs, circuits, circuits * shots, seconds)

    stages = tuple(stage(name, calls) for name, calls in (_direct if direct else _run_on)(config, circuit).items())
    total = Stage(
        "total",
        sum(s.jobs for s in stages),
        sum(s.circuits for s in stages),
        sum(s.shots for s in stages),
        sum(s.qpu_seconds for s in stages),
    )
    return Estimate(target.name, "on the device" if direct else "trained on the twin", shots, stages, total)


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


def _direct(config: RunConfig, circuit: CompiledCircuit) -> dict[str, dict[int, int]]:
    """By stage: circuits of a call -> calls, where everything runs on the device."""
    model, played = config.model, config.rounds * config.nodes
    vectors = 1 + 2 * len(circuit.weights) if model.gradient == "parameter-shift" else SPSA
    own = config.nodes == 1 or config.federation.aggregation == "krum"
    return {
        "training": {vectors * model.batch: played * model.epochs * model.steps_per_epoch},
        "validation": {model.samples: played},
        "aggregates": {model.samples: 0 if own else config.rounds},
        "final": {},
    }


def _run_on(config: RunConfig, circuit: CompiledCircuit) -> dict[str, dict[int, int]]:
    """The same where the device is asked once training is over."""
    runtime = config.runtime
    assert runtime is not None
    each, more = divmod(runtime.samples, config.nodes)
    shares = {each: config.nodes - more, each + 1: more}
    return {
        "fine-tuning": {SPSA * config.model.batch: config.nodes * runtime.fine_tune},
        "device run": {count: nodes for count, nodes in shares.items() if count and nodes},
    }


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
    from circuits.compile import compile_ansatz
    from experiments.base import find
    from runner.calibration import target_of
    from runner.seeds import derive

    if config.runtime is None:
        raise UsageError(f"a run with the engine {config.engine} sends no jobs.", "Take --engine runtime, or --run-on.")
    there = config.runtime.run_on
    target = (
        target_of(config.backend, config.snapshot_sha256)
        if there is None
        else target_of(there, config.runtime.run_on_sha256)
    )
    ansatz = find(config.experiment).ansatz(config.model)
    return target, compile_ansatz(ansatz, target.backend, seed=derive(config.seed, "layout") % 2**31)
