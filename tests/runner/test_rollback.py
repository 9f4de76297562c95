"""`qrun runs rollback` on a run that stopped, `qrun runs resume` after it, and every way to ask for nonsense."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from typer.testing import CliRunner

import qrun as face
from circuits.errors import QrunError, UsageError
from contracts.chain import connect
from contracts.rounds import FederatedRounds
from runner.cli import app
from runner.contribution import Contributor
from runner.rollback import roll_back
from runner.round import RoundPlayer
from runner.schema import schema
from runner.store import RunIndex

SMALL = {"qubits": 2, "reps": 1, "rounds": 4, "nodes": 3, "backend": "ideal", "test": False, "device": "cpu"}


def begun(folder: Path, monkeypatch: pytest.MonkeyPatch, step: str, number: int) -> str:
    """A run that stopped where `step` would work on round `number`; its name."""
    kind: Any = RoundPlayer if hasattr(RoundPlayer, step) else Contributor
    original = getattr(kind, step)

    def stopping(self: Any, *args: Any) -> Any:
        if number in args:
            raise KeyboardInterrupt
        return original(self, *args)

    with monkeypatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setattr(kind, step, stopping)
        with pytest.raises(KeyboardInterrupt):
            face.run("nsl-kdd", out=folder, **SMALL)
    return RunIndex().list()[-1].run


@pytest.fixture
def here(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QRUN_HOME", str(home))
    return home


def command(*args: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["runs", "rollback", *args])
    return done.exit_code, done.stdout, done.stderr


@pytest.mark.slow
def test_rollback_and_resume(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    name = begun(folder, monkeypatch, "contribute", 3)
    # What cannot be gone back to, in one line each; nothing is sent for it.
    for target, said in (("3", "no round of run"), ("7", "0 (the common start), 1, 2"), ("2", "goes on from round 2")):
        code, out, told = command(name, "--to", target)
        assert (code, out) == (2, "")
        assert said in told
        assert len(told.strip().splitlines()) == 1
    assert command(name, "--to", "-1")[0] == 2
    assert command("no-such-run", "--to", "1")[0] == 2

    code, out, _ = command(name, "--to", "1", "--json")
    assert code == 0
    done = json.loads(out)
    assert (done["run"], done["target"], done["open_round"], done["base"]) == (name, 1, 3, 1)
    assert not done["spent"]
    assert 2 <= len(done["votes"]) <= 3, "two thirds of the reputation, and not a vote more"
    # Once is enough.
    assert command(name, "--to", "1")[0] == 2
    with connect(folder / "chain.sqlite", []) as chain:
        contract = FederatedRounds.attach(chain, _address(folder))
        assert sum(e.name == "RollbackVoted" for e in contract.entries()) == len(done["votes"])
        head = chain.head_number()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = face.resume(name)
    jsonschema.validate(result, schema())
    assert result["chain"]["head"] > head
    assert [(r["number"], r["base"], r["void"]) for r in result["rounds"]] == [
        (1, 0, False),
        (2, 1, True),
        (3, 1, False),
        (4, 3, False),
    ]
    assert [(r["round"], r["target"], r["spent"]) for r in result["rollbacks"]] == [(3, 1, False)]
    assert result["chain"]["gas"]["rollback"] > 0
    assert result["final"]["round"] == 4

    # The record shows it, and a finished run has nothing to go back to.
    shown = CliRunner().invoke(app, ["runs", "show", name, "--on-chain"]).stdout
    assert "Round 2 from round 1 (void)" in shown
    assert "Round 3 from round 1 (settled)" in shown
    assert "taken back by a rollback" in CliRunner().invoke(app, ["runs", "show", name]).stdout
    code, _, told = command(name, "--to", "1")
    assert code == 2
    assert "is finished" in told


def _address(folder: Path) -> str:
    import sqlite3

    state = sqlite3.connect(folder / "state.sqlite")
    value = state.execute("select value from facts where key = 'contract'").fetchone()[0]
    state.close()
    return str(json.loads(value)["address"])


@pytest.mark.slow
def test_before_the_first_settlement_there_is_nothing_to_take_back(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = begun(tmp_path / "run", monkeypatch, "_review", 1)
    with pytest.raises(UsageError, match=r"no round of run .* is settled yet"):
        roll_back(name, 0)
    with pytest.raises(UsageError, match="no run"):
        roll_back("nothing", 0)


@pytest.mark.slow
def test_a_run_that_only_concludes_is_left_alone(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setattr(FederatedRounds, "conclude", stop)
        with pytest.raises(KeyboardInterrupt):
            face.run("nsl-kdd", out=tmp_path / "run", **{**SMALL, "rounds": 1})
    name = RunIndex().list()[-1].run
    with pytest.raises(UsageError, match="only concludes"):
        roll_back(name, 0)


@pytest.mark.slow
def test_votes_without_a_majority_are_told(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = begun(tmp_path / "run", monkeypatch, "contribute", 3)
    nodes = FederatedRounds.nodes
    monkeypatch.setattr(FederatedRounds, "nodes", lambda self: nodes(self)[:1])
    with pytest.raises(QrunError, match="two thirds"):
        roll_back(name, 1)
    monkeypatch.setattr(FederatedRounds, "nodes", nodes)
    assert roll_back(name, 1)["base"] == 1, "the vote that was cast counts, and the others are added"
