"""Every write may be repeated: what is on the chain is found again, and nothing is paid for twice."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account

from contracts.chain import Chain, connect
from contracts.cid import cid_of
from contracts.errors import ContentError, LedgerError
from contracts.event_log import EventLog
from contracts.records import Receipt
from contracts.rounds import FederatedRounds, address_of_contract, gas_budget
from tests.contracts.conftest import METRICS, SIGNATURE, Bank, Play, key, model, open_task, salt
from tests.servers import anvil_node

GRADES = {0: {1: 80}, 1: {0: 70}}
REPORT = str(cid_of(b"report"))


def played(bank: Bank) -> Play:
    """A whole task, in whose first settled round two votes to go back did not come about."""
    game = open_task(bank, 2, rounds=2, deposit=9, pool=100)
    game.agree()
    game.round(1, GRADES)
    game.contract.rollback(game.accounts[1], 0)
    game.round(2, GRADES)
    for account in game.accounts:
        game.contract.conclude(account, model(2, 9), REPORT)
        game.contract.withdraw(account)
    return game


WRITES: dict[str, Callable[[Play, FederatedRounds], Receipt]] = {
    "register": lambda g, c: c.register(g.accounts[0], key(0)),
    "agree_map": lambda g, c: c.agree_map(g.accounts[0], b"m" * 32),
    "submit": lambda g, c: c.submit(g.accounts[0], 1, model(1, 0), METRICS, signature=SIGNATURE),
    "commit": lambda g, c: c.commit(g.accounts[0], 1, GRADES[0], salt(1, 0)),
    "reveal": lambda g, c: c.reveal(g.accounts[0], 1, GRADES[0], salt(1, 0)),
    "settle": lambda g, c: c.settle(g.accounts[1], 1),
    "settle the last": lambda g, c: c.settle(g.accounts[1], 2),
    "conclude": lambda g, c: c.conclude(g.accounts[1], model(2, 9), REPORT),
    "abandon": lambda g, c: c.abandon(g.accounts[0]),
    "withdraw": lambda g, c: c.withdraw(g.accounts[0]),
}


def test_repeating_a_run_sends_nothing(bank: Bank) -> None:
    game = played(bank)
    sent, nonces = game.chain.gas_used, [game.chain.nonce(a.address) for a in (game.opener, *game.accounts)]
    fresh = FederatedRounds.deploy(game.chain, game.opener, game.spec)
    assert fresh.address == game.contract.address
    for contract in (game.contract, fresh):
        receipts = [write(game, contract) for write in WRITES.values()]
        # Nobody abandoned the task: its end came with the last settlement.
        assert len({r.tx for r in receipts}) == len(receipts) - 1
        assert all(game.chain.receipt(r.tx) == r for r in receipts)
    assert game.chain.gas_used == sent
    assert [game.chain.nonce(a.address) for a in (game.opener, *game.accounts)] == nonces
    assert contract.gas_used() == game.contract.gas_used()


def changed_submission(**changed: Any) -> Callable[[Play], Receipt]:
    sent = {"cid": model(1, 0), "metrics": METRICS, "signature": SIGNATURE, **changed}
    return lambda g: g.contract.submit(g.accounts[0], 1, **sent)


DIFFERENT: dict[str, Callable[[Play], Receipt]] = {
    "exchangeKey": lambda g: g.contract.register(g.accounts[0], b"other key".ljust(32)),
    "signingKey": lambda g: g.contract.register(g.accounts[0], key(0), b"q" * 32),
    "digest": lambda g: g.contract.agree_map(g.accounts[0], b"o" * 32),
    "another digest": changed_submission(cid=model(9, 9)),
    "metrics": changed_submission(metrics=METRICS | {"f1": 0.61}),
    "signature": changed_submission(signature=REPORT),
    "commitment": lambda g: g.contract.commit(g.accounts[0], 1, {1: 81}, salt(1, 0)),
    "another commitment": lambda g: g.contract.commit(g.accounts[0], 1, GRADES[0], salt(1, 1)),
    "grades": lambda g: g.contract.reveal(g.accounts[0], 1, {1: 81}, salt(1, 0)),
    "salt": lambda g: g.contract.reveal(g.accounts[0], 1, GRADES[0], salt(1, 1)),
    "model": lambda g: g.contract.conclude(g.accounts[0], model(1, 1), REPORT),
    "report": lambda g: g.contract.conclude(g.accounts[0], model(2, 9), model(1, 1)),
}


def test_another_content_is_refused(bank: Bank) -> None:
    game = played(bank)
    for what, write in DIFFERENT.items():
        with pytest.raises(LedgerError, match=f"on the chain already.*{what.split()[-1]}"):
            write(game)


def test_a_repeated_vote_is_found_while_it_holds(bank: Bank) -> None:
    game = open_task(bank, 3, rounds=3)
    game.agree()
    with pytest.raises(LedgerError, match="nothing to go back to"):
        game.contract.rollback(game.accounts[0], 0)
    game.round(1)
    first = game.contract.rollback(game.accounts[0], 0)
    assert game.contract.rollback(game.accounts[0], 0) == first
    game.round(2)
    again = game.contract.rollback(game.accounts[0], 0)
    assert again != first
    game.contract.rollback(game.accounts[1], 0)
    assert game.contract.base() == 0


def test_a_used_or_foreign_opener_is_refused(bank: Bank) -> None:
    game = open_task(bank, 1)
    with pytest.raises(LedgerError, match="another task"):
        FederatedRounds.deploy(bank.chain, game.opener, replace(game.spec, config_digest=b"x" * 32))
    for other in ({"max_rounds": 9}, {"deposit": 1}, {"pool": 1}, {"rules": replace(game.spec.rules, keep=69)}):
        with pytest.raises(LedgerError, match="another task"):
            FederatedRounds.deploy(bank.chain, game.opener, replace(game.spec, **other))  # type: ignore[arg-type]
    game.register()
    with pytest.raises(LedgerError, match="fresh one"):
        FederatedRounds.deploy(bank.chain, game.accounts[0], game.spec)


def test_attaching_to_what_is_not_there(bank: Bank) -> None:
    with pytest.raises(LedgerError, match="no contract at"):
        FederatedRounds.attach(bank.chain, Account.create().address)


def test_attaching_to_foreign_code(bank: Bank) -> None:
    (account,) = bank.accounts(1)
    # PUSH1 1, PUSH1 0, MSTORE8, PUSH1 1, PUSH1 0, RETURN: deploys the one byte of code 01.
    bank.chain._transact(account, {"data": "0x600160005360016000f3", "gas": 200_000, "value": 0}, ())
    address = address_of_contract(account.address, 0)
    assert bank.chain.code(address) == b"\x01"
    with pytest.raises(LedgerError, match="not this version's"):
        FederatedRounds.attach(bank.chain, address)


def test_a_stranger_and_wrong_arguments_are_told_before_anything_is_sent(bank: Bank) -> None:
    game = open_task(bank, 2)
    game.agree()
    before = game.chain.gas_used
    with pytest.raises(LedgerError, match="no node of the task"):
        game.contract.submit(game.opener, 1, model(1, 0), METRICS, signature=SIGNATURE)
    with pytest.raises(ContentError, match="not a CID"):
        game.contract.submit(game.accounts[0], 1, "bafy", METRICS, signature=SIGNATURE)
    with pytest.raises(ContentError, match="not a CID"):
        game.contract.submit(game.accounts[0], 1, model(1, 0), METRICS, signature="bafy")
    with pytest.raises(LedgerError, match="32 bytes"):
        game.contract.register(game.accounts[0], b"short")
    with pytest.raises(LedgerError, match=r"nodes are 0\.\.1"):
        game.contract.commit(game.accounts[0], 1, {2: 50}, salt(1, 0))
    with pytest.raises(LedgerError, match="grade -1"):
        game.contract.commit(game.accounts[0], 1, {1: -1}, salt(1, 0))
    with pytest.raises(LedgerError, match="grade 101"):
        game.contract.reveal(game.accounts[0], 1, {1: 101}, salt(1, 0))
    with pytest.raises(LedgerError, match="salt has 32 bytes"):
        game.contract.commit(game.accounts[0], 1, {1: 50}, b"short")
    with pytest.raises(LedgerError, match="not open yet"):
        game.contract.active(2)
    assert game.chain.gas_used == before


def test_a_map_may_be_named_by_its_cid(bank: Bank) -> None:
    from contracts.cid import CHUNK

    game = open_task(bank, 1)
    game.register()
    with pytest.raises(LedgerError, match="larger than one block"):
        game.contract.agree_map(game.accounts[0], str(cid_of(bytes(CHUNK + 1))))
    cid = cid_of(b"map")
    game.contract.agree_map(game.accounts[0], str(cid))
    assert game.contract.map_digest() == cid.digest


def test_the_budget_covers_what_is_used(bank: Bank) -> None:
    game = played(bank)
    assert game.contract.gas_used() < gas_budget(2, 2)
    receipts = {r.tx: r.gas_used for write in WRITES.values() if (r := write(game, game.contract))}
    assert sum(receipts.values()) < game.contract.gas_used()


class Lagging:
    """A node behind a URL whose log is one block behind the head that it tells, the first time it is asked."""

    kind = "json-rpc"

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self.asked = 0

    def head_number(self) -> int:
        return self._chain.head_number()

    def logs(self, address: str, first: int, last: int) -> list[Any]:
        self.asked += 1
        return self._chain.logs(address, first, last - 1 if self.asked == 1 else last)


def test_a_server_that_lags_behind_loses_no_event(embedded_bank: Bank) -> None:
    game = open_task(embedded_bank, 1)
    game.register()
    lagging = Lagging(game.chain)
    log = EventLog(lagging, game.contract._contract, game.chain.head_number() - 1)  # type: ignore[arg-type]
    assert log.find("NodeRegistered") is None
    assert log.find("NodeRegistered") is not None
    assert lagging.asked == 2


@pytest.mark.server
def test_a_transaction_left_pending_by_a_killed_process_is_found(tmp_path: Path) -> None:
    """The process died between sending and mining; the next one waits for it, and does not send again."""
    with anvil_node(tmp_path) as url, connect(url) as chain:
        bank = Bank(chain, [])
        game = open_task(bank, 1)
        chain.w3.provider.make_request("evm_setAutomine", [False])
        account = game.accounts[0]
        contract = game.contract._contract
        call = contract.functions.register(key(0), bytes(32))
        transaction = {
            "to": game.contract.address,
            "data": call.build_transaction({"from": account.address, "gas": 1, "gasPrice": 0, "chainId": 1})["data"],
            "gas": 300_000,
            "value": 0,
            "nonce": chain.nonce(account.address),
            "chainId": chain.chain_id,
            **chain.fees(),
        }
        tx = chain.w3.eth.send_raw_transaction(account.sign_transaction(transaction).raw_transaction)

        def mine() -> None:
            time.sleep(0.4)
            connect(url).w3.provider.make_request("evm_mine", [])

        miner = threading.Thread(target=mine)
        miner.start()
        receipt = game.contract.register(account, key(0))
        miner.join()
        assert receipt.tx == "0x" + bytes(tx).hex()
        assert chain.nonce(account.address) == 1
