"""The targets of a run. A hardware device's is built from the calibration that it had when the run began.

That calibration is kept: in the user's home, by its hash, and in the run's folder. Resume and audit take it from there,
and ask no service.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from backends.catalog import get_target
from backends.live import hardware_target, is_concrete
from backends.snapshot_file import Snapshot, read
from backends.target import Target
from circuits.errors import QrunError
from runner.store import OTHER_HOME, home, on_disk, write_durably

if TYPE_CHECKING:
    from runner.config import RunConfig


def file_name(sha256: str) -> str:
    """What a calibration is called in a run's folder."""
    return f"calibration-{sha256}.json"


def keep(content: bytes, folder: Path | None = None) -> str:
    """Keep a calibration's bytes in the user's home, or in a run's folder; its SHA-256, hex.

    Raises:
        QrunError: the disk is full, or may not be written.
    """
    digest = hashlib.sha256(content).hexdigest()
    file = _home_file(digest) if folder is None else folder / file_name(digest)
    with on_disk(file.parent, OTHER_HOME):
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != digest:
            write_durably(file, content)
    return digest


def find(name: str, sha256: str, folder: Path | None = None) -> Snapshot:
    """A calibration that was kept, from the run's folder or the user's home; no service is asked.

    Args:
        name: The device's.
        sha256: Of the calibration.
        folder: The run's.

    Raises:
        QrunError: it is in neither place, or is damaged, or another device's.
    """
    places = [*([] if folder is None else [folder / file_name(sha256)]), _home_file(sha256)]
    for file in places:
        if file.is_file():
            try:
                snapshot = read(file)
            except QrunError:
                continue  # damaged: the other place may have it whole
            if snapshot.sha256 == sha256:
                if snapshot.name != name:
                    raise QrunError(f"{file} is the calibration of {snapshot.name}, not of {name}.", "Start a new run.")
                return snapshot
    raise QrunError(
        f"the calibration of {name} that this run is defined by ({sha256[:12]}...) is not here any more.",
        f"Put {file_name(sha256)} back into the run's folder, or start a new run.",
    )


def target_of(name: str, sha256: str | None, folder: Path | None = None) -> Target:
    """The target of a run's `backend` or `run_on`.

    Args:
        name: As the config has it.
        sha256: Of its calibration or snapshot file, hex; None for what needs none.
        folder: The run's, where there is one.

    Raises:
        QrunError: the file or calibration is gone, or is another.
    """
    if is_concrete(name):
        if sha256 is None:
            raise QrunError(f"the config names no calibration of {name}.", "Start a new run.")
        return hardware_target(find(name, sha256, folder))
    target = get_target(name)
    if target.snapshot_sha256 != sha256:
        raise QrunError(
            f"{name} is not the snapshot file that this run is defined by: its SHA-256 is "
            f"{target.snapshot_sha256}, not {sha256}.",
            "Put that file back, or start a new run.",
        )
    return target


def target_for(config: RunConfig, folder: Path | None = None) -> Target:
    """The target of a run's `backend`, its noise scaled where the config says so; errors as of `target_of`."""
    target = target_of(config.backend, config.snapshot_sha256, folder)
    if config.noise_scale is None:
        return target
    from backends.scaled import scaled

    return scaled(target, config.noise_scale)


def _home_file(sha256: str) -> Path:
    return home() / "calibrations" / f"{sha256}.json"
