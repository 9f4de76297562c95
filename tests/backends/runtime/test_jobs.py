"""A job's life against a service that fails in every way, with kills at every point."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.protocol import Result
from backends.runtime.errors import (
    BudgetError,
    Detached,
    JobFailedError,
    LedgerMismatchError,
    ServiceError,
    UnclearError,
)
from backends.runtime.labels import labelled
from backends.runtime.ledger import Job, MemoryLedger, spent
from backends.runtime.types import Access, JobLimits
from circuits.errors import QrunError
from tests.backends.runtime.scripted import Client, Kill, Service, engine, hardware, requests

TARGET, COMPILED = hardware()
STEPS = [(node, step) for node in (0, 1) for step in (0, 1)]


def undisturbed() -> list[np.ndarray]:
    return play(Service(), MemoryLedger())


def play(service: Service, ledger: MemoryLedger, faults: object = (), **access: object) -> list[np.ndarray]:
    """A little run: two nodes with two steps each, every node in a session of its own."""
    values = []
    script = iter(faults)  # type: ignore[call-overload]
    for node in (0, 1):
        executor = engine(service, ledger, target=TARGET, faults=script, access=Access(**access))  # type: ignore[arg-type]
        with labelled("train", round_=1, node=node), executor:
            for step in (0, 1):
                asked = requests(COMPILED, seed=10 * node + step)
                values.append(executor.run(asked, seed=10 * node + step)[0].values)
    return values


class Mortal(MemoryLedger):
    """A ledger on disk: the process may die before a write, or after it."""

    def __init__(self, deaths: object = ()) -> None:
        super().__init__()
        self.deaths = iter(deaths)  # type: ignore[call-overload]

    def write(self, job: Job) -> None:
        death = next(self.deaths, "ok")
        if death == "before":
            raise Kill
        super().write(job)
        if death == "after":
            raise Kill

    def keep(self, job: Job, result: bytes) -> Job:
        death = next(self.deaths, "ok")
        if death == "before":
            raise Kill
        done = super().keep(job, result)
        if death == "after":
            raise Kill
        return done


def until_done(service: Service, ledger: MemoryLedger, faults: object, **access: object) -> list[np.ndarray]:
    """Resume after every kill and every error that says so, as a user would."""
    script = iter(faults)  # type: ignore[call-overload]
    resubmit, unclear = False, 0
    for _ in range(200):
        try:
            return play(service, ledger, script, resubmit=resubmit, **access)
        except Kill:
            resubmit = False  # what was sent just now may not be shown yet: look first
        except UnclearError:
            # Late jobs are shown by now: what is still not there never arrived.
            unclear += 1
            service.time += service.late + 1.0
            resubmit = unclear > 1
        else:
            break
    raise AssertionError("it never ends")


FAULTS = st.lists(
    st.sampled_from(["ok", "ok", "ok", "lost", "rejected", "unclear", "unclear-lost", "kill", "kill-after"]),
    max_size=60,
)
DEATHS = st.lists(st.sampled_from(["ok", "ok", "ok", "before", "after"]), max_size=30)


@settings(max_examples=150, deadline=None)
@given(
    faults=FAULTS,
    deaths=DEATHS,
    late=st.sampled_from([0.0, 20.0, 500.0]),
    modes=st.sampled_from([("session", "batch"), ("batch",), ()]),
)
def test_whatever_happens_every_job_is_sent_once_and_the_result_is_that_of_the_undisturbed_run(
    faults: list[str], deaths: list[str], late: float, modes: tuple[str, ...]
) -> None:
    service, ledger = Service(late=late, modes=modes), Mortal(deaths)
    budget = 30.0
    values = until_done(service, ledger, faults, max_qpu_seconds=budget)
    for mine, theirs in zip(values, UNDISTURBED, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert set(service.accepted().values()) == {1}
    assert len(service.jobs) == len(STEPS)
    assert service.charged <= budget
    assert spent(ledger.jobs(), ledger.sessions()) >= service.charged
    assert not any(session.open for session in ledger.sessions())


UNDISTURBED = undisturbed()


@settings(max_examples=60, deadline=None)
@given(faults=FAULTS, deaths=DEATHS, budget=st.integers(1, 12), share=st.floats(0.1, 1.0))
def test_the_budget_is_never_passed(faults: list[str], deaths: list[str], budget: int, share: float) -> None:
    """Every job takes up to all that it may."""
    service, ledger = Service(charge=lambda most: share * most), Mortal(deaths)
    with suppress(BudgetError):
        assert len(until_done(service, ledger, faults, max_qpu_seconds=float(budget))) == len(STEPS)
    assert service.charged <= budget
    # With more, it goes on from there, and nothing is paid for twice.
    values = until_done(service, ledger, (), max_qpu_seconds=budget + 100.0)
    for mine, theirs in zip(values, UNDISTURBED, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert set(service.accepted().values()) == {1}


def one(service: Service, ledger: MemoryLedger, faults: object = (), told: object = None, **access: object) -> Result:
    executor = engine(
        service,
        ledger,
        target=TARGET,
        faults=faults,  # type: ignore[arg-type]
        told=told,  # type: ignore[arg-type]
        access=Access(**access),  # type: ignore[arg-type]
        run="r1",
    )
    with labelled("train", round_=2, node=1), executor:
        return executor.run(requests(COMPILED), seed=5)[0]


def test_the_budget_says_what_was_spent_and_how_to_go_on() -> None:
    service, ledger = Service(), MemoryLedger()
    with pytest.raises(BudgetError) as stopped:
        play(service, ledger, max_qpu_seconds=7.0)
    assert "6.0 s" in stopped.value.message
    assert "kept" in stopped.value.message
    assert "--max-qpu-seconds" in stopped.value.hint
    assert len(service.jobs) == 3
    assert spent(ledger.jobs(), ledger.sessions()) == service.charged == 6.0


def test_tags_say_run_node_round_and_step() -> None:
    service, ledger = Service(), MemoryLedger()
    result = one(service, ledger)
    (job,) = service.jobs.values()
    assert job.place.tags[1:] == ("qrun-run-r1", "qrun-node-1", "qrun-round-2", "qrun-step-train-0")
    assert job.place.tags[0] == result.metadata["tags"][0]
    assert all(len(tag) <= 80 for tag in job.place.tags)
    assert result.metadata["job_ids"] == ["job-0"]
    assert result.metadata["qpu_seconds"] == 2.0
    assert result.metadata["mode"] == "session"
    assert job.place.max_seconds == ledger.jobs()[0].reserve


def test_a_job_that_may_have_arrived_is_looked_for_and_not_sent_again() -> None:
    service, ledger = Service(late=1000.0), MemoryLedger()
    started = service.time
    with pytest.raises(UnclearError, match="--resubmit"):
        one(service, ledger, ["ok", "unclear"], patience=60.0)
    assert 60.0 <= service.time - started < 95.0
    assert service.calls["find"] > 3
    with pytest.raises(UnclearError):
        one(service, ledger, patience=60.0)
    assert len(service.jobs) == 1
    service.time += 1000.0
    one(service, ledger, patience=60.0)
    assert len(service.jobs) == 1


def test_resubmit_sends_what_is_unclear_anew_after_looking_for_it() -> None:
    service, ledger = Service(), MemoryLedger()
    with pytest.raises(UnclearError):
        one(service, ledger, ["ok", "unclear-lost"])
    looked = service.calls["find"]
    result = one(service, ledger, resubmit=True)
    assert service.calls["find"] > looked
    assert [job.state for job in ledger.jobs()] == ["failed", "done"]
    assert result.metadata["tags"] == [ledger.jobs()[1].tag]


def test_a_failed_job_is_told_with_the_reason_and_sent_again_only_if_asked_for() -> None:
    service, ledger = Service(ends="failed"), MemoryLedger()
    for _ in range(2):
        with pytest.raises(JobFailedError, match="broken fridge"):
            one(service, ledger)
        assert len(service.jobs) == 1
    service.ends = "done"
    one(service, ledger, resubmit=True)
    assert len(service.jobs) == 2
    assert spent(ledger.jobs(), ledger.sessions()) == 4.0


def test_a_cancelled_job_is_told() -> None:
    with pytest.raises(JobFailedError, match="cancelled"):
        one(Service(ends="cancelled"), MemoryLedger())


def test_another_request_under_the_same_key_is_refused() -> None:
    service, ledger = Service(), MemoryLedger()
    one(service, ledger)
    executor = engine(service, ledger, target=TARGET)
    with labelled("train", round_=2, node=1), executor, pytest.raises(LedgerMismatchError, match="exactly"):
        executor.run(requests(COMPILED), seed=6)


def test_a_request_that_another_step_asked_is_not_paid_again() -> None:
    service, ledger = Service(), MemoryLedger()
    first = one(service, ledger)
    executor = engine(service, ledger, target=TARGET)
    with labelled("measure", round_=9), executor:
        again = executor.run(requests(COMPILED), seed=5)[0]
    np.testing.assert_array_equal(first.values, again.values)
    assert len(service.jobs) == 1
    assert again.metadata["qpu_seconds"] == 0.0


def test_work_without_a_label_or_a_seed() -> None:
    service, ledger = Service(), MemoryLedger()
    executor = engine(service, ledger, target=TARGET)
    asked = requests(COMPILED)
    executor.run(asked, seed=1)
    executor.run(asked, seed=1)
    executor.run(asked, seed=2)
    assert len(service.jobs) == 2
    executor.run(asked)
    executor.run(asked)
    assert len(service.jobs) == 4


def test_detach_leaves_after_sending_and_takes_the_result_later() -> None:
    service, ledger = Service(), MemoryLedger()
    with pytest.raises(Detached) as left:
        one(service, ledger, detach=True)
    assert left.value.jobs == ("job-0",)
    assert left.value.exit_code == 0
    assert not any(session["accepting"] for session in service.sessions.values())
    service.polls, service.jobs["job-0"].polls = 0, 0
    result = one(service, ledger, detach=True)
    assert result.metadata["job_ids"] == ["job-0"]
    assert len(service.jobs) == 1


def test_several_calls_are_on_their_way_before_any_is_waited_for() -> None:
    service, ledger = Service(), MemoryLedger()
    executor = engine(service, ledger, target=TARGET)
    with executor:
        handles = []
        for node in (0, 1, 2):
            with labelled("train", round_=1, node=node):
                handles.append(executor.send(requests(COMPILED, seed=node), seed=node))
        assert [job.state for job in service.jobs.values()] == ["queued"] * 3
        for node, handle in enumerate(handles):
            with engine(Service(), target=TARGET) as alone:
                expected = alone.run(requests(COMPILED, seed=node), seed=node)[0].values
            np.testing.assert_array_equal(executor.collect(handle)[0].values, expected)


def test_sending_outside_of_with_is_refused() -> None:
    with pytest.raises(Exception, match="not open"):
        engine(Service(), target=TARGET).send(requests(COMPILED))


def test_a_lost_network_is_told_once_and_waited_out() -> None:
    service, told = Service(), []
    one(service, MemoryLedger(), ["ok", "rejected", "rejected", "ok", "ok", "ok", "lost", "lost", "lost"], told)
    assert len([text for text in told if text.startswith("waiting")]) == 2
    assert len(service.jobs) == 1


def test_ctrl_c_while_waiting_leaves_the_ledger_right() -> None:
    class Interrupted(Client):
        def status(self, job_id: str) -> object:  # type: ignore[override]
            raise KeyboardInterrupt

    service, ledger = Service(), MemoryLedger()
    executor = engine(service, ledger, target=TARGET)
    executor._jobs._client = Interrupted(service)
    with labelled("train", round_=2, node=1), pytest.raises(KeyboardInterrupt), executor:
        executor.run(requests(COMPILED), seed=5)
    (job,) = ledger.jobs()
    assert (job.state, job.job_id) == ("sent", "job-0")
    one(service, ledger)
    assert len(service.jobs) == 1


def test_a_service_that_expects_more_than_a_job_may_take_stops_it() -> None:
    service, ledger = Service(says=500.0), MemoryLedger()
    with pytest.raises(BudgetError, match="500"):
        one(service, ledger, max_qpu_seconds=60.0)
    assert [job.state for job in service.jobs.values()] == ["cancelled"]
    assert spent(ledger.jobs(), ledger.sessions()) == 0.0
    # The estimate is remembered: without the money for it, nothing is sent.
    with pytest.raises(BudgetError, match="500"):
        one(service, ledger, max_qpu_seconds=60.0)
    assert len(service.jobs) == 1
    one(service, ledger, max_qpu_seconds=2000.0)
    assert [job.state for job in service.jobs.values()] == ["cancelled", "done"]


def test_a_job_that_the_service_finds_too_large_is_sent_in_two() -> None:
    service, ledger = Service(largest=3), MemoryLedger()
    executor = engine(service, ledger, target=TARGET)
    with labelled("train"), executor:
        result = executor.run(requests(COMPILED, batch=5), seed=1)[0]
    assert [job.part.rows for job in service.jobs.values()] == [3, 2]
    with engine(Service(), target=TARGET, limits=JobLimits(circuits=3)) as limited, labelled("train"):
        np.testing.assert_array_equal(limited.run(requests(COMPILED, batch=5), seed=1)[0].values, result.values)
    # Once more: nothing new is sent, not even the job that was refused.
    refused = service.calls["submit"]
    with labelled("train"), engine(service, ledger, target=TARGET) as again:
        np.testing.assert_array_equal(again.run(requests(COMPILED, batch=5), seed=1)[0].values, result.values)
    assert service.calls["submit"] == refused


def test_a_job_that_is_too_large_with_one_row_is_an_error() -> None:
    with pytest.raises(ServiceError, match="too many circuits"):
        engine(Service(largest=0), target=TARGET).run(requests(COMPILED, batch=2), seed=1)


def test_a_result_that_is_none_of_the_job_is_not_kept_and_is_asked_for_again() -> None:
    class Liar(Client):
        def result(self, job_id: str) -> bytes:
            return b'{"schema_version": "v2.0"}'

    service, ledger = Service(), MemoryLedger()
    for _ in range(2):
        executor = engine(service, ledger, target=TARGET)
        executor._jobs._client = Liar(service)
        with labelled("train"), pytest.raises(QrunError, match="asks for it again"):
            executor.run(requests(COMPILED), seed=1)
    assert [job.state for job in ledger.jobs()] == ["sent"]
    with labelled("train"):
        engine(service, ledger, target=TARGET).run(requests(COMPILED), seed=1)
    assert len(service.jobs) == 1
