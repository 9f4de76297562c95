"""Qubits that wait: the schedule, and the relaxation during its delays, against Aer and against quantum_info."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qiskit import QuantumCircuit
from qiskit.circuit import Clbit, Delay, IfElseOp, Parameter
from qiskit.circuit.classical import expr
from qiskit.quantum_info import DensityMatrix, Kraus, Operator, SuperOp
from qiskit.transpiler import InstructionProperties, Target, generate_preset_pass_manager
from qiskit_aer import AerSimulator
from qiskit_aer.noise import NoiseModel, thermal_relaxation_error

from backends.catalog import get_target
from backends.observables import single_z
from backends.protocol import Request
from backends.twin.build import build_program
from backends.twin.channels import Channels
from backends.twin.executor import TwinExecutor
from backends.twin.program import Program, Run
from backends.twin.schedule import with_delays
from circuits.compile import compile_ansatz
from circuits.errors import QrunError
from circuits.types import Ansatz, CompiledCircuit
from tests.backends.reference import Evolution, compiled, draw, noise_model

DEVICES = ["fake_kyiv", "fake_fez", "fake_torino", "fake_lima"]
EXACT = 1e-11
"""Against Aer the same, and what Aer drops: the terms of a noise mixture that are less likely than 1e-10 (`dropped`).
On fake_fez that is up to 3e-8 at five qubits, on fake_torino 7e-9, on the two others nothing."""
PAULIS = np.array([[[1, 0], [0, 1]], [[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]])


def scheduled(device: str, qubits: int, reps: int, entanglement: str) -> CompiledCircuit:
    return with_delays(compiled(device, qubits, reps, entanglement), get_target(device).backend.target)


def program_of(device: str, circuit: CompiledCircuit) -> Program:
    return build_program(circuit, Channels(get_target(device).backend.target, circuit.physical_qubits))


def evaluate(program: Program, inputs: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The Pauli vector at the end, (4,) * k by position: the program as its docstring reads, in numpy."""
    width = len(program.positions)

    def channel(run: Run | None) -> np.ndarray:
        if run is None:
            return np.eye(4)
        result = run.fixed[0]
        for angle, fixed in zip(run.angles, run.fixed[1:], strict=True):
            a = angle.constant + angle.inputs @ inputs + angle.weights @ weights
            rotation = np.eye(4)
            rotation[1:3, 1:3] = [[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]
            result = fixed @ rotation @ result
        return result

    def on(vector: np.ndarray, matrix: np.ndarray, *axes: int) -> np.ndarray:
        tensor = matrix.reshape((4,) * (2 * len(axes)))
        moved = np.tensordot(tensor, vector, axes=(range(len(axes), 2 * len(axes)), axes))
        return np.moveaxis(moved, range(len(axes)), axes)

    vector = np.ones(())
    for run in program.first:
        vector = np.multiply.outer(vector, channel(run) @ [1, 0, 0, 1])
    for block in program.blocks:
        vector = on(vector, channel(block.before_low), block.low)
        vector = on(vector, channel(block.before_high), block.high)
        vector = on(vector, block.channel, block.low, block.high)
    for position in range(width):
        vector = on(vector, channel(program.last[position]), position)
    return vector


def pauli_vector(state: np.ndarray, program: Program) -> np.ndarray:
    """A density matrix on the wires (wire 0 is the last factor) as a Pauli vector by position."""
    width = len(program.positions)
    tensor = state.reshape((2,) * (2 * width))
    for wire in reversed(range(width)):  # always the first row axis and the first column axis that are left
        left = wire + 1
        tensor = np.tensordot(tensor, PAULIS, axes=([0, left], [2, 1]))
    by_wire = np.real(tensor)  # axes: wire width-1 first
    return by_wire.transpose([width - 1 - program.positions.index(position) for position in range(width)])


def bind(circuit: CompiledCircuit, inputs: np.ndarray, weights: np.ndarray) -> QuantumCircuit:
    names = dict(zip((*circuit.inputs, *circuit.weights), (*inputs, *weights), strict=True))
    return circuit.circuit.assign_parameters(names, strict=False)


def waiting(seconds: float, t1: float, t2: float) -> Kraus:
    """Amplitude damping and pure dephasing, in Kraus operators."""
    decay = np.exp(-seconds / t1)
    # Coherences shrink by sqrt(decay) from the damping alone; flips of the phase do the rest.
    flip = (1 - np.exp(-seconds / min(t2, 2 * t1)) / np.sqrt(decay)) / 2
    damping = [np.diag([1, np.sqrt(decay)]), np.array([[0, np.sqrt(1 - decay)], [0, 0]])]
    phases = [np.sqrt(1 - flip) * np.eye(2), np.sqrt(flip) * np.diag([1, -1])]
    return Kraus([a @ b for a in damping for b in phases])


def exact(device: str, circuit: CompiledCircuit, bound: QuantumCircuit) -> np.ndarray:
    """quantum_info's own evolution: Aer's noise after gates, `waiting` in delays."""
    target = get_target(device)
    model, properties, dt = noise_model(target, circuit), target.backend.target.qubit_properties, target.backend.dt
    state = DensityMatrix.from_label("0" * bound.num_qubits)
    for instruction in bound.data:
        operation, where = instruction.operation, [bound.find_bit(q).index for q in instruction.qubits]
        if operation.name == "delay":
            of_qubit = properties[circuit.physical_qubits[where[0]]]
            seconds = operation.duration * {"dt": dt, "s": 1.0, "us": 1e-6}[operation.unit]
            state = state.evolve(waiting(seconds, of_qubit.t1, of_qubit.t2), where)
            continue
        state = state.evolve(Operator(operation), where)
        error = model._local_quantum_errors.get(operation.name, {}).get(tuple(where))
        if error is not None:
            state = state.evolve(SuperOp(error), where)
    return state.data


def aer(device: str, circuit: CompiledCircuit, bound: QuantumCircuit) -> np.ndarray:
    """Aer's density matrix; `NoiseModel.from_backend` relaxes delays with its RelaxationNoisePass."""
    model = NoiseModel.from_backend(get_target(device).cut(circuit.physical_qubits))
    assert [type(p).__name__ for p in model._custom_noise_passes] == ["RelaxationNoisePass"]
    saved = bound.copy()
    saved.save_density_matrix()
    simulator = AerSimulator(method="density_matrix", noise_model=model, max_parallel_threads=1)
    return np.asarray(simulator.run(saved).result().data()["density_matrix"])


def dropped(device: str, circuit: CompiledCircuit) -> float:
    """How far Aer may be off, for gates and delays."""
    target, total = get_target(device), 0.0
    for instruction in circuit.circuit.data:
        if instruction.operation.name == "delay":
            wire = circuit.circuit.find_bit(instruction.qubits[0]).index
            of_qubit = target.backend.target.qubit_properties[circuit.physical_qubits[wire]]
            seconds = instruction.operation.duration * target.backend.dt
            error = thermal_relaxation_error(of_qubit.t1, min(of_qubit.t2, 2 * of_qubit.t1), seconds)
            total += 2 * sum(p for p in error.probabilities if p < 1e-10)
    return total + Evolution(target, circuit).dropped_by_aer()


@settings(max_examples=12, deadline=None)
@given(
    device=st.sampled_from(DEVICES),
    qubits=st.integers(2, 5),
    entanglement=st.sampled_from(["linear", "circular", "full", "reverse_linear"]),
    seed=st.integers(0, 100),
)
def test_the_state_is_aers_and_quantum_infos(device: str, qubits: int, entanglement: str, seed: int) -> None:
    circuit = scheduled(device, qubits, 1, entanglement)
    program, (inputs, weights) = program_of(device, circuit), draw(circuit, 1, seed)
    got, bound = evaluate(program, inputs[0], weights), bind(circuit, inputs[0], weights)
    assert np.abs(got - pauli_vector(exact(device, circuit, bound), program)).max() < EXACT
    off = dropped(device, circuit)
    assert off < 1e-7  # else the comparison would say little
    assert np.abs(got - pauli_vector(aer(device, circuit, bound), program)).max() < EXACT + off


@pytest.mark.parametrize("device", DEVICES)
def test_waiting_makes_a_difference(device: str) -> None:
    plain, idle = compiled(device, 4, 2, "circular"), scheduled(device, 4, 2, "circular")
    inputs, weights = draw(plain, 1, 3)
    without, with_idle = (evaluate(program_of(device, c), inputs[0], weights) for c in (plain, idle))
    assert np.abs(without - with_idle).max() > 1e-3
    assert "delay" not in plain.gate_counts
    assert (idle.depth, idle.two_qubit_gates, idle.gate_counts) == (
        plain.depth,
        plain.two_qubit_gates,
        plain.gate_counts,
    )
    assert (idle.final_layout, idle.physical_qubits) == (plain.final_layout, plain.physical_qubits)


@pytest.mark.parametrize("device", [*DEVICES, "fake_burlington", "fake_poughkeepsie"])
def test_the_schedule_is_the_one_of_qiskits_transpiler(device: str) -> None:
    # burlington has no dt, poughkeepsie one of attoseconds.
    target, plain = get_target(device), compiled(device, 5, 1, "circular")
    width = plain.circuit.num_qubits
    manager = generate_preset_pass_manager(
        0, target=target.cut(plain.physical_qubits).target, scheduling_method="alap", initial_layout=list(range(width))
    )

    def steps(circuit: QuantumCircuit) -> list[tuple[object, ...]]:
        return [
            (i.operation.name, [circuit.find_bit(q).index for q in i.qubits], i.operation.params) for i in circuit.data
        ]

    got = with_delays(plain, target.backend.target).circuit
    assert steps(got) == steps(manager.run(plain.circuit))
    # Every wire is busy or waits for the same time in all.
    totals = np.zeros(width)
    for i in got.data:
        where = [got.find_bit(q).index for q in i.qubits]
        if i.operation.name == "delay":
            totals[where] += i.operation.duration * (target.backend.dt or 1.0)
        else:
            physical = tuple(plain.physical_qubits[w] for w in where)
            totals[where] += target.backend.target[i.operation.name][physical].duration
    assert np.ptp(totals) < 1e-12 < totals.min()


def on_lima(circuit: QuantumCircuit) -> CompiledCircuit:
    width = circuit.num_qubits
    return (
        replace(compiled("fake_lima", 2, 1, "linear"), circuit=circuit, inputs=(), weights=())
        if width == 2
        else (compile_ansatz(Ansatz("own", circuit, (), ()), None, seed=1))
    )


def test_delays_of_the_user_count_without_a_schedule_in_every_unit() -> None:
    base = compiled("fake_lima", 2, 1, "linear")
    states, dt = [], get_target("fake_lima").backend.dt
    for duration, unit in ((9000, "dt"), (9000 * dt, "s"), (9000 * dt * 1e6, "us"), (0, "dt")):
        own = QuantumCircuit(2)
        own.sx(0)
        own.id(1)
        own.delay(duration, 0, unit)
        own.barrier()
        own.sx(0)
        circuit = on_lima(own)
        program = program_of("fake_lima", circuit)
        states.append(evaluate(program, np.zeros(0), np.zeros(0)))
        assert np.abs(states[-1] - pauli_vector(aer("fake_lima", circuit, own), program)).max() < EXACT
        if unit in ("dt", "s", "us"):
            assert np.abs(states[-1] - pauli_vector(exact("fake_lima", circuit, own), program)).max() < EXACT
    assert np.allclose(states[0], states[1:3], rtol=0, atol=1e-14)
    assert np.abs(states[0] - states[3]).max() > 1e-3
    assert base.physical_qubits == circuit.physical_qubits


def test_an_own_delay_stays_in_the_schedule_and_others_wait_beside_it() -> None:
    own = QuantumCircuit(2)
    own.sx(0)
    own.sx(1)
    own.barrier()
    own.delay(5000, 0)
    own.barrier()
    own.sx(0)
    own.sx(1)
    got = with_delays(on_lima(own), get_target("fake_lima").backend.target).circuit
    assert [
        (i.operation.duration, got.find_bit(i.qubits[0]).index) for i in got.data if i.operation.name == "delay"
    ] == [
        (5000, 0),
        (5000, 1),
    ]


def test_a_delay_on_the_ideal_target_does_nothing() -> None:
    own = QuantumCircuit(1)
    own.h(0)
    own.delay(1000, 0)
    program = build_program(on_lima(own), Channels(None, (0,)))
    assert np.allclose(evaluate(program, np.zeros(0), np.zeros(0)), [1, 1, 0, 0])


def test_what_cannot_be_run_is_refused_with_advice() -> None:
    target, length = get_target("fake_lima").backend.target, Parameter("t")
    cases: list[tuple[QuantumCircuit, str]] = []

    def case(says: str) -> QuantumCircuit:
        cases.append((QuantumCircuit(2, 1), says))
        return cases[-1][0]

    case("which is no number.*as numbers").delay(length, 0)
    case("which is no number").delay(2 * length, 1, "us")
    stretched = case("which is no number")
    stretched.append(Delay(stretched.add_stretch("s")), [0])
    case("which is no number").append(Delay(expr.lift(qiskit_duration())), [0])
    case("'measure' on 1.*remove_final_measurements").measure(0, 0)
    case("'reset' on 1.*reset at the start can go").reset(0)
    dynamic = case("no control flow .'if_else'.*Unroll")
    body = QuantumCircuit([*dynamic.qubits], [Clbit()])
    body.x(0)
    dynamic.append(IfElseOp((dynamic.clbits[0], True), body), [*dynamic.qubits], dynamic.clbits)
    case("'initialize' on 1.*Compile").initialize([1, 0], 0)
    for circuit, says in cases:
        for run in (lambda c: program_of("fake_lima", c), lambda c: with_delays(c, target)):
            with pytest.raises(QrunError, match=says):
                run(on_lima(circuit))


def qiskit_duration() -> object:
    from qiskit.circuit import Duration

    return Duration.us(1)


@pytest.mark.parametrize("duration", [float("nan"), float("inf")])
def test_a_delay_of_no_length(duration: float) -> None:
    own = QuantumCircuit(2)
    own.append(Delay(duration, "s"), [0])
    with pytest.raises(QrunError, match="no length of time"):
        program_of("fake_lima", on_lima(own))


def test_dt_on_a_device_that_has_none() -> None:
    own = QuantumCircuit(2)
    own.delay(1000, 0)
    with pytest.raises(QrunError, match=r"given in dt.*Give the delay in seconds"):
        program_of("fake_burlington", on_lima(own))
    with pytest.raises(QrunError, match="cannot be scheduled"):
        with_delays(on_lima(own), get_target("fake_burlington").backend.target)


def test_a_gate_without_a_length_cannot_be_scheduled() -> None:
    from qiskit.circuit.library import SXGate, XGate

    target = Target(num_qubits=5)
    target.add_instruction(SXGate(), {(q,): InstructionProperties(error=0.1) for q in range(5)})
    target.add_instruction(XGate())
    for gate in ("sx", "x"):
        own = QuantumCircuit(2)
        getattr(own, gate)(0)
        with pytest.raises(QrunError, match=rf"calibration has none for {gate} on qubit \d.*Leave idle noise out"):
            with_delays(on_lima(own), target)
    own = QuantumCircuit(2)
    own.h(0)
    with pytest.raises(QrunError, match=r"no gate h on qubit \d: its gates are sx, x"):
        with_delays(on_lima(own), target)


def test_the_engine_schedules_when_it_is_told_to() -> None:
    target, plain = get_target("fake_fez"), compiled("fake_fez", 4, 1, "circular")
    inputs, weights = draw(plain, 2, 5)
    circuit = scheduled("fake_fez", 4, 1, "circular")
    program = program_of("fake_fez", circuit)
    (idle,) = TwinExecutor(target, idle_noise=True).run([Request(plain, single_z(4), inputs, weights)])
    (own,) = TwinExecutor(target).run([Request(circuit, single_z(4), inputs, weights)])
    (without,) = TwinExecutor(target).run([Request(plain, single_z(4), inputs, weights)])
    assert np.abs(idle.values - own.values).max() < EXACT
    assert np.abs(idle.values - without.values).max() > 1e-4
    for row, values in zip(inputs, idle.values, strict=True):
        vector = evaluate(program, row, weights)
        for virtual, value in enumerate(values):
            position = program.outputs[virtual]
            where = tuple(3 if p == position else 0 for p in range(vector.ndim))
            offset, scale = program.readout[position]
            assert value == pytest.approx(offset + scale * vector[where], abs=EXACT)
