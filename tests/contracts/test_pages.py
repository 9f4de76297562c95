"""Many nodes: grades fill several words, and a settlement takes several transactions."""

from __future__ import annotations

import pytest

from contracts.errors import ContractRevert
from contracts.reputation import Standing, settle
from tests.contracts.conftest import Bank, Play, open_task


def graded(bank: Bank, count: int) -> tuple[Play, dict[int, dict[int, int]], set[int]]:
    """A first round up to its settlement, in which every seventh does not submit, and every fifth hides its grades."""
    game = open_task(bank, count, rounds=1)
    game.agree()
    submitted = {i for i in range(count) if i % 7}
    revealed = {i for i in submitted if i % 5}
    game.submit(1, sorted(submitted))
    game.wait_out("submit")
    grades = {i: {j: (i * 31 + j * 17) % 60 + 40 for j in submitted - {i}} for i in sorted(revealed)}
    game.commit(1, grades)
    game.wait_out("submit", "commit")
    game.reveal(1, grades)
    return game, grades, submitted


@pytest.mark.slow
@pytest.mark.parametrize(("count", "most", "pages"), [(40, 32, 2), (70, 32, 3), (70, 64, 2), (70, 96, 1)])
def test_pages_settle_as_one(embedded_bank: Bank, count: int, most: int, pages: int) -> None:
    game, grades, submitted = graded(embedded_bank, count)
    rules = game.spec.rules
    expected = settle(rules, 1, [Standing()] * count, active=range(count), submitted=submitted, grades=grades)
    for page in range(pages):
        assert game.contract.settlement(1) is None
        assert tuple(game.view("state"))[6] == page * most // 32
        game.raw(game.accounts[page], "settle", 1, most)
    found = game.contract.settlement(1)
    assert found is not None
    assert (found.scores, found.asymmetry, found.strong) == (expected.scores, expected.asymmetry, expected.strong)
    assert found.reputation == tuple(s.reputation for s in expected.standings)
    assert (found.low, found.flagged, found.excluded) == (expected.low, expected.flagged, expected.excluded)
    with pytest.raises(ContractRevert, match="WrongPhase"):
        game.raw(game.accounts[0], "settle", 1, most)


@pytest.mark.slow
def test_the_client_settles_all_pages_wherever_they_were_left(embedded_bank: Bank) -> None:
    game, grades, submitted = graded(embedded_bank, 70)
    game.raw(game.accounts[3], "settle", 1, 32)
    receipt = game.contract.settle(game.accounts[0], 1, most=32)
    found = game.contract.settlement(1)
    assert found is not None
    assert receipt.tx == found.tx == game.contract.settle(game.accounts[1], 1).tx
    expected = settle(game.spec.rules, 1, [Standing()] * 70, active=range(70), submitted=submitted, grades=grades)
    assert found.scores == expected.scores


@pytest.mark.slow
def test_who_comes_between_pages_changes_nothing(embedded_bank: Bank) -> None:
    """A registration in the midst of a settlement neither grades nor is graded, nor makes the pages longer."""
    game = open_task(embedded_bank, 0, rounds=2, extra=34, min_nodes=33)
    joiner = game.accounts.pop()
    game.agree()
    game.submit(1)
    grades = {i: {j: 70 for j in range(33) if j != i} for i in range(33)}
    game.grade(1, grades)
    game.raw(game.accounts[0], "settle", 1, 32)
    game.contract.register(joiner, b"j" * 32)
    game.raw(game.accounts[0], "settle", 1, 32)
    found = game.contract.settlement(1)
    assert found is not None
    assert found.reputation == (7000,) * 33
    assert game.contract.active(2) == set(range(34))


@pytest.mark.slow
def test_the_256th_node_is_refused(embedded_bank: Bank) -> None:
    game = open_task(embedded_bank, 0, rounds=1, extra=256, min_nodes=255)
    for account in game.accounts[:255]:
        game.raw(account, "register", b"k" * 32, bytes(32), value=1)
    with pytest.raises(ContractRevert) as caught:
        game.raw(game.accounts[255], "register", b"k" * 32, bytes(32), value=1)
    assert (caught.value.name, caught.value.args_) == ("BadNodeCount", {"given": 256, "most": 255})
    # The last one is a node like any other.
    assert game.view("indexOf", game.accounts[254].address) == 254
    for account in game.accounts[84:255]:
        game.raw(account, "agreeMap", b"m" * 32)
    assert game.contract.open_round() == 1
    game.raw(game.accounts[254], "submit", 1, b"d" * 32, 0x55, 0, 0, b"s" * 32)
    assert game.view("sets")[3] == 1 << 254
