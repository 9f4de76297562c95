"""The store beside a real IPFS daemon (js-ipfs), and beside liars and silence."""

from __future__ import annotations

import json
import os
import threading
import time
import urllib.request
import warnings
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from contracts import ipfs
from contracts.cid import CHUNK, cid_of
from contracts.errors import ContentError, LedgerError, LedgerUnreachable
from contracts.ipfs import IpfsStore, to_multiaddr
from contracts.store import BlockStore, ContentStore, open_store
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


class Liar(BaseHTTPRequestHandler):
    """Speaks the RPC interface, and answers what the test put into `answers`."""

    answers: ClassVar[dict[str, Any]] = {}
    asked: ClassVar[list[str]] = []
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        name = self.path.removeprefix("/api/v0/").partition("?")[0]
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                self.rfile.read(size + 2)
            self.rfile.readline()
        else:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.asked.append(name)
        answer = self.answers.get(name, b"")
        if callable(answer):
            answer = answer(len([a for a in self.asked if a == name]))
        status, body = answer if isinstance(answer, tuple) else (200, answer)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for piece in body if isinstance(body, Iterator) else [body]:
                if piece:
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            self.close_connection = True  # the client has heard enough

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def liar(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, type[Liar]]]:
    monkeypatch.setattr(ipfs, "FIRST_PAUSE", 0.01)
    Liar.answers, Liar.asked = {"version": json.dumps({"Version": "0.30.0"}).encode()}, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Liar)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", Liar
    server.shutdown()
    server.server_close()


def test_a_block_that_does_not_hash_to_its_cid_is_not_believed(tmp_path: Path, liar: tuple[str, type[Liar]]) -> None:
    url, answers = liar
    store = open_store(tmp_path, url)
    wanted = str(cid_of(b"the real model"))
    answers.answers["block/get"] = b"another model"
    with pytest.raises(ContentError, match="damaged"):
        store.get(wanted, max_bytes=1000)
    assert not store.has(wanted)
    assert not BlockStore(tmp_path).has(wanted)


def test_an_endless_answer_is_cut_off(tmp_path: Path, liar: tuple[str, type[Liar]]) -> None:
    url, answers = liar
    sent = 0

    def endless(_: int) -> tuple[int, Iterator[bytes]]:
        def pieces() -> Iterator[bytes]:
            nonlocal sent
            while sent < 200 << 20:
                sent += 1 << 20
                yield bytes(1 << 20)

        return 200, pieces()

    answers.answers["block/get"] = endless
    store = open_store(tmp_path, url)
    with pytest.raises(ContentError, match="more than"):
        store.get(str(cid_of(b"x")), max_bytes=1000)
    assert sent < 100 << 20


def test_a_daemon_that_names_files_otherwise_is_refused(tmp_path: Path, liar: tuple[str, type[Liar]]) -> None:
    url, answers = liar
    store = open_store(tmp_path, url)
    answers.answers["add"] = json.dumps({"Name": "x", "Hash": str(cid_of(b"other")), "Size": "5"}).encode()
    with pytest.raises(ContentError, match="chunker"):
        store.put(b"model")


def test_a_missing_block_is_a_content_error_and_is_asked_for_once(tmp_path: Path, liar: tuple[str, type[Liar]]) -> None:
    url, answers = liar
    store = open_store(tmp_path, url)
    answers.answers["block/get"] = (
        500,
        json.dumps({"Message": "block not found", "Code": 0, "Type": "error"}).encode(),
    )
    with pytest.raises(ContentError, match="not found"):
        store.get(str(cid_of(b"nowhere")), max_bytes=1000)
    assert answers.asked.count("block/get") == 1


def test_a_passing_failure_is_tried_again(tmp_path: Path, liar: tuple[str, type[Liar]]) -> None:
    url, answers = liar
    data = b"model"
    store = open_store(tmp_path, url)
    answers.answers["block/get"] = lambda nth: (502, b"bad gateway") if nth < 3 else (200, data)
    assert store.get(str(cid_of(data)), max_bytes=10) == data
    assert answers.asked.count("block/get") == 3


def test_something_else_on_the_port(tmp_path: Path, liar: tuple[str, type[Liar]]) -> None:
    url, answers = liar
    answers.answers["version"] = b"<html>hello</html>"
    with pytest.raises(LedgerUnreachable, match="no IPFS daemon's RPC"):
        open_store(tmp_path, url)


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
def test_what_nobody_has_is_missing(ipfs_daemon: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ipfs, "FETCH_TIMEOUT", (3.0, 2.0))
    store = open_store(tmp_path, ipfs_daemon)
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
