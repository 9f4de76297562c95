"""What a failure of IBM's service means, in one line that holds no token."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from backends.runtime.errors import ServiceError
from circuits.errors import QrunError

LOGIN = "Store a token with `qrun login`, or set QISKIT_IBM_TOKEN."
_NEW_TOKEN = "Make a new API key on quantum.cloud.ibm.com and store it with `qrun login`."
_AGAIN = "Check the network and try again; without a network, run on the fake twin of a device."
_HEADER = re.compile(r"\b(bearer|apikey)(\s+|=|%20)[^\s'\",]+", re.IGNORECASE)
_USER = re.compile(r"//[^/@\s'\"]+@")
"""Of an address, as those of proxies are written: name and password."""
_BRACKETS = 500
_LINE = 300
"""Characters of what the service says that are shown."""


def token_of_the_environment() -> str | None:
    """The token in QISKIT_IBM_TOKEN, for those who look for it where it must not be."""
    return os.environ.get("QISKIT_IBM_TOKEN", "").strip() or None


def account_file() -> Path:
    """Where qiskit-ibm-runtime saves accounts."""
    return Path("~/.qiskit/qiskit-ibm.json").expanduser()


def saved_accounts() -> dict[str, dict[str, Any]]:
    """The saved accounts by name, as they stand in the file; none where it is not there or cannot be read."""
    try:
        found = json.loads(account_file().read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {name: account for name, account in found.items() if isinstance(account, dict)}


def account_available() -> bool:
    """Whether there is an account to connect with. Asks no network, and makes no file."""
    return token_of_the_environment() is not None or bool(saved_accounts())


def redact(text: str, secrets: tuple[str, ...] = ()) -> str:
    """A text without `secrets`, any token that is known here, and what an Authorization header holds."""
    saved = [account.get("token") for account in saved_accounts().values()]
    known = {token for token in (*secrets, token_of_the_environment(), *saved) if isinstance(token, str)}
    for token in sorted((token for token in known if len(token) >= 4), key=lambda token: (-len(token), token)):
        text = text.replace(token, "...")
    return _USER.sub("//...@", _HEADER.sub(r"\1 ...", text))


def explain(error: BaseException, what: str, *, secrets: tuple[str, ...] = ()) -> ServiceError:
    """What a failure of the service means, and what to do next.

    Args:
        error: As qiskit-ibm-runtime raised it.
        what: What could not be done, as the beginning of a sentence.
        secrets: Tokens that must not be shown, beside those that are known here.
    """
    if isinstance(error, QrunError):
        return error if isinstance(error, ServiceError) else ServiceError(error.message, error.hint)
    chain = list(_causes(error))
    kinds = {kind.__name__ for link in chain for kind in type(link).__mro__}
    codes = {code for link in chain for code in (_status(link),) if code is not None}
    if "AccountNotFoundError" in kinds:
        return ServiceError("no account at IBM Quantum is known here.", LOGIN)
    if 401 in codes or "IBMNotAuthorizedError" in kinds or (400 in codes and "ApiException" in kinds):
        reason, hint = "the token is refused", _NEW_TOKEN
    elif 403 in codes:
        reason, hint = _said(error, secrets), "Check the instance and its plan."
    elif 429 in codes:
        reason, hint = "too many requests", "Wait a minute and try again."
    elif max(codes, default=0) >= 500:
        reason, hint = f"the service is in trouble (HTTP {max(codes)})", "Try again later."
    elif -1 in codes or {"ConnectionError", "Timeout"} & kinds:
        reason, hint = "the service cannot be reached", _AGAIN
    elif {"JSONDecodeError", "UnicodeDecodeError", "OSError"} & kinds:
        reason, hint = f"{account_file()} cannot be read", "Store the token anew: `qrun login`."
    else:
        reason, hint = _said(error, secrets), "Check token and instance with `qrun doctor --live`."
    return ServiceError(f"{what}: {reason}.", hint)


def of_the_service(text: str) -> str:
    """What the service itself says where a text holds an answer of it in JSON, else the text.

    The client puts HTTP status, URL and the whole body into its exceptions: `400 Client Error: Bad Request for url: ...
    {"errors": [{"code": 1352, "message": "...", "solution": "...", ...}]}`.
    """
    if text.count("[") + text.count("{") > _BRACKETS:
        return text  # Python's parser recurses in C, and a process with py-evm in it would die of a deep text
    try:
        found, _ = json.JSONDecoder().raw_decode(text[text.index("{") :])
        errors = found["errors"]
        said = [f"{entry['message'].strip().removesuffix('.')} (code {entry['code']})" for entry in errors]
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return text
    return "; ".join(said) or text


def one_line(text: str) -> str:
    """What somebody else wrote, in one line of printable characters, cut where it is long."""
    flat = " ".join("".join(c if c.isprintable() else " " for c in text).split()).strip("'\"")
    return flat if len(flat) <= _LINE else flat[: _LINE - 3] + "..."


def _said(error: BaseException, secrets: tuple[str, ...]) -> str:
    return one_line(of_the_service(redact(str(error) or type(error).__name__, secrets))).removesuffix(".")


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in seen:
        seen.append(link)
        yield link
        link = link.__cause__ or link.__context__


def _status(error: BaseException) -> int | None:
    """The HTTP status that an exception of the client holds; -1 where there was no answer."""
    for name in ("status_code", "code"):
        code = getattr(error, name, None)
        if isinstance(code, int) and not isinstance(code, bool):
            return code
    return None
