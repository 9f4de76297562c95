import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.quantum_info import SparsePauliOp

from backends.aer import AerExecutor
from backends.catalog import get_target
from backends.observables import single_z
from backends.protocol import Executor, Request
from backends.twin.executor import TwinExecutor
from circuits.compile import compile_ansatz
from circuits.errors import QrunError, UsageError
from circuits.types import Ansatz
from tests.backends.reference import compiled, draw


def request(device: str, qubits: int, entanglement: str, batch: int, seed: int) -> Request:
    circuit = compiled(device, qubits, 1, entanglement)
    correlated = SparsePauliOp(["Z" * qubits, "I" * (qubits - 1) + "Z", "I" * qubits], [0.5, -1.2, 2.0])
    return Request(circuit, (*single_z(qubits), correlated), *draw(circuit, batch, seed))


@pytest.mark.parametrize(
    ("device", "entanglement"),
    [("fake_kyiv", "circular"), ("fake_fez", "linear"), ("fake_almaden", "full"), ("ideal", "sca")],
)
def test_shots_agree_with_the_exact_twin(device: str, entanglement: str) -> None:
    """Every estimate within 5 of its own standard errors, and their mean square near 1.

    4 x 40 = 160 estimates of 8192 shots (5 observables of 8 samples): a normal variable is beyond 5 sigma with
    5.7e-7, so a sound engine fails here with less than 1e-4. The mean square of 40 correlated z-scores (at least 8
    independent ones) is between 0.25 and 2.75 except with about 1e-3 (chi-square, 8 degrees). Seeds are fixed.
    """
    asked, target = request(device, 4, entanglement, 8, 3), get_target(device)
    (sampled,) = AerExecutor(target, shots=8192).run([asked], seed=20)
    (exact,) = TwinExecutor(target).run([asked])
    scores = (sampled.values - exact.values) / sampled.standard_errors
    assert np.abs(scores).max() < 5.0
    assert 0.25 < (scores**2).mean() < 2.75


def test_the_comparison_sees_readout_errors() -> None:
    # Near |0000>, where readout errors weigh most and shots scatter least.
    near, target = request("fake_kyiv", 4, "linear", 8, 3), get_target("fake_kyiv")
    asked = Request(near.circuit, near.observables, 0.1 * near.inputs, 0.0 * near.weights)
    (with_it,) = AerExecutor(target, shots=8192).run([asked], seed=20)
    (without,) = AerExecutor(target, shots=8192, readout_error=False).run([asked], seed=20)
    (exact,) = TwinExecutor(target).run([asked])
    (no_readout,) = TwinExecutor(target, readout_error=False).run([asked])
    assert np.abs((with_it.values - no_readout.values) / with_it.standard_errors).max() > 5.0
    assert np.abs((without.values - exact.values) / without.standard_errors).max() > 5.0
    assert np.abs((without.values - no_readout.values) / without.standard_errors).max() < 5.0


def test_standard_errors_are_those_of_the_shots() -> None:
    asked, target = request("fake_lima", 3, "linear", 6, 1), get_target("fake_lima")
    (sampled,) = AerExecutor(target, shots=4000).run([asked], seed=1)
    (exact,) = TwinExecutor(target).run([asked])
    single = np.sqrt((1 - exact.values[:, :3] ** 2) / 4000)
    assert sampled.standard_errors[:, :3] == pytest.approx(single, rel=0.25)
    assert sampled.metadata["shots"] == 4000


def test_same_seed_same_values() -> None:
    asked = [request("fake_lima", 3, "linear", 4, 1), request("fake_lima", 2, "linear", 3, 2)]
    first, again, other = (AerExecutor(get_target("fake_lima"), shots=200).run(asked, seed=s) for s in (5, 5, 6))
    for a, b, c in zip(first, again, other, strict=True):
        assert np.array_equal(a.values, b.values)
        assert np.array_equal(a.standard_errors, b.standard_errors)
        assert not np.array_equal(a.values, c.values)


def test_samples_of_one_call_are_independent() -> None:
    circuit = compiled("fake_lima", 2, 1, "linear")
    z, w = draw(circuit, 1, 1)
    asked = Request(circuit, single_z(2), np.repeat(z, 6, axis=0), w)
    results = AerExecutor(get_target("fake_lima"), shots=500).run([asked, asked], seed=5)
    rows = {tuple(row) for result in results for row in result.values.round(12)}
    assert len(rows) > 8


def test_rows_of_weights() -> None:
    circuit, target = compiled("fake_fez", 3, 1, "linear"), get_target("fake_fez")
    z, _ = draw(circuit, 4, 1)
    asked = Request(circuit, single_z(3), z, np.random.default_rng(1).normal(size=(4, len(circuit.weights))))
    (exact,), (aer,) = TwinExecutor(target).run([asked]), AerExecutor(target, shots=None).run([asked])
    assert np.abs(exact.values - aer.values).max() < 1e-8
    assert not aer.standard_errors.any()


def test_a_circuit_without_parameters_and_an_empty_batch() -> None:
    fixed = QuantumCircuit(2)
    fixed.x(1)
    circuit = compile_ansatz(Ansatz("fixed", fixed, (), ()), None, seed=1)
    asked = [Request(circuit, single_z(2), np.zeros((batch, 0)), np.zeros(0)) for batch in (3, 0)]
    three, none = AerExecutor(get_target("ideal"), shots=10).run(asked, seed=1)
    assert np.array_equal(three.values, [[1.0, -1.0]] * 3)
    assert none.values.shape == (0, 2)


def test_many_wires_follow_trajectories() -> None:
    asked, target = request("fake_kyiv", 11, "linear", 1, 1), get_target("fake_kyiv")
    engine = AerExecutor(target, shots=50)
    (result,) = engine.run([asked], seed=1)
    assert result.values.shape == (1, 12)
    assert np.abs(result.values).max() <= 3.7
    with pytest.raises(QrunError, match="up to 10 device qubits"):
        AerExecutor(target, shots=None).run([asked])


@pytest.mark.parametrize("shots", [0, -5, 1.5, True])
def test_wrong_shots(shots: object) -> None:
    with pytest.raises(UsageError, match="shots must be 1 or more"):
        AerExecutor(get_target("ideal"), shots=shots)  # type: ignore[arg-type]


def test_wrong_requests() -> None:
    circuit = compiled("ideal", 2, 1, "linear")
    z, w = draw(circuit, 2, 1)
    engine = AerExecutor(get_target("ideal"))
    with pytest.raises(UsageError, match="request 0: inputs have shape"):
        engine.run([Request(circuit, single_z(2), z[:, :1], w)])
    with pytest.raises(QrunError, match="Z and I only"):
        engine.run([Request(circuit, (SparsePauliOp("XI"),), z, w)])
    assert isinstance(engine, Executor)
    assert engine.run([]) == []
