"""Files that only their owner may read: keystores, and the files of their passwords."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from contracts.errors import LedgerError
from contracts.store import _flush_folder

MAX_PASSWORD = 1024
"""Bytes."""


def write_private(path: Path, data: bytes) -> None:
    """Write a new file that its owner alone may read and write, durably, whole or not at all.

    Nobody else can read it at any moment: it is made with mode 0600 under another name, and gets its own once it is on
    the disk. A file of that name is never replaced.

    Raises:
        LedgerError: there is one already, or it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(file.fileno(), 0o600)  # a strange umask takes more away than it should
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            _give_name(temporary, path)
        finally:
            with suppress(FileNotFoundError):
                temporary.unlink()
        _flush_folder(path.parent)
    except FileExistsError:
        raise LedgerError(f"{path} exists.", "It is never written over: choose another name.") from None
    except FileNotFoundError:
        raise LedgerError(f"{path} cannot be written: there is no folder {path.parent}.", "Make it first.") from None
    except OSError as error:
        raise LedgerError(f"{path} cannot be written: {error.strerror}.", "Choose another place for it.") from None


def _give_name(temporary: Path, path: Path) -> None:
    """Rename without replacing."""
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
            raise
        # A file system without links (FAT, some network ones): not atomic against another writer of that name.
        if os.path.lexists(path):
            raise FileExistsError from None
        os.rename(temporary, path)


def read_private(path: Path, *, max_bytes: int, what: str) -> bytes:
    """A file that its owner alone may read.

    Args:
        path: The file.
        max_bytes: Largest one taken.
        what: What it should be, for errors ("a keystore").

    Raises:
        LedgerError: it is not there, a link, no plain file, larger, or others can read or write it.
    """
    try:
        # Not blocking: a FIFO would be waited for until somebody writes.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        if path.is_symlink():
            raise LedgerError(f"{path} is a symbolic link, not {what}.", "Name the file that it leads to.") from None
        raise LedgerError(f"{path} cannot be read: {error.strerror}.", f"It should be {what}.") from None
    try:
        # Of what was opened, not of the name: nobody can change it in between.
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise LedgerError(f"{path} is no plain file, so it is not {what}.")
        mode = stat.S_IMODE(status.st_mode)
        if mode & 0o077:
            raise LedgerError(
                f"{path} can be read or written by others than its owner (mode {mode:04o}).",
                f"`chmod 600 {path}`; if others may have read it, take what it protects for known.",
            )
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise LedgerError(f"{path} cannot be read: {error.strerror}.") from None
    finally:
        os.close(descriptor)
    if len(data) > max_bytes:
        raise LedgerError(f"{path} has more than {max_bytes} bytes, so it is not {what}.")
    return data


def read_password(path: Path | None, prompt: Callable[[], str] | None = None) -> str:
    """A password from a file that its owner alone may read, or else from whoever sits there; never an argument.

    Args:
        path: The file; its first and only line is the password. None to ask.
        prompt: Asks without showing what is typed (`getpass.getpass`); None where nobody can be asked.

    Raises:
        LedgerError: neither, or the file is open to others, empty, of several lines, or no UTF-8.
    """
    if path is None:
        if prompt is None:
            raise LedgerError("there is nobody to ask for the password.", "Name a file that holds it, mode 0600.")
        typed = ""
        with suppress(EOFError):
            typed = prompt()
        if not typed:
            raise LedgerError("no password was given.")
        return typed
    data = read_private(path, max_bytes=MAX_PASSWORD, what="the file of a password")
    text = None
    with suppress(UnicodeDecodeError):
        text = data.decode()
    if text is None:  # raised out here: the error that was caught holds what was read
        raise LedgerError(f"the password in {path} is no text in UTF-8.")
    line = text.removesuffix("\n").removesuffix("\r")
    if not line or not line.isprintable():
        raise LedgerError(f"{path} holds no password.", "Its first and only line is the password.")
    return line
