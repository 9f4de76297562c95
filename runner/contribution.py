"""A node's part of a round before grades: its model, trained, signed and submitted; each of it once."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from eth_account.signers.local import LocalAccount

from circuits.errors import QrunError
from contracts.errors import ContractRevert
from contracts.records import RESOURCE_NAMES, Phase
from contracts.rounds import FederatedRounds
from contracts.signatures import mldsa_key, sign
from runner.keys import NodeKeys
from runner.meter import Meter
from runner.node import Peer
from runner.progress import Reporter
from runner.publishing import Publishing
from runner.store import RunStore
from runner.update import Blocks, Input, Update, UpdateError, blocks_digest, norm_allowed, quantise


@dataclass(frozen=True)
class Member:
    """A node of this process: its peer, its account, its keys, and what counts its circuits."""

    peer: Peer
    account: LocalAccount
    keys: NodeKeys
    meter: Meter

    @property
    def index(self) -> int:
        """The node's number."""
        return self.peer.index


def in_time(step: Callable[[], object]) -> bool:
    """Take a step that a phase of the contract allows; False where the phase is over by now."""
    try:
        step()
    except ContractRevert as error:
        if error.name != "WrongPhase":
            raise
        return False
    return True


def steps(peer: Peer) -> int:
    """Generator steps of a round."""
    return peer.model.settings.epochs * peer.model.settings.steps_per_epoch


class Contributor:
    """Makes and submits the members' models.

    Args:
        contract: The task.
        publishing: Models and their checks.
        memory: The run's state on disk. What is kept is kept for a round and its base.
        reporter: Told of the training.
    """

    def __init__(self, contract: FederatedRounds, publishing: Publishing, memory: RunStore, reporter: Reporter) -> None:
        self.contract = contract
        self.publishing = publishing
        self.store = publishing.store
        self.memory = memory
        self.reporter = reporter

    def key(self, what: str, number: int, node: int) -> str:
        """What a fact about a node in a round is kept under."""
        return f"{what}/{number}/{self.contract.base_of(number)}/{node}"

    def contribute(self, member: Member, number: int, start: Blocks, inputs: tuple[Input, ...]) -> None:
        """Train, sign and submit, unless the chain has this node's model, or the time for it is over."""
        contract, peer = self.contract, member.peer
        earlier = contract.submission(number, member.index)
        if earlier is None and contract.phase() is not Phase.SUBMIT:
            self.reporter.skip(steps(peer))
            self._tell_late(member, number)
            return
        kept = self._train(member, number, start, inputs, None if earlier is None else earlier.cid)
        signature = self._sign(member, number, kept["cid"], None if earlier is None else earlier.signature)
        if earlier is not None:
            return
        with self.memory.phase("validation"), peer.model.executor:
            update = self.publishing.own(kept["cid"])
            metrics = peer.measure(update)
        with self.memory.phase("chain"):
            done = in_time(
                lambda: contract.submit(
                    member.account,
                    number,
                    kept["cid"],
                    metrics.to_dict(),
                    signature=signature,
                    resources=kept["resources"],
                )
            )
        if not done:
            self._tell_late(member, number)

    def _tell_late(self, member: Member, number: int) -> None:
        self.reporter.notice(
            "Deadline",
            f"The time to submit to round {number} is over: node {member.index} is absent from it, which costs it "
            "reputation.",
        )

    def _train(
        self, member: Member, number: int, start: Blocks, inputs: tuple[Input, ...], cid: str | None
    ) -> dict[str, Any]:
        """Train and publish; or find what an earlier attempt published, `cid` if the chain has it.

        A model that was published and is not in the store any more is trained again: it has to come out the same.

        Returns:
            What is kept of it: cid, losses, and the resources that it took (never part of the model).

        Raises:
            QrunError: it did not, or training diverged.
        """
        peer, key = member.peer, self.key("trained", number, member.index)
        known: dict[str, Any] | None = self.memory.get(key)
        wanted = cid if cid is not None else (None if known is None else str(known["cid"]))
        per_epoch = peer.model.settings.steps_per_epoch
        if wanted is not None and known is not None and self.store.has(wanted):
            self.reporter.skip(steps(peer))
            return known

        def progress(done: int, generator_loss: float, discriminator_loss: float) -> None:
            epoch = (done - 1) // per_epoch + 1
            self.reporter.step(number, member.index, epoch, generator_loss, discriminator_loss)

        member.meter.reset()
        begin = time.perf_counter()
        with self.memory.phase("training"), peer.model.executor:
            trained = peer.train(number, start, progress)
        seconds = time.perf_counter() - begin
        blocks = quantise(trained.parameters)
        bound = peer.grades.norm_bound
        for name, block in blocks.items():
            if not norm_allowed(block.reshape(-1).tolist(), bound):
                raise UpdateError(
                    f"training diverged: the norm of block {name} of node {member.index} is beyond {bound}, and its "
                    "peers would refuse it.",
                    "Lower model.generator_rate or model.discriminator_rate, or raise grades.norm_bound.",
                )
        update = Update(peer.config, peer.feature_map_cid, number, member.index, blocks, inputs, blocks_digest(start))
        made = self.store.put(update.to_bytes())
        if wanted is not None and made != wanted:
            raise QrunError(
                f"node {member.index}'s model of round {number} ({wanted}) is not in the store, and training it again "
                "gives another one.",
                "The run goes on only where its blocks are, or with the versions that it was begun with.",
            )
        meter = member.meter
        took = (round(seconds, 3), meter.circuits, meter.shots, round(meter.qpu_seconds, 3))
        kept = known or {
            "cid": made,
            "losses": {"generator": trained.generator_loss, "discriminator": trained.discriminator_loss},
            "resources": dict(zip(RESOURCE_NAMES, took, strict=True)),
        }
        self.memory.put(key, kept)
        return kept

    def _sign(self, member: Member, number: int, cid: str, wanted: str | None) -> str:
        """Sign and publish, or find the signature that was made before; its CID.

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
