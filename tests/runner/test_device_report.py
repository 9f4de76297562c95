"""What is computed about a device: shares, agreement with the twin, jobs and QPU seconds. No circuit is run."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.protocol import Result
from backends.runtime.errors import Detached
from backends.runtime.labels import current
from backends.runtime.ledger import Job, MemoryLedger, SessionEntry, spent
from runner.device_report import agreement
from runner.device_stage import _ask, shares
from runner.job_record import (
    OF_A_NODE,
    describe_jobs,
    describe_qpu,
    describe_sessions,
    keep_results,
    ledger_seconds,
    purpose_of,
    seconds_of,
    tell_counted,
)
from runner.meter import Meter


@given(st.integers(16, 5000), st.lists(st.integers(0, 300), min_size=1, max_size=50, unique=True))
def test_samples_are_shared_evenly(samples: int, nodes: list[int]) -> None:
    found = shares(samples, sorted(nodes))
    assert sum(found.values()) == samples
    assert set(found) <= set(nodes)
    assert max(found.values()) - min(found.values()) <= 1
    assert min(found.values()) >= 1
    assert len(found) == min(samples, len(nodes))


def test_a_device_that_is_its_twin_differs_by_shots_alone() -> None:
    rng = np.random.default_rng(3)
    twin = rng.uniform(-0.8, 0.8, (400, 5))
    errors = rng.uniform(0.01, 0.03, (400, 5))
    device = twin + errors * rng.normal(size=twin.shape)
    found = agreement(device, twin, errors)
    assert found["mean_absolute_difference"] == pytest.approx(found["from_shots"], abs=4 * found["standard_error"])
    assert found["from_shots"] == pytest.approx(math.sqrt(2 / math.pi) * errors.mean())
    assert [f["twin_mean"] for f in found["features"]] == pytest.approx(twin.mean(axis=0).tolist())
    assert [f["device_sd"] for f in found["features"]] == pytest.approx(device.std(axis=0).tolist())
    # A device that is off is seen to be.
    apart = agreement(device + 0.1, twin, errors)
    assert apart["mean_absolute_difference"] - apart["from_shots"] > 5 * apart["standard_error"]
    assert apart["largest_difference"] >= 0.1


@given(st.integers(2, 40), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_the_standard_error_is_a_bound_whatever_features_share(samples: int, features: int, seed: int) -> None:
    """Where all features of a sample err as one, it is the standard deviation; apart, it is more."""
    errors = np.random.default_rng(seed).uniform(0.001, 0.1, (samples, features))
    told = agreement(errors, np.zeros_like(errors), errors)["standard_error"]
    as_one = math.sqrt(sum((row.sum() / features) ** 2 for row in errors)) / samples
    assert told == pytest.approx(as_one)
    assert told >= math.sqrt((errors**2).sum()) / errors.size * (1 - 1e-12)


# -- jobs --------------------------------------------------------------------------------------------------------------


def a_job(key: str, seconds: float | None, session: str | None = None, **changed: Any) -> Job:
    fields: dict[str, Any] = {"backend": "ibm_one", "circuits": 3, "shots": 8, "reserve": 9.0, "estimate": 2.0}
    fields |= {"state": "sent", "mode": "batch", "job_id": f"id-{key}", "qpu_seconds": seconds, "session_id": session}
    return Job(f"qrun-{key}", f"{key}/0", "0" * 64, **{**fields, **changed})


def a_ledger() -> MemoryLedger:
    ledger = MemoryLedger()
    for job in (
        a_job("train/1/0/0/0", 1.5, "a"),
        a_job("train/1/0/0/1", 2.5, "a"),
        a_job("measure/1/0/0/0", 0.5, "a"),
        a_job("train/1/0/1/0", 3.0, "b"),
        a_job("aggregate/1/0/-1/0", None),  # it is done, and the service has not said what it took
        a_job("device/1/0/0/0", 7.0, "c"),
    ):
        ledger.keep(job, job.key.encode())
    ledger.write(a_job("train/1/0/1/1", 0.25, "b", state="failed", reason="it was cancelled"))
    ledger.write(a_job("train/2/1/0/0", None, None, state="intended"))
    ledger.write_session(SessionEntry("a", "session", "ibm_one", 0, 60, usage=6.0, open=False))
    ledger.write_session(SessionEntry("b", "session", "ibm_one", 1, 60, usage=None))
    return ledger


def test_seconds_are_those_of_the_jobs_and_of_what_sessions_waited() -> None:
    ledger = a_ledger()
    jobs, sessions = describe_jobs(ledger.jobs()), describe_sessions(ledger.sessions())
    assert [j["state"] for j in jobs].count("failed") == 1
    assert len(jobs) == 7  # what was never sent is no job
    assert ledger_seconds(ledger, OF_A_NODE, (1, 0, 0)).total == pytest.approx(6.0)  # 4.5 of its jobs, 1.5 idle
    assert ledger_seconds(ledger, OF_A_NODE, (1, 0, 1)).total == pytest.approx(3.25)
    assert ledger_seconds(ledger, OF_A_NODE, (1, 1, 0)).total == 0.0
    assert ledger_seconds(ledger, ["device"], (1, 0, 0)).total == pytest.approx(7.0)
    unsettled = seconds_of(jobs, sessions, ["aggregate"], (1, 0, -1))
    assert unsettled.jobs == {"qrun-aggregate/1/0/-1/0": 2.0}  # with its estimate
    first = ledger_seconds(ledger, OF_A_NODE, (1, 0, 0))
    assert first.idle == pytest.approx(1.5)
    tell_counted(jobs, lambda *work: first.jobs if work == (1, 0, 0) else {})
    assert [j["counted"] for j in jobs] == [1.5, 2.5, 0.5, None, None, None, None]
    told = describe_qpu(jobs, sessions)
    assert told["total"] == pytest.approx(spent(ledger.jobs(), ledger.sessions()))
    assert told["by_purpose"] == {"train": 7.25, "measure": 0.5, "aggregate": 2.0, "device": 7.0}
    assert told["idle"] == pytest.approx(1.5)


def test_every_result_is_kept_in_the_store() -> None:
    ledger, kept = a_ledger(), list[bytes]()

    class Content:
        def put(self, data: bytes) -> str:
            kept.append(data)
            return f"cid{len(kept)}"

    jobs = describe_jobs(ledger.jobs())
    keep_results(jobs, ledger, Content())
    assert kept == [job.key.encode() for job in ledger.jobs() if job.state == "done"]
    assert [j["cid"] is not None for j in jobs] == [j["state"] == "done" for j in jobs]


@pytest.mark.parametrize(
    ("key", "wanted"),
    [
        ("fine-tune/3/2/1/44/0.1", ("fine-tune", 3, 2, 1)),
        ("final/2/0/-1/0", ("final", 2, 0, -1)),
        ("call/" + "a" * 64, None),
        ("train/1/0/-2/0", None),
        ("train/1/0/0", None),
        ("", None),
    ],
)
def test_what_a_key_says(key: str, wanted: tuple[Any, ...] | None) -> None:
    of = purpose_of(key)
    assert (None if of is None else (of.name, of.round, of.base, of.node)) == wanted


# -- sending -----------------------------------------------------------------------------------------------------------


class Device:
    """Records what is asked of it, and charges a session."""

    name, differentiable = "runtime", False

    def __init__(self, node: int, story: list[tuple[str, int]], *, waits: bool = False) -> None:
        self.node, self.story, self.waits = node, story, waits
        self.idle_seconds = 0.0

    def __enter__(self) -> Device:
        self.story.append(("open", self.node))
        return self

    def __exit__(self, *_: object) -> None:
        self.story.append(("close", self.node))
        self.idle_seconds = 0.5

    def send(self, requests: Any, *, seed: int | None = None) -> int:
        label = current()
        assert (label.purpose, label.round, label.node) == ("device", 4, self.node)
        self.story.append(("send", self.node))
        return self.node

    def collect(self, handle: int) -> list[Result]:
        assert handle == self.node
        self.story.append(("collect", self.node))
        if self.waits:
            raise Detached((f"job-{self.node}",))
        values = np.full((2, 3), float(self.node))
        return [Result(values, values * 0, {"shots": 8, "qpu_seconds": 2.0})]


def asked(waits: bool) -> tuple[list[tuple[str, int]], dict[int, Meter]]:
    story: list[tuple[str, int]] = []
    devices: dict[int, Any] = {node: Device(node, story, waits=waits) for node in range(3)}
    return story, {node: Meter(device) for node, device in devices.items()}


def test_all_jobs_are_sent_before_any_is_waited_for_and_each_session_ends_with_its_own() -> None:
    story, meters = asked(waits=False)
    requests: Any = dict.fromkeys(range(3))
    answers = _ask(meters, requests, dict.fromkeys(range(3), 7), 4)
    assert [answers[node].values[0, 0] for node in range(3)] == [0.0, 1.0, 2.0]
    whens = [what for what, _ in story]
    assert max(i for i, w in enumerate(whens) if w == "send") < whens.index("collect")
    assert story[6:] == [(what, node) for node in range(3) for what in ("collect", "close")]
    assert [m.qpu_seconds for m in meters.values()] == [2.5, 2.5, 2.5]
    assert [(m.circuits, m.shots) for m in meters.values()] == [(2, 16)] * 3


def test_who_does_not_wait_leaves_after_all_are_sent() -> None:
    story, meters = asked(waits=True)
    requests: Any = dict.fromkeys(range(3))
    with pytest.raises(Detached) as left:
        _ask(meters, requests, dict.fromkeys(range(3), 7), 4)
    assert left.value.jobs == ("job-0", "job-1", "job-2")
    assert [node for what, node in story if what == "send"] == [0, 1, 2]
    assert [node for what, node in story if what == "close"] == [0, 1, 2]
