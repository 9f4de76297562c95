"""A deadline passes by itself, also behind a node that mines only what is sent to it."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from contracts.records import Phase
from tests.contracts.conftest import QUICK, Bank, open_task

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


def test_the_time_of_a_block(bank: Bank) -> None:
    number, _ = bank.chain.head()
    assert bank.chain.block_time(number) == int(bank.chain.w3.eth.get_block(number)["timestamp"])
    assert bank.chain.block_time(0) == bank.chain.block_time(0) <= bank.chain.block_time(number)
