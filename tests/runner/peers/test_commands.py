"""`qrun key` and `qrun task` as they are typed: what they do, what they refuse, and what they never show."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from typer.testing import CliRunner

from contracts.chain import Chain, connect
from contracts.keystore import NodeSecrets, create_keystore, new_secrets
from contracts.rounds import FederatedRounds
from runner.cli import app
from tests.runner.conftest import Qrun, environment
from tests.runner.peers.conftest import secrets_of
from tests.runner.test_cli import one_line

PASSWORD = "correct horse battery 7Qz"
SMALL = ["--backend", "ideal", "--qubits", "3", "--reps", "1", "--rounds", "2"]


@dataclass
class Desk:
    """Keystores of an opener and three nodes, a chain in a file with money for them, a folder of blocks."""

    qrun: Qrun
    folder: Path
    secrets: list[NodeSecrets] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    """All that any command has written."""

    @property
    def places(self) -> list[str]:
        return ["--chain", str(self.folder / "chain.sqlite"), "--store", str(self.folder / "blocks")]

    @property
    def chain(self) -> list[str]:
        return self.places[:2]

    def key(self, name: str) -> list[str]:
        return ["--key", str(self.folder / f"{name}.json"), "--password-file", str(self.folder / "password")]

    def address(self, name: str) -> str:
        return "0x" + str(json.loads((self.folder / f"{name}.json").read_text())["address"])

    def __call__(self, *args: str, code: int = 0) -> str:
        """Run a command; what it wrote to stdout."""
        done = self.qrun(*args)
        self.said += [done.stdout, done.stderr]
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout

    def told(self, *args: str) -> dict[str, object]:
        found: dict[str, object] = json.loads(self(*args, "--json"))
        return found

    def fails(self, code: int, said: str, *args: str) -> None:
        done = self.qrun(*args)
        self.said += [done.stdout, done.stderr]
        assert (done.returncode, done.stderr.strip().count("\n")) == (code, 0), done.stderr
        assert said in done.stderr
        assert "Traceback" not in done.stderr

    def open(self, *more: str) -> dict[str, object]:
        allowed = [part for name in ("a", "b", "c") for part in ("--allow", self.address(name))]
        return self.told("task", "open", "nsl-kdd", *SMALL, *self.places, *self.key("opener"), *(more or allowed))


NAMES = ("opener", "a", "b", "c", "poor")


def in_this_process(home: Path) -> Qrun:
    """Run the command line without a process of its own: what is loaded once is loaded for all commands."""

    def call(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
        wanted = {**environment(home), **env}
        cleared = {name: None for name in os.environ if name.startswith("QRUN_") and name not in wanted}
        done = CliRunner().invoke(app, args, env={**cleared, **wanted})
        return subprocess.CompletedProcess(["qrun", *args], done.exit_code, done.stdout, done.stderr)

    return call


@pytest.fixture
def desk(home: Path, tmp_path: Path) -> Iterator[Desk]:
    qrun = in_this_process(home)
    folder = tmp_path / "desk"
    folder.mkdir()
    (folder / "password").write_text(PASSWORD + "\n")
    (folder / "password").chmod(0o600)
    made = Desk(qrun, folder)
    for name in NAMES:
        kept = new_secrets(signing=name == "a")
        create_keystore(folder / f"{name}.json", kept, PASSWORD, work_factor=16)
        made.secrets.append(kept)
    with connect(folder / "chain.sqlite", [kept.address for kept in made.secrets[:-1]]):
        pass
    yield made
    never_shown(made, tmp_path)


def never_shown(desk: Desk, folder: Path) -> None:
    """Nothing secret is in anything that was written, on the screen or on the disk."""
    texts = [text.encode() for text in desk.said]
    files = [path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "password"]
    secret = [PASSWORD, *(part for kept in desk.secrets for part in secrets_of(kept))]
    for data in [*texts, *files]:
        low = data.lower()
        for part in secret:
            assert part.lower().encode() not in low
            assert len(part) != 64 or bytes.fromhex(part) not in data


# -- keys -------------------------------------------------------------------------------------------------------------


def test_a_key_is_made_and_shown(desk: Desk) -> None:
    file = desk.folder / "new.json"
    password = ["--password-file", str(desk.folder / "password")]
    made = desk.told("key", "new", str(file), "--signing", *password)
    assert file.stat().st_mode & 0o777 == 0o600
    assert made["opened"]
    assert made["signing"]
    shown = desk.told("key", "show", str(file))
    assert (shown["address"], shown["signing"], shown["opened"], shown["exchange_key"]) == (
        made["address"],
        True,
        False,
        None,
    )
    assert desk.told("key", "show", str(file), *password) == made
    assert str(made["signing_key"]) in desk("key", "show", str(file), *password)
    assert "not shown without the password" in desk("key", "show", str(file))
    desk.fails(1, "exists", "key", "new", str(file), *password)


def test_a_key_of_another_tool_is_imported(desk: Desk) -> None:
    from eth_account import Account

    account = Account.create()
    source = desk.folder / "geth.json"
    source.write_text(json.dumps(Account.encrypt(account.key, PASSWORD, kdf="scrypt", iterations=16)))
    source.chmod(0o600)
    password = ["--password-file", str(desk.folder / "password")]
    assert desk.told("key", "show", str(source))["of_node"] is False
    desk.fails(1, "`qrun key import`", "task", "settle", "--task", account.address, *desk.chain,
               "--key", str(source), *password)  # fmt: skip
    made = desk.told("key", "import", str(source), str(desk.folder / "node.json"), *password)
    assert (made["address"], made["signing"]) == (account.address, False)
    more = desk.told("key", "import", str(desk.folder / "node.json"), str(desk.folder / "more.json"),
                     "--signing", *password)  # fmt: skip
    assert (more["address"], more["exchange_key"]) == (account.address, made["exchange_key"])
    assert more["signing"]


def test_passwords_come_from_nowhere_else(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    file = desk.folder / "new.json"
    done = desk.qrun("key", "new", str(file), PASSWORD=PASSWORD, QRUN_PASSWORD=PASSWORD)
    one_line(done, 2, "no terminal to ask for the password", "--password-file")
    assert not file.exists()
    for mode in (0o644, 0o640, 0o602):
        (desk.folder / "password").chmod(mode)
        desk.fails(1, "chmod 600", "key", "new", str(file), "--password-file", str(desk.folder / "password"))
    assert not file.exists()
    assert desk.qrun("key", "new", str(file), "--password", PASSWORD).returncode == 2
    wrong = desk.folder / "wrong"
    wrong.write_text("something else")
    wrong.chmod(0o600)
    desk.fails(1, "password wrong", "key", "show", str(desk.folder / "a.json"), "--password-file", str(wrong))


def test_a_password_is_typed_twice_and_not_seen(tmp_path: Path, home: Path) -> None:
    from tests.runner.peers.terminal import typed

    file = tmp_path / "typed.json"
    code, seen = typed(home, ["key", "new", str(file)], [PASSWORD, PASSWORD])
    assert code == 0, seen
    assert PASSWORD not in seen
    code, seen = typed(home, ["key", "show", str(file), "--json"], [PASSWORD])
    assert code == 0, seen
    assert '"opened": true' in seen
    assert PASSWORD not in seen
    code, seen = typed(home, ["key", "show", str(file), "--json"], [""])
    assert code == 0, seen
    assert '"opened": false' in seen
    other = tmp_path / "other.json"
    code, seen = typed(home, ["key", "new", str(other)], [PASSWORD, PASSWORD + "x"])
    assert code == 1, seen
    assert "not the same" in seen
    assert not other.exists()
    for key, code_, said in (("\x03", 130, "interrupted"), ("\x04", 1, "no password was given")):
        code, seen = typed(home, ["key", "new", str(other)], [key])
        assert (code, said in seen, "Traceback" in seen) == (code_, True, False), seen
    assert not other.exists()


# -- tasks ------------------------------------------------------------------------------------------------------------


def test_a_task_from_its_opening_to_its_end(desk: Desk) -> None:
    opened = desk.open("--allow-file", allow_file(desk), "--pool", "1000", "--source", "stand-in")
    task = str(opened["task"])
    assert str(opened["join"]).startswith(f"qrun task join --task {task} --chain ")
    assert opened["new"]
    assert not desk.open("--allow-file", allow_file(desk), "--pool", "1000", "--source", "stand-in")["new"]
    shown = desk.told("task", "show", "--task", task, *desk.chain)
    assert shown["phase"] == "setup"
    assert shown["terms"]["config"] is None  # type: ignore[index]
    for index, name in enumerate("abc"):
        desk.said.append(str(desk.told("task", "join", "--task", task, *desk.places, *desk.key(name), "--dry-run")))
        joined = desk.told("task", "join", "--task", task, *desk.places, *desk.key(name))
        assert (joined["node"], joined["registered"], joined["again"]) == (index, True, False)
        assert desk.told("task", "join", "--task", task, *desk.places, *desk.key(name))["again"]
    with_config = desk.told("task", "show", "--task", task, *desk.places, "--account", desk.address("a"))
    assert with_config["terms"]["config"]["model"]["qubits"] == 3  # type: ignore[index]
    assert [node["registered"] for node in with_config["nodes"]] == [True] * 3  # type: ignore[attr-defined]
    assert with_config["account"]["owed"] == 0  # type: ignore[index]
    text = desk("task", "show", "--task", task, *desk.places)
    for part in ("1000 wei", "sync: all nodes in step", "stand-in data", "not agreed yet", desk.address("c")[2:]):
        assert part.lower() in text.lower()
    assert "waits for its nodes" in desk("task", "settle", "--task", task, *desk.chain, *desk.key("a"))
    desk.fails(1, "may not be abandoned yet: from", "task", "settle", "--task", task, *desk.chain, *desk.key("a"),
               "--abandon")  # fmt: skip
    play_rounds(desk, task)
    settled = desk.told("task", "settle", "--task", task, *desk.chain, *desk.key("b"))
    assert [deed["did"] for deed in settled["deeds"]] == ["settled", "withdrew"]  # type: ignore[attr-defined]
    assert settled["phase"] == "ended"
    again = desk("task", "settle", "--task", task, *desk.chain, *desk.key("b"))
    assert "owed nothing" in again
    end = desk.told("task", "show", "--task", task, *desk.places, "--key", desk.key("a")[1])
    assert (end["phase"], end["settled_rounds"], end["abandoned"]) == ("ended", 2, False)
    assert end["account"]["owed"] == 333  # type: ignore[index]
    assert [r["state"] for r in end["rounds"]] == ["settled", "settled"]  # type: ignore[attr-defined]
    assert "strong" in desk("task", "show", "--task", task, *desk.chain)
    desk.fails(1, "has ended", "task", "join", "--task", task, *desk.places, *desk.key("poor"))


def allow_file(desk: Desk) -> str:
    file = desk.folder / "allowed"
    file.write_text("".join(f"{desk.address(name)}  # {name}\n" for name in "abc"))
    return str(file)


def play_rounds(desk: Desk, task: str) -> None:
    with connect(desk.folder / "chain.sqlite") as chain:
        play_rounds_on(chain, desk, task)


def play_rounds_on(chain: Chain, desk: Desk, task: str) -> None:
    """Two rounds of three nodes, up to the settlement of the last one."""
    from eth_account import Account

    from tests.contracts.conftest import METRICS, SIGNATURE, all_grades, model, salt

    accounts = [Account.from_key(kept.chain) for kept in desk.secrets[1:4]]
    contract = FederatedRounds.attach(chain, task)
    for account in accounts:
        contract.agree_map(account, b"m" * 32)
    for round_ in (1, 2):
        for i, account in enumerate(accounts):
            contract.submit(account, round_, model(round_, i), METRICS, signature=SIGNATURE)
        for write in (contract.commit, contract.reveal):
            for i, account in enumerate(accounts):
                write(account, round_, all_grades(range(3))[i], salt(round_, i))
        if round_ == 1:
            contract.settle(accounts[0], 1)


def test_what_cannot_be_opened(desk: Desk) -> None:
    run = ["task", "open", "nsl-kdd", *SMALL]
    allow = ["--allow", desk.address("a"), "--allow", desk.address("b")]
    mine = [*desk.places, *desk.key("opener")]
    desk.fails(2, "said in one way", *run, *mine)
    desk.fails(2, "said in one way", *run, *mine, *allow, "--open")
    desk.fails(2, "--nodes 5, but 2 are allowed", *run, *mine, *allow, "--nodes", "5")
    desk.fails(2, "twice", *run, *mine, *allow, *allow)
    desk.fails(2, "is no address", *run, *mine, "--allow", "0x12")
    desk.fails(2, "needs a deposit", *run, *mine, "--open")
    desk.fails(2, "--min-nodes 9", *run, *mine, "--open", "--deposit", "1", "--min-nodes", "9")
    desk.fails(2, "no store is named", *run, *desk.chain, *desk.key("opener"), *allow)
    desk.fails(2, "name two stores", *run, *mine, "--ipfs", "http://127.0.0.1:5001", *allow)
    desk.fails(2, "--chain takes", *run, "--chain", "user:hunter2@nowhere", *desk.places[2:], *desk.key("a"), *allow)
    desk.fails(2, "--confirmations is of", *run, *mine, *allow, "--confirmations", "2")
    desk.fails(2, "--gateway is asked", *run, *mine, *allow, "--gateway", "https://gateway.example.org")
    desk.fails(2, "unknown backend", *run, *mine, *allow, "--backend", "fake_kiev")
    desk.fails(2, "QPU seconds", *run, *mine, *allow, "--engine", "runtime", "--backend", "fake_manila")
    desk.fails(2, "data source 'mine'", *run, *mine, *allow, "--source", "mine")
    desk.fails(2, "--allow-file", *run, *mine, "--allow-file", str(desk.folder / "nobody"))
    desk.fails(1, "holds 0 ether", *run, *desk.places, *desk.key("poor"), *allow)
    desk.fails(1, "cannot be read", *run, *desk.places, "--key", str(desk.folder / "nobody.json"), *allow)
    saved = desk.folder / "device.json"
    desk("backends", "save", "fake_manila", str(saved))
    desk.fails(2, "the other nodes do not have", *run, *mine, *allow, "--backend", str(saved))
    with connect(desk.folder / "chain.sqlite") as chain:
        assert chain.head_number() == 0
    dry = desk.told(*run, *desk.places, *desk.key("poor"), *allow, "--dry-run")
    assert (dry["enough"], dry["balance"]) == (False, 0)
    assert dry["terms"]["nodes"] == 2  # type: ignore[index]


def test_addresses_that_hold_a_key(desk: Desk) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://somebody:hunter2@127.0.0.1:{free.getsockname()[1]}/v3/0123456789abcdef0123"
    allow = ["--allow", desk.address("a")]
    desk.fails(1, "does not answer", "task", "open", "nsl-kdd", *SMALL, "--chain", url, *desk.places[2:],
               *desk.key("opener"), *allow)  # fmt: skip
    desk.fails(1, "does not answer", "task", "show", "--task", desk.address("a"), "--chain", url)
    away = "http://127.0.0.1:9"
    desk.fails(1, "could not have the task's config", "task", "open", "nsl-kdd", *SMALL, *desk.chain, "--ipfs", away,
               *desk.key("opener"), *allow)  # fmt: skip
    written = [path.read_bytes() for path in desk.folder.parent.rglob("*") if path.is_file()]
    for text in [*(text.encode() for text in desk.said), *written]:
        assert b"hunter2" not in text
        assert b"0123456789abcdef0123" not in text


def test_who_cannot_join(desk: Desk) -> None:
    task = str(desk.open("--allow", desk.address("a"), "--signatures", "ml-dsa-65")["task"])
    join = ["task", "join", *desk.places, "--task"]
    desk.fails(1, "--signing", *join, other_task(desk, "b"), *desk.key("b"), "--json")
    desk.fails(1, "not on the allow-list", *join, task, *desk.key("b"), "--json")
    desk.fails(1, "no contract at", *join, desk.address("a"), *desk.key("a"))
    desk.fails(2, "is no address", *join, "0x12", *desk.key("a"))
    empty = ["--store", str(desk.folder / "empty")]
    desk.fails(1, "cannot be had", "task", "join", *desk.chain, *empty, "--task", task, *desk.key("a"))
    assert desk.told(*join, task, *desk.key("a"))["node"] == 0
    everybody = str(desk.open("--open", "--nodes", "2", "--deposit", "5", "--min-nodes", "1")["task"])
    desk.fails(1, "holds 0 ether, and registering", *join, everybody, *desk.key("poor"), "--json")
    assert [desk.told(*join, everybody, *desk.key(name))["node"] for name in "ba"] == [0, 1]
    desk.fails(1, "is full", *join, everybody, *desk.key("c"), "--json")


def other_task(desk: Desk, name: str) -> str:
    return str(desk.open("--allow", desk.address(name), "--signatures", "ml-dsa-65")["task"])


def test_a_task_that_nobody_carries_on(desk: Desk, tmp_path: Path) -> None:
    quick = tmp_path / "quick.toml"
    quick.write_text("[federation]\nsetup_seconds = 1\n")
    task = str(desk.open("--allow", desk.address("a"), "--config", str(quick), "--pool", "7")["task"])
    desk.told("task", "join", "--task", task, *desk.places, *desk.key("a"))
    time.sleep(1.1)
    desk.fails(1, "neither", "task", "settle", "--task", task, *desk.chain, *desk.key("b"), "--abandon")
    done = desk.told("task", "settle", "--task", task, *desk.chain, *desk.key("opener"), "--abandon")
    assert [deed["did"] for deed in done["deeds"]] == ["abandoned", "withdrew"]  # type: ignore[attr-defined]
    assert done["deeds"][1]["wei"] == 7  # type: ignore[index]
    shown = desk.told("task", "show", "--task", task, *desk.chain)
    assert (shown["phase"], shown["abandoned"]) == ("ended", True)
