"""One round on the contract: start, train, sign, submit; fetch, review, commit, reveal; settle.

Every step looks first whether it was done: a submission that the chain has is never made again, a model that the store
has is never trained again, and grades are kept on disk before the commitment to them is sent, so that they can be
revealed whatever happens in between. What is kept is kept for a round and its base: after a rollback a round may be
opened again from another base, and what was trained from the old one is not used for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from eth_account.signers.local import LocalAccount

from circuits.errors import QrunError
from contracts.errors import ContractRevert
from contracts.records import RESOURCE_NAMES, Phase
from contracts.rounds import FederatedRounds
from contracts.signatures import mldsa_key, sign
from runner.keys import NodeKeys, grade_salt
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


class RoundPlayer:
    """Plays the rounds that the contract opens, for all members.

    Args:
        members: In the order of nodes.
        contract: The task.
        publishing: Models and their checks.
        memory: The run's state on disk.
        reporter: Told of the training.
    """

    def __init__(
        self,
        members: Sequence[Member],
        contract: FederatedRounds,
        publishing: Publishing,
        memory: RunStore,
        reporter: Reporter,
    ) -> None:
        self.members = members
        self.contract = contract
        self.publishing = publishing
        self.store = publishing.store
        self.memory = memory
        self.reporter = reporter
        self._reviewed = 0  # the round after whose review the peers are

    def play(self, number: int) -> None:
        """Play the open round, or whatever of it is not done yet, until it is settled.

        A node whose time for a step is over (the run slept) is absent from it, which costs it reputation and not the
        run. Excluded nodes play no part.

        Raises:
            QrunError: the round waits for nodes that are not of this process.
        """
        contract = self.contract
        here = self._here(number)
        for member in self.members:
            if member not in here:
                self.reporter.skip(self._steps(member.peer))
        self._recall(contract.base_of(number))
        starts = {}
        for member in here:
            start, inputs = self._start(member.peer, number)
            starts[member.index] = start
            self._contribute(member, number, start, inputs)
        if contract.phase() is Phase.SUBMIT:
            raise _waits(number, "models")
        grades = self._review(number, starts)
        submitted = {s.node for s in contract.submissions(number)}
        bound = set(contract.commitments(number))
        self._each(number, here, submitted - bound, self._commit, grades)
        bound = set(contract.commitments(number))
        self._each(number, here, bound - set(contract.grades(number)), self._reveal, grades)
        self._settle(number)

    def _here(self, number: int) -> list[Member]:
        active = self.contract.active(number)
        return [m for m in self.members if m.index in active]

    # -- a node's model ---------------------------------------------------------------------------------------------

    def _start(self, peer: Peer, number: int) -> tuple[Blocks, tuple[Input, ...]]:
        sources = self.publishing.sources(number)
        if sources.round == 0:
            return self.publishing.common_start(), (Input(self.publishing.start_cid, 1),)
        return peer.start(sources.models, sources.weights)

    def _contribute(self, member: Member, number: int, start: Blocks, inputs: tuple[Input, ...]) -> None:
        """Train, sign and submit, unless the chain has this node's model, or the time for it is over."""
        contract, peer = self.contract, member.peer
        earlier = contract.submission(number, member.index)
        if earlier is None and contract.phase() is not Phase.SUBMIT:
            self.reporter.skip(self._steps(peer))
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
            done = self._in_time(
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

    @staticmethod
    def _steps(peer: Peer) -> int:
        return peer.model.settings.epochs * peer.model.settings.steps_per_epoch

    def _key(self, what: str, number: int, node: int) -> str:
        return f"{what}/{number}/{self.contract.base_of(number)}/{node}"

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
        peer, key = member.peer, self._key("trained", number, member.index)
        known: dict[str, Any] | None = self.memory.get(key)
        wanted = cid if cid is not None else (None if known is None else str(known["cid"]))
        per_epoch = peer.model.settings.steps_per_epoch
        if wanted is not None and known is not None and self.store.has(wanted):
            self.reporter.skip(self._steps(peer))
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
        key = self._key("signed", number, member.index)
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

    # -- grades -----------------------------------------------------------------------------------------------------

    def _recall(self, base: int) -> None:
        """Bring every peer's memory of its reviews to where it was after round `base`.

        That of the rounds before is in the models that were published: they are reviewed again, in order, where the
        peers are not there already (after a resume, or a rollback). Rounds that are void leave no trace.
        """
        if self._reviewed == base:
            return
        line = []
        while base:
            line.append(base)
            base = self.contract.base_of(base)
        for member in self.members:
            member.peer.forget()
        with self.memory.phase("grading"):
            for number in reversed(line):
                starts = {m.index: self._start(m.peer, number)[0] for m in self._here(number)}
                self._review(number, starts)

    def _review(self, number: int, starts: dict[int, Blocks]) -> dict[int, dict[int, int]]:
        """Every member's grades of a round to which nobody submits any more: grader -> graded -> 0..100."""
        grades = {}
        with self.memory.phase("grading"):
            published = self.publishing.published(number)
            for member in self._here(number) if published else []:
                given = member.peer.review(starts[member.index], published)
                grades[member.index] = {j: g.value for j, g in sorted(given.items())}
        self._reviewed = number
        return grades

    def _each(
        self,
        number: int,
        here: Sequence[Member],
        who: set[int],
        step: Callable[[Member, int, dict[int, int]], None],
        grades: dict[int, dict[int, int]],
    ) -> None:
        with self.memory.phase("chain"):
            for member in here:
                if member.index in who:
                    step(member, number, grades.get(member.index, {}))

    def _grades(self, member: Member, number: int, made: dict[int, int]) -> dict[int, int]:
        """The grades that the node is or will be bound to: those kept, or else `made`, which are kept now."""
        key = self._key("grades", number, member.index)
        known = self.memory.get(key)
        if known is None:
            self.memory.put(key, {str(j): g for j, g in made.items()})
            return made
        return {int(j): int(g) for j, g in known.items()}

    def _salt(self, member: Member, number: int) -> bytes:
        return grade_salt(member.keys, self.contract.chain.chain_id, self.contract.address, number)

    def _commit(self, member: Member, number: int, grades: dict[int, int]) -> None:
        bound = self._grades(member, number, grades)
        self._in_time(lambda: self.contract.commit(member.account, number, bound, self._salt(member, number)))

    def _reveal(self, member: Member, number: int, grades: dict[int, int]) -> None:
        bound = self._grades(member, number, grades)
        self._in_time(lambda: self.contract.reveal(member.account, number, bound, self._salt(member, number)))

    # -- the contract -----------------------------------------------------------------------------------------------

    @staticmethod
    def _in_time(step: Callable[[], object]) -> bool:
        """Take a step that a phase allows; False where the phase is over by now."""
        try:
            step()
        except ContractRevert as error:
            if error.name != "WrongPhase":
                raise
            return False
        return True

    def _settle(self, number: int) -> None:
        """Settle the round; any node may, so the first does."""
        with self.memory.phase("chain"):
            if not self._in_time(lambda: self.contract.settle(self.members[0].account, number)):
                raise _waits(number, "grades")


def _waits(number: int, what: str) -> QrunError:
    return QrunError(
        f"round {number} waits for the {what} of nodes that are not of this run's folder.",
        "Resume the run later: after its deadline the round goes on without them.",
    )
