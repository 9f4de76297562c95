"""Sessions and batches on the stand-in."""

from __future__ import annotations

from typing import Any

import pytest
from qiskit_ibm_runtime import Batch, Session
from qiskit_ibm_runtime.api.exceptions import RequestsApiError
from qiskit_ibm_runtime.exceptions import IBMInputValueError, IBMRuntimeError
from qiskit_ibm_runtime.executor_sampler import Sampler

from backends.runtime.standin import StandIn
from backends.runtime.standin import sessions as states


def run(mode: Any, sent: Any, shots: int = 100) -> Any:
    return Sampler(mode=mode).run([(sent.wide, sent.values[0])], shots=shots)


@pytest.mark.parametrize("kind", [Session, Batch])
def test_from_open_to_closed(service: Any, runtime_standin: StandIn, sent: Any, kind: Any) -> None:
    runtime_standin.settings.idle = 0.0
    runtime_standin.hold()
    opened = kind(service.backend("ibm_kyiv"), max_time=300)
    assert opened.status() == "Pending"
    jobs = [run(opened, sent), run(opened, sent)]
    runtime_standin.release()
    for job in jobs:
        job.result()
    assert opened.status() == "In progress, accepting new jobs"
    details = opened.details()
    assert (details["max_time"], details["backend_name"], details["accepting_jobs"]) == (300, "ibm_kyiv", True)
    assert details["mode"] == ("batch" if kind is Batch else "dedicated")
    again = kind.from_id(opened.session_id, service)
    opened.close()
    assert again.status() == "Closed"
    assert again.usage() == pytest.approx(2 * (2.0 + 100 * 250e-6))
    assert {entry.session_id for entry in runtime_standin.accepted()} == {opened.session_id}
    assert service.job(jobs[0].job_id()).session_id == opened.session_id
    with pytest.raises(IBMRuntimeError, match=r"Session has been closed\.") as refused:
        run(again, sent)
    assert "1217" in str(refused.value)
    assert len(runtime_standin.accepted()) == 2


def test_jobs_that_wait_when_it_is_closed_are_run(service: Any, runtime_standin: StandIn, sent: Any) -> None:
    runtime_standin.hold()
    session = Session(service.backend("ibm_kyiv"))
    job = run(session, sent)
    session.close()
    assert session.details()["accepting_jobs"] is False
    assert runtime_standin.sessions() == {session.session_id: "open"}
    runtime_standin.release()
    assert job.result()
    assert session.status() == "Closed"


def test_jobs_that_wait_when_it_is_cancelled_are_not(service: Any, runtime_standin: StandIn, sent: Any) -> None:
    runtime_standin.hold()
    session = Session(service.backend("ibm_kyiv"))
    job = run(session, sent)
    session.cancel()
    assert (job.status(), session.status(), job.usage()) == ("CANCELLED", "Closed", 0)


def test_the_open_plan_has_batches_and_no_sessions(service: Any, runtime_standin: StandIn, sent: Any) -> None:
    runtime_standin.settings.plan = "open"
    backend = service.backend("ibm_kyiv")
    with pytest.raises(RequestsApiError, match="not authorized to run a session when using the open plan") as refused:
        Session(backend)
    assert refused.value.status_code == 400
    assert "1352" in str(refused.value)
    with Batch(backend) as batch:
        assert run(batch, sent).result()
    assert runtime_standin.sessions() == {batch.session_id: "closed"}


def test_max_time_ends_a_session_and_its_queue(service: Any, runtime_standin: StandIn, sent: Any) -> None:
    session = Session(service.backend("ibm_kyiv"), max_time=1)
    run(session, sent).result()
    runtime_standin.hold()
    late = run(session, sent)
    runtime_standin._queue.sessions[session.session_id].activated -= 2.0  # type: ignore[operator]
    runtime_standin.release()
    late.wait_for_final_state(timeout=20)
    assert late.status() == "CANCELLED"
    assert session.status() == "Closed"
    with pytest.raises(IBMRuntimeError, match="Session has been closed"):
        run(session, sent)


def test_a_session_of_another_device(service: Any, runtime_standin: StandIn, sent: Any) -> None:
    torino = Session(service.backend("ibm_torino"))
    with pytest.raises(IBMInputValueError, match="Session not found"):
        Session.from_id("nothing", service)
    with pytest.raises(IBMInputValueError, match="dedicated instead of batch"):
        Batch.from_id(torino.session_id, service)
    client = service._active_api_client
    run(service.backend("ibm_kyiv"), sent)
    params = runtime_standin._queue.jobs[0].params
    with pytest.raises(RequestsApiError, match="The session is on ibm_torino"):
        client.program_run("executor", "ibm_kyiv", params, None, None, torino.session_id)


def test_idle_time_is_charged_to_sessions_up_to_the_interactive_ttl() -> None:
    session = states.Session("s", "dedicated", "ibm_kyiv", 600, 60.0, created=0.0)
    session.take(1.0, 1.0)
    session.started(10.0)
    session.ended(11.0, 5.0, 1.0)
    assert [session.state(t) for t in (12.0, 71.5)] == ["active", "inactive"]
    assert session.elapsed(15.0, 1.0) == pytest.approx(5.0 + 4.0)
    session.take(21.0, 1.0)
    assert session.elapsed(50.0, 1.0) == pytest.approx(5.0 + 10.0)
    session.ended(60.0, 2.0, 1.0)
    session.close(1000.0, 1.0)
    assert session.elapsed(2000.0, 1.0) == pytest.approx(5.0 + 10.0 + 2.0 + 60.0)
    batch = states.Session("b", "batch", "ibm_kyiv", 600, 60.0, created=0.0)
    batch.take(1.0, 1.0)
    batch.started(1.0)
    batch.ended(2.0, 5.0, 1.0)
    assert batch.elapsed(40.0, 1.0) == 5.0
