"""The way to a JSON-RPC node: questions asked again while it restarts, answers bounded in size and time.

Only what asks is repeated here. What sends is not: whether a transaction arrived is for contracts/sending.py to find
out, by its hash, before it is given out again.
"""

from __future__ import annotations

import json
import re
import threading
import time
from typing import Any, cast

import requests
import urllib3
from web3 import HTTPProvider
from web3.exceptions import Web3RPCError
from web3.types import RPCEndpoint, RPCResponse

CONNECT_SECONDS = 3.0
ANSWER_SECONDS = 30.0
"""How long a node may take for an answer, its last byte included."""
MOST_BYTES = 256 << 20
"""Longest answer: the logs of a task with 255 nodes over thousands of rounds are some tens of MiB."""
PROBE_SECONDS = 4.5
"""How long a node may take to answer at all; a name that does not resolve included."""
_LONGEST_PAUSE = 2.0
_ASKS = (
    "eth_get",
    "eth_call",
    "eth_estimateGas",
    "eth_blockNumber",
    "eth_chainId",
    "eth_gasPrice",
    "eth_accounts",
    "eth_maxPriorityFeePerGas",
    "eth_feeHistory",
    "net_",
    "web3_",
)
"""Methods that change nothing, by how their names begin."""
_BUSY = (408, 425, 429)
_DEPTH = 32
_TEXT = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


class NodeProvider(HTTPProvider):
    """web3's way over HTTP, with patience.

    Attributes:
        patience: Seconds for which a question is asked again of a node that does not answer, or not with JSON-RPC.
        answer_seconds: How long one answer may take.
    """

    # A contract must not make its readers fetch URLs (EIP-3668).
    global_ccip_read_enabled = False

    def __init__(self, url: str, *, patience: float = 0.0, answer_seconds: float = ANSWER_SECONDS) -> None:
        super().__init__(url, exception_retry_configuration=None)
        self.patience = patience
        self.answer_seconds = answer_seconds
        self._local = threading.local()

    def make_request(self, method: RPCEndpoint, params: Any) -> RPCResponse:
        """Ask the node; see the class for what is asked again.

        Raises:
            requests.RequestException: no answer, or an HTTP status that is none.
            ValueError: what answers is no JSON-RPC node, or says too much.
        """
        end = time.monotonic() + (self.patience if method.startswith(_ASKS) else 0.0)
        pause = 0.1
        data = self.encode_rpc_request(method, params)
        while True:
            try:
                return self._understand(self._post(data))
            except (requests.RequestException, ValueError) as error:
                if not _may_pass(error) or time.monotonic() + pause > end:
                    raise
            time.sleep(pause)
            pause = min(_LONGEST_PAUSE, 2 * pause)

    def _post(self, data: bytes) -> bytes:
        end = time.monotonic() + self.answer_seconds
        limits = (min(CONNECT_SECONDS, self.answer_seconds), self.answer_seconds)
        headers = self.get_request_headers()
        # A node shall not choose whom this machine asks: a redirect is not followed, and is no answer.
        with self._session().post(
            str(self.endpoint_uri), data=data, headers=dict(headers), timeout=limits, stream=True
        ) as answer:
            if answer.status_code != 200:
                raise requests.HTTPError(response=answer)
            found = bytearray()
            try:
                while part := answer.raw.read1(1 << 16, decode_content=True):
                    found += part
                    if len(found) > MOST_BYTES:
                        raise requests.exceptions.ContentDecodingError(f"more than {MOST_BYTES >> 20} MiB")
                    if time.monotonic() > end:
                        raise requests.ReadTimeout("an answer that does not end")
            except urllib3.exceptions.HTTPError as error:
                raise requests.ConnectionError(f"an answer that is cut off ({type(error).__name__})") from None
        return bytes(found)

    def _session(self) -> requests.Session:
        """One a thread: sessions are not made to be shared."""
        if not hasattr(self._local, "session"):
            session = requests.Session()
            # Not `allow_redirects`: without it `requests` still reads the whole body of a redirect.
            session.get_redirect_target = lambda resp: None  # type: ignore[method-assign]
            self._local.session = session
        return cast(requests.Session, self._local.session)

    def _understand(self, raw: bytes) -> RPCResponse:
        try:
            answer = self.decode_rpc_response(raw) if _is_shallow(raw) else cast(RPCResponse, None)
        except ValueError:
            answer = cast(RPCResponse, None)
        if not isinstance(answer, dict) or not ("result" in answer or answer.get("error")):
            raise json.JSONDecodeError("no JSON-RPC answer", "", 0)
        return answer


def _is_shallow(raw: bytes) -> bool:
    """Whether JSON is nested no deeper than any answer is.

    py-evm raises Python's limit of recursion so far that the decoder's own recursion ends the process.
    """
    if raw.count(b"[") + raw.count(b"{") <= _DEPTH:
        return True
    brackets = _TEXT.sub(b"", raw).translate(None, _NO_BRACKETS)
    for _ in range(_DEPTH):
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
        if not brackets:
            return True
    return False


def _may_pass(error: Exception) -> bool:
    """Whether it is what a node or a proxy before it shows while it restarts, or is busy."""
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return error.response.status_code >= 500 or error.response.status_code in _BUSY
    if isinstance(error, requests.exceptions.ContentDecodingError):
        return False
    return isinstance(error, (requests.ConnectionError, requests.Timeout, json.JSONDecodeError))


def first_answer(provider: NodeProvider, method: str) -> int:
    """The number that a node answers to its first question, within PROBE_SECONDS.

    Raises:
        TimeoutError: it takes longer: resolving a name knows no time limit of its own.
        requests.RequestException, ValueError: no answer, or none of a JSON-RPC node.
    """
    outcome: list[int | BaseException] = []

    def attempt() -> None:
        try:
            answer = provider.make_request(RPCEndpoint(method), [])
            if "result" not in answer:
                raise Web3RPCError(str(answer.get("error")), rpc_response=answer)
            outcome.append(int(str(answer["result"]), 16))
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    if not outcome:
        raise TimeoutError
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]
