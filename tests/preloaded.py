"""The command line in a process of its own, forked from one that has the imports: seconds less for each command.

What an import does at a fresh start is not seen here: of that are the tests of the wheel, of `--help`'s speed, of
kills and of interrupts, which start Python itself.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

HEAVY = (
    "torch",
    "scipy.stats",
    "qiskit",
    "qiskit_aer",
    "qiskit_ibm_runtime.fake_provider",
    "web3",
    "eth_tester",
    "matplotlib.pyplot",
    "runner.cli",
    "runner.run",
    "runner.view",
    "runner.audit.audit",
    "backends.catalog",
    "backends.runtime.executor",
    "experiments.nsl_kdd",
)
READ_WHEN_NEEDED = (
    "QRUN_",
    "QISKIT_IBM_",
    "IAM_URL",
    "GLOBAL_",
    "NO_PROXY",
    "no_proxy",
    "PYTEST_",
    "USAGE_DATA_",
    "KMP_",
)
"""Beginnings of the environment's variables that no import looks at, or that imports set in the tests' own process."""


class Preloaded:
    """A process that has the imports, and forks one for each command.

    Attributes:
        env: What it was started with.
    """

    def __init__(self, env: Mapping[str, str]) -> None:
        self.env = dict(env)
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.preloaded"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=self.env,
            cwd=Path(__file__).parent.parent,
        )

    def takes(self, env: Mapping[str, str]) -> bool:
        """Whether a command in this environment does as it would in a process started with it."""
        differing = {k for k in {*env, *self.env} if env.get(k) != self.env.get(k)}
        return all(name.startswith(READ_WHEN_NEEDED) for name in differing)

    def run(self, *args: str, env: Mapping[str, str], timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """Run `qrun ARGS`; killed after `timeout` seconds, as by subprocess.run."""
        assert self.takes(env)
        assert self._server.stdin is not None
        with tempfile.TemporaryDirectory() as folder:
            out, err = Path(folder, "out"), Path(folder, "err")
            asked = {"args": args, "env": dict(env), "cwd": os.getcwd(), "out": str(out), "err": str(err)}
            self._server.stdin.write(json.dumps(asked).encode() + b"\n")
            self._server.stdin.flush()
            pid = self._told(300)
            assert pid is not None, "the process with the imports does not answer"
            code = self._told(timeout)
            if code is None:
                os.kill(pid, signal.SIGKILL)
                self._told(60)
                raise subprocess.TimeoutExpired(["qrun", *args], timeout, out.read_bytes(), err.read_bytes())
            said, errs = (p.read_text(encoding="utf-8") for p in (out, err))
        return subprocess.CompletedProcess(["qrun", *args], code, said, errs)

    def _told(self, seconds: float) -> int | None:
        """The next number that the server says; None where it takes longer."""
        assert self._server.stdout is not None
        if not select.select([self._server.stdout], [], [], seconds)[0]:
            return None
        line = self._server.stdout.readline()
        assert line, "the process with the imports has died"
        return int(line)

    def close(self) -> None:
        """End it."""
        self._server.communicate()


@contextlib.contextmanager
def preloaded(env: Mapping[str, str]) -> Iterator[Preloaded]:
    """One that is ended at the end."""
    made = Preloaded(env)
    try:
        yield made
    finally:
        made.close()


def _become(asked: dict[str, Any]) -> None:
    """In the forked process: take over what a new one would be started with."""
    os.environ.clear()
    os.environ.update(asked["env"])
    os.chdir(asked["cwd"])
    for number, path, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, asked["out"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
        (2, asked["err"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
    ):
        opened = os.open(path, flags, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    sys.argv = ["qrun", *asked["args"]]


def _serve() -> None:
    """Fork for each line of stdin; returns in the forked processes alone."""
    for name in HEAVY:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    with os.fdopen(os.dup(0), "rb", buffering=0) as asked_of, os.fdopen(os.dup(1), "wb", buffering=0) as told:
        while line := asked_of.readline():
            pid = os.fork()
            if pid == 0:
                asked_of.close()
                told.close()
                return _become(json.loads(line))
            told.write(b"%d\n" % pid)
            told.write(b"%d\n" % os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    os._exit(0)


if __name__ == "__main__":
    _serve()
    from runner.cli import main

    main()
