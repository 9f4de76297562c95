"""The server of the pages: on the loopback address alone, GET alone, no script but the pages' own.

A page of another site that a browser shows cannot read what is served here: a request whose Host is not this machine's
own name is refused (so that a name which somebody lets point here is of no use), nothing is allowed across origins, and
there is nothing that a request could change.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from circuits.errors import QrunError, UsageError
from runner.dashboard import state

HOST = "127.0.0.1"
PORT = 8765
HOSTS = ("127.0.0.1", "localhost")
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

_drawing = threading.Lock()
"""matplotlib's settings are one for all threads."""


def application() -> Starlette:
    """The pages: /, and /runs/NAME."""
    return Starlette(
        routes=[
            Route("/", _overview, methods=["GET"]),
            Route("/runs/{name}", _run, methods=["GET"]),
        ],
        middleware=[
            Middleware(BaseHTTPMiddleware, dispatch=_guard),
            Middleware(TrustedHostMiddleware, allowed_hosts=list(HOSTS), www_redirect=False),
        ],
        exception_handlers={Exception: _failed},
    )


async def _guard(request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
    response = await go_on(request)
    for name, value in HEADERS.items():
        response.headers[name] = value
    return response


def _failed(request: Request, error: Exception) -> Response:
    """Without what went wrong: that is for who started it."""
    return PlainTextResponse("This page cannot be made.", status_code=500, headers=HEADERS)


def _overview(request: Request) -> Response:
    with _drawing:
        return HTMLResponse(state.overview())


def _run(request: Request) -> Response:
    info = state.find(str(request.path_params["name"]))
    if info is None:
        return PlainTextResponse("There is no such run.", status_code=404)
    try:
        with _drawing:
            return HTMLResponse(state.run_page(info))
    except QrunError as error:
        return PlainTextResponse(error.message, status_code=503)


def listen(port: int) -> socket.socket:
    """A socket on the loopback address.

    Raises:
        UsageError: The port is taken, or none.
    """
    if not 0 <= port <= 65535:
        raise UsageError(f"--port {port}: 0 to 65535; 0 takes any free one.")
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((HOST, port))
    except OSError as error:
        made.close()
        raise UsageError(
            f"port {port} on {HOST}: {error.strerror}.", "Take another with --port, or 0 for any."
        ) from None
    made.listen(64)
    return made


def serve(listening: socket.socket) -> None:
    """Serve until interrupted."""
    import uvicorn

    config = uvicorn.Config(
        application(), log_level="warning", access_log=False, server_header=False, date_header=False, lifespan="off"
    )
    server: Any = uvicorn.Server(config)
    server.run(sockets=[listening])
