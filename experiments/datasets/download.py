"""One file from public mirrors: hash-checked before anyone sees it, and given up in bounded time."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import pooch

from experiments.datasets.nsl_kdd import MAX_BYTES
from experiments.datasets.official import Official, matches
from experiments.datasets.parse import shown

MIRRORS: tuple[str, ...] = (
    "https://raw.githubusercontent.com/defcom17/NSL_KDD/master/",
    "https://raw.githubusercontent.com/jmnwong/NSL-KDD-Dataset/master/",
)

PATIENCE_S = 5.0
"""Seconds in all, over files and mirrors, that may pass without a byte of answer."""

DURATION_S = 120.0
"""Seconds that a download which has begun may take."""

_CHUNK = 2**16


class DownloadFailed(Exception):
    """No mirror gave the file; the message says why, mirror by mirror."""


@dataclass
class Patience:
    """What is left of the seconds that may be spent waiting for first bytes."""

    left: float = PATIENCE_S


@dataclass
class _Transfer:
    """Watches one transfer from both sides: pooch reports each chunk here, as to a progress bar.

    The transfer runs in a thread of its own, since neither a name lookup nor a connect can be interrupted. Whoever
    has given it up sets `abandoned`; the thread then ends at its next chunk and leaves nothing behind.
    """

    total: int = 0
    received: int = 0
    started: threading.Event = field(default_factory=threading.Event)
    done: threading.Event = field(default_factory=threading.Event)
    abandoned: threading.Event = field(default_factory=threading.Event)
    error: str = ""
    content: bytes | None = None

    def update(self, size: int) -> None:
        """A chunk of at most `size` bytes has come."""
        self.started.set()
        self.received += size
        if self.abandoned.is_set():
            raise DownloadFailed("given up")
        # A chunk counts as full, so that the limit holds for small and for compressed ones too.
        if self.received > 2 * MAX_BYTES:
            raise DownloadFailed("the answer is larger than any official file")

    def reset(self) -> None:
        """Pooch counts anew to fill its bar."""
        self.received = 0

    def close(self) -> None:
        """Nothing to close."""


def download(
    official: Official, folder: Path, patience: Patience, notify: Callable[[str], None], mirrors: Sequence[str] = ()
) -> Path:
    """Fetches an official file into `folder`, where it appears whole and with the right hash or not at all.

    Args:
        official: Which file.
        folder: Where to put it; made if missing.
        patience: Seconds left for waiting; what is waited here is taken from it.
        notify: Told what is fetched from where.
        mirrors: Base URLs, `MIRRORS` by default, tried in order.

    Returns:
        The path of the file.

    Raises:
        DownloadFailed: No mirror gave it in time.
        OSError: The folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    reasons: list[str] = []
    for mirror in mirrors or MIRRORS:
        if patience.left <= 0:
            break
        url = mirror + quote(official.name)
        notify(f"Fetching {official.name} from {mirror}")
        content, reason = _content(url, patience)
        if content is not None and not matches(content, official):
            content, reason = None, "the file there has another hash"
        if content is not None:
            return _keep(content, folder / official.name)
        reasons.append(f"{mirror.split('://')[-1].rstrip('/')}: {reason}")
    raise DownloadFailed("; ".join(reasons) or f"no answer within {PATIENCE_S:g} seconds")


def _content(url: str, patience: Patience) -> tuple[bytes | None, str]:
    """What stands at `url`, or why it could not be had."""
    transfer = _Transfer()
    waiting = time.monotonic()
    # A daemon: a name lookup that hangs must not keep the program from ending.
    threading.Thread(target=_run, args=(url, transfer), name="qrun-download", daemon=True).start()
    # `done` implies `started`, so that a refusal is no wait.
    begun = transfer.started.wait(patience.left)
    patience.left -= time.monotonic() - waiting
    if not begun:
        transfer.abandoned.set()
        return None, f"no answer within {PATIENCE_S:g} seconds"
    if not transfer.done.wait(DURATION_S):
        transfer.abandoned.set()
        return None, f"not complete after {DURATION_S:g} seconds"
    return transfer.content, transfer.error


def _run(url: str, transfer: _Transfer) -> None:
    try:
        fetch = pooch.HTTPDownloader(progressbar=transfer, chunk_size=_CHUNK, timeout=PATIENCE_S)
        with tempfile.TemporaryFile() as file:
            fetch(url, file, None)
            file.seek(0)
            transfer.content = file.read(MAX_BYTES + 1)
    except Exception as error:
        # Whatever the network, requests or the disk bring up: the caller goes on with the next mirror or without.
        transfer.error = _reason(error)
    finally:
        transfer.done.set()
        transfer.started.set()


def _reason(error: Exception) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        return f"HTTP status {status}"
    if isinstance(error, DownloadFailed):
        return str(error)
    # What requests says runs over lines with object addresses; the kind of failure is what helps.
    known = {"ConnectionError": "no connection", "ConnectTimeout": "no answer", "ReadTimeout": "no answer"}
    known |= {"ChunkedEncodingError": "the answer was cut", "SSLError": "the TLS certificate was refused"}
    return known.get(type(error).__name__) or shown(f"{type(error).__name__}: {error}", 120, quote=False)


def _keep(content: bytes, path: Path) -> Path:
    """Writes the file under another name and renames it, so that a reader sees all of it or none."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".part-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    return path
