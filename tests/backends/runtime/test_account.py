"""The account: where it is found, what is told of failures, and that no POST is repeated."""

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jwt
import pytest
from ibm_cloud_sdk_core import ApiException
from qiskit_ibm_runtime.accounts.exceptions import AccountNotFoundError, InvalidAccountError
from qiskit_ibm_runtime.api.exceptions import RequestsApiError
from qiskit_ibm_runtime.exceptions import IBMNotAuthorizedError
from requests import exceptions as requests_errors

from backends.runtime import account
from backends.runtime.account import available, connect, open_service, resolve_url
from backends.runtime.errors import ServiceError
from backends.runtime.explain import explain, redact, saved_accounts

TOKEN = "kD9-not-a-real-token-7Qx"
CRN = "crn:v1:bluemix:public:quantum-computing:us-east:a/abc:def::"


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    for name in ("TOKEN", "CHANNEL", "INSTANCE", "URL"):
        monkeypatch.delenv(f"QISKIT_IBM_{name}", raising=False)
    monkeypatch.delenv("QISKIT_FUNCTIONS_EXPERIMENTAL", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    account.disconnect()


class Server(ThreadingHTTPServer):
    """Answers every request with the status that `script` holds for it next, 200 after that, and counts them."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: Counter[str] = Counter()
        self.script: dict[str, list[int]] = {}
        self.hang_up: set[str] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = f"{self.command} {self.path.partition('?')[0]}"
        self.server.asked[path] += 1
        if path in self.server.hang_up:
            self.close_connection = True
            return
        status = self.server.script[path].pop(0) if self.server.script.get(path) else 200
        now = int(time.time())
        # The client reads the times in it; where it cannot, every later request waits a minute for the one before.
        pass_ = jwt.encode({"iat": now, "exp": now + 3600}, "k" * 32, algorithm="HS256")
        body = {"devices": [], "jobs": [], "count": 0, "access_token": pass_, "refresh_token": "none"}
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_DELETE = do_PATCH = answer

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        monkeypatch.setenv("IAM_URL", server.url)
        monkeypatch.setenv("QISKIT_IBM_URL", server.url)
        monkeypatch.setenv("QISKIT_IBM_TOKEN", TOKEN)
        monkeypatch.setenv("QISKIT_IBM_INSTANCE", CRN)
        yield server
        server.shutdown()


def test_without_an_account_it_says_what_to_do(tmp_path) -> None:
    assert not available()
    with pytest.raises(ServiceError, match="qrun login"):
        connect()
    assert not list(tmp_path.iterdir())  # looking makes no file


def test_one_connection_a_process_and_account(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    assert available()
    first = connect()
    assert connect() is first
    assert first.active_instance() == CRN
    assert server.asked["GET /backends"] == 1
    monkeypatch.setenv("QISKIT_IBM_TOKEN", TOKEN + "2")
    assert connect() is not first


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_no_post_is_repeated_and_every_get_is(server: Server, status: int) -> None:
    client = connect()._active_api_client
    server.script = {"POST /jobs": [status], "GET /jobs": [status], "POST /sessions": [status]}
    with pytest.raises(Exception, match=str(status) if status != 503 else "maintenance"):
        client.program_run("sampler", "ibm_x", {}, None, None, None)
    with pytest.raises(Exception, match=r"error|maintenance|Server"):
        client.create_session("ibm_x")
    assert server.asked["POST /jobs"] == server.asked["POST /sessions"] == 1
    assert client.jobs_get()["count"] == 0
    assert server.asked["GET /jobs"] == 2


def test_no_post_is_repeated_by_clients_that_the_service_makes_later(server: Server) -> None:
    service = connect()
    service.jobs(instance=CRN.replace("def", "other"))
    client = service._active_api_client
    assert client._instance != CRN
    server.script = {"POST /jobs": [502]}
    with pytest.raises(RequestsApiError):
        client.program_run("sampler", "ibm_x", {}, None, None, None)
    assert server.asked["POST /jobs"] == 1


def test_a_post_whose_answer_is_lost_is_not_repeated(server: Server) -> None:
    client = connect()._active_api_client
    server.hang_up = {"POST /jobs"}
    with pytest.raises(RequestsApiError):
        client.program_run("sampler", "ibm_x", {}, None, None, None)
    assert server.asked["POST /jobs"] == 1


def test_an_access_token_that_was_not_had_is_asked_for_again_at_once(server: Server) -> None:
    service = connect()
    client = service._active_api_client
    client._session.auth.tm.access_token, client._session.auth.tm.expire_time = None, 0  # it is over
    server.script = {"POST /identity/token": [500, 500, 500, 500, 500]}
    started = time.monotonic()
    for _ in range(2):  # the key is sent instead, and the next request asks anew
        client.jobs_get()
    assert client._session.auth.tm.access_token is None
    server.script = {}
    client.jobs_get()
    assert client._session.auth.tm.access_token is not None
    assert time.monotonic() - started < 30


@pytest.mark.parametrize(("status", "told"), [(401, "token is refused"), (403, "Forbidden"), (429, "too many")])
def test_a_refusal_is_told_when_connecting(server: Server, status: int, told: str) -> None:
    server.script = {"GET /backends": [status] * 9}
    with pytest.raises(ServiceError, match=told) as error:
        connect()
    assert TOKEN not in str(error.value)
    assert error.value.__suppress_context__


def test_a_service_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IAM_URL", "http://127.0.0.1:9")
    with pytest.raises(ServiceError, match="cannot be reached"):
        open_service(TOKEN, instance=CRN, url="http://127.0.0.1:9")


def test_a_foreign_url_needs_the_instance() -> None:
    with pytest.raises(ServiceError, match="QISKIT_IBM_INSTANCE"):
        open_service(TOKEN, url="http://127.0.0.1:9")
    with pytest.raises(ServiceError, match="unknown channel"):
        open_service(TOKEN, channel="ibm_quantum")


@pytest.mark.parametrize("url", ["http://example.org", "http://127.1.example.org:80", "ftp://127.0.0.1", "127.0.0.1"])
def test_the_token_is_not_sent_in_the_clear(url: str) -> None:
    with pytest.raises(ServiceError, match="in the clear"):
        open_service(TOKEN, instance=CRN, url=url)


def test_urls() -> None:
    assert resolve_url("http://127.0.0.1:80/api/", CRN) == "http://127.0.0.1:80/api"
    assert resolve_url("https://cloud.ibm.com", CRN) == "https://quantum.cloud.ibm.com/api/v1"
    there = CRN.replace("us-east", "eu-de")
    assert resolve_url("https://cloud.ibm.com", there) == "https://eu-de.quantum.cloud.ibm.com/api/v1"
    assert resolve_url("https://cloud.ibm.com.example.org/", CRN) == "https://cloud.ibm.com.example.org"


def chained(outer: Exception, inner: Exception) -> Exception:
    outer.__cause__ = inner
    return outer


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (AccountNotFoundError("Unable to find account."), "no account"),
        (IBMNotAuthorizedError("401 Client Error"), "token is refused"),
        (chained(InvalidAccountError("Unable to retrieve instances."), ApiException(400)), "token is refused"),
        (chained(InvalidAccountError("x"), requests_errors.ConnectionError("y")), "cannot be reached"),
        (RequestsApiError("Max retries exceeded", -1), "cannot be reached"),
        (RequestsApiError("no", 502), "in trouble"),
        (RequestsApiError("no", 429), "too many requests"),
        (RequestsApiError("not authorized to run a session", 403), "not authorized to run a session"),
        (InvalidAccountError(f"Invalid `token` value, got '{TOKEN}'."), "Invalid `token` value, got '...'"),
        (ValueError(f"two\nlines and Bearer {TOKEN}x"), "two lines and Bearer .."),
    ],
)
def test_failures_are_explained_in_one_line_without_the_token(error: Exception, told: str) -> None:
    explained = explain(error, "no device", secrets=(TOKEN,))
    assert told in str(explained)
    assert "\n" not in str(explained)
    assert TOKEN not in str(explained)
    assert explained.hint


def test_tokens_that_are_known_here_are_redacted(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    file = tmp_path / ".qiskit" / "qiskit-ibm.json"
    file.parent.mkdir()
    file.write_text(json.dumps({"default": {"token": "saved-token-1"}, "odd": 3}))
    monkeypatch.setenv("QISKIT_IBM_TOKEN", TOKEN)
    assert list(saved_accounts()) == ["default"]
    assert redact(f"{TOKEN} and saved-token-1, apikey other") == "... and ..., apikey ..."
    file.write_text("[1, 2")
    assert saved_accounts() == {}
    monkeypatch.delenv("QISKIT_IBM_TOKEN")
    assert not available()
