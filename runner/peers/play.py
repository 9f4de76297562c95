"""One peer of a task, from its data to its report; what chain and store have already is not done again."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from backends.runtime.labels import labelled
from circuits.errors import QrunError
from contracts.cid import parse_cid
from contracts.records import NodeRecord, Phase
from contracts.rounds import FederatedRounds
from contracts.store import ContentStore
from contracts.witness import Witness
from experiments.base import NodeShare
from experiments.datasets.types import Records
from experiments.features.secure_sum import ExchangeKey
from experiments.models.score import Calibration
from runner.contribution import Contributor, Member, steps
from runner.federation import publishing_for, stage_of
from runner.measure import Judge, calibrate_together
from runner.meter import Meter
from runner.models import model_for
from runner.newest import NewestModels
from runner.node import Peer
from runner.peers.agreeing import Agreement
from runner.peers.apart import get_ready, keep_little, return_memory
from runner.peers.asynchronous import Trainer, Validator, excluded
from runner.peers.asynchronous import play as play_windows
from runner.peers.places import PeerPlaces
from runner.peers.publish import with_the_others
from runner.peers.report import Outcome, build_report
from runner.peers.sums import Announced, AnnouncedSum, LeftOut
from runner.peers.task import Task, keys_for
from runner.peers.watch import Elsewhere, Watch
from runner.peers.witnessing import Witnessing
from runner.prepare import Prepared
from runner.privacy import tell_privacy
from runner.progress import Reporter
from runner.publishing import Publishing, common_model
from runner.round import RoundPlayer
from runner.store import RunStore, write_durably
from runner.update import dequantise
from runner.versions import versions

if TYPE_CHECKING:
    from eth_account.signers.local import LocalAccount

    from runner.keys import NodeKeys

REPORT = "report.json"


@dataclass
class PeerPlay:
    """A peer at work.

    Attributes:
        task: What it takes part in.
        account: Its account, and its other keys.
        places: Where the others are found.
        data: Folder of the data set's files; None to look for them.
        store: The content store, open.
        memory: Its state on disk, used by its threads.
        folder: Its own.
        reporter: Told of the progress.
        distrust: Whether the node behind --chain is held against a re-execution of the task.
    """

    task: Task
    account: LocalAccount
    keys: NodeKeys
    places: PeerPlaces
    data: Path | None
    store: ContentStore
    memory: RunStore
    folder: Path
    reporter: Reporter
    distrust: bool = True
    watch: Watch = field(init=False)
    _witness: Witnessing | None = None

    def __post_init__(self) -> None:
        self.watch = Watch(self.reporter)

    @property
    def contract(self) -> FederatedRounds:
        """The task's contract."""
        return self.task.contract

    def play(self) -> dict[str, Any]:
        """From the data to the report, which is kept in the folder and stated on the chain.

        Raises:
            QrunError, LedgerError: in one line that says what to do.
            Stopped: the process is to end.
        """
        threads = torch.get_num_threads()
        # One thread: the tensors are small, and results must not depend on how a sum is split over cores.
        torch.set_num_threads(1)
        keep_little()
        try:
            with ExitStack() as stack:
                return self._play(stack)
        finally:
            torch.set_num_threads(threads)

    def _play(self, stack: ExitStack) -> dict[str, Any]:
        config, contract, memory = self.task.config, self.contract, self.memory
        me = self._registered()
        known: dict[str, str] | None = memory.get("report")
        if known is not None:
            return self._conclude(known)
        with memory.phase("data"):
            ready = get_ready(config, self.data, me.index, self.reporter)
        self._check_source(ready.study.dataset.source)
        share, study, prepared = ready.share, ready.study, ready.prepared
        tell_privacy(config, {me.index: len(share.train)}, self.reporter)
        member = self._member(me, share, prepared)
        self.watch.until("the other nodes to join", self._complete)
        self._look()
        sums = self._sums(me, self._first_nodes())
        self.reporter.stage("agreeing on the feature map")
        with memory.phase("feature map"):
            agreement = Agreement(config, contract, self.store, self.watch, self.reporter)
            feature_map, map_cid = agreement.settle(member, share, sums)
        member.peer.use_map(feature_map, map_cid)
        publishing = self._publishing(member, map_cid)
        judge = Judge.of(study, feature_map).set_aside()
        # From here on features are worked with; the records, and with them most of the memory, can go.
        member.peer.share = NodeShare(*(_none(r) for r in (share.train, share.validation, share.attacks)))
        dataset = study.dataset
        del ready, study, share, feature_map
        return_memory()
        if config.federation.asynchronous:
            self._play_windows(member, publishing, stack)
        else:
            self._play_rounds(member, publishing)
        self.reporter.stage("measuring")
        with memory.phase("measuring"):
            outcome = self._final(member, publishing, judge, self._sums(me, self._left()))
        report = build_report(
            config=config, contract=contract, record=self._record(me.index), dataset=dataset, prepared=prepared,
            map_cid=map_cid, outcome=outcome, versions=versions(), memory=memory,
            witnessed=None if self._witness is None else self._witness.blocks,
        )  # fmt: skip
        cid = self.store.put(json.dumps(report, indent=2, allow_nan=False).encode())
        kept = {"cid": cid, "model": outcome.cid}
        memory.put("report", kept)
        return self._conclude(kept)

    # -- before the rounds --------------------------------------------------------------------------------------------

    def _registered(self) -> NodeRecord:
        """This node's record.

        Raises:
            QrunError: it has not joined, or with other keys.
        """
        nodes = self.watch.ask(self.contract.nodes)
        mine = next((n for n in nodes if n.address == self.account.address), None)
        if mine is None:
            raise QrunError(
                f"account {self.account.address} has not joined task {self.contract.address}.",
                f"First: qrun task join --task {self.contract.address} with the same --chain, --ipfs and --key.",
            )
        own = ExchangeKey.from_bytes(self.keys.exchange).public
        if mine.exchange_key != own or mine.signing_key != keys_for(self.task.config, self.keys):
            raise QrunError(
                f"node {mine.index} joined with other keys than this keystore holds.",
                "Take the one that it joined with.",
            )
        if mine.excluded:
            raise excluded(mine.index, self.contract.address)
        return mine

    def _record(self, index: int) -> NodeRecord:
        return next(n for n in self.watch.ask(self.contract.nodes) if n.index == index)

    def _complete(self) -> bool:
        """Whether as many have joined as the task begins with."""
        if self.contract.phase() is Phase.ENDED and not self.contract.rounds():
            raise QrunError("the task was abandoned before it began.", "Ask its opener for another one.")
        return len(self.contract.nodes()) >= self.contract.task.min_nodes

    def _first_nodes(self) -> list[int]:
        """Those whose coming completed the task's beginning: who sums up the feature map, by the log alone."""
        entries = [e for e in self.watch.ask(self.contract.entries) if e.name == "NodeRegistered"]
        return sorted(int(e.args["node"]) for e in entries[: self.contract.task.min_nodes])

    def _left(self) -> list[int]:
        """Who is still part of the task."""
        return [n.index for n in self.watch.ask(self.contract.nodes) if not n.excluded]

    def _sums(self, me: NodeRecord, roster: list[int]) -> AnnouncedSum:
        contract, chain = self.contract, self.contract.chain
        exchange = ExchangeKey.from_bytes(self.keys.exchange)

        def board(topic: bytes) -> dict[int, Announced]:
            said = contract.announcements(topic)
            return {j: Announced(a.cid, chain.block_time(a.block)) for j, a in said.items()}

        def announce(topic: bytes, cid: str) -> None:
            with_the_others(self.store, self.watch)
            self.watch.ask(lambda: contract.announce(self.account, topic, cid))

        return AnnouncedSum(
            me=me.index,
            key=exchange,
            keys=self.watch.ask(contract.exchange_keys),
            task=chain.chain_id.to_bytes(8, "big") + bytes.fromhex(contract.address[2:]),
            store=self.store,
            board=board,
            announce=announce,
            now=chain.time,
            wait=self.watch,
            roster=roster,
            seconds=self.task.config.federation.sums_wait,
            tell=lambda text: self.reporter.notice("Sum", text),
        )

    def _check_source(self, source: str) -> None:
        wanted = self.contract.task.data_source
        if source != wanted:
            raise QrunError(
                f"the task is on {wanted} data, and what is found here is {source}.",
                "Name the folder of the files with --data DIR.",
            )

    def _member(self, me: NodeRecord, share: NodeShare, prepared: Prepared) -> Member:
        config = self.task.config
        model = model_for(config, prepared.target, prepared.circuit, prepared.device)
        meter = model.executor = Meter(model.executor)
        peer = Peer(
            index=me.index,
            seed=config.seed,
            config=config.digest.hex(),
            share=share,
            model=model,
            federation=config.federation,
            grades=config.grades,
            rounds=config.rounds,
        )
        return Member(peer, self.account, self.keys, meter)

    def _publishing(
        self, member: Member, map_cid: str, contract: FederatedRounds | None = None, store: ContentStore | None = None
    ) -> Publishing:
        made = publishing_for(
            self.task.config, contract or self.contract, store or self.store, member.peer.model, map_cid
        )
        if not self.task.config.federation.asynchronous:
            return made
        return NewestModels(made.config, made.contract, made.store, made.shapes, made.map_cid, made.start_cid)

    def _look(self) -> None:
        """Hold what the node behind --chain says against a re-execution, where that is asked for."""
        if not self.distrust or self.contract.chain.kind == "embedded":
            return  # an embedded chain is executed here
        if self._witness is None:
            self._witness = Witnessing(Witness(self.contract.chain, self.contract.address), self.watch, self.reporter)
        with self.memory.phase("witness"):
            self._witness.look()

    # -- rounds -------------------------------------------------------------------------------------------------------

    def _elsewhere(self, watch: Watch, me: int) -> Elsewhere:
        return Elsewhere(watch, me, max(1, len(self.contract.nodes())))

    def _play_rounds(self, member: Member, publishing: Publishing) -> None:
        """In step with the others, until the task has ended."""
        contract, watch = self.contract, self.watch
        player = RoundPlayer(
            [member], contract, publishing, self.memory, self.reporter,
            others=self._elsewhere(watch, member.index),
            before_submitting=lambda: with_the_others(self.store, watch),
        )  # fmt: skip
        watch.ask(lambda: player.recall(contract.base()))
        self.reporter.begin(self._steps_left(member))
        told = contract.settled_rounds()
        while number := self._next_round(member):
            watch.ask(lambda n=number: player.play(n))  # type: ignore[misc]
            self._look()
            told = self._tell(told)

    def _steps_left(self, member: Member) -> int:
        left = self.task.config.rounds - self.watch.ask(self.contract.settled_rounds)
        return left * steps(member, last=False)

    def _next_round(self, member: Member) -> int:
        """The open round once this node takes part in it; 0 when the task has ended."""
        contract = self.contract

        def here() -> bool:
            number = contract.open_round()
            if any(n.index == member.index and n.excluded for n in contract.nodes()):
                raise excluded(member.index, contract.address)
            return contract.phase() is Phase.ENDED or (number > 0 and member.index in contract.active(number))

        self.watch.until("the next round", here)
        return self.watch.ask(contract.open_round)

    def _tell(self, told: int) -> int:
        """Say what was settled since; the last round that is."""
        now = self.watch.ask(self.contract.settled_rounds)
        for number in range(told + 1, now + 1):
            settled = self.contract.settlement(number)
            if settled is not None:
                words = " ".join(f"{i}:{r / 100:g}" for i, r in enumerate(settled.reputation))
                self.reporter.notice(f"Round {number}", f"is settled; reputation {words}.")
        return now

    def _play_windows(self, member: Member, models: Publishing, stack: ExitStack) -> None:
        """Without regard to the others, until the task has ended: training here, grading in a thread."""
        assert isinstance(models, NewestModels)
        watch = Watch(self.reporter, stop=threading.Event())
        trainer_watch = Watch(self.reporter, stop=watch.stop)
        # Log, caches and connections are one thread's; the chain's sender is made for several.
        contract = FederatedRounds.attach(self.contract.chain, self.contract.address)
        store = self.places.open_store()
        stack.callback(store.close)
        own = self._publishing(member, models.map_cid, contract, store)
        assert isinstance(own, NewestModels)
        contributor = Contributor(
            contract, own, self.memory, self.reporter,
            before_submitting=lambda: with_the_others(store, trainer_watch),
        )  # fmt: skip
        told = [self.contract.settled_rounds()]

        def look() -> None:
            self._look()
            told[0] = self._tell(told[0])

        parts = (self.memory, self.reporter)
        play_windows(
            Trainer(member, contract, own, *parts, trainer_watch, contributor),
            Validator(member, self.contract, models, *parts, watch, look, self._elsewhere(watch, member.index)),
        )

    # -- after the last round -----------------------------------------------------------------------------------------

    def _final(self, member: Member, publishing: Publishing, judge: Judge, sums: AnnouncedSum) -> Outcome:
        """The final aggregate, which all nodes make alike, scored with a threshold from all that are still there."""
        contract, peer = self.contract, member.peer
        last = self.watch.ask(contract.settled_rounds if self.task.config.federation.asynchronous else contract.base)
        base, blocks, inputs = self.watch.ask(lambda: publishing.aggregate(last))
        model = common_model(self.task.config, publishing.map_cid, base, blocks, inputs)
        cid = self.store.put(model)
        with labelled("final", round_=base), peer.model.executor:
            scorer = peer.scorer(dequantise(blocks), base)
        calibration, by = self._calibrated(scorer.calibrate, lambda: calibrate_together(
            scorer, [peer], sums, stage_of("final", model)), peer, sums)  # fmt: skip
        return Outcome(cid, base, judge.score(scorer, calibration), by)

    def _calibrated(
        self,
        alone: Callable[[Any], Calibration],
        together: Callable[[], Calibration],
        peer: Peer,
        sums: AnnouncedSum,
    ) -> tuple[Calibration, tuple[int, ...]]:
        """The calibration, and whose benign records it is of: all nodes', or where the others have gone one's own."""
        try:
            made = together()
            return made, tuple(sums.roster)
        except LeftOut as late:
            self.reporter.notice("Calibration", f"{late.message} The threshold is from this node's own records.")
            return alone(peer.validation_features), (peer.index,)

    def _conclude(self, report: dict[str, str]) -> dict[str, Any]:
        """State model and report on the chain, and write the report down; its last step."""
        data = self.store.get(report["cid"], max_bytes=1 << 24)
        with_the_others(self.store, self.watch)
        digests = parse_cid(report["model"]).digest, parse_cid(report["cid"]).digest
        with self.memory.phase("chain"):
            self.watch.ask(lambda: self.contract.conclude(self.account, *digests))
        write_durably(self.folder / REPORT, data)
        found: dict[str, Any] = json.loads(data)
        return found


def _none(records: Records) -> Records:
    """No records, of the same file."""
    return records.take(records.line[:0])
