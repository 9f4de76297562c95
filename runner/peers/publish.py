"""What others must be able to fetch before the chain names it."""

from __future__ import annotations

from contracts.store import ContentStore
from runner.peers.watch import Watch


def with_the_others(store: ContentStore, watch: Watch) -> None:
    """Wait until all that was put is on the daemon, where the store has one: what is only here nobody can check.

    Raises:
        ContentError: the daemon refuses a file.
        Stopped: the process is to end.
    """
    push = getattr(store, "push", None)
    if push is not None:
        watch.ask(push)
