"""qrun login: the token is read without echo, saved by qiskit-ibm-runtime alone, and shown nowhere."""

import json
import stat
from pathlib import Path

import pytest

from backends.runtime import account as connection
from backends.runtime.errors import ServiceError
from backends.runtime.explain import account_file
from backends.runtime.standin import StandIn
from backends.runtime.standin.fixture import runtime_standin
from circuits.errors import QrunError, UsageError
from runner.account import forget_account, save_account
from runner.doctor import examine
from tests.runner.conftest import Qrun

__all__ = ["runtime_standin"]

TOKEN = "kD9-not-a-real-token-7Qx"
PLATFORM = "ibm_quantum_platform"


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    connection.disconnect()


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TOKEN", "CHANNEL", "INSTANCE", "URL"):
        monkeypatch.delenv(f"QISKIT_IBM_{name}", raising=False)


def run(command: list[str], given: str, env: dict[str, str]) -> tuple[int, str, str]:
    """`qrun` with something on stdin."""
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-m", "runner.cli", *command],
        input=given,
        capture_output=True,
        text=True,
        check=False,
        env=env,
    )
    return done.returncode, done.stdout, done.stderr


def test_a_checked_login_and_what_follows(
    runtime_standin: StandIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import os

    token = runtime_standin.settings.token
    monkeypatch.delenv("QISKIT_IBM_TOKEN")
    runtime_standin.settings.plan, runtime_standin.settings.spent = "open", 20.0
    command = ["login", "--instance", runtime_standin.settings.instance]
    code, out, err = run([*command, "--json"], token + "\n", dict(os.environ))
    assert code == 0, err
    told = json.loads(out)
    assert (told["checked"], told["plan"], told["remaining"], told["warnings"]) == (True, "open", 580.0, [])
    assert token not in out + err
    saved = json.loads(account_file().read_text())
    assert [entry["token"] for entry in saved.values()] == [token]
    assert stat.S_IMODE(account_file().stat().st_mode) == 0o600
    # The saved account is used: no token in the environment, and the address is that of the account.
    monkeypatch.delenv("QISKIT_IBM_URL")
    monkeypatch.delenv("QISKIT_IBM_INSTANCE")
    code, out, err = run(["backends", "list", "--live", "--json"], "", dict(os.environ))
    assert code == 0, err
    assert [d["name"] for d in json.loads(out) if d["kind"] == "hardware"] == ["ibm_fez", "ibm_kyiv", "ibm_torino"]
    assert token not in out + err
    code, out, err = run(["doctor", "--live", "--json"], "", dict(os.environ))
    checks = {check["name"]: check for check in json.loads(out)}
    assert checks["IBM Quantum token"]["state"] == "ok"
    assert checks["IBM Quantum service"]["found"] == (
        "answers; 3 of 3 devices run jobs, plan open, 580 of 600 QPU seconds left"
    )
    assert token not in out + err


def test_a_token_that_is_refused_is_not_saved(runtime_standin: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QISKIT_IBM_TOKEN")
    with pytest.raises(ServiceError, match="token is refused") as error:
        save_account(TOKEN, PLATFORM, runtime_standin.settings.instance, None, True)
    assert TOKEN not in str(error.value)
    assert not account_file().exists()


def test_without_a_check_it_says_so(offline: None) -> None:
    told = save_account(f"  {TOKEN}\n", PLATFORM, None, None, False)
    assert "was not asked" in told.warnings[0]
    assert TOKEN not in repr(told)
    assert next(iter(json.loads(account_file().read_text()).values()))["token"] == TOKEN
    again = save_account(f"{TOKEN}2", PLATFORM, None, None, False)  # replaces it
    assert [a["token"] for a in json.loads(account_file().read_text()).values()] == [f"{TOKEN}2"]
    assert again.plan is None


def test_several_accounts_and_forgetting_them(offline: None) -> None:
    for name in (None, "work"):
        save_account(TOKEN, PLATFORM, None, name, False)
    told = forget_account(PLATFORM, "home")
    assert told.done == "the account 'home' was not saved."
    assert "work" in told.warnings[0]
    assert forget_account(PLATFORM, "work").done == "the account 'work' is deleted."
    assert forget_account(PLATFORM, None).done == f"the account of {PLATFORM} is deleted."
    assert TOKEN not in account_file().read_text()
    assert "was not saved" in forget_account(PLATFORM, None).done


def test_forgetting_nothing_makes_no_file(offline: None) -> None:
    assert "was not saved" in forget_account(PLATFORM, None).done
    assert not account_file().exists()


@pytest.mark.parametrize("token", ["", " \n", "two words", "tab\tbed", "né", "x" * 5000, "a\x00b"])
def test_what_is_no_token_is_refused_and_not_shown(token: str) -> None:
    with pytest.raises(UsageError) as error:
        save_account(token, PLATFORM, None, None, False)
    assert not token.strip() or token.strip() not in str(error.value)


def test_other_mistakes(offline: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for call in (lambda: save_account(TOKEN, "ibm_quantum", None, None, False), lambda: forget_account("x", None)):
        with pytest.raises(UsageError, match="unknown channel"):
            call()
    account_file().parent.mkdir()
    account_file().write_text("{not json")
    with pytest.raises(QrunError, match="damaged"):
        save_account(TOKEN, PLATFORM, None, None, False)
    account_file().unlink()
    account_file().mkdir()
    with pytest.raises(QrunError) as error:
        save_account(TOKEN, PLATFORM, None, None, False)
    assert TOKEN not in str(error.value)


def test_a_file_that_others_can_read_is_told(offline: None) -> None:
    save_account(TOKEN, PLATFORM, None, None, False)
    account_file().chmod(0o644)
    told = save_account(TOKEN, PLATFORM, None, None, False)
    assert any("chmod 600" in warning for warning in told.warnings)
    check = next(c for c in examine() if c.name == "IBM Quantum token")
    assert (check.state, check.mend) == ("optional", f"chmod 600 {account_file()}")


def test_the_environment_wins_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QISKIT_IBM_TOKEN", "another-token")
    told = save_account(TOKEN, PLATFORM, None, None, False)
    assert any("QISKIT_IBM_TOKEN is set" in warning for warning in told.warnings)
    assert "another-token" not in repr(told)


def test_the_command_line_takes_no_token(qrun: Qrun, offline: None) -> None:
    done = qrun("login", "--token", TOKEN)
    assert done.returncode == 2
    assert qrun("login", "--help").returncode == 0
    empty = qrun("login", "--no-check")  # stdin is at its end
    assert empty.returncode == 2
    assert "no token was given" in empty.stderr


def test_without_an_account_live_commands_say_what_to_do(qrun: Qrun, offline: None) -> None:
    for command in (["backends", "list", "--live"], ["backends", "rank", "nsl-kdd", "--live"]):
        done = qrun(*command)
        assert done.returncode == 1
        assert "qrun login" in done.stderr
        assert done.stderr.count("\n") == 1
    done = qrun("backends", "show", "ibm_torino")
    assert done.returncode == 2
    assert "fake_torino" in done.stderr
    broken = qrun("doctor", "--live", "--json")
    assert broken.returncode == 1
    assert {c["name"]: c["state"] for c in json.loads(broken.stdout)}["IBM Quantum service"] == "broken"


def test_ranking_on_the_command_line(runtime_standin: StandIn, qrun: Qrun) -> None:
    packaged = ["--backend", "fake_fez", "--backend", "fake_kyiv", "--backend", "fake_manila"]
    told = json.loads(qrun("backends", "rank", "nsl-kdd", "--qubits", "4", *packaged, "--json").stdout)
    assert told["devices"][0]["name"] == "fake_fez"
    assert len(told["devices"]) == 3
    done = qrun("backends", "rank", "nsl-kdd", "--qubits", "4", "--live")
    assert done.returncode == 0, done.stderr
    for said in ("ibm_fez", "ibm_kyiv", "ibm_torino", "queue", "est. fidelity", "us"):
        assert said in done.stdout
    assert runtime_standin.settings.token not in done.stdout + done.stderr
    wrong = qrun("backends", "rank", "nsl-kdd", "--backend", "ideal")
    assert wrong.returncode == 2


def test_a_live_device_is_shown_and_saved(runtime_standin: StandIn, qrun: Qrun, tmp_path: Path) -> None:
    shown = json.loads(qrun("backends", "show", "ibm_torino", "--json").stdout)
    assert (shown["kind"], shown["qubits"], shown["two_qubit_gate"]) == ("hardware", 133, "cz")
    saved = qrun("backends", "save", "ibm_torino", str(tmp_path / "torino.json"), "--json")
    assert saved.returncode == 0, saved.stderr
    again = json.loads(qrun("backends", "show", str(tmp_path / "torino.json"), "--json").stdout)
    assert {**again, "kind": ""} == {**shown, "kind": ""}
    assert runtime_standin.settings.token not in (tmp_path / "torino.json").read_text()
