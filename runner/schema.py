"""The JSON Schema of a result, which ships with the package."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

FORMAT = "qrun-result/4"
DETAIL: dict[str, Any] = {"detection": None}
"""What a result before /4 did not have: nothing is known of it."""
NEW: dict[str, Any] = {
    "device_run": None,
    "jobs": [],
    "sessions": [],
    "qpu": {"total": 0, "jobs": 0, "idle": 0, "by_purpose": {}},
}
"""What a result before /3 did not have, and what that means: no job was sent."""
OPTIONAL = frozenset({"mitigation"})
"""Keys that a result has where the config asks for it."""
READ = {
    FORMAT: frozenset[str](),
    "qrun-result/3": frozenset(DETAIL),
    "qrun-result/2": frozenset(NEW) | frozenset(DETAIL),
}
"""Formats that are read, and the keys that they do not have."""


def schema() -> dict[str, Any]:
    """The JSON Schema of a result (runner/result.schema.json)."""
    body: dict[str, Any] = json.loads(files("runner").joinpath("result.schema.json").read_text(encoding="utf-8"))
    return body


def keys_of(format_: object) -> frozenset[str] | None:
    """The keys that every result of a format has; None for one that is not read."""
    missing = READ.get(format_) if isinstance(format_, str) else None
    return None if missing is None else frozenset(schema()["required"]) - missing


def filled(result: Mapping[str, Any]) -> dict[str, Any]:
    """A result of a format that is read, with the keys of this version's."""
    return {**copy.deepcopy(NEW), **DETAIL, **result}
