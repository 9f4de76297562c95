"""The real client against the stand-in for IBM's service: what is sent, what comes back, and what failures mean."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from qiskit_ibm_runtime import Session

from backends.catalog import get_target
from backends.observables import single_z
from backends.protocol import Request
from backends.runtime.account import connect, disconnect
from backends.runtime.client import Clock, Lost, NotShown, Place, Rejected, Unclear
from backends.runtime.errors import BudgetError, Detached, ServiceError
from backends.runtime.executor import RuntimeExecutor
from backends.runtime.labels import labelled
from backends.runtime.ledger import MemoryLedger, spent
from backends.runtime.pubs import Part, parts
from backends.runtime.service_client import ServiceClient
from backends.runtime.standin import Fault, StandIn
from backends.runtime.types import Access, JobLimits, RuntimeContext, RuntimeOptions
from backends.target import Target
from backends.twin.executor import TwinExecutor

pytestmark = pytest.mark.server

Make = Callable[..., RuntimeExecutor]


@pytest.fixture(scope="module")
def target() -> Target:
    return replace(get_target("fake_kyiv"), kind="hardware", name="ibm_kyiv")


@pytest.fixture(autouse=True)
def _disconnected(runtime_standin: StandIn, monkeypatch: pytest.MonkeyPatch) -> Any:
    # IBM's client tries again as often as it does, a hundredth of a second apart.
    monkeypatch.setattr("urllib3.util.retry.Retry.sleep", lambda *_: time.sleep(0.01))
    disconnect()
    yield
    disconnect()


@pytest.fixture
def make(target: Target) -> Make:
    """An engine on the stand-in that waits a twentieth of the time."""

    def made(
        ledger: MemoryLedger | None = None,
        told: list[str] | None = None,
        options: RuntimeOptions | None = None,
        **access: Any,
    ) -> RuntimeExecutor:
        tell = (lambda title, text: told.append(f"{title}: {text}")) if told is not None else (lambda *_: None)
        context = RuntimeContext(options or RuntimeOptions(shots=64), Access(**access), "r1", tell)
        clock = Clock(time.time, lambda seconds: time.sleep(seconds / 20))
        return RuntimeExecutor(target, context, ledger, clock=clock)

    return made


def asked(sent: Any, batch: int = 3, seed: int = 0) -> list[Request]:
    rng = np.random.default_rng(seed)
    compiled = sent.compiled
    weights = rng.uniform(-1, 1, len(compiled.weights))
    return [Request(compiled, single_z(4), rng.uniform(-1, 1, (batch, 4)), weights)]


@pytest.mark.parametrize(
    "options",
    [
        RuntimeOptions(shots=2048),
        RuntimeOptions(shots=2048, twirling="all"),
        RuntimeOptions(shots=2048, dynamical_decoupling="XX"),
        RuntimeOptions(shots=2048, resilience_level=0),
    ],
)
def test_values_are_the_exact_ones_of_the_twin(make: Make, sent: Any, target: Target, options: RuntimeOptions) -> None:
    requests = asked(sent)
    with make(options=options) as executor:
        result = executor.run(requests, seed=1)[0]
    exact = TwinExecutor(replace(target, kind="fake")).run(requests)[0].values
    if options.dynamical_decoupling == "off":
        assert np.abs((result.values - exact) / result.standard_errors).max() < 5
    else:  # its pulses have errors of their own
        assert np.abs(result.values - exact).max() < 0.2
    assert result.metadata["qpu_seconds"] > 0
    assert result.metadata["local"] is False


def test_mitigated_values_are_better_than_those_that_are_read(make: Make, sent: Any, target: Target) -> None:
    requests = asked(sent)
    ideal = TwinExecutor(replace(target, kind="fake"), readout_error=False).run(requests)[0].values
    errors = []
    for level in (0, 1):
        with make(options=RuntimeOptions(shots=8192, resilience_level=level)) as executor:
            errors.append(np.abs(executor.run(requests, seed=1)[0].values - ideal).mean())
    assert errors[1] < errors[0]


def test_a_job_has_its_tags_session_and_bound(make: Make, sent: Any, runtime_standin: StandIn) -> None:
    ledger = MemoryLedger()
    with labelled("train", round_=3, node=1), make(ledger, session_seconds=1234) as executor:
        executor.run(asked(sent), seed=1)
        executor.run(asked(sent, seed=1), seed=2)
    first, second = runtime_standin.accepted()
    assert first.tags[1:] == ("qrun-run-r1", "qrun-node-1", "qrun-round-3", "qrun-step-train-0")
    assert second.tags[-1] == "qrun-step-train-1"
    assert first.session_id == second.session_id is not None
    (session,) = ledger.sessions()
    assert not session.open
    assert session.usage is not None
    # What the service was told that they may take at most.
    assert [first.cost, second.cost] == [job.reserve for job in ledger.jobs()]
    assert min(first.cost or 0, second.cost or 0) > 0
    told = Session.from_id(session.session_id, connect()).details()
    assert told is not None
    assert told["max_time"] == session.max_time == 1234
    assert [job.job_id for job in ledger.jobs()] == [first.job_id, second.job_id]
    assert all(job.state == "done" and (job.qpu_seconds or 0) > 2 for job in ledger.jobs())


def test_the_open_plan_gets_batches(make: Make, sent: Any, runtime_standin: StandIn) -> None:
    runtime_standin.settings.plan = "open"
    told: list[str] = []
    with make(told=told) as executor:
        result = executor.run(asked(sent), seed=1)[0]
    assert result.metadata["mode"] == "batch"
    assert [text for text in told if text.startswith("mode: batches") and "open" in text]
    with pytest.raises(ServiceError, match="session"), make(mode="session") as executor:
        executor.run(asked(sent), seed=1)


@pytest.mark.parametrize(
    "fault",
    [
        Fault("POST", r"/jobs$", status=504, after=True),
        Fault("POST", r"/jobs$", drop=True, after=True),
        Fault("POST", r"/jobs$", status=429),
        Fault("GET", r"/backends/ibm_kyiv/status", status=429, times=2),
        Fault("GET", r"/jobs/", status=429, times=2),
        Fault("GET", r"/jobs/.*/results", drop=True, times=1),
        Fault("POST", r"/sessions$", status=500),
    ],
    ids=lambda fault: f"{fault.method}-{fault.status}-{fault.after}",
)
def test_faults_are_waited_out_and_no_job_is_sent_twice(
    make: Make, sent: Any, runtime_standin: StandIn, fault: Fault
) -> None:
    with make() as executor:
        expected = executor.run(asked(sent), seed=1)[0].values
    runtime_standin.settings.late = 0.3
    runtime_standin.faults.add(fault)
    with make() as executor:
        values = executor.run(asked(sent, seed=0), seed=2)[0].values
    assert values.shape == expected.shape
    assert len(runtime_standin.accepted()) == 2
    assert not runtime_standin.faults.pending()


def test_a_job_that_is_shown_late_by_its_id(make: Make, sent: Any, runtime_standin: StandIn) -> None:
    runtime_standin.settings.late_by_id = 0.4
    with make() as executor:
        executor.run(asked(sent), seed=1)
    assert len(runtime_standin.accepted()) == 1


def test_detach_and_take_the_result_later(make: Make, sent: Any, runtime_standin: StandIn) -> None:
    runtime_standin.settings.queue = 1.0
    ledger = MemoryLedger()
    with labelled("train"), pytest.raises(Detached) as left, make(ledger, detach=True) as executor:
        executor.run(asked(sent), seed=1)
    assert left.value.jobs == tuple(job.job_id for job in runtime_standin.accepted())
    with labelled("train"), make(ledger) as executor:
        executor.run(asked(sent), seed=1)
    assert len(runtime_standin.accepted()) == 1


def test_a_session_that_the_service_closed_is_opened_anew(make: Make, sent: Any, runtime_standin: StandIn) -> None:
    ledger = MemoryLedger()
    with make(ledger) as executor:
        executor.run(asked(sent), seed=1)
        (first,) = ledger.sessions()
        ServiceClient().close_session(first.session_id)
        executor.run(asked(sent, seed=1), seed=2)
    assert len(ledger.sessions()) == 2
    assert [job.session_id for job in ledger.jobs()] == [session.session_id for session in ledger.sessions()]


def test_the_budget_stops_before_it_is_passed(make: Make, sent: Any, runtime_standin: StandIn) -> None:
    ledger = MemoryLedger()
    with make(ledger, max_qpu_seconds=7.0) as executor:
        executor.run(asked(sent), seed=0)
        with pytest.raises(BudgetError, match="kept"):
            [executor.run(asked(sent, seed=step), seed=step) for step in range(1, 5)]
    assert 0 < len(runtime_standin.accepted()) < 5
    assert 0 < spent(ledger.jobs(), ledger.sessions()) <= 7.0


def test_limits_of_the_service_split_a_job(make: Make, sent: Any, runtime_standin: StandIn) -> None:
    runtime_standin.settings.circuits = 4
    with make() as executor:
        values = executor.run(asked(sent, batch=6), seed=1)[0].values
    assert len(runtime_standin.accepted()) == 2
    assert np.abs(values).min() > 0


def test_a_refused_token_says_what_to_do(make: Make, sent: Any, runtime_standin: StandIn) -> None:
    with make() as executor:
        executor.run(asked(sent), seed=1)
        runtime_standin.faults.add(Fault("POST", r"/jobs$", status=401, times=9))
        with pytest.raises(ServiceError, match="qrun login") as error:
            executor.run(asked(sent, seed=1), seed=2)
    assert runtime_standin.settings.token not in str(error.value)


def part(sent: Any, target: Target) -> Part:
    (made,) = parts(asked(sent), target, RuntimeOptions(shots=16), 1, local=False, limits=JobLimits())
    return made


def place(**changes: Any) -> Place:
    return replace(Place("ibm_kyiv", "job", None, ("qrun-test",), 60), **changes)


@pytest.mark.parametrize(
    ("fault", "meant"),
    [
        (Fault("POST", r"/jobs$", status=400), (Rejected, False, False)),
        (Fault("POST", r"/jobs$", status=403), (Rejected, False, False)),
        (Fault("POST", r"/jobs$", status=429), (Rejected, True, False)),
        (Fault("POST", r"/jobs$", status=500), (Unclear, None, False)),
        (Fault("POST", r"/jobs$", status=503), (Unclear, None, False)),
        (Fault("POST", r"/jobs$", status=503, after=True), (Unclear, None, True)),
        (Fault("POST", r"/jobs$", drop=True), (Unclear, None, False)),
        (Fault("POST", r"/jobs$", drop=True, after=True), (Unclear, None, True)),
        (Fault("GET", r"/status$", status=429, times=9), (Rejected, True, False)),
        (Fault("GET", r"/usage$", status=429, times=9), (Rejected, True, False)),
    ],
    ids=lambda value: f"{value.method}-{value.status}-{value.after}" if isinstance(value, Fault) else None,
)
def test_what_a_failure_while_sending_means(
    runtime_standin: StandIn, sent: Any, target: Target, fault: Fault, meant: tuple[type, bool | None, bool]
) -> None:
    """`meant`: what is raised, whether it may be accepted later, and whether it did arrive."""
    kind, transient, arrived = meant
    client = ServiceClient()
    assert client.find("qrun-test") == []
    client._backend("ibm_kyiv")
    runtime_standin.faults.add(fault)
    with pytest.raises((Rejected, Unclear)) as raised:
        client.submit(part(sent, target), place())
    runtime_standin.faults.clear()
    assert type(raised.value) is kind
    assert getattr(raised.value, "transient", None) is transient
    assert len(client.find("qrun-test")) == len(runtime_standin.accepted()) == int(arrived)


def test_nobody_listens(runtime_standin: StandIn, sent: Any, target: Target) -> None:
    client = ServiceClient()
    client._backend("ibm_kyiv")
    runtime_standin.stop()
    with pytest.raises(Rejected) as raised:
        client.submit(part(sent, target), place())
    assert raised.value.transient
    with pytest.raises(Lost):
        client.find("qrun-test")
    with pytest.raises(Rejected):
        client.open_session("session", "ibm_kyiv", 60)


def test_a_device_whose_configuration_is_lost_on_the_way(runtime_standin: StandIn, sent: Any, target: Target) -> None:
    """The client takes it for no device; it is one that does not answer."""
    client = ServiceClient()
    assert client.find("qrun-test") == []
    runtime_standin.faults.add(Fault("GET", "/backends/ibm_kyiv/configuration", status=429))
    with pytest.raises(Rejected, match="does not answer") as raised:
        client.submit(part(sent, target), place())
    assert raised.value.transient
    assert client.submit(part(sent, target), place())


def test_two_threads_send_one_after_the_other(runtime_standin: StandIn, sent: Any, target: Target) -> None:
    client = ServiceClient()
    made = part(sent, target)
    client._backend("ibm_kyiv")
    runtime_standin.faults.add(*(Fault("POST", r"/jobs$", delay=0.2, after=True) for _ in range(3)))
    with ThreadPoolExecutor(3) as pool:
        ids = list(pool.map(lambda _: client.submit(made, place()), range(3)))
    assert sorted(ids) == sorted(job.job_id for job in runtime_standin.accepted())
    assert len(set(ids)) == 3


def test_questions(runtime_standin: StandIn, sent: Any, target: Target) -> None:
    client = ServiceClient(backend="ibm_kyiv")
    with pytest.raises(NotShown):
        client.status("nothing")
    assert not client.session("nothing").accepting
    assert client.plan() == "premium"
    runtime_standin.hold()
    job_id = client.submit(part(sent, target), place())
    assert client.status(job_id).state in ("queued", "running")
    assert client.usage(job_id) is None or client.usage(job_id) == 0.0
    assert client.cancel(job_id)
    assert client.status(job_id).state == "cancelled"
    assert not client.cancel(job_id)
    runtime_standin.release()
    with pytest.raises(ServiceError, match="ibm_nowhere"):
        client.submit(part(sent, target), place(backend="ibm_nowhere"))
