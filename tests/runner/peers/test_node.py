"""`qrun node`: peers in processes of their own, on an Ethereum node and a js-ipfs daemon."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account
from eth_utils.crypto import keccak

import qrun
from contracts.chain import connect
from contracts.keystore import NodeSecrets, create_keystore, new_secrets
from contracts.records import Phase
from contracts.rounds import FederatedRounds
from runner.options import config_from
from runner.peers.keys import node_keys
from runner.peers.places import PeerPlaces
from runner.peers.task import Offer, Task, join_task, open_task
from tests.contracts.fault_proxy import fault_proxy
from tests.runner.conftest import Qrun, environment
from tests.servers import ANVIL_KEY, anvil_node

PASSWORD = "correct horse battery staple"
TINY = {
    "backend": "ideal",
    "qubits": 2,
    "reps": 1,
    "rounds": 2,
    "model": {"steps_per_epoch": 10, "samples": 64, "hidden": (8,)},
    "data": {"test": False},
}
ASYNC = {"schedule": "async", "window_seconds": 6, "commit_seconds": 10, "reveal_seconds": 10}


@dataclass
class Party:
    """A node's keystore and its process."""

    index: int
    key: Path
    secrets: NodeSecrets
    folder: Path
    process: subprocess.Popen[str] | None = None

    @property
    def log(self) -> Path:
        return self.folder.with_suffix(".log")

    def kill(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)

    def report(self, seconds: float = 400) -> dict[str, Any]:
        assert self.process is not None
        out, _ = self.process.communicate(timeout=seconds)
        assert self.process.returncode == 0, self.log.read_text()[-3000:]
        found: dict[str, Any] = json.loads(out)
        return found


@dataclass
class Scene:
    """A chain, a daemon, three parties and their task."""

    chain: str
    ipfs: str
    folder: Path
    parties: list[Party]
    task: Task
    password: Path
    stack: ExitStack = field(default_factory=ExitStack)

    @property
    def address(self) -> str:
        return self.task.contract.address

    def words(self, party: Party, **changed: str) -> list[str]:
        options = {
            "task": self.address,
            "chain": self.chain,
            "ipfs": self.ipfs,
            "key": str(party.key),
            "password-file": str(self.password),
            "out": str(party.folder),
        } | changed
        return ["node", *(w for name, value in options.items() for w in (f"--{name}", value)), "--json"]

    def start(self, party: Party, **changed: str) -> None:
        party.process = subprocess.Popen(
            [sys.executable, "-m", "runner.cli", *self.words(party, **changed)],
            stdout=subprocess.PIPE,
            stderr=party.log.open("a"),
            text=True,
            env=environment(self.folder / "home"),
            start_new_session=True,
        )
        self.stack.callback(self._end, party.process)

    @staticmethod
    def _end(process: subprocess.Popen[str]) -> None:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)

    def until(self, ready: Callable[[FederatedRounds], bool], seconds: float = 240) -> None:
        end = time.monotonic() + seconds
        while not ready(self.task.contract):
            assert time.monotonic() < end, "\n".join(p.log.read_text()[-800:] for p in self.parties)
            time.sleep(0.3)

    def verify(self) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-m", "runner.cli", "verify", self.address, "--chain", self.chain, "--ipfs", self.ipfs,
             "--json"],
            capture_output=True, text=True, check=False, env=environment(self.folder / "home"), timeout=300,
        )  # fmt: skip
        found: dict[str, Any] = json.loads(done.stdout)
        assert done.returncode == 0, [c for c in found["checks"] if c["verdict"] == "false"][:3]
        return found


@contextmanager
def scene(folder: Path, chain: str, ipfs: str, *, rounds: int = 2, **federation: Any) -> Iterator[Scene]:
    """Three who have joined a task."""
    password = folder / "password"
    password.write_text(PASSWORD)
    password.chmod(0o600)
    parties = []
    for i in range(3):
        kept, key = new_secrets(), folder / f"key-{i}.json"
        create_keystore(key, kept, PASSWORD, work_factor=1 << 12)
        parties.append(Party(i, key, kept, folder / f"node-{i}"))
    accounts = [Account.from_key(p.secrets.chain) for p in parties]
    values = {**TINY, "nodes": 3, "rounds": rounds, "federation": {"sum_seconds": 40, **federation}}
    config = config_from("nsl-kdd", values)
    places = PeerPlaces(chain, ipfs, folder=folder / "opener")
    source = "official" if os.environ.get("QRUN_DATA") else "stand-in"
    with ExitStack() as stack:
        opened = stack.enter_context(places.open_chain())
        store = places.open_store()
        opened.fund([a.address for a in accounts], ANVIL_KEY, gas_each=60_000_000)
        offer = Offer(tuple(a.address for a in accounts), source=source)
        task, _ = open_task(opened, store, accounts[0], config, offer, folder=folder / "opened")
        for account, party in zip(accounts, parties, strict=True):
            join_task(task, account, node_keys(party.secrets))
        yield Scene(chain, ipfs, folder, parties, task, password, stack)


@pytest.mark.server
@pytest.mark.slow
def test_three_processes_come_to_what_one_does_though_one_is_killed(
    tmp_path: Path, anvil: str, ipfs_daemon: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with scene(tmp_path, anvil, ipfs_daemon) as there:
        for party in there.parties:
            there.start(party)
        victim = there.parties[1]
        there.until(lambda contract: contract.submission(1, 0) is not None)
        victim.kill()
        there.start(victim)
        reports = [party.report() for party in there.parties]
        found = there.verify()
        config = there.task.config
    monkeypatch.setenv("QRUN_HOME", str(tmp_path / "alone"))
    alone = qrun.run("nsl-kdd", out=tmp_path / "one", **TINY, nodes=3, federation={"sum_seconds": 40})
    assert alone["config_digest"] == config.digest.hex()
    assert {r["final"]["cid"] for r in reports} == {alone["final"]["cid"]}
    assert {r["feature_map"]["cid"] for r in reports} == {alone["feature_map"]["cid"]}
    assert all(r["metrics"] == alone["metrics"] for r in reports)
    apart = {(r["node"]["id"], m["round"]): m["cid"] for r in reports for m in r["models"]}
    assert apart == {(n["id"], r["number"]): n["cid"] for r in alone["rounds"] for n in r["nodes"]}
    assert all(r["final"]["calibrated_by"] == [0, 1, 2] for r in reports)
    assert all(r["witnessed"] is not None for r in reports)
    # What was played apart is proven as what was played together is.
    assert found["counts"]["announcements"]["holds"] > 0


@pytest.mark.server
@pytest.mark.slow
def test_nobody_waits_for_one_who_has_gone_and_it_catches_up_alone(
    tmp_path: Path, anvil: str, ipfs_daemon: str
) -> None:
    with scene(tmp_path, anvil, ipfs_daemon, rounds=6, quorum=2, **ASYNC) as there:
        for party in there.parties:
            there.start(party)
        gone = there.parties[2]
        there.until(lambda contract: contract.submission(1, 2) is not None)
        gone.kill()
        there.until(lambda contract: contract.settled_rounds() >= 3)
        contract = there.task.contract
        absent = [r for r in (2, 3) if contract.submission(r, 2) is None]
        assert absent, "it had submitted ahead"
        for number in absent:
            settled = contract.settlement(number)
            assert settled is not None
            assert 2 not in settled.flagged | settled.low | settled.excluded
        there.start(gone)
        reports = [party.report() for party in there.parties]
        assert len({r["final"]["cid"] for r in reports}) == 1
        late = [s for r in range(4, 7) if (s := contract.submission(r, 2)) is not None]
        assert late or contract.settled_rounds() == 6
        assert contract.reputation()[2] > 0
        there.verify()


@pytest.mark.server
@pytest.mark.slow
def test_a_node_that_is_lied_to_stops(tmp_path: Path, ipfs_daemon: str) -> None:
    (tmp_path / "anvil").mkdir()
    with anvil_node(tmp_path / "anvil") as chain, fault_proxy(chain) as proxy:
        selector = "0x" + keccak(text="sets()")[:4].hex()

        def lie(asked: list[Any], answer: str) -> str:
            """Tells of another set of nodes that were excluded."""
            if asked[0]["data"] != selector:
                return answer
            return answer[: 2 + 2 * 64 - 1] + "4" + answer[2 + 2 * 64 :]

        with scene(tmp_path, chain, ipfs_daemon) as there:
            proxy.changes["eth_call"] = lie
            party = there.parties[0]
            there.start(party, chain=proxy.url)
            assert party.process is not None
            assert party.process.wait(240) == 1
            said = party.log.read_text()
            assert "qrun: the node lies about the task: the node answers sets()" in said
            assert "give another node with --chain" in said
            assert "Traceback" not in said


@pytest.mark.server
def test_what_a_user_does_wrong_is_told_in_a_line(
    tmp_path: Path, anvil: str, ipfs_daemon: str, qrun: Qrun, home: Path
) -> None:
    """Each in one line, with the exit code of its kind; no password, no key, no traceback."""
    with scene(tmp_path, anvil, ipfs_daemon) as there:
        party = there.parties[0]
        stranger = tmp_path / "stranger.json"
        create_keystore(stranger, new_secrets(), PASSWORD, work_factor=1 << 12)
        wrong = tmp_path / "wrong"
        wrong.write_text("not it")
        wrong.chmod(0o600)
        open_ = tmp_path / "open"
        open_.write_text(PASSWORD)
        open_.chmod(0o644)
        nothing = "0x" + "11" * 20
        bad = {
            "no address": ({"task": "0x12"}, 2, "is no address"),
            "nothing there": ({"task": nothing}, 1, "there is no contract at"),
            "wrong password": ({"password-file": str(wrong)}, 1, "is the password wrong"),
            "a password that all can read": ({"password-file": str(open_)}, 1, "chmod"),
            "not joined": ({"key": str(stranger), "out": str(tmp_path / "s")}, 1, "has not joined"),
            "no URL": ({"chain": "ftp://x"}, 2, "--chain takes"),
        }
        for name, (changed, code, words) in bad.items():
            done = qrun(*there.words(party, **changed))
            said = done.stderr + done.stdout
            assert done.returncode == code, (name, said)
            assert words in " ".join(said.split()), (name, said)
            assert "Traceback" not in said
            for secret in (PASSWORD, party.secrets.chain.hex(), party.secrets.exchange.hex()):
                assert secret not in said
        done = qrun("node", "--task", there.address, "--chain", anvil, "--key", str(party.key))
        assert done.returncode == 2
        assert "no store is named" in done.stderr
        with connect(anvil) as chain:
            assert FederatedRounds.attach(chain, there.address).phase() is Phase.SETUP
