"""What a job costs: IBM's documented formula, with the device's own figures."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qiskit import QuantumCircuit
from qiskit.transpiler import generate_preset_pass_manager

from backends.catalog import get_target, save_target
from backends.runtime.cost import (
    OVERHEAD,
    circuit_length,
    circuit_seconds,
    executions,
    gate_seconds,
    job_seconds,
    repetition_delay,
)
from backends.runtime.types import RuntimeOptions
from circuits.compile import compile_ansatz
from circuits.errors import QrunError, UsageError
from circuits.qgan import generator
from circuits.types import CompiledCircuit

SHOTS = st.integers(1, 100_000)
CIRCUITS = st.integers(0, 10_000)
OPTIONS = st.builds(
    RuntimeOptions,
    shots=SHOTS,
    twirling=st.sampled_from(["off", "gates", "measure", "all"]),
    resilience_level=st.sampled_from([None, 0, 1, 2]),
)


def compiled_for(name: str) -> CompiledCircuit:
    return compile_ansatz(generator(4, 2), get_target(name).backend, seed=0)


TORINO, TARGET = compiled_for("fake_torino"), get_target("fake_torino")


@pytest.mark.parametrize("name", ["fake_torino", "fake_kyiv", "fake_manila", "fake_kolkata"])
def test_the_length_is_that_of_qiskits_own_scheduler(name: str) -> None:
    target, compiled = get_target(name), compiled_for(name)
    part = target.cut(compiled.physical_qubits).target
    measured = compiled.circuit.assign_parameters([0.1 * k for k in range(len(compiled.circuit.parameters))])
    measured.measure_all()
    scheduler = generate_preset_pass_manager(target=part, optimization_level=0, scheduling_method="alap")
    gates_and_readout = scheduler.run(measured).estimate_duration(part)
    resets = max(part["reset"][(wire,)].duration for wire in range(part.num_qubits))
    assert circuit_length(compiled, target) == pytest.approx(resets + gates_and_readout, rel=1e-9)


def test_the_documented_formula() -> None:
    options = RuntimeOptions(shots=1024)
    shot = 250e-6 + circuit_length(TORINO, TARGET)
    assert circuit_seconds(TORINO, TARGET, options) == pytest.approx(shot)
    assert job_seconds(TORINO, TARGET, options, 96) == pytest.approx(2.0 + 96 * 1024 * shot)


def test_ibms_short_form_is_near() -> None:
    """2 + 0.00035 s x executions is for a circuit of 100 us; ours are of 3 to 17 us."""
    exact, quick = job_seconds(TORINO, TARGET, RuntimeOptions(shots=1000), 100), 2 + 0.00035 * 100_000
    assert 0.7 * quick < exact < quick


def test_the_repetition_delay_is_the_devices_own() -> None:
    assert repetition_delay(get_target("fake_kolkata")) == pytest.approx(100e-6)
    assert repetition_delay(get_target("fake_washington")) == pytest.approx(150e-6)
    assert repetition_delay(get_target("fake_melbourne")) is None
    fixed_rate = get_target("fake_johannesburg")  # no delay, and one repetition time of 1 ms
    options = RuntimeOptions(shots=1)
    assert circuit_seconds(compiled_for("fake_johannesburg"), fixed_rate, options) == pytest.approx(1e-3)
    wrong_unit = compiled_for("fake_london")  # its repetition time is 1 ns: 250 us as IBM documents
    length = circuit_length(wrong_unit, get_target("fake_london"))
    assert circuit_seconds(wrong_unit, get_target("fake_london"), options) == pytest.approx(250e-6 + length)


@pytest.mark.parametrize("name", ["fake_kolkata", "fake_torino", "fake_johannesburg"])
def test_a_snapshot_file_costs_what_its_device_costs(name: str, tmp_path) -> None:
    file = tmp_path / "device.json"
    save_target(name, file)
    compiled, options = compiled_for(name), RuntimeOptions()
    told = job_seconds(compiled, get_target(str(file)), options, 7)
    assert told == pytest.approx(job_seconds(compiled, get_target(name), options, 7))


@settings(max_examples=40, deadline=None)
@given(OPTIONS, CIRCUITS, CIRCUITS)
def test_a_job_is_its_overhead_and_the_sum_of_its_circuits(options: RuntimeOptions, a: int, b: int) -> None:
    def beyond(circuits: int) -> float:  # what is paid once is the cost of a job with one circuit, less the circuit
        return job_seconds(TORINO, TARGET, options, circuits) if circuits else once

    one = executions(options) * circuit_seconds(TORINO, TARGET, options)
    once = job_seconds(TORINO, TARGET, options, 1) - one
    assert once >= OVERHEAD - 1e-9
    assert beyond(a) + beyond(b) - once == pytest.approx(beyond(a + b), rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(OPTIONS, SHOTS, CIRCUITS)
def test_more_shots_or_circuits_never_cost_less(options: RuntimeOptions, shots: int, circuits: int) -> None:
    from dataclasses import replace

    few, many = sorted((options.shots, shots))
    cheap = job_seconds(TORINO, TARGET, replace(options, shots=few), circuits)
    assert job_seconds(TORINO, TARGET, replace(options, shots=many), circuits) >= cheap * (1 - 1e-12)
    assert job_seconds(TORINO, TARGET, replace(options, shots=few), circuits + 1) > cheap


@settings(max_examples=60, deadline=None)
@given(SHOTS)
def test_twirling_runs_whole_randomisations_as_the_runtime_does(shots: int) -> None:
    from qiskit_ibm_runtime.executor.calculate_twirling_shots import calculate_twirling_shots

    assert executions(RuntimeOptions(shots=shots)) == shots
    assert executions(RuntimeOptions(shots=shots, twirling="gates")) == math.prod(
        calculate_twirling_shots(shots, "auto", "auto")
    )


def test_what_the_levels_add_is_what_the_runtime_builds() -> None:
    """The quantum program that the Runtime's own Estimator prepares: items, their circuits and shots."""
    from qiskit.quantum_info import SparsePauliOp
    from qiskit_ibm_runtime.executor_estimator.prepare import prepare
    from qiskit_ibm_runtime.options_models import EstimatorOptions

    circuit = QuantumCircuit(2)
    circuit.sx(0)
    circuit.cz(0, 1)
    for level in (0, 1, 2):
        options = RuntimeOptions(shots=1024, resilience_level=level)
        theirs = EstimatorOptions(resilience_level=level, default_shots=1024)
        program, _ = prepare([(circuit, SparsePauliOp("ZZ"))], theirs)
        run = program.shots * sum(item.size() for item in program.items)
        calibration = 1024 if level else 0
        assert run == executions(options) + calibration, level


def test_folding_lengthens_two_qubit_gates_alone() -> None:
    lengths = [circuit_length(TORINO, TARGET, stretch=factor) for factor in (1, 3, 5)]
    assert lengths[0] < lengths[1] < lengths[2]
    assert lengths[2] - lengths[1] == pytest.approx(lengths[1] - lengths[0])
    plain = RuntimeOptions(resilience_level=1)
    assert circuit_seconds(TORINO, TARGET, RuntimeOptions(resilience_level=2)) > circuit_seconds(TORINO, TARGET, plain)


def test_what_takes_no_time() -> None:
    qubit = TORINO.physical_qubits[0]
    rz = next(i.operation for i in TORINO.circuit.data if i.operation.name == "rz")
    assert gate_seconds(rz, (qubit,), TARGET) == 0.0
    assert job_seconds(TORINO, TARGET, RuntimeOptions(), 0) == 0.0


def test_what_cannot_be_is_refused() -> None:
    ideal = get_target("ideal")
    with pytest.raises(QrunError, match="no device"):
        job_seconds(compile_ansatz(generator(2, 1), None, seed=0), ideal, RuntimeOptions(), 1)
    with pytest.raises(QrunError, match="no gate"):
        job_seconds(compiled_for("fake_manila"), TARGET, RuntimeOptions(), 1)
    with pytest.raises(UsageError, match="shots"):
        job_seconds(TORINO, TARGET, RuntimeOptions(shots=0), 1)
    for circuits, bases in ((-1, 1), (1, 0)):
        with pytest.raises(UsageError, match="cannot be"):
            job_seconds(TORINO, TARGET, RuntimeOptions(), circuits, bases=bases)
