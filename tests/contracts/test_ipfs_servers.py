"""The store beside a real IPFS daemon and its gateway (js-ipfs): garbage, kills, faults on the way."""

from __future__ import annotations

import io
import json
import os
import time
import urllib.request
from pathlib import Path

import pytest

from contracts.bounded_http import Patience
from contracts.cid import CHUNK, build, cid_of, parse_cid
from contracts.errors import ContentError, LedgerError, LedgerUnreachable
from contracts.gateway import Gateway
from contracts.ipfs import IpfsStore
from contracts.ipfs_daemon import Daemon
from contracts.store import BlockStore
from tests.contracts.faults import faulty_server, forward_to
from tests.servers import IpfsNode, free_port

pytestmark = pytest.mark.server

SIZES = (0, 1, 5000, CHUNK, CHUNK + 1, 3 * CHUNK + 7)


def rpc(url: str, path: str) -> list[dict[str, object]]:
    request = urllib.request.Request(f"{url}/api/v0/{path}", data=b"", method="POST")
    with urllib.request.urlopen(request, timeout=60) as answer:
        return [json.loads(line) for line in answer.read().splitlines()]


def blocks_of(url: str) -> set[bytes]:
    """Digests of the blocks that a daemon has."""
    return {parse_cid(str(ref["Ref"])).digest for ref in rpc(url, "refs/local?cid-base=base32")}


def test_garbage_collection_never_takes_a_model(ipfs_daemon: str, tmp_path: Path) -> None:
    store = IpfsStore(ipfs_daemon, BlockStore(tmp_path))
    files = {store.put(data): data for data in (os.urandom(size) for size in SIZES)}
    garbage = os.urandom(1000)
    daemon = Daemon(ipfs_daemon)
    daemon._client.block.put(io.BytesIO(garbage))
    assert cid_of(garbage).digest in blocks_of(ipfs_daemon)
    rpc(ipfs_daemon, "repo/gc")
    left = blocks_of(ipfs_daemon)
    assert cid_of(garbage).digest not in left, "it did collect"
    for cid, data in files.items():
        assert daemon.has_pin(cid)
        assert {block.digest for block, _ in build(data)} <= left
    assert not daemon.has_pin(str(cid_of(garbage)))


def test_a_pin_that_somebody_took_away_is_put_back(ipfs_daemon: str, tmp_path: Path) -> None:
    store = IpfsStore(ipfs_daemon, BlockStore(tmp_path))
    cid = store.put(os.urandom(CHUNK + 5))
    rpc(ipfs_daemon, f"pin/rm?arg={cid}")
    assert not store.daemon.has_pin(cid)
    store.pin(cid)
    assert store.daemon.has_pin(cid)


@pytest.mark.parametrize("size", SIZES)
def test_the_gateway_of_js_ipfs_gives_whole_files(ipfs_node: IpfsNode, tmp_path: Path, size: int) -> None:
    """It knows neither ?format=raw nor CAR: the file is cut into blocks here, and they have the CIDs asked for."""
    data = os.urandom(size)
    cid = Daemon(ipfs_node.url).add(data)
    web = Gateway(ipfs_node.gateway)
    assert dict(web.fetch(parse_cid(cid), max_bytes=size)) == dict(build(data))
    away = IpfsStore(
        f"http://127.0.0.1:{free_port()}", BlockStore(tmp_path), gateways=[ipfs_node.gateway], away_ok=True
    )
    assert away.get(cid, max_bytes=size) == data
    assert BlockStore(tmp_path).has(cid)


def test_a_file_of_a_gateway_is_bounded(ipfs_node: IpfsNode) -> None:
    cid = Daemon(ipfs_node.url).add(bytes(3 << 20))
    with pytest.raises(ContentError, match="sends more than 2097152 bytes"):
        Gateway(ipfs_node.gateway).fetch(parse_cid(cid), max_bytes=1000)


def test_the_gateway_of_js_ipfs_has_it_not(ipfs_node: IpfsNode) -> None:
    nowhere = cid_of(os.urandom(20))
    began = time.monotonic()
    with pytest.raises(ContentError, match=r"no whole answer in 1 s|HTTP status"):
        Gateway(ipfs_node.gateway, Patience(block=1.0)).fetch(nowhere)
    assert time.monotonic() - began < 3


FETCH_FAULTS = {
    "slow": "did not find|no whole answer",
    "cut": "cut its answer off",
    "wrong": "damaged",
    "500": "HTTP status 500",
    "endless": "more than",
    "endless length": "more than",
    "redirect": "not followed",
}


@pytest.mark.parametrize("fault", FETCH_FAULTS)
def test_a_fetch_over_a_bad_way_ends_in_words_then_works(ipfs_daemon: str, tmp_path: Path, fault: str) -> None:
    data = os.urandom(CHUNK + 100)
    cid = Daemon(ipfs_daemon).add(data)
    quick = Patience(tries=2, pause=0.01, block=1.0, answer=2.0, file=6.0)
    with faulty_server(forward_to(ipfs_daemon)) as way:
        store = IpfsStore(way.url, BlockStore(tmp_path), patience=quick)
        way.spoil(fault, "block/get")
        with pytest.raises(LedgerError, match=FETCH_FAULTS[fault]) as caught:
            store.get(cid, max_bytes=len(data))
        assert way.url in str(caught.value)
        assert not BlockStore(tmp_path).has(cid)
        way.spoil("502 once", "block/get")
        assert store.get(cid, max_bytes=len(data)) == data


@pytest.mark.parametrize("fault", ["cut", "500", "endless", "redirect", "silent"])
def test_a_put_over_a_bad_way_is_on_the_daemon_in_the_end(ipfs_daemon: str, tmp_path: Path, fault: str) -> None:
    """The daemon may have taken the file, though its answer was lost: putting it again changes nothing."""
    data = os.urandom(CHUNK + 100)
    quick = Patience(tries=2, pause=0.01, answer=1.0, file=1.0)
    with faulty_server(forward_to(ipfs_daemon)) as way:
        store = IpfsStore(way.url, BlockStore(tmp_path), patience=quick)
        way.spoil(fault, "add")
        with pytest.raises(LedgerUnreachable):
            store.put(data)
        assert store.waiting == (str(cid_of(data)),)
        way.spoil("none")
        slow = IpfsStore(way.url, BlockStore(tmp_path))
        assert slow.push() == 1
        assert slow.push() == 0
        assert slow.daemon.has_pin(str(cid_of(data)))


def test_a_daemon_that_is_killed_and_comes_back(tmp_path: Path) -> None:
    """Nothing that was acknowledged is lost, before the kill, while it is away, or after garbage collection."""
    home = tmp_path / "ipfs"
    home.mkdir()
    node = IpfsNode.init(home)
    mine = [os.urandom(size) for size in (10, CHUNK + 1, 777)]
    with node.daemon():
        store = IpfsStore(node.url, BlockStore(tmp_path / "mine"), away_ok=True)
        assert store.version is not None
        cids = [store.put(mine[0])]
        assert store.waiting == ()
    cids += [store.put(data) for data in mine[1:]]
    assert list(store.waiting) == cids[1:]
    with pytest.raises(LedgerUnreachable, match=r"connection refused.*ipfs daemon"):
        store.push()
    with node.daemon():
        assert store.push() == 2
        assert store.waiting == ()
        rpc(node.url, "repo/gc")
        other = IpfsStore(node.url, BlockStore(tmp_path / "other"))
        assert [other.get(cid, max_bytes=len(data)) for cid, data in zip(cids, mine, strict=True)] == mine
        assert all(other.daemon.has_pin(cid) for cid in cids)
