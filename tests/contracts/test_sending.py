"""Transactions to a real node that loses answers, restarts, reorganises, and is shared: each is mined once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account
from eth_account.signers.local import LocalAccount

from contracts import provider, sending
from contracts.chain import Chain, SendPolicy, connect
from contracts.errors import AccountInUse, LedgerError, LedgerUnreachable
from tests.contracts.conftest import METRICS, SIGNATURE, Bank, model, open_task
from tests.contracts.fault_proxy import BODIES, FaultProxy, fault_proxy
from tests.servers import anvil_node

pytestmark = pytest.mark.server
QUICK = SendPolicy(unreachable_seconds=10.0, mined_seconds=20.0, replace_seconds=0.3)


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "LOOK_SECONDS", 0.1)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[str]:
    """A node of this test's own."""
    with anvil_node(tmp_path) as url:
        yield url


@pytest.fixture
def proxy(own: str) -> Iterator[FaultProxy]:
    with fault_proxy(own) as found:
        yield found


def ask(chain: Chain, method: str, *arguments: Any) -> Any:
    answer = chain.w3.provider.make_request(method, list(arguments))
    assert "error" not in answer, answer
    return answer["result"]


def rich(chain: Chain, count: int = 1) -> list[LocalAccount]:
    accounts = [Account.create() for _ in range(count)]
    for account in accounts:
        ask(chain, "anvil_setBalance", account.address, hex(10**20))
    return accounts


@contextmanager
def meanwhile(work: Callable[[], None]) -> Iterator[None]:
    """Something that goes on at the same time, and must have worked."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        thread.join(30)
    assert not thread.is_alive()
    assert not failed, failed


def until(ready: Callable[[], object]) -> None:
    end = time.monotonic() + 15
    while not ready():
        assert time.monotonic() < end
        time.sleep(0.02)


# -- answers that are lost or spoilt --------------------------------------------------------------------------------


def test_a_lost_answer_is_looked_up_before_anything_is_sent_again(proxy: FaultProxy) -> None:
    with connect(proxy.url, policy=QUICK) as chain:
        (account,) = rich(chain)
        to = Account.create().address
        proxy.spoil("eth_sendRawTransaction", "lost")
        receipt = chain.transfer(account, to, 7)
        assert (chain.balance(to), chain.nonce(account.address)) == (7, 1)
        assert proxy.count("eth_sendRawTransaction") == 1
        sent = next(i for i, (method, _) in enumerate(proxy.asked) if method == "eth_sendRawTransaction")
        assert proxy.asked[sent + 1] == ("eth_getTransactionByHash", [receipt.tx])


@pytest.mark.parametrize("fault", ["refused", "500", "503", *BODIES])
def test_what_did_not_arrive_is_sent_again_as_it_was(proxy: FaultProxy, fault: str) -> None:
    with connect(proxy.url, policy=QUICK) as chain:
        (account,) = rich(chain)
        to = Account.create().address
        proxy.spoil("eth_sendRawTransaction", fault)
        chain.transfer(account, to, 7)
        assert (chain.balance(to), chain.nonce(account.address)) == (7, 1)
        sent = [parameters for method, parameters in proxy.asked if method == "eth_sendRawTransaction"]
        assert len(sent) == 2
        assert sent[0] == sent[1]


def test_questions_are_asked_again(proxy: FaultProxy) -> None:
    with connect(proxy.url, policy=QUICK) as chain:
        (account,) = rich(chain)
        proxy.spoil("eth_getTransactionCount", "500", "lost", "html", "cut")
        proxy.spoil("eth_getTransactionReceipt", "lost", "list", "429")
        proxy.spoil("eth_gasPrice", "refused", "neither")
        to = Account.create().address
        chain.transfer(account, to, 7)
        assert (chain.balance(to), chain.nonce(account.address)) == (7, 1)
        assert proxy.count("eth_sendRawTransaction") == 1


def test_a_redirect_is_not_followed(proxy: FaultProxy) -> None:
    with connect(proxy.url, policy=SendPolicy(unreachable_seconds=0.0)) as chain:
        proxy.spoil("eth_blockNumber", "307")
        with pytest.raises(LedgerUnreachable, match="HTTP status 307"):
            chain.head_number()
        assert proxy.count("eth_blockNumber") == 1


def test_what_will_not_pass_is_told_at_once(proxy: FaultProxy) -> None:
    with connect(proxy.url, policy=QUICK) as chain:
        proxy.spoil("eth_blockNumber", "401")
        with pytest.raises(LedgerUnreachable, match="401"):
            chain.head_number()
        assert proxy.count("eth_blockNumber") == 1


def test_answers_are_bounded_in_size_and_time(proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    with connect(proxy.url, policy=SendPolicy(unreachable_seconds=0.0)) as chain:
        chain.w3.provider.answer_seconds = 1.0
        proxy.spoil("eth_blockNumber", "drip")
        began = time.monotonic()
        with pytest.raises(LedgerUnreachable):
            chain.head_number()
        assert time.monotonic() - began < 3
        monkeypatch.setattr(provider, "MOST_BYTES", 20)
        with pytest.raises(LedgerUnreachable):
            chain.head_number()


def test_money_from_the_node_comes_once(proxy: FaultProxy) -> None:
    to = [Account.create().address for _ in range(2)]
    with connect(proxy.url, policy=QUICK) as chain:
        payer = str(chain.w3.eth.accounts[0])
        proxy.spoil("eth_sendTransaction", "lost")
        receipt = chain.transfer_from_node(payer, to[0], 7)
        assert chain.receipt(receipt.tx) == receipt
        assert (chain.balance(to[0]), chain.nonce(payer)) == (7, 1)
        with pytest.raises(LedgerError):
            chain.transfer_from_node(Account.create().address, to[1], 7)  # the node does not sign for it
        assert chain.balance(to[1]) == 0


def test_several_processes_ask_one_node_for_money(own: str) -> None:
    wanted = [Account.create().address for _ in range(12)]

    def fetch(some: list[str]) -> Callable[[], None]:
        def work() -> None:
            with connect(own, policy=QUICK) as chain:
                chain.fund(some, gas_each=100_000)

        return work

    with ExitStack() as stack:
        for i in range(3):
            stack.enter_context(meanwhile(fetch(wanted[4 * i : 4 * i + 4])))
    with connect(own) as chain:
        assert all(chain.balance(address) > 0 for address in wanted)
        assert chain.nonce(str(chain.w3.eth.accounts[0])) == len(wanted)


# -- a node that restarts -------------------------------------------------------------------------------------------


def test_a_node_that_restarts_between_sending_and_mining(proxy: FaultProxy, tmp_path: Path) -> None:
    """What waits to be mined is lost with it; the chain is not."""
    (tmp_path / "again").mkdir()
    with connect(proxy.url, policy=QUICK) as chain, ExitStack() as stack:
        (account,) = rich(chain)
        to = Account.create().address
        chain.transfer(account, to, 7)
        ask(chain, "evm_setAutomine", False)

        def restart() -> None:
            until(lambda: proxy.count("eth_sendRawTransaction") == 2)
            with connect(str(proxy.upstream)) as behind:
                state = ask(behind, "anvil_dumpState")
            proxy.upstream = None
            url = stack.enter_context(anvil_node(tmp_path / "again"))
            with connect(url) as behind:
                ask(behind, "anvil_loadState", state)
            time.sleep(1)
            proxy.upstream = url

        with meanwhile(restart):
            chain.transfer(account, to, 7)
        assert (chain.balance(to), chain.nonce(account.address)) == (14, 2)
        assert len(chain.sender.sent_again) == 1
        first, second = [p for method, p in proxy.asked if method == "eth_sendRawTransaction"][1:]
        assert first == second


def test_a_node_that_lost_its_chain_is_told(proxy: FaultProxy, tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    with connect(proxy.url, policy=QUICK) as chain, anvil_node(tmp_path / "again") as fresh:
        (account,) = rich(chain)
        for _ in range(sending.REORG_BLOCKS + 2):
            chain.transfer(account, account.address, 1)
        proxy.upstream = fresh
        with pytest.raises(LedgerError, match="forgotten more"):
            chain.recheck()


# -- fees -----------------------------------------------------------------------------------------------------------


def congested(chain: Chain, blocks: int) -> bool:
    """Blocks go by that ask for more than anybody offered."""
    for _ in range(blocks):
        ask(chain, "anvil_setNextBlockBaseFeePerGas", hex(5 * 10**9))
        ask(chain, "evm_mine")
    time.sleep(0.1)
    return True


def test_one_that_nobody_mines_is_replaced_under_its_number(own: str) -> None:
    with connect(own, policy=QUICK) as chain, connect(own) as miner:
        (account,) = rich(chain)
        to = Account.create().address
        ask(miner, "evm_setAutomine", False)
        known: list[str] = []

        def mine() -> None:
            until(lambda: ask(miner, "txpool_status")["pending"] == "0x1")
            (waiting,) = ask(miner, "txpool_content")["pending"].values()
            known.append(waiting["0"]["hash"])
            until(lambda: congested(miner, 1) and chain.sender.replaced)
            ask(miner, "evm_mine")

        with meanwhile(mine):
            receipt = chain.transfer(account, to, 7)
        assert (chain.balance(to), chain.nonce(account.address)) == (7, 1)
        assert chain.sender.replaced >= 1
        assert receipt.tx != known[0]
        assert chain.receipt(known[0]) is None


@pytest.mark.parametrize(
    ("policy", "blocks", "why"),
    [
        (SendPolicy(mined_seconds=1.5, replace_seconds=0.1), 0, r"\."),
        (SendPolicy(mined_seconds=1.5, replace_seconds=0.1, most_fee=10**9), 6, ": .*less than block base fee"),
    ],
)
def test_without_blocks_or_beyond_the_limit_nothing_is_offered(
    own: str, policy: SendPolicy, blocks: int, why: str
) -> None:
    with connect(own, policy=policy) as chain, connect(own) as miner:
        (account,) = rich(chain)
        ask(miner, "evm_setAutomine", False)

        def mine() -> None:
            until(lambda: ask(miner, "txpool_status")["pending"] == "0x1")
            congested(miner, blocks)

        with meanwhile(mine), pytest.raises(LedgerError, match=f"is not on the chain after 2 s{why}"):
            chain.transfer(account, account.address, 1)
        assert chain.sender.replaced == 0


def test_a_policy_that_cannot_be_is_refused() -> None:
    for wrong in ({"confirmations": 0}, {"confirmations": 1001}, {"mined_seconds": -1.0}):
        with pytest.raises(LedgerError):
            SendPolicy(**wrong)


# -- several senders ------------------------------------------------------------------------------------------------


def test_processes_with_accounts_of_their_own_do_not_meet(own: str) -> None:
    with connect(own) as chain:
        accounts = rich(chain, 4)

    def send(account: LocalAccount) -> Callable[[], None]:
        def work() -> None:
            with connect(own, policy=QUICK) as mine:
                for _ in range(10):
                    mine.transfer(account, account.address, 1)
                assert mine.sender.sent_again == []

        return work

    with ExitStack() as stack:
        for account in accounts:
            stack.enter_context(meanwhile(send(account)))
    with connect(own) as chain:
        assert [chain.nonce(account.address) for account in accounts] == [10] * 4


def test_threads_share_an_account_of_one_process(own: str) -> None:
    with connect(own, policy=QUICK) as chain:
        (account,) = rich(chain)
        with ExitStack() as stack:
            for _ in range(3):
                stack.enter_context(meanwhile(lambda: [chain.transfer(account, account.address, 1) for _ in "123"]))  # type: ignore[arg-type]
        assert chain.nonce(account.address) == 9


def test_an_account_in_another_process_is_told_and_nothing_is_overwritten(
    own: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect(own, policy=QUICK) as first, connect(own, policy=QUICK) as second:
        (account,) = rich(first)
        one, two = Account.create().address, Account.create().address
        ask(second, "evm_setAutomine", False)
        # Both look before either sends.
        monkeypatch.setattr(second, "wait_for_pending", lambda address: None)

        def other() -> None:
            until(lambda: ask(second, "txpool_status")["pending"] == "0x1")
            with pytest.raises(AccountInUse, match=r"number 0 .*key of its own"):
                second.transfer(account, two, 8)
            ask(second, "evm_mine")

        with meanwhile(other):
            first.transfer(account, one, 7)
        assert (first.balance(one), first.balance(two), first.nonce(account.address)) == (7, 0, 1)


def test_one_that_was_overwritten_by_another_process_is_told(own: str) -> None:
    with connect(own, policy=QUICK) as first, connect(own) as second:
        (account,) = rich(first)
        one, two = Account.create().address, Account.create().address
        ask(second, "evm_setAutomine", False)

        def other() -> None:
            until(lambda: ask(second, "txpool_status")["pending"] == "0x1")
            fees = {name: 3 * value for name, value in second.fees().items()}
            fields = {"to": two, "value": 8, "gas": 21_000, "nonce": 0, "chainId": second.chain_id, **fees}
            second.w3.eth.send_raw_transaction(account.sign_transaction(fields).raw_transaction)
            ask(second, "evm_mine")

        with meanwhile(other), pytest.raises(AccountInUse):
            first.transfer(account, one, 7)
        assert (first.balance(one), first.balance(two), first.nonce(account.address)) == (0, 8, 1)


# -- reorganisations ------------------------------------------------------------------------------------------------


def test_what_a_reorganisation_takes_back_is_sent_again_as_it_was(own: str) -> None:
    with connect(own, policy=QUICK) as chain:
        one, two = rich(chain, 2)
        to = Account.create().address
        sent = [chain.transfer(account, to, 1).tx for account in (one, two, one, two, one)]
        assert chain.recheck() == []
        ask(chain, "anvil_reorg", 3, [])
        assert (chain.balance(to), [chain.receipt(tx) is None for tx in sent]) == (2, [False, False, True, True, True])
        last = chain.transfer(two, to, 1)
        assert chain.sender.sent_again == sent[2:]
        assert (chain.balance(to), chain.nonce(one.address), chain.nonce(two.address)) == (6, 3, 3)
        blocks = [chain.receipt(tx).block for tx in (*sent, last.tx)]  # type: ignore[union-attr]
        assert blocks == sorted(blocks)
        assert chain.recheck() == []


def test_what_is_in_the_new_blocks_is_not_sent_again(own: str) -> None:
    with connect(own, policy=QUICK) as chain:
        (account,) = rich(chain)
        to = Account.create().address
        ask(chain, "evm_mine")
        tx = chain.transfer(account, to, 1).tx
        raw = chain.sender._recent[-1].versions[tx]
        ask(chain, "anvil_reorg", 2, [["0x" + raw.hex(), 1]])
        until(lambda: chain.receipt(tx))
        assert chain.recheck() == []
        assert (chain.sender.sent_again, chain.balance(to), chain.nonce(account.address)) == ([], 1, 1)


def test_a_number_that_another_took_after_a_reorganisation_is_told(own: str) -> None:
    with connect(own, policy=QUICK) as chain, connect(own) as other:
        (account,) = rich(chain)
        to = Account.create().address
        chain.transfer(account, to, 1)
        ask(chain, "anvil_reorg", 1, [])
        other.transfer(account, account.address, 5)
        with pytest.raises(AccountInUse):
            chain.transfer(account, to, 1)
        assert (chain.balance(to), chain.nonce(account.address)) == (0, 1)


def test_confirmations_are_waited_for_across_a_reorganisation(own: str) -> None:
    careful = SendPolicy(confirmations=3, unreachable_seconds=5, mined_seconds=20)
    with connect(own, policy=careful) as chain, connect(own) as miner:
        (account,) = rich(chain)
        to = Account.create().address
        done = threading.Event()

        def mine() -> None:
            until(lambda: miner.balance(to) == 7)
            ask(miner, "evm_mine")
            assert not done.wait(0.3)
            ask(miner, "anvil_reorg", 2, [])
            until(lambda: chain.sender.sent_again)
            until(lambda: miner.balance(to) == 7)
            ask(miner, "evm_mine")
            assert not done.wait(0.3)
            ask(miner, "evm_mine")

        with meanwhile(mine):
            receipt = chain.transfer(account, to, 7)
            done.set()
        assert chain.head_number() == receipt.block + 2
        assert (chain.balance(to), chain.nonce(account.address)) == (7, 1)


def test_a_task_goes_on_after_a_reorganisation(own: str) -> None:
    """The contract's log forgets what the chain forgot, and knows it again where it stands now."""
    with connect(own, policy=QUICK) as chain:
        game = open_task(Bank(chain, []), 2)
        game.agree()
        game.contract.submit(game.accounts[0], 1, model(1, 0), METRICS, signature=SIGNATURE)
        before = [(e.name, e.block, e.index) for e in game.contract.entries()]
        ask(chain, "anvil_reorg", 2, [])
        ask(chain, "evm_mine")  # what comes back stands in other blocks
        assert len(game.contract.entries()) < len(before)
        assert game.contract.submission(1, 0) is None
        game.contract.submit(game.accounts[1], 1, model(1, 1), METRICS, signature=SIGNATURE)
        assert len(chain.sender.sent_again) == 2
        entries = [(e.name, e.block, e.index) for e in game.contract.entries()]
        assert [name for name, _, _ in entries] == [*(name for name, _, _ in before), "ModelSubmitted"]
        assert len(set(entries)) == len(entries)
        game.contract.submit(game.accounts[0], 1, model(1, 0), METRICS, signature=SIGNATURE)
        assert [chain.nonce(account.address) for account in game.accounts] == [3, 3]
        ask(chain, "anvil_reorg", 1, [])
        ask(chain, "evm_mine")
        receipt = game.contract.submit(game.accounts[1], 1, model(1, 1), METRICS, signature=SIGNATURE)
        assert (chain.receipt(receipt.tx), len(chain.sender.sent_again)) == (receipt, 3)
        game.grade(1, {0: {1: 80}, 1: {0: 70}})
        game.settle(1)
        assert game.contract.settled_rounds() == 1
