"""A run whose latents are encoded again: other models than without, verified as any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.runner.device_runs import false_ids, play, verified

pytestmark = pytest.mark.filterwarnings("ignore")

TINY: dict[str, Any] = {
    "backend": "fake_manila",
    "nodes": 2,
    "rounds": 1,
    "qubits": 3,
    "reps": 2,
    "steps_per_epoch": 2,
    "detector_steps": 2,
    "batch": 4,
    "samples": 16,
    "test": False,
}


def test_a_run_with_latents_encoded_again(tmp_path: Path) -> None:
    result = play(tmp_path / "run", {**TINY, "reuploads": 2})
    assert result["config"]["model"]["reuploads"] == 2
    assert result["final"]["cid"] != play(tmp_path / "plain", TINY)["final"]["cid"]
    found = verified(tmp_path / "run", data=True)
    assert found.findings.of("holds")
    assert not false_ids(found)
