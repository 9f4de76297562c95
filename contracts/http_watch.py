"""Connections that are cut when their time is up, and sessions of `requests` that make no others.

A timeout of `requests` is that of one read: a server that sends a byte a second keeps its client for ever. Here a timer
cuts the connection, whatever it is busy with (TLS, sending, headers, the body). Looking up a name is the system's and
is not cut.
"""

from __future__ import annotations

import logging
import socket
import threading
from contextlib import suppress
from functools import cache
from types import TracebackType
from typing import Any

import requests


class Watch:
    """While it is entered, this thread's new connections are cut once `seconds` have passed."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.is_over = False
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True

    def __enter__(self) -> Watch:
        _current.watch = self
        self._timer.start()
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        _current.watch = None
        self._timer.cancel()
        with self._lock:
            for copy in self._sockets:
                copy.close()
            self._sockets.clear()

    def follow(self, connection: socket.socket) -> None:
        """Cut this connection too. A duplicate is kept: TLS takes the socket's descriptor away from it."""
        with self._lock:
            self._sockets.append(connection.dup())
        if self.is_over:
            self._cut()

    def _cut(self) -> None:
        self.is_over = True
        with self._lock:
            for copy in self._sockets:
                with suppress(OSError):
                    copy.shutdown(socket.SHUT_RDWR)


class _Current(threading.local):
    watch: Watch | None = None


_current = _Current()


class _Quiet(logging.Filter):
    """What urllib3 writes of a hostile answer, a traceback among it, is in the Failure too."""

    def filter(self, record: logging.LogRecord) -> bool:
        return _current.watch is None


for _name in ("urllib3.connection", "urllib3.connectionpool", "urllib3.response"):
    logging.getLogger(_name).addFilter(_Quiet())


class _Followed:
    """Part of a urllib3 connection: its sockets are followed."""

    def _new_conn(self) -> Any:
        made = super()._new_conn()  # type: ignore[misc]
        if _current.watch is not None:
            _current.watch.follow(made)
        return made


@cache
def _followed_pool(pool: Any) -> Any:
    if issubclass(pool.ConnectionCls, _Followed):
        return pool
    connection = type("FollowedConnection", (_Followed, pool.ConnectionCls), {})
    return type("FollowedPool", (pool,), {"ConnectionCls": connection})


def _follow_pools(manager: Any) -> Any:
    """Let a urllib3 pool manager make followed connections only."""
    known = manager.pool_classes_by_scheme
    manager.pool_classes_by_scheme = {scheme: _followed_pool(pool) for scheme, pool in known.items()}
    return manager


class _FollowedPools:
    """Part of a requests adapter."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)  # type: ignore[misc]
        _follow_pools(self.poolmanager)  # type: ignore[attr-defined]

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        return _follow_pools(super().proxy_manager_for(*args, **kwargs))  # type: ignore[misc]


@cache
def _followed_adapter(adapter: Any) -> Any:
    return type("FollowedAdapter", (_FollowedPools, adapter), {})


def bound_session(session: requests.Session) -> requests.Session:
    """Let a session follow its connections, take nothing compressed, and go where it is told and nowhere else."""
    kinds: dict[Any, Any] = {type(adapter): None for adapter in session.adapters.values()}
    followed = {kind: _followed_adapter(kind)() for kind in kinds}
    for prefix, adapter in list(session.adapters.items()):
        session.mount(prefix, followed[type(adapter)])
    session.headers["Accept-Encoding"] = "identity"
    # Not `allow_redirects`: even without it `requests` reads the whole body of a redirect.
    session.get_redirect_target = lambda resp: None  # type: ignore[method-assign]
    return session


def new_session() -> requests.Session:
    """A bounded session of one's own."""
    return bound_session(requests.Session())
