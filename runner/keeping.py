"""What a finished run leaves beside its result: models under names that people can read, calibrations in the store."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backends.target import Target
from contracts.store import ContentStore
from runner.job_record import snapshot_bytes
from runner.store import write_durably
from runner.update import MAX_BYTES


def keep_snapshot(target: Target, content: ContentStore) -> str | None:
    """Put the calibration that a target was built from into the store; its CID, None where it came with qrun."""
    data = snapshot_bytes(target)
    return None if data is None else content.put(data)


def keep_models(path: Path, result: Mapping[str, Any], content: ContentStore) -> None:
    """Copy the models out of the store under names that people can read."""
    folder = path / "models"
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir()
    named = {"feature-map.json": result["feature_map"]["cid"], "final.json": result["final"]["cid"]}
    for round_ in result["rounds"]:
        for entry in round_["nodes"]:
            if not entry["fault"]:
                named[f"round-{round_['number']:03d}-node-{entry['id']:02d}.json"] = entry["cid"]
    for name, cid in named.items():
        write_durably(folder / name, content.get(cid, max_bytes=MAX_BYTES))
