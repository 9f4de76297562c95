"""QPU seconds: how many a job may take, and that the bound is never passed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import TypeVar

from backends.runtime.client import JobClient, Lost
from backends.runtime.cost import OVERHEAD, job_seconds
from backends.runtime.errors import BudgetError, ServiceError
from backends.runtime.ledger import JobLedger, at_most
from backends.runtime.pubs import Part
from backends.runtime.types import Access
from backends.target import Target

Value = TypeVar("Value")

MARGIN = 1.5
"""A job may take so many times its estimate, and `GRACE` seconds more, before the service stops it."""
GRACE = 2.0

_ASKED = 5
"""How often the service is asked what a job took that it does not tell."""


def estimated(part: Part, target: Target) -> float:
    """QPU seconds of a job, from the device's own figures (`cost.job_seconds`)."""
    options = part.options
    costs = (job_seconds(pub.circuit, target, options, pub.rows, bases=pub.bases) - OVERHEAD for pub in part.pubs)
    return OVERHEAD + sum(costs)


class Budget:
    """Keeps `access.max_qpu_seconds`.

    Args:
        ledger: What was sent so far.
        access: The bound.
        client: Asked what jobs took that had no figure when they ended.
        run: Name of the run, for what to do next.
    """

    def __init__(self, ledger: JobLedger, access: Access, client: JobClient, run: str) -> None:
        self._ledger, self._access, self._client, self._run = ledger, access, client, run
        self._asked: dict[str, int] = {}

    def left(self) -> float | None:
        """QPU seconds that may still be taken, jobs on their way counted at their most; None without a bound."""
        if self._access.max_qpu_seconds is None or self._client.local:
            return None
        self.settle()
        return self._access.max_qpu_seconds - at_most(self._ledger.jobs(), self._ledger.sessions())

    def reserve(self, estimate: float) -> int:
        """QPU seconds that the next job may take (`max_execution_time`).

        Raises:
            BudgetError: Less is left than the job is expected to take.
        """
        wanted, left = math.ceil(MARGIN * estimate + GRACE), self.left()
        if left is None:
            return wanted
        granted = min(wanted, math.floor(left))
        if granted < max(math.ceil(estimate), 1):
            raise self.passed(f"the next job is expected to take {estimate:.1f} s", estimate)
        return granted

    def passed(self, why: str, needed: float) -> BudgetError:
        """What to raise where the bound would be passed."""
        used = at_most(self._ledger.jobs(), self._ledger.sessions())
        bound = self._access.max_qpu_seconds
        said = "without a bound" if bound is None else f"of {bound:g} s"
        more = math.ceil(max(used, bound or 0.0) + MARGIN * needed + GRACE)
        return BudgetError(
            f"stopped before the budget is passed: {used:.1f} s of QPU time {said} are spent or on their way, and "
            f"{why}. All results so far are kept.",
            f"Go on with: qrun runs resume {self._run or 'RUN'} --max-qpu-seconds {more}.",
        )

    def expected(self, part: Part, own: float) -> float:
        """The estimate of a job: ours, or the service's where it said more of the same request before."""
        return max([own, *(job.service_estimate or 0.0 for job in self._ledger.jobs() if job.request == part.digest)])

    def settle(self) -> None:
        """Ask for what has no figure yet."""
        if self._client.local:
            return
        for job in self._ledger.jobs():
            settled = job.local or job.job_id is None or job.qpu_seconds is not None
            if settled or job.state not in ("done", "failed") or self._tired(job.tag):
                continue
            seconds = self.known(partial(self._client.usage, str(job.job_id)))
            if seconds is not None:
                self._ledger.write(replace(job, qpu_seconds=seconds))
        for session in self._ledger.sessions():
            if session.open or (session.usage is None and not self._tired(session.session_id)):
                status = self.known(partial(self._client.session, session.session_id))
                if status is not None and status.usage not in (None, session.usage):
                    self._ledger.write_session(replace(session, usage=status.usage))

    def _tired(self, name: str) -> bool:
        self._asked[name] = self._asked.get(name, 0) + 1
        return self._asked[name] > _ASKED

    @staticmethod
    def known(ask: Callable[[], Value | None]) -> Value | None:
        """An answer that can be done without: None where there is none for now."""
        try:
            return ask()
        except (Lost, ServiceError):
            return None


def of_session(ledger: JobLedger, session_ids: Iterable[str]) -> float:
    """QPU seconds of all jobs in these sessions, as far as they are known."""
    ids = set(session_ids)
    return sum(job.qpu_seconds or 0.0 for job in ledger.jobs() if job.session_id in ids)
