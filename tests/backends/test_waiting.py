"""Qubits that wait for others, through delays and barriers on qubits that no gate or observable is on."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qiskit import QuantumCircuit
from qiskit.quantum_info import SparsePauliOp
from qiskit.transpiler import generate_preset_pass_manager
from qiskit_aer import AerSimulator
from qiskit_aer.noise import NoiseModel

from backends.catalog import get_target
from backends.observables import single_z
from backends.protocol import Request
from backends.twin.executor import TwinExecutor
from backends.twin.primitives.estimator import TwinEstimator
from backends.twin.primitives.isa import from_isa
from backends.twin.primitives.sampler import TwinSampler
from circuits.compile import compile_ansatz
from circuits.types import Ansatz

LIMA = get_target("fake_lima")  # 0-1-2, 1-3-4; cx both ways
Z0 = SparsePauliOp("IIIIZ")


def beside(circuit: QuantumCircuit) -> None:
    circuit.barrier(0, 1)
    circuit.delay(100000, 1, "dt")
    circuit.barrier(0, 1)


def at_the_end(circuit: QuantumCircuit) -> None:
    circuit.barrier(0, 1)
    circuit.delay(100000, 1, "dt")
    circuit.barrier(0, 2)


def by_a_chain(circuit: QuantumCircuit) -> None:
    circuit.barrier(0, 1)
    circuit.barrier(1, 2)
    circuit.delay(100000, 2, "dt")
    circuit.barrier(2, 3)
    circuit.barrier(3, 0)


def for_gates(circuit: QuantumCircuit) -> None:
    """Qubit 2 has barriers alone, and ties 0 to the gates on 3 and 4."""
    circuit.barrier(0, 2)
    circuit.barrier(2, 3)
    for _ in range(100):
        circuit.cx(3, 4)
    circuit.barrier(3, 2)
    circuit.barrier(2, 0)


CASES = {beside: (0, 1), at_the_end: (0, 1), by_a_chain: (0, 1, 2, 3), for_gates: (0, 2, 3, 4)}


def built(waiting) -> QuantumCircuit:
    circuit = QuantumCircuit(5)
    circuit.sx(0)
    waiting(circuit)
    circuit.sx(0)
    return circuit


def aer(circuit: QuantumCircuit) -> float:
    """<Z> of qubit 0 as Aer has it on the whole device, scheduled by qiskit, relaxed by RelaxationNoisePass."""
    manager = generate_preset_pass_manager(
        0, backend=LIMA.backend, scheduling_method="alap", initial_layout=list(range(5))
    )
    scheduled = manager.run(circuit)
    scheduled.save_density_matrix()
    simulator = AerSimulator(method="density_matrix", noise_model=NoiseModel.from_backend(LIMA.backend))
    state = simulator.run(scheduled).result().data()["density_matrix"]
    return float(state.expectation_value(Z0).real)


@pytest.mark.parametrize("waiting", CASES)
def test_qubits_wait_as_on_aer(waiting) -> None:
    circuit = built(waiting)
    values = {}
    for idle in (True, False):
        estimator = TwinEstimator(LIMA, idle_noise=idle, readout_error=False)
        values[idle] = float(estimator.run([(circuit, Z0)]).result()[0].data.evs)
    assert values[True] == pytest.approx(aer(circuit), abs=1e-9)
    assert values[True] - values[False] > 0.1
    compiled = from_isa(circuit)
    assert compiled.physical_qubits == CASES[waiting]
    assert compiled.num_qubits == len({0} | ({3, 4} if waiting is for_gates else set())), "waiting costs no state"


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_any_delays_and_barriers(seed: int) -> None:
    """Gates on one or two qubits, delays and barriers anywhere."""
    random, circuit = np.random.default_rng(seed), QuantumCircuit(5)
    gated = [0, *random.choice(np.arange(1, 5), random.integers(0, 2)).tolist()]
    circuit.sx(0)
    for kind in random.choice(["sx", "rz", "delay", "barrier"], random.integers(4, 14)):
        if kind == "sx":
            circuit.sx(random.choice(gated))
        elif kind == "rz":
            circuit.rz(random.normal(), random.choice(gated))
        elif kind == "delay":
            circuit.delay(1000 * int(random.integers(1, 60)), int(random.integers(5)), "dt")
        else:
            circuit.barrier(*random.choice(5, random.integers(2, 4), replace=False).tolist())
    estimator = TwinEstimator(LIMA, idle_noise=True, readout_error=False)
    assert float(estimator.run([(circuit, Z0)]).result()[0].data.evs) == pytest.approx(aer(circuit), abs=1e-9)


def test_the_readout_of_whoever_waits_is_not_its_neighbours() -> None:
    circuit = QuantumCircuit(5, 2)
    circuit.x(2)
    circuit.barrier(0, 2)
    circuit.delay(1000, 0, "dt")
    circuit.barrier(0, 2)
    circuit.measure([0, 2], [0, 1])
    data = TwinSampler(LIMA, idle_noise=True, seed=1).run([circuit], shots=4000).result()[0].data.c
    read = data.array[:, 0]  # bit 0 is qubit 0, of which the engine has no state
    p01, _ = LIMA.readout_errors(0)
    assert abs((read & 1).mean() - p01) < 5 * np.sqrt(p01 / 4000)
    assert (read >> 1 & 1).mean() > 0.9


def test_only_who_matters_is_kept() -> None:
    circuit = QuantumCircuit(5)
    circuit.sx(0)
    circuit.delay(1000, 4, "dt")
    circuit.barrier()
    circuit.sx(0)
    circuit.barrier()  # qubit 0 has both barriers itself
    assert from_isa(circuit).physical_qubits == (0, 4)
    alone = QuantumCircuit(5)
    alone.sx(0)
    alone.delay(1000, 4, "dt")
    assert from_isa(alone).physical_qubits == (0,), "nobody waits for it"
    for measured, kept in ((False, (0, 1, 3)), (True, (0, 1, 2, 3))):
        linked = QuantumCircuit(5, 1)
        for qubit in (0, 1, 3):
            linked.sx(qubit)
        if measured:  # then 1 ties 0 to 3 no longer, and 2 does
            linked.measure(1, 0)
        linked.barrier(0, 1, 2)
        linked.barrier(1, 2, 3)
        assert from_isa(linked).physical_qubits == kept


def test_what_the_compiler_makes_of_barriers_is_honoured() -> None:
    ansatz = QuantumCircuit(2)
    ansatz.sx(0)
    beside(ansatz)
    ansatz.sx(0)
    compiled = compile_ansatz(Ansatz("waits", ansatz, (), ()), LIMA.backend, seed=1)
    request = Request(compiled, single_z(2), np.zeros((1, 0)), np.zeros(0))
    idle, plain = (
        TwinExecutor(LIMA, idle_noise=i, readout_error=False).run([request])[0].values[0] for i in (True, False)
    )
    wire = compiled.final_layout[0]
    other = compiled.final_layout[1]
    qubits = compiled.physical_qubits
    circuit = QuantumCircuit(5)
    circuit.sx(qubits[wire])
    circuit.barrier(qubits[wire], qubits[other])
    circuit.delay(100000, qubits[other], "dt")
    circuit.barrier(qubits[wire], qubits[other])
    circuit.sx(qubits[wire])
    z = SparsePauliOp.from_sparse_list([("Z", [qubits[wire]], 1.0)], num_qubits=5)
    estimator = TwinEstimator(LIMA, idle_noise=True, readout_error=False)
    assert idle[0] == pytest.approx(float(estimator.run([(circuit, z)]).result()[0].data.evs), abs=1e-12)
    assert idle[0] - plain[0] > 0.05
