"""What an exception of qiskit-ibm-runtime says about the wire: an HTTP status, no answer, or nothing sent.

The client wraps what happens in exceptions of its own, some of them without their cause (`raise ... from None` keeps
only the context): the status is looked for along the whole chain.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, TypeGuard

from backends.runtime.client import Lost, Rejected, Unclear
from backends.runtime.explain import explain, of_the_service, one_line, redact
from circuits.errors import QrunError

_NOT_SENT = ("NewConnectionError", "ConnectTimeoutError", "ConnectTimeout")
"""Failures that come before anything is on the wire; unknown names and refused connections are among the first."""

_ID = re.compile(r"[A-Za-z0-9_.-]{1,128}")


def outcome(error: Exception) -> Exception:
    """Whether what was sent surely was not accepted (Rejected), or may have been (Unclear)."""
    status = status_of(error)
    if status == 401:
        return explain(error, "the job cannot be sent")
    if status is not None and 400 <= status < 500 and status != 408:
        return Rejected(said(error), status=status, transient=status == 429)
    if (status is None or status < 0) and any(name in _NOT_SENT for name in _kinds(error)):
        return Rejected(said(error), transient=True)
    return Unclear(said(error))


def status_of(error: BaseException) -> int | None:
    """The HTTP status along a chain of exceptions; -1 where there was no answer; None where none speaks of HTTP."""
    found: int | None = None
    for link in _chain(error):
        codes = (getattr(link, "status_code", None), getattr(getattr(link, "response", None), "status_code", None))
        for code in codes:
            if isinstance(code, int) and not isinstance(code, bool) and (found is None or code > found):
                found = code
    if found in (None, -1) and any(type(link).__name__ == "IBMNotAuthorizedError" for link in _chain(error)):
        return 401
    return found


def said(error: BaseException) -> str:
    """What the service said, in one line without a token."""
    if isinstance(error, QrunError):
        return one_line(error.message).removesuffix(".")
    return one_line(of_the_service(redact(str(error) or type(error).__name__)))


def of_the_wire(error: BaseException) -> bool:
    """Whether what happened, happened between us and the service."""
    return any(type(link).__module__.partition(".")[0] in ("requests", "urllib3", "http") for link in _chain(error))


def _kinds(error: BaseException) -> set[str]:
    """Names of the classes of all exceptions along a chain, with those that they hold as reason."""
    found = set()
    for link in _chain(error):
        inner = [link, *(value for value in link.args if isinstance(value, BaseException))]
        inner += [reason for value in inner if isinstance(reason := getattr(value, "reason", None), BaseException)]
        found |= {kind.__name__ for value in inner for kind in type(value).__mro__}
    return found


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    stack: list[BaseException | None] = [error]
    while stack:
        link = stack.pop()
        if link is not None and link not in seen:
            seen.append(link)
            yield link
            stack += [link.__context__, link.__cause__]


class Watch:
    """The call that sends a job: whether it was made, and the id that came back."""

    def __init__(self) -> None:
        self.called = False
        self.job_id: str | None = None

    def __call__(self, send: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Make the call, and remember."""
        self.called = True
        response = send(*arguments, **options)
        found = response.get("id") if isinstance(response, dict) else None
        self.job_id = found if is_id(found) else None
        return response


def is_id(value: Any) -> TypeGuard[str]:
    """Whether a service's id is such as may stand in an address, in a file's name and on a terminal."""
    return isinstance(value, str) and _ID.fullmatch(value) is not None and not value.startswith((".", "-"))


def table(answer: Any) -> dict[str, Any]:
    """An answer that has to be a JSON object.

    Raises:
        Lost: It is another thing: somebody on the way has answered.
    """
    if not isinstance(answer, dict):
        raise Lost("the answer is none of the service's")
    return answer


def seconds(value: Any) -> float | None:
    """A number of seconds, or None for whatever is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value < 1e12 else None
