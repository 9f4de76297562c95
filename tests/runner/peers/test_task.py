"""Tasks opened, read and joined: what is agreed, what is refused before anything is sent, and what comes twice."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circuits.errors import QrunError, UsageError
from contracts.errors import LedgerError
from contracts.records import Phase
from contracts.rounds import FederatedRounds
from runner.config import RunConfig
from runner.options import config_from
from runner.peers.keys import public_exchange_key, signing_digest
from runner.peers.standing import describe_task
from runner.peers.task import (
    Offer,
    check_address,
    check_allowed,
    join_task,
    open_task,
    read_config,
    read_task,
    spec_of,
)
from runner.peers.view import show_task
from tests.runner.peers.conftest import ACCOUNTS, KEYS, OPENER, POOR, World

THREE = Offer(tuple(a.address for a in ACCOUNTS[:3]))
EVERYBODY = Offer(deposit=10**9, min_nodes=2)


def test_a_task_is_read_and_joined_by_its_address_alone(world: World, config: RunConfig) -> None:
    opened = world.open(config)
    task = read_task(world.chain, world.store, opened.contract.address.lower())
    assert (task.config, task.spec, task.cid) == (config, opened.spec, opened.cid)
    assert not task.open_to_all
    for account, keys in zip(ACCOUNTS[:3], KEYS[:3], strict=True):
        joined = join_task(task, account, keys)
        assert (joined.node.address, joined.again) == (account.address, False)
        assert joined.node.exchange_key == public_exchange_key(keys)
        assert joined.node.signing_key is None
    assert task.contract.phase() == Phase.SETUP


def test_joining_twice_changes_nothing(world: World, config: RunConfig) -> None:
    task = world.open(config)
    first = join_task(task, ACCOUNTS[0], KEYS[0])
    again = join_task(task, ACCOUNTS[0], KEYS[0])
    assert (again.again, again.receipt) == (True, first.receipt)
    with pytest.raises(LedgerError, match="already with another exchangeKey"):
        join_task(task, ACCOUNTS[0], KEYS[1])


def test_a_signing_key_is_registered_where_the_config_asks_for_it(world: World) -> None:
    config = config_from("nsl-kdd", {"backend": "ideal", "nodes": 4, "signatures": "ml-dsa-65"})
    task = world.open(config)
    assert join_task(task, ACCOUNTS[0], KEYS[0]).node.signing_key == signing_digest(KEYS[0])
    with pytest.raises(QrunError, match="--signing"):
        join_task(task, ACCOUNTS[3], KEYS[3])


def test_who_may_not_join(world: World, config: RunConfig) -> None:
    task = world.open(config)
    with pytest.raises(QrunError, match="not on the allow-list"):
        join_task(task, ACCOUNTS[3], KEYS[3])
    two = config_from("nsl-kdd", {"backend": "ideal", "nodes": 2})
    full = world.open(two, EVERYBODY)
    with pytest.raises(LedgerError, match=rf"{POOR.address} holds 0 ether, and registering"):
        join_task(full, POOR, KEYS[0])
    for k in (0, 1):
        join_task(full, ACCOUNTS[k], KEYS[k])
    with pytest.raises(QrunError, match="full"):
        join_task(full, ACCOUNTS[2], KEYS[2])
    assert join_task(full, ACCOUNTS[1], KEYS[1]).again
    world.wait_until(10**10)
    task.contract.abandon(OPENER)
    with pytest.raises(QrunError, match="has ended"):
        join_task(task, ACCOUNTS[0], KEYS[0])


# -- opening ----------------------------------------------------------------------------------------------------------


def test_an_account_that_was_used_opens_a_task_once(world: World, config: RunConfig) -> None:
    world.chain.transfer(OPENER, ACCOUNTS[0].address, 1)
    first, new = open_task(world.chain, world.store, OPENER, config, THREE, folder=world.folder)
    assert new
    world.chain.transfer(OPENER, ACCOUNTS[0].address, 1)
    again, new = open_task(world.chain, world.store, OPENER, config, THREE, folder=world.folder)
    assert (again.contract.address, new) == (first.contract.address, False)
    other, new = open_task(world.chain, world.store, OPENER, config, THREE, folder=world.folder, again=True)
    assert new
    assert other.contract.address != first.contract.address
    newest, new = open_task(world.chain, world.store, OPENER, config, THREE, folder=world.folder)
    assert (newest.contract.address, new) == (other.contract.address, False)


@pytest.mark.parametrize("killed", ["before it is sent", "after it is mined"])
@pytest.mark.parametrize("used", [0, 2])
@pytest.mark.parametrize("between", ["nothing", "a transfer", "another task"])
def test_a_killed_opening_goes_on_and_opens_one(
    world: World, config: RunConfig, monkeypatch: pytest.MonkeyPatch, *, killed: str, used: int, between: str
) -> None:
    for _ in range(used):
        world.chain.transfer(OPENER, ACCOUNTS[0].address, 1)
    send = type(world.chain).send

    def die(*args: object, **kwargs: object) -> None:
        if killed != "before it is sent":
            send(*args, **kwargs)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(type(world.chain), "send", die)
    with pytest.raises(KeyboardInterrupt):
        open_task(world.chain, world.store, OPENER, config, THREE, folder=world.folder)
    monkeypatch.undo()
    if between == "a transfer":
        world.chain.transfer(OPENER, ACCOUNTS[0].address, 1)
    elif between == "another task":
        open_task(world.chain, world.store, OPENER, config, replace(THREE, pool=1), folder=world.folder)
    spent = world.chain.balance(OPENER.address)
    task, new = open_task(world.chain, world.store, OPENER, config, THREE, folder=world.folder)
    assert new == (killed == "before it is sent")
    assert (world.chain.balance(OPENER.address) == spent) != new
    assert task.spec == spec_of(config, THREE)
    once_more, new = open_task(world.chain, world.store, OPENER, config, THREE, folder=world.folder)
    assert (once_more.contract.address, new) == (task.contract.address, False)


def test_too_little_money_is_told_before_anything_is_sent(world: World, config: RunConfig) -> None:
    with pytest.raises(LedgerError, match=rf"account {POOR.address} holds 0 ether, and opening the task takes"):
        open_task(world.chain, world.store, POOR, config, THREE, folder=world.folder)
    rich = replace(THREE, pool=10**30)
    with pytest.raises(LedgerError, match=rf"Send it .* \(\d+ wei\) on chain {world.chain.chain_id}"):
        open_task(world.chain, world.store, OPENER, config, rich, folder=world.folder)
    assert world.chain.nonce(OPENER.address) == 0


@pytest.mark.parametrize(
    ("options", "offer", "said"),
    [
        ({}, Offer(THREE.allowed[:2]), "2 are allowed"),
        ({}, Offer((THREE.allowed[0],) * 3), "twice"),
        ({}, Offer(), "deposit"),
        ({}, replace(EVERYBODY, min_nodes=4), "--min-nodes 4"),
        ({}, replace(THREE, pool=-1), "whole numbers of wei"),
        ({}, replace(THREE, source="mine"), "data source"),
        ({"engine": "runtime", "backend": "fake_manila"}, THREE, "QPU seconds"),
        ({"runtime": {"run_on": "fake_manila"}}, THREE, "QPU seconds"),
    ],
)
def test_what_cannot_be_opened(options: dict[str, object], offer: Offer, said: str) -> None:
    config = config_from("nsl-kdd", {"backend": "ideal", "nodes": 3, **options})
    with pytest.raises(UsageError, match=said):
        spec_of(config, offer)


# -- reading what is hostile ------------------------------------------------------------------------------------------


def opened_with(world: World, data: bytes, config: RunConfig, **terms: object) -> str:
    """The address of a task whose digest is that of `data`, which is in the store."""
    from contracts.cid import parse_cid

    cid = world.store.put(data)
    spec = replace(spec_of(config, THREE), config_digest=parse_cid(cid).digest, **terms)  # type: ignore[arg-type]
    number = world.chain.nonce(OPENER.address)
    return FederatedRounds.deploy(world.chain, OPENER, spec, number=number).address


def test_a_config_that_is_none(world: World, config: RunConfig) -> None:
    whole = config.canonical()
    values = json.loads(whole)

    def form(**changed: object) -> bytes:
        return json.dumps({**values, **changed}, sort_keys=True, separators=(",", ":")).encode()

    hostile = {
        whole[:-1]: "not JSON",
        b"": "not JSON",
        whole + b" ": "canonical form",
        json.dumps(values).encode(): "canonical form",
        b"[1,2]": "canonical form",
        whole.replace(b'"rounds":2', b'"rounds":NaN'): "not JSON",
        whole.replace(b'"rounds":2', b'"rounds":1e999'): "too large",
        whole.replace(b'"rounds":2', b'"rounds":' + b"9" * 200): "too large",
        b"[" * 5000: "nested",
        form(rounds=5000): "rounds = 5000",
        form(nodes=51): "nodes = 51",
        form(surprise=1): "unknown key 'surprise'",
        form(seed="0"): "otherwise",
        form(experiment="\x1b[2Jother"): "unknown experiment",
        form(backend="/etc/passwd"): "snapshot file",
        form(backend="x.json"): "snapshot file",
        form(backend="snapshot", snapshot_sha256="0" * 64): "snapshot file",
        form(backend="x.json", snapshot_sha256="0" * 64): "canonical form",
        form(rounds=3): "its rounds are not those",
        form(nodes=2): "its nodes are not those",
        form(federation={**values["federation"], "warn": 51}): "its rules are not those",
    }
    for data, said in hostile.items():
        address = opened_with(world, data, config)
        with pytest.raises(QrunError, match=said) as caught:
            read_task(world.chain, world.store, address)
        assert "\x1b" not in str(caught.value)
        assert caught.value.exit_code == 1


def test_a_config_that_is_not_there_or_too_large(world: World, config: RunConfig) -> None:
    address = opened_with(world, b'{"a":"' + b"x" * 200_000 + b'"}', config)
    with pytest.raises(QrunError, match="experiment is missing"):
        read_task(world.chain, world.store, address)
    spec = replace(spec_of(config, THREE), config_digest=b"x" * 32)
    missing = FederatedRounds.deploy(world.chain, OPENER, spec, number=1).address
    with pytest.raises(QrunError, match=r"cannot be had.*opener"):
        read_task(world.chain, world.store, missing)


def test_an_address_with_another_contract_or_none(world: World) -> None:
    with pytest.raises(LedgerError, match="no contract at"):
        read_task(world.chain, world.store, POOR.address)
    for text in ("", "0x12", "nonsense", POOR.address[:-1], POOR.address + "0", "0x" + "0" * 40):
        with pytest.raises(UsageError):
            check_address(text)


@given(st.data())
def test_allow_lists(data: st.DataObject) -> None:
    """Every spelling of an address is read; a wrong character in a checksum is found, and so is one that is twice."""
    accounts = data.draw(st.lists(st.sampled_from(ACCOUNTS), min_size=1, max_size=4, unique_by=lambda a: a.address))
    spell = st.sampled_from([str, str.lower, lambda text: "0x" + text[2:].upper()])
    lines = [data.draw(spell)(account.address) for account in accounts]
    noise = data.draw(st.lists(st.sampled_from(["", "  ", "# a comment"]), max_size=3))
    assert check_allowed([*noise, *(f" {line}  # somebody" for line in lines)]) == tuple(a.address for a in accounts)
    with pytest.raises(UsageError, match=rf"line {len(lines) + 1}: .* stands on line 1 too"):
        check_allowed([*lines, accounts[0].address])
    wrong = accounts[0].address.swapcase().replace("0X", "0x")
    if wrong[2:] not in (wrong[2:].lower(), wrong[2:].upper()):
        with pytest.raises(UsageError, match="checksum"):
            check_allowed([*lines[1:], wrong])


@given(st.text(max_size=60))
def test_no_text_breaks_the_allow_list(text: str) -> None:
    with suppress(UsageError):
        assert check_allowed(text.splitlines())


class OneFile:
    """A store that has one file, whatever it is asked for; a CID is a hash, so that an honest one has no other."""

    kind = "one"

    def __init__(self, data: bytes) -> None:
        self.data = data

    def get(self, cid: str, *, max_bytes: int) -> bytes:
        assert len(self.data) <= max_bytes
        return self.data


def read_back(data: bytes, config: RunConfig) -> RunConfig:
    spec = replace(spec_of(config, THREE), config_digest=hashlib.sha256(data).digest())
    return read_config(OneFile(data), spec, POOR.address)  # type: ignore[arg-type]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=200)
@given(data=st.data())
def test_no_change_of_a_config_goes_unseen(config: RunConfig, data: st.DataObject) -> None:
    """A value changed, taken away or added anywhere: one line says what is wrong, or it is what the terms allow."""
    whole = json.loads(config.canonical())
    table = data.draw(st.sampled_from([whole, *(part for part in whole.values() if isinstance(part, dict))]))
    key = data.draw(st.sampled_from(sorted(table)) | st.text(max_size=8))
    if data.draw(st.booleans()):
        table.pop(key, None)
    else:
        table[key] = data.draw(VALUES)
    body = json.dumps(whole, sort_keys=True, separators=(",", ":")).encode()
    try:
        found = read_back(body, config)
    except QrunError as error:
        refused = error
    else:
        assert found.canonical() == body
        assert (found.experiment, found.rounds, found.nodes) == (config.experiment, config.rounds, config.nodes)
        assert found.federation.rules() == config.federation.rules()
        return
    assert "\n" not in str(refused)
    assert "\x1b" not in str(refused)


@settings(max_examples=200)
@given(data=st.data())
def test_no_bytes_break_the_reading_of_a_config(config: RunConfig, data: st.DataObject) -> None:
    """Cut off anywhere, a byte changed anywhere, or anything at all."""
    whole = config.canonical()
    at = data.draw(st.integers(0, len(whole) - 1))
    changed = whole[:at] + data.draw(st.binary(min_size=1, max_size=1)) + whole[at + 1 :]
    for body in (whole[:at], changed, data.draw(st.binary(max_size=100))):
        with suppress(QrunError):
            assert read_back(body, config).canonical() == body


# -- showing what is hostile ------------------------------------------------------------------------------------------


def test_texts_of_others_do_nothing_to_a_terminal(
    world: World, config: RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    address = opened_with(world, b"x", config, experiment="\x1b[2Jnsl\n-kdd" + "y" * 5000, data_source="\x07\r")
    told = describe_task(FederatedRounds.attach(world.chain, address), None, None)
    show_task(told)
    text = capsys.readouterr().out
    assert not {"\x1b", "\x07", "\r"} & set(text)
    assert len(text) < 5000
    json.dumps(told, allow_nan=False)
