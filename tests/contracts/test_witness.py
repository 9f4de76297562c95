"""A node behind a proxy that lies about a task: each lie is found; a node that tells the truth is believed."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account
from eth_utils.crypto import keccak

from contracts.chain import Chain, connect
from contracts.errors import LedgerError, LedgerUnreachable
from contracts.records import Phase
from contracts.witness import Inspection, Witness
from tests.contracts.conftest import QUICK, Bank, Play, model, open_task
from tests.contracts.fault_proxy import FaultProxy, fault_proxy
from tests.contracts.puppet import Puppet
from tests.servers import anvil_node

pytestmark = pytest.mark.server
GRADES = {0: {1: 80}, 1: {0: 70}}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with anvil_node(tmp_path_factory.mktemp("anvil")) as found:
        yield found


@pytest.fixture(scope="module")
def game(url: str) -> Iterator[Play]:
    """A whole task with money, between transactions of others; one of its transactions failed when it was mined."""
    with connect(url) as chain:
        bank = Bank(chain, [])
        found = open_task(bank, 2, rounds=1, deposit=9, pool=100)
        found.agree()
        found.submit(1)
        found.contract.announce(found.accounts[1], keccak(text="topic"), model(0, 1))
        failing = {"to": found.contract.address, "data": "0x" + keccak(text="withdraw()")[:4].hex(), "gas": 200_000}
        with pytest.raises(LedgerError, match="NothingOwed"):
            chain._transact(found.accounts[0], {**failing, "value": 0}, found.contract._contract.abi)
        chain.transfer(found.opener, found.accounts[1].address, 5)
        open_task(bank, 1).register()
        found.grade(1, GRADES)
        found.settle(1)
        for account in found.accounts:
            found.contract.withdraw(account)
        yield found


@pytest.fixture
def proxy(url: str) -> Iterator[FaultProxy]:
    with fault_proxy(url) as found:
        yield found


def inspect(proxy: FaultProxy, game: Play, *known: str) -> Inspection:
    with connect(proxy.url) as chain:
        return Witness(chain, game.contract.address).check(known)


def test_the_truth_is_believed(proxy: FaultProxy, game: Play) -> None:
    found = inspect(proxy, game, *(entry.tx for entry in game.contract.entries()))
    assert (found.differences, found.unchecked) == ((), ())
    assert found.transactions == len({entry.tx for entry in game.contract.entries()}) + 1  # one logged nothing
    assert proxy.count("eth_getProof") == 1
    assert (found.block, found.block_hash) == game.chain.head()
    found.require()


def test_the_truth_about_an_asynchronous_task_is_believed(tmp_path: Path) -> None:
    with anvil_node(tmp_path) as own, connect(own) as chain:
        game = open_task(Bank(chain, []), 3, rounds=2, rules=replace(QUICK, window_seconds=400, quorum=2))
        game.agree()
        witness = Witness(chain, game.contract.address)
        game.submit(1, [0, 1])
        game.wait(400)
        game.commit(1, {2: {0: 80, 1: 70}, 0: {1: 70}, 1: {0: 80}})
        game.reveal(1, {2: {0: 80, 1: 70}, 0: {1: 70}, 1: {0: 80}})
        game.contract.announce(game.accounts[2], keccak(text="topic"), model(0, 2))
        game.settle(1)
        game.wait(400)
        game.submit(2, [2])  # ends the window
        found = witness.check([entry.tx for entry in game.contract.entries()])
        assert (found.differences, found.unchecked) == ((), ())
        assert int.from_bytes(witness.view("phase"), "big") == Phase.COMMIT


def flip(text: str) -> str:
    """A hex text with its last digit changed."""
    return text[:-1] + ("0" if text[-1] != "0" else "1")


def of_view(name: str, change: Callable[[str], str]) -> Callable[[list[Any], Any], Any]:
    selector = "0x" + keccak(text=f"{name}()")[:4].hex()

    def lie(asked: list[Any], answer: Any) -> Any:
        return change(answer) if asked[0]["data"] == selector else answer

    return lie


def of_newest(asked: list[Any], answer: Any) -> Any:
    return flip(answer) if asked[1] == "latest" and len(answer) > 200 else answer


def of_log(change: Callable[[list[Any]], None]) -> Callable[[list[Any], Any], Any]:
    def lie(_: list[Any], answer: Any) -> Any:
        changed = copy.deepcopy(answer)
        if len(changed) > 3:
            change(changed)
        return changed

    return lie


def of_receipt(change: Callable[[dict[str, Any]], None]) -> Callable[[list[Any], Any], Any]:
    def lie(_: list[Any], answer: Any) -> Any:
        changed = copy.deepcopy(answer)
        if changed["logs"]:
            change(changed)
        return changed

    return lie


def of_block(change: Callable[[dict[str, Any]], None]) -> Callable[[list[Any], Any], Any]:
    def lie(asked: list[Any], answer: Any) -> Any:
        changed = copy.deepcopy(answer)
        if asked[1] and changed["transactions"] and int(changed["number"], 16) > 8:
            change(changed)
        return changed

    return lie


def reward(logs: list[Any]) -> None:
    logs[-1]["data"] = flip(logs[-1]["data"])


def strip(block: dict[str, Any]) -> None:
    block["transactions"] = []


def forge(block: dict[str, Any]) -> None:
    block["transactions"][0]["value"] = "0x63"


def rename(block: dict[str, Any]) -> None:
    block["transactions"][0]["from"] = "0x" + "11" * 20


RECEIPT = "eth_getTransactionReceipt"
LIES: dict[str, tuple[str, Callable[[list[Any], Any], Any], str]] = {
    "an answer": ("eth_call", of_view("state", flip), r"answers state\(\) with 0x.*executed again it is 0x"),
    "a failing answer": ("eth_call", of_view("nodes", lambda _: "0x"), r"answers nodes\(\) with 0x; executed"),
    "an answer about now": ("eth_call", of_newest, r"answers \w+\(\) with 0x"),
    "a receipt's status": (RECEIPT, of_receipt(lambda r: r.update(status="0x0")), "failed; executed"),
    "a receipt's block": (RECEIPT, of_receipt(lambda r: r.update(blockNumber="0x1")), "says block 1"),
    "a receipt's log": (RECEIPT, of_receipt(lambda r: reward(r["logs"])), "the receipt of the node"),
    "no receipt": ("eth_getTransactionReceipt", lambda *_: None, "has no receipt of transaction"),
    "a log": ("eth_getLogs", of_log(reward), "logged Withdrawn, and the log of the node tells it otherwise"),
    "a log left out": ("eth_getLogs", of_log(lambda logs: logs.pop(4)), "and the log of the node leaves it out"),
    "a log twice": ("eth_getLogs", of_log(lambda logs: logs.append(logs[-1])), "which did not log that"),
    "logs in another order": ("eth_getLogs", of_log(lambda logs: logs.reverse()), "in another order"),
    "a log of nothing": (
        "eth_getLogs",
        of_log(lambda logs: logs.append(logs[-1] | {"transactionHash": "0x" + "77" * 32})),
        "which is in none of its blocks",
    ),
    "a transaction left out": ("eth_getBlockByNumber", of_block(strip), "are not those of its header"),
    "a transaction forged": ("eth_getBlockByNumber", of_block(forge), "does not hash to that"),
    "a sender": ("eth_getBlockByNumber", of_block(rename), "as the sender of transaction"),
    "code": ("eth_getCode", lambda _, answer: flip(answer), "other code stands at"),
    "storage": ("eth_getStorageAt", lambda a, answer: flip(answer) if a[1] == "0x1" else answer, "slot 0x1 holds"),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_found(proxy: FaultProxy, game: Play, lie: str) -> None:
    method, change, sentence = LIES[lie]
    proxy.changes[method] = change
    found = inspect(proxy, game)
    assert any(re.search(sentence, one) for one in found.differences), found.differences
    with pytest.raises(LedgerError, match="lies about the task"):
        found.require()


def test_a_transaction_that_others_saw_is_missed(proxy: FaultProxy, game: Play) -> None:
    """The node tells a consistent story, in which the newest blocks are missing."""
    head = game.chain.head_number()
    last = game.contract.entries()[-1]

    def older(asked: list[Any], answer: Any) -> Any:
        with connect(str(proxy.upstream)) as behind:
            return behind.w3.provider.make_request("eth_getBlockByNumber", [hex(last.block - 1), asked[1]])["result"]

    proxy.changes["eth_getBlockByNumber"] = lambda a, r: older(a, r) if a[0] == "latest" else r
    blind = inspect(proxy, game)
    assert blind.block < head
    assert not [one for one in blind.differences if "latest" not in one and last.tx in one]
    found = inspect(proxy, game, last.tx)
    assert any(f"transaction {last.tx} is known to be mined" in one for one in found.differences)


def test_it_goes_on_with_what_is_new_and_begins_again_after_a_reorganisation(tmp_path: Path) -> None:
    with anvil_node(tmp_path) as own, fault_proxy(own) as proxy, connect(proxy.url) as chain:
        game = open_task(Bank(chain, []), 2)
        witness = Witness(chain, game.contract.address)
        assert witness.check().differences == ()
        assert (proxy.count("eth_getProof"), proxy.count("eth_getStorageAt")) == (1, 0)  # the root says it all
        game.agree()
        proxy.asked.clear()
        found = witness.check()
        assert (found.differences, found.transactions) == ((), 5)
        read = [parameters for method, parameters in proxy.asked if method == "eth_getBlockByNumber" and parameters[1]]
        assert len(read) == 4
        chain.w3.provider.make_request("anvil_reorg", [2, []])
        assert witness.check().transactions == 3
        game.submit(1)
        found = witness.check()
        assert (found.differences, found.transactions) == ((), 7)
        assert int.from_bytes(witness.view("openRound"), "big") == 1


def test_what_comes_through_another_contract_is_said_to_be_unchecked(tmp_path: Path) -> None:
    with anvil_node(tmp_path) as own, connect(own) as chain:
        bank = Bank(chain, [])
        (owner,) = bank.accounts(1)
        game = open_task(bank, 2, nodes=())
        puppet = Puppet(chain, owner)
        puppet.call(game.function("register", b"k" * 32, bytes(32)), 1)
        found = Witness(chain, game.contract.address).check()
        assert found.differences == ()
        assert len(found.unchecked) == 1
        assert puppet.address in found.unchecked[0]


def no_task(chain: Chain) -> None:
    Witness(chain, Account.create().address).check()


def test_where_there_is_no_task_it_is_said(proxy: FaultProxy, game: Play) -> None:
    with connect(proxy.url) as chain, pytest.raises(LedgerError, match="there is no task"):
        no_task(chain)


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("eth_getBlockByNumber", {"number": 7}),
        ("eth_getBlockByNumber", "0x"),
        ("eth_getBlockByNumber", {"number": "0x" + "f" * 200, "hash": "0x0"}),
        ("eth_call", "0x" + "ff" * 32),
        ("eth_call", 7),
        ("eth_getTransactionReceipt", {"status": "yes"}),
        ("eth_getProof", {"storageHash": 4}),
        ("eth_getLogs", [{"address": "0x"}]),
        ("eth_getCode", "0xzz"),
    ],
)
def test_nonsense_is_one_line(proxy: FaultProxy, game: Play, method: str, answer: Any) -> None:
    proxy.changes[method] = lambda *_: answer
    with pytest.raises(LedgerError) as caught:
        inspect(proxy, game)
    assert "\n" not in str(caught.value)
    assert not isinstance(caught.value, LedgerUnreachable)


def test_what_is_newer_than_the_block_read_is_looked_at_the_next_time(url: str, proxy: FaultProxy, game: Play) -> None:
    """What others changed while a peer compares is no lie; a lie is found once nothing is newer."""
    with connect(url) as other, connect(proxy.url) as chain:
        sent: list[str] = []

        def busy(asked: list[Any], answer: Any) -> Any:
            if asked[1] == "latest" and not sent:
                sent.append(other.transfer(game.opener, game.accounts[0].address, 1).tx)
            return of_newest(asked, answer)

        proxy.changes["eth_call"] = busy
        witness = Witness(chain, game.contract.address)
        assert witness.check().differences == ()
        assert any(re.search(r"answers \w+\(\) with 0x", one) for one in witness.check().differences)
