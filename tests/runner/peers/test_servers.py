"""Tasks on an Ethereum node and an IPFS daemon: opened, joined by three, shown, settled; kills between the lines."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account

from contracts.chain import Chain, SendPolicy, connect
from contracts.errors import LedgerError
from contracts.keystore import create_keystore, new_secrets
from contracts.rounds import FederatedRounds
from contracts.sending import Sender
from contracts.store import BlockStore
from runner.config import RunConfig
from runner.peers.task import Offer, join_task, joining_price, open_task, opening_price, spec_of
from tests.runner.peers.conftest import ACCOUNTS, KEYS
from tests.runner.peers.test_commands import PASSWORD, SMALL, Desk, in_this_process, never_shown, play_rounds_on
from tests.servers import IpfsNode, anvil_node

pytestmark = pytest.mark.server
THREE = Offer(tuple(a.address for a in ACCOUNTS[:3]))


@pytest.mark.slow
def test_three_join_a_task_that_one_has_opened(tmp_path: Path, home: Path, ipfs_node: IpfsNode) -> None:
    desk = Desk(in_this_process(home), tmp_path)
    (tmp_path / "password").write_text(PASSWORD + "\n")
    (tmp_path / "password").chmod(0o600)
    for name in ("opener", "a", "b", "c"):
        desk.secrets.append(new_secrets(signing=name != "opener"))
        create_keystore(tmp_path / f"{name}.json", desk.secrets[-1], PASSWORD, work_factor=16)
    (tmp_path / "anvil").mkdir()
    with anvil_node(tmp_path / "anvil", "--block-time", "1") as url:
        with connect(url) as chain:
            chain.fund([kept.address for kept in desk.secrets], gas_each=30_000_000)
        secret = url.replace("http://", "http://somebody:hunter2@")
        chain_, ipfs = ["--chain", secret], ["--ipfs", ipfs_node.url]
        allowed = [part for name in ("a", "b", "c") for part in ("--allow", desk.address(name))]
        opening = ["task", "open", "nsl-kdd", *SMALL, *allowed, *chain_, *ipfs, *desk.key("opener"), "--pool", "1000",
                   "--signatures", "ml-dsa-65"]  # fmt: skip
        opened = desk.told(*opening, "--confirmations", "2")
        task = str(opened["task"])
        assert not desk.told(*opening)["new"]
        assert f"--ipfs {ipfs_node.url}" in str(opened["join"])
        # One whose daemon is away has the config from a gateway.
        away = ["--ipfs", "http://127.0.0.1:9", "--gateway", ipfs_node.gateway]
        for index, (name, where) in enumerate(zip("abc", (ipfs, away, ipfs), strict=True)):
            joined = desk.told("task", "join", "--task", task, *chain_, *where, *desk.key(name))
            assert (joined["node"], joined["again"]) == (index, False)
        text = desk("task", "join", "--task", task, *chain_, *ipfs, *desk.key("a"))
        assert "registered already, as node 0" in text
        with connect(url) as chain:
            play_rounds_on(chain, desk, task)
        settled = desk.told("task", "settle", "--task", task, *chain_, *desk.key("c"))
        assert [deed["did"] for deed in settled["deeds"]] == ["settled", "withdrew"]  # type: ignore[attr-defined]
        shown = desk.told("task", "show", "--task", task, *chain_, *ipfs, "--account", desk.address("a"))
        assert (shown["phase"], shown["account"]["owed"]) == ("ended", 333)  # type: ignore[index]
        assert all(node["signing_key"] for node in shown["nodes"])  # type: ignore[attr-defined]
        desk("task", "show", "--task", task, *chain_)
    desk.fails(1, "does not answer", "task", "show", "--task", task, *chain_)
    assert "hunter2" not in "".join(desk.said)
    never_shown(desk, tmp_path)


@pytest.fixture
def chain(anvil: str, tmp_path: Path) -> Any:
    with connect(anvil) as opened:
        yield opened


@pytest.mark.parametrize("killed", ["before it is signed", "once the node has it", "once it is mined"])
@pytest.mark.parametrize("used", [0, 1])
def test_a_killed_opening_on_a_node_opens_one_task(
    chain: Chain, config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, killed: str, used: int
) -> None:
    opener = Account.create()
    chain.fund([opener.address], gas_each=40_000_000)
    for _ in range(used):
        chain.transfer(opener, ACCOUNTS[0].address, 1)
    store = BlockStore(tmp_path / "blocks")
    where = {"before it is signed": "_next_nonce", "once the node has it": "_follow", "once it is mined": "deliver"}
    original = getattr(Sender, where[killed])

    def die(*args: Any, **kwargs: Any) -> None:
        if killed == "once it is mined":
            original(*args, **kwargs)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Sender, where[killed], die)
        with pytest.raises(KeyboardInterrupt):
            open_task(chain, store, opener, config, THREE, folder=tmp_path)
    task, new = open_task(chain, store, opener, config, THREE, folder=tmp_path)
    assert new == (killed == "before it is signed")
    assert chain.nonce(opener.address) == used + 1
    assert open_task(chain, store, opener, config, THREE, folder=tmp_path)[0].contract.address == task.contract.address


def test_a_number_that_something_else_took_is_given_up(
    chain: Chain, config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opener = Account.create()
    chain.fund([opener.address], gas_each=40_000_000)
    store = BlockStore(tmp_path / "blocks")
    with monkeypatch.context() as patch:
        patch.setattr(Sender, "deliver", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            open_task(chain, store, opener, config, THREE, folder=tmp_path)
    chain.transfer(opener, ACCOUNTS[0].address, 1)
    task, new = open_task(chain, store, opener, config, THREE, folder=tmp_path)
    assert new
    assert chain.nonce(opener.address) == 2
    assert FederatedRounds.attach(chain, task.contract.address).task == task.spec


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def test_a_chain_that_has_forgotten_the_opening(chain: Chain, config: RunConfig, tmp_path: Path) -> None:
    from circuits.errors import QrunError

    opener = Account.create()
    chain.fund([opener.address], gas_each=40_000_000)
    store = BlockStore(tmp_path / "blocks")
    open_task(chain, store, opener, config, THREE, folder=tmp_path)
    (note,) = tmp_path.glob("*.json")
    note.write_text(json.dumps({**json.loads(note.read_text()), "number": 7}))
    with pytest.raises(QrunError, match=r"knows of 1 only.*--again"):
        open_task(chain, store, opener, config, THREE, folder=tmp_path)
    assert open_task(chain, store, opener, config, THREE, folder=tmp_path, again=True)[1]
    note.write_bytes(os.urandom(50))
    with pytest.raises(QrunError, match="is damaged"):
        open_task(chain, store, opener, config, THREE, folder=tmp_path)


@pytest.mark.parametrize("nodes", [1, 3, 50])
def test_what_is_said_to_be_enough_is_enough(config: RunConfig, tmp_path: Path, nodes: int) -> None:
    """An account with exactly the wei that are asked for can open, and another one join.

    On a chain of its own: what others offered in the blocks before moves the tip that a node suggests.
    """
    with anvil_node(tmp_path) as url, connect(url) as chain:
        _open_and_join_with_exactly_enough(chain, config, tmp_path, nodes)


def _open_and_join_with_exactly_enough(chain: Chain, config: RunConfig, tmp_path: Path, nodes: int) -> None:
    opener, node = Account.create(), Account.create()
    allowed = (node.address, *(Account.create().address for _ in range(nodes - 1)))
    offer = Offer(allowed, min_nodes=1, deposit=10**15, pool=10**15)
    wanted = config.model_copy(update={"nodes": nodes})
    pay(chain, opener.address, opening_price(chain, spec_of(wanted, offer)))
    store = BlockStore(tmp_path / "blocks")
    task, _ = open_task(chain, store, opener, wanted, offer, folder=tmp_path)
    # There is no money for another one, and none is needed to be led to this one.
    same, new = open_task(chain, store, opener, wanted, offer, folder=tmp_path)
    assert (same.contract.address, new) == (task.contract.address, False)
    price = joining_price(task)
    # The deposit alone is too little at any fee; and fees fall from block to block here.
    pay(chain, node.address, task.spec.deposit)
    with pytest.raises(LedgerError, match="registering takes up to"):
        join_task(task, node, KEYS[0])
    pay(chain, node.address, price - task.spec.deposit)
    assert join_task(task, node, KEYS[0]).node.index == 0


def pay(chain: Chain, address: str, wei: int) -> None:
    chain.transfer_from_node(chain.w3.eth.accounts[0], address, wei)


def test_two_that_open_with_one_key_open_one_task(anvil: str, config: RunConfig, tmp_path: Path) -> None:
    """Both at once: they choose the same number, and the chain takes one of each."""
    from concurrent.futures import ThreadPoolExecutor

    opener = Account.create()
    policy = SendPolicy(mined_seconds=20)

    def go(_: int) -> str:
        with connect(anvil, policy=policy) as own:
            store = BlockStore(tmp_path / "blocks")
            return open_task(own, store, opener, config, THREE, folder=tmp_path)[0].contract.address

    with connect(anvil) as chain:
        chain.fund([opener.address], gas_each=40_000_000)
        with ThreadPoolExecutor(2) as pool:
            found = [task.exception() or task.result() for task in [pool.submit(go, k) for k in range(2)]]
        assert chain.nonce(opener.address) == 1
    assert len({one for one in found if isinstance(one, str)}) == 1
