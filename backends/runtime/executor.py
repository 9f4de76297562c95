"""Circuits on IBM's devices, or in the Runtime's local testing mode: one Executor for both."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from backends.protocol import Request, Result
from backends.runtime.budget import Budget, estimated
from backends.runtime.client import Clock, JobClient
from backends.runtime.errors import Detached
from backends.runtime.jobs import Jobs
from backends.runtime.labels import Label, current
from backends.runtime.ledger import JobLedger, MemoryLedger
from backends.runtime.local import LocalClient, ignored
from backends.runtime.modes import Modes
from backends.runtime.pubs import Part, check, halves, parts
from backends.runtime.results import Counts, Estimates, decode, join
from backends.runtime.tickets import Ticket, TooLargeError
from backends.runtime.types import JobLimits, RuntimeContext
from backends.target import Target
from circuits.errors import UsageError


@dataclass
class Handle:
    """A call that was sent: what was asked, and the jobs that answer it."""

    requests: list[Request]
    tickets: list[Ticket] = field(default_factory=list)
    started: float = 0.0


class RuntimeExecutor:
    """Runs requests as jobs of the Runtime's Sampler or Estimator: on IBM's service where the target is hardware, in
    the local testing mode on the cut-down device everywhere else.

    One call is one job (where the service's limits allow it), and one step of the label in force (`labels.labelled`).
    `send` brings it on its way, `collect` waits; `run` is both. Sessions are opened by the first job inside `with`
    and closed at its end.

    Args:
        target: A device; circuits must be compiled for it.
        context: Options, and how the service may be asked.
        ledger: Where jobs are written down; None for one that lives as long as the process.
        client: The service; None for the one that the target needs.
        limits: What a job may hold.
        clock: Time.

    Raises:
        UsageError: The ideal target, or shots below 1.
    """

    name = "runtime"
    differentiable = False

    def __init__(
        self,
        target: Target,
        context: RuntimeContext | None = None,
        ledger: JobLedger | None = None,
        client: JobClient | None = None,
        *,
        limits: JobLimits | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.target, self.context = target, context or RuntimeContext()
        if target.backend is None:
            raise UsageError(
                "the engine runtime has no ideal device.", "Name a device (qrun backends list), or take --engine twin."
            )
        shots = self.context.options.shots
        if not isinstance(shots, int) or isinstance(shots, bool) or shots < 1:
            raise UsageError(f"shots must be 1 or more, not {shots!r}.", "Give a whole number, for example 1024.")
        if client is None:
            client = _service(target.name) if target.kind == "hardware" else LocalClient(target)
        self.shots = shots
        self._client, self._ledger = client, ledger if ledger is not None else MemoryLedger()
        self._limits = limits or JobLimits()
        clock = clock or Clock()
        self._budget = budget = Budget(self._ledger, self.context.access, client, self.context.run)
        self._modes = Modes(client, self._ledger, self.context, budget=budget, backend=target.name, clock=clock)
        self._jobs = Jobs(
            client,
            self._ledger,
            self.context,
            modes=self._modes,
            budget=budget,
            backend=target.name,
            estimate=self._seconds,
            clock=clock,
        )
        self._open = 0
        self._said = False

    @property
    def idle_seconds(self) -> float:
        """QPU seconds that the last closed session charged beyond its jobs; 0.0 where there was none."""
        return self._modes.idle_seconds

    def __enter__(self) -> Self:
        self._open += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open -= 1
        if self._open == 0:
            self._modes.close()
            if error is None:
                self._budget.settle()  # here nothing waits in a session that is paid

    def run(self, requests: Sequence[Request], *, seed: int | None = None) -> list[Result]:
        """Run all requests as one job and wait for it; results come in the same order.

        Raises:
            UsageError: A wrong shape, a value that is not finite, or an observable that counts cannot give.
            QrunError: As `jobs.Jobs.send` and `result`; Detached where the user asked not to wait.
        """
        with self:
            return self.collect(self.send(requests, seed=seed))

    def send(self, requests: Sequence[Request], *, seed: int | None = None) -> Handle:
        """Bring all requests on their way as one job, inside `with`; see `run`."""
        if self._open == 0:
            raise UsageError("the engine is not open.", "Send inside `with executor:`, so that its session is closed.")
        handle = Handle(list(requests), started=time.perf_counter())
        check(handle.requests, self.context.options)
        self._say_local()
        label = current()
        step = Label(label.purpose, label.round, label.base, label.node, label.step)
        label.step += 1
        for part in self._parts(handle.requests, seed):
            handle.tickets += self._send(part, step)
        return handle

    def collect(self, handle: Handle) -> list[Result]:
        """Wait for what was sent; see `run`."""
        if self.context.access.detach and not self._client.local:
            waiting = [ticket for ticket in handle.tickets if not self._jobs.has_ended(ticket)]
            if waiting:
                on_their_way = [job.job_id for job in self._ledger.jobs() if job.state == "sent" and job.job_id]
                raise Detached(tuple(on_their_way))
        found: list[list[Counts | Estimates]] = []
        for ticket in handle.tickets:
            found.append(decode(ticket.part, self._jobs.result(ticket), local=self._client.local))
        answers = join(handle.requests, [ticket.part for ticket in handle.tickets], found)
        said = [self._metadata(handle, position) for position in range(len(handle.requests))]
        return [Result(values, errors, about) for (values, errors), about in zip(answers, said, strict=True)]

    def _parts(self, requests: list[Request], seed: int | None) -> list[Part]:
        local, options = self._client.local, self.context.options
        return parts(requests, self.target, options, seed, local=local, limits=self._limits)

    def _send(self, part: Part, label: Label) -> list[Ticket]:
        """Send a job, in two where the service takes no job of this size."""
        key = self._key(part, label)
        two = halves(part, self.target, local=self._client.local)
        split = two is not None and self._ledger.live(key) is None
        if split and two is not None and self._ledger.live(self._key(two[0], label)) is not None:
            return [ticket for half in two for ticket in self._send(half, label)]
        try:
            return [self._jobs.send(key, part, label)]
        except TooLargeError:
            if two is None:
                raise
            return [ticket for half in two for ticket in self._send(half, label)]

    def _key(self, part: Part, label: Label) -> str:
        """What a job is for. Work without a label is known by its request; without a seed, by nothing."""
        if label.purpose != "call":
            return f"{label.key()}/{part.path}"
        return f"call/{part.digest if part.seed is not None else uuid.uuid4()}"

    def _seconds(self, part: Part) -> float:
        return estimated(part, self.target)

    def _say_local(self) -> None:
        if self._client.local and not self._said:
            text = f"jobs run here, on {self.target.name} cut to the qubits in use; ignored: "
            self.context.tell("local testing mode", f"{text}{'; '.join(ignored(self.context.options))}.")
        self._said = True

    def _metadata(self, handle: Handle, position: int) -> dict[str, Any]:
        """Of one request; QPU seconds by its share of the rows of each job, so that they add up."""
        tickets, charged = [], 0.0
        for ticket in handle.tickets:
            rows = sum(piece.stop - piece.start for piece in ticket.part.slices if piece.request == position)
            if rows:
                tickets.append(ticket)
                charged += ticket.paid * (ticket.job.qpu_seconds or 0.0) * rows / ticket.part.rows
        options = self.context.options.in_force()
        return {
            "engine": self.name,
            "backend": self.target.name,
            "shots": options.shots,
            "mode": next((ticket.job.mode for ticket in tickets), ""),
            "local": self._client.local,
            "job_ids": [ticket.job.job_id for ticket in tickets],
            "tags": [ticket.job.tag for ticket in tickets],
            "qpu_seconds": charged,
            "dynamical_decoupling": options.dynamical_decoupling,
            "twirling": options.twirling,
            "resilience_level": options.resilience_level,
            "ignored": ignored(options) if self._client.local else [],
            "seconds": time.perf_counter() - handle.started,
        }


def _service(name: str) -> JobClient:
    from backends.runtime.service_client import ServiceClient

    return ServiceClient(backend=name)
