"""What is being done, for the tags of jobs: set by the layer above, read when a job is made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field


@dataclass
class Label:
    """A piece of a run's work that sends jobs.

    Attributes:
        purpose: "train", "fine-tune", "measure", "aggregate", "final", "device" ...
        round: Its round; 0 outside of rounds.
        base: The round that this one started from: after a rollback a number may be played again.
        node: Whose work it is; -1: nobody's own.
        step: Counts the calls of the engine inside; the executor adds one for each.
    """

    purpose: str
    round: int = 0
    base: int = 0
    node: int = -1
    step: int = field(default=0)

    def key(self) -> str:
        """What the next call is for: one of a kind in a run."""
        return f"{self.purpose}/{self.round}/{self.base}/{self.node}/{self.step}"


_CURRENT: ContextVar[Label | None] = ContextVar("qrun_label", default=None)


@contextmanager
def labelled(purpose: str, *, round_: int = 0, base: int = 0, node: int = -1) -> Iterator[Label]:
    """Label all calls of engines inside."""
    label = Label(purpose, round_, base, node)
    token = _CURRENT.set(label)
    try:
        yield label
    finally:
        _CURRENT.reset(token)


def current() -> Label:
    """The innermost label; one without a name outside of all."""
    return _CURRENT.get() or Label("call")
