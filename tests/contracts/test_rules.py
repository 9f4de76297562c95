"""What the contract allows and refuses, on the embedded chain and on anvil. Every custom error is met."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from contracts.build import load_artefact
from contracts.cid import CHUNK, Cid, cid_of
from contracts.errors import ContractRevert
from contracts.metrics import unpack_metrics
from contracts.records import TaskSpec
from contracts.rounds import NO_GRADE, FederatedRounds
from tests.contracts.conftest import METRICS, Bank, Play, all_grades, key, model, open_task

RAW, WORD = 0x55, 1 << 191


def opened(count: int, rounds: int = 2, **changed: Any) -> Callable[[Bank], None]:
    def play(bank: Bank) -> None:
        opener, *accounts = bank.accounts(count + 1)
        addresses = tuple(a.address for a in accounts)
        fields = {
            "experiment": "x",
            "config_digest": b"c" * 32,
            "data_source": "official",
            "max_rounds": rounds,
            "nodes": addresses,
            **changed,
        }
        if callable(fields["nodes"]):
            fields["nodes"] = fields["nodes"](addresses)
        FederatedRounds.deploy(bank.chain, opener, TaskSpec(**fields))

    return play


def task(nodes: int, step: Callable[[Play], object], *, after: str = "open") -> Callable[[Bank], None]:
    """A task played until `after`, then the step that is refused."""

    def play(bank: Bank) -> None:
        game = open_task(bank, nodes)
        stages: dict[str, list[Callable[[], None]]] = {
            "open": [],
            "registered": [game.register],
            "agreed": [game.agree],
            "submitted": [game.agree, lambda: game.submit(1)],
            "graded": [game.agree, lambda: game.submit(1), lambda: game.grade(1, all_grades(nodes))],
        }
        for stage in stages[after]:
            stage()
        step(game)

    return play


def grades_of(*values: int) -> Callable[[Play], object]:
    return lambda g: g.raw(g.accounts[0], "grade", 1, bytes(values))


def stranger(function: str, *arguments: Any) -> Callable[[Play], object]:
    return lambda g: g.raw(g.opener, function, *arguments)


def first(function: str, *arguments: Any) -> Callable[[Play], object]:
    return lambda g: g.raw(g.accounts[0], function, *arguments)


D = b"d" * 32
Z = bytes(32)
REFUSED: list[tuple[str, Callable[[Bank], None], dict[str, object]]] = [
    ("BadNodeCount", opened(0), {"given": 0, "most": 50}),
    ("BadNodeCount", opened(1, nodes=tuple(f"0x{i:040x}" for i in range(1, 52))), {"given": 51, "most": 50}),
    ("BadNode", opened(2, nodes=lambda a: (a[0], "0x" + "00" * 20)), {"account": "0x" + "00" * 20}),
    ("BadNode", opened(1, nodes=lambda a: (a[0], a[0])), {}),
    ("NoRounds", opened(1, rounds=0), {}),
    ("EmptyDigest", opened(1, config_digest=Z), {}),
    ("NotAllowed", task(1, stranger("register", D)), {}),
    ("NotAllowed", task(1, stranger("agreeMap", D), after="registered"), {}),
    ("NotAllowed", task(1, stranger("submit", 1, D, RAW, WORD), after="agreed"), {}),
    ("NotAllowed", task(1, stranger("grade", 1, b"\xff"), after="submitted"), {}),
    ("NotAllowed", task(1, stranger("settle", 1), after="graded"), {}),
    ("EmptyKey", task(1, first("register", Z)), {}),
    ("AlreadyRegistered", task(1, first("register", D), after="registered"), {"node": 0}),
    ("NotRegistered", task(2, first("agreeMap", D)), {"node": 0}),
    ("NotRegistered", task(2, first("submit", 1, D, RAW, WORD)), {"node": 0}),
    ("NotRegistered", task(2, first("grade", 1, b"\xff\x00")), {"node": 0}),
    ("NotRegistered", task(2, first("settle", 1)), {"node": 0}),
    ("EmptyDigest", task(1, first("agreeMap", Z), after="registered"), {}),
    ("AlreadyProposed", task(1, first("agreeMap", D), after="agreed"), {"node": 0}),
    ("RoundNotOpen", task(1, first("submit", 1, D, RAW, WORD), after="registered"), {"round": 1, "open": 0}),
    ("RoundNotOpen", task(1, first("submit", 0, D, RAW, WORD), after="agreed"), {"round": 0, "open": 1}),
    ("RoundNotOpen", task(1, first("submit", 2, D, RAW, WORD), after="agreed"), {"round": 2, "open": 1}),
    ("RoundNotOpen", task(1, first("grade", 2, b"\xff"), after="submitted"), {"round": 2, "open": 1}),
    ("RoundNotOpen", task(1, first("settle", 2), after="graded"), {"round": 2, "open": 1}),
    ("EmptyDigest", task(1, first("submit", 1, Z, RAW, WORD), after="agreed"), {}),
    ("UnknownCodec", task(1, first("submit", 1, D, 0x71, WORD), after="agreed"), {"codec": 0x71}),
    ("AlreadySubmitted", task(1, first("submit", 1, D, RAW, WORD), after="submitted"), {"round": 1, "node": 0}),
    ("SubmissionsMissing", task(2, grades_of(255, 50), after="agreed"), {"round": 1, "have": 0, "want": 2}),
    ("BadGradesLength", task(2, grades_of(255), after="submitted"), {"given": 1, "want": 2}),
    ("BadGradesLength", task(2, grades_of(255, 1, 1), after="submitted"), {"given": 3, "want": 2}),
    ("BadGrade", task(2, grades_of(255, 101), after="submitted"), {"node": 1, "grade": 101}),
    ("BadGrade", task(2, grades_of(255, NO_GRADE), after="submitted"), {"node": 1, "grade": NO_GRADE}),
    ("BadGrade", task(2, grades_of(50, 50), after="submitted"), {"node": 0, "grade": 50}),
    ("AlreadyGraded", task(2, grades_of(255, 1), after="graded"), {"round": 1, "node": 0}),
    ("GradesMissing", task(2, first("settle", 1), after="submitted"), {"round": 1, "have": 0, "want": 2}),
]


@pytest.mark.parametrize(("name", "play", "arguments"), REFUSED, ids=[f"{i}-{r[0]}" for i, r in enumerate(REFUSED)])
def test_refused(bank: Bank, name: str, play: Callable[[Bank], None], arguments: dict[str, object]) -> None:
    with pytest.raises(ContractRevert) as caught:
        play(bank)
    assert caught.value.name == name
    assert {k: caught.value.args_[k] for k in arguments} == arguments


def test_every_custom_error_is_met_above() -> None:
    named = {entry["name"] for entry in load_artefact()["abi"] if entry["type"] == "error"}
    assert named == {name for name, _, _ in REFUSED}


def test_what_was_refused_cost_nothing(bank: Bank) -> None:
    game = open_task(bank, 1)
    before = game.chain.balance(game.accounts[0].address)
    with pytest.raises(ContractRevert):
        game.raw(game.accounts[0], "settle", 1)
    assert game.chain.balance(game.accounts[0].address) == before


def test_a_task_from_end_to_end(bank: Bank) -> None:
    game = open_task(bank, 3, rounds=2)
    contract = game.contract
    assert contract.task == game.spec
    assert contract.nodes() == []
    assert contract.map_digest() is None
    assert contract.open_round() == 0
    assert contract.reputation() == [0, 0, 0]
    game.agree()
    assert [(n.index, n.address, n.exchange_key) for n in contract.nodes()] == [
        (i, a.address, key(i)) for i, a in enumerate(game.accounts)
    ]
    assert contract.exchange_keys() == {i: key(i) for i in range(3)}
    assert contract.map_digest() == b"m" * 32
    for round_ in (1, 2):
        assert contract.open_round() == round_
        assert contract.submission(round_, 1) is None
        assert contract.submissions(round_) == []
        game.submit(round_)
        found = contract.submissions(round_)
        assert [s.cid for s in found] == [model(round_, i) for i in range(3)]
        assert found[1] == contract.submission(round_, 1)
        assert found[1].metrics == METRICS
        receipt = game.chain.receipt(found[1].tx)
        assert receipt is not None
        assert receipt.block == found[1].block
        grades = {0: {1: 10, 2: 100}, 1: {0: 90, 2: 0}, 2: {0: 70, 1: 30}}
        game.grade(round_, grades)
        assert contract.grades(round_) == grades
        contract.settle(game.accounts[2], round_)
        assert contract.settled_rounds() == round_
    # Round 1, all equal: lower medians 70, 10, 0. Round 2, weights 70, 10, 0: the heavier grader of each wins.
    assert contract.reputation_after(1) == [7000, 1000, 0]
    assert contract.reputation_after(2) == [(70 * 7000 + 30 * 9000) // 100, (70 * 1000 + 30 * 1000) // 100, 3000]
    assert contract.reputation() == contract.reputation_after(2)
    assert [n.reputation for n in contract.nodes()] == contract.reputation()
    assert contract.open_round() == 0
    with pytest.raises(ContractRevert, match="RoundNotOpen"):
        contract.submit(game.accounts[0], 3, model(3, 0), METRICS)


def test_storage_says_the_same_as_the_log(bank: Bank) -> None:
    game = open_task(bank, 2)
    game.agree()
    game.submit(1)
    game.grade(1, {0: {1: 33}, 1: {0: 44}})
    raw = game.chain.w3.eth.contract(address=game.contract.address, abi=load_artefact()["abi"])
    for i in range(2):
        digest, metrics, codec = game.chain.call(raw.functions.submission(1, i))
        found = game.contract.submission(1, i)
        assert found is not None
        assert found.cid == model(1, i)
        assert codec == RAW
        assert str(Cid(codec, bytes(digest))) == found.cid
        assert unpack_metrics(metrics) == METRICS
        assert bytes(game.chain.call(raw.functions.gradesOf(1, i))) == [b"\xff\x21", b"\x2c\xff"][i]
        assert game.chain.call(raw.functions.indexOf(game.accounts[i].address)) == i
    assert game.chain.call(raw.functions.roundState(1)) == (0b11, 0b11)
    with pytest.raises(ContractRevert, match="NotAllowed"):
        game.chain.call(raw.functions.indexOf(game.opener.address))


def test_a_larger_file_keeps_its_codec(bank: Bank) -> None:
    game = open_task(bank, 1)
    game.agree()
    cid = str(cid_of(bytes(CHUNK + 1)))
    game.contract.submit(game.accounts[0], 1, cid, METRICS)
    found = game.contract.submission(1, 0)
    assert found is not None
    assert found.cid == cid


@pytest.mark.parametrize(
    ("votes", "agreed_after"),
    [
        ("a", 1),
        ("ab", None),
        ("aa", 2),
        ("aba", None),
        ("aaa", 3),
        ("aabb", None),
        ("aaba", 4),
        ("aaab", 3),
        ("abbbb", 5),
    ],
)
def test_a_map_needs_more_than_two_thirds(bank: Bank, votes: str, agreed_after: int | None) -> None:
    game = open_task(bank, len(votes))
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


def test_no_round_opens_before_all_have_registered(bank: Bank) -> None:
    game = open_task(bank, 4)
    for i, account in enumerate(game.accounts[:3]):
        game.contract.register(account, key(i))
        game.contract.agree_map(account, b"m" * 32)
    assert game.contract.map_digest() == b"m" * 32
    assert game.contract.open_round() == 0
    game.contract.register(game.accounts[3], key(3))
    assert game.contract.open_round() == 1


@pytest.mark.slow
def test_fifty_nodes(bank: Bank) -> None:
    """The most that a task takes: grades fill several words, and a settlement fits a block with room."""
    game = open_task(bank, 50, rounds=1)
    game.agree()
    game.submit(1)
    grades = {i: {j: (i * 7 + j * 3) % 101 for j in range(50) if j != i} for i in range(50)}
    game.grade(1, grades)
    assert game.contract.grades(1) == grades
    receipt = game.contract.settle(game.accounts[0], 1)
    assert receipt.gas_used < 5_000_000
    expected = [100 * sorted(grades[i][j] for i in range(50) if i != j)[24] for j in range(50)]
    assert game.contract.reputation() == expected
