"""A task's events, read once and kept: who did what in which transaction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from contracts.chain import Chain


@dataclass(frozen=True)
class Entry:
    """One event: its name, its arguments, and where it stands: transaction, block, place among the block's logs."""

    name: str
    args: Mapping[str, Any]
    tx: str
    block: int
    index: int


OVERLAP = 16
"""Blocks that are read again each time behind a URL: one server may lag behind the head that another told."""

Place = tuple[int, int]
"""Block, place among the block's logs."""

Key = tuple[str, int, int]
"""Event, round (0 where it has none), node (0 where it has none)."""


class EventLog:
    """The events of one contract, found by what they are about. Grows by what the chain has new.

    What a reorganisation takes back is forgotten: an event that is not there again when its blocks are read again,
    though its block is another one now, and with it all others whose block is gone.
    """

    def __init__(self, chain: Chain, contract: Any, opened_at: int) -> None:
        self._chain = chain
        self._contract = contract
        self._opened_at = self._next = opened_at
        self._entries: dict[Place, Entry] = {}
        self._blocks: dict[int, bytes] = {}  # of the blocks with events: their hashes, as they were read
        self._last: dict[Key, Entry] = {}
        self._gas: dict[str, int] = {}
        self._events = {}
        for event in contract.events:
            self._events[bytes.fromhex(event().topic.removeprefix("0x"))] = event()

    def refresh(self) -> None:
        """Read what was logged since the last time."""
        head = self._chain.head_number()
        again = 0 if self._chain.kind == "embedded" else OVERLAP
        first = max(self._opened_at, self._next - again)
        logs = self._chain.logs(self._contract.address, first, head)
        gone = self._forget_what_is_gone(logs, first, head)
        if gone < first:
            logs = self._chain.logs(self._contract.address, gone, head)
        for log in logs:
            event = self._events.get(bytes(log["topics"][0]))
            if event is None:
                continue
            args = dict(event.process_log(log)["args"])
            entry = Entry(
                name=event.event_name,
                args=args,
                tx="0x" + bytes(log["transactionHash"]).hex(),
                block=int(log["blockNumber"]),
                index=int(log["logIndex"]),
            )
            self._entries[(entry.block, entry.index)] = entry
            self._blocks[entry.block] = bytes(log["blockHash"])
            self._last[_key(entry)] = entry
        self._next = max(self._next, head + 1)

    def _forget_what_is_gone(self, logs: list[Any], first: int, head: int) -> int:
        """Forget the events of blocks that are no more; the first of those blocks, or `first`."""
        there = {int(log["blockNumber"]): bytes(log["blockHash"]) for log in logs}
        again = [block for block in self._blocks if first <= block <= head]
        if all(there.get(block) == self._blocks[block] for block in again):
            return first
        # A server that lags behind gives fewer events too, of the same blocks: those are kept.
        gone = set()
        for block in sorted(self._blocks, reverse=True):
            if self._chain.block_hash(block) != self._blocks[block]:
                gone.add(block)
            elif block < first:
                break  # the blocks below are those that it names
        if not gone:
            return first
        for block in gone:
            del self._blocks[block]
        for place, entry in list(self._entries.items()):
            if place[0] in gone:
                del self._entries[place]
                self._gas.pop(entry.tx, None)
        self._entries = dict(sorted(self._entries.items()))
        self._last = {_key(entry): entry for entry in self._entries.values()}
        return min(first, *gone)

    def find(self, name: str, *, round_: int = 0, node: int = 0) -> Entry | None:
        """The event (the last one, where it may happen again), or None where it has not happened."""
        key = (name, round_, node)
        if key not in self._last:
            self.refresh()
        return self._last.get(key)

    def all(self, *names: str) -> list[Entry]:
        """Every event of these names (of any, where none is given), in the order of the chain."""
        self.refresh()
        return [entry for _, entry in sorted(self._entries.items()) if not names or entry.name in names]

    def of_round(self, name: str, round_: int) -> list[Entry]:
        """The events of that name in a round, in the order of nodes."""
        self.refresh()
        found = [(key[2], entry) for key, entry in self._last.items() if key[:2] == (name, round_)]
        return [entry for _, entry in sorted(found, key=lambda pair: pair[0])]

    def gas_used(self) -> int:
        """Gas of all transactions that changed the contract's state."""
        self.refresh()
        unknown = sorted({entry.tx for entry in self._entries.values()} - self._gas.keys())
        self._gas.update(zip(unknown, self._chain.gas_of(unknown), strict=True))
        return sum(self._gas.values())

    def note_gas(self, tx: str, gas: int) -> None:
        """Remember what a transaction used, so that it need not be asked for."""
        self._gas[tx] = gas


def _key(entry: Entry) -> Key:
    return (entry.name, int(entry.args.get("round", 0)), int(entry.args.get("node", 0)))
