"""A job's life, written down before every step: no job is sent twice, and none that was paid is lost.

    intended -> (session) -> sending -> sent -> done
                                   \\-> unclear: looked for by its tag, adopted or given up

What a killed run left behind goes on from where the ledger says it stood.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from backends.runtime.budget import Budget
from backends.runtime.client import Clock, JobClient, NotShown, Place, Rejected, Status, Unclear
from backends.runtime.errors import LedgerMismatchError, ServiceError
from backends.runtime.labels import Label
from backends.runtime.ledger import Job, JobLedger
from backends.runtime.modes import Modes
from backends.runtime.pubs import Part
from backends.runtime.results import decode
from backends.runtime.tickets import Ticket, TooLargeError, failure, intent, unclear
from backends.runtime.types import RuntimeContext
from backends.runtime.waiting import CHARGED, Patient, charged_pauses, pauses
from circuits.errors import QrunError

_SESSIONS = 3
"""How often a job gets another session where the service closed the last one."""
_SIZE = ("too many", "too large", "at most", "limit", "maximum", "exceed")
"""Words of a refusal that may be about size; where it is not, the halves are refused too."""
STOPPED = "stopped before it ran: "
"""Begins the reason of jobs that we cancelled for the budget: sending them again needs no --resubmit."""


class Jobs:
    """Sends jobs and waits for them.

    Args:
        client: The service.
        ledger: Where every step is written down first.
        context: How the service may be asked, and who is told.
        modes: Where jobs go.
        budget: What they may take.
        backend: Name of the device.
        estimate: QPU seconds of a job.
        clock: Time.
    """

    def __init__(
        self,
        client: JobClient,
        ledger: JobLedger,
        context: RuntimeContext,
        *,
        modes: Modes,
        budget: Budget,
        backend: str,
        estimate: Callable[[Part], float],
        clock: Clock,
    ) -> None:
        self._client, self._ledger, self._context = client, ledger, context
        self._modes, self._budget, self._backend = modes, budget, backend
        self._estimate, self._clock = estimate, clock
        self._patient = Patient(clock, context.tell)
        self._sent_here: set[str] = set()

    def send(self, key: str, part: Part, label: Label) -> Ticket:
        """Bring a job on its way, or find the one that is or was.

        Raises:
            LedgerMismatchError: The job of this key asked for something else.
            BudgetError: The budget could be passed.
            UnclearError: Nobody knows whether an earlier attempt arrived.
            JobFailedError: An earlier one failed.
            ServiceError: The service refuses.
        """
        job = self._ledger.live(key)
        if job is not None and job.request != part.digest:
            raise LedgerMismatchError(
                f"the job {job.job_id or job.tag} was sent for {key} with other circuits, parameters or options.",
                "A run repeats itself exactly: resume it with the version and options that it was started with.",
            )
        if job is None or (self._client.local and job.state != "done"):
            answer = self._ledger.answer(part.digest) if part.seed is not None else None
            if answer is not None:
                return Ticket(key, part, label, answer, paid=False)
        if self._client.local:
            return Ticket(key, part, label, job if job and job.state == "done" else self._run(key, part, label, job))
        if job is None:
            self._refuse_failed(key, part)
            job = self._intend(key, part, label)
        if job.state == "sending":
            job = self._look(job, key, part, label)
        if job.state == "intended":
            job = self._submit(job, key, part, label)
        return Ticket(key, part, label, job)

    def result(self, ticket: Ticket) -> bytes:
        """The result of a job, as it came; waits for it.

        Raises:
            JobFailedError: It failed or was cancelled.
            ServiceError: The service refuses to tell.
        """
        if ticket.job.state == "done":
            return self._ledger.result(ticket.job)
        status = self._wait(ticket.job)
        if status.state != "done":
            ticket.job = self._fail(ticket.job, status)
            if not self._context.access.resubmit:
                raise failure(ticket.job, self._context.run)
            job = self._intend(ticket.key, ticket.part, ticket.label)
            ticket.job = self._submit(job, ticket.key, ticket.part, ticket.label)
            status = self._wait(ticket.job)
            if status.state != "done":
                ticket.job = self._fail(ticket.job, status)
                raise failure(ticket.job, self._context.run)
        return self._keep(ticket)

    def has_ended(self, ticket: Ticket) -> bool:
        """Whether a job's result can be had without waiting for it."""
        if ticket.job.state == "done":
            return True
        return self._patient.ask(lambda: self._shown(ticket.job)).final

    def _keep(self, ticket: Ticket) -> bytes:
        job_id = str(ticket.job.job_id)
        raw = self._patient.ask(lambda: self._client.result(job_id))
        try:
            decode(ticket.part, raw, local=False)
        except QrunError as error:
            # The job stays as it is, so that what it gave can be asked for again; sending it again would be paid again.
            raise QrunError(
                f"job {job_id}: {error.message}",
                f"`qrun runs resume {self._context.run or 'RUN'}` asks for it again.",
            ) from None
        ticket.job = self._ledger.keep(ticket.job, raw)
        # What it took is settled a little later, and asked again before the next job where it is not by then.
        settling = charged_pauses() if ticket.job.mode == "session" else pauses()
        for _, pause in zip(range(3), settling, strict=False):
            seconds = self._patient.ask(lambda: self._client.usage(job_id))
            if seconds is not None:
                ticket.job = replace(ticket.job, qpu_seconds=seconds)
                self._ledger.write(ticket.job)
                break
            self._clock.sleep(pause)
        return raw

    def _run(self, key: str, part: Part, label: Label, job: Job | None) -> Job:
        """Run a job in this process: nothing is paid, nothing is in doubt."""
        job = self._intend(key, part, label) if job is None else job
        kind, _ = self._modes.place(label.node, 0)
        job = replace(job, state="sending", mode=kind)
        self._ledger.write(job)
        job_id = self._client.submit(part, Place(self._backend, kind, None, job.tags, None))
        job = replace(job, state="sent", job_id=job_id, qpu_seconds=0.0)
        self._ledger.write(job)
        return self._ledger.keep(job, self._client.result(job_id))

    def _intend(self, key: str, part: Part, label: Label) -> Job:
        local = self._client.local
        estimate = 0.0 if local else self._budget.expected(part, self._estimate(part))
        job = intent(
            key,
            part,
            label,
            backend=self._backend,
            run=self._context.run,
            local=local,
            estimate=estimate,
            now=self._clock.now(),
        )
        self._ledger.write(job)
        return job

    def _submit(self, job: Job, key: str, part: Part, label: Label) -> Job:
        """Send a job that surely never arrived; the job as sent."""
        sessions = 0
        for pause in pauses():
            estimate = self._budget.expected(part, self._estimate(part))
            reserve = self._budget.reserve(estimate)
            kind, session_id = self._modes.place(label.node, reserve)
            job = replace(
                job,
                state="sending",
                mode=kind,
                session_id=session_id,
                reserve=float(reserve),
                estimate=estimate,
                created=self._clock.now(),
            )
            self._ledger.write(job)
            self._sent_here.add(job.tag)
            try:
                job_id = self._client.submit(part, Place(self._backend, kind, session_id, job.tags, reserve))
            except Rejected as rejected:
                job = self._unsent(job)
                if rejected.transient:
                    self._patient.away(rejected.reason)
                    self._clock.sleep(pause)
                elif session_id is not None and sessions < _SESSIONS and self._modes.has_ended(session_id):
                    sessions += 1
                else:
                    raise self._refusal(job, rejected) from None
            except Unclear as error:
                self._patient.away(str(error))
                # It may have arrived as late as now: waiting for the answer took its time.
                job = replace(job, created=self._clock.now())
                self._ledger.write(job)
                return self._look(job, key, part, label)
            except QrunError:  # it could not be made, or the token is refused: nothing was sent
                self._unsent(job)
                raise
            else:
                self._patient.back()
                return self._sent(job, job_id)
        raise AssertionError("pauses never end")

    def _unsent(self, job: Job) -> Job:
        job = replace(job, state="intended", mode="", session_id=None, reserve=0.0)
        self._ledger.write(job)
        return job

    def _refusal(self, job: Job, rejected: Rejected) -> QrunError:
        self._ledger.write(replace(job, state="failed", reason=f"refused: {rejected.reason}"))
        words = rejected.reason.lower()
        size = rejected.status == 413 or any(word in words for word in _SIZE)
        kind = TooLargeError if size and rejected.status in (400, 413, 422) else ServiceError
        return kind(
            f"{self._backend} refuses the job ({rejected.reason}).",
            "Nothing was sent. Mend it, then go on with `qrun runs resume`.",
        )

    def _sent(self, job: Job, job_id: str) -> Job:
        """Write down that the service has a job, and stop it where it would take more than it may."""
        job = replace(job, state="sent", job_id=job_id)
        self._ledger.write(job)
        estimate = self._budget.known(lambda: self._client.estimate(job_id))
        if estimate is None:
            return job
        job = replace(job, service_estimate=estimate)
        self._ledger.write(job)
        if estimate > job.reserve and self._cancelled(job_id):
            usage = self._budget.known(lambda: self._client.usage(job_id))
            reason = f"{STOPPED}the service expects {estimate:g} s, it may take {job.reserve:g} s"
            self._ledger.write(replace(job, state="failed", reason=reason, qpu_seconds=usage))
            raise self._budget.passed(
                f"the service expects {estimate:g} s of the job {job_id}, now cancelled", estimate
            )
        return job

    def _cancelled(self, job_id: str) -> bool:
        return self._budget.known(lambda: self._client.cancel(job_id)) or False  # else max_execution_time bounds it

    def _look(self, job: Job, key: str, part: Part, label: Label) -> Job:
        """Look for a job that may have arrived; as sent, or a new one where it is given up with --resubmit.

        One that was sent just now is not given up: --resubmit was said before anybody knew of it.
        """
        deadline = min(job.created, self._clock.now()) + self._context.access.patience
        for pause in pauses():
            # The last question is asked after the deadline: an answer may have been long on its way.
            left = deadline - self._clock.now()
            found = self._patient.ask(lambda: self._client.find(job.tag))
            if found:
                return self._sent(job, found[0])
            if left <= 0:
                break
            self._clock.sleep(min(pause, left))
        if not self._context.access.resubmit or job.tag in self._sent_here:
            raise unclear(job, self._context.run)
        self._ledger.write(replace(job, state="failed", reason="given up with --resubmit: the service never showed it"))
        return self._submit(self._intend(key, part, label), key, part, label)

    def _wait(self, job: Job) -> Status:
        """Wait for a job's end: often where waiting is charged, which is in a session whose job runs."""
        seldom, often = pauses(CHARGED) if job.mode == "session" else pauses(), charged_pauses()
        while True:
            status = self._patient.ask(lambda: self._shown(job))
            if status.final:
                return status
            charged = job.mode == "session" and status.state == "running"
            self._clock.sleep(next(often if charged else seldom))

    def _shown(self, job: Job) -> Status:
        """How a job stands; one that the service still does not know after a while is not waited for."""
        try:
            return self._client.status(str(job.job_id))
        except NotShown as error:
            if self._clock.now() < min(job.created, self._clock.now()) + self._context.access.patience:
                raise
            if self._context.access.resubmit and job.tag not in self._sent_here:
                return Status("failed", str(error))
            raise ServiceError(
                f"{error}, which it accepted.",
                f"Check the account and its instance, then `qrun runs resume {self._context.run or 'RUN'}`; if the job "
                "was deleted, --resubmit sends it anew.",
            ) from None

    def _fail(self, job: Job, status: Status) -> Job:
        reason = f"{status.state}: {status.reason}" if status.reason else status.state
        usage = self._budget.known(lambda: self._client.usage(str(job.job_id)))
        job = replace(job, state="failed", reason=reason, qpu_seconds=usage)
        self._ledger.write(job)
        return job

    def _refuse_failed(self, key: str, part: Part) -> None:
        """Raise where an earlier job for this failed on the device."""
        if self._context.access.resubmit:
            return
        earlier = [job for job in self._ledger.jobs() if job.key == key and job.request == part.digest]
        if earlier and earlier[-1].job_id is not None and not earlier[-1].reason.startswith(STOPPED):
            raise failure(earlier[-1], self._context.run)
