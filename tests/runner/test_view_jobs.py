"""What the terminal shows of jobs and devices, in words."""

from __future__ import annotations

from typing import Any

import pytest

from backends.runtime.rank import Ranked
from runner.ledger import Account
from runner.view_devices import show_ranking
from runner.view_jobs import describe, purpose, show_jobs


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("device/5/0/0/0/0", "device, round 5, node 0"),
        ("fine-tune/5/0/2/1/0", "fine-tune, round 5, node 2, step 2"),
        ("train/1/0/0/0/1", "train, round 1, node 0, step 1, part 2"),
        ("aggregate/3/0/-1/0", "aggregate, round 3"),
        ("call/0/0/-1/0/0", "call"),
        ("hardware test", "hardware test"),
        ("a/b/c/d/e", "a/b/c/d/e"),
        ("a/²/0/0/0", "a/²/0/0/0"),
    ],
)
def test_what_a_job_is_for_in_words(key: str, words: str) -> None:
    assert purpose(key) == words


def test_what_is_on_its_way_counts_at_its_bound() -> None:
    states = {"intended": 0, "sending": 0, "sent": 2, "done": 1, "failed": 0}
    known: dict[str, Any] = {"local": 0, "qpu_seconds": 117.04}
    assert describe({"states": states, **known}) == "2 sent, 1 done; at most 117.0 QPU seconds"
    assert describe({"states": {**states, "sent": 0}, **known}) == "1 done; 117.0 QPU seconds"
    none = Account.of([], [])
    assert set(none.states) == set(states)


def test_names_and_ids_are_whole_in_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    job = {
        "job_id": "a68036746a68b7f8e96d",
        "tag": "qrun-1",
        "state": "done",
        "run": "nsl-kdd-b103673d",
        "key": "fine-tune/5/0/0/0/0",
        "backend": "ibm_marrakesh",
        "mode": "batch",
        "local": False,
        "qpu_seconds": 23.81,
        "circuits": 85,
        "shots": 1024,
        "created": "2026-11-21T21:56:38+00:00",
    }
    local = {**job, "job_id": "3cbe80d5-dde7-49bf-abf5-02ea2aa74f93", "local": True}
    intended = {**job, "job_id": None, "state": "intended", "tag": "qrun-4952c78a-6790-4417-b26b-5d7dec5158ee"}
    show_jobs([job, local, intended])
    out = capsys.readouterr().out
    for name in (
        job["job_id"],
        job["run"],
        job["backend"],
        "3cbe80d5-dde7 ",
        " 23.8",
        " local ",
        "qrun-4952c78a-6790 ",
        " intended ",
    ):
        assert str(name) in out


def test_devices_that_cannot_run_it_stand_below_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    able = Ranked("fake_fez", 0.874, 20, 58, (0, 1), 254e-6, None, "2025-02-26", "the best")
    unable = Ranked("fake_manila", None, None, None, (), None, None, "2024-05-27", "it has 5 qubits.")
    show_ranking("nsl-kdd", [able, unable])
    lines = capsys.readouterr().out.splitlines()
    assert "fake_manila is left out: it has 5 qubits." in lines
    assert "fake_fez: the best" in lines
    show_ranking("nsl-kdd", [unable])
    assert "No device can run it." in capsys.readouterr().out
