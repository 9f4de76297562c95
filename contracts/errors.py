"""Errors of chain and store. This package imports none of the others, so they stand here on their own."""

from __future__ import annotations


class LedgerError(Exception):
    """Chain or content store failed in a way that the user should read as one line (exit code 1).

    Args:
        message: What was wrong and where.
        hint: What to do next; shown after the message.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class LedgerUnreachable(LedgerError):
    """The JSON-RPC node or the IPFS daemon does not answer."""


class LedgerBusy(LedgerError):
    """The embedded chain has one writer, and another process holds it."""


class AccountInUse(LedgerError):
    """Two processes send with one key: the number (nonce) of a transaction was taken by another one."""


class ContractRevert(LedgerError):
    """The contract refused a transaction; `name` is its custom error, `args_` the error's arguments by name."""

    def __init__(self, name: str, args_: dict[str, object] | None = None) -> None:
        shown = ", ".join(f"{k}={v}" for k, v in (args_ or {}).items())
        super().__init__(f"the contract refused: {name}({shown})")
        self.name = name
        self.args_ = dict(args_ or {})


class ContentError(LedgerError):
    """A content identifier is malformed, its content is missing, too large, or does not hash to it."""
