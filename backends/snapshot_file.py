"""A device's configuration and calibration in one JSON file, to run on it later, elsewhere and without a token.

The file is {"format": "qrun-snapshot-1", "name", "configuration", "properties"}: what the Runtime calls a backend's
configuration and properties, as they are. It names a target wherever a name does: `--backend kyiv.json`. No qiskit
import before a target is built.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.snapshot_check import FORMAT, check_document
from circuits.errors import QrunError, UsageError
from circuits.hostile import load_json

if TYPE_CHECKING:
    from qiskit.providers import BackendV2

    from backends.target import Target

MAX_BYTES = 64 << 20
"""The largest device so far takes 0.7 MiB."""


@dataclass(frozen=True)
class Snapshot:
    """A snapshot file, checked.

    Attributes:
        name: The device's.
        configuration: What the target needs of it.
        properties: The calibration.
        sha256: Of the file's bytes, in hex.
        content: The file's bytes.
    """

    name: str
    configuration: dict[str, Any]
    properties: dict[str, Any]
    sha256: str
    content: bytes

    @property
    def calibration_date(self) -> str:
        """ISO 8601, with the time zone."""
        return str(self.properties["last_update_date"])


def is_file_name(name: str) -> bool:
    """Whether the name of a target is the path of a file: it ends in .json, or has a path separator."""
    separators = [separator for separator in (os.sep, os.altsep) if separator]
    return name.strip().lower().endswith(".json") or any(separator in name for separator in separators)


def save(backend: BackendV2, path: Path | str, *, overwrite: bool = False) -> Snapshot:
    """Write a backend's configuration and properties to a file.

    Args:
        backend: One of qiskit-ibm-runtime's, real or fake, or one that was loaded from a snapshot.
        path: Where to; ends in .json.
        overwrite: Whether an existing file may be replaced.

    Raises:
        UsageError: The file exists, has another ending, or cannot be written.
        QrunError: The backend has no configuration or properties, or they are not sound.
    """
    path = Path(path).expanduser()
    if path.suffix.lower() != ".json":
        raise UsageError(f"{path} does not end in .json.", "Such a name is how a snapshot file is recognised.")
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists.", "Choose another name, or replace it with --force.")
    content = _content(backend)
    snapshot = _parse(content, f"the calibration of {backend.name}")
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_bytes(content)
        part.replace(path)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        raise UsageError(f"cannot write {path}: {error.strerror or error}.") from None
    return snapshot


def read(path: Path | str) -> Snapshot:
    """Read and check a snapshot file.

    Raises:
        UsageError: No such file.
        QrunError: It is no sound snapshot; says which value is wrong.
    """
    path = Path(path).expanduser()
    try:
        if not path.is_file():  # a pipe or a device could go on for ever
            raise UsageError(f"there is no file {path}.", "Make one with `qrun backends save NAME FILE`.")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"cannot read {str(path)!r}: {getattr(error, 'strerror', None) or error}.") from None
    return _parse(content, str(path))


def load(path: Path | str) -> Target:
    """The target of a snapshot file, of kind "snapshot"; its name is the device's.

    Raises:
        UsageError: No such file.
        QrunError: It is no sound snapshot, or has gates that qiskit does not know.
    """
    from backends.snapshot_device import target_of

    return target_of(read(path), str(path))


def canonical(backend: BackendV2) -> Snapshot:
    """A live backend's configuration and properties in one form: the same calibration gives the same bytes anywhere.

    Only what is checked is kept, with sorted keys, and the date of the calibration in UTC.

    Args:
        backend: One of qiskit-ibm-runtime's.

    Raises:
        QrunError: They are not there, or not sound.
    """
    what = f"the calibration of {backend.name}"
    name, configuration, properties = check_document(load_json(_content(backend), max_bytes=MAX_BYTES, what=what), what)
    properties["last_update_date"] = datetime.fromisoformat(properties["last_update_date"]).astimezone(UTC).isoformat()
    document = {"format": FORMAT, "name": name, "configuration": configuration, "properties": properties}
    return _parse(json.dumps(document, sort_keys=True, ensure_ascii=False).encode() + b"\n", what)


def _parse(content: bytes, what: str) -> Snapshot:
    document = load_json(content, max_bytes=MAX_BYTES, what=what)
    name, configuration, properties = check_document(document, what)
    return Snapshot(name, configuration, properties, hashlib.sha256(content).hexdigest(), content)


def _content(backend: BackendV2) -> bytes:
    known = getattr(backend, "snapshot", None)
    if isinstance(known, Snapshot):
        return known.content
    document: dict[str, Any] = {"format": FORMAT, "name": str(backend.name)}
    if isinstance(getattr(backend, "conf_filename", None), str) and isinstance(backend.dirname, str):
        # A fake device: its own files, since its objects have their numbers in other units.
        fresh = getattr(backend, "_tmp_data_dir", None)  # after a refresh(persist=False)
        folder = Path(backend.dirname if fresh is None else fresh.name)
        document["configuration"] = json.loads((folder / backend.conf_filename).read_text(encoding="utf-8"))
        document["properties"] = json.loads((folder / backend.props_filename).read_text(encoding="utf-8"))
    else:
        for part in ("configuration", "properties"):
            ask = getattr(backend, part, None)
            found = ask() if callable(ask) else None
            if found is None or not hasattr(found, "to_dict"):
                raise QrunError(f"{backend.name} has no {part} that could be saved.", "Save a device of the Runtime's.")
            document[part] = found.to_dict()
    try:
        return json.dumps(document, default=_plain, allow_nan=False, ensure_ascii=False).encode() + b"\n"
    except (TypeError, ValueError) as error:
        raise QrunError(f"{backend.name} cannot be saved: {error}.") from None


def _plain(value: Any) -> Any:
    """JSON for what the Runtime's objects hold: dates with their zone, complex numbers, arrays."""
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.astimezone()).isoformat()
    if isinstance(value, complex):
        return [value.real, value.imag]
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no form in JSON")
