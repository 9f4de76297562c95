"""After the last round: the final model on the device, beside its twin (`--train-on twin --run-on NAME`).

The device makes a few hundred samples of the final model, shared among the nodes, each with latents, session and jobs
of its own; all jobs are sent before any is waited for. The exact twin is asked for the same latents, so that the two
differ by the device alone, and by shots (runner/device_report.py tells by how much).

The model is scored with the twin's samples as ever, with the device's under the twin's calibration, and with the
device's after a calibration on them, which no circuit is run for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Protocol, cast

import numpy as np

from backends.protocol import Executor, Request, Result
from backends.runtime.errors import BudgetError, Detached
from backends.runtime.labels import labelled
from backends.target import Target
from circuits.types import CompiledCircuit
from experiments.models.qgan import QGAN, Parameters
from experiments.models.score import Calibration, Scorer
from runner.config import RunConfig
from runner.contribution import OnDevice
from runner.device_report import DeviceRun, FloatArray, Sampled, Scored, samples_file
from runner.federation import Federation, Final
from runner.measure import Judge
from runner.meter import Meter
from runner.models import device_model, model_for
from runner.prepare import Prepared
from runner.seeds import derive


def shares(samples: int, nodes: Sequence[int]) -> dict[int, int]:
    """How many samples each node makes: as many as any other, or one more; who would make none is left out."""
    each, more = divmod(samples, len(nodes))
    counts = {node: each + (place < more) for place, node in enumerate(nodes)}
    return {node: count for node, count in counts.items() if count}


def sample(
    config: RunConfig, models: Mapping[int, tuple[QGAN, Meter]], twin: QGAN, parameters: Parameters, round_: int
) -> dict[int, Sampled]:
    """The nodes' samples of a model, of the device and of the twin.

    Args:
        config: The run's, with `runtime.samples`.
        models: By node, on the device, and what counts its circuits there; closed.
        twin: The model on the exact twin, closed.
        parameters: Of the model.
        round_: Its round; with the node it names latents and jobs.

    Raises:
        Detached: all jobs are sent, and the user asked not to wait.
    """
    assert config.runtime is not None
    counts = shares(config.runtime.samples, sorted(models))
    seeds = {node: derive(config.seed, "device", round_, node) for node in counts}
    requests = {node: models[node][0].request(parameters, count, seeds[node]) for node, count in counts.items()}
    for node in counts:
        models[node][1].reset()
    answers = _ask({node: models[node][0].engine("evaluation") for node in counts}, requests, seeds, round_)
    out = {}
    with twin.executor:
        for node, result in answers.items():
            exact = (
                twin.engine("evaluation")
                .run([twin.request(parameters, counts[node], seeds[node])], seed=seeds[node])[0]
                .values
            )
            tags = tuple(result.metadata.get("tags", ()))
            model = models[node][0]
            out[node] = Sampled(
                model.sample(parameters, result.values),
                model.sample_errors(parameters, result.standard_errors),
                model.sample(parameters, exact),
                tags,
            )
    return out


def _ask(
    engines: Mapping[int, Executor], requests: Mapping[int, Request], seeds: Mapping[int, int], round_: int
) -> dict[int, Result]:
    """Send every node's request, then wait for them: a queue is waited for once. Each session ends with its own."""
    answers: dict[int, Result] = {}
    left: list[str] = []
    sent: dict[int, tuple[ExitStack, Any]] = {}

    def send(node: int) -> Any:
        with labelled("device", round_=round_, node=node):
            return cast(Any, engines[node]).send([requests[node]], seed=seeds[node])

    def collect() -> None:
        for node, (session, handle) in sent.items():
            try:
                (answers[node],) = cast(Any, engines[node]).collect(handle)
            except Detached as gone:
                left.extend(gone.jobs)
            session.close()
        sent.clear()

    with ExitStack() as stack:
        for node, engine in engines.items():
            session = stack.enter_context(ExitStack())
            session.enter_context(engine)
            try:
                handle = send(node)
            except BudgetError:
                # What is on its way counts at its most: once it is known what it took, there may be enough left.
                if not sent:
                    raise
                collect()
                if left:
                    break
                handle = send(node)
            sent[node] = session, handle
        collect()
    if left:
        raise Detached(tuple(dict.fromkeys(left)))  # each tells all that are on their way
    return answers


class Calibrates(Protocol):
    """What gives a calibration on all nodes' benign records; `data` names the sums."""

    def calibrate(self, scorer: Scorer, name: str, data: bytes) -> Calibration:
        """The calibration of a scorer."""
        ...


def score(
    final: Final, sampled: Mapping[int, Sampled], file: bytes, federation: Calibrates, judge: Judge
) -> dict[str, Scored]:
    """The final model on the records that no node has.

    Args:
        final: The finished model, as it was scored on the twin.
        sampled: What the device gave.
        file: `samples_file` of it.
        federation: The nodes, for the calibration on the device's samples.
        judge: The records.

    Returns:
        Metrics by part: of "twin", of "same_latents" (the twin, with as many samples as the device has, of the same
        latents), of "device" (both under the twin's calibration), and of "recalibrated".
    """

    def with_samples(values: FloatArray) -> Scorer:
        return Scorer(final.scorer.model, final.scorer.parameters, samples=values)

    order = sorted(sampled)
    device = with_samples(np.concatenate([sampled[node].device for node in order]))
    same = with_samples(np.concatenate([sampled[node].twin for node in order]))
    return {
        "twin": final.metrics,
        "same_latents": judge.score(same, final.calibration),
        "device": judge.score(device, final.calibration),
        "recalibrated": judge.score(device, federation.calibrate(device, "device", file)),
    }


def exact_twin(config: RunConfig, prepared: Prepared) -> QGAN:
    """The run's model on its twin, without shots."""
    model = config.model.model_copy(update={"gradient": "auto"})
    plain = config.model_copy(update={"engine": "twin", "shots": None, "model": model})
    return model_for(plain, prepared.target, prepared.circuit, prepared.device)


def run_on_device(
    config: RunConfig,
    prepared: Prepared,
    final: Final,
    federation: Federation,
    judge: Judge,
) -> DeviceRun:
    """Make the samples of the final model on the device, publish them, and score the model with them.

    Who was excluded makes none, but takes part in the sums of the calibration, as ever.

    Raises:
        Detached: all jobs are sent, and the user asked not to wait.
    """
    target, circuit = prepared.run_on, prepared.run_on_circuit
    assert config.runtime is not None
    assert target is not None
    assert circuit is not None
    here = {node.index for node in federation.contract.nodes() if not node.excluded}
    on_device = {m.index: m.device for m in federation.members if m.device is not None}
    models = {i: (d.model, d.meter) for i, d in on_device.items() if i in here}
    sampled = sample(config, models, exact_twin(config, prepared), final.scorer.parameters, final.base)
    file = samples_file(final.cid, sampled)
    return DeviceRun(
        target,
        circuit,
        config.runtime.options(config.runtime.shots),
        sampled,
        score(final, sampled, file, federation, judge),
        federation.store.put(file),
        final.base,
    )


def on_device(config: RunConfig, run_on: Target, circuit: CompiledCircuit, executor: Executor) -> OnDevice:
    """A node's model on the device; arguments as of `models.device_model`."""
    assert config.runtime is not None
    meter = Meter(executor)
    return OnDevice(device_model(config, run_on, circuit, meter), meter, config.runtime.fine_tune)
