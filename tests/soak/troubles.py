"""What happens to a soak's peers and servers, drawn at random: one thing after the other, each mended again."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.soak.nodes import Node
from tests.soak.servers import ChainNode, StoreNode
from tests.soak.small_disk import SmallDisk


@dataclass
class Troubles:
    """Draws and plays them; `tend` is to be called often.

    Attributes:
        nodes: The peers.
        chain: Is killed with all peers cut off.
        store: Is killed as it is.
        disk: Of the first peer.
        rng: What they are drawn from.
        every: Seconds between two, in the mean.
        tell: Told of each.
    """

    nodes: Sequence[Node]
    chain: ChainNode
    store: StoreNode
    disk: SmallDisk
    rng: random.Random
    every: float
    tell: Callable[[str], None]
    counts: Counter[str] = field(default_factory=Counter)
    _next: float = 0.0
    _mend: list[tuple[float, Callable[[], None]]] = field(default_factory=list)
    _busy: set[str] = field(default_factory=set)

    def tend(self) -> None:
        """Mend what is due, and begin something new when its time has come."""
        now = time.monotonic()
        for due, mend in [m for m in self._mend if m[0] <= now]:
            self._mend.remove((due, mend))
            mend()
        if now >= self._next:
            self._next = now + self.rng.expovariate(1 / self.every)
            self._play(self.rng.choice(KINDS))

    def mend_all(self) -> None:
        """Leave nothing broken."""
        for _, mend in self._mend:
            mend()
        self._mend.clear()

    def _later(self, least: float, most: float, name: str, mend: Callable[[], None]) -> None:
        def done() -> None:
            mend()
            self._busy.discard(name)

        self._busy.add(name)
        self._mend.append((time.monotonic() + self.rng.uniform(least, most), done))

    def _play(self, kind: str) -> None:
        at_work = [node for node in self.nodes if node.alive and not node.done]
        if not at_work:
            return
        if kind == "node killed":
            node = self.rng.choice(at_work)
            node.kill()
            self._note(kind, f"node {node.index}")
        elif kind == "partition" and kind not in self._busy:
            some = self.rng.sample(at_work, self.rng.randint(1, max(1, len(at_work) // 2)))
            wires = [
                w for node in some for w in self.rng.choice([(node.chain,), (node.ipfs,), (node.chain, node.ipfs)])
            ]
            for wire in wires:
                wire.cut()
            self._note(kind, f"nodes {sorted(n.index for n in some)}")
            self._later(5, 20, kind, lambda: [wire.mend() for wire in wires] and None)
        elif kind == "daemon killed" and kind not in self._busy:
            self.store.kill()
            self._note(kind, "")
            self._later(3, 10, kind, self.store.start)
        elif kind == "chain killed" and "partition" not in self._busy:
            for node in self.nodes:
                node.chain.cut()
            self._note(kind, "")
            self.chain.kill_and_restart()
            self._later(1, 5, "partition", lambda: [node.chain.mend() for node in self.nodes] and None)
        elif kind == "disk full" and self.disk.mounted and kind not in self._busy and not self.nodes[0].done:
            self.disk.fill()
            self._note(kind, "node 0")
            self._later(4, 10, kind, self.disk.free)

    def _note(self, kind: str, what: str) -> None:
        self.counts[kind] += 1
        self.tell(f"{kind} {what}".strip())


KINDS = ("node killed", "node killed", "node killed", "partition", "daemon killed", "chain killed", "disk full")
