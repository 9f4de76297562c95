"""Reading what somebody else wrote, without harm: only plain files, and JSON whose size and nesting are checked before
the parser sees it."""

from __future__ import annotations

import json
import math
import os
import re
import stat
from pathlib import Path
from typing import Any

from circuits.errors import QrunError

MAX_DEPTH = 16
"""Deeper nesting is nothing that qrun writes. Python's parser recurses in C, and py-evm raises the recursion limit so
far that deep nesting overflows the stack and ends the process instead of raising RecursionError."""

# A string (to the end of the text where nothing closes it), or what is neither string nor bracket. Possessive: what was
# matched is never tried again in another way, so that the time is linear in the text, whatever it is.
MAX_DIGITS = 100
"""Of a whole number."""

_QUIET = re.compile(r'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|[^\[\]{}"]++', re.DOTALL)


def too_deep(data: bytes, limit: int) -> bool:
    """Whether a JSON text has more than `limit` brackets in brackets, read in any encoding that has ASCII's."""
    return _deeper(data.decode("latin-1"), limit)


def _deeper(text: str, limit: int) -> bool:
    depth = 0
    for bracket in _QUIET.sub("", text):
        if bracket in "[{":
            depth += 1
        elif bracket in "]}":
            depth -= 1
        if depth > limit:
            return True
    return False


class NoSuchFileError(QrunError):
    """There is nothing under that name."""


def load_json(data: bytes, *, max_bytes: int, what: str) -> Any:
    """The value of a JSON text.

    Args:
        data: UTF-8 text without a byte order mark. No other encoding is taken: `json.loads` would guess UTF-16 and
            UTF-32, in which brackets and quotes are not where the check of nesting looks for them.
        max_bytes: Larger is refused.
        what: Names the text in errors, e.g. "model file".

    Raises:
        QrunError: too large, nested too deeply, or no JSON (NaN, infinities and what is read as one are none).
    """
    if len(data) > max_bytes:
        raise QrunError(f"{what} rejected: {len(data)} bytes, more than {max_bytes}.")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise QrunError(f"{what} rejected: not JSON in UTF-8.") from None
    if _deeper(text, MAX_DEPTH):
        raise QrunError(f"{what} rejected: nested more than {MAX_DEPTH} deep.")
    try:
        return json.loads(text, parse_constant=_no_constant, parse_float=_finite, parse_int=_whole)
    except _TooLarge as error:
        raise QrunError(f"{what} rejected: not JSON: {error}.") from None
    except (ValueError, RecursionError):
        raise QrunError(f"{what} rejected: not JSON.") from None


def read_regular(path: Path, *, max_bytes: int, what: str) -> bytes:
    """The bytes of a plain file in a folder from outside.

    Args:
        path: The file. A symbolic link under this name is refused: it could show any file of this machine.
        max_bytes: Larger is refused.
        what: Names the file in errors, e.g. "config.json".

    Raises:
        NoSuchFileError: there is none.
        QrunError: it is a FIFO, a device, a folder or a link, is too large, or cannot be read.
    """
    try:
        # Not blocking: a FIFO would be waited for until somebody writes.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY)
    except FileNotFoundError:
        raise NoSuchFileError(f"{what}: there is no {path}.") from None
    except OSError as error:
        if path.is_symlink():
            raise QrunError(f"{what} rejected: {path} is a symbolic link.", "Put the file itself there.") from None
        raise QrunError(f"{what}: {path} cannot be read: {error.strerror}.") from None
    except ValueError:  # a null character
        raise QrunError(f"{what}: {str(path)!a} is no name of a file.") from None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise QrunError(f"{what} rejected: {path} is no plain file.")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise QrunError(f"{what}: {path} cannot be read: {error.strerror}.") from None
    finally:
        os.close(descriptor)
    if len(data) > max_bytes:
        raise QrunError(f"{what} rejected: {path} has more than {max_bytes} bytes.")
    return data


class _TooLarge(ValueError):
    """A number that no float holds."""


def _finite(text: str) -> float:
    """A number; one such as 1e999, of which Python makes an infinity, is none."""
    value = float(text)
    if math.isinf(value):
        raise _TooLarge("a number is too large")
    return value


def _whole(text: str) -> int:
    """A whole number; one that no float can hold is none that qrun writes, and breaks whoever computes with it."""
    if len(text) > MAX_DIGITS:
        raise _TooLarge("a number is too large")
    return int(text)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")
