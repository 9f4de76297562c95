"""The node behind --chain is not believed: a peer executes the task again, and compares (contracts/witness.py)."""

from __future__ import annotations

from dataclasses import dataclass

from contracts.errors import LedgerError, LedgerUnreachable
from contracts.witness import Inspection, Witness
from runner.peers.watch import Watch
from runner.progress import Reporter

TRIES = 5
"""So often it is asked anew where the chain changed while it was read."""


@dataclass
class Witnessing:
    """Looks after the task on one node.

    Attributes:
        witness: Executes again.
        watch: How a node that is away is waited for.
        reporter: Told of what could not be checked.
        blocks: What was looked at: number and hash of the last block; None before.
    """

    witness: Witness
    watch: Watch
    reporter: Reporter
    blocks: tuple[int, str] | None = None
    _told: frozenset[str] = frozenset()

    def look(self) -> None:
        """Execute what is new, and go on only if the node told the truth.

        Raises:
            LedgerError: it did not, or cannot be read.
            Stopped: the process is to end.
        """
        found = self._inspect()
        found.require()
        self.blocks = found.block, found.block_hash
        for text in sorted(set(found.unchecked) - self._told):
            self.reporter.notice("Not checked", text)
        self._told |= set(found.unchecked)

    def _inspect(self) -> Inspection:
        known = list(self.witness.chain.mined)
        for left in range(TRIES - 1, -1, -1):
            try:
                return self.watch.ask(lambda: self.witness.check(known))
            except LedgerUnreachable:
                raise
            except LedgerError:
                if not left:
                    raise
            self.watch.sleep(0.5)
        raise AssertionError
