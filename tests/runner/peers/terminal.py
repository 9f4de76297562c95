"""A command at a terminal, at which somebody types."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from tests.runner.conftest import environment

_BEGIN = "import os; os.close(os.open(os.ttyname(0), os.O_RDWR)); from runner.cli import main; main()"
"""Opened by a session's leader, a terminal becomes the one that /dev/tty is."""


def typed(home: Path, args: list[str], lines: list[str], seconds: float = 300) -> tuple[int, str]:
    """Run `qrun ARGS` at a terminal; after each prompt (which ends in ": ") the next line is typed.

    Returns:
        The exit code, and all that the terminal showed.
    """
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", _BEGIN, *args],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment(home),
        start_new_session=True,
    )
    os.close(theirs)
    seen, waiting, end = b"", list(lines), time.monotonic() + seconds
    asked = 0
    try:
        while time.monotonic() < end:
            if select.select([ours], [], [], 0.2)[0]:
                try:
                    more = os.read(ours, 4096)
                except OSError:  # the other end is closed
                    break
                if not more:
                    break
                seen += more
            if waiting and seen.endswith(b": ") and len(seen) > asked:
                asked = len(seen)
                time.sleep(0.2)  # until echo is off
                os.write(ours, waiting.pop(0).encode() + b"\n")
        return process.wait(max(1.0, end - time.monotonic())), seen.decode(errors="replace")
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        process.wait()
        os.close(ours)
