"""Sessions: which mode is taken, how long they are open, and what a kill leaves behind."""

from __future__ import annotations

import itertools
from contextlib import ExitStack, suppress

import pytest

from backends.runtime.errors import BudgetError, ServiceError
from backends.runtime.executor import RuntimeExecutor
from backends.runtime.labels import labelled
from backends.runtime.ledger import MemoryLedger, SessionEntry
from backends.runtime.types import Access
from tests.backends.runtime.scripted import Client, Kill, Service, engine, hardware, requests

TARGET, COMPILED = hardware()
_RUNS = itertools.count()


def made(
    service: Service, ledger: MemoryLedger, told: list[str] | None = None, run: str | None = None, **access: object
) -> RuntimeExecutor:
    name = f"run-{next(_RUNS)}" if run is None else run
    return engine(service, ledger, target=TARGET, told=told, run=name, access=Access(**access))  # type: ignore[arg-type]


def step(executor: RuntimeExecutor, node: int, seed: int) -> None:
    with labelled("train", round_=seed, node=node):
        executor.run(requests(COMPILED, seed=seed), seed=seed)


@pytest.mark.parametrize(
    ("modes", "kind", "said"),
    [
        (("session", "batch"), "session", "a session per node"),
        (("batch",), "batch", "batches (plan: open; no session: You are not authorized to run a session)"),
        ((), "job", "single jobs"),
    ],
)
def test_auto_takes_what_the_plan_allows_and_says_it_once(modes: tuple[str, ...], kind: str, said: str) -> None:
    service, ledger, told = Service(modes=modes), MemoryLedger(), []
    for node in (0, 1):  # an engine each, as every node has
        with made(service, ledger, told, run=f"auto-{kind}") as executor:
            step(executor, node, 2 * node)
            step(executor, node, 2 * node + 1)
    assert [job.place.kind for job in service.jobs.values()] == [kind] * 4
    assert [text.removeprefix("mode: ") for text in told if text.startswith("mode")] == [
        next(t.removeprefix("mode: ") for t in told)
    ]
    assert said in told[0]
    assert len(service.sessions) == (0 if kind == "job" else 2)
    # What was refused once is not tried again.
    assert service.calls["open"] == {"session": 2, "batch": 3, "job": 2}[kind]


@pytest.mark.parametrize("mode", ["session", "batch", "job"])
def test_a_mode_can_be_forced(mode: str) -> None:
    service = Service()
    with made(service, MemoryLedger(), mode=mode) as executor:
        step(executor, 0, 0)
    (job,) = service.jobs.values()
    assert job.place.kind == mode
    assert (job.place.session_id is None) == (mode == "job")


def test_a_forced_mode_that_is_refused_says_what_to_do() -> None:
    service = Service(modes=("batch",))
    with made(service, MemoryLedger(), mode="session") as executor, pytest.raises(ServiceError, match="--mode batch"):
        step(executor, 0, 0)
    assert not service.jobs


def test_a_session_is_opened_by_the_first_job_and_closed_with_the_engine() -> None:
    service, ledger = Service(), MemoryLedger()
    with made(service, ledger) as executor:
        assert not service.sessions
        step(executor, 0, 0)
        step(executor, 0, 1)
        assert [session["accepting"] for session in service.sessions.values()] == [True]
    assert [session["accepting"] for session in service.sessions.values()] == [False]
    (entry,) = ledger.sessions()
    assert (entry.open, entry.usage, entry.node) == (False, 4.0, 0)
    assert executor.idle_seconds == 0.0
    # An engine that only answers from the ledger opens none.
    with made(service, ledger) as executor:
        step(executor, 0, 0)
    assert len(service.sessions) == 1


def test_a_session_is_closed_after_an_error() -> None:
    service, ledger = Service(ends="failed"), MemoryLedger()
    with pytest.raises(Exception, match="broken fridge"), made(service, ledger) as executor:
        step(executor, 0, 0)
    assert [session["accepting"] for session in service.sessions.values()] == [False]
    assert not ledger.sessions()[0].open


def test_every_node_has_a_session_of_its_own() -> None:
    service, ledger = Service(), MemoryLedger()
    with made(service, ledger) as executor:
        for node in (0, 0, 1):
            step(executor, node, len(service.jobs))
        assert [session["accepting"] for session in service.sessions.values()] == [False, True]
    assert [entry.node for entry in ledger.sessions()] == [0, 1]


def test_idle_seconds_are_what_a_session_charges_beyond_its_jobs() -> None:
    service, ledger = Service(), MemoryLedger()
    with made(service, ledger) as executor:
        step(executor, 0, 0)
        service.sessions["session-0"]["idle"] = 7.5
    assert executor.idle_seconds == 7.5
    assert ledger.sessions()[0].usage == 9.5


@pytest.mark.parametrize(
    ("kind", "session_seconds", "budget", "expected"),
    [
        ("session", 50, None, 50),
        ("session", 50, 30.0, 15),
        ("session", 10, 30.0, 10),
        ("session", 50, 7.0, 6),  # what the job may take, at least
        ("batch", 50, 30.0, 30),
    ],
)
def test_a_session_lives_no_longer_than_the_budget(
    kind: str, session_seconds: int, budget: float | None, expected: int
) -> None:
    service = Service()
    executor = made(service, MemoryLedger(), mode=kind, session_seconds=session_seconds, max_qpu_seconds=budget)
    with executor:
        step(executor, 0, 0)
    assert [session["max_time"] for session in service.sessions.values()] == [expected]


@pytest.mark.parametrize("budget", [9.0, 20.0, 100.0])
def test_sessions_that_are_open_together_cannot_pass_the_budget(budget: float) -> None:
    """Each may idle for all of its life."""
    service, ledger = Service(), MemoryLedger()
    with ExitStack() as stack:
        for node in range(4):
            executor = stack.enter_context(made(service, ledger, max_qpu_seconds=budget))
            with suppress(BudgetError):
                step(executor, node, node)
    assert service.sessions
    assert sum(int(str(session["max_time"])) for session in service.sessions.values()) <= budget


def left_open(node: int) -> tuple[Service, MemoryLedger]:
    """What a process leaves that is killed while it waits, in the session of a node."""

    class Dies(Client):
        def status(self, job_id: str) -> object:  # type: ignore[override]
            raise Kill

    service, ledger = Service(), MemoryLedger()
    session_id = Client(service).open_session("session", TARGET.name, 60)
    ledger.write_session(SessionEntry(str(session_id), "session", TARGET.name, node, 60))
    return service, ledger


def test_a_session_that_a_kill_left_open_is_taken_up_by_its_node() -> None:
    service, ledger = left_open(node=1)
    with made(service, ledger) as executor:
        step(executor, 1, 0)
    assert [job.place.session_id for job in service.jobs.values()] == ["session-0"]
    assert len(service.sessions) == 1
    assert not ledger.sessions()[0].open


@pytest.mark.parametrize("accepting", [True, False])
def test_a_session_that_a_kill_left_open_is_closed_if_it_is_of_no_use(accepting: bool) -> None:
    service, ledger = left_open(node=1 if not accepting else 0)
    service.sessions["session-0"]["accepting"] = accepting
    with made(service, ledger) as executor:
        step(executor, 1, 0)
    assert [job.place.session_id for job in service.jobs.values()] == ["session-1"]
    assert [session["accepting"] for session in service.sessions.values()] == [False, False]
    assert not any(entry.open for entry in ledger.sessions())


def test_an_engine_that_sends_nothing_closes_what_a_kill_left_open() -> None:
    service, ledger = left_open(node=1)
    with made(service, ledger):
        pass
    assert [session["accepting"] for session in service.sessions.values()] == [False]


def test_another_engine_of_this_process_keeps_its_session() -> None:
    service, ledger = Service(), MemoryLedger()
    with made(service, ledger) as first:
        step(first, 0, 0)
        with made(service, ledger) as second:
            step(second, 1, 1)
        step(first, 0, 2)
    assert [job.place.session_id for job in service.jobs.values()] == ["session-0", "session-1", "session-0"]


def test_a_session_that_ends_in_between_is_opened_anew() -> None:
    service, ledger = Service(), MemoryLedger()
    with made(service, ledger) as executor:
        step(executor, 0, 0)
        service.sessions["session-0"]["accepting"] = False
        step(executor, 0, 1)
    assert [job.place.session_id for job in service.jobs.values()] == ["session-0", "session-1"]
    assert not any(entry.open for entry in ledger.sessions())


def test_trouble_on_closing_is_told() -> None:
    service, ledger, told = Service(), MemoryLedger(), []
    executor = made(service, ledger, told)
    with executor:
        step(executor, 0, 0)
        executor._modes._client = Client(service, ["lost"] * 9)
    assert [text for text in told if text.startswith("session not closed")]
    assert ledger.sessions()[0].open
    with made(service, ledger):
        pass
    assert not ledger.sessions()[0].open
    assert not service.sessions["session-0"]["accepting"]


def test_closing_is_tried_again_where_the_answer_is_lost() -> None:
    service, ledger, told = Service(), MemoryLedger(), []
    executor = made(service, ledger, told)
    with executor:
        step(executor, 0, 0)
        executor._modes._client = Client(service, ["lost"])
    assert not [text for text in told if text.startswith("session not closed")]
    assert not ledger.sessions()[0].open


def test_a_lost_answer_on_opening_opens_another() -> None:
    service = Service()
    with engine(service, target=TARGET, faults=["unclear", "unclear", "ok"]) as executor:
        step(executor, 0, 0)
    assert len(service.jobs) == 1
    with (
        engine(service, target=TARGET, faults=["unclear"] * 99) as executor,
        pytest.raises(ServiceError, match="no session can be opened"),
    ):
        step(executor, 0, 1)
