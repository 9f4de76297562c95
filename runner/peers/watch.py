"""Waiting for others: what is asked again, how often, and what is said meanwhile.

Nobody here goes by this machine's clock: whether a deadline is over the chain says. A chain or a store that does not
answer is asked again until it does; that is told once.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TypeVar

from contracts.errors import LedgerUnreachable
from runner.progress import Reporter

T = TypeVar("T")

SHORTEST, LONGEST = 0.2, 2.0
"""Seconds between two looks: at first, and after a while."""
TURN_SECONDS = 1.5
"""What the node whose turn it is has to settle a round before the next one does."""


class Stopped(Exception):
    """The process is to end: not an error."""


@dataclass
class Watch:
    """How a peer waits.

    Attributes:
        reporter: Told what is waited for, and of outages.
        lock: Held while chain and store are asked; the threads of a peer share it, and never sleep with it.
        stop: Set where the process is to end.
        pause: Sleeps; for tests.
    """

    reporter: Reporter
    lock: AbstractContextManager[object] = field(default_factory=nullcontext)
    stop: threading.Event = field(default_factory=threading.Event)
    pause: Callable[[float], object] | None = None
    _away: bool = False

    def until(self, what: str, ready: Callable[[], object]) -> None:
        """Ask `ready` again and again until it gives something true.

        Raises:
            Stopped: the process is to end.
        """
        wait, told = SHORTEST, False
        while not self.ask(ready):
            if not told:
                self.reporter.stage(f"waiting for {what}")
                told = True
            self.sleep(wait)
            wait = min(LONGEST, wait * 1.3)

    def ask(self, step: Callable[[], T]) -> T:
        """Take a step with chain or store, again where they do not answer. The step must be one that may be repeated.

        Raises:
            Stopped: the process is to end.
        """
        wait = SHORTEST
        while True:
            if self.stop.is_set():
                raise Stopped
            try:
                with self.lock:
                    found = step()
            except LedgerUnreachable as error:
                if not self._away:
                    self.reporter.notice("Not reachable", f"{error.message} It is asked again until it answers.")
                self._away = True
                self.sleep(wait)
                wait = min(10.0, wait * 2)
                continue
            if self._away:
                self.reporter.notice("Reachable", "Chain and store answer again.")
            self._away = False
            return found

    def sleep(self, seconds: float) -> None:
        """Rest, a little more or less than so long, so that peers do not ask in step.

        Raises:
            Stopped: the process is to end.
        """
        rest = seconds * random.uniform(0.8, 1.2)
        if self.pause is not None:
            self.pause(rest)
        elif self.stop.wait(rest):
            raise Stopped


@dataclass
class Elsewhere:
    """The other nodes of a round, each in a process of its own; see runner/round.py's Others.

    Attributes:
        watch: How they are waited for.
        me: This node's number.
        nodes: How many there are.
    """

    watch: Watch
    me: int
    nodes: int

    def wait(self, number: int, what: str, over: Callable[[], bool]) -> None:
        """Wait until a step of a round is over, by all that take part or by its deadline."""
        self.watch.until(f"the others' {what} of round {number}", over)

    def turn(self, number: int, settled: Callable[[], bool]) -> None:
        """Wait while it is others' turn to settle: one transaction is enough, and the others' would be refused."""
        end = time.monotonic() + ((self.me - number) % self.nodes) * TURN_SECONDS
        while time.monotonic() < end and not self.watch.ask(settled):
            self.watch.sleep(0.3)
