"""Questions over HTTP that end: whole answers within a time, of a bounded size, asked again where that may help."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import requests
import urllib3

from contracts.errors import LedgerError
from contracts.http_watch import Watch
from contracts.rpc_errors import redact

PIECE = 1 << 16
"""Bytes read at a time."""
MAX_ERROR = 1 << 16
"""Bytes of an answer that only says what went wrong."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class Patience:
    """How long servers are waited for, in seconds, and how often they are asked.

    Attributes:
        tries: Questions before giving up, where the failure may pass.
        pause: Before the second try; doubled for each one after.
        connect: For a connection.
        answer: For a short answer, whole.
        block: For a block, whole: who has none of it waits for others to send it.
        file: For a file with all its blocks and all tries, fetched or added and pinned.
    """

    tries: int = 3
    pause: float = 0.3
    connect: float = 3.0
    answer: float = 30.0
    block: float = 20.0
    file: float = 300.0


class Failure(Exception):
    """A question without an answer that can be used.

    Attributes:
        reason: What the server did, as a predicate ("does not answer").
        kind: "silent" (none or no whole answer), "late" (its time was up), "status" (an HTTP error), "refused" (an
            error in words), "wrong" (an answer that is none).
        passing: Whether asking again may help.
    """

    def __init__(self, reason: str, kind: str, *, passing: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.kind = kind
        self.passing = passing


class Deadline:
    """A point in time, by the monotonic clock."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds left, none at the least."""
        return max(0.0, self._end - time.monotonic())


def pieces_of(response: Any, most: int) -> Iterator[bytes]:
    """The body of an answer, piece by piece.

    Args:
        response: Of `requests`, not read yet.
        most: Bytes that are taken.

    Raises:
        Failure: it is longer, compressed though nobody asked for that, cut off, or stands still.
    """
    if response.headers.get("Content-Encoding", "identity").lower() not in ("", "identity"):
        raise Failure("sends a compressed answer, which was not asked for", "wrong")
    size = 0
    try:
        for piece in response.raw.stream(PIECE, decode_content=False):
            size += len(piece)
            if size > most:
                raise Failure(f"sends more than {most} bytes", "wrong")
            yield piece
    except urllib3.exceptions.TimeoutError:
        raise Failure("fell silent in the middle of its answer", "late", passing=True) from None
    except (urllib3.exceptions.HTTPError, OSError):
        raise Failure("cut its answer off in the middle", "silent", passing=True) from None


def check_status(response: Any) -> None:
    """Let success pass.

    Raises:
        Failure: a redirect, or an error; with the words of the daemon's RPC interface where they are there.
    """
    status = response.status_code
    if 200 <= status < 300:
        return
    if 300 <= status < 400:
        # Content is checked, but a hostile server shall not choose whom this machine asks.
        where = redact(str(response.headers.get("Location", "another address"))[:200])
        raise Failure(f"redirects to {where!a}, which is not followed", "wrong")
    try:
        body = json.loads(b"".join(pieces_of(response, MAX_ERROR)))
    except (ValueError, RecursionError, Failure):
        body = None
    if isinstance(body, dict) and isinstance(body.get("Message"), str):
        raise Failure(one_line(body["Message"]), "refused")
    raise Failure(f"answers with HTTP status {status}", "status", passing=status >= 500 or status == 429)


def one_line(text: str) -> str:
    """What a server wrote, fit to be shown: printable, on one line, not long."""
    return "".join(c if c.isprintable() else " " for c in text[:200]).rstrip(". ")


_WHY = {
    "ConnectTimeout": "no connection in time",
    "Connection refused": "connection refused",
    "NameResolution": "its name is not known",
    "Failed to resolve": "its name is not known",
    "Name or service": "its name is not known",
}
"""What stands in errors of connections, and what that means."""


def reason_of(error: BaseException) -> Failure:
    """What an error of `requests`, urllib3 or ipfshttpclient looks like to a user."""
    if isinstance(error, Failure):
        return error
    original = getattr(error, "original", None)  # ipfshttpclient's
    if isinstance(original, Exception):
        return reason_of(original)
    text = type(error).__name__ + str(error)
    broken = isinstance(error, (OSError, urllib3.exceptions.HTTPError))
    if isinstance(error, requests.Timeout) and not isinstance(error, requests.ConnectTimeout):
        return Failure("gave no answer in time", "late", passing=True)
    if broken and "SSLError" in text:
        return Failure("has no certificate that this machine trusts, or does not speak TLS", "silent")
    if not broken:
        return Failure(f"gives no answer that can be read ({type(error).__name__})", "wrong")
    why = next((words for part, words in _WHY.items() if part in text), "the connection broke")
    return Failure(f"does not answer ({why})", "silent", passing=True)


def ask(
    question: Callable[[], _T], patience: Patience, deadline: Deadline, seconds: float, *, late_passes: bool = True
) -> _T:
    """Ask until there is an answer: after pauses, `patience.tries` times, and not beyond the deadline.

    Args:
        question: Makes its connections in this thread, through a bounded session, and reads the whole answer.
        patience: How often, and with which pauses.
        deadline: Of all tries.
        seconds: For one of them.
        late_passes: Whether to ask again where the time of one was up.

    Raises:
        Failure: no answer.
    """
    pause = patience.pause
    attempt = 0
    while True:
        attempt += 1
        left = min(seconds, deadline.left())
        if left <= 0:
            raise Failure(f"gave no whole answer in {deadline.seconds:g} s", "late")
        failure: Failure | None = None
        with Watch(left) as watch:
            try:
                answer = question()
            except LedgerError:
                raise
            except Exception as error:  # the client's own code stumbles over strange answers too
                failure = reason_of(error)
        # Where an answer ends with the connection, a cut looks like its end.
        if watch.is_over:
            failure = Failure(f"gave no whole answer in {left:.3g} s", "late", passing=True)
        if failure is None:
            return answer
        helps = failure.passing and (late_passes or failure.kind != "late")
        if not helps or attempt >= patience.tries or deadline.left() <= pause:
            raise failure
        time.sleep(pause)
        pause *= 2
