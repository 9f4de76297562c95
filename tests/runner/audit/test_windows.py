"""Asynchronous tasks played again: they hold, and what their rules forbid is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from contracts.event_log import Entry
from contracts.history import Call, History
from contracts.reputation import Rules
from runner.audit.story import tell
from runner.audit.task_view import TaskView
from tests.contracts.conftest import QUICK, Play, all_grades, key, model
from tests.runner.audit.support import forge, read, replayed, task, told, with_args

WINDOWS = replace(QUICK, window_seconds=400, quorum=3)
TOPIC = b"t" * 32


def played(path: Path) -> Play:
    """All that can happen: windows of all lengths, graders without a model, hidden grades, no quorum, an exclusion."""
    with task(path, 5, 6, rules=WINDOWS, pool=1000, deposit=10) as play:
        contract, accounts = play.contract, play.accounts
        contract.register(accounts[0], key(0))
        contract.announce(accounts[0], TOPIC, model(0, 0))
        play.agree()
        # Round 1: the window's time ends it; 4 grades without a model, 1 hides its grades.
        play.submit(1, range(3))
        play.wait(450)
        play.commit(1, {i: {j: 80 for j in range(3) if j != i} for i in (4, 0, 1, 2)})
        play.reveal(1, {i: {j: 80 for j in range(3) if j != i} for i in (4, 0, 2)})
        play.wait(700)
        play.settle(1)
        # Round 2: nobody comes. Round 3: the first model after the window ends it, and two graders are no quorum.
        play.wait(1050)
        play.settle(2)
        play.wait(500)
        play.submit(3, [3])
        play.commit(3, {0: {3: 0}, 1: {3: 0}})
        contract.announce(accounts[1], TOPIC, model(0, 1))
        contract.announce(accounts[0], b"u" * 32, model(0, 2))
        play.raw(accounts[0], "announce", TOPIC, b"z" * 32, 0x55)  # too late: its first one counts
        play.wait(250)
        play.reveal(3, {0: {3: 0}, 1: {3: 0}})
        play.settle(3)
        # Then all submit before the window is over, and 3 is out after two strong settlements.
        for round_, nodes in ((4, range(5)), (5, range(5)), (6, (0, 1, 2, 4))):
            play.submit(round_, nodes)
            play.grade(round_, all_grades(nodes, n3=0))
            play.settle(round_)
        contract.announce(accounts[3], TOPIC, model(0, 3))
        for account in accounts:
            if contract.owed(account.address):
                contract.withdraw(account)
    return play


@pytest.fixture(scope="module")
def windows(tmp_path_factory: pytest.TempPathFactory) -> History:
    path = tmp_path_factory.mktemp("chain") / "chain.sqlite"
    return read(path, played(path))


def test_an_asynchronous_task_holds(windows: History) -> None:
    findings, state = replayed(windows)
    assert told(findings) == []
    assert findings.of("not checked") == []
    assert state is not None
    assert (state.counted, state.ended, state.excluded) == ([1, 2, 3, 4, 5, 6], False, {3})
    assert [state.rounds[r].ended_at is None for r in range(1, 7)] == [True, True, False, False, False, False]
    third = state.rounds[3].settled
    assert third is not None
    assert (third.strong, third.scores[3], third.standings[3].scored) == (False, 0, False)
    view = TaskView(state, windows.chain_id, windows.address)
    assert {i: one.cid for i, one in view.announcements(TOPIC).items()} == {i: model(0, i) for i in (0, 1, 3)}
    assert findings.counts()["announcements"]["holds"] == 3 * 5
    words = [line["what"] for line in tell(windows)]
    assert f"announces {model(0, 0)} of topic {TOPIC.hex()[:16]}" in words


def synchronous(call: Call) -> Call:
    """The opening with no window: the rest of the log then breaks the rules."""

    def changed(entry: Entry) -> Entry:
        terms = dict(entry.args["terms"])
        return with_args(terms={**terms, "rules": {**terms["rules"], "windowSeconds": 0}})(entry)

    return replace(call, entries=tuple(changed(e) if e.name == "TaskOpened" else e for e in call.entries))


def test_what_only_an_asynchronous_task_allows_is_told_of_another(windows: History) -> None:
    false = told(replayed(replace(windows, calls=tuple(map(synchronous, windows.calls))))[0])
    assert any("round 1, node 4: who grades has submitted a model" in text for text in false)
    assert any("round 1, node 4: commits to its grades in its time" in text for text in false)
    assert any("differs from what the transaction says" in text for text in false)


def moved(history: History, name: str, round_: int, seconds: int) -> History:
    """The same with the deeds of that kind in a round at another time."""

    def move(call: Call) -> Call:
        first = call.entries[0]
        hit = first.name == name and first.args["round"] == round_
        return replace(call, time=call.time + seconds) if hit else call

    return replace(history, calls=tuple(map(move, history.calls)))


@pytest.mark.parametrize(
    ("name", "round_", "seconds", "words"),
    [
        ("ModelSubmitted", 1, 400, "round 1, node 1: submits a model in its time"),
        ("GradesCommitted", 1, 210, "round 1, node 4: commits to its grades in its time"),
        ("GradesCommitted", 1, -300, "round 1, node 4: commits to its grades in its time"),
        ("GradesCommitted", 3, 210, "round 3, node 0: commits to its grades in its time"),
        ("ModelSubmitted", 3, 210, "round 3, node 0: commits to its grades in its time"),
        ("RoundSettled", 1, -600, "round 1: settles the round in its time"),
    ],
)
def test_what_came_out_of_its_time_is_told(windows: History, name: str, round_: int, seconds: int, words: str) -> None:
    assert any(words in text for text in told(replayed(moved(windows, name, round_, seconds))[0]))


def test_a_score_that_acts_without_a_quorum_is_told(windows: History) -> None:
    def lie(entry: Entry) -> Entry:
        return with_args(strong=True, flagged=entry.args["flagged"] | 8)(entry)

    false = told(replayed(forge(windows, "RoundSettled", lie, nth=2))[0])
    assert any("round 3: it is strong or weak as the median score says" in text for text in false)
    assert any("round 3: who is flagged is so by the rules" in text for text in false)


def test_a_rollback_in_an_asynchronous_task_is_told_and_ignored(windows: History) -> None:
    calls = list(windows.calls)
    i = next(
        n for n, c in enumerate(calls) if c.entries[0].name == "ModelSubmitted" and c.entries[0].args["round"] == 4
    )
    call = calls[i]
    calls[i] = replace(
        call,
        entries=(
            Entry("RollbackVoted", {"round": 4, "node": 0, "target": 1}, call.tx, call.block, 0),
            Entry("RolledBack", {"round": 4, "target": 1, "spent": False}, call.tx, call.block, 1),
        ),
    )
    findings, state = replayed(replace(windows, calls=tuple(calls)))
    assert any("the task is asynchronous" in text for text in told(findings))
    assert state is not None
    assert state.rounds[4].base == 3


def test_who_is_not_registered_announces_nothing(windows: History) -> None:
    # Node 1's announcement, told as if it stood before its registration.
    calls = list(windows.calls)
    i = next(n for n, c in enumerate(calls) if c.entries[0].name == "Announced" and c.entries[0].args["node"] == 1)
    early = replace(calls.pop(i), block=calls[1].block, position=calls[1].position + 1)
    findings, state = replayed(replace(windows, calls=(*calls[:2], early, *calls[2:])))
    assert any("node 1 is registered when it announces content: it is not" in text for text in told(findings))
    assert state is not None
    assert [one.node for one in state.announced] == [0, 0, 0, 3]


@pytest.mark.parametrize(
    ("changed", "refused"),
    [
        ({}, False),
        ({"window_seconds": 1000}, False),
        ({"window_seconds": 1001}, True),
        ({"quorum": 0}, True),
        ({"window_seconds": 0, "quorum": 0}, False),
    ],
)
def test_terms_of_windows_that_the_contract_refuses_are_told(
    windows: History, changed: dict[str, int], refused: bool
) -> None:
    rules: Rules = replace(WINDOWS, **changed)

    def lie(entry: Entry) -> Entry:
        terms = dict(entry.args["terms"])
        names = dict(zip(terms["rules"], vars(rules).values(), strict=True))
        return with_args(terms={**terms, "rules": names})(entry)

    found = replayed(forge(windows, "TaskOpened", lie))[0]
    assert ("chain/opening/rules" in {check.id for check in found.of("false")}) == refused
