"""Who comes late, stays away, hides, copies, or goes back: tasks in which not everybody does what is expected."""

from __future__ import annotations

import pytest

from contracts.errors import ContractRevert, LedgerError
from contracts.packing import commitment
from contracts.records import Phase
from tests.contracts.conftest import METRICS, QUICK, SIGNATURE, Bank, Play, all_grades, key, model, open_task, row, salt

FOUR = range(4)


def begun(bank: Bank, nodes: int, rounds: int = 3) -> Play:
    game = open_task(bank, nodes, rounds)
    game.agree()
    return game


# -- who comes when ----------------------------------------------------------------------------------------------------


def test_registration_open_to_all_numbers_who_comes(bank: Bank) -> None:
    game = open_task(bank, 0, rounds=2, extra=4, min_nodes=2, deposit=10**12)
    contract = game.contract
    assert contract.task.nodes == ()
    first, second, late, never = game.accounts
    contract.register(second, key(0), b"q" * 32)
    assert contract.open_round() == 0
    contract.register(first, key(1))
    assert [(n.address, n.signing_key) for n in contract.nodes()] == [
        (second.address, b"q" * 32),
        (first.address, None),
    ]
    for account in (first, second):
        contract.agree_map(account, b"m" * 32)
    assert (contract.open_round(), contract.known_at(1)) == (1, 2)
    # Who comes now takes part from the next round on, and counts among those who choose nothing any more.
    contract.register(late, key(2))
    assert contract.active(1) == {0, 1}
    for i, account in enumerate((second, first)):
        contract.submit(account, 1, model(1, i), METRICS, signature=SIGNATURE)
    grades = {0: {1: 80}, 1: {0: 90}}
    for write in (contract.commit, contract.reveal):
        for i, account in enumerate((second, first)):
            write(account, 1, grades[i], salt(1, i))
    contract.settle(late, 1)  # any registered node may
    settled = contract.settlement(1)
    assert settled is not None
    assert settled.reputation == (9000, 8000)
    assert contract.active(2) == {0, 1, 2}
    assert contract.known_at(2) == 3
    assert contract.reputation() == [9000, 8000, 0]
    with pytest.raises(LedgerError, match="no node of the task"):
        contract.submit(never, 2, model(2, 3), METRICS, signature=SIGNATURE)


def test_who_comes_late_weighs_nothing_before_its_first_settlement(bank: Bank) -> None:
    game = open_task(bank, 4, rounds=3, min_nodes=2)
    early, late = game.accounts[:2], game.accounts[2:]
    for i, account in enumerate(early):
        game.contract.register(account, key(i))
        game.contract.agree_map(account, b"m" * 32)
    for i, account in enumerate(late, 2):
        game.contract.register(account, key(i))
    game.submit(1, [0, 1])
    assert game.contract.phase() == Phase.COMMIT  # all who are active have submitted
    with pytest.raises(ContractRevert, match="NotActive"):
        game.submit(1, [2])
    game.grade(1, {0: {1: 80}, 1: {0: 80}})
    game.settle(1)
    game.submit(2)
    # The two who came late praise each other and damn the others, who have all the weight.
    grades = {0: {1: 85, 2: 60, 3: 60}, 1: {0: 85, 2: 60, 3: 60}, 2: {0: 0, 1: 0, 3: 100}, 3: {0: 0, 1: 0, 2: 100}}
    game.grade(2, grades)
    game.settle(2)
    settled = game.contract.settlement(2)
    assert settled is not None
    assert settled.scores == (85, 85, 60, 60)
    # Grading without weight is not without consequence: their grades are apart from those that they got.
    assert (settled.asymmetry[2], settled.asymmetry[3]) == (60, 60)
    assert game.contract.reputation()[2:] == [0, 0]


def test_only_the_allow_list_may_register(bank: Bank) -> None:
    game = open_task(bank, 1, extra=1)
    with pytest.raises(LedgerError, match="no node of the task"):
        game.contract.register(game.accounts[1], key(1))
    with pytest.raises(ContractRevert, match="NotAllowed"):
        game.raw(game.accounts[1], "register", key(1), bytes(32))


# -- deadlines ---------------------------------------------------------------------------------------------------------


def test_who_misses_a_deadline_is_left_out_and_loses(bank: Bank) -> None:
    game = begun(bank, 4)
    game.round(1)
    contract = game.contract
    game.submit(2, [0, 1, 2])
    assert contract.phase() == Phase.SUBMIT
    game.wait_out("submit")
    assert contract.phase() == Phase.COMMIT  # seen without a new block
    with pytest.raises(ContractRevert, match="WrongPhase"):
        game.submit(2, [3])
    grades = all_grades([0, 1, 2])
    game.commit(2, {i: grades[i] for i in (0, 1)})
    game.wait_out("submit", "commit")
    assert contract.phase() == Phase.REVEAL
    with pytest.raises(ContractRevert, match="WrongPhase"):
        game.commit(2, {2: grades[2]})
    game.reveal(2, {0: grades[0]})
    game.wait_out("submit", "commit", "reveal")
    assert contract.phase() == Phase.SETTLE
    with pytest.raises(ContractRevert, match="WrongPhase"):
        game.reveal(2, {1: grades[1]})
    contract.settle(game.accounts[3], 2)
    # Node 0 did all; 1 hid its grades, 2 gave none, 3 was not there: to the reputation it is the same.
    settled = contract.settlement(2)
    assert settled is not None
    assert settled.scores == (None, 80, 80, None)  # nobody else revealed, so that nobody graded node 0
    assert settled.reputation == (8000, 5600, 5600, 5600)


def test_a_round_without_anybody_is_settled_and_the_next_one_opens(bank: Bank) -> None:
    game = begun(bank, 2, rounds=2)
    for round_ in (1, 2):
        game.wait_out("submit")
        assert game.contract.phase() == Phase.SETTLE
        game.settle(round_)
    assert game.contract.phase() == Phase.ENDED
    assert game.contract.reputation() == [0, 0]


def test_what_everybody_has_done_need_not_be_waited_for(bank: Bank) -> None:
    game = begun(bank, 2)
    began = game.bank.now()
    game.round(1)
    assert game.contract.open_round() == 2
    assert game.bank.now() - began < QUICK.submit_seconds


def test_a_task_that_nobody_carries_on_can_be_abandoned(bank: Bank) -> None:
    game = begun(bank, 2)
    game.submit(1)
    game.wait_out("submit", "commit", "reveal")
    with pytest.raises(ContractRevert, match="TooEarly"):
        game.contract.abandon(game.opener)
    game.wait_out("submit", "commit", "reveal", "setup")
    game.contract.abandon(game.accounts[1])
    assert game.contract.phase() == Phase.ENDED
    with pytest.raises(ContractRevert, match="WrongPhase"):
        game.settle(1)
    assert game.contract.conclusions() == {}
    game.contract.conclude(game.accounts[0], b"f" * 32, b"r" * 32)


# -- grades by commit and reveal ---------------------------------------------------------------------------------------


def test_a_copied_commitment_binds_its_copier_to_nothing(bank: Bank) -> None:
    game = begun(bank, 3)
    game.submit(1)
    grades = all_grades(range(3))
    game.commit(1, {0: grades[0], 2: grades[2]})
    theirs = game.contract.commitments(1)[0]
    game.raw(game.accounts[1], "commit", 1, theirs)
    game.reveal(1, {0: grades[0], 2: grades[2]})
    # Grades and salt of node 0 are public now; neither they nor any others open the copy.
    for given in (row(grades[0], 3), row(grades[1], 3)):
        with pytest.raises(ContractRevert, match="WrongReveal"):
            game.raw(game.accounts[1], "reveal", 1, given, salt(1, 0))
    game.wait_out("submit", "commit", "reveal")
    game.settle(1)
    settled = game.contract.settlement(1)
    assert settled is not None
    assert settled.asymmetry[1] is None
    assert settled.reputation[1] == 0


def test_a_commitment_holds_for_its_contract_round_and_grades(bank: Bank) -> None:
    game, other = begun(bank, 2), begun(bank, 2)
    game.submit(1)
    good = row({1: 70}, 2)
    ours, theirs = game.contract.address, other.contract.address
    wrong = [
        commitment(theirs, 1, 0, salt(1, 0), good),
        commitment(ours, 2, 0, salt(1, 0), good),
        commitment(ours, 1, 1, salt(1, 0), good),
    ]
    assert len({*wrong, commitment(ours, 1, 0, salt(1, 0), good)}) == 4
    game.raw(game.accounts[0], "commit", 1, wrong[0])
    game.commit(1, {1: {0: 60}})
    with pytest.raises(ContractRevert, match="WrongReveal"):
        game.raw(game.accounts[0], "reveal", 1, good, salt(1, 0))
    other.submit(1)
    other.grade(1, {0: {1: 70}, 1: {0: 60}})
    for changed in ({1: 71}, {1: 69}):
        with pytest.raises(LedgerError, match="another grades"):
            other.contract.reveal(other.accounts[0], 1, changed, salt(1, 0))


# -- rollback ----------------------------------------------------------------------------------------------------------


def test_two_thirds_of_the_reputation_go_back(bank: Bank) -> None:
    game = begun(bank, 4, rounds=5)
    contract = game.contract
    for round_ in (1, 2, 3):
        game.round(round_)
    # 80 each: two of four are half, three are more than two thirds.
    contract.rollback(game.accounts[0], 1)
    contract.rollback(game.accounts[1], 1)
    assert (contract.base(), contract.open_round()) == (3, 4)
    contract.rollback(game.accounts[2], 1)
    # Nobody had submitted to round 4: it opens again, from round 1.
    assert (contract.base(), contract.open_round(), contract.base_of(4)) == (1, 4, 1)
    assert (contract.counted(), contract.voided()) == ([1], {2, 3})
    assert [game.view("counts", r) for r in FOUR] == [True, True, False, False]
    game.round(4)
    assert (contract.base(), contract.counted(), contract.voided()) == (4, [1, 4], {2, 3})
    with pytest.raises(ContractRevert, match="BadTarget"):
        contract.rollback(game.accounts[0], 2)  # void already
    with pytest.raises(ContractRevert, match="BadTarget"):
        contract.rollback(game.accounts[0], 4)  # nothing to go back over
    game.round(5)
    assert contract.phase() == Phase.ENDED
    # After the end too: what counts is then an earlier round.
    for account in game.accounts[:3]:
        contract.rollback(account, 1)
    assert (contract.base(), contract.voided()) == (1, {2, 3, 4, 5})


def test_a_round_with_submissions_is_spent(bank: Bank) -> None:
    game = begun(bank, 3, rounds=3)
    contract = game.contract
    game.round(1)
    game.submit(2, [0])
    for account in game.accounts[:2]:
        contract.rollback(account, 1)  # void the open round, and go on from where it began
    assert (contract.base(), contract.open_round(), contract.base_of(3)) == (1, 3, 1)
    assert contract.voided() == {2}
    with pytest.raises(ContractRevert, match="WrongPhase"):
        game.submit(2, [1])
    game.submit(3)
    for account in game.accounts[:2]:
        contract.rollback(account, 0)
    # Round 3 was the last one.
    assert (contract.phase(), contract.base(), contract.voided()) == (Phase.ENDED, 0, {1, 2, 3})


def test_votes_do_not_outlast_the_round_and_follow_reputation(bank: Bank) -> None:
    game = begun(bank, 4, rounds=4)
    contract = game.contract
    game.round(1)
    contract.rollback(game.accounts[0], 0)
    contract.rollback(game.accounts[1], 0)
    game.round(2)
    contract.rollback(game.accounts[2], 0)  # would be the third
    assert contract.base() == 2
    game.round(3, all_grades(FOUR, n3=5))
    game.submit(4, [0])
    # 0 to 2 hold nearly all; node 3 has lost, and its vote does not make up for one of them.
    shares = contract.reputation()
    assert shares[3] < shares[0]
    contract.rollback(game.accounts[3], 0)
    contract.rollback(game.accounts[0], 0)
    yes, total = shares[0] + shares[3], sum(shares)
    assert 3 * yes < 2 * total
    assert contract.base() == 3
    contract.rollback(game.accounts[1], 0)
    assert contract.base() == 0


def test_who_is_excluded_has_no_vote(bank: Bank) -> None:
    game = begun(bank, 4, rounds=4)
    bad = all_grades(FOUR, n3=5)
    game.round(1, bad)
    game.round(2, bad)
    assert [n.excluded for n in game.contract.nodes()] == [False, False, False, True]
    with pytest.raises(ContractRevert, match="NotActive"):
        game.contract.rollback(game.accounts[3], 1)
    with pytest.raises(ContractRevert, match="NotActive"):
        game.submit(3, [3])
    game.contract.rollback(game.accounts[0], 1)
    game.contract.rollback(game.accounts[1], 1)  # two of the three that are left
    assert game.contract.base() == 1
    # What the exclusion said stays said.
    assert game.contract.active(3) == {0, 1, 2}
