"""qrun verify, chain and store: what they print, what they write, and what they say to wrong input."""

from __future__ import annotations

import json
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from contracts import rlp
from contracts.blocks import Header, SignedTransaction, TransactionReceipt
from contracts.car import read_car
from contracts.cid import build
from contracts.history import History
from contracts.store import BlockStore
from runner.audit.carriage import export_store
from runner.audit.sources import _address_of
from runner.cli import app
from runner.store import RunStore
from tests.contracts.conftest import all_grades
from tests.runner.audit.conftest import Audits
from tests.runner.audit.support import task, told
from tests.runner.conftest import Qrun


def called(*args: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in args])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run's folder with a task on its chain, and three files in its store."""
    monkeypatch.setenv("QRUN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NO_COLOR", "1")
    path = tmp_path / "run"
    path.mkdir()
    with task(path / "chain.sqlite", 3, 2) as play:
        play.agree()
        play.round(1)
        play.round(2, {**all_grades(range(3)), 1: {0: 90, 2: 85}})
    store = BlockStore(path / "blocks")
    for data in (b"one", b"two", bytes(300_000)):
        store.put(data)
    return path


# -- chain ------------------------------------------------------------------------------------------------------------


def test_chain_show_tells_every_transaction(folder: Path) -> None:
    shown = called("chain", "show", folder)
    assert shown.exit_code == 0, shown.output
    lines = shown.stdout.splitlines()
    assert len(lines) == 2 + 1 + 6 + 2 * 10 + 1
    assert "opener" in lines[2]
    assert "opens the task: 'test' on 'stand-in' data, 3 nodes, 2 rounds" in lines[2]
    assert "registers as node 1" in lines[4]
    assert "the feature map is agreed; round 1 opens from the common start for nodes 0-2" in lines[8]
    assert "round 2: grades 0:90 2:85" in shown.stdout
    assert "round 2 is settled, strong, reputation 0:83 1:80 2:81.5; the task has ended" in lines[-2]
    told_ = json.loads(called("chain", "show", folder, "--json").stdout)
    assert [row["block"] for row in told_] == list(range(1, 28))
    assert {row["who"] for row in told_} == {"opener", "node 0", "node 1", "node 2"}
    assert all(row["gas"] > 21_000 and row["tx"].startswith("0x") for row in told_)


def test_chain_show_of_a_task_with_rollback_and_payment(tmp_path: Path) -> None:
    with task(tmp_path / "chain.sqlite", 3, 3, deposit=5, pool=100) as play:
        play.agree()
        play.round(1)
        play.submit(2, [0])
        for account in play.accounts[:2]:
            play.contract.rollback(account, 0)
        for round_ in (3,):
            play.round(round_)
        play.contract.withdraw(play.accounts[0])
        address = play.contract.address
    shown = called("chain", "show", address, "--chain", tmp_path / "chain.sqlite")
    assert "votes to go on from round 0" in shown.stdout
    assert "the task goes back to round 0; round 2 is void; round 3 opens from the common start" in shown.stdout
    assert "withdraws" in shown.stdout


def test_an_address_where_no_task_is_has_no_empty_log(folder: Path, tmp_path: Path) -> None:
    nobody = "0x" + "00" * 19 + "01"
    for command in (["show", nobody], ["export", nobody, tmp_path / "chain.json"]):
        done = called("chain", *command, "--chain", folder / "chain.sqlite")
        assert done.exit_code == 1
        assert done.stdout == ""
        assert f"at {nobody} on the chain" in " ".join(done.stderr.split())
    assert not (tmp_path / "chain.json").exists()


def test_a_state_that_computes_without_end_is_not_asked_for_the_contract(tmp_path: Path) -> None:
    state = sqlite3.connect(tmp_path / "state.sqlite")
    state.execute(
        "create view facts as with recursive r(k) as (select 1 union all select k + 1 from r) "
        "select 'contract' as key, k as value from r where k < 0"
    )
    state.close()
    begin = time.process_time()
    assert _address_of(tmp_path, None) is None
    assert time.process_time() - begin < 2


def test_the_contract_is_found_in_a_runs_state(tmp_path: Path) -> None:
    store = RunStore("run", tmp_path)
    store.put("contract", {"address": "0x" + "0b" * 20})
    assert _address_of(tmp_path, None) == "0x" + "0b" * 20
    store.close()
    assert _address_of(tmp_path, None) == "0x" + "0b" * 20


def test_chain_export_can_be_checked_with_any_library(folder: Path, tmp_path: Path) -> None:
    from eth_utils.crypto import keccak
    from trie import HexaryTrie

    file = tmp_path / "chain.json"
    assert called("chain", "export", folder, file).exit_code == 0
    body = json.loads(file.read_text())
    assert body["format"] == "qrun-chain/1"
    assert [t["function"] for t in body["transactions"][:2]] == [None, "register"]
    assert [e["name"] for e in body["transactions"][6]["events"]] == ["MapProposed", "MapAgreed", "RoundOpened"]
    settled = body["transactions"][-1]["events"][0]
    assert settled["arguments"]["reputation"] == [8300, 8000, 8150]
    parent = None
    for block in body["blocks"]:
        header = Header.read(bytes.fromhex(block["header"][2:]))
        assert "0x" + keccak(header.raw).hex() == block["hash"]
        assert parent is None or header.parent == parent
        parent = header.hash
        for name, root in (("transactions", header.transactions_root), ("receipts", header.receipts_root)):
            made = HexaryTrie({})
            for i, raw in enumerate(block[name]):
                made[rlp.encode(rlp.number(i))] = bytes.fromhex(raw[2:])
            assert made.root_hash == root
    sent = SignedTransaction.read(bytes.fromhex(body["transactions"][3]["raw"][2:]))
    assert "0x" + sent.sender.hex() == body["transactions"][3]["sender"].lower()
    last = TransactionReceipt.read(bytes.fromhex(body["blocks"][-1]["receipts"][0][2:]))
    assert last.ok
    again = called("chain", "export", folder, file)
    assert again.exit_code == 2
    assert "--force" in again.stderr
    assert called("chain", "export", folder, file, "--force", "--json").exit_code == 0


def test_what_a_hostile_task_calls_itself_steers_no_terminal(tmp_path: Path) -> None:
    with task(tmp_path / "chain.sqlite", 1, 1, experiment="\x1b[2Jgone", data_source="\x07") as play:
        address = play.contract.address
    shown = called("chain", "show", address, "--chain", tmp_path / "chain.sqlite")
    assert shown.exit_code == 0
    assert "\x1b" not in shown.stdout
    assert "\x07" not in shown.stdout


@pytest.mark.slow
def test_a_thousand_blocks_are_shown_in_under_two_seconds(tmp_path: Path, fresh: Qrun) -> None:
    with task(tmp_path / "chain.sqlite", 10, 32) as play:
        play.agree()
        for round_ in range(1, 33):
            play.round(round_)
        assert play.chain.head_number() > 1000
    best = 1e9
    for _ in range(3):
        begin = time.perf_counter()
        shown = fresh("chain", "show", str(tmp_path))
        best = min(best, time.perf_counter() - begin)
    assert shown.returncode == 0, shown.stderr
    assert len(shown.stdout.splitlines()) > 1000
    assert best < 2.0


# -- store ------------------------------------------------------------------------------------------------------------


def test_a_store_is_carried_in_one_file(folder: Path, tmp_path: Path) -> None:
    car = tmp_path / "run.car"
    said = json.loads(called("store", "export", folder, car, "--json").stdout)
    assert said == {"file": str(car), "files": 3, "blocks": 2 + 3}
    with car.open("rb") as file:
        parts = read_car(file)
        assert len(list(parts.blocks)) == 5
    done = called("store", "import", car, "--into", tmp_path / "new" / "blocks")
    assert done.exit_code == 0, done.output
    store = BlockStore(tmp_path / "new" / "blocks", read_only=True)
    for root in parts.roots:
        assert store.get(str(root), max_bytes=1 << 20) in (b"one", b"two", bytes(300_000))
    again = tmp_path / "again.car"
    export_store(str(tmp_path / "new" / "blocks"), again)
    assert again.read_bytes() == car.read_bytes()
    # Into a run, whose store it mends.
    next((folder / "blocks").glob("??/*")).unlink()
    (folder / "config.json").write_text("{}")
    assert called("store", "import", car, "--into", folder).exit_code == 0
    export_store(str(folder), again, force=True)
    assert again.read_bytes() == car.read_bytes()


def test_a_broken_car_file_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    car = tmp_path / "run.car"
    export_store(str(folder), car)
    data = bytearray(car.read_bytes())
    data[-1] ^= 1
    car.write_bytes(data)
    done = called("store", "import", car, "--into", tmp_path / "new" / "blocks")
    assert done.exit_code == 1
    assert "do not hash" in done.stderr
    assert not (tmp_path / "new").exists()


def test_a_car_file_without_all_blocks_says_so(tmp_path: Path) -> None:
    from contracts.car import write_car

    tree = list(build(bytes(i * i % 251 for i in range(600_000))))
    with (tmp_path / "part.car").open("wb") as file:
        write_car(file, [tree[-1][0]], tree[1:])
    done = called("store", "import", tmp_path / "part.car", "--into", tmp_path / "into")
    assert done.exit_code == 1
    assert "1 of 1 files" in done.stderr


def test_a_car_file_of_a_thousandfold_block_and_repeated_roots_is_read_in_its_own_time(tmp_path: Path) -> None:
    # 1 MiB that stands for 1 GiB, under hundreds of roots: each would take a second to put together.
    from contracts.car import write_car
    from contracts.cid import DAG_PB, RAW, _field, of_block

    leaf = bytes(1 << 20)
    link = _field(2, _field(1, of_block(RAW, leaf).binary))
    nodes = [link * 1000 + _field(1, b"\x08\x02" + _field(2, bytes([i]))) for i in range(100)]
    blocks = [(of_block(RAW, leaf), leaf), *((of_block(DAG_PB, node), node) for node in nodes)]
    with (tmp_path / "bomb.car").open("wb") as file:
        write_car(file, [cid for cid, _ in blocks[1:]] * 5, blocks)
    begin = time.process_time()
    done = called("store", "import", tmp_path / "bomb.car", "--into", tmp_path / "into", "--json")
    assert json.loads(done.stdout) == {"folder": str(tmp_path / "into"), "files": 100, "blocks": 101}
    again = called("store", "export", tmp_path / "into", tmp_path / "again.car", "--json")
    assert json.loads(again.stdout)["files"] == 100
    assert time.process_time() - begin < 15


def test_the_blocks_of_one_car_file_are_counted(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    car = tmp_path / "run.car"
    export_store(str(folder), car)
    monkeypatch.setattr("runner.audit.carriage.MAX_BLOCKS", 4)
    done = called("store", "import", car, "--into", tmp_path / "new" / "blocks")
    assert done.exit_code == 1
    assert "more than 4 blocks" in done.stderr
    assert not (tmp_path / "new").exists()


def test_a_new_folder_is_made_where_a_path_says_so(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    car = tmp_path / "run.car"
    export_store(str(folder), car)
    monkeypatch.chdir(tmp_path)
    refused = called("store", "import", car, "--into", "z")
    assert refused.exit_code == 2
    assert "say ./z" in " ".join(refused.stderr.split())
    assert called("store", "import", car, "--into", "./z").exit_code == 0
    assert called("store", "import", car, "--into", "y/").exit_code == 0
    for name in ("z", "y"):
        export_store(name, tmp_path / f"{name}.car")
        assert (tmp_path / f"{name}.car").read_bytes() == car.read_bytes()


def test_a_store_that_leads_elsewhere_empties_nothing(folder: Path, tmp_path: Path) -> None:
    car, victim = tmp_path / "run.car", tmp_path / "victim"
    export_store(str(folder), car)
    victim.mkdir()
    (victim / "thesis.txt").write_text("mine")
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "tmp").symlink_to(victim)
    done = called("store", "import", car, "--into", tmp_path / "theirs")
    assert done.exit_code == 1
    assert "symbolic link" in " ".join(done.stderr.split())
    assert [path.name for path in victim.iterdir()] == ["thesis.txt"]


def test_a_damaged_store_is_not_exported(folder: Path, tmp_path: Path) -> None:
    path = max((folder / "blocks").glob("??/*"), key=lambda p: p.stat().st_size)
    data = bytearray(path.read_bytes())
    data[7] ^= 1
    path.write_bytes(data)
    done = called("store", "export", folder, tmp_path / "run.car")
    assert done.exit_code == 1
    assert "damaged" in done.stderr
    assert list(tmp_path.glob("*.car")) == []
    assert list(tmp_path.glob(".run.car*")) == []


# -- wrong input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["verify", "no-such-run"], 2, "no run 'no-such-run'"),
        (["verify", "0x" + "1" * 40], 2, "--chain"),
        (["verify", "0x" + "1" * 40, "--chain", "http://127.0.0.1:9"], 2, "--ipfs"),
        (["verify", "{run}", "--node", "1"], 2, "--data"),
        (["verify", "{run}", "--data", "{run}/nowhere"], 2, "no such folder"),
        (["verify", "{run}", "--store", "{run}/nowhere"], 2, "no such folder"),
        (["verify", "{run}", "--ipfs", "nonsense"], 2, "--ipfs takes a URL"),
        (["verify", "{run}", "--node", "300"], 2, ""),
        (["chain", "show", "no-such-run"], 2, "no run"),
        (["chain", "show", "0x" + "1" * 40], 2, "--chain"),
        (["chain", "show", "{run}", "--chain", "{run}/nowhere.sqlite"], 1, "there is no chain"),
        (["chain", "show", "{run}", "--chain", "ftp://x"], 2, "http(s)"),
        (["chain", "export", "{run}", "{run}/no/such/folder.json"], 2, "no folder"),
        (["store", "export", "no-such-run", "{run}/x.car"], 2, "no run"),
        (["store", "export", "{run}", "{run}/chain.sqlite"], 2, "exists"),
        (["store", "import", "{run}/nowhere.car", "--into", "{run}/blocks"], 2, "cannot be read"),
        (["store", "import", "{run}/chain.sqlite", "--into", "{run}/blocks"], 1, "CAR"),
        (["store", "import", "{run}/chain.sqlite", "--into", "no-such-run"], 2, "no such run"),
    ],
)
def test_wrong_input_is_told_in_one_line(folder: Path, arguments: list[str], code: int, words: str) -> None:
    done = called(*(a.replace("{run}", str(folder)) for a in arguments))
    assert done.exit_code == code, done.output
    assert words in " ".join(done.stderr.split())
    assert "Traceback" not in done.output


def test_verify_prints_a_table_and_each_false_statement(folder: Path) -> None:
    done = called("verify", folder)
    assert done.exit_code == 1  # there is no config in this store
    out = " ".join(done.stdout.split())
    assert "settlements 16" in out
    assert "- the config's bytes are in the store, under the digest that the task was opened with: block" in out
    assert "statements are false" in out or "One statement is false" in out
    body = json.loads(called("verify", folder, "--json").stdout)
    assert body["format"] == "qrun-audit/1"
    assert body["sound"] is False
    assert body["not_checked"] == sum(check["verdict"] == "not checked" for check in body["checks"])
    assert {"id", "subject", "claim", "verdict", "reason", "where", "withheld"} == set(body["checks"][0])
    assert body["counts"]["settlements"]["holds"] == 16


# -- servers ----------------------------------------------------------------------------------------------------------


@pytest.mark.server
def test_a_task_behind_a_url_is_replayed(anvil: str) -> None:
    from eth_account import Account

    from contracts.chain import connect
    from contracts.history import read_chain
    from contracts.records import TaskSpec
    from contracts.rounds import FederatedRounds
    from tests.contracts.conftest import Bank, Play
    from tests.runner.audit.support import replayed

    with connect(anvil) as chain:
        opener, *accounts = [Account.create() for _ in range(4)]
        chain.fund([a.address for a in (opener, *accounts)], gas_each=30_000_000)
        spec = TaskSpec("test", b"c" * 32, "stand-in", 1, tuple(a.address for a in accounts))
        play = Play(Bank(chain, []), opener, accounts, spec, FederatedRounds.deploy(chain, opener, spec))
        play.agree()
        play.round(1)
        history: History = read_chain(chain, play.contract.address)
        assert sum(call.gas for call in history.calls) == play.contract.gas_used()
    findings, state = replayed(history)
    assert told(findings) == []
    assert findings.of("not checked") == []
    assert state is not None
    assert state.ended is False
    assert all(call.signed is not None for call in history.calls)  # every sender was recovered
    assert history.code_is_ours
    shown = called("chain", "show", play.contract.address, "--chain", anvil)
    assert "the task has ended" in shown.stdout
    assert "are not among them" in shown.stdout


@pytest.mark.slow
@pytest.mark.server
def test_a_run_on_real_servers_is_verified_from_its_address(
    anvil: str, ipfs_daemon: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verified: Audits
) -> None:
    import warnings

    import qrun

    monkeypatch.setenv("QRUN_HOME", str(tmp_path / "home"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result: dict[str, Any] = qrun.run(
            "nsl-kdd", out=tmp_path / "run", backend="ideal", qubits=3, reps=1, nodes=3, rounds=1, steps_per_epoch=3,
            chain=anvil, ipfs=ipfs_daemon,
        )  # fmt: skip
    found = verified(result["chain"]["contract"], chain=anvil, ipfs=ipfs_daemon)
    assert told(found.findings) == []
    assert found.findings.counts()["result"]["holds"] > 50
    assert {check.id for check in found.findings.of("not checked")} == {"metrics/all", "result/data"}
    assert told(verified(tmp_path / "run").findings) == []
