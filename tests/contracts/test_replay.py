"""The contract executed again comes to what the chain has; and the bounds of what a node may answer."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from eth_account import Account
from eth_utils.address import to_canonical_address
from eth_utils.crypto import keccak
from hypothesis import given
from hypothesis import strategies as st

from contracts import trie
from contracts.block_file import BlockFile
from contracts.blocks import Account as StateAccount
from contracts.blocks import SignedTransaction
from contracts.build import same_code
from contracts.chain import connect
from contracts.errors import LedgerError
from contracts.provider import _DEPTH, _is_shallow
from contracts.replay import Replay
from tests.contracts.conftest import QUICK, Bank, Play, all_grades, model, open_task


@pytest.fixture(scope="module", params=[0, 400], ids=["synchronous", "windows"])
def played(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Play]:
    """A whole task in the file of an embedded chain, which is closed."""
    rules = replace(QUICK, window_seconds=request.param, quorum=2)
    path = tmp_path_factory.mktemp("chain") / "chain.sqlite"
    accounts = [Account.create() for _ in range(4)]
    with connect(path, [account.address for account in accounts]) as chain:
        game = open_task(Bank(chain, accounts), 3, rounds=1, deposit=7, pool=100, rules=rules)
        game.agree()
        game.contract.announce(game.accounts[0], b"t" * 32, model(0, 0))
        game.round(1, all_grades(range(3), n2=0))
        for account in game.accounts:
            game.contract.withdraw(account)
    return path, game


@pytest.mark.parametrize("forgets", [False, True])
def test_it_comes_to_the_state_and_the_logs_of_the_chain(
    played: tuple[Path, Play], monkeypatch: pytest.MonkeyPatch, *, forgets: bool
) -> None:
    """Also where it lets go, after every block, of all that only earlier states had."""
    path, game = played
    contract = to_canonical_address(game.contract.address)
    monkeypatch.setattr("contracts.replay._FEW", 0)
    replay, most = Replay(1337), 0
    with BlockFile(path) as file:
        for number in range(1, file.head().number + 1):
            header = file.header(number)
            for signed, receipt in zip(file.transactions(header), file.receipts(header), strict=True):
                outcome = replay.run(signed.raw, number, header.time)
                assert (outcome.ok, outcome.logs) == (receipt.ok, receipt.logs)
            raw = trie.find(header.state_root, keccak(contract), file.node)
            assert raw is not None
            assert replay.storage_root(contract) == StateAccount.read(raw).storage_root
            if forgets:
                replay._most = 0
                replay.forget()
            most = max(most, len(replay._nodes.kv_store))
        assert replay.code(contract) == file.code(file.head(), contract)
    assert same_code(replay.code(contract))
    assert any(replay.storage(contract).values())
    phase = replay.view(contract, keccak(text="phase()")[:4], 99, 2_000_000_000)
    assert int.from_bytes(phase, "big") == 5
    replay.forget()
    reached = len(replay._nodes.kv_store)
    assert most <= 2 * reached if forgets else most > 2 * reached


def test_what_no_chain_can_have_mined_is_told(played: tuple[Path, Play]) -> None:
    path, _ = played
    with BlockFile(path) as file:
        signed: SignedTransaction = file.transactions(file.header(1))[0]
    with pytest.raises(LedgerError, match="it is for chain 1337"):
        Replay(1).run(signed.raw, 1, 1)  # it names another chain
    with pytest.raises(LedgerError, match="cannot have been mined"):
        Replay(1337).run(signed.raw[:-1] + bytes([signed.raw[-1] ^ 1]) + b"\x00", 1, 1)


JSON = st.recursive(
    st.none() | st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


@given(JSON, st.integers(0, 3 * _DEPTH))
def test_json_is_shallow_whatever_its_texts_hold(value: object, deeper: int) -> None:
    def depth(some: object) -> int:
        inner = some.values() if isinstance(some, dict) else some if isinstance(some, list) else None
        return 0 if inner is None else 1 + max(map(depth, inner), default=0)

    for _ in range(deeper):
        value = [value, ']}\\"']
    assert _is_shallow(json.dumps(value).encode()) == (depth(value) <= _DEPTH)
