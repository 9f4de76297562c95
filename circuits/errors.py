"""Errors that a user can mend: what was wrong, where, and what to do next."""

from __future__ import annotations


class QrunError(Exception):
    """Something failed that the user should read as one line, never as a traceback (exit code 1).

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


class UsageError(QrunError, ValueError):
    """The user asked for something that cannot be (unknown name, value out of range); exit code 2."""

    exit_code = 2


class QrunWarning(UserWarning):
    """What is computed may not be what the user meant (a gate that the calibration marks as broken ...)."""
