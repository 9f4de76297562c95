"""Runs that were made: described for `qrun runs list` and `qrun runs show`, and removed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from circuits.errors import QrunError
from runner.run_folder import read_manifest, read_result
from runner.store import RunIndex, RunInfo


def _line(info: RunInfo) -> dict[str, Any]:
    out: dict[str, Any] = {
        "run": info.run,
        "state": info.state,
        "created": datetime.fromtimestamp(info.created, UTC).isoformat(timespec="seconds"),
        "path": str(info.path),
    }
    try:
        config, _ = read_manifest(info.path)
        out |= {"experiment": config.experiment, "backend": config.backend, "engine": config.engine}
        if info.state == "finished":
            out["metrics"] = read_result(info.path)["metrics"]
    except QrunError:
        pass
    return out


def describe_runs() -> list[dict[str, Any]]:
    """All runs, oldest first, a dict each: run, state, created, path, and what is known of config and metrics."""
    index = RunIndex()
    try:
        return [_line(info) for info in index.list()]
    finally:
        index.close()


def describe_run(name: str) -> dict[str, Any]:
    """One run: its line, its config, its result if it is finished, else how to go on."""
    index = RunIndex()
    try:
        info = index.find(name)
    finally:
        index.close()
    out = _line(info)
    if info.state not in ("missing", "not started"):
        config, manifest = read_manifest(info.path)
        out |= {
            "config": config.model_dump(mode="json"),
            "places": manifest["places"],
            "versions": manifest["versions"],
        }
    out["result"] = read_result(info.path) if info.state == "finished" else None
    return out


def remove_run(name: str) -> None:
    """Delete a run's folder and its line.

    Raises:
        QrunError: the run is being worked on.
    """
    index = RunIndex()
    try:
        info = index.find(name)
        if info.state == "running":
            raise QrunError(f"run {info.run} is running.", "Stop it first.")
        index.remove(info)
    finally:
        index.close()
