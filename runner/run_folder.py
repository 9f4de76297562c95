"""What stands in a run's folder, read back: hostile until checked, for a folder may have been edited or torn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from circuits.errors import QrunError
from experiments.hostile import load_json
from runner.config import RunConfig, build_config

MAX_BYTES = 256 << 20
"""A thousand rounds of fifty nodes stay below."""


def read_manifest(path: Path) -> tuple[RunConfig, dict[str, Any]]:
    """A run folder's config.json: the config, and the whole manifest (places, versions, created).

    Raises:
        QrunError: missing, damaged, or changed by hand.
    """
    file = path / "config.json"
    try:
        manifest = load_json(file.read_bytes(), max_bytes=MAX_BYTES, what=str(file))
        config = build_config(manifest["config"], origin=str(file))
        places, digest = manifest["places"], manifest["config_digest"]
        sound = isinstance(places, dict) and isinstance(manifest["versions"], dict)
    except (OSError, QrunError, KeyError, TypeError):
        raise QrunError(f"{file} is missing or damaged.", "Start the run anew.") from None
    if not sound or config.digest.hex() != digest:
        raise QrunError(f"{file} was changed: its digest does not fit.", "Start the run anew.")
    return config, manifest


def read_result(path: Path) -> dict[str, Any]:
    """A finished run's result.json.

    Raises:
        QrunError: missing or damaged.
    """
    file = path / "result.json"
    try:
        result = load_json(file.read_bytes(), max_bytes=MAX_BYTES, what=str(file))
    except (OSError, QrunError):
        raise QrunError(f"{file} is missing or damaged.", "Start the run anew.") from None
    if not isinstance(result, dict) or "metrics" not in result:
        raise QrunError(f"{file} is damaged.", "Start the run anew.")
    return result
