"""What a device's snapshot says, packaged or saved, read straight from its JSON (no qiskit import: lists are quick)."""

from __future__ import annotations

import functools
import importlib.util
import json
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from circuits.errors import QrunError

_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_ONE_QUBIT = ("sx", "u2", "x", "rx", "u3")
_TWO_QUBIT = ("cx", "ecr", "cz")


@dataclass(frozen=True)
class TargetSummary:
    """A target in figures. What an ideal target does not have is None.

    Errors are medians over the device (probabilities), without entries of 1.0, which mark gates out of order;
    relaxation times are medians in seconds. `two_qubit_gate` is the entangling gate with the most calibrated pairs.
    """

    name: str
    kind: str
    qubits: int | None
    native_gates: tuple[str, ...]
    two_qubit_gate: str | None
    calibration_date: str | None
    median_error_1q: float | None
    median_error_2q: float | None
    median_error_readout: float | None
    median_t1: float | None
    median_t2: float | None

    def to_dict(self) -> dict[str, Any]:
        """Plain types, ready for JSON."""
        return {**asdict(self), "native_gates": list(self.native_gates)}


@functools.cache
def folders() -> dict[str, Path]:
    """The name of every fake device that the Runtime ships, and the folder of its snapshot; sorted by name."""
    spec = importlib.util.find_spec("qiskit_ibm_runtime")  # finds, does not import
    locations = spec.submodule_search_locations if spec else None
    root = Path(next(iter(locations))) / "fake_provider" / "backends" if locations else None
    if root is None or not root.is_dir():
        raise QrunError("the package qiskit-ibm-runtime is not installed.", "Install qrun with its dependencies.")
    return {f"fake_{path.name}": path for path in sorted(root.iterdir()) if any(path.glob("conf_*.json"))}


def summarise(name: str) -> TargetSummary:
    """Read the snapshot of the fake device `name` (a key of `folders()`)."""
    folder = folders()[name]
    conf = json.loads(next(folder.glob("conf_*.json")).read_text())
    return describe(name, "fake", conf, json.loads(next(folder.glob("props_*.json")).read_text()))


def describe(name: str, kind: str, conf: Mapping[str, Any], props: Mapping[str, Any]) -> TargetSummary:
    """A device in figures, from its configuration and properties as they stand in JSON."""
    native = native_gates(conf["basis_gates"])
    broken = {qubit for qubit, values in enumerate(props["qubits"]) if _value(values, "operational", unit=False) == 0.0}
    errors: dict[str, list[float]] = {gate: [] for gate in native}
    for gate in props["gates"]:
        parameters = gate["parameters"]
        if gate["gate"] not in errors or broken.intersection(gate["qubits"]):
            continue
        if _value(parameters, "operational", unit=False) == 0.0:
            continue
        error = _value(parameters, "gate_error", unit=False)
        if error is not None:
            errors[gate["gate"]].append(error)
    two_qubit = max((g for g in _TWO_QUBIT if g in native), key=lambda g: len(errors[g]), default=None)
    one_qubit = next((g for g in _ONE_QUBIT if g in native), None)
    qubits = [values for qubit, values in enumerate(props["qubits"]) if qubit not in broken]
    return TargetSummary(
        name=name,
        kind=kind,
        qubits=int(conf["n_qubits"]),
        native_gates=native,
        two_qubit_gate=two_qubit,
        calibration_date=str(props["last_update_date"]),
        median_error_1q=_median(errors[one_qubit]) if one_qubit else None,
        median_error_2q=_median(errors[two_qubit]) if two_qubit else None,
        median_error_readout=_median(_value(q, "readout_error", unit=False) for q in qubits),
        median_t1=_median((_value(q, "T1", unit=True) for q in qubits), below=None),
        median_t2=_median((_value(q, "T2", unit=True) for q in qubits), below=None),
    )


def native_gates(basis: Iterable[str]) -> tuple[str, ...]:
    """The gates of a device's basis, without what is no gate; sorted."""
    return tuple(sorted(set(basis) - {"reset", "delay", "measure"}))


def _value(parameters: list[dict[str, Any]], name: str, *, unit: bool) -> float | None:
    for entry in parameters:
        if entry["name"] == name:
            return float(entry["value"]) * (_SECONDS[entry["unit"]] if unit else 1.0)
    return None


def _median(values: Iterable[float | None], below: float | None = 1.0) -> float | None:
    kept = [value for value in values if value is not None and (below is None or value < below)]
    return statistics.median(kept) if kept else None
