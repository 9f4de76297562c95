"""A node's part of a round before grades: its model, trained, signed and submitted; each of it once."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from eth_account.signers.local import LocalAccount

from backends.runtime.labels import labelled
from backends.runtime.ledger import JobLedger
from circuits.errors import QrunError
from contracts.errors import ContractRevert
from contracts.records import RESOURCE_NAMES, Phase
from contracts.rounds import FederatedRounds
from contracts.sending import MINED_TOO_LATE
from contracts.signatures import mldsa_key, sign
from experiments.models.qgan import QGAN, Trained
from runner.job_record import OF_A_NODE, ledger_seconds
from runner.keys import NodeKeys
from runner.meter import Meter
from runner.node import Peer
from runner.progress import Reporter
from runner.publishing import Publishing
from runner.store import RunStore
from runner.update import Blocks, Input, Update, UpdateError, blocks_digest, norm_allowed, quantise


@dataclass(frozen=True)
class OnDevice:
    """A node's model on the device that trained models go to (`[runtime] run_on`), its executor closed.

    Attributes:
        meter: Counts its circuits there.
        steps: Generator steps that go on there after the training of the last round.
    """

    model: QGAN
    meter: Meter
    steps: int


@dataclass(frozen=True)
class Member:
    """A node of this process: its peer, its account, its keys, what counts its circuits, and its model on a device."""

    peer: Peer
    account: LocalAccount
    keys: NodeKeys
    meter: Meter
    device: OnDevice | None = None

    @property
    def index(self) -> int:
        """The node's number."""
        return self.peer.index


@dataclass(frozen=True)
class Work:
    """A model to be made by a node.

    Attributes:
        number: What seeds call it: the round, or which of its own models it is.
        base: The round that it starts from.
        kept_as: What facts about it are kept under, after their name.
        last: Whether it is the task's last, which may go on to a device.
        write: (blocks, digest of the start) -> the model file.
    """

    number: int
    base: int
    kept_as: str
    last: bool
    write: Callable[[Blocks, str], bytes]


def _took(seconds: float, meter: Meter) -> dict[str, float]:
    """Resources, by name."""
    return dict(zip(RESOURCE_NAMES, (seconds, meter.circuits, meter.shots, meter.qpu_seconds), strict=True))


def _add(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    return {name: one[name] + other[name] for name in RESOURCE_NAMES}


def _told(trained: Trained, where: str, resources: Mapping[str, float]) -> dict[str, Any]:
    losses = {"generator": trained.generator_loss, "discriminator": trained.discriminator_loss}
    if trained.infidelity:
        losses["infidelity"] = trained.infidelity
    return {
        "parameters": trained.parameters,
        "losses": {f"{name}{where}": values for name, values in losses.items()},
        "resources": dict(resources),
    }


def in_time(step: Callable[[], object]) -> bool:
    """Take a step that a phase of the contract allows; False where the phase is over by now.

    A transaction that was fine when it was sent, and reverted when it was mined, came behind another in its block that
    ended the phase: two that settle at once, or a model behind the last second of a window.
    """
    try:
        step()
    except ContractRevert as error:
        if error.name not in ("WrongPhase", MINED_TOO_LATE):
            raise
        return False
    return True


def steps(member: Member, *, last: bool) -> int:
    """Generator steps of a node in a round; in the last one with those on the device."""
    settings = member.peer.model.settings
    tuned = 0 if member.device is None or not last else member.device.steps
    return settings.epochs * settings.steps_per_epoch + tuned


class Contributor:
    """Makes and submits the members' models.

    Args:
        contract: The task.
        publishing: Models and their checks.
        memory: The run's state on disk. What is kept is kept for a round and its base.
        reporter: Told of the training.
        ledger: Of the jobs on devices, where the run sends any.
        before_submitting: Called before a model is named on the chain: others must be able to fetch it.
    """

    def __init__(
        self,
        contract: FederatedRounds,
        publishing: Publishing,
        memory: RunStore,
        reporter: Reporter,
        *,
        ledger: JobLedger | None = None,
        before_submitting: Callable[[], None] = lambda: None,
    ) -> None:
        self.contract = contract
        self.publishing = publishing
        self.store = publishing.store
        self.memory = memory
        self.reporter = reporter
        self.ledger = ledger
        self.before_submitting = before_submitting

    def key(self, what: str, number: int, node: int) -> str:
        """What a fact about a node in a round is kept under."""
        return f"{what}/{number}/{self.contract.base_of(number)}/{node}"

    def steps(self, member: Member, number: int) -> int:
        """Generator steps of a node in a round."""
        return steps(member, last=self._last(number))

    def _last(self, number: int) -> bool:
        return number == self.contract.task.max_rounds

    def contribute(self, member: Member, number: int, start: Blocks, inputs: tuple[Input, ...]) -> None:
        """Train, measure, sign and submit, unless the chain has this node's model, or the time for it is over."""
        contract = self.contract
        earlier = contract.submission(number, member.index)
        if earlier is None and contract.phase() is not Phase.SUBMIT:
            self.reporter.skip(self.steps(member, number))
            self._tell_late(member, number)
            return
        wanted = None if earlier is None else earlier.cid
        kept, measured = self.make(member, self._work(member, number, inputs), start, wanted)
        if earlier is not None:
            self.sign(member, number, kept["cid"], earlier.signature)
        elif not self.submit(member, number, kept["cid"], measured):
            self._tell_late(member, number)

    def submit(self, member: Member, number: int, cid: str, measured: Mapping[str, Any]) -> bool:
        """Sign a model for a round and submit it; False where the time for that is over."""
        signature = self.sign(member, number, cid)
        self.before_submitting()
        with self.memory.phase("chain"):
            return in_time(
                lambda: self.contract.submit(
                    member.account,
                    number,
                    cid,
                    measured["metrics"],
                    signature=signature,
                    resources=measured["resources"],
                )
            )

    def _work(self, member: Member, number: int, inputs: tuple[Input, ...]) -> Work:
        """What a node does in a round."""
        peer, base = member.peer, self.contract.base_of(number)

        def write(blocks: Blocks, start: str) -> bytes:
            return Update(peer.config, peer.feature_map_cid, number, member.index, blocks, inputs, start).to_bytes()

        return Work(number, base, f"{number}/{base}/{member.index}", self._last(number), write)

    def _tell_late(self, member: Member, number: int) -> None:
        self.reporter.notice(
            "Deadline",
            f"The time to submit to round {number} is over: node {member.index} is absent from it, which costs it "
            "reputation.",
        )

    def make(
        self, member: Member, work: Work, start: Blocks, cid: str | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Train, and unless the chain has the model (`cid`), measure it.

        On a device both in one opening of the engine, so that it is asked for one session a node and round; it is
        closed before anything waits for others, and then it is known what the session was charged.

        Returns:
            What is kept of the training (`_train`), and of the measuring: metrics, and the resources of both.
        """
        key, meter = f"measured/{work.kept_as}", member.meter
        measured: dict[str, Any] | None = self.memory.get(key)
        engine = member.peer.model.executor
        with ExitStack() as opened:
            opened.enter_context(engine)
            kept = self._train(member, work, start, cid)
            if measured is not None or cid is not None:
                return kept, measured or {}
            if engine.name == "twin":  # no session that costs anything: what training took of memory can go
                opened.close()
                opened.enter_context(engine)
            meter.reset()
            begin = time.perf_counter()
            with self.memory.phase("validation"), self._labelled("measure", member, work):
                metrics = member.peer.measure(self.publishing.own(kept["cid"]))
            seconds = time.perf_counter() - begin
        took = _add(kept["resources"], _took(seconds, meter))
        counted: dict[str, float] = {}
        if self.ledger is not None:
            # The ledger knows more: what was settled late, and what an attempt that was killed has paid for.
            known = ledger_seconds(self.ledger, OF_A_NODE, (work.number, work.base, member.index))
            took["qpu_seconds"], counted = known.total, dict(known.jobs)
        resources = {name: round(value, 3) for name, value in took.items()}
        measured = {"metrics": metrics.to_dict(), "resources": resources, "counted": counted}
        self.memory.put(key, measured)
        return kept, measured

    def _labelled(self, purpose: str, member: Member, work: Work) -> AbstractContextManager[object]:
        return labelled(purpose, round_=work.number, base=work.base, node=member.index)

    def _train(self, member: Member, work: Work, start: Blocks, cid: str | None) -> dict[str, Any]:
        """Train and publish; or find what an earlier attempt published, `cid` if the chain has it.

        A model that was published and is not in the store any more is trained again: it has to come out the same. The
        engine is open.

        Returns:
            What is kept of it: cid, losses, and the resources that it took (never part of the model).

        Raises:
            QrunError: it did not, or training diverged.
        """
        peer, key = member.peer, f"trained/{work.kept_as}"
        known: dict[str, Any] | None = self.memory.get(key)
        wanted = cid if cid is not None else (None if known is None else str(known["cid"]))
        if wanted is not None and known is not None and self.store.has(wanted):
            self.reporter.skip(steps(member, last=work.last))
            return known
        trained = self._parameters(member, work, start)
        blocks = quantise(trained["parameters"])
        bound = peer.grades.norm_bound
        for name, block in blocks.items():
            if not norm_allowed(block.reshape(-1).tolist(), bound):
                raise UpdateError(
                    f"training diverged: the norm of block {name} of node {member.index} is beyond {bound}, and its "
                    "peers would refuse it.",
                    "Lower model.generator_rate or model.discriminator_rate, or raise grades.norm_bound.",
                )
        made = self.store.put(work.write(blocks, blocks_digest(start)))
        if wanted is not None and made != wanted:
            raise QrunError(
                f"node {member.index}'s model {work.number} ({wanted}) is not in the store, and training it again "
                "gives another one.",
                "The run goes on only where its blocks are, or with the versions that it was begun with.",
            )
        kept = known or {"cid": made, "losses": trained["losses"], "resources": trained["resources"]}
        self.memory.put(key, kept)
        return kept

    def _parameters(self, member: Member, work: Work, start: Blocks) -> dict[str, Any]:
        """Train, on a device too where the round asks for it: parameters (float64 arrays), losses and resources."""
        per_epoch = member.peer.model.settings.steps_per_epoch

        def progress(done: int, generator_loss: float, discriminator_loss: float) -> None:
            epoch = (done - 1) // per_epoch + 1
            self.reporter.step(work.number, member.index, epoch, generator_loss, discriminator_loss)

        def train() -> dict[str, Any]:
            member.meter.reset()
            begin = time.perf_counter()
            with self.memory.phase("training"), self._labelled("train", member, work):
                trained = member.peer.train(work.number, start, progress)
            return _told(trained, "", _took(time.perf_counter() - begin, member.meter))

        device = member.device
        if device is None or not device.steps or not work.last:
            return train()
        key = f"before the device/{work.kept_as}"
        begun: dict[str, Any] | None = self.memory.get(key)
        if begun is None:
            begun = train()
            # Kept whole: what the device is asked for must not hang on how another machine rounds.
            plain = {name: block.tolist() for name, block in begun["parameters"].items()}
            self.memory.put(key, {**begun, "parameters": plain})
        else:
            self.reporter.skip(steps(member, last=False))
        return self._fine_tune(member, device, work, begun)

    def _fine_tune(self, member: Member, device: OnDevice, work: Work, begun: Mapping[str, Any]) -> dict[str, Any]:
        """Go on for some steps on the device, in a session of its own."""
        epoch = member.peer.model.settings.epochs + 1

        def progress(done: int, generator_loss: float, discriminator_loss: float) -> None:
            self.reporter.step(work.number, member.index, epoch, generator_loss, discriminator_loss)

        start = {name: np.asarray(block, dtype=np.float64) for name, block in begun["parameters"].items()}
        device.meter.reset()
        begin = time.perf_counter()
        with self.memory.phase("fine-tuning"), self._labelled("fine-tune", member, work), device.meter:
            trained = member.peer.fine_tune(work.number, device.model, start, device.steps, progress)
        told = _told(trained, "_on_device", _took(time.perf_counter() - begin, device.meter))
        return {
            "parameters": told["parameters"],
            "losses": {**begun["losses"], **told["losses"]},
            "resources": _add(begun["resources"], told["resources"]),
        }

    def sign(self, member: Member, number: int, cid: str, wanted: str | None = None) -> str:
        """Sign a model for a round and publish that, or find the signature that was made before; its CID.

        Raises:
            QrunError: the signature on the chain is not in the store, and cannot be made again (ML-DSA-65).
        """
        key = self.key("signed", number, member.index)
        known = wanted or self.memory.get(key)
        if known is not None and self.store.has(str(known)):
            return str(known)
        seed = member.keys.signing
        file = sign(
            self.publishing.statement(number, member.index, cid),
            member.account if seed is None else mldsa_key(seed),
        )
        made = self.store.put(file)
        if wanted is not None and made != wanted:
            raise QrunError(
                f"node {member.index}'s signature of round {number} ({wanted}) is not in the store.",
                "The run goes on only where its blocks are.",
            )
        self.memory.put(key, made)
        return made
