"""One peer: its records, its model, its account. What it knows of the others it reads from chain and store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from circuits.errors import QrunError
from contracts.errors import ContentError
from contracts.store import ContentStore
from experiments.base import NodeShare
from experiments.datasets.types import BoolArray, FloatArray
from experiments.features.map import FeatureMap
from experiments.metrics import Metrics, evaluate
from experiments.models.qgan import QGAN, Parameters, Progress, Trained
from experiments.models.score import Scorer
from runner.grades import Flat, Grade, Grader
from runner.seeds import derive
from runner.update import MAX_BYTES, Blocks, Input, Update, UpdateError, aggregate, dequantise, parse_update, quantise

GRADING_RECORDS = 128
"""Benign validation records that a grader tries a peer's discriminator on."""


@dataclass(frozen=True)
class Published:
    """What the chain says was submitted: a CID, and the model behind it if it passed every check."""

    cid: str
    update: Update | None


@dataclass
class Peer:
    """One federated node.

    Attributes:
        index: Its number in the task.
        seed: The run's seed; everything random here is derived from it, the index and the round.
        config: SHA-256 of the run's config, hex.
        model: The QGAN that it trains.
        store: Where models are fetched from and published to.
    """

    index: int
    seed: int
    config: str
    share: NodeShare
    model: QGAN
    store: ContentStore
    feature_map_cid: str = ""
    train_features: FloatArray = field(default_factory=lambda: np.zeros((0, 0)))
    validation_features: FloatArray = field(default_factory=lambda: np.zeros((0, 0)))
    attack_features: FloatArray = field(default_factory=lambda: np.zeros((0, 0)))
    grader: Grader = field(init=False)
    gated: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.grader = Grader(self.index)

    def use_map(self, feature_map: FeatureMap, cid: str) -> None:
        """Turn the node's records into features of the agreed map."""
        self.feature_map_cid = cid
        self.train_features = feature_map.apply(self.share.train)
        self.validation_features = feature_map.apply(self.share.validation)
        self.attack_features = feature_map.apply(self.share.attacks)

    # -- models of others -------------------------------------------------------------------------------------------

    def fetch(self, cid: str, round_: int, node: int) -> Published:
        """Fetch a published model by CID and check it; one that fails any check counts as absent."""
        try:
            update = parse_update(self.store.get(cid, max_bytes=MAX_BYTES), self.model.shapes())
        except (UpdateError, ContentError):
            return Published(cid, None)
        right = (
            update.config == self.config
            and update.feature_map == self.feature_map_cid
            and update.round == round_
            and update.node == node
        )
        return Published(cid, update if right else None)

    def start(self, last: Mapping[int, Published], reputation: Mapping[int, int]) -> tuple[Blocks, tuple[Input, ...]]:
        """The aggregate that this node starts a round from, and what it is made of.

        Peers' last models weigh as the contract's reputation says; who is gated by this node's own review, or whose
        model failed a check, weighs nothing. If nothing is left, the node goes on from its own model.
        """
        usable = {
            j: p.update.blocks
            for j, p in last.items()
            if p.update is not None and j not in self.gated and reputation.get(j, 0) > 0
        }
        weights = {j: reputation[j] for j in usable}
        if not usable:
            own = last[self.index].update
            if own is None:
                raise QrunError(f"node {self.index} has no model to go on from.")
            usable, weights = {self.index: own.blocks}, {self.index: 1}
        order = sorted(usable)
        blocks = aggregate([usable[j] for j in order], [weights[j] for j in order])
        return blocks, tuple(Input(last[j].cid, weights[j]) for j in order)

    # -- its own work -----------------------------------------------------------------------------------------------

    def train(self, round_: int, start: Blocks, progress: Progress | None = None) -> Trained:
        """Train the round's epochs from an aggregate."""
        return self.model.train(
            dequantise(start),
            self.train_features,
            epochs=self.model.settings.epochs,
            seed=derive(self.seed, "train", self.index, round_),
            progress=progress,
        )

    def publish(self, round_: int, trained: Trained, inputs: tuple[Input, ...]) -> str:
        """Serialise the trained model and put it into the store; its CID."""
        update = Update(self.config, self.feature_map_cid, round_, self.index, quantise(trained.parameters), inputs)
        return self.store.put(update.to_bytes())

    def scorer(self, parameters: Parameters, round_: int) -> Scorer:
        """A scorer with the round's common latents, so that models differ by their parameters only."""
        return Scorer(self.model, parameters, derive(self.seed, "samples", round_))

    def measure(self, update: Update) -> Metrics:
        """The node's own model on its own validation records, its threshold from the benign ones."""
        scorer = self.scorer(dequantise(update.blocks), update.round)
        calibration = scorer.calibrate(self.validation_features)
        scores = scorer.scores(self.labelled, calibration.parts)
        return evaluate(scores, self.labels, scorer.threshold(calibration))

    @property
    def labelled(self) -> FloatArray:
        """The node's validation features, benign then attacks."""
        return np.concatenate([self.validation_features, self.attack_features])

    @property
    def labels(self) -> BoolArray:
        """True for the attacks among `labelled`."""
        return np.concatenate(
            [np.zeros(len(self.validation_features), dtype=bool), np.ones(len(self.attack_features), dtype=bool)]
        )

    def review(self, start: Blocks, published: Mapping[int, Published]) -> dict[int, Grade]:
        """Grade every peer that submitted in this round; a model that failed a check gets 0."""
        x = self.validation_features[:GRADING_RECORDS]
        begin = dequantise(start)
        models = {j: dequantise(p.update.blocks) for j, p in published.items() if p.update is not None}
        grades = self.grader.review(
            Flat.of(begin),
            {j: Flat.of(m) for j, m in models.items()},
            {j: self.model.benign_loss(m, x) for j, m in models.items()},
            self.model.benign_loss(begin, x),
        )
        for j, p in published.items():
            if j != self.index and p.update is None:
                grades[j] = Grade(0, gated=True, fault="its model failed a check")
        self.gated = {j for j, grade in grades.items() if grade.gated}
        return grades
