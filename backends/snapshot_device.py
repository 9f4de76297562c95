"""A device that was read from a snapshot file."""

from __future__ import annotations

from qiskit.circuit.controlflow import CONTROL_FLOW_OP_NAMES
from qiskit.circuit.library import get_standard_gate_name_mapping
from qiskit.transpiler import Target as QiskitTarget
from qiskit_ibm_runtime.models import BackendConfiguration, BackendProperties
from qiskit_ibm_runtime.utils.backend_converter import convert_to_target

from backends.snapshot_check import unknown
from backends.snapshot_file import Snapshot
from backends.snapshots import native_gates
from backends.target import DeviceBackend, Target
from circuits.errors import QrunError


class SnapshotBackend(DeviceBackend):
    """The device of a snapshot file, with the qiskit Target that the Runtime builds from the same data."""

    def __init__(self, snapshot: Snapshot, target: QiskitTarget) -> None:
        super().__init__(snapshot.name, target)
        self.snapshot = snapshot


def target_of(snapshot: Snapshot, what: str) -> Target:
    """The target of a checked snapshot; `what` names the file in errors.

    Raises:
        QrunError: A gate that qiskit does not know, or on another number of qubits than it has.
    """
    configuration = snapshot.configuration
    known = {*get_standard_gate_name_mapping(), *CONTROL_FLOW_OP_NAMES}
    strange = unknown(configuration["basis_gates"], known.__contains__)
    if strange:
        raise QrunError(
            f"{what} rejected: configuration.basis_gates has gates that qiskit does not know: {', '.join(strange)}.",
            "Only devices with qiskit's standard gates can be simulated.",
        )
    try:
        target = convert_to_target(
            BackendConfiguration.from_dict(configuration), BackendProperties.from_dict(snapshot.properties)
        )
    except Exception as error:
        # The values were checked one by one; whether they fit together, the Runtime's and qiskit's classes say.
        reason = str(error).strip("'\"").splitlines() or [type(error).__name__]
        raise QrunError(
            f"{what} rejected: it makes no device: {reason[0]}", "Save it anew: `qrun backends save NAME FILE`."
        ) from None
    return Target(
        name=snapshot.name,
        kind="snapshot",
        backend=SnapshotBackend(snapshot, target),
        calibration_date=snapshot.calibration_date,
        num_qubits=configuration["n_qubits"],
        native_gates=native_gates(configuration["basis_gates"]),
        snapshot_sha256=snapshot.sha256,
    )
