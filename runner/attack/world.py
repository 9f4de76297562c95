"""What all attacks on one federation share: its data, its feature map, its peers, and what they trained already."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Self

import numpy as np

from backends.catalog import get_target
from backends.scaled import scaled
from backends.target import Target
from experiments.base import Study, find
from experiments.datasets.schema import NUMERIC, VOCABULARIES
from experiments.datasets.types import FloatArray, Records
from experiments.features.agreement import agree, node
from experiments.features.fit import suits
from experiments.features.map import FeatureMap
from experiments.features.secure_sum import plain_sum
from experiments.metrics import evaluate
from experiments.models.qgan import QGAN
from experiments.models.score import Calibration
from runner.attack.attacks import Attack
from runner.compiled import generator_for
from runner.config import RunConfig
from runner.measure import Judge
from runner.models import model_for
from runner.node import Peer
from runner.seeds import derive, generator
from runner.settings import FederationSettings
from runner.update import Blocks, blocks_digest, dequantise, quantise

Trained = dict[tuple[str, int, int, str], Blocks]


@lru_cache(maxsize=4)
def _target(backend: str, noise_scale: float | None) -> Target:
    target = get_target(backend)
    return target if noise_scale is None else scaled(target, noise_scale)


@dataclass(frozen=True)
class World:
    """A federation on its data. Made once for all attacks on it.

    Attributes:
        config: The run's; its seed deals the records and starts the models.
        study: Data and shares.
        model: Shared by all peers, its executor open.
        start: The common start.
        feature_map: What all nodes use.
        features: Per node: its benign training records, benign validation records and attack records, as features.
        judge: The hold-out part, on the same map.
        trained: What was trained before, by what on, node, round and digest of the start.
    """

    config: RunConfig
    study: Study
    model: QGAN
    start: Blocks
    feature_map: FeatureMap
    features: tuple[tuple[FloatArray, FloatArray, FloatArray], ...]
    judge: Judge
    trained: Trained = field(default_factory=dict)

    @classmethod
    def build(cls, config: RunConfig, folder: Path | None, notify: Callable[[str], None] = lambda text: None) -> Self:
        """Load and deal the data, agree on the map, compile the circuit; arguments as of `Experiment.load`."""
        experiment = find(config.experiment)
        study = experiment.load(
            config.data,
            nodes=config.nodes,
            seeds=lambda purpose, *parts: derive(config.seed, purpose, *parts),
            folder=folder,
            notify=notify,
        )
        # Masks cancel: the plain sum gives the same totals.
        feature_map = agree([node(share.train) for share in study.shares], config.model.features, plain_sum)
        target = _target(config.backend, config.noise_scale)
        model = model_for(config, target, generator_for(config, target), "cpu")
        model.executor.__enter__()
        start = quantise(model.initial(generator(config.seed, "initial")))
        return cls(
            config, study, model, start, feature_map, _features(study, feature_map), Judge.of(study, feature_map)
        )

    def under(self, attack: Attack, hostile: frozenset[int]) -> tuple[World, int]:
        """The world on the map that an attack of round 0 leads to, and how many nodes would vote for that map.

        Hostile nodes vote for it whatever it is.
        """
        nodes = range(len(self.study.shares))
        if not attack.made_up:
            return self, sum(i in hostile or self._suits(self.feature_map, i) for i in nodes)
        contributors = [node(self._made_up(attack, i) if i in hostile else self.study.shares[i].train) for i in nodes]
        feature_map = agree(contributors, self.config.model.features, plain_sum)
        votes = sum(i in hostile or self._suits(feature_map, i) for i in nodes)
        world = replace(
            self,
            feature_map=feature_map,
            features=_features(self.study, feature_map),
            judge=Judge.of(self.study, feature_map),
            trained={},
        )
        return world, votes

    def _suits(self, feature_map: FeatureMap, index: int) -> bool:
        federation = self.config.federation
        return suits(
            feature_map,
            self.study.shares[index].train,
            least_variance=federation.map_variance,
            most_shift=federation.map_shift,
        )

    def _made_up(self, attack: Attack, index: int) -> Records:
        share = self.study.shares[index]
        count = attack.claims * len(share.train)
        if attack.made_up == "attacks":
            known = share.attacks.take(np.arange(count) % len(share.attacks))
            return replace(known, attack=np.zeros(count, dtype=np.int64))
        random = generator(self.config.seed, "made up", index)
        numeric = np.stack([np.where(random.random(count) < 0.5, c.minimum, c.maximum) for c in NUMERIC], axis=1)
        words = np.stack([random.integers(0, len(v), count) for v in VOCABULARIES[:3]], axis=1)
        nothing = np.zeros(count, dtype=np.int64)
        return Records(numeric.astype(np.float64), words, nothing, np.arange(1, count + 1), "made up")

    def peers(self, federation: FederationSettings) -> dict[int, Peer]:
        """All nodes as before the first round."""
        out = {}
        for i, share in enumerate(self.study.shares):
            digest = self.config.digest.hex()
            peer = Peer(i, self.config.seed, digest, share, self.model, federation, self.config.grades, "map")
            peer.rounds = self.config.rounds
            peer.train_features, peer.validation_features, peer.attack_features = self.features[i]
            out[i] = peer
        return out

    def train(self, peer: Peer, round_: int, start: Blocks, what: str = "own") -> Blocks:
        """`Peer.train`, once for every node, round and start: attacks have their first rounds in common."""
        key = (what, peer.index, round_, blocks_digest(start))
        if key not in self.trained:
            self.trained[key] = quantise(peer.train(round_, start).parameters)
        return self.trained[key]

    def poison(self, peer: Peer, hostile: frozenset[int], round_: int, start: Blocks, share: float) -> Blocks:
        """The same for a peer that trains on the attack records which the hostile nodes know, a `share` of them."""
        known = np.concatenate([self.features[i][2] for i in sorted(hostile)])
        own = peer.train_features
        count = len(known) if share >= 1 else round(len(own) * share / (1 - share))
        order = generator(self.config.seed, "poison", peer.index).permutation(len(known))
        chosen = np.resize(known[order], (count, known.shape[1]))
        other = replace(peer)
        other.train_features = chosen if share >= 1 else np.concatenate([own, chosen])
        return self.train(other, round_, start, f"poison {share}")

    def auroc(self, blocks: Blocks, honest: list[int]) -> float:
        """Of a model on the hold-out part, calibrated on the honest nodes' benign validation records."""
        peer = self.peers(self.config.federation)[honest[0]]
        scorer = peer.scorer(dequantise(blocks), self.config.rounds)
        benign = np.concatenate([self.features[i][1] for i in honest])
        parts = scorer.part_counts(benign)
        calibration = Calibration(parts, scorer.score_counts(benign, parts))
        scores = scorer.scores(self.judge.holdout, parts)
        return evaluate(scores, self.judge.holdout_attack, scorer.threshold(calibration)).auroc


def _features(study: Study, feature_map: FeatureMap) -> tuple[tuple[FloatArray, FloatArray, FloatArray], ...]:
    return tuple(
        (feature_map.apply(s.train), feature_map.apply(s.validation), feature_map.apply(s.attacks))
        for s in study.shares
    )
