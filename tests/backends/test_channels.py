"""The noise of single gates, against Aer's own."""

import numpy as np
import pytest
from qiskit.quantum_info import SuperOp, average_gate_fidelity
from qiskit_aer.noise import NoiseModel

from backends.catalog import get_target
from backends.twin.channels import Channels
from backends.twin.pauli import average_infidelity, depolarising, ptm_of_unitary, thermal_relaxation
from circuits.errors import QrunError

PAULIS = [np.eye(2), np.array([[0, 1], [1, 0]]), np.array([[0, -1j], [1j, 0]]), np.diag([1, -1])]


def ptm(error: SuperOp, qubits: int) -> np.ndarray:
    """By the definition: column-stacked superoperator in the basis of Pauli matrices."""
    basis = PAULIS if qubits == 1 else [np.kron(second, first) for first in PAULIS for second in PAULIS]
    columns = np.array([matrix.reshape(-1, order="F") for matrix in basis]).T
    return (columns.conj().T @ error.data @ columns).real / 2**qubits


@pytest.mark.parametrize("name", ["fake_kyiv", "fake_kingston", "fake_torino", "fake_almaden", "fake_fractional"])
def test_every_gate_has_aers_noise(name: str) -> None:
    # kingston: one qubit has no T2 or T1, several gates are reported with an error of 1.0.
    target = get_target(name)
    incomplete = [q for q, p in enumerate(target.backend.target.qubit_properties) if None in (p.t1, p.t2)]
    assert bool(incomplete) == (name == "fake_kingston")
    qubits = tuple(sorted({*range(min(target.num_qubits or 0, 14)), *incomplete}))
    model, channels, compared = NoiseModel.from_backend(target.cut(qubits)), Channels(target.backend.target, qubits), 0
    for gate, by_wires in model._local_quantum_errors.items():
        if gate in ("reset", "delay", "reset_2", "measure_2"):
            continue
        for wires, error in by_wires.items():
            noise = channels.after(gate, wires)
            assert noise is not None
            assert np.abs(noise - ptm(SuperOp(error), len(wires))).max() < 1e-13
            compared += 1
    assert compared >= 3 * len(qubits)
    for wire in range(len(qubits)):
        p01, p10 = channels.readout(wire)
        assert np.allclose([[1 - p01, p01], [p10, 1 - p10]], model._local_readout_errors[(wire,)].probabilities)
    rotation = "rz" if "rz" in target.native_gates else "u1"
    assert channels.after(rotation, (0,)) is None


def test_a_gate_has_the_reported_error() -> None:
    target = get_target("fake_kyiv").backend.target
    wires = (5, 4)
    noise = Channels(target, range(127)).after("ecr", wires)
    assert noise is not None
    assert average_infidelity(noise) == pytest.approx(target["ecr"][wires].error, abs=1e-14)


def test_infidelity_is_qiskits() -> None:
    channel = SuperOp(np.eye(4)).compose(SuperOp(np.diag([1, 0.9, 0.9, 1])))
    assert average_infidelity(ptm(channel, 1)) == pytest.approx(1 - average_gate_fidelity(channel), abs=1e-14)
    assert average_infidelity(depolarising(1.0, 2)) == pytest.approx(0.75)


def test_relaxation_limits() -> None:
    assert np.array_equal(thermal_relaxation(1.0, None, None), np.eye(4))
    assert np.allclose(thermal_relaxation(1e9, 1.0, 1.0) @ [1, 0.3, 0.2, -1], [1, 0, 0, 1])
    assert np.array_equal(thermal_relaxation(1.0, 1.0, 5.0), thermal_relaxation(1.0, 1.0, 2.0))


def test_two_qubit_order() -> None:
    from qiskit.circuit.library import CXGate

    cx = ptm_of_unitary(CXGate().to_matrix())
    assert cx[4 * 1 + 1, 4 * 1 + 0] == pytest.approx(1)  # X on the control goes to XX
    assert cx[4 * 0 + 1, 4 * 0 + 1] == pytest.approx(1)  # X on the target stays
    assert cx[4 * 3 + 3, 4 * 0 + 3] == pytest.approx(1)  # Z on the target goes to ZZ


def test_a_gate_that_the_device_does_not_have() -> None:
    target = get_target("fake_kyiv").backend.target
    forward = next(iter(target["ecr"]))
    channels = Channels(target, range(127))
    for gate, wires in (("ecr", forward[::-1]), ("cz", forward), ("ecr", (0, 126))):
        with pytest.raises(QrunError, match=f"no gate {gate} on qubits {wires[0]}, {wires[1]}"):
            channels.after(gate, wires)
    assert Channels(None, (0, 1)).after("anything", (0, 1)) is None
