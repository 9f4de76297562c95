"""After the last round: the final model on the device, beside its twin (`--train-on twin --run-on NAME`).

The device makes a few hundred samples of the final model, shared among the nodes, each with latents, session and jobs
of its own; all jobs are sent before any is waited for. The exact twin is asked for the same latents, so that the two
differ by the device alone, and by shots. With values y of the device, t of the twin, and standard errors e of y, over
samples i and features j:

    mean absolute difference   D = mean_ij |y_ij - t_ij|
    its standard error         sqrt(sum_i (mean_j e_ij)^2) / samples: features of a sample share its shots, and the
                               bound holds however they hang together
    from shots alone           sqrt(2 / pi) mean_ij e_ij: what D would be if the device were its twin

The model is scored with the twin's samples as ever, with the device's under the twin's calibration, and with the
device's after a calibration on them, which no circuit is run for.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from backends.protocol import Executor, Request, Result
from backends.runtime.errors import Detached
from backends.runtime.labels import labelled
from backends.runtime.types import RuntimeOptions
from backends.target import Target
from circuits.types import CompiledCircuit
from experiments.metrics import Metrics
from experiments.models.qgan import QGAN, Parameters
from experiments.models.score import Calibration, Scorer
from runner.config import RunConfig
from runner.contribution import OnDevice
from runner.federation import Federation, Final
from runner.job_record import DIGITS, describe_options, mode_of, seconds_of
from runner.measure import Judge
from runner.meter import Meter
from runner.prepare import Prepared, model_for
from runner.seeds import derive

FloatArray = npt.NDArray[np.float64]
Scored = dict[str, Metrics | None]

SAMPLES = "qrun-samples/1"
"""Format of the file of samples in the content store."""


def shares(samples: int, nodes: Sequence[int]) -> dict[int, int]:
    """How many samples each node makes: as many as any other, or one more; who would make none is left out."""
    each, more = divmod(samples, len(nodes))
    counts = {node: each + (place < more) for place, node in enumerate(nodes)}
    return {node: count for node, count in counts.items() if count}


@dataclass(frozen=True)
class Sampled:
    """A node's samples.

    Attributes:
        device: (count, features) expectation values that the device gave ...
        errors: ... and their standard errors.
        twin: (count, features) exact values of the twin for the same latents.
        tags: Of the jobs that made them.
    """

    device: FloatArray
    errors: FloatArray
    twin: FloatArray
    tags: tuple[str, ...]


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
    answers = _ask({node: models[node][1] for node in counts}, requests, seeds, round_)
    out = {}
    with twin.executor:
        for node, result in answers.items():
            exact = twin.executor.run([twin.request(parameters, counts[node], seeds[node])], seed=seeds[node])[0].values
            tags = tuple(result.metadata.get("tags", ()))
            out[node] = Sampled(result.values, result.standard_errors, exact, tags)
    return out


def _ask(
    meters: Mapping[int, Meter], requests: Mapping[int, Request], seeds: Mapping[int, int], round_: int
) -> dict[int, Result]:
    """Send every node's request, then wait for them: a queue is waited for once. Each session ends with its own."""
    answers: dict[int, Result] = {}
    left: list[str] = []
    with ExitStack() as stack:
        sent = {}
        for node, meter in meters.items():
            session = stack.enter_context(ExitStack())
            session.enter_context(meter)
            meter.reset()
            with labelled("device", round_=round_, node=node):
                sent[node] = session, meter.send([requests[node]], seed=seeds[node])
        for node, (session, handle) in sent.items():
            try:
                (answers[node],) = meters[node].collect(handle)
            except Detached as gone:
                left += gone.jobs
            session.close()
    if left:
        raise Detached(tuple(left))
    return answers


def samples_file(model: str, sampled: Mapping[int, Sampled]) -> bytes:
    """The samples as they are published: canonical JSON, a row a sample, a column a feature."""
    nodes = [
        {"id": node, "device": s.device.tolist(), "standard_errors": s.errors.tolist(), "twin": s.twin.tolist()}
        for node, s in sorted(sampled.items())
    ]
    body = {"format": SAMPLES, "model": model, "nodes": nodes}
    return json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def agreement(device: FloatArray, twin: FloatArray, errors: FloatArray) -> dict[str, Any]:
    """How far the device is from its twin.

    Args:
        device: (samples, features) expectation values.
        twin: The same latents' exact values.
        errors: Standard errors of the device's.

    Returns:
        features: mean and standard deviation over the samples, of both; mean_absolute_difference, standard_error and
        from_shots (the module's formulas); largest_difference.
    """
    apart = np.abs(device - twin)
    return {
        "features": [
            {
                "twin_mean": float(twin[:, j].mean()),
                "device_mean": float(device[:, j].mean()),
                "twin_sd": float(twin[:, j].std()),
                "device_sd": float(device[:, j].std()),
            }
            for j in range(device.shape[1])
        ],
        "mean_absolute_difference": float(apart.mean()),
        "largest_difference": float(apart.max()),
        "standard_error": float(math.sqrt((errors.mean(axis=1) ** 2).sum()) / len(errors)),
        "from_shots": float(math.sqrt(2 / math.pi) * errors.mean()),
    }


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


def agreement_of(sampled: Mapping[int, Sampled]) -> dict[str, Any]:
    """`agreement` over all nodes' samples."""
    every = [sampled[node] for node in sorted(sampled)]
    return agreement(
        np.concatenate([s.device for s in every]),
        np.concatenate([s.twin for s in every]),
        np.concatenate([s.errors for s in every]),
    )


def exact_twin(config: RunConfig, prepared: Prepared) -> QGAN:
    """The run's model on its twin, without shots."""
    model = config.model.model_copy(update={"gradient": "auto"})
    plain = config.model_copy(update={"engine": "twin", "shots": None, "model": model})
    return model_for(plain, prepared.target, prepared.circuit, prepared.device)


@dataclass(frozen=True)
class DeviceRun:
    """What the device stage came to.

    Attributes:
        target: The device.
        circuit: The generator compiled for it.
        options: With which its jobs ran.
        sampled: By node.
        scores: What the model was scored with -> part -> metrics.
        samples_cid: Of the published samples.
        round: Of the model.
    """

    target: Target
    circuit: CompiledCircuit
    options: RuntimeOptions
    sampled: Mapping[int, Sampled]
    scores: Mapping[str, Scored]
    samples_cid: str
    round: int


def describe(
    stage: DeviceRun,
    jobs: Sequence[Mapping[str, Any]],
    sessions: Sequence[Mapping[str, Any]],
    snapshot_cid: str | None,
) -> dict[str, Any]:
    """The result's `device_run`.

    Args:
        stage: What the device stage came to.
        jobs: The result's `jobs`.
        sessions: And its `sessions`.
        snapshot_cid: Of the device's calibration, where it is in the store.
    """
    target, circuit = stage.target, stage.circuit
    ran = describe_options(stage.options, target)
    nodes: list[dict[str, Any]] = [
        {
            "id": node,
            "samples": len(s.device),
            "jobs": list(s.tags),
            "qpu_seconds": round(seconds_of(jobs, sessions, ["device"], (stage.round, 0, node)).known, DIGITS),
        }
        for node, s in sorted(stage.sampled.items())
    ]
    tags = {tag for node in nodes for tag in node["jobs"]}
    return {
        "backend": target.name,
        "calibration_date": target.calibration_date,
        "snapshot_sha256": target.snapshot_sha256,
        "snapshot_cid": snapshot_cid,
        "engine": "local" if ran["local"] else "service",
        "mode": mode_of([job for job in jobs if job["tag"] in tags], target.name),
        "samples": sum(node["samples"] for node in nodes),
        "shots": stage.options.shots,
        "options": ran["options"],
        "ignored": ran["ignored"],
        "physical_qubits": list(circuit.physical_qubits),
        "depth": circuit.depth,
        "two_qubit_gates": circuit.two_qubit_gates,
        "qpu_seconds": round(sum(node["qpu_seconds"] for node in nodes), DIGITS),
        "nodes": nodes,
        "metrics": {
            part: {name: rounded(scores[part]) for name, scores in stage.scores.items()}
            for part in next(iter(stage.scores.values()))
        },
        "agreement": _rounded(agreement_of(stage.sampled)),
        "samples_cid": stage.samples_cid,
    }


def rounded(metrics: Metrics | None) -> dict[str, float] | None:
    """Metrics as they stand in a result; None for records that the run has not."""
    return None if metrics is None else {k: round(float(v), DIGITS) for k, v in metrics.to_dict().items()}


def _rounded(figures: Any) -> Any:
    if isinstance(figures, dict):
        return {name: _rounded(value) for name, value in figures.items()}
    return [_rounded(value) for value in figures] if isinstance(figures, list) else round(figures, DIGITS)


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


def on_device(model: QGAN, circuit: CompiledCircuit, executor: Executor, steps: int) -> OnDevice:
    """A node's model on the device; whatever its gradient on the twin, on a device it is SPSA's.

    Args:
        model: The node's own.
        circuit: The generator compiled for the device.
        executor: There; closed.
        steps: Generator steps of fine-tuning.
    """
    meter = Meter(executor)
    return OnDevice(QGAN(model.settings.model_copy(update={"gradient": "spsa"}), meter, circuit), meter, steps)
