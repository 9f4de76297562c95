"""A deadline passes by itself, also behind a node that mines only what is sent to it."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from contracts.chain import connect
from contracts.records import Phase
from contracts.rounds import FederatedRounds
from tests.contracts.conftest import QUICK, Bank, open_task
from tests.contracts.fault_proxy import fault_proxy
from tests.servers import anvil_node

SECONDS = 3


@pytest.mark.server
def test_a_deadline_passes_where_no_block_is_mined(anvil_bank: Bank) -> None:
    """anvil without --block-time: its last block's time stands still, and so would every view at it."""
    game = open_task(anvil_bank, 3, rules=replace(QUICK, submit_seconds=SECONDS))
    game.agree()
    game.submit(1, [0, 1])
    head = anvil_bank.chain.head()
    assert game.contract.phase() == Phase.SUBMIT
    time.sleep(SECONDS + 1)
    assert game.contract.phase() == Phase.COMMIT
    assert (anvil_bank.chain.head(), Phase(game.view("phase"))) == (head, Phase.SUBMIT)
    # What is due only now can be sent, and is mined.
    game.commit(1, {0: {1: 80}, 1: {0: 80}})
    assert game.contract.phase() == Phase.REVEAL


@pytest.mark.server
@pytest.mark.parametrize("pending", [None, {"number": None, "timestamp": None}])
def test_a_node_that_makes_up_no_block_is_asked_about_its_last(
    anvil: str, anvil_bank: Bank, pending: dict[str, None] | None
) -> None:
    game = open_task(anvil_bank, 2)
    game.agree()
    with fault_proxy(anvil) as proxy, connect(proxy.url) as chain:
        proxy.changes["eth_getBlockByNumber"] = lambda asked, found: pending if asked[0] == "pending" else found
        assert chain.pending_time() is None
        contract = FederatedRounds.attach(chain, game.contract.address)
        assert contract.phase() == Phase.SUBMIT
        game.wait(QUICK.submit_seconds)  # which mines a block
        assert contract.phase() == Phase.SETTLE


@pytest.mark.server
def test_what_is_not_mined_yet_moves_no_phase(tmp_path: Path) -> None:
    """Whoever graded by a submission that never comes would be bound to grades that it cannot reveal."""
    with anvil_node(tmp_path) as url, connect(url) as chain:
        game = open_task(Bank(chain, []), 2)
        game.agree()
        game.submit(1, [0])
        make_request = chain.w3.provider.make_request
        make_request("evm_setAutomine", [False])
        last = game.function("submit", 1, b"d" * 32, 0x55, 0, 0, b"s" * 32).build_transaction(
            {"from": game.accounts[1].address, "nonce": chain.nonce(game.accounts[1].address), "gas": 200_000,
             "maxFeePerGas": 10**10, "maxPriorityFeePerGas": 1, "chainId": chain.chain_id},
        )  # fmt: skip
        chain.w3.eth.send_raw_transaction(game.accounts[1].sign_transaction(last).raw_transaction)
        assert chain.w3.eth.get_transaction_count(game.accounts[1].address, "pending") == 3
        assert game.contract.phase() == Phase.SUBMIT
        make_request("evm_mine", [])
        assert game.contract.phase() == Phase.COMMIT


@pytest.mark.server
def test_the_time_of_an_old_block_is_asked_for_once(anvil: str, anvil_bank: Bank) -> None:
    anvil_bank.chain.w3.provider.make_request("anvil_mine", [hex(80)])
    with fault_proxy(anvil) as proxy, connect(proxy.url) as chain:
        head = chain.head_number()
        for number, asked in ((1, 1), (head, 2)):
            before = proxy.count("eth_getBlockByNumber")
            assert chain.block_time(number) == chain.block_time(number)
            assert proxy.count("eth_getBlockByNumber") - before == asked


def test_the_time_of_a_block(bank: Bank) -> None:
    number, _ = bank.chain.head()
    assert bank.chain.block_time(number) == int(bank.chain.w3.eth.get_block(number)["timestamp"])
    assert bank.chain.block_time(0) == bank.chain.block_time(0) <= bank.chain.block_time(number)
