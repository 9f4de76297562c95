"""What the contract allows and refuses, on the embedded chain and on anvil. Every custom error is met."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from contracts.build import load_artefact
from contracts.cid import CHUNK, cid_of
from contracts.errors import ContractRevert
from contracts.records import Phase, TaskSpec
from contracts.rounds import FederatedRounds
from tests.contracts.conftest import METRICS, QUICK, SIGNATURE, Bank, Play, key, model, open_task, row, salt

RAW, WORD = 0x55, 1 << 191
D, Z = b"d" * 32, bytes(32)
MODEL = (D, RAW, WORD, 0, D)
STRANGER = "stranger"
NOBODY = "0x" + "00" * 20
GRADES = {0: {1: 70}, 1: {0: 60}}

Act = Callable[[Bank], object]


def opened(count: int, **changed: Any) -> Act:
    """Opening a task; `nodes`, `rules` and `terms` are functions of what they would be."""

    def play(bank: Bank) -> None:
        opener, *accounts = bank.accounts(count + 1)
        addresses = tuple(a.address for a in accounts)
        fields = {
            "experiment": "x",
            "config_digest": b"c" * 32,
            "data_source": "official",
            "max_rounds": 2,
            "nodes": addresses,
            "rules": QUICK,
            **changed,
        }
        if callable(fields["nodes"]):
            fields["nodes"] = fields["nodes"](addresses)
        FederatedRounds.deploy(bank.chain, opener, TaskSpec(**fields))

    return play


STAGES = ("open", "registered", "agreed", "submitted", "committed", "revealed", "settled", "ended")


def task(function: str, *arguments: Any, by: int | str = 0, after: str = "open", value: int = 0, **fields: Any) -> Act:
    """A task of two nodes played until `after`, then the call that is refused, made by a node or a stranger."""

    def play(bank: Bank) -> None:
        game = open_task(bank, 2, extra=1, **fields)
        played_until(game, after)
        account = game.accounts[2] if by == STRANGER else game.opener if by == "opener" else game.accounts[int(by)]
        game.raw(account, function, *arguments, value=value)

    return play


def played_until(game: Play, after: str) -> None:
    game.accounts, others = game.accounts[:2], game.accounts[2:]
    steps: list[Callable[[], object]] = [
        lambda: None,
        game.register,
        lambda: [game.contract.agree_map(a, b"m" * 32) for a in game.accounts],
        lambda: game.submit(1),
        lambda: game.commit(1, GRADES),
        lambda: game.reveal(1, GRADES),
        lambda: game.settle(1),
        lambda: game.round(2),
    ]
    for step in steps[: STAGES.index(after) + 1]:
        step()
    game.accounts += others


def half_committed(step: Callable[[Play], object]) -> Act:
    """Node 0 has committed and the others' time is over; then the step."""

    def play(bank: Bank) -> None:
        game = open_task(bank, 2)
        played_until(game, "submitted")
        game.commit(1, {0: GRADES[0]})
        game.wait(QUICK.submit_seconds + QUICK.commit_seconds)
        step(game)

    return play


def revealing(grades: bytes) -> Act:
    """Node 0 commits to these grades, node 1 to good ones; then node 0 reveals."""

    def play(bank: Bank) -> None:
        from contracts.packing import commitment

        game = open_task(bank, 2)
        played_until(game, "submitted")
        game.raw(game.accounts[0], "commit", 1, commitment(game.contract.address, 1, 0, salt(1, 0), grades))
        game.commit(1, {1: GRADES[1]})
        game.raw(game.accounts[0], "reveal", 1, grades, salt(1, 0))

    return play


def absent_then_submits(bank: Bank) -> None:
    """Node 1 missed the time to submit, and grades all the same."""
    game = open_task(bank, 3)
    game.agree()
    game.submit(1, [0, 2])
    game.wait(QUICK.submit_seconds)
    game.raw(game.accounts[1], "commit", 1, D)


def late_joiner_submits(bank: Bank) -> None:
    game = open_task(bank, 2, extra=1, nodes=(), min_nodes=2)
    played_until(game, "agreed")
    game.contract.register(game.accounts[2], key(2))
    game.raw(game.accounts[2], "submit", 1, *MODEL)


def twice(function: str, *arguments: Any, after: str) -> Act:
    def play(bank: Bank) -> None:
        game = open_task(bank, 3)
        game.agree()
        if after == "settled":
            game.round(1)
        else:
            game.round(1), game.round(2)
        game.raw(game.accounts[0], function, *arguments)
        game.raw(game.accounts[0], function, *arguments)

    return play


def rules(**changed: int) -> Any:
    return replace(QUICK, **changed)


SUBMIT_1 = {"round": 1, "open": 1, "phase": Phase.SUBMIT}
REFUSED: list[tuple[str, Act, dict[str, object]]] = [
    ("BadNodeCount", opened(1, min_nodes=1, nodes=tuple(f"0x{i:040x}" for i in range(1, 257))), {"given": 256}),
    ("BadNodeCount", opened(2, min_nodes=3), {"given": 2, "most": 255}),
    ("BadNode", opened(2, nodes=lambda a: (a[0], NOBODY)), {"account": NOBODY}),
    ("BadNode", opened(1, nodes=lambda a: (a[0], a[0])), {}),
    ("BadRounds", opened(1, max_rounds=0), {"given": 0, "most": 65_535}),
    ("BadRounds", opened(1, max_rounds=65_536), {"given": 65_536, "most": 65_535}),
    ("EmptyDigest", opened(1, config_digest=Z), {}),
    *[("BadRules", opened(1, rules=rules(**{name: 0})), {}) for name in ("submit_seconds", "commit_seconds")],
    *[("BadRules", opened(1, rules=rules(**{name: 0})), {}) for name in ("reveal_seconds", "setup_seconds")],
    *[("BadRules", opened(1, rules=rules(**{name: 0})), {}) for name in ("low_in_a_row", "hard_in_a_row")],
    *[("BadRules", opened(1, rules=rules(**{name: 101})), {}) for name in ("keep", "warn", "low_early", "low_late")],
    ("BadRules", opened(1, rules=rules(window_seconds=1001, quorum=1)), {}),
    ("BadRules", opened(1, rules=rules(window_seconds=10, quorum=0)), {}),
    # who may do what
    *[
        ("NotAllowed", task(name, *arguments, by=STRANGER, after=after), {})
        for name, arguments, after in [
            ("register", (D, Z), "open"),
            ("agreeMap", (D,), "registered"),
            ("submit", (1, *MODEL), "agreed"),
            ("commit", (1, D), "submitted"),
            ("reveal", (1, b"\xff\x00", D), "committed"),
            ("settle", (1, 32), "revealed"),
            ("rollback", (0,), "settled"),
            ("conclude", (D, D), "ended"),
            ("abandon", (), "open"),
            ("announce", (D, D, RAW), "open"),
        ]
    ],
    *[
        ("NotRegistered", task(name, *arguments), {"node": 0})
        for name, arguments in [
            ("agreeMap", (D,)), ("settle", (1, 32)), ("rollback", (0,)), ("conclude", (D, D)), ("abandon", ()),
            ("announce", (D, D, RAW)),
        ]
    ],
    *[
        ("NotActive", task(name, *arguments, after="registered"), {"node": 0})
        for name, arguments in [("submit", (1, *MODEL)), ("commit", (1, D)), ("reveal", (1, b"\xff\x00", D))]
    ],
    ("NotActive", late_joiner_submits, {"node": 2}),
    ("NotAllowed", task("settle", 1, 32, by="opener", after="revealed"), {}),
    # set-up
    ("EmptyKey", task("register", Z, Z), {}),
    ("AlreadyRegistered", task("register", D, Z, after="registered"), {"node": 0}),
    ("BadDeposit", opened(0), {"given": 0, "want": 1}),
    ("BadDeposit", task("register", D, Z, value=1), {"given": 1, "want": 0}),
    ("BadDeposit", task("register", D, Z, deposit=5), {"given": 0, "want": 5}),
    ("BadDeposit", task("register", D, Z, value=6, deposit=5), {"given": 6, "want": 5}),
    ("EmptyDigest", task("agreeMap", Z, after="registered"), {}),
    ("AlreadyProposed", task("agreeMap", D, after="agreed"), {"node": 0}),
    ("WrongPhase", task("register", D, Z, by=STRANGER, after="ended"), {"round": 0, "open": 0, "phase": Phase.ENDED}),
    ("EmptyDigest", task("announce", Z, D, RAW, after="registered"), {}),
    ("EmptyDigest", task("announce", D, Z, RAW, after="registered"), {}),
    ("UnknownCodec", task("announce", D, D, 0x71, after="registered"), {"codec": 0x71}),
    # a round
    ("WrongPhase", task("submit", 0, *MODEL, after="agreed"), SUBMIT_1 | {"round": 0}),
    ("WrongPhase", task("submit", 2, *MODEL, after="agreed"), SUBMIT_1 | {"round": 2}),
    ("WrongPhase", task("commit", 1, D, after="agreed"), SUBMIT_1),
    ("WrongPhase", task("reveal", 1, b"\xff\x00", D, after="agreed"), SUBMIT_1),
    ("WrongPhase", task("settle", 1, 32, after="agreed"), SUBMIT_1),
    ("WrongPhase", task("reveal", 1, b"\xff\x00", D, after="submitted"), {"phase": Phase.COMMIT}),
    ("WrongPhase", task("settle", 1, 32, after="committed"), {"phase": Phase.REVEAL}),
    ("WrongPhase", task("settle", 2, 32, after="revealed"), {"round": 2, "open": 1, "phase": Phase.SETTLE}),
    ("WrongPhase", task("settle", 1, 32, after="settled"), {"round": 1, "open": 2}),
    ("WrongPhase", task("submit", 3, *MODEL, after="ended"), {"round": 3, "open": 0, "phase": Phase.ENDED}),
    ("EmptyDigest", task("submit", 1, Z, *MODEL[1:], after="agreed"), {}),
    ("EmptyDigest", task("submit", 1, *MODEL[:4], Z, after="agreed"), {}),
    ("UnknownCodec", task("submit", 1, D, 0x71, *MODEL[2:], after="agreed"), {"codec": 0x71}),
    ("AlreadySubmitted", task("submit", 1, *MODEL, after="submitted"), {"round": 1, "node": 0}),
    ("EmptyDigest", task("commit", 1, Z, after="submitted"), {}),
    ("AlreadyCommitted", task("commit", 1, D, after="committed"), {"round": 1, "node": 0}),
    ("NotSubmitted", absent_then_submits, {"round": 1, "node": 1}),
    ("NotCommitted", half_committed(lambda g: g.reveal(1, {1: GRADES[1]})), {"round": 1, "node": 1}),
    ("WrongPhase", half_committed(lambda g: g.commit(1, {1: GRADES[1]})), {"phase": Phase.REVEAL}),
    ("BadGradesLength", revealing(b"\xff"), {"given": 1, "want": 2}),
    ("BadGradesLength", revealing(b"\xff\x01\x01"), {"given": 3, "want": 2}),
    ("BadGrade", revealing(b"\xff\x65"), {"node": 1, "grade": 101}),
    ("BadGrade", revealing(b"\xff\xff"), {"node": 1, "grade": 255}),
    ("BadGrade", revealing(b"\x32\x32"), {"node": 0, "grade": 50}),
    ("WrongReveal", task("reveal", 1, b"\xff\x47", salt(1, 0), after="committed"), {"round": 1, "node": 0}),
    ("WrongReveal", task("reveal", 1, b"\xff\x46", salt(1, 1), after="committed"), {"round": 1, "node": 0}),
    ("AlreadyRevealed", task("reveal", 1, b"\xff\x46", salt(1, 0), after="revealed"), {"round": 1, "node": 0}),
    # rollback and the end
    ("BadTarget", task("rollback", 0, after="submitted"), {"target": 0, "base": 0}),
    ("BadTarget", task("rollback", 1, after="settled"), {"target": 1, "base": 1}),
    ("BadTarget", task("rollback", 2, after="settled"), {"target": 2, "base": 1}),
    ("OnlySynchronous", task("rollback", 0, after="settled", rules=rules(window_seconds=1000, quorum=1)), {}),
    ("AlreadyVoted", twice("rollback", 0, after="settled"), {"target": 0, "node": 0}),
    ("WrongPhase", task("conclude", D, D, after="settled"), {"open": 2, "phase": Phase.SUBMIT}),
    ("EmptyDigest", task("conclude", Z, D, after="ended"), {}),
    ("EmptyDigest", task("conclude", D, Z, after="ended"), {}),
    ("AlreadyConcluded", twice("conclude", D, D, after="ended"), {"node": 0}),
    ("TooEarly", task("abandon", by="opener"), {}),
    ("TooEarly", task("abandon", after="revealed"), {}),
    ("WrongPhase", task("abandon", after="ended"), {"phase": Phase.ENDED}),
    ("NothingOwed", task("withdraw", after="agreed", pool=5), {}),
    ("NothingOwed", task("withdraw", by=STRANGER, after="ended", pool=5), {}),
    ("NothingOwed", twice("withdraw", after="ended"), {}),
]  # fmt: skip
MET_ELSEWHERE = {"TransferFailed"}  # test_money.py


@pytest.mark.parametrize(("name", "play", "arguments"), REFUSED, ids=[f"{i}-{r[0]}" for i, r in enumerate(REFUSED)])
def test_refused(bank: Bank, name: str, play: Act, arguments: dict[str, object]) -> None:
    with pytest.raises(ContractRevert) as caught:
        play(bank)
    assert caught.value.name == name
    assert {k: caught.value.args_[k] for k in arguments} == arguments


def test_every_custom_error_is_met_above() -> None:
    named = {entry["name"] for entry in load_artefact()["abi"] if entry["type"] == "error"}
    assert named == {name for name, _, _ in REFUSED} | MET_ELSEWHERE


def test_what_was_refused_cost_nothing_and_left_no_trace(bank: Bank) -> None:
    game = open_task(bank, 1)
    account = game.accounts[0]
    before = game.chain.balance(account.address), game.chain.nonce(account.address), game.chain.head()
    for _ in range(2):
        with pytest.raises(ContractRevert):
            game.raw(account, "settle", 1, 32)
    assert (game.chain.balance(account.address), game.chain.nonce(account.address), game.chain.head()) == before
    game.register()  # the chain goes on
    assert game.chain.nonce(account.address) == 1


def test_no_money_without_a_payable_function(bank: Bank) -> None:
    game = open_task(bank, 2)
    game.agree()
    with pytest.raises((ContractRevert, Exception), match=r"payable|Reverted|refused"):
        game.raw(game.accounts[0], "submit", 1, *MODEL, value=1)


def test_a_task_from_end_to_end(bank: Bank) -> None:
    game = open_task(bank, 3, rounds=2, min_nodes=3)
    contract = game.contract
    assert contract.task == game.spec
    assert contract.nodes() == []
    assert contract.map_digest() is None
    assert (contract.phase(), contract.open_round(), contract.rounds()) == (Phase.SETUP, 0, [])
    assert contract.reputation() == [0, 0, 0]
    game.agree()
    assert [(n.index, n.address, n.exchange_key, n.signing_key) for n in contract.nodes()] == [
        (i, a.address, key(i), None) for i, a in enumerate(game.accounts)
    ]
    assert contract.exchange_keys() == {i: key(i) for i in range(3)}
    assert contract.map_digest() == b"m" * 32
    for round_ in (1, 2):
        assert (contract.phase(), contract.open_round(), contract.base()) == (Phase.SUBMIT, round_, round_ - 1)
        assert contract.base_of(round_) == round_ - 1
        assert contract.active(round_) == {0, 1, 2}
        assert contract.submission(round_, 1) is None
        assert contract.submissions(round_) == []
        game.submit(round_)
        found = contract.submissions(round_)
        assert [s.cid for s in found] == [model(round_, i) for i in range(3)]
        assert found[1] == contract.submission(round_, 1)
        assert (found[1].metrics, found[1].signature) == (METRICS, SIGNATURE)
        receipt = game.chain.receipt(found[1].tx)
        assert receipt is not None
        assert receipt.block == found[1].block
        grades = {0: {1: 50, 2: 100}, 1: {0: 80, 2: 60}, 2: {0: 70, 1: 70}}
        assert contract.phase() == Phase.COMMIT
        game.commit(round_, grades)
        assert (contract.phase(), contract.grades(round_)) == (Phase.REVEAL, {})
        assert set(contract.commitments(round_)) == {0, 1, 2}
        game.reveal(round_, grades)
        assert contract.phase() == Phase.SETTLE
        assert contract.grades(round_) == grades
        assert contract.salts(round_) == {i: salt(round_, i) for i in range(3)}
        assert contract.settlement(round_) is None
        contract.settle(game.accounts[2], round_)
        assert contract.settled_rounds() == round_
    # Round 1, all equal: upper medians 80, 70, 100. Round 2, weighted by them: of two graders the one with more than
    # half of the weight wins.
    first, second = contract.settlement(1), contract.settlement(2)
    assert first is not None
    assert second is not None
    assert (first.scores, first.reputation, first.strong) == ((80, 70, 100), (8000, 7000, 10_000), True)
    assert second.scores == (70, 70, 100)
    assert second.reputation == ((70 * 8000 + 30 * 7000) // 100, 7000, 10_000)
    assert first.asymmetry == (30, 10, 10)
    assert contract.reputation() == list(second.reputation)
    assert [n.reputation for n in contract.nodes()] == contract.reputation()
    assert (contract.phase(), contract.open_round(), contract.base()) == (Phase.ENDED, 0, 2)
    assert contract.voided() == frozenset()
    for account in game.accounts:
        contract.conclude(account, b"f" * 32, b"r" * 32)
    assert contract.conclusions() == dict.fromkeys(range(3), (b"f" * 32, b"r" * 32))
    names = [entry.name for entry in contract.entries()]
    assert names.count("RoundOpened") == names.count("RoundSettled") == 2
    assert names[0] == "TaskOpened"


def test_what_is_stored_is_what_was_logged(bank: Bank) -> None:
    game = open_task(bank, 2)
    played_until(game, "settled")
    contract, (opener, nodes) = game.contract, (game.opener, game.view("nodes"))
    settled = contract.settlement(1)
    assert settled is not None
    assert [node[0] for node in nodes] == [a.address for a in game.accounts]
    assert [node[1] for node in nodes] == list(settled.reputation) == contract.reputation()
    assert [node[4] for node in nodes] == list(settled.reputation)  # credits after one round
    opening = [e for e in contract.entries() if e.name == "RoundOpened"][-1]
    stamp = game.chain.w3.eth.get_block(opening.block)["timestamp"]
    # opened, base, closed, settlements, nodes, and when the round opened, pages, ended, credits
    assert tuple(game.view("state")) == (stamp, 1, 1, 1, 2, 2, 0, False, sum(settled.reputation))
    assert tuple(game.view("sets")) == (0b11, 0, 0b11, 0, 0, 0)
    assert [game.view("counts", r) for r in (0, 1, 2)] == [True, True, False]
    assert tuple(game.view("rules")) == tuple(vars(game.spec.rules).values())
    assert game.view("opener") == opener.address
    assert [game.view("indexOf", a.address) for a in game.accounts] == [0, 1]
    with pytest.raises(ContractRevert, match="NotAllowed"):
        game.view("indexOf", opener.address)
    voted = [e for e in contract.entries() if e.name == "GradesRevealed"]
    assert [bytes(e.args["grades"]) for e in voted] == [row(GRADES[i], 2) for i in (0, 1)]


def test_a_larger_file_keeps_its_codec(bank: Bank) -> None:
    game = open_task(bank, 1)
    game.agree()
    cid = str(cid_of(bytes(CHUNK + 1)))
    took = {"seconds": 1.5, "circuits": 7.0, "shots": 1024.0, "qpu_seconds": 0.25}
    game.contract.submit(game.accounts[0], 1, cid, METRICS, signature=SIGNATURE, resources=took)
    found = game.contract.submission(1, 0)
    assert found is not None
    assert found.cid == cid
    assert found.resources == took


@pytest.mark.parametrize(
    ("votes", "agreed_after"),
    [("a", 1), ("ab", None), ("aa", 2), ("aba", None), ("aaa", 3), ("aabb", None), ("aaba", 4), ("abbbb", 5)],
)
def test_a_map_needs_more_than_two_thirds(embedded_bank: Bank, votes: str, agreed_after: int | None) -> None:
    game = open_task(embedded_bank, len(votes))
    game.register()
    first_agreed = None
    for count, (account, vote) in enumerate(zip(game.accounts, votes, strict=True), 1):
        game.contract.agree_map(account, vote.encode() * 32)
        if first_agreed is None and game.contract.map_digest() is not None:
            first_agreed = count
    assert first_agreed == agreed_after
    majority = max(set(votes), key=votes.count)
    assert game.contract.map_digest() == (majority.encode() * 32 if agreed_after else None)
    assert game.contract.open_round() == (1 if agreed_after else 0)


def test_no_round_opens_before_enough_have_registered(bank: Bank) -> None:
    game = open_task(bank, 4, min_nodes=3)
    for i, account in enumerate(game.accounts[:2]):
        game.contract.register(account, key(i))
        game.contract.agree_map(account, b"m" * 32)
    # Two of three is no more than two thirds of those that have to be there.
    assert game.contract.map_digest() is None
    game.contract.register(game.accounts[2], key(2))
    assert game.contract.open_round() == 0
    game.contract.agree_map(game.accounts[2], b"m" * 32)
    assert game.contract.open_round() == 1
    assert game.contract.active(1) == {0, 1, 2}
