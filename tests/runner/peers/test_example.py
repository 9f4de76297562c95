"""The example of three parties, as the README has it, with a small model."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from examples.three_parties import main

SMALL = Path(__file__).parents[3] / "examples" / "small.toml"


@pytest.mark.server
@pytest.mark.slow
def test_three_parties_end_with_a_sound_audit(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("QRUN_HOME", raising=False)
    source = "official" if os.environ.get("QRUN_DATA") else "stand-in"
    code = main(["--config", str(SMALL), "--rounds", "1", "--source", source])
    said = capfd.readouterr().out
    assert code == 0, said
    assert "one final model" in said
    assert "Nothing is false" in said
