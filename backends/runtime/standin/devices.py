"""The devices: fake ones under the names of the real ones."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from backends.snapshots import folders
from circuits.errors import UsageError

if TYPE_CHECKING:
    from qiskit.providers import BackendV2


@dataclass(frozen=True)
class Device:
    """A device of the stand-in.

    Attributes:
        name: "ibm_..."
        fake: The fake device that it is made of.
        configuration: As the service gives it.
        properties: As the service gives them.
    """

    name: str
    fake: str
    configuration: dict[str, Any]
    properties: dict[str, Any]

    @property
    def backend(self) -> BackendV2:
        """The fake device."""
        from backends.catalog import get_target

        backend = get_target(self.fake).backend
        assert backend is not None  # a fake device has one
        return backend

    @property
    def qubits(self) -> int:
        """How many it has."""
        return int(self.configuration["n_qubits"])

    def entry(self, queue: int) -> dict[str, Any]:
        """How it stands in the list of devices.

        Args:
            queue: Jobs that wait.
        """
        return {
            "name": self.name,
            "status": {"name": "online", "reason": "available"},
            "is_simulator": False,
            "qubits": self.qubits,
            "physical_qubits": self.qubits,
            "queue_length": queue,
            "processor_type": self.configuration.get("processor_type", {}),
        }

    def status(self, queue: int) -> dict[str, Any]:
        """Its status."""
        version = self.configuration.get("backend_version", "0.0.0")
        return {
            "backend_version": version,
            "state": True,
            "status": "active",
            "message": "available",
            "length_queue": queue,
        }


def served(fake: str) -> str:
    """The name that a fake device is served under."""
    return fake.replace("fake_", "ibm_", 1)


@functools.cache
def device(fake: str) -> Device:
    """The device made of a fake one.

    Raises:
        UsageError: There is no such fake device.
    """
    folder = folders().get(fake)
    if folder is None:
        raise UsageError(f"unknown device {fake!r}.", "Name a fake one (`qrun backends list`), such as fake_kyiv.")
    configuration = json.loads(next(folder.glob("conf_*.json")).read_text(encoding="utf-8"))
    properties = json.loads(next(folder.glob("props_*.json")).read_text(encoding="utf-8"))
    name = served(fake)
    configuration |= {"backend_name": name, "simulator": False, "local": False}
    properties = _in_utc(properties) | {"backend_name": name}
    return Device(name, fake, configuration, properties)


def _in_utc(value: Any) -> Any:
    """Properties with all dates in UTC, as the service sends them: its client takes them for that, whatever zone they
    name.
    """
    if isinstance(value, list):
        return [_in_utc(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: datetime.fromisoformat(item).astimezone(UTC).isoformat().replace("+00:00", "Z")
        if key in ("date", "last_update_date") and isinstance(item, str)
        else _in_utc(item)
        for key, item in value.items()
    }
