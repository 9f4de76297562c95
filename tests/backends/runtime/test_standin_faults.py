"""What goes wrong on the stand-in, as the real client meets it."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from qiskit.providers.exceptions import QiskitBackendNotFoundError
from qiskit_ibm_runtime.api.exceptions import RequestsApiError
from qiskit_ibm_runtime.exceptions import (
    IBMNotAuthorizedError,
    IBMRuntimeError,
    RuntimeJobFailureError,
    RuntimeJobNotFound,
)
from qiskit_ibm_runtime.executor_sampler import Sampler
from requests.adapters import HTTPAdapter

from backends.runtime.standin import Chaos, Fault, StandIn
from backends.runtime.standin.faults import STATUSES, Faults, fault_of
from backends.runtime.standin.replies import Call
from tests.backends.runtime.test_standin_service import ask


@pytest.fixture
def backend(service: Any) -> Any:
    """ibm_kyiv, reached by a client that repeats nothing on its own."""
    session = service._active_api_client._session
    session.mount("http://", HTTPAdapter(max_retries=0))
    return service.backend("ibm_kyiv")


def send(backend: Any, sent: Any, *tags: str) -> Any:
    sampler = Sampler(mode=backend)
    sampler.options.environment.job_tags = list(tags)
    return sampler.run([(sent.wide, sent.values[0])], shots=20)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("status", [403, 404, 409, 429, 500, 502, 503, 504])
def test_an_error_status_before_or_after_the_job_was_accepted(
    backend: Any, runtime_standin: StandIn, sent: Any, status: int, after: bool
) -> None:
    runtime_standin.faults.add(Fault("POST", r"^/jobs$", status=status, after=after))
    with pytest.raises(IBMRuntimeError):
        send(backend, sent, "mine")
    assert [job.tags for job in runtime_standin.accepted()] == ([("mine",)] if after else [])
    assert not runtime_standin.faults.pending()
    entry = next(e for e in runtime_standin.requests() if e.method == "POST" and e.path == "/jobs")
    assert (entry.status, entry.done) == (status, after)
    assert len(backend.service.jobs(job_tags=["mine"])) == after
    assert send(backend, sent).result()


def test_401(backend: Any, runtime_standin: StandIn, sent: Any) -> None:
    runtime_standin.faults.add(Fault("POST", "/jobs", status=401))
    with pytest.raises(IBMNotAuthorizedError):
        send(backend, sent)


@pytest.mark.parametrize("after", [False, True])
def test_a_dropped_connection(backend: Any, runtime_standin: StandIn, sent: Any, after: bool) -> None:
    runtime_standin.faults.add(Fault("POST", "/jobs", drop=True, after=after))
    with pytest.raises(IBMRuntimeError) as refused:
        send(backend, sent)
    assert "onnection" in str(refused.value)
    assert len(runtime_standin.accepted()) == after
    assert [e.status for e in runtime_standin.requests() if e.path == "/jobs"] == [0]


def test_the_unmodified_client_repeats_a_post_and_sends_twice(
    service: Any, runtime_standin: StandIn, sent: Any
) -> None:
    """Why qrun switches its repeats off: a 504 after the job was accepted makes two of it."""
    runtime_standin.faults.add(Fault("POST", "/jobs", status=504, after=True))
    send(service.backend("ibm_kyiv"), sent).result()
    assert len(runtime_standin.accepted()) == 2
    assert len({job.digest for job in runtime_standin.accepted()}) == 1


def test_the_connection_of_qrun_does_not(runtime_standin: StandIn, sent: Any) -> None:
    from backends.runtime.account import connect

    runtime_standin.faults.add(Fault("POST", "/jobs", status=504, after=True))
    with pytest.raises(IBMRuntimeError, match="504"):
        send(connect().backend("ibm_kyiv"), sent)
    assert len(runtime_standin.accepted()) == 1


def test_a_job_that_fails_on_the_device(backend: Any, runtime_standin: StandIn, sent: Any) -> None:
    runtime_standin.settings.failing = 1
    job = send(backend, sent)
    with pytest.raises(RuntimeJobFailureError, match="The device failed"):
        job.result()
    assert (job.status(), job.usage(), runtime_standin.settings.failing) == ("ERROR", 0, 0)
    assert send(backend, sent).result()


def test_a_delay(backend: Any, runtime_standin: StandIn) -> None:
    runtime_standin.faults.add(Fault("GET", "/status$", delay=0.3))
    begun = time.monotonic()
    assert backend.status().operational
    assert time.monotonic() - begun > 0.3


def test_how_often_and_in_which_order(backend: Any, runtime_standin: StandIn) -> None:
    runtime_standin.faults.add(Fault("GET", "/status$", status=500, times=2), Fault("", "/status$", status=404))
    seen = []
    for _ in range(3):
        with pytest.raises(RequestsApiError) as refused:
            backend.status()
        seen.append(refused.value.status_code)
    assert seen == [500, 500, 404]
    assert backend.status().operational


def test_retry_after(backend: Any, runtime_standin: StandIn) -> None:
    runtime_standin.faults.add(Fault("GET", "/usage$", status=429, retry_after=7))
    with pytest.raises(RequestsApiError) as refused:
        backend.service.usage()
    assert refused.value.__cause__.response.headers["Retry-After"] == "7"


def test_a_job_shows_late_in_lists_and_by_id(backend: Any, runtime_standin: StandIn, sent: Any) -> None:
    settings, service = runtime_standin.settings, backend.service
    settings.late = 3600.0
    job = send(backend, sent, "mine")
    assert service.jobs(job_tags=["mine"]) == []
    assert service.job(job.job_id()).job_id() == job.job_id()
    settings.late_by_id = 3600.0
    with pytest.raises(RuntimeJobNotFound):
        service.job(job.job_id())
    settings.late = settings.late_by_id = 0.0
    assert [found.job_id() for found in service.jobs(job_tags=["mine"])] == [job.job_id()]


def test_a_session_that_was_opened_but_not_told(backend: Any, runtime_standin: StandIn) -> None:
    from qiskit_ibm_runtime import Session

    runtime_standin.faults.add(Fault("POST", "/sessions", drop=True, after=True))
    with pytest.raises(RequestsApiError):
        Session(backend)
    assert list(runtime_standin.sessions().values()) == ["open"]


def test_chaos_is_that_of_its_seed() -> None:
    def draw(chaos: Chaos, calls: int = 400) -> list[Any]:
        faults = Faults()
        faults.chaos(chaos)
        return [faults.take(Call("GET", "/jobs")) for _ in range(calls)]

    first = draw(Chaos(3, error=0.2, drop=0.1, late=0.1))
    assert first == draw(Chaos(3, error=0.2, drop=0.1, late=0.1)) != draw(Chaos(4, error=0.2, drop=0.1, late=0.1))
    there = [fault for fault in first if fault]
    assert 30 < sum(fault.status is not None for fault in there) < 110
    assert 15 < sum(fault.drop for fault in there) < 70
    assert {fault.status for fault in there} == {None, *STATUSES}
    assert {fault.after for fault in there} == {False, True}
    assert max(fault.delay for fault in there) <= 0.2
    assert not any(draw(Chaos(3, error=0, drop=0, late=0)))
    faults = Faults()
    faults.chaos(Chaos(1, error=1.0, path="^/sessions"))
    assert faults.take(Call("POST", "/sessions"))
    assert not faults.take(Call("POST", "/jobs"))
    assert not faults.take(Call("POST", "/identity/token"))
    faults.clear()
    assert not faults.take(Call("POST", "/sessions"))


def test_under_chaos_no_answer_is_a_wrong_one(backend: Any, runtime_standin: StandIn, sent: Any) -> None:
    """Whatever goes wrong on the way, a job that can be fetched at last has the counts of the undisturbed one."""
    right = send(backend, sent).result()[0].data.meas.array
    runtime_standin.faults.chaos(Chaos(11, error=0.2, drop=0.1, late=0.1, longest=0.02))
    for number in range(6):
        try:
            send(backend, sent, f"n{number}")
        except (IBMRuntimeError, RequestsApiError, QiskitBackendNotFoundError):
            continue  # the client asks for the device before it sends, and takes any error for its absence
    runtime_standin.faults.chaos(None)
    jobs = runtime_standin.accepted()[1:]
    assert jobs
    for job in jobs:
        assert np.array_equal(backend.service.job(job.job_id).result()[0].data.meas.array, right)
    assert any(entry.fault for entry in runtime_standin.requests())


def test_control_over_http(backend: Any, runtime_standin: StandIn, sent: Any) -> None:
    here = runtime_standin
    assert ask(here, "/standin/faults", {"method": "GET", "path": "/status$", "status": 404}) == (204, None)
    assert [fault["status"] for fault in ask(here, "/standin/faults")[1]["faults"]] == [404]
    with pytest.raises(RequestsApiError):
        backend.status()
    assert ask(here, "/standin/chaos", {"seed": 1, "error": 1.0, "drop": 0.0, "statuses": [500]})[0] == 204
    with pytest.raises(RequestsApiError):
        backend.status()
    assert ask(here, "/standin/chaos", {})[0] == 204
    assert ask(here, "/standin/hold", {})[0] == 204
    job = send(backend, sent, "mine")
    assert ask(here, "/standin/jobs")[1]["jobs"][0]["state"] == "Queued"
    assert ask(here, "/standin/settings", {"queue": 0.01, "plan": "open"})[0] == 204
    assert here.settings.plan == "open"
    assert ask(here, "/standin/release", {})[0] == 204
    job.result()
    assert ask(here, "/standin/jobs")[1]["jobs"][0]["tags"] == ["mine"]
    assert ask(here, "/standin/sessions")[1] == {"sessions": []}
    assert {entry["status"] for entry in ask(here, "/standin/requests")[1]["requests"]} == {200, 404, 500}
    for path, body in (
        ("faults", {"nothing": 1}),
        ("faults", {"path": "("}),
        ("faults", {"times": 0}),
        ("chaos", {"rate": 1}),
        ("settings", {"devices": []}),
    ):
        assert ask(here, f"/standin/{path}", body)[0] == 400
    assert ask(here, "/standin/nothing")[0] == 404


def test_a_fault_from_json() -> None:
    assert fault_of({"method": "POST", "drop": True}) == Fault("POST", drop=True)
