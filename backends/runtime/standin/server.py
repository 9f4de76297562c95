"""HTTP on the loopback address: reads requests, lets faults happen, writes answers."""

from __future__ import annotations

import re
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from backends.runtime.standin.faults import Fault, Faults
from backends.runtime.standin.record import Entry, Record
from backends.runtime.standin.replies import Call, Refused, Reply

MAX_BODY = 256 << 20
"""Bytes of a request."""
Answer = Callable[[Call], Reply]


class Server(ThreadingHTTPServer):
    """The HTTP server of a stand-in.

    Args:
        port: 0 for any that is free.
        answer: Answers a request; raises Refused.
        control: The same for paths under /standin.
        faults: What goes wrong.
        record: Where requests are written down.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, port: int, answer: Answer, control: Answer, faults: Faults, record: Record) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.answer, self.control, self.faults, self.record = answer, control, faults, record

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone away is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.0"  # a connection a request: none is left half open when the server ends
    timeout = 120.0

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: `Record` has it."""

    def do_GET(self) -> None:
        """Any method goes the same way."""
        self._serve()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        path = re.sub(r"^/api/v1(?=/)", "", parts.path.rstrip("/") or "/")
        length = self.headers.get("Content-Length", "0")
        if not length.isdigit() or int(length) > MAX_BODY:
            self._write(Refused(413, "The request is too long.").reply())
            return
        call = Call(
            method=self.command,
            path=path,
            query=parse_qs(parts.query),
            headers={key.lower(): value for key, value in self.headers.items()},
            body=self.rfile.read(int(length)),
        )
        if path.startswith("/standin/"):
            self._write(self._answer(self.server.control, call))
            return
        fault = self.server.faults.take(call)
        done = fault is None or fault.after or (fault.status is None and not fault.drop)
        if fault is not None and fault.delay:
            time.sleep(fault.delay)
        reply = self._answer(self.server.answer, call) if done else Reply(204)
        if fault is not None and fault.status is not None:
            reply = _faulty(fault, fault.status)
        dropped = fault is not None and fault.drop
        told = asdict(fault) if fault is not None else None
        self.server.record.add(Entry(call.method, call.path, 0 if dropped else reply.status, told, done))
        if dropped:
            self._drop()
        else:
            self._write(reply)

    def _answer(self, answer: Answer, call: Call) -> Reply:
        try:
            return answer(call)
        except Refused as refused:
            return refused.reply()
        except Exception as error:
            # A fault of the stand-in's own: said as such, for whoever debugs a test.
            return Refused(500, f"The stand-in failed: {type(error).__name__}: {error}").reply()

    def _drop(self) -> None:
        """Close without an answer; a reset, so that the client notices at once."""
        with suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def _write(self, reply: Reply) -> None:
        content, kind = reply.content()
        with suppress(OSError):  # the client has gone
            self.send_response(reply.status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)


def _faulty(fault: Fault, status: int) -> Reply:
    headers = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
    return Refused(status, f"The stand-in was told to answer {status}.").reply(headers)
