"""The masked sums of peers in processes of their own, added up again from what they announced on the chain.

Masks cancel in the total, so that no key and no record is needed: the announced arrays give the totals, these the
feature map, stage by stage, and after the end the counts that the threshold rests on. Who takes part in a sum, and in
which attempt, is a function of the log (runner/peers/sums.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from circuits.errors import QrunError
from contracts.cid import RAW, Cid, cid_of
from contracts.errors import ContentError
from contracts.history import History
from experiments.features.agreement import begin
from experiments.features.map import FeatureMap
from experiments.features.secure_sum import total
from experiments.features.stage import Stage
from experiments.models.qgan import QGAN
from experiments.models.score import BINS, Calibration, Scorer
from runner.audit.checks import Findings
from runner.audit.models import FinalModel
from runner.audit.sources import Reader
from runner.audit.task_view import TaskView
from runner.config import RunConfig
from runner.federation import stage_of
from runner.peers.sums import LEAST, Announced, Attempt, attempt_at, topic_of
from runner.update import MAX_BYTES

IntArray = npt.NDArray[np.int64]
MAP = "the masked arrays that the nodes announced, added up, give the agreed feature map"
GONE = "it is in no store that was given: nobody needs it any more, and its node may have let it go"


@dataclass(frozen=True)
class Calibrated:
    """What the last sums came to.

    Attributes:
        roster: Whose benign records are counted in them.
        threshold: Of the final model on these; None where an array is gone, or the counts are none.
    """

    roster: tuple[int, ...]
    threshold: float | None


@dataclass(frozen=True)
class _Total:
    """A complete sum: of whom, and what it comes to (None: an array is gone, or was none)."""

    roster: tuple[int, ...]
    values: IntArray | None


@dataclass
class AnnouncedSums:
    """The sums of a task, as its log has them.

    Attributes:
        findings: Where statements are noted.
        config: The run's.
        view: The task.
        history: Its log: when what was announced.
        store: Where the arrays are.
        rosters: Of the complete sums of the feature map, by the stage's title.
    """

    findings: Findings
    config: RunConfig
    view: TaskView
    history: History
    store: Reader
    rosters: dict[str, tuple[int, ...]] = field(default_factory=dict)
    _known: set[bytes] = field(default_factory=set)
    _whole: bool = False

    def __post_init__(self) -> None:
        self._times = {call.block: call.time for call in self.history.calls}

    def check_map(self) -> None:
        """The agreement, all its stages, from the announced arrays: does it come to the agreed map?"""
        digest = self.view.state.map_digest
        roster = self.first
        if len(roster) < LEAST:
            self.findings.skipped("feature map/sums", MAP, "one node began the task: its totals went unmasked, unsent")
            return
        stage: Stage | FeatureMap = begin(self.config.model.features)
        while isinstance(stage, Stage):
            done = self._sum(stage.title, stage.name, (stage.length,), roster)
            if done is None:
                self._note_map("" if digest is None else f"the sum {stage.title!r} was never complete")
                return
            self.rosters[stage.title] = roster = done.roster
            if done.values is None:
                self.findings.skipped("feature map/sums", MAP, f"an array of the sum {stage.title!r} cannot be had")
                return
            try:
                stage = stage.advance(done.values)
            except QrunError as error:
                self._note_map("" if digest is None else error.message)
                return
        self._whole = True
        made = str(cid_of(stage.to_bytes()))
        self._note_map("" if digest is None or made == str(Cid(RAW, digest)) else f"they give {made}")

    def _note_map(self, wrong: str) -> None:
        digest = self.view.state.map_digest
        if digest is None:
            self.findings.skipped("feature map/sums", MAP, "the task is not that far")
        else:
            self.findings.test(not wrong, "feature map/sums", MAP, wrong, str(Cid(RAW, digest)))

    def calibration(self, final: FinalModel, model: QGAN) -> Calibrated | None:
        """The threshold of the final model that the last sums give; None where they are not complete.

        Args:
            final: The final model.
            model: A model of its shapes; no circuit of it is run.
        """
        roster = tuple(node.index for node in self.view.nodes() if not node.excluded)
        if len(roster) < LEAST:
            return Calibrated(roster, None)
        stage = stage_of("final", final.data)
        # Given samples, whatever they are, no circuit is run: bins and threshold do not depend on them.
        scorer = Scorer(model, {}, samples=np.zeros((1, model.features)))
        parts = self._sum("final/parts", f"{stage}/parts", (len(scorer.ranges), BINS), roster)
        score = None if parts is None else self._sum("final/score", f"{stage}/score", (BINS,), parts.roster)
        if parts is None or score is None:
            return None
        if parts.values is None or score.values is None:
            return Calibrated(score.roster, None)
        counts = {*parts.values.sum(axis=1).tolist(), int(score.values.sum())}
        sound = bool((parts.values >= 0).all() and (score.values >= 0).all()) and len(counts) == 1 and counts != {0}
        sound = self.findings.test(
            sound, "announcements/final/counts", "the totals of the final calibration are counts of the same records",
            "they are no counts: an announced array is made up",
        )  # fmt: skip
        if not sound:
            return Calibrated(score.roster, None)
        return Calibrated(score.roster, scorer.threshold(Calibration(parts.values, score.values)))

    def check_others(self) -> None:
        """What was announced besides, where all sums are known (the names of later ones hang on earlier totals)."""
        for one in self.view.state.announced if self._whole else ():
            if one.topic not in self._known:
                self.findings.skipped(
                    f"announcements/{one.tx}/topic", f"node {one.node} announces its part of a sum of this task",
                    f"no sum that is known here has the topic {one.topic.hex()[:16]}", one.tx,
                )  # fmt: skip

    # -- one sum ----------------------------------------------------------------------------------------------------

    @property
    def first(self) -> tuple[int, ...]:
        """Those whose coming completed the task's beginning, by the order of the log."""
        came = [int(e.args["node"]) for e in self.history.entries if e.name == "NodeRegistered"]
        least = self.view.state.min_nodes
        return tuple(sorted(came[:least]))

    def _board(self, topic: bytes) -> Mapping[int, Announced]:
        said = self.view.announcements(topic)
        return {j: Announced(a.cid, self._times[a.block]) for j, a in said.items()}

    def _sum(self, title: str, name: str, shape: tuple[int, ...], roster: tuple[int, ...]) -> _Total | None:
        """A sum of at least two nodes; None where it is not complete."""
        if len(roster) < LEAST:
            return None
        seconds, now = self.config.federation.sums_wait, self.history.head_time
        attempt = attempt_at(self._board, name, roster, seconds, now)
        topics = [topic_of(name, number) for number in range(attempt.number + 1)]
        self._known.update(topics)
        arrays = {}
        for number, topic in enumerate(topics):
            for node, said in self._board(topic).items():
                found = self._array(f"{title}/{number}/{node}", title, node, said.cid, shape)
                if number == attempt.number and node in attempt.roster:
                    arrays[node] = found
        self._note_complete(title, attempt)
        if not attempt.complete:
            return None
        if any(arrays[j] is None for j in attempt.roster):
            return _Total(attempt.roster, None)
        return _Total(attempt.roster, total([a for j in attempt.roster if (a := arrays[j]) is not None]))

    def _note_complete(self, title: str, attempt: Attempt) -> None:
        id_ = f"announcements/{title}/complete"
        if attempt.complete:
            who = f"nodes {list(attempt.roster)}" + (f" in attempt {attempt.number}" if attempt.number else "")
            self.findings.test(True, id_, f"the sum {title!r} is complete: of {who}")
        else:
            self.findings.skipped(
                id_, f"the sum {title!r} is complete", f"nodes {list(attempt.missing)} have announced nothing to it"
            )

    def _array(
        self, where: str, title: str, node: int, cid: str, shape: tuple[int, ...]
    ) -> npt.NDArray[np.uint64] | None:
        """An announced array; None where it cannot be had, or is none."""
        id_, claim = f"announcements/{where}/array", f"node {node} announced an array of the sum {title!r}'s size"
        try:
            data = self.store.get(cid, max_bytes=MAX_BYTES)
        except ContentError as error:
            self.findings.skipped(id_, claim, f"{GONE} ({error.message})", cid)
            return None
        size = 8 * int(np.prod(shape))
        if not self.findings.test(len(data) == size, id_, claim, f"it has {len(data)} bytes, not {size}", cid):
            return None
        return np.frombuffer(data, dtype="<u8").astype(np.uint64).reshape(shape)
