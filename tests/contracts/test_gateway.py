"""Gateways beside the daemon, or alone, behind a server that spoils their answers."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from contracts.bounded_http import Patience
from contracts.cid import CHUNK, build, cid_of
from contracts.errors import ContentError, LedgerError, LedgerUnreachable
from contracts.gateway import Gateway
from contracts.store import BlockStore
from tests.contracts.faults import CID, DATA, QUICK, Faulty, StandIn, faulty_server, one_line, store_at
from tests.servers import free_port


@pytest.mark.parametrize("form", ["raw", "files"])
@pytest.mark.parametrize("size", [0, 1, CHUNK, CHUNK + 1, 3 * CHUNK + 9])
def test_a_gateway_fills_in_for_a_daemon_that_has_it_not(
    tmp_path: Path, daemon: tuple[Faulty, StandIn], gateway: tuple[Faulty, StandIn], form: str, size: int
) -> None:
    server, _ = daemon
    web, behind = gateway
    behind.gateway = form
    data = os.urandom(size)
    cid = behind.keep(data)
    store = store_at(tmp_path, server.url, gateways=[web.url], patience=Patience(pause=0.01))
    assert store.get(cid, max_bytes=size) == data
    assert server.asked["block/get"] == 1, "who has it not is asked last from then on"
    assert BlockStore(tmp_path).get(cid, max_bytes=size) == data


def test_a_gateway_of_files_mends_a_file_whose_nodes_are_here_in_part(
    tmp_path: Path, daemon: tuple[Faulty, StandIn], gateway: tuple[Faulty, StandIn]
) -> None:
    """Its last node has one leaf: that node's file is the leaf's, whose CID is another."""
    web, behind = gateway
    behind.gateway = "files"
    data = bytes(174 * CHUNK) + b"x"
    cid = behind.keep(data)
    store = store_at(tmp_path, daemon[0].url, gateways=[web.url], patience=Patience(pause=0.01))
    assert store.get(cid, max_bytes=len(data)) == data
    nodes = [path for path in tmp_path.glob("??/bafybei*") if path.name != cid]
    assert len(nodes) == 2
    for node in nodes:
        node.unlink()
    assert store.get(cid, max_bytes=len(data)) == data


def test_gateways_serve_while_the_daemon_is_away(tmp_path: Path, gateway: tuple[Faulty, StandIn]) -> None:
    web, _ = gateway
    store = store_at(tmp_path, f"http://127.0.0.1:{free_port()}", gateways=[web.url], away_ok=True)
    assert store.get(CID, max_bytes=len(DATA)) == DATA


GATEWAY_FAULTS = {
    "slow": (ContentError, "gave no whole answer in"),
    "silent": (ContentError, "gave no whole answer in"),
    "cut": (LedgerUnreachable, "cut its answer off"),
    "wrong": (ContentError, "damaged"),
    "500": (LedgerUnreachable, "HTTP status 500"),
    "403": (ContentError, "HTTP status 403"),
    "endless": (ContentError, "more than"),
    "endless length": (ContentError, "more than"),
    "redirect": (ContentError, r"redirects to .*\*\*\*.*not followed"),
    "gzip": (ContentError, "compressed"),
    "noise": (LedgerUnreachable, "does not answer"),
}


@pytest.mark.parametrize("form", ["raw", "files"])
@pytest.mark.parametrize("fault", GATEWAY_FAULTS)
def test_a_spoilt_gateway_ends_in_words_and_the_next_is_asked(
    tmp_path: Path, daemon: tuple[Faulty, StandIn], gateway: tuple[Faulty, StandIn], fault: str, form: str
) -> None:
    web, behind = gateway
    behind.gateway = form
    web.spoil(fault, "/ipfs/")
    kind, words = GATEWAY_FAULTS[fault]
    if (fault, form) == ("wrong", "files"):
        words = "does not have that CID"
    began = time.monotonic()
    with pytest.raises(kind, match=words) as caught:
        Gateway(web.url, QUICK).fetch(cid_of(DATA), max_bytes=len(DATA))
    assert time.monotonic() - began < 8
    one_line(caught.value, web.url)
    assert web.sent < 32 << 20
    assert web.hops == 0
    # The daemon says that it has it not, so it is missing, whoever else was asked; all are named.
    server = daemon[0]
    store = store_at(tmp_path, server.url, gateways=[web.url])
    with pytest.raises(ContentError, match="could be had nowhere") as both:
        store.get(CID, max_bytes=len(DATA))
    one_line(both.value, web.url)
    assert server.url in str(both.value)
    assert not store.has(CID)
    with faulty_server(behind) as good:
        store = store_at(tmp_path, server.url, gateways=[web.url, good.url])
        assert store.get(CID, max_bytes=len(DATA)) == DATA


def test_a_file_cut_in_another_way_comes_from_a_gateway_of_blocks_only(gateway: tuple[Faulty, StandIn]) -> None:
    web, behind = gateway
    for cid, block in build(DATA, chunk=1000):
        behind.blocks[str(cid)] = block
    behind.files[str(cid)] = DATA
    assert Gateway(web.url, QUICK).fetch(cid)[0][0] == cid
    behind.gateway = "files"
    with pytest.raises(ContentError, match="cut into blocks in another way"):
        Gateway(web.url, QUICK).fetch(cid)


@pytest.mark.parametrize(
    "address",
    ["", "gateway.example.org", "ftp://x", "http://", "https://u:s3cret@h", "https://h/ipfs", "https://h?key=s3cret",
     "http://h:99999", "http://[::1"],
)  # fmt: skip
def test_what_is_no_address_of_a_gateway(address: str) -> None:
    with pytest.raises(LedgerError, match=r"no address of an IPFS gateway.*For example") as caught:
        Gateway(address)
    assert "s3cret" not in str(caught.value)


def test_a_gateway_through_a_proxy_is_bounded_too(
    gateway: tuple[Faulty, StandIn], monkeypatch: pytest.MonkeyPatch
) -> None:
    web, _ = gateway
    monkeypatch.setenv("HTTP_PROXY", web.url)
    monkeypatch.setenv("http_proxy", web.url)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    asked = Gateway("http://gateway.invalid", QUICK)
    assert asked.fetch(cid_of(DATA))
    web.spoil("slow headers", "/ipfs/")
    began = time.monotonic()
    with pytest.raises(ContentError, match="no whole answer"):
        asked.fetch(cid_of(DATA))
    assert time.monotonic() - began < 4


def test_a_gateway_whose_tls_nobody_vouches_for(gateway: tuple[Faulty, StandIn]) -> None:
    web, _ = gateway
    with pytest.raises(LedgerUnreachable, match=r"certificate|does not answer"):
        Gateway(web.url.replace("http:", "https:"), QUICK).fetch(cid_of(DATA))


def test_a_name_that_nobody_knows() -> None:
    with pytest.raises(LedgerUnreachable, match="does not answer"):
        Gateway("http://gateway.invalid", QUICK).fetch(cid_of(DATA))
