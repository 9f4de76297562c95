"""What is tried before a run begins, so that a machine that cannot run it says so before anything is written."""

from __future__ import annotations

import os

import pytest

from backends.catalog import get_target
from backends.twin import memory
from backends.twin.executor import TwinExecutor
from circuits.errors import QrunError
from runner.config import RunConfig
from runner.models import model_for
from runner.options import config_from
from runner.prepare import prepare
from runner.progress import Warn

GRADIENTS = [{}, {"model": {"gradient": "spsa"}}, {"shots": 50}]


def small(**options: object) -> RunConfig:
    return config_from("nsl-kdd", {"backend": "fake_manila", "qubits": 3, "reps": 1, "device": "cpu", **options})


@pytest.mark.parametrize("options", GRADIENTS, ids=["exact", "spsa", "shots"])
def test_the_training_batch_is_what_is_tried(options: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    """16 MiB are enough for three qubits and a batch of 2, and too few for one of 4096."""
    monkeypatch.setattr(memory, "available", lambda _: 2**24)
    for batch in (2, 4096):
        values = {**options, "model": {**options.get("model", {}), "batch": batch}}  # type: ignore[dict-item]
        if batch == 2:
            prepare(small(**values), Warn())
        else:
            with pytest.raises(QrunError, match=r"would take 0\.\d GiB, and there are 0\.0 GiB"):
                prepare(small(**values), Warn())


@pytest.mark.parametrize(
    ("cores", "threads"),
    [(1, 1), (3, 3), (64, 4)],
)
def test_cores_share_a_step(cores: int, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """At most four; the engine takes fewer where each would take gigabytes (test_plan)."""
    ready = prepare(small(), Warn())
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    engine = model_for(small(), get_target("fake_manila"), ready.circuit, "cpu").executor
    assert isinstance(engine, TwinExecutor)
    assert engine.threads == threads
