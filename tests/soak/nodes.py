"""The peers of a soak: processes that are killed, and started again by whoever looks after them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.soak.link import Link

ROOT = Path(__file__).parents[2]
BETWEEN = 2.0
"""Seconds before a process that ended is started again, as a supervisor does."""


@dataclass
class Node:
    """One peer.

    Attributes:
        index: Its number.
        command: What is run, whole.
        folder: Its own.
        chain: Its wire to the chain ...
        ipfs: ... and to the daemon.
        shift: Seconds that its clock is off.
    """

    index: int
    command: list[str]
    folder: Path
    chain: Link
    ipfs: Link
    shift: float = 0.0
    starts: int = 0
    killed: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    report: dict[str, Any] | None = None
    _process: subprocess.Popen[bytes] | None = None
    _again_at: float = 0.0

    @property
    def done(self) -> bool:
        """Whether it has come to the end of its task."""
        return self.report is not None

    @property
    def alive(self) -> bool:
        """Whether its process is there."""
        return self._process is not None

    @property
    def out(self) -> Path:
        """Where its report goes."""
        return self.folder.with_suffix(".out")

    @property
    def log(self) -> Path:
        """What it says meanwhile."""
        return self.folder.with_suffix(".log")

    def tend(self) -> None:
        """Start it where it is not there; notice how it ended."""
        if self.done:
            return
        if self._process is not None:
            code = self._process.poll()
            if code is None:
                return
            self._process = None
            self._again_at = time.monotonic() + BETWEEN
            if code == 0:
                self.report = json.loads(self.out.read_bytes())
                return
            self.ended["killed" if code == -signal.SIGKILL else f"exit {code}: {self._last_words()}"] += 1
        if time.monotonic() >= self._again_at:
            self._start()

    def _start(self) -> None:
        self.starts += 1
        shifted = os.pathsep.join([str(ROOT / "tests" / "soak" / "clock"), str(ROOT)])
        env = {**os.environ, "PYTHONPATH": shifted, "SOAK_CLOCK_SHIFT": str(self.shift), "QRUN_DEBUG": "1"}
        with self.out.open("wb") as out, self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=log,
                env=env,
                cwd=ROOT,
                start_new_session=True,
            )

    def kill(self) -> None:
        """kill -9, with whatever it has started."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(10)
            self.killed += 1

    def close(self) -> None:
        """End it, and its wires."""
        self.kill()
        self.chain.close()
        self.ipfs.close()

    def _last_words(self) -> str:
        """The line that it ended with, without numbers: to be counted."""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        said = next((line for line in reversed(lines) if line.startswith("qrun:")), lines[-1] if lines else "")
        return re.sub(r"0x[0-9a-f]+|/\S+|\d+", "…", said)[:160]


def command_of(task: str, chain: Link, ipfs: Link, *, key: Path, password: Path, folder: Path) -> list[str]:
    """`qrun node` over its own wires."""
    words = ["node", "--task", task, "--chain", chain.url, "--ipfs", ipfs.url, "--key", str(key)]
    words += ["--password-file", str(password), "--out", str(folder), "--json"]
    return [sys.executable, "-m", "runner.cli", *words]
