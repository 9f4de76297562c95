"""A disk that can be full: a tmpfs of some megabytes, where the machine lets us mount one."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from pathlib import Path

MEGABYTES = 24


class SmallDisk:
    """A folder of its own file system.

    Attributes:
        folder: Where it is.
        mounted: Whether it is one; else its fullness cannot be played, and is not.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        try:
            done = subprocess.run(
                ["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "tmpfs", str(folder)],
                capture_output=True,
                check=False,
            )
            self.mounted = done.returncode == 0
        except OSError:
            self.mounted = False

    def fill(self) -> None:
        """Leave no byte."""
        with suppress(OSError), (self.folder / "filler").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    def free(self) -> None:
        """Give the room back."""
        (self.folder / "filler").unlink(missing_ok=True)

    def close(self) -> None:
        """Unmount it."""
        if self.mounted:
            subprocess.run(["umount", "-l", str(self.folder)], capture_output=True, check=False)
