"""A short soak: peers, daemon and chain are killed, cut off and out of room, and all that was promised holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak.__main__ import main


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_all_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QRUN_HOME", str(tmp_path / "home"))  # it sets its own, which goes with the test
    code = main(["--nodes", "3", "--rounds", "4", "--every", "9", "--minutes", "20", "--seed", "5"])
    said = capsys.readouterr().out
    assert code == 0, said
    assert "holds: it ended" in said
    assert "node killed" in said
