"""What stands in a run's folder, read back: hostile until checked, for a folder may have been edited or torn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from circuits.errors import QrunError
from runner.config import RunConfig, build_config


def read_manifest(path: Path) -> tuple[RunConfig, dict[str, Any]]:
    """A run folder's config.json: the config, and the whole manifest (places, versions, created).

    Raises:
        QrunError: missing, damaged, or changed by hand.
    """
    file = path / "config.json"
    try:
        manifest = json.loads(file.read_bytes())
        config = build_config(manifest["config"], origin=str(file))
        places, digest = manifest["places"], manifest["config_digest"]
        sound = isinstance(places, dict) and isinstance(manifest["versions"], dict)
    except (OSError, ValueError, KeyError, TypeError):
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
        result = json.loads(file.read_bytes())
    except (OSError, ValueError):
        raise QrunError(f"{file} is missing or damaged.", "Start the run anew.") from None
    if not isinstance(result, dict) or "metrics" not in result:
        raise QrunError(f"{file} is damaged.", "Start the run anew.")
    return result
