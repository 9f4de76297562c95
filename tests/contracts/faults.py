"""A server that stands before an IPFS daemon or gateway, real or not, and spoils its answers as a test wants."""

from __future__ import annotations

import http.client
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from contracts.bounded_http import Patience
from contracts.cid import build, cid_of, parse_cid
from contracts.errors import LedgerError
from contracts.ipfs import IpfsStore
from contracts.store import BlockStore

Answer = tuple[int, str, bytes]
"""Status, type and body."""
Target = Callable[[str, str, Mapping[str, str], bytes], Answer]
"""Method, path with query, headers, body."""


def forward_to(url: str) -> Target:
    """Ask a real server."""
    where = urlsplit(url).netloc

    def ask(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        connection = http.client.HTTPConnection(where, timeout=30)
        try:
            kept = {k: v for k, v in headers.items() if k.lower() in ("content-type", "accept")}
            connection.request(method, path, body, kept)
            answer = connection.getresponse()
            return answer.status, answer.headers.get("Content-Type", ""), answer.read()
        finally:
            connection.close()

    return ask


@dataclass
class StandIn:
    """As much of a daemon and a gateway as the store uses, in memory.

    `gateway`: what it sends for /ipfs/CID: "raw" (blocks), "files" (whole files, whatever was asked for).
    """

    blocks: dict[str, bytes] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    pins: set[str] = field(default_factory=set)
    gateway: str = "raw"
    keeps_pins: bool = True

    def keep(self, data: bytes) -> str:
        for cid, block in build(data):
            self.blocks[str(cid)] = block
        self.files[str(cid)] = data
        return str(cid)

    def __call__(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:  # noqa: PLR0911
        parts = urlsplit(path)
        query = parse_qs(parts.query)
        cid = query.get("arg", [parts.path.rpartition("/")[2]])[0]
        if method == "GET":
            return self._gateway(cid, headers)
        name = parts.path.removeprefix("/api/v0/")
        json = "application/json"
        if name == "version":
            return 200, json, b'{"Version":"0.30.0"}'
        if name == "add":
            start = body.index(b"\r\n\r\n") + 4
            cid = self.keep(body[start : body.rindex(b"\r\n--")])
            if self.keeps_pins:
                self.pins.add(cid)
            return 200, json, b'{"Name":"x","Hash":"%s","Size":"1"}' % cid.encode()
        if name == "pin/add":
            if self.keeps_pins:
                self.pins.add(cid)
            return 200, json, b'{"Pins":["%s"]}' % cid.encode()
        if name == "pin/ls" and cid in self.pins:
            return 200, json, b'{"Keys":{"%s":{"Type":"recursive"}}}' % cid.encode()
        if name == "block/get" and cid in self.blocks:
            return 200, "application/octet-stream", self.blocks[cid]
        return 500, json, b'{"Message":"not found","Code":0,"Type":"error"}'

    def _gateway(self, cid: str, headers: Mapping[str, str]) -> Answer:
        cid = str(parse_cid(cid).v1)
        if self.gateway == "raw" and cid in self.blocks:
            assert headers["Accept"] == "application/vnd.ipld.raw"
            return 200, "application/vnd.ipld.raw", self.blocks[cid]
        found = self.files.get(cid, self.blocks.get(cid) if cid.startswith("bafkrei") else None)
        return (404, "text/plain", b"no") if found is None else (200, "application/octet-stream", found)


FAULTS = (
    "none", "slow", "slow headers", "silent", "cut", "cut headers", "wrong", "empty", "500", "502 once", "403",
    "endless", "endless length", "endless line", "redirect", "gzip", "noise", "list",
)  # fmt: skip


@dataclass
class Faulty:
    """The server. `fault` spoils the answers to paths that contain `at`; `asked` counts the questions by path."""

    url: str
    target: Target
    fault: str = "none"
    at: str = ""
    asked: Counter[str] = field(default_factory=Counter)
    sent: int = 0
    hops: int = 0

    def spoil(self, fault: str, at: str = "") -> None:
        assert fault in FAULTS
        self.fault, self.at = fault, at
        self.asked.clear()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    faulty: Faulty

    def do_GET(self) -> None:
        self._do()

    def do_POST(self) -> None:
        self._do()

    def _do(self) -> None:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.read(2)
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.close_connection = True
        faulty = self.faulty
        path = urlsplit(self.path).path.removeprefix("/api/v0/")
        faulty.asked[path] += 1
        if path == "/elsewhere":
            faulty.hops += 1
        fault = faulty.fault if faulty.at in path else "none"
        with suppress(OSError):  # the client has heard enough
            self._answer(fault, faulty, path, body)

    def _answer(self, fault: str, faulty: Faulty, path: str, body: bytes) -> None:  # noqa: PLR0911
        if fault == "502 once":
            fault = "502" if faulty.asked[path] == 1 else "none"
        if fault.isdigit():
            return self._send(b"HTTP/1.1 %s No\r\nContent-Length: 3\r\n\r\nno\n" % fault.encode())
        if fault == "redirect":
            host = self.headers["Host"].encode()
            return self._send(
                b"HTTP/1.1 307 Over there\r\nLocation: http://%s/elsewhere?key=s3cret\r\nContent-Length: 0\r\n\r\n"
                % host
            )
        if fault == "silent":
            time.sleep(30)
            return None
        if fault.startswith("endless"):
            return self._endless(fault)
        if fault == "noise":
            return self._send(bytes(range(256)) * 4)
        status, kind, answer = faulty.target(self.command, self.path, self.headers, body)
        if fault == "wrong":
            answer = bytes([answer[0] ^ 1]) + answer[1:] if answer else b"x"
        if fault == "empty":
            answer = b""
        if fault == "list":
            answer = b"[[[1]]]"
        extra = b"Content-Encoding: gzip\r\n" if fault == "gzip" else b""
        head = b"HTTP/1.1 %d X\r\nContent-Type: %s\r\n%sContent-Length: %d\r\n\r\n" % (
            status, kind.encode(), extra, len(answer),
        )  # fmt: skip
        if fault == "cut headers":
            return self._send(head[: len(head) // 2])
        if fault == "cut":
            return self._send(head + answer[: len(answer) // 2])
        if fault in ("slow", "slow headers"):
            if fault == "slow":
                self._send(head)
            for byte in answer if fault == "slow" else head + answer:
                self._send(bytes([byte]))
                time.sleep(0.05)
            return None
        return self._send(head + answer)

    def _endless(self, fault: str) -> None:
        if fault == "endless line":
            self._send(b"HTTP/1.1 200 X\r\nX: ")
        elif fault == "endless length":
            self._send(b"HTTP/1.1 200 X\r\nContent-Length: 100000000000\r\n\r\n")
        else:
            self._send(b"HTTP/1.1 200 X\r\n\r\n")
        for _ in range(2000):
            self._send(bytes(1 << 17))
            self.faulty.sent += 1 << 17

    def _send(self, data: bytes) -> None:
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def faulty_server(target: Target, tls: ssl.SSLContext | None = None) -> Iterator[Faulty]:
    """The server, on the loopback address."""

    class Handler(_Handler):
        pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    Handler.faulty = Faulty(f"http{'' if tls is None else 's'}://127.0.0.1:{server.server_address[1]}", target)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield Handler.faulty
    finally:
        server.shutdown()
        server.server_close()


# -- what tests of stores beside such a server share ------------------------------------------------------------------

QUICK = Patience(tries=2, pause=0.01, connect=1.0, answer=1.0, block=0.6, file=3.0)
DATA = bytes(range(256)) * 1200
"""Two chunks and a node above them."""
CID = str(cid_of(DATA))


def store_at(folder: Path, url: str, **options: object) -> IpfsStore:
    return IpfsStore(url, BlockStore(folder), **{"patience": QUICK, **options})  # type: ignore[arg-type]


def one_line(error: LedgerError, address: str) -> None:
    """An error that names the address, on one short line, and no secret."""
    text = str(error)
    assert address in text
    assert "s3cret" not in text
    assert text.isprintable()
    assert len(text) < 700
