"""The store beside a real IPFS daemon (js-ipfs), and beside liars and silence."""

from __future__ import annotations

import os
import time
import urllib.request
import warnings
from pathlib import Path

import pytest

from contracts.bounded_http import Patience
from contracts.cid import CHUNK, cid_of
from contracts.errors import ContentError, LedgerError, LedgerUnreachable
from contracts.ipfs import IpfsStore, to_multiaddr
from contracts.store import BlockStore, ContentStore, open_store
from tests.contracts.faults import Faulty, StandIn
from tests.servers import free_port


def rpc(url: str, path: str) -> bytes:
    request = urllib.request.Request(f"{url}/api/v0/{path}", data=b"", method="POST")
    with urllib.request.urlopen(request, timeout=30) as answer:
        body: bytes = answer.read()
    return body


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("http://127.0.0.1:5001", "/ip4/127.0.0.1/tcp/5001/http"),
        ("http://127.0.0.1:5001/", "/ip4/127.0.0.1/tcp/5001/http"),
        ("/ip4/127.0.0.1/tcp/5001/http", "/ip4/127.0.0.1/tcp/5001/http"),
        ("/ip4/127.0.0.1/tcp/5001", "/ip4/127.0.0.1/tcp/5001"),
        ("https://ipfs.example.org", "/dns/ipfs.example.org/tcp/443/https"),
        ("http://[::1]:5001", "/ip6/::1/tcp/5001/http"),
    ],
)
def test_addresses(address: str, expected: str) -> None:
    assert to_multiaddr(address) == expected


@pytest.mark.parametrize(
    "address", ["", "localhost:5001", "ftp://x:1", "http://", "http://x:99999", "http://u:secret@h:5001", "/ip4/x", "/"]
)
def test_what_is_no_address_is_refused_without_its_secrets(tmp_path: Path, address: str) -> None:
    with pytest.raises(LedgerError, match=r"no address of an IPFS daemon.*For example") as caught:
        open_store(tmp_path, address or "x")
    assert "secret" not in str(caught.value)


def test_no_daemon_is_told_soon_and_says_what_to_do(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(LedgerUnreachable, match=r"does not answer.*ipfs daemon") as caught:
        open_store(tmp_path, f"http://127.0.0.1:{free_port()}")
    assert time.monotonic() - began < 5
    assert "\n" not in str(caught.value)


def test_a_daemon_that_names_files_otherwise_is_refused(tmp_path: Path, daemon: tuple[Faulty, StandIn]) -> None:
    server, stand_in = daemon
    store = open_store(tmp_path, server.url)
    stand_in.keep = lambda data: str(cid_of(b"other"))  # type: ignore[method-assign]
    with pytest.raises(ContentError, match="chunker"):
        store.put(b"model")


def test_a_missing_block_is_a_content_error_and_is_asked_for_once(
    tmp_path: Path, daemon: tuple[Faulty, StandIn]
) -> None:
    server, _ = daemon
    store = open_store(tmp_path, server.url)
    with pytest.raises(ContentError, match="not found"):
        store.get(str(cid_of(b"nowhere")), max_bytes=1000)
    assert server.asked["block/get"] == 1


@pytest.mark.parametrize(
    "fault", ["noise", "list", "empty", "endless", "endless length", "redirect", "403", "slow headers"]
)
def test_something_else_on_the_port(tmp_path: Path, daemon: tuple[Faulty, StandIn], fault: str) -> None:
    server, _ = daemon
    server.spoil(fault)
    quick = Patience(tries=1, pause=0.01, answer=0.4)
    with pytest.raises(LedgerUnreachable, match=r"no IPFS daemon's RPC|does not answer|no whole answer") as caught:
        IpfsStore(server.url, BlockStore(tmp_path), patience=quick)
    assert server.url in str(caught.value)
    assert server.sent < 32 << 20


@pytest.mark.server
def test_a_real_daemon_gives_the_same_cids_and_pins(tmp_path: Path, ipfs_daemon: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store = open_store(tmp_path / "a", ipfs_daemon)
    assert isinstance(store, IpfsStore)
    assert isinstance(store, ContentStore)
    assert store.kind == "ipfs"
    for size in (0, 1, 1000, CHUNK, CHUNK + 1, 3 * CHUNK + 7, 175 * CHUNK + 1):
        data = os.urandom(min(size, 999)) * (size // 999 + 1)
        data = data[:size]
        cid = store.put(data)  # compares the daemon's CID with our own
        assert cid == str(cid_of(data))
        pinned = rpc(ipfs_daemon, f"pin/ls?arg={cid}&type=recursive&cid-base=base32")
        assert cid in pinned.decode()
        # A node that has none of the blocks gets the file from the daemon.
        other = open_store(tmp_path / f"b{size}", ipfs_daemon)
        assert other.get(cid, max_bytes=size) == data
        other.close()
        assert BlockStore(tmp_path / f"b{size}").get(cid, max_bytes=size) == data
        if size:
            with pytest.raises(ContentError, match="larger than"):
                store.get(cid, max_bytes=size - 1)
    store.close()


@pytest.mark.server
def test_the_known_cid_of_two_chunks(ipfs_daemon: str, tmp_path: Path) -> None:
    """Holds the constant of test_cid.py against another implementation."""
    store = open_store(tmp_path, f"/ip4/127.0.0.1/tcp/{ipfs_daemon.rpartition(':')[2]}/http")
    assert store.put(bytes(CHUNK) + b"x") == "bafybeihny4fdeqw4k2twhj77h7iojp6wnkmpb6yrwzonlsd7hc5p4qoea4"


@pytest.mark.server
def test_what_nobody_has_is_missing(ipfs_daemon: str, tmp_path: Path) -> None:
    store = IpfsStore(ipfs_daemon, BlockStore(tmp_path), patience=Patience(block=2.0))
    nowhere = str(cid_of(os.urandom(20)))
    with pytest.raises(ContentError, match=r"did not find block|refused block"):
        store.get(nowhere, max_bytes=100)
    assert not store.has(nowhere)


@pytest.mark.server
def test_a_damaged_local_block_is_mended_from_the_daemon(ipfs_daemon: str, tmp_path: Path) -> None:
    store = open_store(tmp_path, ipfs_daemon)
    data = os.urandom(5000)
    cid = store.put(data)
    path = next(tmp_path.glob(f"??/{cid}"))
    path.write_bytes(b"torn" + data[4:])
    assert store.get(cid, max_bytes=5000) == data
    assert path.read_bytes() == data
