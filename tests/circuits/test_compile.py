import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qiskit import qasm3
from qiskit.circuit import Gate, Parameter
from qiskit.circuit.library import CXGate, RZGate, SXGate, XGate
from qiskit.providers import BackendV2, Options
from qiskit.quantum_info import Statevector
from qiskit.transpiler import InstructionProperties, Target
from qiskit_ibm_runtime.fake_provider import (
    FakeCairoV2,
    FakeFez,
    FakeKyiv,
    FakeKyoto,
    FakeLimaV2,
    FakeManhattanV2,
    FakeYorktownV2,
)

from circuits.compile import compile_ansatz
from circuits.errors import QrunError, UsageError
from circuits.qgan import ENTANGLEMENTS, generator
from circuits.types import CompiledCircuit

DEVICES = {"kyiv": FakeKyiv(), "fez": FakeFez(), "yorktown": FakeYorktownV2(), "ideal": None}


def same_state(compiled: CompiledCircuit, values: np.ndarray) -> float:
    """1 - fidelity of the compiled circuit's state with the ansatz's, placed on the wires of the final layout."""
    ansatz = compiled.ansatz
    binding = dict(zip((*ansatz.inputs, *ansatz.weights), values, strict=True))
    got = Statevector(compiled.circuit.assign_parameters(binding, strict=False)).data
    wanted = Statevector(ansatz.circuit.assign_parameters(binding)).data
    placed = np.zeros_like(got)
    for index, amplitude in enumerate(wanted):
        there = sum(((index >> v) & 1) << wire for v, wire in enumerate(compiled.final_layout))
        placed[there] = amplitude
    return float(1.0 - abs(np.vdot(placed, got)) ** 2)


def uncalibrated(compiled: CompiledCircuit, backend: BackendV2) -> list[object]:
    """Gates of the compiled circuit that the device's own target does not have, or has with an error of 1.0."""
    bad: list[object] = []
    for instruction in compiled.circuit.data:
        wires = (compiled.circuit.find_bit(q).index for q in instruction.qubits)
        where = tuple(compiled.physical_qubits[w] for w in wires)
        entry = backend.target[instruction.operation.name].get(where)
        if isinstance(instruction.operation, Gate) and (entry is None or entry.error is None or entry.error >= 1.0):
            bad.append((instruction.operation.name, where))
    return bad


@settings(max_examples=25, deadline=None)
@given(
    device=st.sampled_from(sorted(DEVICES)),
    qubits=st.integers(1, 5),
    reps=st.integers(0, 2),
    entanglement=st.sampled_from(ENTANGLEMENTS),
    level=st.integers(0, 3),
    seed=st.integers(0, 2**32 - 1),
)
def test_compiled_circuit_does_what_the_ansatz_does(
    *, device: str, qubits: int, reps: int, entanglement: str, level: int, seed: int
) -> None:
    backend = DEVICES[device]
    ansatz = generator(qubits, reps, entanglement)
    compiled = compile_ansatz(ansatz, backend, seed=seed % 1000, optimization_level=level)
    values = np.random.default_rng(seed).uniform(-np.pi, np.pi, len(ansatz.inputs) + len(ansatz.weights))
    assert same_state(compiled, values) < 1e-10
    assert compiled.num_qubits == qubits
    assert list(compiled.physical_qubits) == sorted(set(compiled.physical_qubits))
    assert len(compiled.physical_qubits) == compiled.circuit.num_qubits
    if backend is not None:
        assert uncalibrated(compiled, backend) == []


@pytest.mark.parametrize("entanglement", ENTANGLEMENTS)
def test_every_entanglement_on_a_large_device(entanglement: str) -> None:
    ansatz = generator(6, 1, entanglement)
    compiled = compile_ansatz(ansatz, DEVICES["kyiv"], seed=3)
    values = np.random.default_rng(1).uniform(-np.pi, np.pi, len(ansatz.inputs) + len(ansatz.weights))
    assert same_state(compiled, values) < 1e-10
    assert compiled.two_qubit_gates == compiled.gate_counts["ecr"]
    assert sum(compiled.gate_counts.values()) == len(compiled.circuit.data)
    assert compiled.depth == compiled.circuit.depth()


def test_reverse_linear_needs_no_swap_on_kyiv() -> None:
    compiled = compile_ansatz(generator(8), DEVICES["kyiv"], seed=7)
    assert compiled.two_qubit_gates == 4 * 7
    assert len(compiled.physical_qubits) == 8
    assert compiled.initial_layout == compiled.final_layout


@pytest.mark.parametrize("entanglement", ["circular", "sca"])
def test_a_ring_stays_on_the_qubits_that_it_needs(entanglement: str) -> None:
    # On its own the transpiler lays eight qubits out on a ring of twelve, too many to simulate exactly.
    ansatz = generator(8, 4, entanglement)
    compiled = compile_ansatz(ansatz, DEVICES["kyiv"], seed=7)
    assert len(compiled.physical_qubits) == 8
    values = np.random.default_rng(1).uniform(-np.pi, np.pi, len(ansatz.inputs) + len(ansatz.weights))
    assert same_state(compiled, values) < 1e-10
    assert uncalibrated(compiled, DEVICES["kyiv"]) == []


def test_same_seed_same_circuit() -> None:
    first, second = (compile_ansatz(generator(4, 2, "full"), FakeKyiv(), seed=11) for _ in range(2))
    assert qasm3.dumps(first.circuit) == qasm3.dumps(second.circuit)
    assert (first.physical_qubits, first.final_layout) == (second.physical_qubits, second.final_layout)


@pytest.mark.slow
def test_the_hash_seed_of_the_process_does_not_matter() -> None:
    # The Runtime builds targets from sets of names, whose order depends on it.
    script = (
        "from qiskit_ibm_runtime.fake_provider import FakeMarrakesh\n"
        "from qiskit import qasm3\n"
        "from circuits.compile import compile_ansatz\n"
        "from circuits.qgan import generator\n"
        "c = compile_ansatz(generator(5, 2, 'circular'), FakeMarrakesh(), seed=5)\n"
        "print(c.physical_qubits, c.final_layout, qasm3.dumps(c.circuit))"
    )
    answers = {
        subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2")
    }
    assert len(answers) == 1
    assert "OPENQASM" in answers.pop()


def test_broken_gates_are_avoided_on_a_device_full_of_them() -> None:
    backend = FakeManhattanV2()
    broken = sum(1 for entry in backend.target["cx"].values() if entry.error >= 1.0)
    assert broken > 20  # else this shows nothing
    for seed in range(3):
        assert uncalibrated(compile_ansatz(generator(8, 1), backend, seed=seed), backend) == []


class Line(BackendV2):
    """Three qubits in a line; errors of cx(0, 1) and cx(1, 2) are given."""

    def __init__(self, first: float | None, second: float | None) -> None:
        super().__init__(name="line")
        self._target = Target(num_qubits=3)
        for gate, error in ((RZGate(Parameter("a")), 0.0), (SXGate(), 1e-3), (XGate(), 1e-3)):
            everywhere = {(q,): InstructionProperties(error=error, duration=1e-8) for q in range(3)}
            self._target.add_instruction(gate, everywhere)
        pairs = {(0, 1): first, (1, 2): second}
        self._target.add_instruction(
            CXGate(), {pair: InstructionProperties(error=error, duration=1e-7) for pair, error in pairs.items()}
        )

    @property
    def target(self) -> Target:
        return self._target

    @property
    def max_circuits(self) -> None:
        return None

    @classmethod
    def _default_options(cls) -> Options:
        return Options()

    def run(self, run_input: object, **options: object) -> None:
        raise NotImplementedError


@pytest.mark.parametrize("broken", [1.0, None])
def test_a_broken_pair_is_avoided_even_for_a_bad_one(broken: float | None) -> None:
    assert compile_ansatz(generator(2, 1), Line(broken, 0.4), seed=1).physical_qubits == (1, 2)
    assert compile_ansatz(generator(2, 1), Line(0.4, broken), seed=1).physical_qubits == (0, 1)


def test_a_device_without_a_calibrated_layout_says_so() -> None:
    with pytest.raises(QrunError, match="line has no layout of 3 qubits whose gates are all calibrated"):
        compile_ansatz(generator(3, 1), Line(0.01, 1.0), seed=1)
    with pytest.raises(QrunError, match="fake_kyoto has no layout"):
        compile_ansatz(generator(2, 1), FakeKyoto(), seed=1)  # all its ECR are reported with an error of 1.0
    assert compile_ansatz(generator(1, 1), FakeKyoto(), seed=1).two_qubit_gates == 0


@pytest.mark.parametrize("qubits", [2, 8])
def test_a_device_with_two_kinds_of_entangling_gates(qubits: int) -> None:
    # qiskit alone compiles nothing to it: it finds no rule to turn a gate around.
    backend = FakeCairoV2()
    ansatz = generator(qubits, 1, "circular")
    compiled = compile_ansatz(ansatz, backend, seed=1)
    values = np.random.default_rng(1).uniform(-np.pi, np.pi, len(ansatz.inputs) + len(ansatz.weights))
    assert same_state(compiled, values) < 1e-10
    assert uncalibrated(compiled, backend) == []


def test_too_many_qubits_names_both_numbers() -> None:
    with pytest.raises(UsageError, match="needs 9 qubits, and fake_lima has 5"):
        compile_ansatz(generator(9), FakeLimaV2(), seed=1)


def test_unknown_optimization_level() -> None:
    with pytest.raises(UsageError, match="optimization_level"):
        compile_ansatz(generator(2), None, seed=1, optimization_level=4)
