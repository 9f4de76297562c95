"""A wire between a peer and a server that can be cut: a TCP proxy on the loopback address."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress


class Link:
    """Passes bytes on while it is whole; cut, it drops what is open and takes nothing new.

    Attributes:
        port: Its own.
        upstream: Host and port behind it.
    """

    def __init__(self, upstream: tuple[str, int]) -> None:
        self.upstream = upstream
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        self._whole = threading.Event()
        self._whole.set()
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        """Where the peer finds it."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def whole(self) -> bool:
        """Whether it passes anything on."""
        return self._whole.is_set()

    def cut(self) -> None:
        """Drop all connections, in the middle of whatever they carry."""
        self._whole.clear()
        with self._lock:
            for end in self._open:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """Pass on again."""
        self._whole.set()

    def close(self) -> None:
        """For good."""
        self.cut()
        self._server.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        with near:
            if not self.whole:
                return
            try:
                far = socket.create_connection(self.upstream, timeout=5)
            except OSError:
                return
            with far:
                far.settimeout(None)
                with self._lock:
                    self._open |= {near, far}
                back = threading.Thread(target=self._pump, args=(far, near), daemon=True)
                back.start()
                self._pump(near, far)
                back.join()
                with self._lock:
                    self._open -= {near, far}

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while self.whole and (data := source.recv(1 << 16)):
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
