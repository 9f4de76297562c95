"""What only the data show of a task that peers in processes of their own played: their reports, and their reviews."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from circuits.errors import QrunError
from experiments.base import Study
from experiments.features.agreement import begin, node
from experiments.features.map import FeatureMap
from experiments.features.secure_sum import plain_sum
from experiments.features.stage import Stage
from experiments.metrics import Metrics
from experiments.models.score import Calibration, Scorer
from runner.audit.models import FinalModel
from runner.audit.recompute import Again, Recomputation
from runner.config import RunConfig
from runner.measure import Judge, calibrate_together
from runner.newest import NewestModels
from runner.node import Peer
from runner.prepare import Prepared
from runner.result import describe_backend
from runner.update import dequantise


@dataclass(frozen=True)
class PeersRecomputation(Recomputation):
    """The same where each peer stated a report of its own.

    Attributes:
        reports: By the node that stated them.
        first: Who summed up the feature map first ...
        rosters: ... and who did in each stage, where that is known.
        final: The final model; None where there is none yet.
    """

    reports: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    first: tuple[int, ...] = ()
    rosters: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    final: FinalModel | None = None

    def _check_study(self, study: Study) -> None:
        """That these are the data that the reports name.

        Raises:
            QrunError: no report names them: nothing that is computed from them would say anything.
        """
        super()._check_study(study)
        found = {"name": study.dataset.name, "source": study.dataset.source, "sha256": dict(study.dataset.sha256)}
        told = {i: body["dataset"] for i, body in sorted(self.reports.items())}
        if told and all(one["sha256"] != found["sha256"] for one in told.values()):
            raise QrunError(
                "the data found are not those that the nodes' reports name: their hashes differ.",
                "Name the folder of the same files with --data.",
            )
        for i, one in told.items():
            self.findings.test(
                one == found, f"result/node/{i}/dataset/data", f"node {i}'s report names the data set that it is",
                f"it says {one}; it is {found}"[:300],
            )  # fmt: skip

    def _check_map(self, study: Study) -> None:
        stage: Stage | FeatureMap = begin(self.config.model.features)
        roster, id_ = self.first, "feature map/data"
        claim = "the agreed feature map is that of the records of the nodes that summed it up"
        if not roster or max(roster) >= len(study.shares):
            self.findings.skipped(id_, claim, "who did is not known, or has no share of the data")
            return
        try:
            while isinstance(stage, Stage):
                roster = self.rosters.get(stage.title, roster)
                parts = [node(study.shares[i].train)(stage) for i in roster]
                stage = stage.advance(plain_sum(stage.name, parts))
        except QrunError as error:
            self.findings.false(id_, claim, error.message, self.models.map_cid)
            return
        self.findings.test(
            stage.to_bytes() == self.feature_map.to_bytes(), id_, claim, "from the records another one follows",
            self.models.map_cid,
        )  # fmt: skip

    def _check_backend(self, config: RunConfig, prepared: Prepared) -> None:
        made = describe_backend(config, prepared.target, prepared.circuit, "")
        for i, body in sorted(self.reports.items()):
            told = dict(body["backend"])
            wrong = [
                f"{k}: it says {told.get(k)}, it is {v}" for k, v in made.items() if k != "device" and told.get(k) != v
            ]
            self.findings.test(
                not wrong and told.keys() == made.keys(), f"result/node/{i}/backend",
                f"node {i}'s backend and compiled generator are what its report says",
                "; ".join(wrong)[:300] or "it has other keys",
            )  # fmt: skip
            self.findings.attested(
                f"result/node/{i}/backend/device", f"node {i}: the torch device is the node's own statement",
                "it stated the digest of the report that holds it",
            )  # fmt: skip

    def _check_final(self, federation: Again, judge: Judge, study: Study, prepared: Prepared) -> None:
        """The final metrics of every report, with the calibration that it names."""
        final, known = self.final, dict[tuple[int, ...], dict[str, Metrics | None]]()
        if final is None or not self.reports:
            return
        with federation.peers[0].model.executor:
            scorer = federation.peers[0].scorer(dequantise(final.blocks), final.base)
        for i, body in sorted(self.reports.items()):
            by = tuple(body["final"]["calibrated_by"])
            if not self._have(by, federation):
                self.findings.skipped(
                    f"metrics/final/{i}", f"node {i}: the final metrics are those of the model on the data",
                    f"they rest on the records of nodes {list(by)}, which are not taken",
                )  # fmt: skip
                continue
            if by not in known:
                known[by] = judge.score(scorer, self._calibration(scorer, by, federation))
            for part, metrics in known[by].items():
                claim = f"node {i}: the final model's metrics on {part}"
                self._same(f"metrics/final/{i}/{part}", claim, body["metrics"][part], metrics)

    def _have(self, by: tuple[int, ...], federation: Again) -> bool:
        """Whether the records of these nodes are to be computed with."""
        there = bool(by) and all(0 <= j < len(federation.peers) for j in by)
        return there and (self.data.node is None or by == (self.data.node,))

    def _calibration(self, scorer: Scorer, by: tuple[int, ...], federation: Again) -> Calibration:
        """Of the nodes that a report names, as these calibrated; who came too late for the sums, more coarsely."""
        peers: list[Peer] = [federation.peers[j] for j in by]
        left = [node.index for node in self.models.view.nodes() if not node.excluded]
        if len(peers) == 1 and left != list(by):
            return scorer.calibrate(peers[0].validation_features)
        return calibrate_together(scorer, peers, plain_sum, "again")

    def _check_grades(self, federation: Again) -> None:
        """In step as one process does; of windows, one after the other, as each grader saw them."""
        models, only = self.models, self.data.node
        if not isinstance(models, NewestModels):
            super()._check_grades(federation)
            return
        rounds = sorted(models.view.state.rounds.items())
        for member in federation.members:
            if (only is None or member.index == only) and any(member.index in r.rows for _, r in rounds):
                member.peer.forget()
                for number, round_ in rounds:
                    published, starts = models.published(number), models.starts(number)
                    given = member.peer.review_new(starts, published, round_.active)
                    made = {j: grade.value for j, grade in given.items()}
                    if member.index in round_.rows:
                        self._compare_grades(number, member.index, round_.grades().get(member.index, {}), made)
