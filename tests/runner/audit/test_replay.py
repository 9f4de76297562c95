"""The log played again: tasks of all kinds hold, and every lie about one is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account

from contracts.build import load_artefact
from contracts.event_log import Entry
from contracts.history import Call, History, read_file
from contracts.records import Phase
from runner.audit.deeds import Deeds
from tests.contracts.conftest import all_grades, key, model
from tests.runner.audit.support import forge, read, replayed, task, told, with_args


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> History:
    """Three nodes, two rounds, an announcement, conclusions."""
    path = tmp_path_factory.mktemp("chain") / "chain.sqlite"
    with task(path, 3, 2) as play:
        play.agree()
        play.round(1)
        play.contract.announce(play.accounts[1], b"t" * 32, model(0, 1))
        grades = {**all_grades(range(3)), 1: {0: 90, 2: 85}}
        play.round(2, grades)
        for account in play.accounts:
            play.contract.conclude(account, model(0, 0), model(0, 1))
    return read(path, play)


def test_a_plain_task_holds(plain: History) -> None:
    findings, state = replayed(plain)
    assert told(findings) == []
    assert findings.of("not checked") == []
    assert state is not None
    assert state.ended is False
    assert state.counted == [1, 2]
    assert len(state.conclusions) == 3
    assert plain.code_is_ours
    counts = findings.counts()
    assert counts["settlements"]["holds"] >= 14
    assert counts["grades"]["holds"] >= 18


def test_the_log_read_without_the_evm_is_the_clients(tmp_path: Path) -> None:
    with task(tmp_path / "chain.sqlite", 2, 1) as play:
        play.agree()
        play.round(1)
        theirs = [(e.name, dict(e.args), e.tx, e.block, e.index) for e in play.contract.entries()]
        gas = play.contract.gas_used()
        code, head = play.chain.code(play.contract.address), play.chain.head()
    history = read(tmp_path / "chain.sqlite", play)
    own = [(e.name, dict(e.args), e.tx, e.block, e.index) for e in history.entries]
    assert [(n, *rest) for n, _, *rest in own] == [(n, *rest) for n, _, *rest in theirs]
    for (name, mine, *_), (_, args, *_) in zip(own, theirs, strict=True):
        if name == "TaskOpened":
            assert mine["configDigest"] == args["configDigest"]
            assert mine["terms"]["rules"] == dict(args["terms"]["rules"])
            continue
        assert mine == args
    assert sum(call.gas for call in history.calls) == gas
    assert (history.code, (history.head, history.head_hash)) == (code, head)
    assert [c.sender for c in history.calls[1:3]] == [a.address for a in play.accounts[:2]]


def test_a_task_with_everything_that_can_happen_holds(tmp_path: Path) -> None:
    """Open to all, deposits, a reward, a late node, missed deadlines, hard faults, exclusion, rollbacks, payment."""
    path = tmp_path / "chain.sqlite"
    with task(path, 5, 7, nodes=(), min_nodes=4, deposit=1000, pool=10_000) as play:
        contract, accounts = play.contract, play.accounts
        for i in range(4):
            contract.register(accounts[i], key(i))
        for i in range(4):
            contract.agree_map(accounts[i], b"m" * 32 if i else b"n" * 32)
        play.submit(1, range(3))  # the fourth is late
        contract.register(accounts[4], key(4), b"k" * 32)
        play.wait(1100)
        play.commit(1, all_grades(range(3)))
        play.reveal(1, {i: row for i, row in all_grades(range(3)).items() if i})  # the first does not reveal
        play.wait(600)
        play.settle(1)
        for round_ in (2, 3):
            play.submit(round_)
            play.grade(round_, all_grades(range(5), n3=0))
            play.settle(round_)
        assert 3 not in contract.active(4)
        play.submit(4, [0])
        for i in (0, 1, 2, 4):
            if contract.open_round() == 4:
                contract.rollback(accounts[i], 1)
        assert contract.voided() == {2, 3, 4}
        contract.rollback(accounts[0], 0)
        active = [0, 1, 2, 4]
        for round_ in (5, 6, 7):
            play.submit(round_, active)
            play.grade(round_, all_grades(active))
            play.settle(round_)
        assert contract.phase() == Phase.ENDED
        for i in (0, 1, 2, 4):
            if contract.base() == 7:
                contract.rollback(accounts[i], 6)
        contract.conclude(accounts[1], model(0, 0), model(0, 1))
        for account in (*accounts, play.opener):
            if contract.owed(account.address):
                contract.withdraw(account)
    findings, state = replayed(read(path, play))
    assert told(findings) == []
    assert state is not None
    assert state.counted == [1, 5, 6]
    assert state.base == 6
    assert state.excluded == {3}
    assert len(state.withdrawn) == 4
    ids = {check.id for check in findings}
    assert any(id_.startswith("rollbacks/") for id_ in ids)


def test_an_abandoned_task_holds(tmp_path: Path) -> None:
    with task(tmp_path / "chain.sqlite", 3, 2) as play:
        play.agree()
        play.submit(1, [0])
        play.wait(6500)
        play.contract.abandon(play.accounts[2])
    findings, state = replayed(read(tmp_path / "chain.sqlite", play))
    assert told(findings) == []
    assert state is not None
    assert state.ended is True


def test_the_opener_is_owed_the_pool_alone_where_nobody_earned_it(tmp_path: Path) -> None:
    with task(tmp_path / "chain.sqlite", 2, 1, deposit=10, pool=1000) as play:
        play.register()
        play.wait(6500)
        play.contract.abandon(play.opener)
        for account in (play.opener, *play.accounts):
            play.contract.withdraw(account)
    findings, state = replayed(read(tmp_path / "chain.sqlite", play))
    assert told(findings) == []
    assert state is not None
    assert sorted(state.withdrawn.values()) == [10, 10, 1000]
    state.withdrawn.clear()
    state.standings[1] = replace(state.standings[1], excluded=True)
    assert [state.owed(a.address) for a in (play.opener, *play.accounts)] == [1000, 10, 0]


def test_a_rollback_takes_back_what_was_concluded(tmp_path: Path) -> None:
    with task(tmp_path / "chain.sqlite", 3, 2) as play:
        play.agree()
        play.round(1)
        play.round(2)
        play.contract.conclude(play.accounts[0], model(0, 0), model(0, 1))
        for account in play.accounts[:2]:
            play.contract.rollback(account, 1)
        play.contract.conclude(play.accounts[0], model(0, 2), model(0, 3))
    findings, state = replayed(read(tmp_path / "chain.sqlite", play))
    assert told(findings) == []
    assert state is not None
    assert (state.base, len(state.conclusions)) == (1, 1)


def test_a_task_under_way_holds(tmp_path: Path) -> None:
    with task(tmp_path / "chain.sqlite", 3, 2) as play:
        play.agree()
        play.submit(1)
        play.commit(1, {0: {1: 80, 2: 80}})
    findings, state = replayed(read(tmp_path / "chain.sqlite", play))
    assert told(findings) == []
    assert state is not None
    assert state.open is not None
    assert set(state.open.commitments) == {0}


def test_a_large_task_settled_in_pages_holds(tmp_path: Path) -> None:
    with task(tmp_path / "chain.sqlite", 34, 1) as play:
        play.agree()
        play.submit(1)
        rows = all_grades(range(34))
        some = {i: rows[i] for i in range(3)}
        play.commit(1, some)
        play.wait(1300)
        play.reveal(1, some)
        play.raw(play.accounts[0], "settle", 1, 32)
        play.raw(play.accounts[1], "settle", 1, 32)
    findings, state = replayed(read(tmp_path / "chain.sqlite", play))
    assert told(findings) == []
    assert state is not None
    assert state.ended is False


# -- lies -------------------------------------------------------------------------------------------------------------


def flip(entry: Entry, name: str) -> Entry:
    value = entry.args[name]
    changed = {
        bytes: lambda v: bytes([v[0] ^ 1]) + v[1:],
        int: lambda v: v ^ 1,
        bool: lambda v: not v,
        list: lambda v: [v[0] + 1 if isinstance(v[0], int) else v[-1], *v[1:]],
        str: lambda v: Account.from_key(b"z" * 32).address if v.startswith("0x") else "official",
    }[type(value)](value)
    return replace(entry, args={**entry.args, name: changed})


LIES = [
    ("TaskOpened", "pool"),
    ("TaskOpened", "configDigest"),
    ("TaskOpened", "allowed"),
    ("TaskOpened", "experiment"),
    ("TaskOpened", "source"),
    ("NodeRegistered", "node"),
    ("NodeRegistered", "account"),
    ("NodeRegistered", "exchangeKey"),
    ("NodeRegistered", "signingKey"),
    ("MapProposed", "node"),
    ("MapProposed", "digest"),
    ("MapAgreed", "digest"),
    ("RoundOpened", "round"),
    ("RoundOpened", "base"),
    ("RoundOpened", "active"),
    ("ModelSubmitted", "round"),
    ("ModelSubmitted", "node"),
    ("ModelSubmitted", "digest"),
    ("ModelSubmitted", "codec"),
    ("ModelSubmitted", "metrics"),
    ("ModelSubmitted", "resources"),
    ("ModelSubmitted", "signature"),
    ("GradesCommitted", "round"),
    ("GradesCommitted", "node"),
    ("GradesCommitted", "commitment"),
    ("GradesRevealed", "round"),
    ("GradesRevealed", "node"),
    ("GradesRevealed", "grades"),
    ("GradesRevealed", "salt"),
    ("RoundSettled", "round"),
    ("RoundSettled", "scores"),
    ("RoundSettled", "asymmetry"),
    ("RoundSettled", "reputation"),
    ("RoundSettled", "low"),
    ("RoundSettled", "flagged"),
    ("RoundSettled", "excluded"),
    ("RoundSettled", "strong"),
    ("Announced", "node"),
    ("Announced", "topic"),
    ("Announced", "digest"),
    ("Announced", "codec"),
    ("Concluded", "node"),
    ("Concluded", "model"),
    ("Concluded", "report"),
    ("TaskEnded", "abandoned"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "argument"), LIES)
def test_every_field_of_every_event_is_held_to_its_transaction_and_the_rules(
    plain: History, name: str, argument: str
) -> None:
    findings, _ = replayed(forge(plain, name, lambda entry: flip(entry, argument)))
    assert told(findings)


@pytest.mark.parametrize("name", sorted({name for name, _ in LIES}))
def test_an_event_that_was_left_out_is_missed(plain: History, name: str) -> None:
    def without(call: Call) -> Call:
        return replace(call, entries=tuple(e for e in call.entries if e.name != name))

    findings, _ = replayed(replace(plain, calls=tuple(without(call) for call in plain.calls)))
    assert told(findings)


def test_a_transaction_that_was_left_out_is_missed(plain: History) -> None:
    # A node that concluded or announced, or not: the log of one who did not is as good. All others leave a gap.
    for i, call in enumerate(plain.calls):
        if call.entries[0].name in ("Announced", "Concluded"):
            continue
        findings, _ = replayed(replace(plain, calls=plain.calls[:i] + plain.calls[i + 1 :]))
        if i + 1 < len(plain.calls):
            assert told(findings), call.entries[0].name


def as_told(call: Call, sender: str) -> Call:
    """The call as a JSON-RPC node could tell it, with nothing that can be recovered."""
    return replace(call, signed=None, told=sender)


def test_grades_changed_in_log_and_transaction_do_not_fit_the_commitment(plain: History) -> None:
    def lie(call: Call) -> Call:
        if call.entries[0].name != "GradesRevealed" or call.entries[0].args["node"] != 0:
            return call
        entry = call.entries[0]
        grades = bytes([255, 100, 10])
        data = call.data.replace(bytes(entry.args["grades"]), grades)
        changed = replace(call, data=data, entries=(with_args(grades=grades)(entry),))
        return as_told(changed, call.sender)

    findings, _ = replayed(replace(plain, calls=tuple(map(lie, plain.calls))))
    false = told(findings)
    assert any("round 1, node 0: the revealed grades are those that it had committed to" in text for text in false)
    assert any("round 1: the scores" in text for text in false)


def test_who_signed_is_recovered_not_told(plain: History) -> None:
    stranger = Account.from_key(b"s" * 32).address
    calls = list(plain.calls)
    calls[5] = replace(calls[5], told=stranger)  # what a JSON-RPC node says counts for nothing ...
    assert told(replayed(replace(plain, calls=tuple(calls)))[0]) == []
    calls[5] = as_told(calls[5], stranger)  # ... unless nothing else is there
    false = told(replayed(replace(plain, calls=tuple(calls)))[0])
    assert any(f"it is signed by {stranger}" in text for text in false)


def test_transactions_that_were_signed_for_another_chain_are_told(plain: History) -> None:
    false = told(replayed(replace(plain, chain_id=1))[0])
    assert sum("signed for chain 1337, and copied" in text for text in false) == len(plain.calls)


def late(seconds: int, name: str) -> Callable[[Call], Call]:
    return lambda call: replace(call, time=call.time + seconds) if call.entries[0].name == name else call


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ModelSubmitted", "submits a model in its time"),
        ("GradesCommitted", "commits to its grades in its time"),
        ("GradesRevealed", "reveals its grades in its time"),
    ],
)
def test_what_came_after_its_deadline_is_told(plain: History, name: str, words: str) -> None:
    findings, _ = replayed(replace(plain, calls=tuple(map(late(10_000, name), plain.calls))))
    assert any(words in text for text in told(findings))


def test_a_settlement_before_its_time_is_told(tmp_path: Path) -> None:
    with task(tmp_path / "chain.sqlite", 3, 1) as play:
        play.agree()
        play.submit(1, [0, 1])
        play.wait(1100)
        play.grade(1, {0: {1: 80}, 1: {0: 80}})
        play.settle(1)
    history = read(tmp_path / "chain.sqlite", play)
    assert told(replayed(history)[0]) == []
    early = replace(history, calls=tuple(map(late(-1100, "RoundSettled"), history.calls)))
    early = replace(early, calls=tuple(map(late(-1100, "GradesCommitted"), early.calls)))
    assert any("commits to its grades in its time" in text for text in told(replayed(early)[0]))


def test_a_log_of_another_address_is_empty(plain: History, tmp_path: Path) -> None:
    stranger = Account.from_key(b"s" * 32).address
    history = replace(plain, address=stranger, calls=())
    assert told(replayed(history)[0]) == ["the log begins with the opening of the task: it has no TaskOpened"]


def test_another_codec_is_refused_in_words(plain: History) -> None:
    findings, _ = replayed(forge(plain, "ModelSubmitted", with_args(codec=0x71)))
    assert any("submits a content identifier" in text for text in told(findings))


def test_a_busy_chain_says_so(tmp_path: Path) -> None:
    from contracts.errors import LedgerBusy

    with task(tmp_path / "chain.sqlite", 2, 1) as play, pytest.raises(LedgerBusy):
        read_file(tmp_path / "chain.sqlite", play.contract.address)


# -- the opening ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("minNodes", 1),
        ("minNodes", 2),
        ("deposit", 1),
        ("maxRounds", 3),
        ("keep", 71),
        ("warn", 0),
        ("windowSeconds", 60),
        ("quorum", 1),
    ],
)
def test_the_terms_are_those_that_were_signed(plain: History, name: str, value: int) -> None:
    def lie(entry: Entry) -> Entry:
        terms = dict(entry.args["terms"])
        if name in terms:
            terms[name] = value
        else:
            terms["rules"] = {**terms["rules"], name: value}
        return with_args(terms=terms)(entry)

    false = told(replayed(forge(plain, "TaskOpened", lie))[0])
    words = f"terms.{name} differs" if name in ("minNodes", "deposit", "maxRounds") else "terms.rules differs"
    assert any(words in text for text in false)


def test_the_opening_is_held_to_the_value_the_address_and_the_code(plain: History) -> None:
    call = plain.calls[0]

    def false_of(history: History) -> set[str]:
        return {check.id for check in replayed(history)[0].of("false")}

    assert "chain/opening/terms" in false_of(replace(plain, calls=(replace(call, value=1), *plain.calls[1:])))
    stranger = Account.from_key(b"s" * 32).address
    assert "chain/opening" in false_of(replace(plain, address=stranger))
    assert "chain/opening/code" in false_of(replace(plain, calls=(replace(call, time=7), *plain.calls[1:])))
    last = sum(load_artefact()["immutables"][0]) - 1  # a byte that the constructor filled in
    other = plain.code[:last] + bytes([plain.code[last] ^ 0x40]) + plain.code[last + 1 :]
    assert "chain/opening/code" in false_of(replace(plain, code=other))
    data = call.data[:100] + b"\x00\x00" + call.data[102:]
    assert "chain/opening/terms" in false_of(replace(plain, calls=(replace(call, data=data), *plain.calls[1:])))


@pytest.mark.parametrize(
    "changed", [{"minNodes": 0}, {"minNodes": 4}, {"maxRounds": 0}, {"maxRounds": 65_536}, {"configDigest": bytes(32)}]
)
def test_terms_that_the_contract_refuses_are_told(plain: History, changed: dict[str, Any]) -> None:
    def lie(entry: Entry) -> Entry:
        args = {**entry.args, "terms": {**entry.args["terms"], **changed}}
        args.update({k: v for k, v in changed.items() if k in args})
        return replace(entry, args=args)

    found = replayed(forge(plain, "TaskOpened", lie))[0]
    assert "chain/opening/rules" in {check.id for check in found.of("false")}


# -- what only a node behind a URL says -------------------------------------------------------------------------------


def test_senders_and_contents_that_are_only_told_are_not_checked(plain: History) -> None:
    signed, _ = replayed(plain)
    calls = tuple(as_told(call, call.sender) for call in plain.calls)
    findings, state = replayed(replace(plain, calls=calls))
    assert told(findings) == []
    assert state is not None
    unsure = {check.id for check in findings.of("not checked")}
    assert all(check.withheld for check in findings.of("not checked"))
    for check in signed:
        if "sender" in check.id or "chain/content" in check.id or check.id.startswith("chain/opening"):
            assert (check.id in unsure) != (check.id in {"chain/opening/rules", "chain/opening/code"}), check.id
    assert {f"chain/id/{call.tx}" for call in plain.calls} <= unsure
    # One transaction that was made up.
    one = (*plain.calls[:-1], replace(calls[-1], tx="0x" + "ab" * 32))
    findings, _ = replayed(replace(plain, calls=one))
    assert {check.id.split("/")[-1] for check in findings.of("not checked")} == {"0x" + "ab" * 32}


def test_a_transaction_to_another_contract_proves_no_sender(plain: History) -> None:
    calls = list(plain.calls)
    calls[-1] = replace(calls[-1], to=Account.from_key(b"s" * 32).address)
    findings, _ = replayed(replace(plain, calls=tuple(calls)))
    assert told(findings) == []
    assert [check.withheld for check in findings.of("not checked")] == [True, True]


# -- logs that nobody could have written ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("NodeRegistered", {"node": 2**200}),
        ("NodeRegistered", {"node": 200}),
        ("MapProposed", {"node": 2**255}),
        ("ModelSubmitted", {"node": 200}),
        ("ModelSubmitted", {"round": 0}),
        ("ModelSubmitted", {"round": 4_000_000_000}),
        ("GradesCommitted", {"node": 254}),
        ("GradesRevealed", {"node": 2**255}),
        ("GradesRevealed", {"round": 0}),
        ("GradesRevealed", {"grades": b""}),
        ("RoundSettled", {"reputation": []}),
        ("RoundSettled", {"scores": b"", "asymmetry": b""}),
        ("RoundSettled", {"reputation": [1] * 300}),
        ("RoundSettled", {"round": 9}),
        ("Announced", {"node": 2**255}),
        ("Announced", {"codec": 0x71}),
        ("Announced", {"topic": bytes(32)}),
        ("Concluded", {"node": 2**255}),
    ],
)
def test_numbers_out_of_range_are_told_and_the_play_goes_on(plain: History, name: str, changed: dict[str, Any]) -> None:
    findings, state = replayed(forge(plain, name, with_args(**changed)))
    assert told(findings)
    assert state is not None
    assert not [check for check in findings if check.id.startswith("chain/event")]
    assert len(state.registered) == 3
    assert all(len(r.record.reputation) == 3 for r in state.rounds.values() if r.record is not None)
    assert set().union(*(r.submissions for r in state.rounds.values())) <= {0, 1, 2}


def test_an_event_that_breaks_the_play_is_one_false_statement(plain: History, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise KeyError(200)

    monkeypatch.setattr(Deeds, "_concluded", broken)
    findings, state = replayed(plain)
    assert [c.id.rpartition("/")[0] for c in findings.of("false")] == ["chain/event"] * 3
    assert state is not None
    assert state.counted == [1, 2]


@pytest.mark.parametrize("target", [2, 99])
def test_a_rollback_to_a_round_that_does_not_count_is_told_and_ignored(plain: History, target: int) -> None:
    calls = list(plain.calls)
    i = [n for n, c in enumerate(calls) if c.entries and c.entries[0].name == "ModelSubmitted"][3]
    call = calls[i]
    calls[i] = replace(
        call,
        entries=(
            Entry("RollbackVoted", {"round": 2, "node": 0, "target": target}, call.tx, call.block, 0),
            Entry("RolledBack", {"round": 2, "target": target, "spent": False}, call.tx, call.block, 1),
            Entry("RoundOpened", {"round": 2, "base": target, "active": 7}, call.tx, call.block, 2),
        ),
    )
    findings, state = replayed(replace(plain, calls=tuple(calls)))
    assert f"rollbacks/{call.tx}/allowed" in {check.id for check in findings.of("false")}
    assert state is not None
    assert all(round_.base < round_.number for round_ in state.rounds.values())
    assert state.base in state.rounds


def test_who_withdraws_is_who_signed(tmp_path: Path) -> None:
    with task(tmp_path / "chain.sqlite", 2, 1, pool=1000) as play:
        play.agree()
        play.round(1)
        play.contract.withdraw(play.accounts[0])
    history = read(tmp_path / "chain.sqlite", play)
    assert told(replayed(history)[0]) == []
    other = play.accounts[1].address
    false = told(replayed(forge(history, "Withdrawn", with_args(account=other)))[0])
    assert any(f"{other} itself withdraws" in text for text in false)
