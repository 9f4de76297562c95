"""Targets of backends that somebody hands in."""

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.providers.fake_provider import GenericBackendV2
from qiskit.quantum_info import SparsePauliOp
from qiskit_aer import AerSimulator
from qiskit_aer.noise import NoiseModel, depolarizing_error

from backends.catalog import get_target
from backends.snapshot_device import SnapshotBackend
from backends.target import DeviceBackend, SubDevice, Target
from backends.twin.primitives.estimator import TwinEstimator
from circuits.errors import QrunError, UsageError


def custom() -> NoiseModel:
    model = NoiseModel()
    model.add_all_qubit_quantum_error(depolarizing_error(0.1, 2), ["cx"])
    return model


def test_a_noise_model_that_would_be_left_out_is_refused() -> None:
    late = AerSimulator()
    late.set_options(noise_model=custom())
    generic = AerSimulator.from_backend(GenericBackendV2(3, noise_info=False), noise_model=custom())
    for simulator in (AerSimulator(noise_model=custom()), late, generic):
        with pytest.raises(UsageError, match="noise model that its target does not show") as error:
            TwinEstimator(simulator)
        assert "AerSimulator.from_backend(device)" in error.value.hint


def test_simulators_of_devices_and_ideal_ones_stay() -> None:
    lima = get_target("fake_lima").backend
    circuit, z = QuantumCircuit(2), SparsePauliOp("ZZ")
    circuit.sx(0)
    circuit.cx(0, 1)
    wide = QuantumCircuit(5).compose(circuit, [0, 1])
    values = [
        TwinEstimator(backend).run([(wide, SparsePauliOp("IIIZZ"))]).result()[0].data.evs
        for backend in (lima, AerSimulator.from_backend(lima))
    ]
    assert values[0] == pytest.approx(values[1], abs=1e-14)
    assert values[0] < 0.999
    for ideal in (AerSimulator(), AerSimulator(noise_model=NoiseModel())):
        assert Target.of_backend(ideal).backend is ideal
        assert np.isclose(TwinEstimator(ideal).run([(circuit, z)]).result()[0].data.evs, 1.0)


def test_backends_without_a_run() -> None:
    part = get_target("fake_lima").cut((0, 1))
    assert isinstance(part, SubDevice)
    assert issubclass(SubDevice, DeviceBackend)
    assert issubclass(SnapshotBackend, DeviceBackend)
    assert (part.name, part.max_circuits, part.target.num_qubits) == ("fake_lima_sub2", None, 2)
    with pytest.raises(QrunError, match="fake_lima_sub2 has no run of its own"):
        part.run(QuantumCircuit(1))
