"""A chain behind a URL: errors in one line, no secret shown, money where it is needed."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account

from contracts.build import load_artefact
from contracts.chain import SendPolicy, connect, redact
from contracts.errors import ContractRevert, LedgerError, LedgerUnreachable
from contracts.rpc_errors import decode_revert
from tests.servers import ANVIL_KEY, anvil_node, free_port

SECRET = "s3cr3t" * 4


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://127.0.0.1:8545", "http://127.0.0.1:8545"),
        ("http://localhost:8545/", "http://localhost:8545/"),
        (f"https://mainnet.infura.io/v3/{SECRET}", "https://mainnet.infura.io/v3/***"),
        (f"https://user:{SECRET}@node.example:8545/rpc", "https://***@node.example:8545/rpc"),
        (f"https://{SECRET}@node.example/", "https://***@node.example/"),
        (f"https://node.example/a/{SECRET}/b?key={SECRET}#{SECRET}", "https://node.example/a/***/b?***#***"),
        (f"http://[{SECRET}", "http://***"),
        ("/ip4/127.0.0.1/tcp/5001/http", "/ip4/127.0.0.1/tcp/5001/http"),
        ("runs/a-rather-long-folder-name/chain.sqlite", "runs/a-rather-long-folder-name/chain.sqlite"),
    ],
)
def test_redact(url: str, shown: str) -> None:
    assert redact(url) == shown
    assert redact(shown) == shown


def refused(act: Callable[[], object], match: str) -> str:
    began = time.monotonic()
    with pytest.raises(LedgerUnreachable, match=match) as caught:
        act()
    text = str(caught.value)
    assert time.monotonic() - began < 5
    assert "\n" not in text
    assert SECRET not in text
    assert caught.value.__cause__ is None
    return text


def test_nobody_there() -> None:
    url = f"http://user:{SECRET}@127.0.0.1:{free_port()}/{SECRET}"
    assert "--chain" in refused(lambda: connect(url), "does not answer")


def test_somebody_who_says_nothing() -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        refused(lambda: connect(f"http://127.0.0.1:{deaf.getsockname()[1]}/{SECRET}"), "does not answer")


@pytest.mark.parametrize("url", [f"ws://h/{SECRET}", f"ftp://h/{SECRET}"])
def test_other_schemes(url: str) -> None:
    with pytest.raises(LedgerError, match=r"http\(s\) URL") as caught:
        connect(url)
    assert SECRET not in str(caught.value)


@pytest.fixture
def node() -> Iterator[tuple[str, dict[str, Any]]]:
    """A JSON-RPC node that answers what the test says: method -> result, error object, or (status, body)."""
    answers: dict[str, Any] = {"eth_chainId": "0x7a69"}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = answers.get(asked["method"], {"code": -32601, "message": "method not found"})
            status = 200
            if isinstance(answer, tuple):
                status, body = answer
            else:
                kind = "error" if isinstance(answer, dict) and "code" in answer else "result"
                body = json.dumps({"jsonrpc": "2.0", "id": asked["id"], kind: answer}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v3/{SECRET}", answers
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("status", "hint"), [(401, "key right"), (403, "key right"), (429, "Too many"), (500, "JSON-RPC")]
)
def test_http_status(node: tuple[str, dict[str, Any]], status: int, hint: str) -> None:
    url, answers = node
    answers["eth_chainId"] = (status, b"no")
    refused(lambda: connect(url), f"HTTP status {status}.*{hint}")


def test_something_else_on_the_port(node: tuple[str, dict[str, Any]]) -> None:
    url, answers = node
    answers["eth_chainId"] = (200, b"<html>")
    refused(lambda: connect(url), "no JSON-RPC node")


def test_an_error_of_the_node_is_shown_without_the_url(node: tuple[str, dict[str, Any]]) -> None:
    url, answers = node
    with connect(url) as chain:
        answers["eth_blockNumber"] = {"code": -32000, "message": f"upstream {url} is down"}
        with pytest.raises(LedgerError, match="is down") as caught:
            chain.head_number()
    assert SECRET not in str(caught.value)


def test_a_range_of_logs_that_is_too_long_is_cut(node: tuple[str, dict[str, Any]]) -> None:
    url, answers = node
    answers["eth_getLogs"] = {"code": -32005, "message": "query exceeds max block range"}
    with connect(url) as chain, pytest.raises(LedgerError, match="max block range"):
        chain.logs("0x" + "11" * 20, 0, 10)
    asked: list[tuple[int, int]] = []

    class Eth:
        @staticmethod
        def get_logs(query: dict[str, Any]) -> list[str]:
            asked.append((query["fromBlock"], query["toBlock"]))
            if asked[-1][1] - asked[-1][0] >= 500:
                raise ValueError("range too large")
            return [f"{query['fromBlock']}"]

    chain.w3 = type("W3", (), {"eth": Eth})()
    chain.logs("0x" + "11" * 20, 7, 1500)
    good = [pair for pair in asked if pair[1] - pair[0] < 500]
    assert [n for a, b in good for n in range(a, b + 1)] == list(range(7, 1501))


ABI = load_artefact()["abi"]


@pytest.mark.parametrize(
    ("data", "name", "arguments"),
    [
        ("0x4e487b71" + f"{0x11:064x}", "Panic", {"code": 0x11}),
        ("0x08c379a0" + f"{32:064x}{2:064x}" + b"no".hex().ljust(64, "0"), "Error", {"reason": "no"}),
        ("0xdeadbeef", "UnknownError", {"data": "0xdeadbeef"}),
        ("0x4e487b71", "UnknownError", {"data": "0x4e487b71"}),
    ],
)
def test_reverts_that_are_not_the_contracts_own(data: str, name: str, arguments: dict[str, object]) -> None:
    found = decode_revert(data, ABI)
    assert (found.name, found.args_) == (name, arguments)


def test_help_stays_quick() -> None:
    """runner/places.py imports redact from here at start-up."""
    heavy = "('web3', 'eth', 'eth_account', 'requests')"
    code = f"import contracts.chain, sys; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.server
def test_funding_tops_up_what_is_missing(anvil: str) -> None:
    accounts = [Account.create().address for _ in range(3)]
    with connect(anvil) as chain:
        sent = chain.fund(accounts, gas_each=100_000)
        balances = [chain.balance(a) for a in accounts]
        assert sent == sum(balances) > 0
        assert chain.fund(accounts, gas_each=10_000) == 0
        more = chain.fund(accounts, ANVIL_KEY.removeprefix("0x") + "\n", gas_each=1_000_000)
        assert [chain.balance(a) for a in accounts] == [b + more // 3 for b in balances]


@pytest.mark.server
def test_funding_that_cannot_be_says_what_is_needed(anvil: str, tmp_path: Path) -> None:
    poor, wanted = Account.create(), Account.create().address
    with connect(anvil) as chain:
        with pytest.raises(LedgerError, match=r"holds 0 ether.*run needs 0\.") as caught:
            chain.fund([wanted], poor.key.hex(), gas_each=10_000_000)
        assert poor.key.hex() not in str(caught.value)
        with pytest.raises(LedgerError, match="no private key") as caught:
            chain.fund([wanted], f"{SECRET}")
        assert SECRET not in str(caught.value)
        with pytest.raises(LedgerError, match="too little money"):
            chain.transfer(poor, wanted, 1)
    none = anvil_node(tmp_path, "--accounts", "0")
    with none as url, connect(url) as chain, pytest.raises(LedgerError, match="QRUN_CHAIN_KEY"):
        chain.fund([wanted])


@pytest.mark.server
def test_where_gas_is_free_nothing_is_sent(tmp_path: Path) -> None:
    account = Account.create()
    with (
        anvil_node(tmp_path, "--block-base-fee-per-gas", "0", "--disable-min-priority-fee") as url,
        connect(url) as chain,
    ):
        assert chain.fund([account.address]) == 0
        assert chain.transfer(account, account.address, 0).gas_used == 21_000


@pytest.mark.server
def test_a_transaction_that_fails_when_mined_names_its_error(anvil: str) -> None:
    """Others may change the contract between trying a call out and mining it."""
    from tests.contracts.conftest import Bank, open_task

    with connect(anvil) as chain:
        game = open_task(Bank(chain, []), 1)
        account = game.accounts[0]
        call = game.contract._contract.functions.agreeMap(b"d" * 32)
        data = call.build_transaction({"from": account.address, "gas": 1, "gasPrice": 0, "chainId": 1})["data"]
        with pytest.raises(ContractRevert) as caught:
            chain._transact(account, {"to": game.contract.address, "data": data, "gas": 200_000, "value": 0}, ABI)
        assert caught.value.name == "NotRegistered"
        assert chain.nonce(account.address) == 1


@pytest.mark.server
def test_a_node_that_goes_away_is_told_soon(tmp_path: Path) -> None:
    with anvil_node(tmp_path) as url:
        chain = connect(url, policy=SendPolicy(unreachable_seconds=1.0))
        assert chain.head_number() == 0
    refused(chain.head_number, "does not answer")
