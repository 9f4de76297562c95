"""A short soak: peers, daemon and chain are killed, cut off and out of room, and all that was promised holds."""

from __future__ import annotations

import pytest

from tests.soak.__main__ import main


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_all_holds(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QRUN_HOME", raising=False)
    code = main(["--nodes", "3", "--rounds", "4", "--every", "9", "--minutes", "20", "--seed", "5"])
    said = capsys.readouterr().out
    assert code == 0, said
    assert "holds: it ended" in said
    assert "node killed" in said
