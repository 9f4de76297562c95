"""Times as the service writes them."""

from __future__ import annotations

from datetime import UTC, datetime


def stamp(moment: float | None) -> str | None:
    """ISO 8601 in UTC, from `time.time`'s seconds."""
    if moment is None:
        return None
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def moment(text: str) -> float:
    """The other way round; raises ValueError."""
    parsed = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
