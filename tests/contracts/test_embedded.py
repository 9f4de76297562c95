"""The embedded chain: durable at any instant, one writer, time that goes forward."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from eth_account import Account

from contracts.chain import connect
from contracts.embedded import CHAIN_ID
from contracts.errors import LedgerBusy, LedgerError
from contracts.local_chain import LocalChain


def test_it_is_found_again_as_it_was_left(tmp_path: Path) -> None:
    account, other = Account.create(), Account.create()
    path = tmp_path / "deep" / "chain.sqlite"
    with connect(path, [account.address]) as chain:
        assert (chain.kind, chain.chain_id, chain.head_number()) == ("embedded", CHAIN_ID, 0)
        receipts = [chain.transfer(account, other.address, 5) for _ in range(3)]
        head = chain.head()
        times = [chain.w3.eth.get_block(n)["timestamp"] for n in range(4)]
    assert times == sorted(set(times))
    with connect(str(path), []) as chain:
        assert chain.head() == head == (3, head[1])
        assert [chain.receipt(r.tx) for r in receipts] == receipts
        assert chain.gas_of([r.tx for r in receipts]) == [21_000] * 3
        assert chain.balance(other.address) == 15
        assert chain.receipt("0x" + "ab" * 32) is None


def test_blocks_go_forward_in_time_though_the_clock_does_not(tmp_path: Path) -> None:
    account = Account.create()
    now = iter((2_000_000_000, 1_000, 2_000_000_000))
    with connect(tmp_path / "c", [account.address], clock=lambda: next(now)) as chain:
        for _ in range(3):
            chain.transfer(account, account.address, 1)
        times = [chain.w3.eth.get_block(n)["timestamp"] for n in range(1, 4)]
    assert times == [2_000_000_000, 2_000_000_001, 2_000_000_002]


def test_a_view_sees_the_time_before_a_block_does(tmp_path: Path) -> None:
    from contracts.records import Phase
    from tests.contracts.conftest import QUICK, Bank, open_task

    accounts, now = [Account.create() for _ in range(3)], [1_900_000_000.0]
    with connect(tmp_path / "c", [a.address for a in accounts], clock=lambda: now[0]) as chain:
        game = open_task(Bank(chain, accounts), 2)
        game.agree()
        head = chain.head()
        assert game.contract.phase() == Phase.SUBMIT
        now[0] = game.view("state")[0] + QUICK.submit_seconds - 1
        assert game.contract.phase() == Phase.SUBMIT
        now[0] += 1
        assert game.contract.phase() == Phase.SETTLE  # nobody has submitted: nothing to grade
        assert chain.head() == head
        game.settle(1)
        assert chain.w3.eth.get_block("latest")["timestamp"] == now[0]


def test_what_is_refused_leaves_the_chain_as_it_was(tmp_path: Path) -> None:
    from contracts.errors import ContractRevert
    from tests.contracts.conftest import Bank, open_task

    accounts = [Account.create() for _ in range(2)]
    path = tmp_path / "c"
    with connect(path, [a.address for a in accounts]) as chain:
        game = open_task(Bank(chain, accounts), 1)
        before = chain.head(), chain.balance(game.accounts[0].address), chain.nonce(game.accounts[0].address)
        for _ in range(3):
            with pytest.raises(ContractRevert, match="NotRegistered"):
                game.raw(game.accounts[0], "settle", 1, 32)
        with pytest.raises(ContractRevert, match="NotAllowed"):
            game.chain.call(game.function("indexOf", game.opener.address))
        assert (chain.head(), *before[1:]) == before
        game.register()
    with connect(path) as chain:
        assert chain.head_number() == before[0][0] + 1


@pytest.mark.parametrize("committed", [False, True])
def test_an_interrupt_on_either_side_of_the_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, committed: bool
) -> None:
    account = Account.create()
    with connect(tmp_path / "c", [account.address]) as chain:
        assert isinstance(chain, LocalChain)
        chain.transfer(account, account.address, 1)
        commit = chain.embedded.database.commit

        def interrupted() -> None:
            if committed:
                commit()
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(chain.embedded.database, "commit", interrupted)
            with pytest.raises(KeyboardInterrupt):
                chain.transfer(account, account.address, 1)
        assert chain.head_number() == chain.nonce(account.address) == 1 + committed
        chain.transfer(account, account.address, 1)
        head = chain.head()
    with connect(tmp_path / "c") as chain:
        assert chain.head() == head == (2 + committed, head[1])


def test_a_second_process_is_told_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "chain.sqlite"
    code = (
        "import sys; from contracts.chain import connect; from contracts.errors import LedgerBusy\n"
        "try: connect(sys.argv[1], [])\n"
        "except LedgerBusy as error: print(error); sys.exit(7)"
    )
    with connect(path, []):
        second = subprocess.run([sys.executable, "-c", code, f"{path}"], capture_output=True, text=True, check=False)
        assert second.returncode == 7, second.stderr
        assert "in use by another process" in second.stdout
        assert "--chain" in second.stdout
        with pytest.raises(LedgerBusy):
            connect(path, [])
    connect(path, []).close()


def test_a_file_that_is_no_chain(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database, but long enough to be looked at " * 50)
    with pytest.raises(LedgerError, match="no chain, or is damaged"):
        connect(path, [])
    (tmp_path / "folder").mkdir()
    with pytest.raises(LedgerError, match="cannot be opened"):
        connect(tmp_path / "folder", [])
    with pytest.raises(LedgerError, match="cannot be made"):
        connect(path / "below" / "chain.sqlite", [])


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path: Path) -> None:
    account = Account.create()
    path = tmp_path / "chain.sqlite"
    with connect(path, [account.address]) as chain:
        assert isinstance(chain, LocalChain)
        done = chain.transfer(account, account.address, 1)
        # SQLite refuses to grow beyond this, with the words that it has for a full disk.
        chain.embedded.database._sql.execute("pragma max_page_count=1")

        def fill() -> None:
            for _ in range(50):
                chain.transfer(account, Account.create().address, 1)

        with pytest.raises(LedgerError, match=r"disk is full.*Make room"):
            fill()
    with connect(path, []) as chain:
        assert chain.receipt(done.tx) == done
        chain.transfer(account, account.address, 1)


def test_other_accounts_have_no_money(tmp_path: Path) -> None:
    first, second = Account.create(), Account.create()
    with connect(tmp_path / "c", [first.address]) as chain:
        assert chain.fund([first.address]) == 0
        with pytest.raises(LedgerError, match="begun for other accounts"):
            chain.fund([first.address, second.address])
        with pytest.raises(LedgerError):
            chain.transfer(second, first.address, 1)
        assert chain.head_number() == 0


def test_logs_are_those_that_eth_tester_gives(tmp_path: Path) -> None:
    from tests.contracts.conftest import Bank, all_grades, open_task

    accounts = [Account.create() for _ in range(6)]
    with connect(tmp_path / "c", [a.address for a in accounts]) as chain:
        bank = Bank(chain, accounts)
        open_task(bank, 1).register()  # another contract, whose log is not asked for
        game = open_task(bank, 2)
        game.agree()
        game.round(1, all_grades(range(2)))
        head = chain.head_number()
        own = chain.logs(game.contract.address, 0, head)
        theirs = chain.w3.eth.get_logs({"address": game.contract.address, "fromBlock": 0, "toBlock": head})
        fields = ("address", "topics", "data", "blockNumber", "blockHash", "transactionHash", "logIndex")
        # Opened, registered, votes and their outcome, models, commitments, grades, settlement; two rounds opened.
        assert len(own) == 1 + 2 + 2 + 1 + 2 + 2 + 2 + 1 + 2
        assert [[log[f] for f in fields] for log in own] == [[log[f] for f in fields] for log in theirs]
        assert chain.logs(game.contract.address, own[3]["blockNumber"], own[3]["blockNumber"]) == own[3:4]


WRITER = """
import sys
from eth_account import Account
from contracts.chain import connect
account = Account.from_key(sys.argv[2])
with connect(sys.argv[1], [account.address]) as chain:
    while True:
        print(chain.transfer(account, account.address, 1).tx, flush=True)
"""


@pytest.mark.slow
def test_kills_lose_no_acknowledged_transaction(tmp_path: Path) -> None:
    account, path = Account.create(), tmp_path / "chain.sqlite"
    moments = random.Random(11)
    acknowledged: list[str] = []
    for _ in range(10):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), account.key.hex()],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        assert process.stdout is not None
        acknowledged.append(process.stdout.readline().strip())
        time.sleep(moments.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read().splitlines(keepends=True)
        acknowledged += [line.strip() for line in rest if line.endswith("\n")]
        process.wait()
        with connect(path, []) as chain:
            # At most the one that was under way is there without having been acknowledged.
            assert all(chain.receipt(tx) is not None for tx in acknowledged)
            assert chain.nonce(account.address) == chain.head_number()
    assert len(set(acknowledged)) == len(acknowledged) > 20


def test_a_kill_before_the_first_block_leaves_a_file_that_opens(tmp_path: Path) -> None:
    path = tmp_path / "chain.sqlite"
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom contracts import embedded\n"
        "embedded.SqliteDB.commit = lambda self: os._exit(9)\n"
        "embedded.open_embedded(Path(sys.argv[1]), [])"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert killed.returncode == 9
    account = Account.create()
    with connect(path, [account.address]) as chain:
        assert chain.head_number() == 0
        chain.transfer(account, account.address, 1)
