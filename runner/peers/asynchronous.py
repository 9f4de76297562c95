"""A peer that waits for nobody: one thread trains and submits, the other grades what others have submitted.

The training thread looks at the newest settled round, starts from the newest models as of it (runner/newest.py),
trains, submits to the window that is open, or the next one, and begins again. What it has begun, and from which state,
is on the disk before it trains, so that a killed process makes the same model. The grading thread goes through the
windows in order: review, commit, reveal, settle. On the way it brings its memory of the others up to date from chain
and store alone, so that a late node needs nobody's help.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from circuits.errors import QrunError
from contracts.records import Phase
from contracts.rounds import FederatedRounds
from runner.contribution import Contributor, Member, Work, in_time
from runner.keys import grade_salt
from runner.newest import NewestModels
from runner.peers.apart import trim
from runner.peers.watch import Elsewhere, Stopped, Watch
from runner.progress import Reporter
from runner.store import RunStore
from runner.update import Blocks, Input, Update


class Excluded(QrunError):
    """The node was excluded from its task."""


def excluded(index: int, task: str) -> Excluded:
    """What a node is told that was excluded."""
    return Excluded(
        f"node {index} was excluded from task {task}: its peers graded its models low, or 0, several times in a row.",
        "`qrun task show` has the grades. What it earned is lost with its deposit.",
    )


@dataclass
class Windows:
    """What both threads need to know of a task, each with connections of its own.

    Attributes:
        member: This node.
        contract: The task.
        models: What the peers published.
        memory: The peer's state on disk, which the threads share.
        reporter: Told of what happens.
        watch: How others are waited for.
    """

    member: Member
    contract: FederatedRounds
    models: NewestModels
    memory: RunStore
    reporter: Reporter
    watch: Watch

    @property
    def me(self) -> int:
        """The node's number."""
        return self.member.index

    def ended(self) -> bool:
        """Whether the task is over."""
        return self.contract.phase() is Phase.ENDED

    def past(self, number: int, phase: Phase) -> bool:
        """Whether a phase of a window is over."""
        return (
            self.contract.settled_rounds() >= number
            or self.ended()
            or (self.contract.open_round() == number and self.contract.phase() > phase)
        )


@dataclass
class Trainer(Windows):
    """Trains and submits.

    Attributes:
        contributor: Makes and submits models.
    """

    contributor: Contributor

    def work(self) -> None:
        """Until the task has ended.

        Raises:
            Excluded: the node was.
            Stopped: the process is to end.
        """
        while not self.watch.ask(self.ended):
            number = self.watch.ask(lambda: self.models.sequence(self.me)) + 1
            view, inputs = self._begun(number)
            start = self.watch.ask(lambda v=view, i=inputs: self.models.restart(v, self.me, i)[0])  # type: ignore[misc]
            self.reporter.begin(self.contributor.steps(self.member, 0))
            kept, measured = self.contributor.make(self.member, self._work(number, view, inputs), start)
            trim()
            self._submit(kept["cid"], measured)

    def _begun(self, number: int) -> tuple[int, tuple[Input, ...]]:
        """From which state the node's next model is made: kept before it is."""
        key = f"begun/{number}/{self.me}"
        known: dict[str, Any] | None = self.memory.get(key)
        if known is None:
            known = self.watch.ask(self._look)
            self.memory.put(key, known)
        return int(known["view"]), tuple(Input(str(c), int(w), int(a)) for c, w, a in known["inputs"])

    def _look(self) -> dict[str, Any]:
        view = self.models.settled()
        state = self.models.state(view, self.me)
        _, inputs = self.models.start(state, self.me, set(self.member.peer.gated))
        return {"view": view, "inputs": [[i.cid, i.weight, i.age] for i in inputs]}

    def _work(self, number: int, view: int, inputs: tuple[Input, ...]) -> Work:
        peer = self.member.peer

        def write(blocks: Blocks, start: str) -> bytes:
            names = (peer.config, peer.feature_map_cid, number, self.me)
            return Update(*names, blocks, inputs, start, view).to_bytes()

        return Work(number, view, f"sequence/{number}/{self.me}", False, write)

    def _submit(self, cid: str, measured: dict[str, Any]) -> None:
        """To the window that is open and has none of this node, or the next one."""
        while True:
            self.watch.until("the next window", self._can_submit)
            number = self.watch.ask(self.contract.open_round)
            if not number or self.watch.ask(self.ended):
                return
            if self.watch.ask(lambda n=number: self.contributor.submit(self.member, n, cid, measured)):  # type: ignore[misc]
                self.reporter.notice("Submitted", f"{cid} to round {number}.")
                return

    def _can_submit(self) -> bool:
        number = self.contract.open_round()
        if not number:
            return self.ended()
        if self.me in self._gone():
            raise excluded(self.me, self.contract.address)
        if self.me not in self.contract.active(number) or self.contract.phase() is not Phase.SUBMIT:
            return False
        return self.contract.submission(number, self.me) is None

    def _gone(self) -> set[int]:
        return {node.index for node in self.contract.nodes() if node.excluded}


@dataclass
class Validator(Windows):
    """Grades and settles.

    Attributes:
        look: Called after every settlement, before anything rests on it.
        others: How the other nodes are waited for.
        fault: What ended the thread, where something did.
    """

    look: Callable[[], None]
    others: Elsewhere
    fault: BaseException | None = None
    settled: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """As a thread: until the task has ended or the process is to end."""
        try:
            self.work()
        except Stopped:
            pass
        except BaseException as error:
            self.fault = error
            self.watch.stop.set()

    def work(self) -> None:
        """Window after window, from the first on: what was is reviewed as well, for the memory of it."""
        for number in itertools.count(1):
            self.watch.until(
                f"window {number}",
                lambda n=number: n in self.contract.rounds() or self.ended(),  # type: ignore[misc]
            )
            if number not in self.watch.ask(self.contract.rounds):
                return
            self.watch.until(f"models of round {number}", lambda n=number: self.past(n, Phase.SUBMIT))  # type: ignore[misc]
            grades = self.watch.ask(lambda n=number: self._review(n))  # type: ignore[misc]
            self._grade(number, grades)
            self._settle(number)
            self.look()

    def _review(self, number: int) -> dict[int, int]:
        with self.memory.phase("grading"):
            published = self.models.published(number)
            starts = self.models.starts(number)
            among = self.contract.active(number)
            given = self.member.peer.review_new(starts, published, among)
        trim()
        return {j: g.value for j, g in sorted(given.items())}

    def _grade(self, number: int, made: dict[int, int]) -> None:
        """Commit and reveal, where there is anything to grade, and as far as it is time."""
        key = f"grades/{number}/{self.me}"
        open_ = self.watch.ask(lambda: not self.past(number, Phase.COMMIT))
        if open_ and made and self.me in self.watch.ask(lambda: self.contract.active(number)):
            known = self.memory.get(key)
            if known is None:
                # On the disk before the commitment is sent: what is bound is what will be revealed.
                self.memory.put(key, {str(j): g for j, g in made.items()})
                known = made
            bound = {int(j): int(g) for j, g in known.items()}
            self._step(lambda: self.contract.commit(self.member.account, number, bound, self._salt(number)))
        self.watch.until(f"commitments of round {number}", lambda: self.past(number, Phase.COMMIT))
        kept = self.memory.get(key)
        if kept is not None and self.watch.ask(lambda: self._may_reveal(number)):
            bound = {int(j): int(g) for j, g in kept.items()}
            self._step(lambda: self.contract.reveal(self.member.account, number, bound, self._salt(number)))
        self.watch.until(f"grades of round {number}", lambda: self.past(number, Phase.REVEAL))

    def _may_reveal(self, number: int) -> bool:
        bound, shown = self.contract.commitments(number), self.contract.grades(number)
        return self.me in bound and self.me not in shown and not self.past(number, Phase.REVEAL)

    def _step(self, step: Callable[[], object]) -> None:
        def timed() -> bool:
            with self.memory.phase("chain"):
                return in_time(step)

        self.watch.ask(timed)

    def _settle(self, number: int) -> None:
        def settled() -> bool:
            return self.contract.settled_rounds() >= number or self.ended()

        self.others.turn(number, settled)
        if not self.watch.ask(settled):
            self._step(lambda: self.contract.settle(self.member.account, number))
            self.watch.until(f"the settlement of round {number}", settled)

    def _salt(self, number: int) -> bytes:
        chain_id = self.contract.chain.chain_id
        return grade_salt(self.member.keys, chain_id, self.contract.address, number)


def play(trainer: Trainer, validator: Validator) -> None:
    """Both threads, until the task has ended.

    Raises:
        Excluded: the node was.
        Stopped: the process is to end.
        QrunError, LedgerError: what either of them cannot go on from.
    """
    thread = threading.Thread(target=validator.run, name="validator", daemon=True)
    thread.start()
    try:
        trainer.work()
        thread.join()
    except Stopped:
        if validator.fault is None:
            raise
    finally:
        trainer.watch.stop.set()
        thread.join(30)
    if validator.fault is not None:
        raise validator.fault
