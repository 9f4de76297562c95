"""Saving and forgetting the account at IBM Quantum. The token goes to QiskitRuntimeService.save_account alone."""

from __future__ import annotations

import os
import stat
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from backends.runtime.account import CHANNELS, account_file, allowance, disconnect, open_service, saved_accounts
from backends.runtime.account import token_of_the_environment as of_the_environment
from backends.runtime.explain import explain
from circuits.errors import QrunError, UsageError

LONGEST = 4096
"""Characters of a token; IBM's have 44."""


@dataclass(frozen=True)
class Told:
    """What was done, without the token.

    Attributes:
        done: In words.
        file: Where accounts are saved.
        checked: Whether the service was asked.
        plan: Of the account's instance, where the service says.
        remaining: QPU seconds that it has left, where the service says.
        warnings: What the user should mend.
    """

    done: str
    file: str
    checked: bool = False
    plan: str | None = None
    remaining: float | None = None
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain types, ready for JSON."""
        return {**asdict(self), "warnings": list(self.warnings)}

    def lines(self) -> list[str]:
        """For a terminal."""
        left = "" if self.remaining is None else f", {self.remaining:.0f} QPU seconds left"
        plan = f" Plan: {self.plan or 'not told'}{left}." if self.checked else ""
        return [f"{self.done}{plan}", *(f"Note: {warning}" for warning in self.warnings)]


def save_account(token: str, channel: str, instance: str | None, name: str | None, check: bool) -> Told:
    """Save a token as the account that is used from now on.

    Args:
        token: As it was read.
        channel: One of `CHANNELS`.
        instance: Name or CRN; None lets the service choose.
        name: Of the account; None for the channel's own.
        check: Whether the service is asked first; an account that it refuses is not saved.

    Raises:
        UsageError: No token, an unknown channel.
        ServiceError: The service refuses it, or cannot be reached.
        QrunError: The file cannot be written.
    """
    token = token.strip()
    if not token:
        raise UsageError("no token was given.", "Paste it when asked, or: qrun login < FILE")
    if len(token) > LONGEST or not token.isascii() or not token.isprintable() or " " in token:
        raise UsageError("that is no token: it has white space or other characters that none has.", "Copy it again.")
    if channel not in CHANNELS:
        raise UsageError(f"unknown channel {channel!r}.", f"Known: {', '.join(CHANNELS)}.")
    url = os.environ.get("QISKIT_IBM_URL", "").strip() or None
    plan = remaining = None
    if check:
        service = open_service(token, channel=channel, instance=instance, url=url)
        found = allowance(service)
        plan, remaining = found.plan, found.remaining
    _save(token, channel, instance, name, url)
    disconnect()
    warnings = [] if check else ["the service was not asked whether it takes this token (--no-check)."]
    if of_the_environment() is not None:
        warnings.append("QISKIT_IBM_TOKEN is set, and is used instead of the saved account.")
    if readable_by_others(account_file()):
        warnings.append(f"others on this machine can read the token. Mend it with: chmod 600 {account_file()}")
    return Told(f"saved to {account_file()}.", str(account_file()), check, plan, remaining, tuple(warnings))


def forget_account(channel: str, name: str | None) -> Told:
    """Delete a saved account.

    Raises:
        UsageError: An unknown channel.
        QrunError: The file cannot be written.
    """
    if channel not in CHANNELS:
        raise UsageError(f"unknown channel {channel!r}.", f"Known: {', '.join(CHANNELS)}.")
    file = account_file()
    gone = False
    if saved_accounts():  # looking for what is not there would make a file
        from qiskit_ibm_runtime import QiskitRuntimeService

        try:
            gone = QiskitRuntimeService.delete_account(filename=str(file), name=name, channel=channel)
        except OSError as error:
            raise QrunError(f"cannot write {file}: {error.strerror or error}.") from None
    disconnect()
    which = f"the account {name!r}" if name else f"the account of {channel}"
    others = [other for other in sorted(saved_accounts()) if other != name]
    warnings = [] if gone or not others else [f"saved are: {', '.join(others)}. Name one with --name."]
    if of_the_environment() is not None:
        warnings.append("QISKIT_IBM_TOKEN is still set, and is used.")
    return Told(f"{which} is deleted." if gone else f"{which} was not saved.", str(file), warnings=tuple(warnings))


def readable_by_others(file: Path) -> bool:
    """Whether the file's mode lets anybody else read it."""
    try:
        return bool(file.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH))
    except OSError:
        return False


def _save(token: str, channel: str, instance: str | None, name: str | None, url: str | None) -> None:
    from qiskit_ibm_runtime import QiskitRuntimeService

    file = account_file()
    before = os.umask(0o077)  # a new file is the user's alone
    try:
        QiskitRuntimeService.save_account(
            token=token,
            channel=channel,
            instance=instance,
            url=url,
            filename=str(file),
            name=name,
            overwrite=True,
            set_as_default=True,
        )
    except OSError as error:
        raise QrunError(f"cannot write {file}: {error.strerror or error}.", "Is the folder yours?") from None
    except ValueError:
        raise QrunError(f"{file} is damaged: it is no JSON.", "Move it away and log in again.") from None
    except Exception as error:
        raise explain(error, "the account cannot be saved", secrets=(token,)) from None
    finally:
        os.umask(before)
