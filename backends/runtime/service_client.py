"""The real service, through qiskit-ibm-runtime: every answer sorted into accepted, rejected, unclear, lost or refused.

Whether a job was sent at all is not left to the exception that comes: the one call that sends it is watched.
"""

from __future__ import annotations

import json
import logging
import threading
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from backends.runtime.client import JobState, Kind, Lost, NotShown, Place, Rejected, SessionStatus, Status, Unclear
from backends.runtime.errors import ServiceError
from backends.runtime.explain import explain, one_line, redact
from backends.runtime.primitives import run_primitive
from backends.runtime.pubs import Part
from backends.runtime.wire import Watch, is_id, of_the_wire, outcome, said, seconds, status_of, table
from circuits.errors import QrunError

Value = TypeVar("Value")

_STATES: dict[str, JobState] = {
    "QUEUED": "queued",
    "INITIALIZING": "queued",
    "RUNNING": "running",
    "COMPLETED": "done",
    "DONE": "done",
    "FAILED": "failed",
    "ERROR": "failed",
    "CANCELLED": "cancelled",
}


_SENDING = threading.Lock()
"""One job is sent at a time: the client of the service is shared, and so is what watches it."""


class ServiceClient:
    """Jobs and sessions of IBM's service.

    Args:
        service: A QiskitRuntimeService; None for the account in force (`account.connect`), when first needed.
        backend: The device whose jobs are asked for; where an account has several instances, its one is asked.
    """

    local = False

    def __init__(self, service: Any = None, backend: str | None = None) -> None:
        self._service, self._name = service, backend
        self._backends: dict[str, Any] = {}
        self._sessions: dict[str, Any] = {}

    @property
    def service(self) -> Any:
        """The service, connected.

        Raises:
            ServiceError: It cannot be reached, or refuses.
        """
        if self._service is None:
            from backends.runtime.account import connect

            self._service = connect()
            # Each lost connection is a warning there; here it is told once, by who waits.
            logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
        return self._service

    def submit(self, part: Part, place: Place) -> str:
        """Send a job; its id. Raises Rejected or Unclear; QrunError where it cannot even be made."""
        backend = self._before_sending(place.backend, lambda: self._backend(place.backend))
        mode = (
            backend if place.session_id is None else self._before_sending(place.backend, lambda: self._session(place))
        )
        # The client picks the instance that it sends to by itself: none of them may send unseen.
        apis = {id(api): api for api in (self._api(backend), *self.service._get_api_clients().values())}
        with _SENDING:
            watch = Watch()
            inner = {key: api.program_run for key, api in apis.items()}
            for key, api in apis.items():
                api.program_run = partial(watch, inner[key])
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of a device in maintenance, of deprecations inside
                    run_primitive(
                        part,
                        mode,
                        backend.num_qubits,
                        lambda pub: pub.circuit.physical_qubits,
                        tags=place.tags,
                        max_seconds=place.max_seconds,
                    )
            except Exception as error:
                if watch.job_id is None:
                    raise self._sorted(error, place.backend, sent=watch.called) from None
            finally:
                for key, api in apis.items():
                    api.program_run = inner[key]
        if watch.job_id is None:
            raise Unclear("the service answered without a job id")
        return watch.job_id

    def _sorted(self, error: Exception, backend: str, *, sent: bool) -> Exception:
        """What a failure while sending means."""
        from qiskit_ibm_runtime.exceptions import IBMInputValueError

        if not sent:
            if isinstance(error, QrunError | Rejected):
                return error
            if status_of(error) is None and isinstance(error, IBMInputValueError | ValueError | TypeError):
                return QrunError(f"this job cannot be made: {one_line(redact(str(error)))}")
            return self._before(error, backend)
        return outcome(error)

    def _before(self, error: Exception, backend: str) -> Exception:
        """A failure of what is asked before anything is sent."""
        status = status_of(error)
        lost = of_the_wire(error) if status is None else status in (-1, 408, 429) or status >= 500
        if lost:
            return Rejected(said(error), status=status, transient=True)
        return explain(error, f"nothing can be sent to {backend}")

    def _before_sending(self, backend: str, ask: Callable[[], Value]) -> Value:
        try:
            return ask()
        except (QrunError, Rejected):
            raise
        except Exception as error:
            raise self._before(error, backend) from None

    def _backend(self, name: str) -> Any:
        if name not in self._backends:
            try:
                self._backends[name] = self.service.backend(name)
            except QrunError:
                raise
            except Exception as error:
                # Where its configuration could not be had for now, the client says that there is no such device.
                listed = self.service._get_api_client().list_backends()
                if type(error).__name__ == "QiskitBackendNotFoundError" and name in {d.get("name") for d in listed}:
                    raise Rejected(f"{name} does not answer", transient=True) from None
                raise
        return self._backends[name]

    def _api(self, backend: Any) -> Any:
        return self.service._get_api_client(getattr(backend, "_instance", None))

    def _reader(self) -> Any:
        """The client of the device's instance; of the one in force where the device is gone."""
        if self._name is not None and self._name not in self._backends:
            try:
                self._backend(self._name)
            except QrunError:
                raise
            except Exception:
                return self.service._get_api_client()
        return self._api(self._backends.get(self._name or ""))

    def _session(self, place: Place) -> Any:
        """The Session or Batch of an id: the one that was opened here, or made from its id."""
        from qiskit_ibm_runtime import Batch, Session

        session_id = str(place.session_id)
        if session_id not in self._sessions:
            kind = Batch if place.kind == "batch" else Session
            self._sessions[session_id] = kind.from_id(session_id, self.service)
        session = self._sessions[session_id]
        session._active = True  # whether it takes jobs is for the service to say
        return session

    def open_session(self, kind: Kind, backend: str, max_time: int) -> str | None:
        """Open a session or batch. Raises Rejected or Unclear."""
        from qiskit_ibm_runtime import Batch, Session

        device = self._before_sending(backend, lambda: self._backend(backend))
        try:
            session = (Batch if kind == "batch" else Session)(backend=device, max_time=max_time)
        except Exception as error:
            raise outcome(error) from None
        if not is_id(session.session_id):
            raise Unclear("the service answered without an id that can be one")
        self._sessions[session.session_id] = session
        return str(session.session_id)

    def session(self, session_id: str) -> SessionStatus:
        """How a session stands; one that the service does not know takes no jobs."""
        found: dict[str, Any] = self._ask(
            "the session cannot be looked up", lambda api: table(api.session_details(session_id)), missing={}
        )
        usage = found.get("elapsed_time")
        state = str(found.get("state") or "").lower()
        accepting = bool(found.get("accepting_jobs")) and state not in ("closed", "pending_closed")
        return SessionStatus(accepting, seconds(usage))

    def close_session(self, session_id: str) -> None:
        """Let it take no more jobs."""
        self._ask("the session cannot be closed", lambda api: api.close_session(session_id), missing=None)

    def find(self, tag: str) -> list[str]:
        """Ids of the jobs with this tag, the oldest first. Only the service's own list says that there is none."""

        def look(api: Any) -> list[str]:
            found = table(api.jobs_get(limit=20, skip=0, job_tags=[tag], descending=False)).get("jobs")
            if not isinstance(found, list):
                raise Lost("the answer is no list of jobs")
            ids = [job.get("id") for job in map(table, found) if tag in (job.get("tags") or [])]
            known = [found for found in ids if is_id(found)]
            if len(known) < len(ids):
                raise Lost(f"the job tagged {tag} has an id that can be none")
            return known

        return self._ask("jobs cannot be looked up", look)

    def status(self, job_id: str) -> Status:
        """What has become of a job."""
        found = self._job(job_id)
        if found is None:
            raise NotShown(f"the service does not know the job {job_id}")
        state = found.get("state")
        state = state if isinstance(state, dict) else {}
        name = str(state.get("status") or found.get("status") or "").upper()
        if name.startswith("CANCELLED"):
            name = "CANCELLED"
        if name not in _STATES:
            raise Lost(f"the service calls the job {job_id} {one_line(name) or 'nothing'}")
        reason = state.get("reason") or found.get("reason") or ""
        code = state.get("reason_code") or state.get("reasonCode")
        text = f"{one_line(redact(str(reason)))}{f' (code {code})' if isinstance(code, int) else ''}".strip()
        return Status(_STATES[name], text)

    def result(self, job_id: str) -> bytes:
        """The text of a job's result."""

        def have(api: Any) -> bytes:
            text: str = api.job_results(job_id)
            table(json.loads(text))  # a proxy's page, or half a text, is asked for again
            return text.encode()

        return self._ask(f"the result of job {job_id} cannot be had", have)

    def usage(self, job_id: str) -> float | None:
        """QPU seconds that a job was charged; None while that is not settled."""
        found: dict[str, Any] = self._ask(
            f"the usage of job {job_id} cannot be had", lambda api: table(api.job_metadata(job_id)), missing={}
        )
        usage = found.get("usage")
        usage = usage if isinstance(usage, dict) else {}
        if str(usage.get("status") or "").lower() == "pending":
            return None
        for name in ("qpu_charge_time_seconds", "quantum_seconds"):
            charged = seconds(usage.get(name))
            if charged is not None:
                return charged
        return None

    def estimate(self, job_id: str) -> float | None:
        """QPU seconds that the service expects of a job, where it says."""
        return seconds((self._job(job_id) or {}).get("estimated_running_time_seconds"))

    def _job(self, job_id: str) -> dict[str, Any] | None:
        """What the service says of a job, {"id": ...}; None where it says that it has none."""

        def look(api: Any) -> dict[str, Any] | None:
            found = table(api.job_get(job_id))
            if found.get("id") != job_id:
                raise Lost(f"the answer is not about the job {job_id}")
            return found

        return self._ask(f"the job {job_id} cannot be looked up", look, missing=None)

    def cancel(self, job_id: str) -> bool:
        """Cancel a job; False where it had ended."""
        try:
            self._ask(f"the job {job_id} cannot be cancelled", lambda api: api.job_cancel(job_id))
        except _EndedError:
            return False
        return True

    def plan(self) -> str | None:
        """Name of the plan of the instance in force, where known; never raises."""
        try:
            active = self.service.active_instance()
            plans = {str(entry.get("crn")): entry.get("plan") for entry in self.service.instances()}
            plan = plans.get(str(active))
            return one_line(str(plan)) if plan else None
        except Exception:
            return None

    def _ask(self, what: str, ask: Callable[[Any], Value], **missing: Value) -> Value:
        """Ask the service. `missing` is the answer for what it does not know.

        Raises:
            Lost: No answer for now.
            ServiceError: Asking again is no use.
        """
        try:
            return ask(self._reader())
        except Lost:
            raise
        except Exception as error:
            status = status_of(error)
            if isinstance(error, QrunError) and status is None and not of_the_wire(error):
                raise  # no account, no such instance: waiting mends nothing
            if status is None and not of_the_wire(error):
                raise Lost(said(error)) from None  # an answer in no form that is known: a proxy's page, half a text
            if status == 404 and "missing" in missing:
                return missing["missing"]
            if status == 409:
                raise _EndedError(what) from None
            if status is None or status < 0 or status in (408, 429) or status >= 500:
                raise Lost(said(error)) from None
            raise explain(error, what) from None


class _EndedError(ServiceError):
    """The service says that what was asked conflicts with how the job stands."""
