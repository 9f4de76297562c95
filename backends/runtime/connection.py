"""QiskitRuntimeService with two habits less: it repeats no POST, and looks for no instance of a stand-in at IBM."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import requests
from qiskit_ibm_runtime import QiskitRuntimeService
from qiskit_ibm_runtime.api.client import RuntimeClient
from qiskit_ibm_runtime.api.session import STATUS_FORCELIST, PostForcelistRetry
from requests.adapters import HTTPAdapter
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError
from urllib3.util.retry import Retry

from backends.runtime.account import is_ibm
from circuits.hostile import too_deep

TIMEOUT = (10.0, 120.0)
"""Seconds to connect, and between two pieces of an answer; the client's own are 5 and for ever."""
LARGEST = 1 << 30
"""Bytes of an answer; ten million shots of 127 qubits have a sixth of it."""
DEEPEST = 100
"""Brackets in brackets of an answer in JSON: Python's parser recurses in C, and py-evm, which a run has in its process
too, raises the limit of recursion so far that a deep text ends the process."""


class Once(PostForcelistRetry):
    """The client's way to repeat requests, without POST: a lost answer does not say that nothing was done.

    A POST is repeated only where no connection came about, so that nobody can have read it.
    """

    def is_retry(self, method: str, status_code: int, has_retry_after: bool = False) -> bool:
        """Whether an answer with this status is asked for again."""
        if method.upper() == "POST":
            return False
        return bool(super().is_retry(method, status_code, has_retry_after))

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: Any = None,
        error: Exception | None = None,
        _pool: Any = None,
        _stacktrace: Any = None,
    ) -> Retry:
        """The next attempt; raises where there is to be none."""
        unheard = isinstance(error, ConnectTimeoutError | NewConnectionError)
        if error is not None and (method or "").upper() == "POST" and not unheard:
            raise error
        return super().increment(method, url, response, error, _pool, _stacktrace)


class Adapter(HTTPAdapter):
    """Waits for no answer for ever, and reads none that is larger than `LARGEST` or nested more than `DEEPEST`."""

    def send(self, request: Any, *arguments: Any, **options: Any) -> Any:
        """Send a request, and read its answer.

        Raises:
            ConnectionError: The answer is too large, or nested too deeply.
        """
        # The client sets no timeout at all for an account with proxies.
        options["timeout"] = options.get("timeout") or TIMEOUT
        response = super().send(request, *arguments, **options)
        pieces, size = [], 0
        try:
            for piece in response.iter_content(1 << 20):
                pieces.append(piece)
                size += len(piece)
                if size > LARGEST:
                    raise requests.ConnectionError(f"an answer of more than {LARGEST} bytes", request=request)
        except BaseException:
            response.close()
            raise
        body = b"".join(pieces)
        brackets = body.count(b"[") + body.count(b"{")
        if brackets > DEEPEST and (b"\0" in body or too_deep(body, DEEPEST)):
            raise requests.ConnectionError(f"an answer that is nested more than {DEEPEST} deep", request=request)
        response._content, response._content_consumed = body, True
        return response


def _stay(follow: Callable[[Any], str | None]) -> Callable[[Any], str | None]:
    """Where an answer leads to: nowhere for a POST, which would be sent anew there."""
    return lambda response: None if response.request.method == "POST" else follow(response)


class Service(QiskitRuntimeService):
    """QiskitRuntimeService whose clients, also those that it makes later, repeat no POST.

    Its constructor logs why an instance lists no devices and goes on; `check` raises it.
    """

    def __init__(self, **account: Any) -> None:
        self._unlisted: dict[str, Exception] = {}
        super().__init__(**account)
        for client in (self._active_api_client, *self._api_clients.values()):
            self._adapt(client)

    def _adapt(self, client: RuntimeClient) -> RuntimeClient:
        """Let a client repeat no POST, and remember why it lists no devices."""
        if getattr(client, "_qrun", False):
            return client
        repeat_no_post(client)
        ask_again_at_once(client)
        list_backends = client.list_backends

        def remembering(include_mocks: bool = False) -> list[dict[str, Any]]:
            try:
                found: list[dict[str, Any]] = list_backends(include_mocks)
            except Exception as error:
                self._unlisted[client._instance] = error
                raise
            self._unlisted.pop(client._instance, None)
            return found

        client.list_backends = remembering
        client._qrun = True
        return client

    def _create_new_cloud_api_client(self, instance: str) -> RuntimeClient:
        return self._adapt(super()._create_new_cloud_api_client(instance))

    def _discover_backends_from_instance(self, instance: str) -> list[tuple[str, bool]]:
        self._adapt(self._active_api_client)
        return super()._discover_backends_from_instance(instance)

    def instances(self) -> Sequence[dict[str, Any]]:
        """The account's instances; of a service that is not IBM's, and names no search, the one that was given."""
        searched = is_ibm(self._account.url) or os.environ.get("GLOBAL_SEARCH_URL")
        if self._account.instance and not searched:
            crn = self._account.instance
            return [{"crn": crn, "plan": "unknown", "name": "", "tags": [], "pricing_type": "unknown"}]
        return super().instances()

    def devices(self) -> list[dict[str, Any]]:
        """What the service lists of its devices now, with status and queue; of all instances in use."""
        return [entry for client in self._api_clients.values() for entry in client.list_backends(False)]

    def check(self) -> None:
        """Raise what kept all instances from listing their devices; one of several may."""
        if self._unlisted and not self._backends_info_per_instance:
            raise next(iter(self._unlisted.values()))


def repeat_no_post(client: RuntimeClient) -> None:
    """Switch off the repetition of POST requests; all others keep theirs."""
    session = client._session
    old = session.get_adapter("https://cloud.ibm.com").max_retries
    retry = Once(
        total=old.total,
        connect=old.connect,
        # What the client means by `connect`: a refused connection and an unknown host are "other" in urllib3 2.
        other=old.connect,
        backoff_factor=old.backoff_factor,
        status_forcelist=STATUS_FORCELIST,
    )
    for prefix in ("http://", "https://"):
        session.mount(prefix, Adapter(max_retries=retry))
    session._timeout = TIMEOUT
    session.get_redirect_target = _stay(session.get_redirect_target)


def ask_again_at_once(client: RuntimeClient) -> None:
    """Let the next request ask for an access token again where one could not be had.

    ibm-cloud-sdk-core takes a request that failed for one that is still on its way, and waits a minute for it.
    """
    tokens = client._session.auth.tm
    request_token = tokens.request_token

    def asking() -> Any:
        try:
            return request_token()
        except Exception:
            tokens.request_time = 0
            raise

    tokens.request_token = asking
