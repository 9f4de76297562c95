"""The jobs of a stand-in and the threads that run them, one a device."""

from __future__ import annotations

import threading
import time
from contextlib import suppress

from backends.runtime.standin import simulate
from backends.runtime.standin.devices import Device
from backends.runtime.standin.encoding import encode
from backends.runtime.standin.jobs import MAX_SECONDS, Job, State
from backends.runtime.standin.replies import Refused
from backends.runtime.standin.sessions import Session
from backends.runtime.standin.settings import Settings

TOO_LONG = "Job exceeded the maximum execution time."


class DeviceFailed(Exception):
    """A job fails on purpose."""


class Queue:
    """Jobs and sessions, and what becomes of them. Every method may be called from any thread."""

    def __init__(self, settings: Settings, devices: dict[str, Device]) -> None:
        self.settings, self.devices = settings, devices
        self.jobs: list[Job] = []
        self.sessions: dict[str, Session] = {}
        self.held = False
        self.changed = threading.Condition(threading.RLock())
        self._stopping = False
        self._workers = [
            threading.Thread(target=self._work, args=(device,), name=f"stand-in {name}", daemon=True)
            for name, device in devices.items()
        ]

    def start(self) -> None:
        """Begin to run jobs."""
        for worker in self._workers:
            worker.start()

    def stop(self) -> None:
        """End; a job that runs is waited for."""
        with self.changed:
            self._stopping = True
            self.changed.notify_all()
        for worker in self._workers:
            with suppress(RuntimeError):  # never started
                worker.join()

    def hold(self, held: bool) -> None:
        """Let all jobs wait, or go on."""
        with self.changed:
            self.held = held
            self.changed.notify_all()

    def spent(self) -> float:
        """QPU seconds that the instance is charged."""
        with self.changed:
            now, rate = time.time(), self.settings.idle
            alone = sum(job.charged for job in self.jobs if job.session_id is None)
            return self.settings.spent + alone + sum(s.elapsed(now, rate) for s in self.sessions.values())

    def accept(self, job: Job) -> None:
        """Take a job.

        Raises:
            Refused: Its session is not known, closed, or on another device.
        """
        with self.changed:
            if job.session_id is not None:
                session = self.session(job.session_id)
                if not session.accepting:
                    raise Refused(400, "Session has been closed.", 1217, "Create a new session.")
                if session.backend != job.backend:
                    raise Refused(400, f"The session is on {session.backend}, not on {job.backend}.")
                session.take(job.created, self.settings.idle)
            self.jobs.append(job)
            self.changed.notify_all()

    def session(self, session_id: str) -> Session:
        """A session, closed if its time is over.

        Raises:
            Refused: 404.
        """
        with self.changed:
            session = self.sessions.get(session_id)
            if session is None:
                raise Refused(404, f"Session {session_id} not found.")
            if session.overdue(time.time()):
                self.cancel_session(session)
            return session

    def cancel_session(self, session: Session) -> None:
        """Close a session; jobs that wait in it are cancelled, one that runs goes on."""
        with self.changed:
            session.accepting = False
            for job in self.jobs:
                if job.session_id == session.session_id and job.state == "Queued":
                    self._end(job, "Cancelled", reason="The session was closed.")
            session.stop(time.time(), self.settings.idle)

    def cancel(self, job: Job) -> None:
        """Cancel a job.

        Raises:
            Refused: 409, where it has ended.
        """
        with self.changed:
            if not job.pending:
                raise Refused(409, f"Job {job.job_id} cannot be cancelled: it is {job.state.lower()}.")
            if job.state == "Running":
                job.cancelling = True
                job.state, job.reason = "Cancelled", "Job was cancelled by the user."
                self.changed.notify_all()
            else:
                self._end(job, "Cancelled", reason="Job was cancelled by the user.")

    def visible(self, *, by_id: bool) -> list[Job]:
        """Jobs that can be seen by now, oldest first."""
        with self.changed:
            late = self.settings.late_by_id if by_id else self.settings.late
            return [job for job in self.jobs if not job.deleted and time.time() - job.created >= late]

    def waiting(self, backend: str) -> int:
        """Jobs that wait or run on a device."""
        with self.changed:
            return sum(job.backend == backend and job.pending for job in self.jobs)

    def _end(self, job: Job, state: State, *, reason: str = "", code: int | None = None, charged: float = 0.0) -> None:
        now = time.time()
        if not job.cancelling:
            job.state, job.reason, job.reason_code = state, reason, code
        job.ended, job.charged = now, charged
        if job.session_id is not None and job.session_id in self.sessions:
            self.sessions[job.session_id].ended(now, charged, self.settings.idle)
        self.changed.notify_all()

    def _next(self, device: str) -> tuple[Job | None, float | None]:
        """The next job of a device; else how long to wait for one that is in the queue, None for any change."""
        for session_id in list(self.sessions):
            self.session(session_id)  # cancels its jobs where its time is over
        limit = self.settings.limit
        if self.held or (limit is not None and self.spent() >= limit):
            return None, None
        now = time.time()
        wait: float | None = None
        for job in self.jobs:
            if job.backend == device and job.state == "Queued":
                if now - job.created >= self.settings.queue:
                    return job, None
                wait = self.settings.queue - (now - job.created)
                break
        return None, wait

    def _work(self, device: Device) -> None:
        while (job := self._take(device.name)) is not None:
            self._run(job, device)

    def _take(self, device: str) -> Job | None:
        """Wait for the next job of a device and start it; None when the stand-in stops."""
        with self.changed:
            while not self._stopping:
                job, wait = self._next(device)
                if job is not None:
                    job.state, job.started = "Running", time.time()
                    if job.session_id is not None:
                        self.sessions[job.session_id].started(job.started)
                    return job
                self.changed.wait(wait)
        return None

    def _stumble(self) -> None:
        with self.changed:
            if self.settings.failing > 0:
                self.settings.failing -= 1
                raise DeviceFailed("The device failed, as the stand-in was told.")

    def _run(self, job: Job, device: Device) -> None:
        bound, begun = job.cost or MAX_SECONDS, time.monotonic()
        result, failed, code = "", "", None
        try:
            self._stumble()
            simulate.check(job.program, device)
            if job.seconds <= bound:
                result = encode(job.program, simulate.run(job.program, device), job.seconds)
        except DeviceFailed as error:
            failed = str(error)
        except simulate.NotRunnable as error:
            failed, code = str(error), 1002
        except Exception as error:
            # Whatever a simulator raises: the job fails, the service goes on.
            failed = f"Internal error: {type(error).__name__}: {error}"
        with self.changed:
            end = begun + self.settings.running
            while not job.cancelling and not self._stopping and time.monotonic() < end:
                self.changed.wait(end - time.monotonic())
            if failed:
                job.result = failed
                self._end(job, "Failed", reason=failed, code=code)
            elif job.seconds > bound:
                job.result = TOO_LONG
                self._end(job, "Cancelled", reason=TOO_LONG, code=1305, charged=float(bound))
            else:
                job.result = "" if job.cancelling else result
                self._end(job, "Completed", charged=job.seconds)
