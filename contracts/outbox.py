"""Which files of a store wait to be pushed to the IPFS daemon: one empty file each, named by its CID.

Beside the blocks, so that it goes where they go. A mark is on the disk before the file's first block is, and goes once
the daemon has the file pinned: a crash between the two leaves a file to be pushed once more, which changes nothing.
"""

from __future__ import annotations

import os
from pathlib import Path

from contracts.cid import parse_cid
from contracts.errors import ContentError, LedgerError
from contracts.store import _flush_folder, _write_error

_BEGUN = ".begun"


class Outbox:
    """The marks in a folder, which is made with the first of them.

    Raises:
        LedgerError: the folder is a symbolic link, or cannot be read or written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def begin(self, cid: str) -> None:
        """A file is about to be written: it waits from when it is there, and if it never is, nothing is missing."""
        self._mark(cid + _BEGUN)

    def add(self, cid: str) -> None:
        """A file is here and waits."""
        self._mark(cid)
        self._drop(cid + _BEGUN)

    def remove(self, cid: str) -> None:
        """A file does not wait any more."""
        self._drop(cid)
        self._drop(cid + _BEGUN)

    def waiting(self) -> dict[str, bool]:
        """The CIDs of files that wait, the oldest first, and whether each was wholly written when it was marked."""
        found: dict[str, bool] = {}
        if self.folder.is_symlink():
            raise self._link()
        try:
            names = sorted(os.listdir(self.folder), key=self._age)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise LedgerError(f"{self.folder} cannot be read: {error.strerror}.") from None
        for name in names:
            cid = name.removesuffix(_BEGUN)
            try:
                parse_cid(cid)
            except ContentError:  # nobody's mark
                continue
            found[cid] = found.get(cid, False) or name == cid
        return found

    def _age(self, name: str) -> tuple[int, str]:
        try:
            return (self.folder / name).lstat().st_mtime_ns, name
        except OSError:  # another process has just dealt with it
            return 0, name

    def _mark(self, name: str) -> None:
        try:
            if self.folder.is_symlink():
                raise self._link()
            if not self.folder.is_dir():
                self.folder.mkdir(parents=True, exist_ok=True)
                _flush_folder(self.folder.parent)
            os.close(os.open(self.folder / name, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644))
            _flush_folder(self.folder)
        except OSError as error:
            raise _write_error(error, self.folder) from None

    def _drop(self, name: str) -> None:
        try:
            (self.folder / name).unlink(missing_ok=True)
        except NotADirectoryError:
            pass
        except OSError as error:
            raise _write_error(error, self.folder) from None

    def _link(self) -> LedgerError:
        return LedgerError(
            f"{self.folder} is a symbolic link, which is not followed.", "Choose another folder for the store."
        )
