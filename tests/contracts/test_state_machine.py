"""The contract against the model of its rules: random calls of honest and hostile accounts.

`python -m tests.contracts.state_machine --steps N` plays more of them, and others.
"""

from __future__ import annotations

import pytest

from tests.contracts.state_machine import MET, STEPS, play


def test_a_few_tasks_in_random_order() -> None:
    play(examples=3, steps=40)


MUST_BE_MET = (
    "settlements that exclude",
    "settlements that are weak",
    "RolledBack",
    "Withdrawn",
    "Concluded",
    "Announced",
    "windows: settled",
    "windows: graders without a model",
    "windows: first submissions after them",
    "windows: all submitted before their end",
)


@pytest.mark.slow
def test_many_tasks_in_random_order() -> None:
    """About two minutes, of synchronous and asynchronous tasks; more, until each rare thing was met once.

    Hypothesis draws from the constants of all modules that are loaded, so that which calls come depends on the tests
    before: a batch alone misses one of the rare things half of the time.
    """
    before = STEPS.total()
    play(examples=40)
    for number in range(1, 9):
        if all(MET[met] for met in MUST_BE_MET):
            break
        play(examples=20, number=number)
    print(f"state machine: {STEPS.total() - before} calls on the chain and in the model; {dict(MET)}")
    assert STEPS.total() - before > 1000
    assert [met for met in MUST_BE_MET if not MET[met]] == []
