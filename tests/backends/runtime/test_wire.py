"""What an exception of the client says about the wire, and that it says no token."""

from __future__ import annotations

import pytest
import requests
from qiskit_ibm_runtime.api.exceptions import RequestsApiError
from qiskit_ibm_runtime.exceptions import IBMNotAuthorizedError, IBMRuntimeError
from urllib3.exceptions import ConnectTimeoutError, MaxRetryError, NewConnectionError, ProtocolError, ReadTimeoutError

from backends.runtime.client import Rejected, Unclear
from backends.runtime.errors import ServiceError
from backends.runtime.wire import of_the_wire, outcome, said, status_of


def answered(status: int, kept: bool = True) -> Exception:
    """As service._run raises it: from None, so that only the context is left; and 503 without its status."""
    response = requests.Response()
    response.status_code = status
    try:
        try:
            try:
                raise requests.HTTPError(f"{status}", response=response)
            except requests.HTTPError as error:
                if kept:
                    raise RequestsApiError("said", status) from error
                raise RequestsApiError("said")  # noqa: B904
        except RequestsApiError as error:
            raise IBMRuntimeError(f"Failed to run program: {error}") from None
    except IBMRuntimeError as error:
        return error


def lost(reason: Exception) -> Exception:
    try:
        try:
            raise requests.ConnectionError(reason)
        except requests.ConnectionError as error:
            raise RequestsApiError("said") from error
    except RequestsApiError as error:
        return error


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("status", [400, 403, 404, 409, 413, 422, 429, 408, 500, 502, 503, 504, 520])
def test_a_status(status: int, kept: bool) -> None:
    error = answered(status, kept)
    assert status_of(error) == status
    meant = outcome(error)
    if status == 408 or status >= 500:
        assert isinstance(meant, Unclear)
    else:
        assert isinstance(meant, Rejected)
        assert (meant.status, meant.transient) == (status, status == 429)


def test_a_refused_token() -> None:
    assert isinstance(outcome(IBMNotAuthorizedError("no")), ServiceError)
    assert isinstance(outcome(answered(401)), ServiceError)


@pytest.mark.parametrize(
    ("reason", "sent"),
    [
        (MaxRetryError(None, "/", NewConnectionError(None, "refused")), False),  # type: ignore[arg-type]
        (MaxRetryError(None, "/", ConnectTimeoutError(None, "slow")), False),  # type: ignore[arg-type]
        (MaxRetryError(None, "/", ProtocolError("reset")), True),  # type: ignore[arg-type]
        (ProtocolError("reset"), True),
        (ReadTimeoutError(None, "/", "slow"), True),  # type: ignore[arg-type]
    ],
)
def test_a_connection(reason: Exception, sent: bool) -> None:
    error = lost(reason)
    meant = outcome(error)
    assert isinstance(meant, Unclear if sent else Rejected)
    assert sent or meant.transient  # type: ignore[attr-defined]
    assert of_the_wire(error)


def test_what_nobody_knows_is_unclear() -> None:
    for error in (ValueError("no JSON"), KeyError("id"), MemoryError(), RequestsApiError("?")):
        assert isinstance(outcome(error), Unclear)
    assert not of_the_wire(ValueError())


def test_a_token_is_not_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QISKIT_IBM_TOKEN", "very-secret-token")
    assert "very-secret" not in said(ValueError("Authorization: very-secret-token\nand\x1b[31m more"))
    assert said(ValueError("a\nb")) == "a b"


def test_of_an_answer_in_json_its_message_is_said() -> None:
    body = '{"errors": [{"code": 1352, "message": "No session on the open plan.", "solution": "Take a batch."}]}'
    error = RequestsApiError(f"400 Client Error: Bad Request for url: https://a.example/sessions. {body}", 400)
    assert said(error) == "No session on the open plan (code 1352)"
    for text in ("no {json}", '{"errors": 3}', '{"errors": []}', '{"errors": [{"code": 1}]}', '{"errors": [7]}'):
        assert said(ValueError(text)) == text
    assert len(said(ValueError('{"errors":' + "[" * 100_000))) == 300
