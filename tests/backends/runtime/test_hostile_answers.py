"""Answers that the service would not give, or that somebody on the way gives in its place."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace
from typing import Any

import pytest
from qiskit_ibm_runtime.api.exceptions import RequestsApiError
from qiskit_ibm_runtime.api.session import RetrySession
from requests.adapters import HTTPAdapter

from backends.runtime import connection
from backends.runtime.account import open_service
from backends.runtime.client import Lost, NotShown, Unclear
from backends.runtime.connection import repeat_no_post
from backends.runtime.errors import ServiceError
from backends.runtime.explain import redact
from backends.runtime.service_client import ServiceClient
from backends.runtime.wire import Watch, is_id, outcome, said

PAGE = b"<html>Please log in to the Wi-Fi</html>"


class Api:
    """Answers every question alike."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def give(*_: Any, **__: Any) -> Any:
            if isinstance(self.answer, Exception):
                raise self.answer
            return self.answer

        return give


def client(answer: Any) -> ServiceClient:
    return ServiceClient(SimpleNamespace(_get_api_client=lambda instance=None: Api(answer)))


NONE_OF_ITS_OWN = [[], 7, "text", None, [{}], {"errors": "?"}]


@pytest.mark.parametrize("answer", [*NONE_OF_ITS_OWN, {}, {"jobs": None}, {"jobs": [3]}])
def test_only_a_list_of_jobs_says_that_a_job_is_not_there(answer: Any) -> None:
    """Else --resubmit would send anew what a proxy's page does not show."""
    with pytest.raises(Lost):
        client(answer).find("qrun-1")


def test_an_address_without_jobs_does_not_say_that_a_job_is_not_there() -> None:
    with pytest.raises(ServiceError):
        client(RequestsApiError("Not Found", 404)).find("qrun-1")
    assert client({"jobs": []}).find("qrun-1") == []


@pytest.mark.parametrize("answer", [*NONE_OF_ITS_OWN, {}, {"id": "other", "state": {"status": "Completed"}}])
def test_a_job_that_is_not_shown_is_one_that_the_service_denies(answer: Any) -> None:
    with pytest.raises(Lost) as lost:
        client(answer).status("j1")
    assert not isinstance(lost.value, NotShown)
    with pytest.raises(NotShown):
        client(RequestsApiError("no such job", 404)).status("j1")


@pytest.mark.parametrize("state", ["Completed", 3, ["x"], {"status": 7}, {"status": "\x1b[2J"}])
def test_states_of_another_form_are_none(state: Any) -> None:
    with pytest.raises(Lost) as lost:
        client({"id": "j1", "state": state}).status("j1")
    assert "\x1b" not in str(lost.value)


@pytest.mark.parametrize("answer", NONE_OF_ITS_OWN[:-1])
def test_figures_of_another_form_are_none(answer: Any) -> None:
    asked = client(answer)
    for ask in (lambda: asked.usage("j1"), lambda: asked.estimate("j1"), lambda: asked.session("s1")):
        with pytest.raises(Lost):
            ask()


@pytest.mark.parametrize("seconds", [float("nan"), -1, float("inf"), "3", True, 1e300, None, [2]])
def test_usage_that_is_no_number_of_seconds_is_not_known(seconds: Any) -> None:
    for usage in ({"quantum_seconds": seconds}, {"qpu_charge_time_seconds": seconds}, seconds):
        assert client({"usage": usage}).usage("j1") is None
    assert client({"id": "j1", "estimated_running_time_seconds": seconds}).estimate("j1") is None


@pytest.mark.parametrize("text", ["", PAGE.decode(), '{"half": ', "[]", "null", "NaN"])
def test_a_page_is_no_result(text: str) -> None:
    with pytest.raises(Lost):
        client(text).result("j1")


BAD_IDS = ["../../sessions/x", "a b", "$(reboot)", "\x1b[2J", "", "x" * 129, "a/b", ".", "-rf", "a\n", 7, None, ["a"]]


@pytest.mark.parametrize("job_id", BAD_IDS)
def test_an_id_that_can_be_none_is_none(job_id: Any) -> None:
    assert not is_id(job_id)
    watch = Watch()
    watch(lambda: {"id": job_id})
    assert watch.called
    assert watch.job_id is None
    with pytest.raises(Lost):
        client({"jobs": [{"id": job_id, "tags": ["qrun-1"]}]}).find("qrun-1")


def test_ids_that_services_give_are_ids() -> None:
    for job_id in ("d1a2b3c4d5e6f7g8h9i0", "3e2c1bd8-7a3f-4a57-9f5c-0c5f5f4c9f11", "cx0.y_Z"):
        assert is_id(job_id)
        assert client({"jobs": [{"id": job_id, "tags": ["qrun-1"]}, {"id": "other"}]}).find("qrun-1") == [job_id]


class Server(HTTPServer):
    """Gives the same answer to everybody, and counts."""

    status, headers, body = 200, {}, PAGE  # type: ignore[var-annotated]

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, str | None]] = []
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self.server.seen.append((self.command, self.path, self.headers.get("Authorization")))
        self.send_response(self.server.status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    do_GET = do_POST = answer

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as there:
        thread = threading.Thread(target=there.serve_forever, daemon=True)
        thread.start()
        yield there
        there.shutdown()
        thread.join()


@pytest.fixture
def session(server: Server) -> RetrySession:
    made = RetrySession(server.url, backoff_factor=0.0)
    repeat_no_post(SimpleNamespace(_session=made))
    return made


@pytest.mark.server
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_job_is_not_sent_on_to_where_somebody_points(server: Server, session: RetrySession, status: int) -> None:
    server.status, server.headers = status, {"location": f"{server.url}/elsewhere"}
    answer = session.post("/jobs", json={})
    assert [path for _, path, _ in server.seen] == ["/jobs"]
    with pytest.raises(ValueError) as error:  # noqa: PT011
        answer.json()
    assert isinstance(outcome(error.value), Unclear)


@pytest.mark.server
@pytest.mark.parametrize("status", [500, 502, 503, 504, 520, 524])
def test_a_job_is_sent_once_whatever_is_answered(server: Server, session: RetrySession, status: int) -> None:
    server.status = status
    with pytest.raises(RequestsApiError) as error:
        session.post("/jobs", json={})
    assert len(server.seen) == 1
    assert isinstance(outcome(error.value), Unclear)


@pytest.mark.server
def test_an_answer_has_a_largest_size(server: Server, session: RetrySession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "LARGEST", 1000)
    server.body = b"x" * 1000
    assert session.get("/jobs/1/results").content == server.body
    server.body += b"x"
    with pytest.raises(RequestsApiError, match="more than 1000 bytes"):
        session.get("/jobs/1/results")
    with pytest.raises(RequestsApiError) as error:
        session.post("/jobs", json={})
    assert isinstance(outcome(error.value), Unclear)


@pytest.mark.server
@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"a":' * 100_000, ("[" * 100_000).encode("utf-16")])
def test_an_answer_has_a_greatest_depth(server: Server, session: RetrySession, body: bytes) -> None:
    server.body = body
    with pytest.raises(RequestsApiError, match="nested"):
        session.get("/jobs")
    server.status = 400
    with pytest.raises(RequestsApiError, match="nested"):
        session.get("/jobs")
    server.status, server.body = 200, b'["[[[", {"a": [' + b"[1], " * 5000 + b"2]}]"
    assert len(session.get("/jobs").json()[1]["a"]) == 5001


@pytest.mark.server
def test_an_account_with_proxies_does_not_wait_for_ever(
    server: Server, session: RetrySession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client sets a timeout only where there are none."""
    asked: list[Any] = []
    send = HTTPAdapter.send
    monkeypatch.setattr(
        HTTPAdapter,
        "send",
        lambda self, *a, **o: asked.append(o["timeout"]) or send(self, *a, **o),  # type: ignore[func-returns-value]
    )
    session.proxies = {"ftp": "http://127.0.0.1:9"}
    session.get("/jobs")
    assert asked == [connection.TIMEOUT]


def test_a_deep_text_does_not_end_the_process() -> None:
    """py-evm, of the chain in a run's process, lets Python recurse until the stack is full."""
    script = (
        "import sys; sys.setrecursionlimit(10**6)\n"
        "from backends.runtime.wire import said\n"
        "said(ValueError('{\"errors\":' + '[' * 1_000_000))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_no_name_or_password_of_an_address_is_told() -> None:
    for text in ("http://me:secret@proxy.example:3128/x", "url=https://me:secret@h/p?q"):
        assert "secret" not in redact(text)
        assert "secret" not in said(ValueError(text))
    assert redact("https://quantum.cloud.ibm.com/jobs") == "https://quantum.cloud.ibm.com/jobs"
    for url in ("http://me:secret@host.example/", "https://me:secret@host.example/\x1b[2J"):
        with pytest.raises(ServiceError) as error:
            open_service("a-token-of-tests", url=url)
        assert "secret" not in str(error.value)
        assert "\x1b" not in str(error.value)


def test_the_client_is_not_slowed_by_reading_its_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    from backends.runtime.account import quieten

    monkeypatch.delenv("USAGE_DATA_OPT_OUT", raising=False)
    quieten()
    assert os.environ["USAGE_DATA_OPT_OUT"] == "True"
    monkeypatch.setenv("USAGE_DATA_OPT_OUT", "False")
    quieten()
    assert os.environ["USAGE_DATA_OPT_OUT"] == "False"


def test_without_an_account_nothing_is_waited_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """As where the token was removed before a run is resumed."""
    for name in [name for name in os.environ if name.startswith("QISKIT_IBM_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ServiceError, match="no account"):
        ServiceClient().status("j1")


def test_a_result_passes_as_it_came() -> None:
    text = json.dumps({"schema_version": "v2.0", "data": []}, indent=1)
    assert client(text).result("j1") == text.encode()
