"""One round on the contract: start, train, sign, submit; fetch, review, commit, reveal; settle.

Every step looks first whether it was done: a submission that the chain has is never made again, a model that the store
has is never trained again, and grades are kept on disk before the commitment to them is sent, so that they can be
revealed whatever happens in between. What is kept is kept for a round and its base: after a rollback a round may be
opened again from another base, and what was trained from the old one is not used for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from backends.runtime.ledger import JobLedger
from circuits.errors import QrunError
from contracts.records import Phase
from contracts.rounds import FederatedRounds
from runner.contribution import Contributor, Member, in_time
from runner.keys import grade_salt
from runner.node import Peer
from runner.progress import Reporter
from runner.publishing import Publishing
from runner.store import RunStore
from runner.update import Blocks, Input


class Others(Protocol):
    """How a round is carried on with nodes that are not of this process."""

    def wait(self, number: int, what: str, over: Callable[[], bool]) -> None:
        """Wait until a step of a round is over; `what` is waited for.

        Raises:
            QrunError: It will not be over here.
        """
        ...

    def turn(self, number: int, settled: Callable[[], bool]) -> None:
        """Leave others the time to settle a round, if it is theirs to do so first."""
        ...


class Nobody:
    """All nodes are of this process: what they have not done nobody does."""

    def wait(self, number: int, what: str, over: Callable[[], bool]) -> None:
        """Go on, or raise QrunError."""
        if not over():
            raise _waits(number, what)

    def turn(self, number: int, settled: Callable[[], bool]) -> None:
        """Go on."""


class RoundPlayer:
    """Plays the rounds that the contract opens, for all members.

    Args:
        members: In the order of nodes.
        contract: The task.
        publishing: Models and their checks.
        memory: The run's state on disk.
        reporter: Told of the training.
        ledger: Of the jobs on devices, where the run sends any.
        others: How the nodes of other processes are waited for.
        before_submitting: Called before a model is named on the chain.
    """

    def __init__(
        self,
        members: Sequence[Member],
        contract: FederatedRounds,
        publishing: Publishing,
        memory: RunStore,
        reporter: Reporter,
        *,
        ledger: JobLedger | None = None,
        others: Others | None = None,
        before_submitting: Callable[[], None] = lambda: None,
    ) -> None:
        self.members = members
        self.contract = contract
        self.publishing = publishing
        self.memory = memory
        self.reporter = reporter
        self.others = others or Nobody()
        self.contributor = Contributor(
            contract, publishing, memory, reporter, ledger=ledger, before_submitting=before_submitting
        )
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
                self.reporter.skip(self.contributor.steps(member, number))
        self.recall(contract.base_of(number))
        starts = {}
        for member in here:
            start, inputs = self._start(member.peer, number)
            starts[member.index] = start
            self.contributor.contribute(member, number, start, inputs)
        self.others.wait(number, "models", lambda: self._past(number, Phase.SUBMIT))
        grades = self._review(number, starts)
        submitted = {s.node for s in contract.submissions(number)}
        bound = set(contract.commitments(number))
        self._each(number, here, submitted - bound, self._commit, grades)
        self.others.wait(number, "grades", lambda: self._past(number, Phase.COMMIT))
        bound = set(contract.commitments(number))
        self._each(number, here, bound - set(contract.grades(number)), self._reveal, grades)
        self.others.wait(number, "grades", lambda: self._past(number, Phase.REVEAL))
        self._settle(number)

    def _past(self, number: int, phase: Phase) -> bool:
        """Whether a phase of a round is over; others may have settled it meanwhile, and opened the next."""
        return self.contract.open_round() != number or self.contract.phase() > phase

    def _here(self, number: int) -> list[Member]:
        active = self.contract.active(number)
        return [m for m in self.members if m.index in active]

    # -- a node's model ---------------------------------------------------------------------------------------------

    def _start(self, peer: Peer, number: int) -> tuple[Blocks, tuple[Input, ...]]:
        sources = self.publishing.sources(number)
        if sources.round == 0:
            return self.publishing.common_start(), (Input(self.publishing.start_cid, 1),)
        return peer.start(sources.models, sources.weights)

    # -- grades -----------------------------------------------------------------------------------------------------

    def recall(self, base: int) -> None:
        """Bring every peer's memory of its reviews to where it was after round `base`.

        That of the rounds before is in the models that were published: they are reviewed again, in order, where the
        peers are not there already (after a resume, or a rollback). Rounds that are void leave no trace. What a member
        published in them and the store has lost is made again, or nobody could join it.
        """
        if self._reviewed == base:
            return
        line = []
        while base:
            line.append(base)
            base = self.contract.base_of(base)
        for member in self.members:
            member.peer.forget()
        for number in reversed(line):
            starts = {}
            for member in self._here(number):
                start, inputs = self._start(member.peer, number)
                starts[member.index] = start
                self._restore(member, number, start, inputs)
            self._review(number, starts)

    def _restore(self, member: Member, number: int, start: Blocks, inputs: tuple[Input, ...]) -> None:
        if self.contract.submission(number, member.index) is not None:
            self.contributor.contribute(member, number, start, inputs)

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
        key = self.contributor.key("grades", number, member.index)
        known = self.memory.get(key)
        if known is None:
            self.memory.put(key, {str(j): g for j, g in made.items()})
            return made
        return {int(j): int(g) for j, g in known.items()}

    def _salt(self, member: Member, number: int) -> bytes:
        return grade_salt(member.keys, self.contract.chain.chain_id, self.contract.address, number)

    def _commit(self, member: Member, number: int, grades: dict[int, int]) -> None:
        bound = self._grades(member, number, grades)
        in_time(lambda: self.contract.commit(member.account, number, bound, self._salt(member, number)))

    def _reveal(self, member: Member, number: int, grades: dict[int, int]) -> None:
        bound = self._grades(member, number, grades)
        in_time(lambda: self.contract.reveal(member.account, number, bound, self._salt(member, number)))

    # -- the contract -----------------------------------------------------------------------------------------------

    def _settle(self, number: int) -> None:
        """Settle the round; any node may, so the first here does, unless another process has."""

        def settled() -> bool:
            return self.contract.open_round() != number

        self.others.turn(number, settled)
        if settled():
            return
        with self.memory.phase("chain"):
            if not in_time(lambda: self.contract.settle(self.members[0].account, number)) and not settled():
                raise _waits(number, "grades")


def _waits(number: int, what: str) -> QrunError:
    return QrunError(
        f"round {number} waits for the {what} of nodes that are not of this run's folder.",
        "Resume the run later: after its deadline the round goes on without them.",
    )
