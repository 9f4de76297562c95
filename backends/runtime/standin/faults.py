"""What goes wrong on purpose: error codes, dropped connections and delays, one by one or at random."""

from __future__ import annotations

import random
import re
import threading
from dataclasses import dataclass, field
from typing import Any

from backends.runtime.standin.replies import Call

STATUSES = (429, 500, 502, 503, 504)
UNHARMED = re.compile(r"^/(identity|v3|catalog|standin)/")
"""Chaos leaves accounts alone: a token that cannot be fetched makes the client ask with its API key."""


@dataclass
class Fault:
    """What happens to the next requests that match.

    Attributes:
        method: "GET", "POST" ...; "" is any.
        path: A regular expression that is searched in the path (without "/api/v1").
        status: Answer this HTTP status; None: the true answer.
        drop: Close the connection instead of answering.
        after: Do the work first: the job is accepted, but the client is not told.
        delay: Seconds before anything else.
        times: How many requests it takes.
        retry_after: A Retry-After header, seconds.
    """

    method: str = ""
    path: str = ""
    status: int | None = None
    drop: bool = False
    after: bool = False
    delay: float = 0.0
    times: int = 1
    retry_after: int | None = None

    def matches(self, call: Call) -> bool:
        """Whether it is about this request."""
        return self.method in {"", call.method} and re.search(self.path, call.path) is not None


@dataclass(frozen=True)
class Chaos:
    """Faults at random, by seed.

    Attributes:
        seed: The same seed draws the same faults, in the order in which requests come.
        error: Probability of an error status.
        drop: Probability of a dropped connection.
        late: Probability of a delay.
        longest: Longest delay, seconds.
        after: Probability that the work is done all the same, where an error of 500 or above or a drop was drawn.
        statuses: What to answer.
        path: Which paths, as in `Fault`.
    """

    seed: int
    error: float = 0.05
    drop: float = 0.05
    late: float = 0.05
    longest: float = 0.2
    after: float = 0.5
    statuses: tuple[int, ...] = STATUSES
    path: str = ""


@dataclass
class Faults:
    """All that is set to go wrong."""

    _faults: list[Fault] = field(default_factory=list)
    _chaos: Chaos | None = None
    _random: random.Random = field(default_factory=lambda: random.Random(0))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, *faults: Fault) -> None:
        """Set faults, after those that are set already; each takes the first requests that match."""
        with self._lock:
            self._faults += faults

    def chaos(self, chaos: Chaos | None) -> None:
        """Begin chaos, or end it with None."""
        with self._lock:
            self._chaos = chaos
            self._random = random.Random(chaos.seed if chaos else 0)

    def clear(self) -> None:
        """Nothing goes wrong any more."""
        with self._lock:
            self._faults.clear()
            self._chaos = None

    def pending(self) -> list[Fault]:
        """Faults that wait for their requests."""
        with self._lock:
            return list(self._faults)

    def take(self, call: Call) -> Fault | None:
        """The fault of this request, if any; it counts as used."""
        with self._lock:
            for fault in self._faults:
                if fault.matches(call):
                    fault.times -= 1
                    if fault.times <= 0:
                        self._faults.remove(fault)
                    return fault
            return self._draw(call)

    def _draw(self, call: Call) -> Fault | None:
        chaos = self._chaos
        if chaos is None or UNHARMED.match(call.path) or re.search(chaos.path, call.path) is None:
            return None
        # All numbers are drawn for every request, so that one rate does not shift what another draws.
        error, drop, late, after = (self._random.random() for _ in range(4))
        status, delay = self._random.choice(chaos.statuses), self._random.random() * chaos.longest
        fault = Fault(delay=delay if late < chaos.late else 0.0, after=after < chaos.after)
        if drop < chaos.drop:
            fault.drop = True
        elif error < chaos.error:
            fault.status = status
            fault.after = fault.after and status >= 500  # who is told 4xx is told that nothing was done
        return fault if fault.drop or fault.status or fault.delay else None


def fault_of(document: dict[str, Any]) -> Fault:
    """A fault from JSON; raises TypeError or ValueError where it is none."""
    fault = Fault(**document)
    re.compile(fault.path)
    if not isinstance(fault.times, int) or fault.times < 1 or not isinstance(fault.delay, int | float):
        raise ValueError("times and delay must be numbers")
    return fault
