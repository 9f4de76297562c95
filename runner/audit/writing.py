"""Writing a file that a user named: whole or not at all, and never over another one unasked."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from circuits.errors import QrunError, UsageError


@contextmanager
def writing(path: Path, *, force: bool) -> Iterator[BinaryIO]:
    """A file that appears under its name when all of it is written.

    Raises:
        UsageError: it exists and `force` is not given, or its folder does not.
        QrunError: it cannot be written.
    """
    if path.is_dir() or (path.exists() and not force):
        raise UsageError(f"{path} exists.", "Name another file, or add --force.")
    if not path.parent.is_dir():
        raise UsageError(f"{path}: there is no folder {path.parent}.", "Make it first.")
    temporary = None
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        temporary = Path(name)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        os.replace(temporary, path)
    except OSError as error:
        raise QrunError(f"{path} cannot be written: {error.strerror}.", "Name another file, or make room.") from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
