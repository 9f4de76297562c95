"""Tasks played on a chain in a file, closed, and read back as an audit does."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from eth_account import Account

from contracts.chain import connect
from contracts.event_log import Entry
from contracts.history import Call, History, read_file
from contracts.records import TaskSpec
from contracts.rounds import FederatedRounds
from runner.audit.checks import Findings
from runner.audit.replay import Replay
from runner.audit.task_state import TaskState
from tests.contracts.conftest import QUICK, Bank, Play


@contextmanager
def task(path: Path, players: int, rounds: int = 2, **fields: Any) -> Iterator[Play]:
    """A task on a chain of its own, whose clock `wait` moves; the file can be read after it."""
    ready = [Account.from_key((1000 + i).to_bytes(32, "big")) for i in range(players + 3)]
    clock = time.time()
    with connect(path, [a.address for a in ready], clock=lambda: clock + bank.ahead) as chain:
        bank = Bank(chain, ready)
        opener, *accounts = bank.accounts(players + 1)
        known = {
            "experiment": "test",
            "config_digest": b"c" * 32,
            "data_source": "stand-in",
            "max_rounds": rounds,
            "nodes": tuple(account.address for account in accounts),
            "rules": QUICK,
            **fields,
        }
        spec = TaskSpec(**known)
        yield Play(bank, opener, accounts, spec, FederatedRounds.deploy(chain, opener, spec))


def replayed(history: History) -> tuple[Findings, TaskState | None]:
    findings = Findings()
    return findings, Replay(history, findings).play()


def read(path: Path, play: Play) -> History:
    return read_file(path, play.contract.address)


def told(findings: Findings) -> list[str]:
    """Every false statement, with its reason."""
    return [f"{check.claim}: {check.reason}" for check in findings.of("false")]


def forge(history: History, name: str, change: Callable[[Entry], Entry], nth: int = 0) -> History:
    """The same log with one event changed, as whoever writes the chain could change it."""
    seen = -1

    def forged(call: Call) -> Call:
        nonlocal seen
        out = []
        for entry in call.entries:
            seen += entry.name == name
            out.append(change(entry) if entry.name == name and seen == nth else entry)
        return replace(call, entries=tuple(out))

    return replace(history, calls=tuple(forged(call) for call in history.calls))


def with_args(**changed: Any) -> Callable[[Entry], Entry]:
    """An event with other arguments."""
    return lambda entry: replace(entry, args={**entry.args, **changed})
