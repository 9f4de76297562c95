"""The task from the agreed map to the final model. There is no aggregator: each peer makes its own aggregate.

What is done already is read from the chain, so that a run that was killed goes on where it stopped (runner/round.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from backends.runtime.labels import labelled
from backends.runtime.ledger import JobLedger
from circuits.errors import QrunError
from contracts.records import SettlementRecord
from contracts.rounds import FederatedRounds
from contracts.store import ContentStore
from experiments.features.map import FeatureMap
from experiments.metrics import IntArray, Metrics
from experiments.models.qgan import QGAN
from experiments.models.score import Calibration, Scorer
from runner.config import RunConfig
from runner.contribution import Member
from runner.measure import Judge, SecureSum, calibrate_together, count_attacks, measure_together
from runner.node import Peer
from runner.progress import NodeRound, Reporter, RoundResult, Verdict, as_json
from runner.publishing import Publishing, common_model
from runner.round import RoundPlayer
from runner.seeds import generator
from runner.store import RunStore
from runner.update import dequantise, quantise


@dataclass(frozen=True)
class Final:
    """The finished model.

    Attributes:
        cid: Of the common aggregate of round `base`.
        metrics: Its metrics.
        nodes: Those of each node's own last model.
        scorer: What the metrics were scored with ...
        calibration: ... and what it was calibrated on.
        attacks: Counts of the scores of all nodes' attack records of the validation part, in the calibration's bins.
    """

    cid: str
    base: int
    metrics: dict[str, Metrics | None]
    nodes: dict[int, dict[str, Metrics | None]]
    scorer: Scorer
    calibration: Calibration
    attacks: IntArray


@dataclass
class Federation:
    """All peers of a run in one process.

    Attributes:
        members: The nodes, in the task's order.
        secure_sum: (stage, one array a node) -> their sum, under masks. Masks cancel only if every registered node adds
            its own: a node that was excluded still takes part in sums (of the calibration, of the validation figures),
            though no model of it counts any more.
        memory: The run's state on disk.
        ledger: Of the jobs on devices, where the run sends any.
    """

    config: RunConfig
    members: Sequence[Member]
    contract: FederatedRounds
    store: ContentStore
    secure_sum: SecureSum
    memory: RunStore
    reporter: Reporter
    publishing: Publishing = field(init=False)
    ledger: JobLedger | None = None

    @property
    def peers(self) -> list[Peer]:
        """The nodes' peers, in order."""
        return [member.peer for member in self.members]

    # -- round 0 ----------------------------------------------------------------------------------------------------

    def use_map(self, feature_map: FeatureMap, against: Collection[int] = ()) -> str:
        """Publish config and agreed map, have the nodes state the map's digest on the chain, and use it; its CID.

        Args:
            feature_map: What the sums gave.
            against: Nodes whose records it does not describe (experiments/features/fit.py): they do not state it.

        Raises:
            QrunError: too few state it: a node put made-up records into the sums, or they have too little in common.
        """
        cid = put_config_and_map(self.config, feature_map, self.store)
        for member in self.members:
            if member.peer.index not in against:
                self.contract.agree_map(member.account, cid)
            member.peer.use_map(feature_map, cid)
        if against and self.contract.map_digest() is None:
            raise QrunError(
                f"the feature map does not describe the records of {len(against)} nodes, and finds no quorum: a node "
                "put made-up records into its sums, or the nodes have too little in common.",
                "Take a less uneven --partition, or set federation.map_variance = 0 and federation.map_shift = 1e9.",
            )
        self.publishing = publishing_for(self.config, self.contract, self.store, self.members[0].peer.model, cid)
        return cid

    # -- rounds -----------------------------------------------------------------------------------------------------

    def play(self) -> list[RoundResult]:
        """Play until the task has ended; the settled rounds, in order, those that a rollback has taken back marked."""
        contract = self.contract
        player = RoundPlayer(self.members, contract, self.publishing, self.memory, self.reporter, ledger=self.ledger)
        player.recall(contract.base())  # what the store has lost is there again before anybody reads it
        # Nobody votes for a rollback while a run is being played.
        void = contract.voided()
        settled = [number for number in contract.rounds() if contract.settlement(number) is not None]
        told = [self._tell(number, void) for number in settled]
        while number := contract.open_round():
            player.play(number)
            told.append(self._tell(number, void))
        return told

    def _tell(self, number: int, void: Collection[int]) -> RoundResult:
        """Tell what became of a settled round, and give it."""
        settled = self.contract.settlement(number)
        if settled is None:
            raise QrunError(f"round {number} was played, and the chain shows no settlement of it.", "Resume the run.")
        result = self._result(number, settled, number in void)
        self.memory.put(f"told/{number}", as_json([result])[0])  # for who looks on while the run goes on
        self.reporter.round_done(result)
        for node in result.nodes:
            if node.fault:
                self.reporter.notice("Absent", f"Round {number}: node {node.node} counts as absent: {node.fault}")
        for gone in result.verdict.excluded:
            self.reporter.notice("Excluded", f"Round {number}: node {gone} is excluded from the task.")
        return result

    def _result(self, number: int, settled: SettlementRecord, void: bool) -> RoundResult:
        """What became of a settled round."""
        contract = self.contract
        key = f"outcome/{number}/{contract.base_of(number)}"
        known: dict[str, Any] | None = self.memory.get(key)
        if known is None:
            with self.memory.phase("validation"):
                published = self.publishing.published(number)
                known = {
                    "aggregate": self._measure_aggregate(number).to_dict(),
                    "faults": {str(j): p.fault for j, p in published.items() if p.update is None},
                }
            self.memory.put(key, known)
        submissions, graded = contract.submissions(number), contract.grades(number)
        return RoundResult(
            number=number,
            base=contract.base_of(number),
            nodes=tuple(
                NodeRound(
                    node=s.node,
                    cid=s.cid,
                    tx=s.tx,
                    metrics=s.metrics,
                    grades=graded.get(s.node, {}),
                    reputation=settled.reputation[s.node] / 100,
                    losses=self._losses(number, s.node),
                    signature=s.signature,
                    resources=s.resources,
                    fault=known["faults"].get(str(s.node), ""),
                )
                for s in submissions
            ),
            aggregate=known["aggregate"],
            source=contract.task.data_source,
            verdict=Verdict.of(settled),
            absent=tuple(sorted(contract.active(number) - {s.node for s in submissions})),
            void=void,
        )

    def counted(self, number: int, base: int, node: int) -> dict[str, float]:
        """Tag -> QPU seconds of the jobs that a node's statement of a round counts; empty where it made none."""
        known: dict[str, Any] | None = self.memory.get(f"measured/{number}/{base}/{node}")
        return {} if known is None else dict(known["counted"])

    def _losses(self, number: int, node: int) -> dict[str, Any]:
        known = self.memory.get(f"trained/{number}/{self.contract.base_of(number)}/{node}")
        return {} if known is None else dict(known["losses"])

    def _measure_aggregate(self, number: int) -> Metrics:
        base, blocks, inputs = self.publishing.aggregate(number)
        peer = self.members[0].peer
        with labelled("aggregate", round_=number, base=self.contract.base_of(number)), peer.model.executor:
            scorer = peer.scorer(dequantise(blocks), number)
        stage = stage_of(f"round/{number}", common_model(self.config, self.publishing.map_cid, base, blocks, inputs))
        calibration = calibrate_together(scorer, self.peers, self.secure_sum, stage)
        return measure_together(scorer, calibration, self.peers, self.secure_sum, stage)

    # -- after the last round ---------------------------------------------------------------------------------------

    def final(self, judge: Judge) -> Final:
        """Make the final aggregate, publish it, and score it and every node's last model, once."""
        last = self.contract.base()
        base, blocks, inputs = self.publishing.aggregate(last)
        model = common_model(self.config, self.publishing.map_cid, base, blocks, inputs)
        cid = self.store.put(model)
        peer = self.members[0].peer
        # On a device this asks for what was measured after the round: it is answered from the job that is kept.
        with labelled("final", round_=base), peer.model.executor:
            scorer = peer.scorer(dequantise(blocks), base)
        calibration = self.calibrate(scorer, "final", model)
        attacks = count_attacks(scorer, calibration, self.peers, self.secure_sum, stage_of("final", model))
        metrics = judge.score(scorer, calibration)
        nodes = {}
        for j, published in sorted(self.publishing.published(base).items() if base else []):
            if published.update is None:
                continue
            with labelled("final", round_=base, node=j), self.peers[j].model.executor:
                own = self.peers[j].scorer(dequantise(published.update.blocks), base)
            nodes[j] = judge.score(own, own.calibrate(self.peers[j].validation_features))
        return Final(cid, base, metrics, nodes, scorer, calibration, attacks)

    def calibrate(self, scorer: Scorer, name: str, data: bytes) -> Calibration:
        """The calibration of a scorer on all nodes' benign records; `data` are what the scorer was made of."""
        return calibrate_together(scorer, self.peers, self.secure_sum, stage_of(name, data))


def put_config_and_map(config: RunConfig, feature_map: FeatureMap, store: ContentStore) -> str:
    """Publish the config, whose digest the task has (it is its CID's), and the agreed map; the map's CID."""
    store.put(config.canonical())
    return store.put(feature_map.to_bytes())


def publishing_for(
    config: RunConfig, contract: FederatedRounds, store: ContentStore, model: QGAN, map_cid: str
) -> Publishing:
    """What passes between the peers from the common start on, which the config's seed gives and which is published."""
    start = quantise(model.initial(generator(config.seed, "initial")))
    start_cid = store.put(common_model(config, map_cid, 0, start, ()))
    return Publishing(config, contract, store, model.shapes(), map_cid, start_cid)


def stage_of(name: str, data: bytes) -> str:
    """A name for sums about a model: no mask is used for two models, also when a resumed run made another."""
    return f"{name}/{hashlib.sha256(data).hexdigest()[:32]}"
