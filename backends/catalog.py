"""Names of targets: `ideal`, every fake device that the Runtime ships, snapshot files by their path, and real devices.

A real device (ibm_*) is asked of IBM's service, with the account that is known here (`backends.runtime.account`).
"""

from __future__ import annotations

import difflib
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.live import is_concrete, is_hardware_name, plain_name, require_account
from backends.snapshot_file import Snapshot, is_file_name, load, read, save
from backends.snapshots import TargetSummary, describe, folders, summarise
from circuits.errors import UsageError

if TYPE_CHECKING:
    from backends.target import Target

IDEAL = TargetSummary("ideal", "ideal", None, (), None, None, None, None, None, None, None)


def list_targets() -> list[TargetSummary]:
    """All targets: the ideal one first, then the fake devices by name."""
    return [show(name) for name in target_names()]


def show(name: str) -> TargetSummary:
    """One target in figures.

    Raises:
        UsageError: An unknown name, or no such file.
        ServiceError: A real device, and the service cannot be asked.
        QrunError: The file is no sound snapshot.
    """
    known = canonical_name(name)
    if is_file_name(known):
        snapshot = read(known)
        return describe(snapshot.name, "snapshot", snapshot.configuration, snapshot.properties)
    if is_hardware_name(known):
        snapshot = _fetch(known)
        return describe(snapshot.name, "hardware", snapshot.configuration, snapshot.properties)
    return IDEAL if known == "ideal" else _summary(known)


@functools.cache
def _summary(name: str) -> TargetSummary:
    return summarise(name)


def get_target(name: str) -> Target:
    """The target of that name, with its device; upper case, spaces, dashes and a missing `fake_` are forgiven.

    A name that ends in .json or has a path separator is the path of a snapshot file (`backends.snapshot_file`), which
    is read anew every time; the calibration of a real device is asked for anew every time.

    Raises:
        UsageError: An unknown name (with a suggestion), no such file, or a real device and no account.
        ServiceError: A real device, and the service cannot be asked.
        QrunError: The file is no sound snapshot.
    """
    known = canonical_name(name)
    if is_hardware_name(known):
        from backends.live import hardware_target

        return hardware_target(_fetch(known))
    return load(known) if is_file_name(known) else _load(known)


def save_target(name: str, path: Path | str, *, overwrite: bool = False) -> Snapshot:
    """Save a target's device to a snapshot file; see `backends.snapshot_file.save`.

    Raises:
        UsageError: An unknown name, the ideal target, or a file that cannot be written.
        ServiceError: A real device, and the service cannot be asked.
    """
    backend = get_target(name).backend
    if backend is None:
        raise UsageError(f"{name} has no calibration to save.", "Name a device (`qrun backends list`).")
    return save(backend, path, overwrite=overwrite)


def snapshot_of(name: str) -> Snapshot | None:
    """The checked file that a target's name stands for; None where the name is no path.

    Raises:
        UsageError: No such file.
        QrunError: It is no sound snapshot.
    """
    return read(canonical_name(name)) if is_file_name(name) else None


def _fetch(name: str) -> Snapshot:
    """The live calibration of a real device."""
    from backends.live import fetch

    if not is_concrete(name):
        raise UsageError(
            f"{name} stands for a device that is chosen for a circuit.",
            "Name a device, or see what would be chosen: `qrun backends rank EXPERIMENT --live`.",
        )
    return fetch(name)


@functools.cache
def _load(name: str) -> Target:
    from backends.target import Target

    if name == "ideal":
        return Target("ideal", "ideal", None, None, None, ())
    summary = _summary(name)
    return Target(
        name, "fake", _fake_backends()[name](), summary.calibration_date, summary.qubits, summary.native_gates
    )


@functools.cache
def _fake_backends() -> dict[str, Any]:
    from qiskit_ibm_runtime import fake_provider
    from qiskit_ibm_runtime.fake_provider.fake_backend import FakeBackendV2

    kinds: list[Any] = [kind for kind in vars(fake_provider).values() if isinstance(kind, type)]
    return {kind.backend_name: kind for kind in kinds if issubclass(kind, FakeBackendV2) and kind is not FakeBackendV2}


def target_names() -> list[str]:
    """Every name that there is, the ideal one first."""
    return ["ideal", *folders()]


def canonical_name(name: str) -> str:
    """The catalogue's own spelling of a name: case, dashes, spaces and a missing `fake_` are forgiven.

    A snapshot file's is its absolute path, so that it is found again from another folder. Whether the account has a
    real device of that name is not asked here.

    Raises:
        UsageError: An unknown name (with a suggestion), or a real device and no account.
    """
    if is_file_name(name):
        return str(Path(name.strip()).expanduser().absolute())
    plain = name.strip().lower().replace("-", "_").replace(" ", "_")
    known = target_names()
    for candidate in (plain, f"fake_{plain}", plain.replace("fake", "fake_", 1)):
        if candidate in known:
            return candidate
    if is_hardware_name(name):
        require_account(name)
        return plain_name(name)
    # Without the common prefix, which would make any two names look alike.
    short = {target.removeprefix("fake_"): target for target in known}
    close = difflib.get_close_matches(plain.removeprefix("fake_"), list(short), n=1)
    hint = f"Did you mean {short[close[0]]}? " if close else ""
    raise UsageError(
        f"unknown backend {name!r}.", f"{hint}`qrun backends list` shows all; a snapshot file's name ends in .json."
    )
