"""A named place to run circuits, and the part of a device that a circuit uses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from qiskit.circuit import Gate
from qiskit.providers import BackendV2, Options
from qiskit.transpiler import Target as QiskitTarget

from circuits.errors import QrunError, UsageError
from circuits.targets import copy_target


class DeviceBackend(BackendV2):
    """A qiskit Target as a backend. It has no `run` of its own: engines take its target and its noise."""

    def __init__(self, name: str, target: QiskitTarget) -> None:
        super().__init__(name=name)
        self._target = target

    @property
    def target(self) -> QiskitTarget:
        """The qiskit Target."""
        return self._target

    @property
    def max_circuits(self) -> None:
        """No limit."""
        return None

    @classmethod
    def _default_options(cls) -> Options:
        return Options(shots=1024)

    def run(self, run_input: Any, **options: Any) -> Any:
        """Raise: an engine runs it."""
        raise QrunError(f"{self.name} has no run of its own.", "Use an engine: backends.engines.make_executor.")


class SubDevice(DeviceBackend):
    """A device restricted to some physical qubits, renumbered 0..k-1, with the same calibrations.

    Simulators build and run it tens of times faster than the whole device, with the same errors.
    """

    def __init__(self, parent: BackendV2, physical_qubits: Sequence[int]) -> None:
        """Cut `parent` to `physical_qubits`; qubit `physical_qubits[w]` becomes w."""
        available = parent.target.num_qubits
        if len(set(physical_qubits)) != len(physical_qubits) or not all(0 <= q < available for q in physical_qubits):
            raise QrunError(
                f"{parent.name} cannot be cut to the qubits {list(physical_qubits)}.",
                f"Give distinct qubits between 0 and {available - 1}.",
            )
        super().__init__(f"{parent.name}_sub{len(physical_qubits)}", copy_target(parent.target, qubits=physical_qubits))


@dataclass(frozen=True)
class Target:
    """A named place to run.

    Attributes:
        name: As `qrun backends list` shows it.
        kind: "ideal" has no errors, any gate and any coupling; "fake" is a device with a packaged calibration;
            "snapshot" one read from a file; "hardware" a real device, as its live calibration describes it; "backend"
            any BackendV2 that was handed in.
        backend: The whole device; None for the ideal target.
        calibration_date: ISO 8601, None for the ideal target.
        num_qubits: Qubits of the device; None for the ideal target, which has as many as a circuit asks for.
        native_gates: Names of the device's gates; empty for the ideal target, which takes any.
        snapshot_sha256: Of the file or live calibration that the device was read from, in hex; None for all others.
        laid_out: By whose calibration qubits are chosen, where that is another than the backend's (`backends.scaled`).
    """

    name: str
    kind: Literal["ideal", "fake", "snapshot", "hardware", "backend"]
    backend: BackendV2 | None
    calibration_date: str | None
    num_qubits: int | None
    native_gates: tuple[str, ...]
    snapshot_sha256: str | None = None
    laid_out: BackendV2 | None = field(default=None, compare=False)

    @property
    def layout_backend(self) -> BackendV2 | None:
        """The device that circuits are compiled for."""
        return self.backend if self.laid_out is None else self.laid_out

    @classmethod
    def of_backend(cls, backend: BackendV2) -> Target:
        """Any BackendV2 with a qiskit Target: a fake device, AerSimulator.from_backend(...), a real one.

        Raises:
            UsageError: A simulator with a noise model of its own, whose target says nothing about errors.
        """
        noise_model = getattr(backend.options, "noise_model", None)
        if noise_model is not None and not noise_model.is_ideal() and not _has_errors(backend.target):
            raise UsageError(
                f"{backend.name} has a noise model that its target does not show: it would be left out.",
                "Give the device that the noise is of, or AerSimulator.from_backend(device); a noise model of your own "
                "runs on Aer alone (qiskit.primitives.BackendEstimatorV2).",
            )
        names = [name for name in backend.target.operation_names if isinstance(_operation(backend, name), Gate)]
        properties = getattr(backend, "properties", None)
        known = properties() if callable(properties) else None
        date = getattr(known, "last_update_date", None)
        return cls(
            name=str(backend.name),
            kind="backend",
            backend=backend,
            calibration_date=date.isoformat() if isinstance(date, datetime) else None if date is None else str(date),
            num_qubits=backend.target.num_qubits,
            native_gates=tuple(sorted(names)),
        )

    def cut(self, physical_qubits: Sequence[int]) -> SubDevice:
        """The device on `physical_qubits` alone (`CompiledCircuit.physical_qubits`), renumbered in that order.

        Raises:
            QrunError: The ideal target has no device to cut; or a qubit is not on the device.
        """
        if self.backend is None:
            raise QrunError(f"the target {self.name} has no device that could be cut down.")
        return SubDevice(self.backend, physical_qubits)

    def readout_errors(self, qubit: int) -> tuple[float, float]:
        """(p01, p10) of a physical qubit: P(read 1 | prepared 0) and P(read 0 | prepared 1).

        As Aer's `NoiseModel.from_backend` takes them: the two separate figures where the qiskit Target has them, else
        its one readout error for both. (0, 0) for the ideal target.
        """
        if self.backend is None:
            return 0.0, 0.0
        return readout_errors(self.backend.target, qubit)


def _operation(backend: BackendV2, name: str) -> Any:
    return backend.target.operation_from_name(name)


def _has_errors(target: QiskitTarget) -> bool:
    """Whether there is an error figure in a qiskit Target."""
    tables = (target[name] for name in target.operation_names)
    return any(getattr(entry, "error", None) for table in tables for entry in (table or {}).values())


def readout_errors(target: QiskitTarget, qubit: int) -> tuple[float, float]:
    """(P(1 | 0), P(0 | 1)) of a qubit of a qiskit Target; see `Target.readout_errors`."""
    return calibrated_readout(target, qubit) or (0.0, 0.0)


def calibrated_readout(target: QiskitTarget, qubit: int) -> tuple[float, float] | None:
    """`readout_errors`, or None where the calibration says nothing about this qubit's readout."""
    entries = target["measure"] if "measure" in target.operation_names else None
    properties = entries.get((qubit,)) if entries else None
    if properties is None:
        return None
    if hasattr(properties, "prob_meas1_prep0") and hasattr(properties, "prob_meas0_prep1"):
        return float(properties.prob_meas1_prep0), float(properties.prob_meas0_prep1)
    return None if properties.error is None else (float(properties.error), float(properties.error))
