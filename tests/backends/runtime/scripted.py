"""A service that follows a script: every call of its client may fail in every way that the real one's may, the process
may be killed before and after it, and jobs may be shown late. Time is a number that sleeping adds to.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from backends.catalog import get_target
from backends.observables import single_z
from backends.protocol import Request
from backends.runtime.client import Clock, Kind, Lost, Place, Rejected, SessionStatus, Status, Unclear
from backends.runtime.executor import RuntimeExecutor
from backends.runtime.ledger import JobLedger, MemoryLedger
from backends.runtime.pubs import Part
from backends.runtime.types import Access, JobLimits, RuntimeContext, RuntimeOptions
from backends.target import Target
from circuits.compile import compile_ansatz
from circuits.qgan import generator
from circuits.types import CompiledCircuit


class Kill(BaseException):
    """The process dies here."""


def hardware() -> tuple[Target, CompiledCircuit]:
    """A small device that passes for a real one, and a circuit compiled for it."""
    target = get_target("fake_manila")
    compiled = compile_ansatz(generator(2, reps=1), target.backend, seed=1)
    return replace(target, kind="hardware", name="ibm_manila"), compiled


def requests(compiled: CompiledCircuit, batch: int = 3, seed: int = 0) -> list[Request]:
    rng = np.random.default_rng(seed)
    weights = rng.uniform(-1, 1, len(compiled.weights))
    inputs = rng.uniform(-1, 1, (batch, len(compiled.inputs)))
    return [Request(compiled, single_z(compiled.num_qubits), inputs, weights)]


def tensor(array: np.ndarray) -> dict[str, object]:
    """As the service packs booleans."""
    packed = np.packbits(array.astype(np.uint8), bitorder="little").tobytes()
    return {"data": base64.b64encode(zlib.compress(packed)).decode(), "shape": list(array.shape), "dtype": "bool"}


def answer(part: Part) -> bytes:
    """A result in the service's form that depends on the request alone."""
    rng = np.random.default_rng(int(part.digest[:16], 16))
    shots, data = part.options.shots, []
    for pub in part.pubs:
        shape = (pub.rows, shots, pub.circuit.num_qubits) if pub.parameters else (shots, pub.circuit.num_qubits)
        data.append({"results": {"c": tensor(rng.random(shape) < 0.5)}, "metadata": {}})
    about = {"version": "v0.1", "twirling": False, "meas_type": "classified", "shots": shots, "options": {}}
    tree = {
        "schema_version": "v2.0",
        "data": data,
        "metadata": {"chunk_timing": []},
        "passthrough_data": {"post_processor": about},
        "semantic_role": "sampler_v2",
    }
    return json.dumps(tree).encode()


@dataclass
class Sent:
    """A job at the service."""

    job_id: str
    part: Part
    place: Place
    shown: float
    polls: int
    charge: float
    state: str = "queued"


@dataclass
class Service:
    """What outlives the process.

    Attributes:
        time: Seconds, moved by sleeping.
        late: Seconds until a job is found by its tag.
        polls: How often a job's status is asked for before it has ended.
        modes: What the plan allows.
        charge: QPU seconds of a job, by what it may take.
        ends: What a job ends as.
        says: The service's own estimate.
        largest: Rows that it takes in a job.
    """

    time: float = 1000.0
    late: float = 0.0
    polls: int = 2
    modes: tuple[str, ...] = ("session", "batch")
    charge: Callable[[int], float] = lambda most: min(2.0, most)
    ends: str = "done"
    says: float | None = None
    largest: int = 10**9
    jobs: dict[str, Sent] = field(default_factory=dict)
    sessions: dict[str, dict[str, object]] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)

    def clock(self) -> Clock:
        def sleep(seconds: float) -> None:
            assert seconds >= 0
            self.time += seconds

        return Clock(lambda: self.time, sleep)

    @property
    def charged(self) -> float:
        return sum(job.charge for job in self.jobs.values() if job.state in ("done", "failed"))

    def accepted(self) -> Counter[str]:
        """Jobs by the digest of what they run."""
        return Counter(job.part.digest for job in self.jobs.values())


class Client:
    """A client of `Service` whose calls meet the next fault of a script each; none once it is over."""

    local = False

    def __init__(self, service: Service, faults: Iterable[str] = ()) -> None:
        self.service, self._faults = service, iter(faults)

    def _fault(self, call: str) -> str:
        self.service.calls[call] += 1
        fault = next(self._faults, "ok")
        if fault == "kill":
            raise Kill
        return fault

    def _read(self, call: str) -> str:
        fault = self._fault(call)
        if fault in ("lost", "unclear-lost", "rejected"):
            raise Lost("HTTP 503")
        return fault

    def submit(self, part: Part, place: Place) -> str:
        fault = self._fault("submit")
        if fault in ("rejected", "lost"):
            raise Rejected("connection refused", transient=True)
        if fault == "unclear-lost":
            raise Unclear("read timed out")
        service = self.service
        if place.session_id is not None and not service.sessions[place.session_id]["accepting"]:
            raise Rejected("the session is closed", status=400)
        if part.rows > service.largest:
            raise Rejected("too many circuits in one job", status=400)
        job_id, most = f"job-{len(service.jobs)}", int(place.max_seconds or 0)
        service.jobs[job_id] = Sent(
            job_id, part, place, service.time + service.late, service.polls, service.charge(most)
        )
        if fault == "unclear":
            raise Unclear("HTTP 502")
        if fault == "kill-after":
            raise Kill
        return job_id

    def find(self, tag: str) -> list[str]:
        self._read("find")
        jobs = self.service.jobs.values()
        return [job.job_id for job in jobs if tag in job.place.tags and job.shown <= self.service.time]

    def status(self, job_id: str) -> Status:
        self._read("status")
        job = self.service.jobs[job_id]
        if job.state == "queued":
            job.polls -= 1
            if job.polls < 0:
                job.state = self.service.ends
        return Status(job.state, "broken fridge" if job.state == "failed" else "")  # type: ignore[arg-type]

    def result(self, job_id: str) -> bytes:
        self._read("result")
        return answer(self.service.jobs[job_id].part)

    def usage(self, job_id: str) -> float | None:
        self._read("usage")
        job = self.service.jobs[job_id]
        return job.charge if job.state in ("done", "failed") else 0.0 if job.state == "cancelled" else None

    def estimate(self, job_id: str) -> float | None:
        self._read("estimate")
        return self.service.says

    def cancel(self, job_id: str) -> bool:
        self._read("cancel")
        job = self.service.jobs[job_id]
        if job.state != "queued":
            return False
        job.state = "cancelled"
        return True

    def open_session(self, kind: Kind, backend: str, max_time: int) -> str | None:
        fault = self._fault("open")
        if fault in ("rejected", "lost"):
            raise Rejected("connection refused", transient=True)
        if fault in ("unclear", "unclear-lost"):
            raise Unclear("HTTP 500")
        if kind not in self.service.modes:
            raise Rejected(f"You are not authorized to run a {kind}", status=400)
        session_id = f"{kind}-{len(self.service.sessions)}"
        self.service.sessions[session_id] = {"accepting": True, "max_time": max_time, "kind": kind}
        return session_id

    def session(self, session_id: str) -> SessionStatus:
        self._read("session")
        inside = [job for job in self.service.jobs.values() if job.place.session_id == session_id]
        used = sum(job.charge for job in inside if job.state == "done")
        idle = float(self.service.sessions[session_id].get("idle", 0.0))  # type: ignore[arg-type]
        return SessionStatus(bool(self.service.sessions[session_id]["accepting"]), used + idle)

    def close_session(self, session_id: str) -> None:
        self._read("close")
        self.service.sessions[session_id]["accepting"] = False

    def plan(self) -> str | None:
        return "open" if "session" not in self.service.modes else None


def engine(
    service: Service,
    ledger: JobLedger | None = None,
    *,
    target: Target,
    faults: Iterable[str] = (),
    told: list[str] | None = None,
    access: Access | None = None,
    shots: int = 16,
    limits: JobLimits | None = None,
    run: str = "",
) -> RuntimeExecutor:
    """A runtime engine on a scripted service, with a ledger that outlives it."""
    tell = (lambda title, text: told.append(f"{title}: {text}")) if told is not None else (lambda title, text: None)
    context = RuntimeContext(RuntimeOptions(shots=shots), access or Access(), run, tell)
    client = Client(service, faults)
    return RuntimeExecutor(target, context, ledger or MemoryLedger(), client, limits=limits, clock=service.clock())
