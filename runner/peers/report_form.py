"""The form of what one peer says at the end (docs/peers.md explains its fields): read back, hostile until checked."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from circuits.errors import QrunError
from circuits.hostile import load_json
from contracts.records import METRIC_NAMES

FORMAT = "qrun-node/1"
MAX_BYTES = 1 << 24
PARTS = ("holdout", "test", "test_without_seen")
"""What the finished model is scored on."""
_HASH = re.compile(r"0x[0-9a-f]{64}")


def read_report(data: bytes) -> dict[str, Any]:
    """A peer's report.

    Raises:
        QrunError: it is none; says which part is not of this format.
    """
    body = load_json(data, max_bytes=MAX_BYTES, what="report")
    wrong = "it is no object with the format's keys and no others"
    if isinstance(body, dict) and body.keys() == _FORM.keys():
        wrong = next(
            (f"{name} is not of the form that it has" for name, fits in _FORM.items() if not fits(body[name])), ""
        )
    if wrong:
        raise QrunError(f"report rejected: {wrong}.", f"It is to be of format {FORMAT}.")
    return dict(body)


def format_of(data: bytes) -> str:
    """The format that a report or a result names; empty where it names none."""
    try:
        body = load_json(data, max_bytes=MAX_BYTES, what="report")
    except QrunError:
        return ""
    named = body.get("format") if isinstance(body, dict) else None
    return named if isinstance(named, str) else ""


Fits = Callable[[Any], bool]


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _boolean(value: Any) -> bool:
    return isinstance(value, bool)


def _or_nothing(fits: Fits) -> Fits:
    return lambda value: value is None or fits(value)


def _list_of(fits: Fits) -> Fits:
    return lambda value: isinstance(value, list) and all(map(fits, value))


def _table_of(fits: Fits) -> Fits:
    """Any keys."""
    return lambda value: isinstance(value, dict) and all(map(fits, value.values()))


def _with(keys: Mapping[str, Fits]) -> Fits:
    """These keys and no others."""
    return lambda value: (
        isinstance(value, dict) and value.keys() == keys.keys() and all(fits(value[k]) for k, fits in keys.items())
    )


def _anything(value: Any) -> bool:
    return True


_METRICS = _with(dict.fromkeys(METRIC_NAMES, _number))
_FORM: dict[str, Fits] = {
    "format": lambda value: bool(value == FORMAT),
    "task": _with({"chain_id": _whole, "contract": _text, "schedule": _text}),
    "node": _with({"id": _whole, "address": _text, "reputation": _number, "excluded": _boolean}),
    "config": _table_of(_anything),
    "config_digest": _text,
    "dataset": _with({"name": _text, "source": _text, "sha256": _table_of(_text)}),
    "backend": _table_of(_anything),
    "feature_map": _with({"cid": _text}),
    "models": _list_of(_with({"round": _whole, "cid": _text, "tx": _text, "metrics": _METRICS})),
    "final": _with({"cid": _text, "round": _whole, "calibrated_by": _list_of(_whole)}),
    "metrics": _with(dict.fromkeys(PARTS, _or_nothing(_METRICS))),
    "witnessed": _or_nothing(
        _with({"block": _whole, "hash": lambda value: isinstance(value, str) and bool(_HASH.fullmatch(value))})
    ),
    "versions": _table_of(_or_nothing(_text)),
    "seconds": _with({"total": _number, "phases": _table_of(_number), "besides_training_a_round": _number}),
    "memory_mb": _number,
}
