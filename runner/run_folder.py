"""What stands in a run's folder, read back: hostile until checked, for a folder may have been edited or torn."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from circuits.errors import QrunError
from circuits.hostile import load_json
from runner.access import is_sound
from runner.config import RunConfig, build_config, canonical
from runner.places import is_sound as are_places
from runner.schema import FORMAT, filled, keys_of, schema

MAX_BYTES = 256 << 20
"""A thousand rounds of fifty nodes stay below."""
EARLIER = ("qrun-result/1",)
"""Formats of results that earlier versions wrote."""
METRICS = frozenset(schema()["$defs"]["metrics"]["required"])


def read_manifest(path: Path) -> tuple[RunConfig, dict[str, Any]]:
    """A run folder's config.json: the config, and the whole manifest (places, versions, created).

    The digest is taken of the config as it stands in the file: a later version of qrun, with settings that this one
    did not have, still reads the run.

    Raises:
        QrunError: missing, damaged, or changed by hand.
    """
    file = path / "config.json"
    try:
        manifest = load_json(file.read_bytes(), max_bytes=MAX_BYTES, what=str(file))
        saved, places, digest = manifest["config"], manifest["places"], manifest["config_digest"]
        sound = isinstance(saved, dict) and isinstance(manifest["versions"], dict) and are_places(places)
        sound = sound and manifest.get("device") in (None, "cpu", "cuda")
        sound = sound and ("access" not in manifest or is_sound(manifest["access"]))
        sound = sound and isinstance(manifest.get("chosen"), str | None)
    except (OSError, QrunError, KeyError, TypeError):
        raise QrunError(f"{file} is missing or damaged.", "Start the run anew.") from None
    if not sound or hashlib.sha256(canonical(saved)).hexdigest() != digest:
        raise QrunError(f"{file} was changed: its digest does not fit.", "Start the run anew.")
    return build_config(saved, origin=str(file)), manifest


def read_result(path: Path) -> dict[str, Any]:
    """A finished run's result.json.

    Raises:
        QrunError: missing, damaged, or of an earlier version of qrun.
    """
    file = path / "result.json"
    try:
        result = load_json(file.read_bytes(), max_bytes=MAX_BYTES, what=str(file))
        named = str(result["format"])
        keys = keys_of(named)
        sound = keys is not None and set(result) >= keys and _are_figures(result["metrics"])
    except (OSError, QrunError, KeyError, TypeError, AttributeError):
        sound, named = False, ""
    if named in EARLIER:
        raise QrunError(
            f"{file} is of format {named}, and this version reads {FORMAT}.",
            "Read it with the version of qrun that made it.",
        )
    if not sound:
        raise QrunError(f"{file} is missing or damaged.", "Remove the file and resume the run: it is written again.")
    return filled(result)


def _are_figures(parts: dict[str, Any]) -> bool:
    return all(
        figures is None or (set(figures) >= METRICS and all(isinstance(v, (int, float)) for v in figures.values()))
        for figures in (parts["holdout"], parts["test"], parts["test_without_seen"])
    )
