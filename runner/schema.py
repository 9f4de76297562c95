"""The JSON Schema of a result, which ships with the package."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

FORMAT = "qrun-result/2"


def schema() -> dict[str, Any]:
    """The JSON Schema of a result (runner/result.schema.json)."""
    body: dict[str, Any] = json.loads(files("runner").joinpath("result.schema.json").read_text(encoding="utf-8"))
    return body
