"""Waiting for a service that is slow, away for a while, or both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from backends.runtime.client import Clock, Lost
from backends.runtime.types import Tell

Value = TypeVar("Value")

LONGEST = 30.0
"""Seconds between two questions, at most."""


CHARGED, CHARGED_LONGEST = 0.2, 2.0
"""Seconds, the first and at most, where waiting is charged: a session is paid while it idles."""


def pauses(first: float = 1.0, *, longest: float = LONGEST) -> Iterator[float]:
    """Growing pauses, seconds, up to the longest."""
    pause = first
    while True:
        yield pause
        pause = min(pause * 1.5, longest)


def charged_pauses() -> Iterator[float]:
    """The same for where waiting is charged."""
    return pauses(CHARGED, longest=CHARGED_LONGEST)


class Patient:
    """Asks until there is an answer, and says once that it waits.

    Args:
        clock: Time.
        tell: Told when an answer fails to come, once until the next one comes.
    """

    def __init__(self, clock: Clock, tell: Tell) -> None:
        self._clock, self._tell = clock, tell
        self._away = False

    def ask(self, question: Callable[[], Value]) -> Value:
        """The answer, however long it takes. What asking again does not mend is raised."""
        for pause in pauses():
            try:
                answer = question()
            except Lost as error:
                self.away(str(error))
                self._clock.sleep(pause)
            else:
                self._away = False
                return answer
        raise AssertionError("pauses never end")

    def away(self, why: str) -> None:
        """Say that the service does not answer, once."""
        if not self._away:
            self._tell(
                "waiting for the service", f"no answer for now: {why}. Jobs go on by themselves; Ctrl-C is safe."
            )
        self._away = True

    def back(self) -> None:
        """It answers again."""
        self._away = False
