"""Reading JSON that somebody else wrote, without harm: size and nesting are checked before the parser sees it."""

from __future__ import annotations

import json
import re
from typing import Any

from circuits.errors import QrunError

MAX_DEPTH = 16
"""Deeper nesting is nothing that qrun writes. Python's parser recurses in C, and py-evm raises the recursion limit so
far that deep nesting overflows the stack and ends the process instead of raising RecursionError."""

_QUIET = re.compile(rb'"(?:[^"\\]|\\.)*"|[^\[\]{}"]+', re.DOTALL)


def load_json(data: bytes, *, max_bytes: int, what: str) -> Any:
    """The value of a JSON text.

    Args:
        data: UTF-8 text.
        max_bytes: Larger is refused.
        what: Names the text in errors, e.g. "model file".

    Raises:
        QrunError: too large, nested too deeply, or no JSON (NaN and infinities are none).
    """
    if len(data) > max_bytes:
        raise QrunError(f"{what} rejected: {len(data)} bytes, more than {max_bytes}.")
    depth = 0
    for bracket in _QUIET.sub(b"", data):
        if bracket in b"[{":
            depth += 1
        elif bracket in b"]}":
            depth -= 1
        if depth > MAX_DEPTH:
            raise QrunError(f"{what} rejected: nested more than {MAX_DEPTH} deep.")
    try:
        return json.loads(data, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise QrunError(f"{what} rejected: not JSON.") from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")
