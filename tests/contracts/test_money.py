"""Deposits and rewards: what comes in goes out once, to whom the rules say, and to nobody else."""

from __future__ import annotations

import pytest

from contracts.build import load_artefact
from contracts.errors import ContractRevert
from contracts.packing import commitment
from contracts.records import Phase
from tests.contracts.conftest import METRICS, SIGNATURE, Bank, Play, all_grades, key, model, open_task, row, salt
from tests.contracts.puppet import Puppet, When


def funded(bank: Bank, nodes: int, *, pool: int, deposit: int, rounds: int = 2) -> Play:
    game = open_task(bank, nodes, rounds, pool=pool, deposit=deposit)
    game.agree()
    return game


def held(game: Play) -> int:
    return game.chain.balance(game.contract.address)


def test_rewards_go_by_reputation_over_the_rounds(bank: Bank) -> None:
    game = funded(bank, 3, pool=1000, deposit=50)
    assert game.contract.task.pool == 1000
    assert held(game) == 1150
    game.round(1, all_grades(range(3), n2=60))
    game.round(2, all_grades(range(3), n2=60))
    assert game.contract.phase() == Phase.ENDED
    owed = [game.contract.owed(a.address) for a in game.accounts]
    # 8000, 8000 and 6000 twice: 16000, 16000 and 12000 of 44000.
    assert owed == [50 + 363, 50 + 363, 50 + 272]
    assert game.contract.owed(game.opener.address) == 0
    for account, amount in zip(game.accounts, owed, strict=True):
        before, price_paid = game.chain.balance(account.address), held(game)
        receipt = game.contract.withdraw(account)
        assert held(game) == price_paid - amount
        cost = before + amount - game.chain.balance(account.address)
        assert 0 < cost <= receipt.gas_used * 10**10  # gas, and nothing else
        assert game.contract.owed(account.address) == 0
        with pytest.raises(ContractRevert, match="NothingOwed"):
            game.raw(account, "withdraw")
    assert held(game) == 1000 - 363 - 363 - 272  # what rounding down leaves
    with pytest.raises(ContractRevert, match="NothingOwed"):
        game.raw(game.opener, "withdraw")


def test_nothing_is_paid_before_the_end(bank: Bank) -> None:
    game = funded(bank, 2, pool=100, deposit=5)
    game.round(1)
    assert [game.contract.owed(a.address) for a in (game.opener, *game.accounts)] == [0, 0, 0]
    with pytest.raises(ContractRevert, match="NothingOwed"):
        game.raw(game.accounts[0], "withdraw")


def test_who_is_excluded_forfeits_deposit_and_rewards(bank: Bank) -> None:
    game = funded(bank, 4, pool=1000, deposit=200, rounds=3)
    bad = all_grades(range(4), n3=5)
    for round_ in (1, 2):
        game.round(round_, bad)
    three = all_grades(range(3))
    game.submit(3, range(3))
    game.grade(3, three)
    game.settle(3)
    # 200 of node 3 are shared with the pool: 1200 / 3.
    assert [game.contract.owed(a.address) for a in game.accounts] == [600, 600, 600, 0]
    with pytest.raises(ContractRevert, match="NothingOwed"):
        game.raw(game.accounts[3], "withdraw")
    for account in game.accounts[:3]:
        game.contract.withdraw(account)
    assert held(game) == 0


def test_where_nobody_earned_anything_the_opener_has_the_pool_back(bank: Bank) -> None:
    game = funded(bank, 2, pool=1000, deposit=7, rounds=1)
    game.wait_out("submit")
    game.settle(1)
    assert game.contract.owed(game.opener.address) == 1000
    game.contract.withdraw(game.opener)
    for account in game.accounts:
        game.contract.withdraw(account)
    assert held(game) == 0


def test_an_abandoned_task_returns_deposits_and_pays_what_was_earned(bank: Bank) -> None:
    game = funded(bank, 2, pool=1000, deposit=7, rounds=3)
    game.round(1)
    game.wait_out("submit", "commit", "reveal", "setup")
    game.contract.abandon(game.opener)
    assert [game.contract.owed(a.address) for a in game.accounts] == [507, 507]
    empty = open_task(bank, 2, pool=1000, deposit=7)
    empty.contract.register(empty.accounts[0], key(0))
    empty.wait(empty.spec.rules.setup_seconds + 1)
    empty.contract.abandon(empty.accounts[0])
    assert empty.contract.owed(empty.accounts[0].address) == 7
    assert empty.contract.owed(empty.accounts[1].address) == 0  # never registered, never paid
    assert empty.contract.owed(empty.opener.address) == 1000


def test_an_opener_who_plays_is_paid_for_both(bank: Bank) -> None:
    game = open_task(bank, 0, rounds=1, extra=1, min_nodes=2, pool=1000, deposit=7)
    game.accounts.append(game.opener)
    game.agree()
    game.wait_out("submit")
    game.settle(1)
    assert game.contract.owed(game.opener.address) == 1007
    game.contract.withdraw(game.opener)
    assert game.contract.owed(game.opener.address) == 0
    game.contract.withdraw(game.accounts[0])
    assert held(game) == 0


def with_puppet(bank: Bank) -> tuple[Play, Puppet]:
    """A task of two, one of them a contract, played to its end."""
    puppet = Puppet(bank.chain, bank.accounts(1)[0])
    honest = bank.accounts(1)[0]
    game = open_task(bank, 0, rounds=1, nodes=(honest.address, puppet.address), pool=1000, deposit=70)
    game.accounts = [honest]
    address, metrics = game.contract.address, 1 << 191
    game.contract.register(honest, key(0))
    puppet.call(game.function("register", key(1), bytes(32)), value=70)
    game.contract.agree_map(honest, b"m" * 32)
    puppet.call(game.function("agreeMap", b"m" * 32))
    game.contract.submit(honest, 1, model(1, 0), METRICS, signature=SIGNATURE)
    puppet.call(game.function("submit", 1, b"d" * 32, 0x55, metrics, 0, b"s" * 32))
    game.commit(1, {0: {1: 80}})
    theirs = row({0: 80}, 2)
    puppet.call(game.function("commit", 1, commitment(address, 1, 1, salt(1, 1), theirs)))
    game.reveal(1, {0: {1: 80}})
    puppet.call(game.function("reveal", 1, theirs, salt(1, 1)))
    game.settle(1)
    assert game.contract.owed(puppet.address) == 570
    return game, puppet


def test_coming_back_for_more_while_being_paid_brings_nothing(bank: Bank) -> None:
    game, puppet = with_puppet(bank)
    puppet.when_paid(When.REENTER)
    puppet.call(game.function("withdraw"))
    assert not puppet.got_in_again()
    assert game.chain.balance(puppet.address) == 570
    assert held(game) == 570  # of the other node
    game.contract.withdraw(game.accounts[0])
    assert held(game) == 0


@pytest.mark.parametrize("what", [When.REFUSE, When.REENTER_OR_FAIL])
def test_who_cannot_be_paid_harms_itself_only(bank: Bank, what: When) -> None:
    game, puppet = with_puppet(bank)
    puppet.when_paid(what)
    with pytest.raises(ContractRevert) as caught:
        puppet.call(game.function("withdraw"))
    assert (caught.value.name, caught.value.args_) == ("TransferFailed", {"account": puppet.address.lower()})
    game.contract.withdraw(game.accounts[0])
    assert game.contract.owed(puppet.address) == 570
    puppet.when_paid(When.TAKE)
    puppet.call(game.function("withdraw"))
    assert game.chain.balance(puppet.address) == 570


def test_money_that_is_not_asked_for_is_refused(bank: Bank) -> None:
    """No function but the constructor and `register` takes any, and there is no receive or fallback."""
    game = open_task(bank, 1)
    takes = {e["name"] for e in load_artefact()["abi"] if e["type"] == "function" and e["stateMutability"] == "payable"}
    assert takes == {"register"}
    assert not [e for e in load_artefact()["abi"] if e["type"] in ("receive", "fallback")]
    fields = {"to": game.contract.address, "value": 1, "gas": 100_000}
    with pytest.raises(ContractRevert):
        game.chain._transact(game.accounts[0], fields, ())
    assert held(game) == 0
