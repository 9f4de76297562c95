"""Session, batch or single jobs: opened as late as possible, closed as early, and found again after a kill."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

from backends.runtime.budget import Budget, of_session
from backends.runtime.client import Clock, JobClient, Kind, Lost, Rejected, Unclear
from backends.runtime.errors import ServiceError
from backends.runtime.ledger import JobLedger, SessionEntry
from backends.runtime.types import RuntimeContext
from backends.runtime.waiting import Patient, pauses
from backends.runtime.wire import said
from circuits.errors import QrunError

_CHOSEN: dict[tuple[str, str], Kind] = {}
"""What a run's plan allows on a device, once it is found out: said once, and not tried again by the next engine."""
_MINE: set[str] = set()
"""Sessions that this process opened and has not closed: another engine's are not left over."""

_PAUSE = 0.5
"""Seconds before a session is asked again to close: it may be charged until then."""

_MODES: dict[str, tuple[Kind, ...]] = {
    "auto": ("session", "batch", "job"),
    "session": ("session",),
    "batch": ("batch",),
    "job": ("job",),
}


class Modes:
    """The session or batch that an engine's jobs go into; one at a time, of one node.

    Args:
        client: The service.
        ledger: Where sessions are written down.
        context: Mode, longest life, run; told which mode was taken and why.
        budget: Bounds a session's life.
        backend: Name of the device.
        clock: Time.
    """

    def __init__(
        self,
        client: JobClient,
        ledger: JobLedger,
        context: RuntimeContext,
        *,
        budget: Budget,
        backend: str,
        clock: Clock,
    ) -> None:
        self._client, self._ledger, self._context, self._budget = client, ledger, context, budget
        self._backend, self._clock = backend, clock
        self._patient = Patient(clock, context.tell)
        self._current: SessionEntry | None = None
        self.idle_seconds = 0.0

    def place(self, node: int, reserve: int) -> tuple[Kind, str | None]:
        """Mode and session of a node's next job, which may take `reserve` QPU seconds; opens one if need be.

        Raises:
            ServiceError: The mode that is asked for is refused, or the service cannot be reached.
            BudgetError: Nothing is left.
        """
        allowed = _MODES[self._context.access.mode]
        if self._client.local:
            return allowed[0], None
        chosen = _CHOSEN.get((self._context.run, self._backend)) if self._context.run else None
        if self._context.access.mode == "auto" and chosen is not None:
            allowed = allowed[allowed.index(chosen) :]
        if self._current is not None and (self._current.node != node or self._current.kind not in allowed):
            self._close(self._current)
        if self._current is None:
            self._take_up(node, allowed)
        if self._current is None:
            self._open(node, allowed, reserve)
        if self._current is None:
            return "job", None
        return ("batch" if self._current.kind == "batch" else "session"), self._current.session_id

    def has_ended(self, session_id: str) -> bool:
        """Whether the service takes no more jobs in a session, which is then forgotten: the next job gets another."""
        if self._patient.ask(partial(self._client.session, session_id)).accepting:
            return False
        if self._current is not None and self._current.session_id == session_id:
            self._close(self._current)
        return True

    def close(self) -> None:
        """Close what is open, also what an earlier process left open. Trouble is told, not raised."""
        self.idle_seconds = 0.0
        if self._client.local:
            return
        if self._current is not None:
            self._close(self._current)
        for entry in self._left_over():
            self._close(entry)

    def _left_over(self) -> list[SessionEntry]:
        mine = self._backend
        return [s for s in self._ledger.sessions() if s.open and s.backend == mine and s.session_id not in _MINE]

    def _take_up(self, node: int, allowed: tuple[Kind, ...]) -> None:
        """Go on in the session that an earlier process opened for this node; close the others."""
        for entry in reversed(self._left_over()):
            fits = entry.node == node and entry.kind in allowed and self._current is None
            if fits and self._goes_on(entry):
                _MINE.add(entry.session_id)
                self._current = entry
                self._say(f"{entry.kind} {entry.session_id} is still open and taken up again.")
            else:
                self._close(entry)

    def _goes_on(self, entry: SessionEntry) -> bool:
        """Whether a session takes jobs, and cannot be charged more than is left: the bound may be another by now."""
        status = self._patient.ask(partial(self._client.session, entry.session_id))
        left = self._budget.left()
        if left is None or entry.kind != "session":
            return status.accepting
        going = [j for j in self._ledger.jobs() if j.session_id == entry.session_id and j.state in ("sending", "sent")]
        return status.accepting and entry.max_time - (status.usage or 0.0) <= left + sum(j.reserve for j in going)

    def _open(self, node: int, allowed: tuple[Kind, ...], reserve: int) -> None:
        """Open the first of the allowed modes that the plan allows; none of them for single jobs."""
        refused: list[str] = []
        for kind in allowed:
            if kind != "job":
                seconds = self._max_time(kind, reserve)
                try:
                    session_id = self._opened(kind, seconds)
                except Rejected as rejected:
                    if len(allowed) == 1:
                        raise self._refusal(kind, rejected) from None
                    refused.append(f"no {kind}: {rejected.reason}")
                    continue
                self._current = SessionEntry(session_id, kind, self._backend, node, seconds)
                _MINE.add(session_id)
                self._ledger.write_session(self._current)
            self._chose(kind, refused)
            return

    def _opened(self, kind: Kind, seconds: int) -> str:
        """Open a session or batch, waiting out what passes. Raises Rejected."""
        why, deadline = "", self._clock.now() + self._context.access.patience
        for pause in pauses():
            try:
                session_id = self._client.open_session(kind, self._backend, seconds)
            except Rejected as rejected:
                if not rejected.transient:
                    raise
                self._patient.away(rejected.reason)
            except Unclear as unclear:
                # One that was opened all the same costs nothing: it holds no job, and ends by itself.
                why = str(unclear)
                if self._clock.now() >= deadline:
                    break
            else:
                self._patient.back()
                return str(session_id)
            self._clock.sleep(pause)
        raise ServiceError(
            f"no {kind} can be opened on {self._backend}: {why}.", "Try again later, or with --mode job."
        )

    def _max_time(self, kind: Kind, reserve: int) -> int:
        """Longest life of a new session or batch.

        A session is charged while it idles, a batch is not. So that several nodes' sessions together cannot pass the
        bound, each gets half of what the open ones leave; where it ends before its work does, another is opened.
        """
        left, wanted = self._budget.left(), self._context.access.session_seconds
        if left is None:
            return wanted
        if kind == "session":
            others = [s for s in self._ledger.sessions() if s.open and s.kind == "session"]
            free = left - sum(max(0.0, s.max_time - (s.usage or 0.0)) for s in others)
            left = min(max(free / 2, reserve), free)
        if left < reserve:
            raise self._budget.passed(f"open sessions may take what is left: the next one needs {reserve} s", reserve)
        return max(min(wanted, math.floor(left)), 1)

    def _refusal(self, kind: Kind, rejected: Rejected) -> ServiceError:
        plan = self._client.plan()
        of = f" (plan: {plan})" if plan else ""
        return ServiceError(
            f"{self._backend} opens no {kind} for this account{of}: {rejected.reason}.",
            "Leave --mode out to take what the plan allows, or take --mode batch or --mode job.",
        )

    def _chose(self, kind: Kind, refused: list[str]) -> None:
        if self._context.access.mode != "auto":
            return
        known = (self._context.run, self._backend)
        if self._context.run and _CHOSEN.get(known) == kind:
            return
        if self._context.run:
            _CHOSEN[known] = kind
        plan = self._client.plan()
        why = "; ".join([f"plan: {plan}"] * bool(plan) + refused)
        self._say(
            {"session": "a session per node", "batch": "batches", "job": "single jobs"}[kind] + f" ({why})" * bool(why)
        )

    def _say(self, text: str) -> None:
        self._context.tell("mode", text)

    def _not_closed(self, entry: SessionEntry, error: Exception) -> None:
        self._context.tell(
            f"{entry.kind} not closed",
            f"{entry.kind} {entry.session_id} could not be closed: {said(error)}. It ends by itself, after "
            f"{entry.max_time} s at the latest.",
        )

    def _close(self, entry: SessionEntry) -> None:
        """Close a session and write down what it was charged."""
        if self._current is not None and self._current.session_id == entry.session_id:
            self._current = None
        _MINE.discard(entry.session_id)
        usage, closed = entry.usage, False
        for last, pause in zip((False, False, True), pauses(_PAUSE), strict=False):
            try:
                self._client.close_session(entry.session_id)
                closed = True
                usage = self._client.session(entry.session_id).usage
                break
            except Lost as error:
                if last and not closed:
                    self._not_closed(entry, error)
                elif not last:
                    self._clock.sleep(pause)
            except QrunError as error:
                self._not_closed(entry, error)
                break
        # One that could not be closed stands as open: the next engine that closes, or a resumed run, tries again.
        self._ledger.write_session(replace(entry, open=not closed, usage=usage))
        if usage is not None:
            self.idle_seconds += max(0.0, usage - of_session(self._ledger, [entry.session_id]))
