"""A proxy before a JSON-RPC node that loses, spoils and changes answers as a test says."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

BODIES = {
    "html": b"<html>Bad gateway</html>",
    "list": b"[]",
    "neither": b'{"jsonrpc": "2.0", "id": 1}',
    "deep": b"[" * 100_000,
}
"""Answers that are none of a JSON-RPC node."""


class FaultProxy:
    """Passes questions on, except where it was told otherwise.

    Attributes:
        url: Its own.
        upstream: URL of the node behind it; None: there is none just now (HTTP status 502).
        asked: Method and parameters of all that was asked of it.
        changes: Method -> what to make of (parameters, result).
    """

    def __init__(self, url: str, upstream: str) -> None:
        self.url = url
        self.upstream: str | None = upstream
        self.asked: list[tuple[str, list[Any]]] = []
        self.changes: dict[str, Callable[[list[Any], Any], Any]] = {}
        self._faults: dict[str, list[str]] = defaultdict(list)

    def spoil(self, method: str, *faults: str) -> None:
        """What happens to the next questions of this method, one after the other.

        "lost": delivered, and the answer dropped; "refused": not delivered; a number: that HTTP status, not
        delivered (a redirect's body does not end); "cut": half of the answer; "drip": a byte every 0.2 s; else
        one of BODIES.
        """
        self._faults[method] += faults

    def count(self, method: str) -> int:
        """How often a method was asked."""
        return sum(name == method for name, _ in self.asked)

    def _answer(self, asked: dict[str, Any]) -> tuple[int, bytes, str]:
        method, parameters = asked["method"], asked.get("params", [])
        self.asked.append((method, parameters))
        faults = self._faults[method]
        fault = faults.pop(0) if faults else ""
        if fault == "refused":
            return 0, b"", fault
        if fault.isdigit() or self.upstream is None:
            return int(fault or 502), b"no", fault
        if fault in BODIES:
            return 200, BODIES[fault], fault
        return self._pass_on(asked, fault)

    def _pass_on(self, asked: dict[str, Any], fault: str) -> tuple[int, bytes, str]:
        method, parameters = asked["method"], asked.get("params", [])
        assert self.upstream is not None
        request = urllib.request.Request(
            self.upstream, data=json.dumps(asked).encode(), headers={"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                body = response.read()
        except OSError:
            return 502, b"nobody there", fault
        if fault == "lost":
            return 0, b"", fault
        if method in self.changes:
            answer = json.loads(body)
            if "result" in answer:
                answer["result"] = self.changes[method](parameters, answer["result"])
                body = json.dumps(answer).encode()
        return 200, body, fault


@contextmanager
def fault_proxy(upstream: str) -> Iterator[FaultProxy]:
    """A proxy before the node at `upstream`."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, body, fault = proxy._answer(asked)
            if status == 0:
                self.close_connection = True
                return
            self.send_response(status)
            redirect = 300 <= status < 400
            self.send_header(*("Location", proxy.url) if redirect else ("Content-Length", str(len(body))))
            self.end_headers()
            if redirect:
                with suppress(OSError):
                    while True:  # it does not end
                        self.wfile.write(bytes(1 << 16))
            elif fault == "cut":
                self.wfile.write(body[: len(body) // 2])
                self.close_connection = True
            elif fault == "drip":
                for byte in body:
                    try:
                        self.wfile.write(bytes([byte]))
                        self.wfile.flush()
                    except OSError:
                        return
                    time.sleep(0.2)
            else:
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    proxy = FaultProxy(f"http://127.0.0.1:{server.server_address[1]}", upstream)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
