"""A run that is killed, delayed and refused at random, until it is done; and what must hold of it then."""

from __future__ import annotations

import json
import multiprocessing
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing import connection
from pathlib import Path
from typing import Any

from backends.runtime.standin import Chaos, Settings, StandIn
from runner.store import RunIndex
from tests.runner.chaos import worker

SMALL = {
    "nodes": 2,
    "rounds": 2,
    "qubits": 3,
    "reps": 1,
    "steps_per_epoch": 2,
    "detector_steps": 2,
    "batch": 4,
    "samples": 16,
    "neighbours": 3,
    "hidden": (8,),
    "test": False,
}
ON_DEVICE = {**SMALL, "backend": "ibm_kyiv", "engine": "runtime", "shots": 128}
"""Trained on the device: every step is a job."""
TWIN_FIRST = {
    **SMALL,
    "backend": "ibm_kyiv",
    "run_on": "ibm_kyiv",
    "fine_tune": 1,
    "runtime": {"shots": 128, "samples": 16},
}
"""Trained on the twin, fine-tuned and run on the device."""
PATIENCE, LATE = 1.5, 0.4
"""Seconds: who looks for a job looks longer than the service hides it."""
MOST_ATTEMPTS = 60

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["tests.runner.chaos.preloaded"])
_asking = threading.Lock()
"""Whoever starts a process asks all others how they ended, and an answer comes once: of two threads that ask at once
one is told 255."""


def settings(**changes: Any) -> Settings:
    """Of a stand-in whose QPU seconds follow from the jobs alone."""
    return Settings(devices=("fake_kyiv",), token="chaos-0123456789abcdef", idle=0.0, **changes)


@dataclass
class Game:
    """One run, from its start to its end, in as many attempts as that takes.

    Attributes:
        folder: Of its own.
        options: Of the run.
        service: Running.
        attempts: How each ended: None by a kill, "" well, else the error's name.
        messages: What was said last.
    """

    folder: Path
    options: dict[str, Any]
    service: StandIn
    attempts: list[str | None] = field(default_factory=list)
    messages: str = ""

    def attempt(self, *, kill_after: float | None = None, **said: Any) -> str | None:
        """One attempt; how it ended."""
        ended = self.folder / "ended.json"
        ended.unlink(missing_ok=True)
        task = {
            "env": {
                **self.service.environment(),
                "QRUN_HOME": str(self.folder / "home"),
                "OMP_NUM_THREADS": "1",
                "USAGE_DATA_OPT_OUT": "True",
            },
            "log": str(self.folder / "log.txt"),
            "ended": str(ended),
            "run": self.run,
            "out": str(self.folder / "run"),
            "options": self.options,
            "said": {"patience": PATIENCE, **said},
        }
        process = _processes.Process(target=worker.attempt, args=(task,))
        with _asking:
            process.start()
        connection.wait([process.sentinel], kill_after if kill_after is not None else 120)
        with _asking:
            lives = process.is_alive()
        if lives:
            assert kill_after is not None, "an attempt hangs: " + (self.folder / "log.txt").read_text()[-2000:]
            process.kill()
            connection.wait([process.sentinel])
        with _asking:
            process.join()
        outcome: str | None = None
        if ended.exists():
            told = json.loads(ended.read_text())
            outcome, self.messages = told["error"] or "", str(told.get("message"))
        elif process.exitcode != -9:
            raise AssertionError("an attempt ended with a traceback: " + (self.folder / "log.txt").read_text()[-3000:])
        self.attempts.append(outcome)
        return outcome

    @property
    def run(self) -> str | None:
        """The run's name, once it is entered."""
        index = RunIndex(self.folder / "home")
        try:
            runs = index.list()
        finally:
            index.close()
        return runs[0].run if runs else None

    @property
    def done(self) -> bool:
        """Whether there is a result."""
        return (self.folder / "run" / "result.json").exists()

    def result(self) -> dict[str, Any]:
        """The result."""
        value: dict[str, Any] = json.loads((self.folder / "run" / "result.json").read_text())
        return value

    def to_the_end(self, seed: int, *, budget: float | None = None, enough: float | None = None) -> None:
        """Attempt after attempt, killed at random instants; what is unclear is sent anew after looking long enough.

        Args:
            seed: Of the instants.
            budget: Bound on QPU seconds, too small for the run; None for no bound.
            enough: The bound once the small one was met.
        """
        random_ = random.Random(seed)
        kills = random_.randint(0, 4)
        bound, resubmit = budget, False
        for _ in range(MOST_ATTEMPTS):
            kill_after = random_.expovariate(1 / 2.0) + 0.05 if kills else None
            said: dict[str, Any] = {"resubmit": resubmit and self.run is not None}
            if bound is not None:
                said["max_qpu_seconds"] = bound
            outcome = self.attempt(kill_after=kill_after, **said)
            kills -= outcome is None
            if bound is not None:
                assert self.service.spent() <= bound + 1e-9
            if self.done:
                return
            resubmit = outcome in ("UnclearError", "JobFailedError")
            if outcome == "BudgetError":
                assert bound == budget, self.messages
                bound = enough
            if resubmit:
                time.sleep(2 * LATE)  # a person looks at the service's own page; by now every job shows there
        raise AssertionError(f"no end after {self.attempts}: {self.messages}")

    def sent_twice(self) -> list[str]:
        """Jobs that the service accepted more than once."""
        counted = Counter(job.digest for job in self.service.accepted())
        return [digest for digest, times in counted.items() if times > 1]


def what_repeats(result: dict[str, Any]) -> dict[str, Any]:
    """What a disturbed run has to have in common with an undisturbed one."""
    device = result["device_run"]
    return {
        "final": result["final"],
        "metrics": result["metrics"],
        "models": [[(n["id"], n["cid"], n["metrics"]) for n in r["nodes"]] for r in result["rounds"]],
        "circuits": [
            [(n["resources"]["circuits"], n["resources"]["shots"]) for n in r["nodes"]] for r in result["rounds"]
        ],
        "qpu": [[n["resources"]["qpu_seconds"] for n in r["nodes"]] for r in result["rounds"]],
        # Not the digest of the kept bytes: they hold the job's tags.
        "jobs": sorted((j["request"], j["circuits"], j["qpu_seconds"]) for j in result["jobs"] if j["result"]),
        "device": None if device is None else {k: device[k] for k in ("metrics", "agreement", "qpu_seconds")},
    }


def disturbed(seed: int) -> Chaos:
    """Errors, dropped connections and delays; half of the refused work is done all the same."""
    return Chaos(seed, error=0.06, drop=0.04, late=0.1, longest=0.15, after=0.5)
