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

Key = tuple[str, int, int]
"""Event, round (0 where it has none), node (0 where it has none)."""


class EventLog:
    """The events of one contract, found by what they are about. Grows by what the chain has new."""

    def __init__(self, chain: Chain, contract: Any, opened_at: int) -> None:
        self._chain = chain
        self._contract = contract
        self._opened_at = self._next = opened_at
        self._entries: dict[tuple[int, int], Entry] = {}
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
        for log in self._chain.logs(self._contract.address, first, head):
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
            self._last[(entry.name, int(args.get("round", 0)), int(args.get("node", 0)))] = entry
        self._next = max(self._next, head + 1)

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
