"""Where models and maps lie, under the hash of their content: a folder of blocks, alone or beside an IPFS daemon."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from contracts.cid import Cid, build, parse_cid
from contracts.dag import MAX_BLOCK, broken_files, read_file
from contracts.errors import ContentError, LedgerError

_PREFIX = "block-"
"""Of temporary files, so that what is tidied up is nobody else's."""

_TRIES = 3
"""To write a block that another process tidies away."""

ANY_SIZE = 1 << 30
"""More than any file that is stored here, and still a bound for who asks about a hostile CID."""


@runtime_checkable
class ContentStore(Protocol):
    """A place for files under their CIDs. What is put is kept until the store's folder goes."""

    kind: str

    def put(self, data: bytes) -> str:
        """Keep a file; its CID. When this returns, the file survives a crash of process or machine."""
        ...

    def get(self, cid: str, *, max_bytes: int) -> bytes:
        """A file, hashed again on its way out.

        Raises:
            ContentError: the CID is malformed, its content is missing, damaged, or larger than `max_bytes`.
        """
        ...

    def has(self, cid: str) -> bool:
        """Whether the whole file can be had here, undamaged."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


def open_store(
    folder: Path, address: str | None = None, *, gateways: Sequence[str] = (), away_ok: bool = False
) -> ContentStore:
    """The store in a folder, beside an IPFS daemon where its address is given.

    Args:
        folder: The folder; made where there is none.
        address: The daemon's; None for the folder alone.
        gateways: Addresses of IPFS gateways that are asked for what neither has; with a daemon only.
        away_ok: Whether the daemon may be away: what is put then waits in the folder until it is back.

    Raises:
        LedgerUnreachable: the daemon does not answer, and that is not `away_ok`.
    """
    local = BlockStore(folder)
    if address is None:
        return local
    from contracts.ipfs import IpfsStore

    return IpfsStore(address, local, gateways=gateways, away_ok=away_ok)


class BlockStore:
    """One file a block, named by its CIDv1, in folders named by the two characters before the last.

    A block is written to a temporary file, flushed to the disk and then renamed, so that it is whole whenever it can
    be seen; children are written before parents, so that a root stands for the whole file. The folder may come from
    outside: no symbolic link in it is followed, and only plain files are read.

    Args:
        folder: Where the blocks are; made where there is none.
        read_only: Nothing is written, made or tidied up: the folder is evidence, or another process works in it.

    Raises:
        LedgerError: the folder cannot be made, or it or its folder of temporary files is a symbolic link.
    """

    kind = "blocks"

    def __init__(self, folder: Path, *, read_only: bool = False) -> None:
        self.folder = Path(folder)
        self._read_only = read_only
        self._temporary = self.folder / "tmp"
        if read_only:
            return
        self._make(self.folder)
        self._make(self._temporary)
        self._tidy()

    def put(self, data: bytes) -> str:
        """Keep a file; its CID."""
        root = None
        for root, block in build(data):
            self.put_block(root, block)
        return str(root)

    def get(self, cid: str, *, max_bytes: int) -> bytes:
        """A file, every block of it hashed again; see ContentStore."""
        return read_file(parse_cid(cid), self.get_block, max_bytes=max_bytes)

    def has(self, cid: str) -> bool:
        """Whether the whole file is here, undamaged."""
        try:
            return not broken_files([parse_cid(cid)], self.get_block, max_bytes=ANY_SIZE, most=2 * ANY_SIZE)
        except ContentError:
            return False

    def close(self) -> None:
        """Nothing is held open."""

    def get_block(self, cid: Cid) -> bytes:
        """One block as it lies on the disk, at most a byte more than MAX_BLOCK; the reader hashes it.

        Raises:
            ContentError: it is not here, or what is here under its name is no plain file.
        """
        path = self._path(cid)
        try:
            block = None if path.parent.is_symlink() else _read_plain(path, MAX_BLOCK + 1)
        except (FileNotFoundError, NotADirectoryError):
            raise ContentError(f"block {cid} is not in the store {self.folder}.") from None
        except OSError as error:
            raise LedgerError(f"block {cid} cannot be read: {error.strerror} ({path}).") from None
        if block is None:
            raise ContentError(f"block {cid} is not in the store {self.folder}: {path} is no plain file.")
        return block

    def put_block(self, cid: Cid, block: bytes) -> None:
        """Keep one block durably; a damaged one of that name is replaced."""
        if self._read_only:
            raise LedgerError(f"the store {self.folder} was opened for reading only.")
        path = self._path(cid)
        try:
            is_new = not path.parent.exists()
            for folder in (self.folder, self._temporary, path.parent):
                self._make(folder)
            if is_new:
                _flush_folder(self.folder)
            elif _has(path, block):
                return
            for attempt in range(_TRIES):
                try:
                    self._write(path, block)
                    break
                except FileNotFoundError:
                    # Another process has just opened the store, and took the file for one that a killed one had left.
                    if attempt == _TRIES - 1:
                        raise
            _flush_folder(path.parent)
        except OSError as error:
            raise _write_error(error, self.folder) from None

    def _write(self, path: Path, block: bytes) -> None:
        descriptor, temporary = tempfile.mkstemp(dir=self._temporary, prefix=_PREFIX)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(block)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError:
            Path(temporary).unlink(missing_ok=True)
            raise

    def _path(self, cid: Cid) -> Path:
        name = str(cid.v1)
        return self.folder / name[-3:-1] / name

    def _tidy(self) -> None:
        """Remove what a process that was killed left, and nothing else."""
        try:
            for left in self._temporary.iterdir():
                if left.name.startswith(_PREFIX) and stat.S_ISREG(left.lstat().st_mode):
                    left.unlink(missing_ok=True)
        except FileNotFoundError:  # another process was faster
            pass
        except OSError as error:
            raise _write_error(error, self.folder) from None

    def _make(self, folder: Path) -> None:
        if folder.is_symlink():
            raise LedgerError(
                f"the store {self.folder} is not written: {folder} is a symbolic link.",
                "Choose another folder, or name the one that it leads to.",
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _write_error(error, folder) from None


def _read_plain(path: Path, most: int) -> bytes | None:
    """The first `most` bytes of a plain file; None where it is a link, a FIFO, a device or a folder.

    Raises:
        OSError: it is not there, or cannot be read.
    """
    try:
        # Not blocking: a FIFO would be waited for until somebody writes.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY)
    except OSError:
        if os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode):
            return None
        raise
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(most)
    finally:
        os.close(descriptor)


def _has(path: Path, block: bytes) -> bool:
    try:
        return _read_plain(path, len(block) + 1) == block
    except FileNotFoundError:
        return False


def _flush_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_error(error: OSError, folder: Path) -> LedgerError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return LedgerError(
            f"the disk is full: the store {folder} cannot be written.", "Make room, or begin elsewhere (--out DIR)."
        )
    return LedgerError(f"the store {folder} cannot be written: {error.strerror}.", "Choose a folder you may write.")
