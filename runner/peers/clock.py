"""The chain's time: all deadlines are in it. The clocks of peers may be wrong."""

from __future__ import annotations

from datetime import UTC, datetime

from contracts.chain import Chain
from contracts.errors import LedgerError, LedgerUnreachable
from contracts.local_chain import LocalChain
from contracts.rpc_errors import translated


def chain_time(chain: Chain) -> int:
    """The time of a block that would be mined now, in seconds since 1970; where the node does not know, of the last."""
    if isinstance(chain, LocalChain):
        return chain.embedded.now()
    try:
        return _timestamp(chain, "pending")
    except LedgerUnreachable:
        raise
    except LedgerError:
        return _timestamp(chain, "latest")  # not every node makes up a block that is not there yet


def block_time(chain: Chain, number: int) -> int:
    """The time of a block that is there, in seconds since 1970."""
    return _timestamp(chain, number)


def _timestamp(chain: Chain, block: int | str) -> int:
    with translated(chain.where):
        return int(chain.w3.eth.get_block(block)["timestamp"])


def in_words(when: int) -> str:
    """A time on a chain, for people. One beyond all calendars is shown as what it is."""
    try:
        return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"second {when}"


def until(when: int, now: int) -> str:
    """How far a time is off: "in 2 h 5 min", "3 d 4 h ago"."""
    seconds = abs(when - now)
    for size, name, below, part in ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= size:
            rest = seconds % size // below
            text = f"{seconds // size} {name}" + (f" {rest} {part}" if rest else "")
            break
    else:
        text = f"{seconds} s"
    return f"in {text}" if when > now else f"{text} ago"
