"""The routes under /standin: faults, holding jobs, settings, and what was received (no token is asked for)."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Any

from backends.runtime.standin.faults import Chaos, Faults, fault_of
from backends.runtime.standin.queue import Queue
from backends.runtime.standin.record import Record, accepted
from backends.runtime.standin.replies import Call, Refused, Reply

CHANGEABLE = (
    "queue",
    "running",
    "late",
    "late_by_id",
    "usage_late",
    "idle",
    "failing",
    "allowance",
    "spent",
    "plan",
    "token",
)


def control(call: Call, queue: Queue, faults: Faults, record: Record) -> Reply:
    """Answer a request to a path under /standin.

    GET /standin/jobs, /standin/sessions, /standin/requests, /standin/faults; POST /standin/faults (a fault's fields),
    /standin/chaos (its fields, or {} to end it), /standin/settings (some fields), /standin/hold, /standin/release;
    DELETE /standin/faults.

    Raises:
        Refused: An unknown path, or a body that does not fit it.
    """
    what, body = call.path.removeprefix("/standin/"), call.json() if call.method == "POST" else {}
    try:
        reply = _do(f"{call.method} {what}", body, queue, faults, record)
    except (TypeError, ValueError, re.error) as error:
        raise Refused(400, f"{call.path}: {error}") from None
    if reply is None:
        raise Refused(404, f"{call.method} {call.path} is not known here.")
    return reply


def _do(what: str, body: dict[str, Any], queue: Queue, faults: Faults, record: Record) -> Reply | None:
    method, _, name = what.partition(" ")
    if method == "GET":
        return _shown(name, queue, faults, record)
    if what == "DELETE faults":
        faults.clear()
    elif what == "POST faults":
        faults.add(fault_of(body))
    elif what == "POST chaos":
        if "statuses" in body:
            body["statuses"] = tuple(body["statuses"])
        faults.chaos(Chaos(**body) if body else None)
    elif what == "POST settings":
        _set(body, queue)
    elif what in {"POST hold", "POST release"}:
        queue.hold(name == "hold")
    else:
        return None
    return Reply(204)


def _shown(name: str, queue: Queue, faults: Faults, record: Record) -> Reply | None:
    if name == "jobs":
        return Reply(body={"jobs": accepted(queue)})
    if name == "sessions":
        with queue.changed:
            return Reply(body={"sessions": [asdict(session) for session in queue.sessions.values()]})
    if name == "requests":
        return Reply(body={"requests": [asdict(entry) for entry in record.entries()]})
    if name == "faults":
        return Reply(body={"faults": [asdict(fault) for fault in faults.pending()]})
    return None


def _set(body: dict[str, Any], queue: Queue) -> None:
    if strange := sorted(set(body) - set(CHANGEABLE)):
        raise ValueError(f"cannot set {', '.join(strange)}; known: {', '.join(CHANGEABLE)}")
    with queue.changed:
        for name, value in body.items():
            setattr(queue.settings, name, value)
        queue.changed.notify_all()
