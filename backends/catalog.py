"""Names of targets: `ideal`, every fake device that the Runtime ships, and snapshot files by their path."""

from __future__ import annotations

import difflib
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
        QrunError: The file is no sound snapshot.
    """
    known = canonical_name(name)
    if is_file_name(known):
        snapshot = read(known)
        return describe(snapshot.name, "snapshot", snapshot.configuration, snapshot.properties)
    return IDEAL if known == "ideal" else _summary(known)


@functools.cache
def _summary(name: str) -> TargetSummary:
    return summarise(name)


def get_target(name: str) -> Target:
    """The target of that name, with its device; upper case, spaces, dashes and a missing `fake_` are forgiven.

    A name that ends in .json or has a path separator is the path of a snapshot file (`backends.snapshot_file`), which
    is read anew every time.

    Raises:
        UsageError: An unknown name (with a suggestion), a hardware device, or no such file.
        QrunError: The file is no sound snapshot.
    """
    known = canonical_name(name)
    return load(known) if is_file_name(known) else _load(known)


def save_target(name: str, path: Path | str, *, overwrite: bool = False) -> Snapshot:
    """Save a target's device to a snapshot file; see `backends.snapshot_file.save`.

    Raises:
        UsageError: An unknown name, the ideal target, or a file that cannot be written.
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

    A snapshot file's is its absolute path, so that it is found again from another folder.

    Raises:
        UsageError: An unknown name (with a suggestion), or a hardware device.
    """
    if is_file_name(name):
        return str(Path(name.strip()).expanduser().absolute())
    plain = name.strip().lower().replace("-", "_").replace(" ", "_")
    known = target_names()
    for candidate in (plain, f"fake_{plain}", plain.replace("fake", "fake_", 1)):
        if candidate in known:
            return candidate
    if plain.startswith("ibm"):
        twin = plain.replace("ibm_", "fake_", 1)
        hint = f" Its packaged calibration runs as {twin}." if twin in known else ""
        raise UsageError(
            f"{name} is hardware: such targets come with a token through IBM's Runtime and are not in this version.",
            f"Use a fake device or `ideal` (`qrun backends list`).{hint}",
        )
    # Without the common prefix, which would make any two names look alike.
    short = {target.removeprefix("fake_"): target for target in known}
    close = difflib.get_close_matches(plain.removeprefix("fake_"), list(short), n=1)
    hint = f"Did you mean {short[close[0]]}? " if close else ""
    raise UsageError(
        f"unknown backend {name!r}.", f"{hint}`qrun backends list` shows all; a snapshot file's name ends in .json."
    )
