"""A finished run's final model under profiles: on other devices, with mitigation, with shots; nothing is trained.

The model generates the samples that its score is taken from with the run's own latents, on the profile's engine. It is
scored twice on the records that no node has: calibrated on the profile's own samples, as a federation on that device
would (`metrics`), and with the calibration and the threshold that it had where it was trained (`as_trained`).

This module is the one place of comparisons that knows how models are scored.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from backends.mitigation.make import mitigated
from backends.mitigation.types import Asked, Context
from backends.protocol import FloatArray
from backends.target import Target
from circuits.errors import QrunError, QrunWarning
from contracts.cid import cid_of
from experiments.base import Study, find
from experiments.features.map import FeatureMap
from experiments.features.secure_sum import plain_sum
from experiments.metrics import Metrics
from experiments.models.qgan import QGAN, Parameters
from experiments.models.score import Calibration, Scorer
from runner.calibration import target_for
from runner.compare import stats
from runner.compare.device import describe_circuit, describe_device, on_device, qpu_seconds
from runner.compare.evaluation import FORMAT, Evaluation, digest_of, ideal, keep, profile_of, recall
from runner.compiled import generator_for
from runner.config import RunConfig
from runner.measure import Judge, calibrate_together
from runner.mitigated import is_exact, overhead
from runner.models import model_for
from runner.node import Peer
from runner.run_folder import read_manifest, read_result
from runner.seeds import derive
from runner.update import MAX_BYTES, dequantise, parse_update

DIGITS = 9
ZNE_SAMPLES = 1
"""Latents that a fit is shown for: a fit is of one circuit."""


@dataclass(frozen=True)
class Finished:
    """A finished run, its model read back and checked against the CIDs in its result.

    Attributes:
        config: Of the run.
        result: Its result.
        parameters: Of its final model.
        peers: The nodes, with the features of their records; their models are never used.
        judge: The records that no node has.
    """

    path: Path
    config: RunConfig
    result: Mapping[str, Any]
    parameters: Parameters
    peers: tuple[Peer, ...]
    judge: Judge

    @property
    def round(self) -> int:
        """Of the final model."""
        return int(self.result["final"]["round"])


def open_run(path: Path, data: Path | None, notify: Callable[[str], None] = lambda text: None) -> Finished:
    """Read a finished run's model, and the data.

    Raises:
        QrunError: The run is not finished, a model is not there or not the one of the result, or the data that are
            found are not those of the run.
    """
    config, _ = read_manifest(path)
    result = read_result(path)
    study = load_study(config, data, notify)
    check_data(result, study)
    feature_map = FeatureMap.from_bytes(_model_file(path, "feature-map.json", result["feature_map"]["cid"]))
    blocks = parse_update(_model_file(path, "final.json", result["final"]["cid"])).blocks
    nothing = cast("Any", None)
    peers = []
    for index, share in enumerate(study.shares):
        peer = Peer(index, config.seed, config.digest.hex(), share, nothing, config.federation, config.grades)
        peer.use_map(feature_map, result["feature_map"]["cid"])
        peers.append(peer)
    return Finished(path, config, result, dequantise(blocks), tuple(peers), Judge.of(study, feature_map))


def load_study(config: RunConfig, data: Path | None, notify: Callable[[str], None] = lambda text: None) -> Study:
    """The data as a run of this config takes them."""
    return find(config.experiment).load(
        config.data,
        nodes=config.nodes,
        seeds=lambda purpose, *parts: derive(config.seed, purpose, *parts),
        folder=data,
        notify=notify,
    )


def check_data(result: Mapping[str, Any], study: Study) -> None:
    """That these are the run's data.

    Raises:
        QrunError: They are not.
    """
    told = result["dataset"]
    if (told["source"], told["sha256"]) != (study.dataset.source, dict(study.dataset.sha256)):
        raise QrunError(
            f"run {result['run']} is on {told['source']} data; what is found is {study.dataset.source} and differs.",
            "Give the folder of the same files with --data.",
        )


def _model_file(path: Path, name: str, cid: str) -> bytes:
    file = path / "models" / name
    try:
        data = file.read_bytes() if file.stat().st_size <= MAX_BYTES else b""
    except OSError:
        raise QrunError(f"{file} is missing.", "Put the run's models back.") from None
    if str(cid_of(data)) != cid:
        raise QrunError(f"{file} is not the model that the result names.", "`qrun verify` says what else is wrong.")
    return data


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", QrunWarning)
            yield
    finally:
        torch.set_num_threads(threads)


def evaluate(run: Finished, profiles: Sequence[RunConfig]) -> list[Evaluation]:
    """The model under every profile, in their order; what the run's folder has already is read, and the rest kept.

    Args:
        run: From `open_run`.
        profiles: Configs that differ from the run's in `evaluation.WHERE` alone.

    Raises:
        QrunError: A profile cannot be run.
    """
    found = [recall(run.path, run.result, profile) for profile in profiles]
    if all(one is not None for one in found):
        return [one for one in found if one is not None]
    out = []
    with _one_thread():
        bench = _Bench(run)
        for profile, known in zip(profiles, found, strict=True):
            out.append(bench.evaluate(profile) if known is None else known)
            if known is None:
                keep(run.path, out[-1])
    return out


class _Bench:
    """What the profiles of one model have in common, made when it is asked for."""

    def __init__(self, run: Finished) -> None:
        self.run = run
        self._own: tuple[Scorer, Calibration] | None = None
        self._truth: FloatArray | None = None
        benign = run.judge.holdout[~run.judge.holdout_attack]
        self.benign = stats.thinned(benign)
        self.width = stats.bandwidth(benign)
        self._compiled: dict[str, tuple[Target, Any]] = {}

    def _model(self, profile: RunConfig) -> tuple[Target, QGAN]:
        where = profile.model_copy(update={"mitigation": None, "shots": None, "engine": "twin"}).digest.hex()
        if where not in self._compiled:
            target = target_for(profile, self.run.path)
            self._compiled[where] = target, generator_for(profile, target)
        target, circuit = self._compiled[where]
        return target, model_for(profile, target, circuit, "cpu")

    def _scorer(self, model: QGAN) -> Scorer:
        """As the run scores its final model."""
        peer = replace(self.run.peers[0], model=model)
        with model.executor:
            return peer.scorer(self.run.parameters, self.run.round)

    def _calibrated(self, scorer: Scorer, name: str) -> Calibration:
        return calibrate_together(scorer, self.run.peers, plain_sum, name)

    def own(self) -> tuple[Scorer, Calibration]:
        """Scorer and calibration of the run itself, where it was trained."""
        if self._own is None:
            scorer = self._scorer(self._model(self.run.config)[1])
            self._own = scorer, self._calibrated(scorer, "own")
        return self._own

    def truth(self) -> FloatArray:
        """(samples, features) exact values without noise, of the same latents."""
        if self._truth is None:
            self._truth = np.asarray(self._scorer(self._model(ideal(self.run.config))[1]).samples)
        return self._truth

    def evaluate(self, profile: RunConfig) -> Evaluation:
        begin = time.perf_counter()
        run = self.run
        target, model = self._model(profile)
        scorer = self._scorer(model)
        calibration = self._calibrated(scorer, "profile")
        samples, truth = np.asarray(scorer.samples), self.truth()
        factor = overhead(model, {"evaluation": len(samples)}).get("evaluation", 1.0)
        own = profile_of(profile) == profile_of(run.config)
        as_trained = None if own else run.judge.score(scorer, self.own()[1])
        judge = run.judge
        held = scorer.scores(judge.holdout, calibration.parts)
        curves = {"holdout": stats.roc(held, judge.holdout_attack), "test": None}
        if judge.test is not None and judge.test_attack is not None:
            curves["test"] = stats.roc(scorer.scores(judge.test, calibration.parts), judge.test_attack)
        apart = np.abs(samples - truth)
        circuits = round(factor * len(samples))
        return {
            "format": FORMAT,
            "digest": digest_of(run.result, profile),
            "run": run.result["run"],
            "model": run.result["final"]["cid"],
            "config_digest": run.result["config_digest"],
            "dataset": {"source": run.result["dataset"]["source"], "sha256": run.result["dataset"]["sha256"]},
            "profile": profile_of(profile),
            "device": describe_device(target, model.circuit),
            "circuit": describe_circuit(target, model.circuit),
            "metrics": _figures(judge.score(scorer, calibration)),
            "as_trained": None if as_trained is None else _figures(as_trained),
            "distances": {
                "mmd2": _round(stats.mmd2(samples, self.benign, self.width)),
                "wasserstein": _round(stats.wasserstein(samples, self.benign)),
                "sliced": _round(stats.sliced_wasserstein(samples, self.benign)),
            },
            "expectations": {
                "mean": _round(apart.mean()),
                "rms": _round(np.sqrt((apart**2).mean())),
                "largest": _round(apart.max()),
            },
            "roc": curves,
            "histogram": stats.histogram(held, judge.holdout_attack),
            "zne": self._fit(profile, target, model),
            "cost": {
                "circuits": circuits,
                "overhead": _round(factor),
                "shots": profile.shots,
                "qpu_seconds": qpu_seconds(target, model.circuit, circuits, profile.shots),
                "on_device": on_device(profile, target, model.circuit) if own else None,
            },
            "seconds": round(time.perf_counter() - begin, 3),
        }

    def _fit(self, profile: RunConfig, target: Target, model: QGAN) -> dict[str, Any] | None:
        """Values of one circuit at the noise scales, what they are led back to, and the truth; None without zne."""
        said = profile.mitigation
        if said is None or said.apply == "training" or "zne" not in said.names:
            return None
        from backends.mitigation.zne import Zne

        options = said.options(derive(profile.seed, "mitigation"))
        inner = replace(options, stack=said.names[: said.names.index("zne")])
        zne = Zne(Context(target, options, is_exact(profile)))
        seed = derive(self.run.config.seed, "samples", self.run.round)
        request = model.request(self.run.parameters, ZNE_SAMPLES, seed)
        expansion = zne.expand(Asked(request.circuit, request.observables, request.inputs, request.weights))
        requests = [replace(request, circuit=p.circuit, observables=p.observables) for p in expansion.parts]
        with model.executor:
            engine = mitigated(model.executor, target, inner, exact=is_exact(profile))
            values = [one.values for one in engine.run(requests, seed=seed)]
        led = expansion.combine([torch.as_tensor(v) for v in values])
        plain = self._model(ideal(self.run.config))[1]
        with plain.executor:
            truth = plain.executor.run([plain.request(self.run.parameters, ZNE_SAMPLES, seed)], seed=seed)[0].values
        return {
            "scales": [float(s) for s in zne.scales],
            "extrapolation": zne.extrapolation,
            "values": [[_round(v) for v in row[0]] for row in values],
            "extrapolated": [_round(v) for v in led[0].tolist()],
            "ideal": [_round(v) for v in truth[0]],
        }


def _round(value: Any) -> float:
    return round(float(value), DIGITS)


def _figures(parts: Mapping[str, Metrics | None]) -> dict[str, dict[str, float] | None]:
    """As they stand in a result: rounded to six digits."""
    return {
        part: None if m is None else {k: round(float(v), 6) for k, v in m.to_dict().items()}
        for part, m in parts.items()
    }
