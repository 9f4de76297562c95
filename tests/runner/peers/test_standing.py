"""Where a task stands: deadlines in the chain's time, and what each node has done."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.records import Phase
from contracts.rounds import FederatedRounds
from runner.config import RunConfig
from runner.options import config_from
from runner.peers import standing
from runner.peers.clock import block_time, chain_time, in_words, until
from runner.peers.settling import settle_due, why_nothing
from runner.peers.standing import deadlines, describe_task, schedule_of
from runner.peers.task import Task, join_task
from tests.contracts.conftest import METRICS, SIGNATURE, all_grades, model, salt
from tests.runner.peers.conftest import ACCOUNTS, KEYS, OPENER, World

SECONDS = {"submit_seconds": 1000, "commit_seconds": 200, "reveal_seconds": 300, "setup_seconds": 4000}


@pytest.fixture
def begun(world: World) -> Task:
    """A task of three whose first round is open."""
    config = config_from("nsl-kdd", {"backend": "ideal", "nodes": 3, "rounds": 2, "federation": SECONDS})
    task = world.open(config)
    for account, keys in zip(ACCOUNTS[:3], KEYS[:3], strict=True):
        join_task(task, account, keys)
    for account in ACCOUNTS[:3]:
        task.contract.agree_map(account, b"m" * 32)
    return task


def submit(contract: FederatedRounds, *nodes: int) -> None:
    for i in nodes:
        contract.submit(ACCOUNTS[i], 1, model(1, i), METRICS, signature=SIGNATURE)


def test_deadlines_are_those_that_the_contract_holds(world: World, begun: Task) -> None:
    contract = begun.contract
    ends = deadlines(contract, begun.spec.rules)
    assert ends["submit"] is not None
    assert [ends[name] - ends["submit"] for name in ("commit", "reveal", "abandon")] == [200, 500, 4500]  # type: ignore[operator]
    submit(contract, 0, 1)
    assert "takes models until" in why_nothing(contract, ACCOUNTS[0].address)
    for phase, name in ((Phase.SUBMIT, "submit"), (Phase.COMMIT, "commit")):
        when = ends[name]
        assert when is not None
        world.wait_until(when - 20)
        assert contract.phase() == phase
        world.wait_until(when)
        assert contract.phase() != phase
    # Nobody committed, so that nothing is to be revealed.
    assert contract.phase() == Phase.SETTLE
    (deed,) = settle_due(contract, ACCOUNTS[2])
    assert (deed.did, deed.round) == ("settled", 1)
    assert settle_due(contract, ACCOUNTS[2]) == []


def test_who_did_what_and_was_seen_when(world: World, begun: Task) -> None:
    contract = begun.contract
    submit(contract, 0, 1, 2)
    contract.commit(ACCOUNTS[1], 1, all_grades(range(3))[1], salt(1, 1))
    told = describe_task(contract, begun.config, OPENER.address)
    assert [node["this_round"] for node in told["nodes"]] == ["submitted", "committed", "submitted"]
    assert [node["submissions"] for node in told["nodes"]] == [1, 1, 1]
    last = told["nodes"][1]["last_seen"]
    assert last == {"block": told["chain"]["head"], "time": block_time(world.chain, told["chain"]["head"])}
    assert last["time"] <= told["chain"]["time"]
    assert (told["phase"], told["open_round"], told["rounds"][0]["state"]) == ("commit", 1, "open")
    assert told["account"] == {"address": OPENER.address, "owed": 0}


def test_a_task_before_its_first_round(world: World, config: RunConfig) -> None:
    contract = world.open(config).contract
    ends = deadlines(contract, contract.task.rules)
    opened = block_time(world.chain, contract.opened_block)
    assert ends == {"submit": None, "commit": None, "reveal": None, "abandon": opened + 30 * 86_400}
    told = describe_task(contract, None, None)
    assert not any(node["registered"] for node in told["nodes"])
    assert told["terms"]["nodes"] == 3
    world.wait_until(opened + 30 * 86_400)
    deeds = settle_due(contract, OPENER, abandon=True)
    assert [deed.did for deed in deeds] == ["abandoned"]
    assert set(deadlines(contract, contract.task.rules).values()) == {None}
    assert chain_time(world.chain) > opened + 30 * 86_400


def states(contract: FederatedRounds) -> dict[int, str]:
    """Of the rounds, as the client reads each by itself."""
    void = contract.voided()
    settled = {number: contract.settlement(number) is not None for number in contract.rounds()}
    return {n: "void" if n in void else "settled" if done else "open" for n, done in settled.items()}


@pytest.mark.parametrize("submitted", [False, True])
def test_rounds_that_are_taken_back(begun: Task, submitted: bool) -> None:
    contract = begun.contract
    submit(contract, 0, 1, 2)
    for write in (contract.commit, contract.reveal):
        for i in range(3):
            write(ACCOUNTS[i], 1, all_grades(range(3))[i], salt(1, i))
    contract.settle(ACCOUNTS[0], 1)
    rounds = describe_task(contract, None, None)["rounds"]
    assert [(r["number"], r["state"], r["absent"], len(r["nodes"])) for r in rounds] == [
        (1, "settled", [], 3),
        (2, "open", [0, 1, 2], 0),
    ]
    assert rounds[0]["settlement"]["scores"] == {"0": 80, "1": 80, "2": 80}
    if submitted:
        contract.submit(ACCOUNTS[1], 2, model(2, 1), METRICS, signature=SIGNATURE)
    for account in ACCOUNTS[:3]:
        if contract.base():
            contract.rollback(account, 0)
    told = describe_task(contract, None, None)
    assert {r["number"]: r["state"] for r in told["rounds"]} == states(contract)
    assert told["rounds"][0]["state"] == "void"
    assert (told["open_round"] == 2) is not submitted


# -- windows ----------------------------------------------------------------------------------------------------------


def windowed(times: list[int], active: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """When submissions to a round end that was opened at 1000, by when they came."""
    monkeypatch.setattr(standing, "block_time", lambda chain, block: block)
    contract = SimpleNamespace(
        chain=None,
        submissions=lambda round_: [SimpleNamespace(block=time) for time in times],
        active=lambda round_: frozenset(range(active)),
    )
    rules = SimpleNamespace(window_seconds=60, submit_seconds=500)
    opening: Any = SimpleNamespace(args={"round": 1})
    return standing._end_of_submissions(contract, rules, opening, 1000)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("times", "ends"),
    [([], 1500), ([1010], 1060), ([1010, 1020, 1030], 1030), ([1200], 1200), ([1060], 1060), ([1010, 1060], 1060)],
)
def test_a_window_ends_with_its_time_or_the_first_that_comes_later(
    times: list[int], ends: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert windowed(times, 3, monkeypatch) == ends


def test_what_kind_of_schedule() -> None:
    assert schedule_of(SimpleNamespace(window_seconds=5)) == "async"  # type: ignore[arg-type]
    assert schedule_of(config_from("nsl-kdd", {"backend": "ideal"}).federation.rules()) == "sync"


# -- words ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (1, "in 1 s"), (60, "in 1 min"), (61, "in 1 min 1 s"), (3600, "in 1 h"), (86_400 + 7200, "in 1 d 2 h"),
        (0, "0 s ago"), (-59, "59 s ago"), (-3660, "1 h 1 min ago"),
    ],
)  # fmt: skip
def test_how_far_a_time_is(seconds: int, said: str) -> None:
    assert until(1_000_000 + seconds, 1_000_000) == said


@given(st.integers(0, 2**256), st.integers(0, 2**64))
def test_no_time_is_too_far(when: int, now: int) -> None:
    assert in_words(when).isprintable()
    assert until(when, now).isprintable()
