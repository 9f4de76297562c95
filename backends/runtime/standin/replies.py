"""What comes in and what goes out, without HTTP's own details."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field
from typing import Any

MORE = "https://cloud.ibm.com/apidocs/quantum-computing#error-handling"


@dataclass(frozen=True)
class Call:
    """A request.

    Attributes:
        method: In capitals.
        path: Without the query, and without "/api/v1" before it.
        query: Every value of every key.
        headers: Keys in small letters.
        body: As it came.
        groups: What the route's pattern took from the path.
    """

    method: str
    path: str
    query: dict[str, list[str]] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    groups: tuple[str, ...] = ()

    def one(self, key: str, default: str = "") -> str:
        """The first value of a key of the query."""
        return self.query.get(key, [default])[0]

    def json(self) -> dict[str, Any]:
        """The body's object.

        Raises:
            Refused: 400, where it is none.
        """
        try:
            document = json.loads(self.body or b"{}")
        except ValueError:
            raise Refused(400, "Request validation of body failed, because: it is no JSON.", 1208) from None
        if not isinstance(document, dict):
            raise Refused(400, "Request validation of body failed, because: it is no object.", 1208)
        return document


@dataclass(frozen=True)
class Reply:
    """An answer: JSON, or text where `text` is given."""

    status: int = 200
    body: Any = None
    text: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def content(self) -> tuple[bytes, str]:
        """Bytes and content type."""
        if self.text is not None:
            return self.text.encode(), "text/plain; charset=utf-8"
        return b"" if self.body is None else json.dumps(self.body).encode(), "application/json"


class Refused(Exception):
    """The service refuses.

    Args:
        status: HTTP's.
        message: What for.
        code: The service's own; HTTP's where none is known.
        solution: What to do next.
    """

    def __init__(self, status: int, message: str, code: int = 0, solution: str = "") -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.solution = status, message, code or status, solution

    def reply(self, headers: dict[str, str] | None = None) -> Reply:
        """In the form of the service's errors."""
        error = {"code": self.code, "message": self.message, "solution": self.solution, "more_info": MORE}
        return Reply(self.status, {"errors": [error], "trace": str(uuid.uuid4())}, headers=headers or {})
