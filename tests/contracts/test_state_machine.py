"""The contract against the model of its rules: random calls of honest and hostile accounts.

`python -m tests.contracts.state_machine --steps N` plays more of them, and others.
"""

from __future__ import annotations

import pytest

from tests.contracts.state_machine import MET, STEPS, play


def test_a_few_tasks_in_random_order() -> None:
    play(examples=3, steps=40)


@pytest.mark.slow
def test_many_tasks_in_random_order() -> None:
    """About two minutes; the same calls every time, of synchronous and asynchronous tasks."""
    before = STEPS.total()
    play(examples=40)
    print(f"state machine: {STEPS.total() - before} calls on the chain and in the model; {dict(MET)}")
    assert STEPS.total() - before > 1000
    for met in ("settlements that exclude", "settlements that are weak", "RolledBack", "Withdrawn", "Concluded"):
        assert MET[met], met
    for met in ("settled", "graders without a model", "first submissions after them", "all submitted before their end"):
        assert MET[f"windows: {met}"], met
    assert MET["Announced"]
