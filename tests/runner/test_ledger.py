"""The job ledger on disk: as the one in memory, whatever happens in between."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backends.runtime.ledger import Job, JobLedger, MemoryLedger, SessionEntry, at_most, spent
from circuits.errors import QrunError
from runner.ledger import Account, RunLedger, read_ledger
from runner.store import RunStore


def job(tag: str, key: str = "train/1/0/0/0", request: str = "aa", **values: object) -> Job:
    made = Job(tag, key, request, "ibm_torino", circuits=3, shots=64, reserve=7.0, estimate=2.0, tags=(tag, "run-x"))
    return replace(made, created=1.0, **values)  # type: ignore[arg-type]


_TEXT = st.text(max_size=8)
_JOBS = st.builds(
    Job,
    tag=st.sampled_from(["t0", "t1", "t2", "t3"]),
    key=st.sampled_from(["k0", "k1"]),
    request=st.sampled_from(["r0", "r1"]),
    backend=_TEXT,
    circuits=st.integers(0, 10**6),
    shots=st.integers(1, 10**7),
    reserve=st.floats(0, 1e6),
    estimate=st.floats(0, 1e6),
    tags=st.lists(_TEXT, max_size=2).map(tuple),
    mode=st.sampled_from(["", "session", "batch", "job"]),
    local=st.booleans(),
    created=st.floats(1, 2e9),
    state=st.sampled_from(["intended", "sending", "sent", "failed"]),
    job_id=st.none() | _TEXT,
    session_id=st.none() | st.sampled_from(["s0", "s1"]),
    qpu_seconds=st.none() | st.floats(0, 1e6),
    service_estimate=st.none() | st.floats(0, 1e6),
    reason=_TEXT,
)
_SESSIONS = st.builds(
    SessionEntry,
    session_id=st.sampled_from(["s0", "s1"]),
    kind=st.sampled_from(["session", "batch"]),
    backend=_TEXT,
    node=st.integers(-1, 50),
    max_time=st.integers(1, 86_400),
    usage=st.none() | st.floats(0, 1e6),
    open=st.booleans(),
)
_STEPS = st.lists(
    st.tuples(st.just("write"), _JOBS)
    | st.tuples(st.just("keep"), _JOBS, st.binary(max_size=20))
    | st.tuples(st.just("session"), _SESSIONS)
    | st.tuples(st.just("reopen")),
    max_size=20,
)


def same(one: JobLedger, other: JobLedger) -> None:
    assert one.jobs() == other.jobs()
    assert one.sessions() == other.sessions()
    for key in ("k0", "k1", "k2"):
        assert one.live(key) == other.live(key)
    for request in ("r0", "r1", "r2"):
        assert one.answer(request) == other.answer(request)
    for kept in one.jobs():
        if kept.state == "done":
            assert one.result(kept) == other.result(kept)
    assert spent(one.jobs(), one.sessions()) == spent(other.jobs(), other.sessions())


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=_STEPS)
def test_it_says_what_the_ledger_in_memory_says(tmp_path_factory: pytest.TempPathFactory, steps: list[tuple]) -> None:  # type: ignore[type-arg]
    folder = tmp_path_factory.mktemp("run")
    store, memory = RunStore("x", folder), MemoryLedger()
    ledger = RunLedger(store)
    for what, *values in steps:
        if what == "write":
            ledger.write(*values)
            memory.write(*values)
        elif what == "keep":
            assert ledger.keep(*values) == memory.keep(*values)
        elif what == "session":
            ledger.write_session(*values)
            memory.write_session(*values)
        else:  # a process that opens the run anew, while the first has not closed it
            store = RunStore("x", folder)
            ledger = RunLedger(store)
        same(ledger, memory)
        assert read_ledger(folder) == (memory.jobs(), memory.sessions())
    store.close()


def test_the_time_of_the_intent_is_written_where_none_is_given(tmp_path: Path) -> None:
    ledger = RunLedger(RunStore("x", tmp_path))
    ledger.write(replace(job("t"), created=0.0))
    assert ledger.jobs()[0].created > 1.7e9


@pytest.mark.parametrize("damage", ["gone", "changed"])
def test_a_result_that_is_gone_or_damaged_is_told(tmp_path: Path, damage: str) -> None:
    ledger = RunLedger(RunStore("x", tmp_path))
    done = ledger.keep(job("t", job_id="abc"), b"{}")
    (file,) = (tmp_path / "jobs").iterdir()
    assert file.name == f"{done.result}.json"
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(b"[]")
    with pytest.raises(QrunError, match="result of job abc is missing"):
        ledger.result(done)
    assert ledger.find(done.result or "") is None
    assert ledger.find("../state.sqlite") is None


@pytest.mark.parametrize("body", ["", "[]", "{}", '{"tag": "t"}', "null", "3"])
def test_a_damaged_line_is_told(tmp_path: Path, body: str) -> None:
    store = RunStore("x", tmp_path)
    ledger = RunLedger(store)
    ledger.write(job("t"))
    store.database.execute("update jobs set body = ?", (body,))
    with pytest.raises(QrunError, match="damaged line"):
        ledger.jobs()


def test_an_account_of_all_jobs(tmp_path: Path) -> None:
    ledger = RunLedger(RunStore("x", tmp_path))
    ledger.write(job("a"))
    ledger.write(job("b", state="sent", job_id="1"))
    ledger.write(job("c", state="sent", job_id="2", local=True))
    ledger.keep(job("d", job_id="3", qpu_seconds=1.5), b"{}")
    account = Account.of(ledger.jobs(), ledger.sessions())
    assert account.states == {"intended": 1, "sending": 0, "sent": 2, "done": 1, "failed": 0}
    assert (account.local, account.qpu_seconds, account.measured) == (1, 8.5, 1.5)


WRITER = """
import sys
from dataclasses import replace
from pathlib import Path
from backends.runtime.ledger import Job, SessionEntry
from runner.ledger import RunLedger
from runner.store import RunStore

ledger = RunLedger(RunStore("x", Path(sys.argv[1])))
for i in range(100_000):
    one = Job(f"t{i}", f"k{i}", f"r{i}", "ibm_torino", 1, 1, 1.0, 1.0)
    for state in ("intended", "sending", "sent"):
        ledger.write(replace(one, state=state, job_id=f"id{i}" if state == "sent" else None))
        print(i, state, flush=True)
    ledger.keep(ledger.live(f"k{i}"), b"result %d" % i)
    print(i, "done", flush=True)
"""
ORDER = ["intended", "sending", "sent", "done"]


@pytest.mark.parametrize("after", [1, 6, 23])
def test_a_kill_loses_nothing_that_was_acknowledged(tmp_path: Path, after: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as writer:
        assert writer.stdout is not None
        said = [writer.stdout.readline().split() for _ in range(after)]
        writer.send_signal(signal.SIGKILL)
        said += [line.split() for line in writer.stdout.read().splitlines()]
    looked, _ = read_ledger(tmp_path)  # as `qrun jobs list` does, before anybody has opened it again
    ledger = RunLedger(RunStore("x", tmp_path))
    assert looked == ledger.jobs()
    known = {job.tag: job for job in ledger.jobs()}
    for number, state in said:
        found = known[f"t{number}"]
        assert ORDER.index(found.state) >= ORDER.index(state)
        if found.state == "done":
            assert ledger.result(found) == f"result {number}".encode()
            assert found.job_id == f"id{number}"
    assert len(known) <= int(said[-1][0]) + 2  # at most one write was on its way


@given(known=st.lists(_JOBS, max_size=5), sessions=st.lists(_SESSIONS, max_size=3))
def test_the_most_that_may_be_charged_is_not_below_what_is(known: list[Job], sessions: list[SessionEntry]) -> None:
    """A job's reserve is never below its estimate."""
    sound = [replace(j, reserve=max(j.reserve, j.estimate)) for j in known]
    sessions = list({s.session_id: s for s in sessions}.values())
    assert at_most(sound, sessions) >= spent(sound, sessions) * (1 - 1e-12)
