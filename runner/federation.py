"""The rounds: train, publish, submit, grade, settle. There is no aggregator: each peer makes its own aggregate.

What is done already is read from the chain, so that a run that was killed goes on where it stopped: a submission that
the chain has is never made again, and a model that the store has is never trained again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from eth_account.signers.local import LocalAccount

from circuits.errors import QrunError
from contracts.rounds import FederatedRounds
from contracts.store import ContentStore
from experiments.features.map import FeatureMap
from experiments.metrics import Metrics
from runner.config import RunConfig
from runner.measure import Judge, SecureSum, calibrate_together, measure_together
from runner.node import Peer, Published
from runner.progress import NodeRound, Reporter, RoundResult
from runner.seeds import generator
from runner.store import RunStore
from runner.update import MAX_BYTES, Blocks, Input, Update, aggregate, dequantise, parse_update, quantise

COMMON = -1
"""Node index of models that belong to nobody: the common start, and the final aggregate."""


@dataclass(frozen=True)
class Final:
    """The finished model: CID of the reputation-weighted aggregate, its metrics, and those of each node's own."""

    cid: str
    metrics: dict[str, Metrics | None]
    nodes: dict[int, dict[str, Metrics | None]]


@dataclass
class Federation:
    """All peers of a run in one process.

    Attributes:
        accounts: One a peer, in its order.
        secure_sum: (stage, one array a node) -> their sum, under masks.
        memory: The run's state on disk.
    """

    config: RunConfig
    peers: Sequence[Peer]
    accounts: Sequence[LocalAccount]
    contract: FederatedRounds
    store: ContentStore
    secure_sum: SecureSum
    memory: RunStore
    reporter: Reporter
    start_cid: str = ""
    last: dict[int, Published] = field(default_factory=dict)

    # -- round 0 ----------------------------------------------------------------------------------------------------

    def use_map(self, feature_map: FeatureMap) -> str:
        """Publish the agreed map, have every node state its digest on the chain, and use it; its CID."""
        cid = self.store.put(feature_map.to_bytes())
        for peer, account in zip(self.peers, self.accounts, strict=True):
            self.contract.agree_map(account, cid)
            peer.use_map(feature_map, cid)
        start = self.peers[0].model.initial(generator(self.config.seed, "initial"))
        update = Update(self.config.digest.hex(), cid, 0, COMMON, quantise(start), ())
        self.start_cid = self.store.put(update.to_bytes())
        return cid

    # -- a round ----------------------------------------------------------------------------------------------------

    def _start(self, peer: Peer, round_: int, reputation: Mapping[int, int]) -> tuple[Blocks, tuple[Input, ...]]:
        if round_ > 1:
            return peer.start(self.last, reputation)
        common = peer.fetch(self.start_cid, 0, COMMON).update
        if common is None:
            raise QrunError(f"the common start {self.start_cid} is not in the store, or is damaged.")
        return common.blocks, (Input(self.start_cid, 1),)

    def _train(self, peer: Peer, round_: int, start: Blocks, inputs: tuple[Input, ...], cid: str | None) -> str:
        """Train and publish; or find what an earlier attempt published, `cid` if the chain has it. The CID.

        A model that was published and is not in the store any more is trained again: it has to come out the same.

        Raises:
            QrunError: it did not.
        """
        known = self.memory.get(f"trained/{round_}/{peer.index}")
        wanted = cid if cid is not None else (None if known is None else str(known["cid"]))
        per_epoch = peer.model.settings.steps_per_epoch
        if wanted is not None and known is not None and self.store.has(wanted):
            self.reporter.skip(peer.model.settings.epochs * per_epoch)
            return wanted

        def progress(done: int, generator_loss: float, discriminator_loss: float) -> None:
            epoch = (done - 1) // per_epoch + 1
            self.reporter.step(round_, peer.index, epoch, generator_loss, discriminator_loss)

        with self.memory.phase("training"), peer.model.executor:
            trained = peer.train(round_, start, progress)
        made = peer.publish(round_, trained, inputs)
        if wanted is not None and made != wanted:
            raise QrunError(
                f"node {peer.index}'s model of round {round_} ({wanted}) is not in the store, and training it again "
                "gives another one.",
                "The run goes on only where its blocks are, or with the versions that it was begun with.",
            )
        losses = {"generator": trained.generator_loss, "discriminator": trained.discriminator_loss}
        self.memory.put(f"trained/{round_}/{peer.index}", {"cid": made, "losses": losses})
        return made

    def round(self, number: int) -> RoundResult:
        """Play one round, or whatever of it is not done yet."""
        before = self.contract.reputation_after(number - 1) if number > 1 else []
        reputation = dict(enumerate(before))
        starts = {}
        submitted = {s.node: s for s in self.contract.submissions(number)}
        for peer, account in zip(self.peers, self.accounts, strict=True):
            start, inputs = self._start(peer, number, reputation)
            starts[peer.index] = start
            earlier = submitted.get(peer.index)
            cid = self._train(peer, number, start, inputs, None if earlier is None else earlier.cid)
            if earlier is not None:
                continue
            with self.memory.phase("validation"), peer.model.executor:
                update = parse_update(self.store.get(cid, max_bytes=MAX_BYTES), peer.model.shapes())
                metrics = peer.measure(update)
            with self.memory.phase("chain"):
                self.contract.submit(account, number, cid, metrics.to_dict())
        submissions = {s.node: s for s in self.contract.submissions(number)}
        graded = self.contract.grades(number)
        for peer, account in zip(self.peers, self.accounts, strict=True):
            with self.memory.phase("grading"):
                published = {j: peer.fetch(s.cid, number, j) for j, s in submissions.items()}
                grades = peer.review(starts[peer.index], published)
            if peer.index not in graded:
                with self.memory.phase("chain"):
                    self.contract.grade(account, number, {j: g.value for j, g in grades.items()})
            self.last = published
        with self.memory.phase("chain"):
            if self.contract.settled_rounds() < number:
                self.contract.settle(self.accounts[0], number)
            graded = self.contract.grades(number)
            after = self.contract.reputation_after(number)
        known: dict[str, float] | None = self.memory.get(f"aggregate/{number}")
        if known is None:
            with self.memory.phase("validation"):
                known = self._measure_aggregate(number, after).to_dict()
            self.memory.put(f"aggregate/{number}", known)
        result = RoundResult(
            number,
            tuple(
                NodeRound(
                    node=j,
                    cid=s.cid,
                    tx=s.tx,
                    metrics=s.metrics,
                    grades=graded.get(j, {}),
                    reputation=after[j] / 100,
                    losses=self._losses(number, j),
                )
                for j, s in sorted(submissions.items())
            ),
            known,
            self.contract.task.data_source,
        )
        self.reporter.round_done(result)
        return result

    def _losses(self, round_: int, node: int) -> dict[str, Any]:
        known = self.memory.get(f"trained/{round_}/{node}")
        return {} if known is None else dict(known["losses"])

    def _aggregate(self, reputation: Sequence[int]) -> tuple[Blocks, tuple[Input, ...]]:
        """The reputation-weighted mean of the last models that passed every check."""
        usable = {j: p for j, p in sorted(self.last.items()) if p.update is not None}
        if not usable:
            raise QrunError("no node has published a model that passes the checks.")
        weights = {j: reputation[j] for j in usable}
        if sum(weights.values()) == 0:
            weights = dict.fromkeys(usable, 1)
        chosen = [j for j in usable if weights[j] > 0]
        models = [u for j in chosen if (u := usable[j].update) is not None]
        blocks = aggregate([u.blocks for u in models], [weights[j] for j in chosen])
        return blocks, tuple(Input(usable[j].cid, weights[j]) for j in chosen)

    def _measure_aggregate(self, round_: int, reputation: Sequence[int]) -> Metrics:
        blocks, inputs = self._aggregate(reputation)
        peer = self.peers[0]
        with peer.model.executor:
            scorer = peer.scorer(dequantise(blocks), round_)
        stage = self._stage(f"round/{round_}", self._common_model(round_, blocks, inputs))
        calibration = calibrate_together(scorer, self.peers, self.secure_sum, stage)
        return measure_together(scorer, calibration, self.peers, self.secure_sum, stage)

    def _common_model(self, round_: int, blocks: Blocks, inputs: tuple[Input, ...]) -> bytes:
        """The aggregate as it would be published."""
        config, cid = self.config.digest.hex(), self.peers[0].feature_map_cid
        return Update(config, cid, round_, COMMON, blocks, inputs).to_bytes()

    @staticmethod
    def _stage(name: str, model: bytes) -> str:
        """A name for sums about a model: no mask is used for two models, also when a resumed run made another."""
        return f"{name}/{hashlib.sha256(model).hexdigest()[:32]}"

    # -- after the last round ---------------------------------------------------------------------------------------

    def final(self, judge: Judge) -> Final:
        """Make the final aggregate, publish it, and score it and every node's last model, once."""
        rounds = self.config.rounds
        blocks, inputs = self._aggregate(self.contract.reputation_after(rounds))
        model = self._common_model(rounds, blocks, inputs)
        cid = self.store.put(model)
        peer = self.peers[0]
        with peer.model.executor:
            scorer = peer.scorer(dequantise(blocks), rounds)
        calibration = calibrate_together(scorer, self.peers, self.secure_sum, self._stage("final", model))
        metrics = judge.score(scorer, calibration)
        nodes = {}
        for j, published in sorted(self.last.items()):
            if published.update is None:
                continue
            with self.peers[j].model.executor:
                own = self.peers[j].scorer(dequantise(published.update.blocks), rounds)
            nodes[j] = judge.score(own, own.calibrate(self.peers[j].validation_features))
        return Final(cid, metrics, nodes)
