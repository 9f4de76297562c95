"""What a job may cost: never twice, never more than the bound, and nothing that was paid is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace

import pytest

from backends.runtime.client import SessionStatus, Status, Unclear
from backends.runtime.errors import BudgetError, UnclearError
from backends.runtime.labels import labelled
from backends.runtime.ledger import Job, MemoryLedger, SessionEntry, at_most, spent
from backends.runtime.types import Access
from tests.backends.runtime.scripted import Client, Kill, Service, engine, hardware, requests

TARGET, COMPILED = hardware()


def step(service: Service, ledger: MemoryLedger, faults: Iterable[str] = (), seed: int = 0, **access: object) -> None:
    """One step of a run."""
    executor = engine(service, ledger, target=TARGET, faults=faults, access=Access(**access))  # type: ignore[arg-type]
    with labelled("train", round_=1 + seed, node=0), executor:
        executor.run(requests(COMPILED, seed=seed), seed=seed)


def repeated(attempt: Callable[[], None]) -> None:
    """As a user would who does not give up."""
    for _ in range(20):
        attempt()


class Slow(Client):
    """Its answer to a job takes as long as the wire may be silent, and never comes."""

    def submit(self, part: object, place: object) -> str:
        try:
            return super().submit(part, place)  # type: ignore[arg-type]
        finally:
            self.service.time += 130.0


def test_a_job_is_looked_for_from_when_its_answer_was_lost_on() -> None:
    """Not from when it began to be sent: that may be longer ago than anybody is patient."""
    service, ledger = Service(late=160.0, modes=()), MemoryLedger()
    executor = engine(service, ledger, target=TARGET, access=Access(patience=120.0))
    executor._jobs._client = Slow(service, ["unclear"])
    with labelled("train"), executor:
        executor.run(requests(COMPILED), seed=0)
    assert len(service.jobs) == 1


def test_resubmit_sends_nothing_anew_that_was_sent_in_the_same_attempt() -> None:
    service, ledger = Service(late=500.0, modes=()), MemoryLedger()
    with pytest.raises(UnclearError):
        step(service, ledger, ["unclear"], mode="job", resubmit=True, patience=10.0)
    assert len(service.jobs) == 1
    service.time += 500.0
    step(service, ledger, mode="job", resubmit=True, patience=10.0)  # by now it is shown
    assert len(service.jobs) == 1


def test_a_clock_that_was_set_back_does_not_make_it_wait_for_ever() -> None:
    service, ledger = Service(modes=()), MemoryLedger()
    with pytest.raises(UnclearError):
        step(service, ledger, ["unclear-lost"], mode="job")
    (job,) = ledger.jobs()
    ledger.write(replace(job, created=service.time + 1e6))
    before = service.time
    with pytest.raises(UnclearError):
        step(service, ledger, mode="job", patience=60.0)
    assert service.time - before < 100.0


class Vanishing(Client):
    """Takes every job, says nothing, and never shows one."""

    def submit(self, part: object, place: object) -> str:
        super().submit(part, place)  # type: ignore[arg-type]
        raise Unclear("HTTP 502")

    def find(self, tag: str) -> list[str]:
        return []


def test_a_job_that_was_given_up_counts_with_all_that_it_may_have_taken() -> None:
    service, ledger = Service(charge=float), MemoryLedger()
    access = Access(mode="job", max_qpu_seconds=12.0, patience=5.0, resubmit=True)

    def attempt() -> None:
        executor = engine(service, ledger, target=TARGET, access=access)
        executor._jobs._client = Vanishing(service)
        with suppress(UnclearError), labelled("train"), executor:
            executor.run(requests(COMPILED), seed=0)

    with pytest.raises(BudgetError):
        repeated(attempt)
    assert 0 < sum(job.charge for job in service.jobs.values()) <= 12.0


class Silent(Client):
    """Never tells what a job took."""

    def usage(self, job_id: str) -> float | None:
        return None


def test_what_the_service_does_not_tell_counts_with_all_that_it_may_be() -> None:
    service, ledger = Service(modes=(), charge=float), MemoryLedger()
    seeds = iter(range(20))

    def attempt() -> None:
        executor, seed = engine(service, ledger, target=TARGET, access=Access(max_qpu_seconds=20.0)), next(seeds)
        executor._jobs._client = executor._jobs._budget._client = Silent(service)
        with labelled("train", round_=seed), executor:
            executor.run(requests(COMPILED, seed=seed), seed=seed)

    with pytest.raises(BudgetError):
        repeated(attempt)
    assert 0 < service.charged <= 20.0


def test_what_a_session_was_charged_does_not_hold_what_its_jobs_have_still_to_take() -> None:
    job = Job("t1", "k1", "r", "ibm_x", 1, 1, reserve=5.0, estimate=2.0, session_id="s")
    ledger = [
        replace(job, state="done", qpu_seconds=3.0, job_id="1"),
        replace(job, tag="t2", state="sent", job_id="2"),
    ]
    sessions = [SessionEntry("s", "session", "ibm_x", 0, 60, usage=10.0)]
    assert spent(ledger, sessions) == 10.0
    assert at_most(ledger, sessions) == 15.0


def test_a_session_that_may_take_more_than_a_new_bound_is_not_taken_up() -> None:
    service, ledger = Service(), MemoryLedger()
    with pytest.raises(Kill):
        step(service, ledger, ["ok"] * 8 + ["kill"] * 9)
    (opened,) = ledger.sessions()
    assert opened.open
    step(service, ledger, seed=1, max_qpu_seconds=30.0)
    assert not service.sessions[opened.session_id]["accepting"]
    assert service.sessions["session-1"]["max_time"] in range(1, 31)


def test_what_it_advises_is_more_than_the_bound() -> None:
    service, ledger = Service(), MemoryLedger()
    with pytest.raises(BudgetError) as error:
        step(service, ledger, max_qpu_seconds=1.0)
    assert float(str(error.value).rpartition("--max-qpu-seconds ")[2].rstrip(".")) > 1.0
    for open_ in (0, 1):  # sessions that another process left open may take nearly all
        service.sessions[f"other-{open_}"] = {"accepting": True}
        ledger.write_session(SessionEntry(f"other-{open_}", "session", "ibm_other", 0, 50))
    with pytest.raises(BudgetError) as error:
        step(service, ledger, max_qpu_seconds=101.0)
    assert float(str(error.value).rpartition("--max-qpu-seconds ")[2].rstrip(".")) > 101.0


@pytest.mark.parametrize("bound", [0.5, 1e-9])
def test_less_than_a_job_may_take_sends_nothing(bound: float) -> None:
    service = Service()
    with pytest.raises(BudgetError):
        step(service, MemoryLedger(), max_qpu_seconds=bound)
    assert not service.jobs


def test_a_huge_bound_is_a_bound() -> None:
    service, ledger = Service(), MemoryLedger()
    step(service, ledger, max_qpu_seconds=1e9)
    assert [session["max_time"] for session in service.sessions.values()] == [7200]


class Watched(Client):
    """Says how a job stands by the clock: queued until `begins`, running until `ends`; notes when it was asked."""

    begins, ends = 1100.0, 1160.0

    def status(self, job_id: str) -> Status:
        self.asked.append(self.service.time)
        if self.service.time < self.ends:
            return Status("queued" if self.service.time < self.begins else "running")
        self.service.jobs[job_id].state = "done"
        return Status("done")

    def session(self, session_id: str) -> SessionStatus:
        return SessionStatus(accepting=True, usage=0.0)

    def __init__(self, service: Service) -> None:
        super().__init__(service)
        self.asked: list[float] = []


@pytest.mark.parametrize(("mode", "longest"), [("session", 2.0), ("batch", 30.0), ("job", 30.0)])
def test_it_asks_often_where_waiting_is_charged_alone(mode: str, longest: float) -> None:
    service = Service()
    executor = engine(service, target=TARGET, access=Access(mode=mode))  # type: ignore[arg-type]
    client = executor._jobs._client = Watched(service)
    with labelled("train"), executor:
        executor.run(requests(COMPILED), seed=0)
    gaps = [(at, after - at) for at, after in zip(client.asked, client.asked[1:], strict=False)]
    running = [gap for at, gap in gaps if at >= client.begins]
    assert max(gap for at, gap in gaps if at < client.begins) > 10.0
    assert max(running) == pytest.approx(longest, abs=longest * 0.4)
    assert (min(running) <= 0.2 + 1e-9) == (mode == "session")
