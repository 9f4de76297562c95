"""One peer: its records, its model, its grades. What it knows of the others is handed to it (runner/publishing.py)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from circuits.errors import QrunError
from experiments.base import NodeShare
from experiments.datasets.types import BoolArray, FloatArray
from experiments.features.map import FeatureMap
from experiments.metrics import Metrics, evaluate
from experiments.models.budget import budget
from experiments.models.private import Private
from experiments.models.qgan import QGAN, Parameters, Progress, Trained
from experiments.models.score import Scorer
from runner.aggregate import join
from runner.grades import Flat, Grade, Grader
from runner.seeds import derive
from runner.settings import FederationSettings, GradeSettings
from runner.update import Blocks, Input, Update, dequantise


@dataclass(frozen=True)
class Published:
    """What the chain says was submitted: a CID, and the model behind it if it passed every check, else the reason."""

    cid: str
    update: Update | None
    fault: str = ""


@dataclass
class Peer:
    """One federated node.

    Attributes:
        index: Its number in the task.
        seed: The run's seed; everything random here is derived from it, the index and the round.
        config: SHA-256 of the run's config, hex.
        model: The QGAN that it trains.
        federation: How it joins the others' models.
        grades: How it grades them.
        rounds: In which it trains: what a privacy budget has to last for. Needed where the model asks for an epsilon.
        gated: Whom its last review leaves out of its next aggregate.
    """

    index: int
    seed: int
    config: str
    share: NodeShare
    model: QGAN
    federation: FederationSettings = field(default_factory=FederationSettings)
    grades: GradeSettings = field(default_factory=GradeSettings)
    feature_map_cid: str = ""
    rounds: int | None = None
    train_features: FloatArray = field(default_factory=lambda: np.zeros((0, 0)))
    validation_features: FloatArray = field(default_factory=lambda: np.zeros((0, 0)))
    attack_features: FloatArray = field(default_factory=lambda: np.zeros((0, 0)))
    grader: Grader = field(init=False)
    gated: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Remember no review: as before the first round."""
        self.grader = Grader(self.index, self.grades)
        self.gated = set()

    def use_map(self, feature_map: FeatureMap, cid: str) -> None:
        """Turn the node's records into features of the agreed map."""
        self.feature_map_cid = cid
        self.train_features = feature_map.apply(self.share.train)
        self.validation_features = feature_map.apply(self.share.validation)
        self.attack_features = feature_map.apply(self.share.attacks)

    def start(self, last: Mapping[int, Published], weights: Mapping[int, int]) -> tuple[Blocks, tuple[Input, ...]]:
        """The aggregate that this node starts a round from, and what it is made of.

        Who is gated by this node's own review, or whose model failed a check, is left out. If nothing is left, the node
        goes on from its own model; if it has none, from what the others have, gates or not.

        Args:
            last: The models of the round to go on from.
            weights: What the contract's settlement of that round gives them; who weighs nothing is left out, whatever
                the way of joining.

        Raises:
            QrunError: no model has weight.
        """
        known = {j: p.update.blocks for j, p in sorted(last.items()) if p.update is not None and weights.get(j, 0) > 0}
        usable = {j: blocks for j, blocks in known.items() if j not in self.gated}
        own = last.get(self.index)
        if not usable and own is not None and own.update is not None:
            return own.update.blocks, (Input(own.cid, 1),)
        usable = usable or known
        if not usable:
            raise QrunError(f"node {self.index} has no model to go on from.")
        return joined(self.federation, usable, weights), tuple(Input(last[j].cid, weights[j]) for j in usable)

    # -- its own work -----------------------------------------------------------------------------------------------

    def train(self, round_: int, start: Blocks, progress: Progress | None = None) -> Trained:
        """Train the round's epochs from an aggregate."""
        return self.model.train(
            dequantise(start),
            self.train_features,
            epochs=self.model.settings.epochs,
            seed=derive(self.seed, "train", self.index, round_),
            progress=progress,
            private=self.private(),
        )

    def private(self) -> Private | None:
        """How the model looks at this node's training records: None where its settings ask for no epsilon.

        Raises:
            UsageError: no noise keeps to the epsilon.
            QrunError: what counts it is not installed.
        """
        if self.model.settings.dp is None:
            return None
        if self.rounds is None:
            raise ValueError("an epsilon is of a number of rounds")
        return Private.within(budget(self.model.settings, self.rounds, len(self.train_features)))

    def fine_tune(
        self, round_: int, model: QGAN, start: Parameters, steps: int, progress: Progress | None = None
    ) -> Trained:
        """Go on training on a device.

        Args:
            round_: The round.
            model: The same model on the device, its executor open.
            start: What training on the twin came to.
            steps: Generator steps.
            progress: Called after every step, with the steps done on the device.
        """
        return model.train(
            start,
            self.train_features,
            epochs=1,
            steps=steps,
            seed=derive(self.seed, "fine-tune", self.index, round_),
            progress=progress,
        )

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
        models, losses = self._tried(published)
        grades = self.grader.review(Flat.of(dequantise(start)), models, losses) | self._failed(published)
        self.gated = {j for j, grade in grades.items() if grade.gated}
        return grades

    def review_new(
        self, starts: Mapping[int, tuple[int, Blocks]], published: Mapping[int, Published], among: Collection[int]
    ) -> dict[int, Grade]:
        """Grade every peer that submitted to this window of an asynchronous task; a model that failed a check gets 0.

        Who is gated stays so until it submits again. A node that has submitted nothing yet grades nobody, and has
        nothing to commit to.

        Args:
            starts: Of each model that passed the checks its view, and what it was trained from: the join of its inputs.
            published: The window's submissions.
            among: The nodes that are active in it.
        """
        models, losses = self._tried(published)
        flat = {j: (starts[j][0], Flat.of(dequantise(starts[j][1]))) for j in models}
        grades = self.grader.review_new(flat, models, losses, among)
        if self.grader.has_moved:
            grades |= self._failed(published)
        self.gated = (self.gated - set(grades)) | {j for j, grade in grades.items() if grade.gated}
        return grades

    def _tried(self, published: Mapping[int, Published]) -> tuple[dict[int, Flat], dict[int, float]]:
        """The models that passed the checks, and their losses on the node's benign validation records."""
        x = self.validation_features[: self.grades.records]
        models = {j: dequantise(p.update.blocks) for j, p in published.items() if p.update is not None}
        return {j: Flat.of(m) for j, m in models.items()}, {j: self.model.benign_loss(m, x) for j, m in models.items()}

    def _failed(self, published: Mapping[int, Published]) -> dict[int, Grade]:
        failed = Grade(0, gated=True, fault="its model failed a check")
        return {j: failed for j, p in published.items() if j != self.index and p.update is None}


def joined(settings: FederationSettings, models: Mapping[int, Blocks], weights: Mapping[int, int]) -> Blocks:
    """Models by node as one, in the order of nodes, by the run's way of joining."""
    order = sorted(models)
    share = settings.hostile_share
    return join(settings.aggregation, [models[j] for j in order], [weights[j] for j in order], share)
