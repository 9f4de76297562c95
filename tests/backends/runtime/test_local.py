"""The local testing mode against the exact values of the twin, and the same run read again from its kept results."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.quantum_info import SparsePauliOp

from backends.catalog import get_target
from backends.engines import make_executor
from backends.observables import single_z
from backends.protocol import Executor, Request
from backends.runtime.executor import RuntimeExecutor
from backends.runtime.labels import labelled
from backends.runtime.ledger import Job, MemoryLedger
from backends.runtime.local import LocalClient
from backends.runtime.replay import ReplayExecutor
from backends.runtime.types import Access, JobLimits, RuntimeContext, RuntimeOptions
from backends.twin.executor import TwinExecutor
from circuits.compile import compile_ansatz
from circuits.errors import QrunError, UsageError
from circuits.qgan import generator
from circuits.types import Ansatz, CompiledCircuit

TARGET = get_target("fake_manila")


def compiled(qubits: int = 3, seed: int = 1) -> CompiledCircuit:
    return compile_ansatz(generator(qubits, reps=1), TARGET.backend, seed=seed)


COMPILED = compiled()


def asked(batch: int = 4, seed: int = 0, observables: tuple[SparsePauliOp, ...] | None = None) -> Request:
    rng = np.random.default_rng(seed)
    weights = rng.uniform(-2, 2, len(COMPILED.weights))
    wanted = observables or (*single_z(3), SparsePauliOp("ZZI"), SparsePauliOp(["ZIZ", "IIZ", "III"], [0.5, -1, 0.25]))
    return Request(COMPILED, wanted, rng.uniform(-1, 1, (batch, 3)), weights)


def made(options: RuntimeOptions, ledger: MemoryLedger | None = None, **more: object) -> RuntimeExecutor:
    return RuntimeExecutor(TARGET, RuntimeContext(options), ledger, **more)  # type: ignore[arg-type]


def exact(request: Request) -> np.ndarray:
    return TwinExecutor(TARGET, dtype=torch.float64).run([request])[0].values


@pytest.mark.parametrize("twirling", ["off", "gates", "measure", "all"])
@pytest.mark.parametrize("level", [None, 0])
def test_values_are_the_exact_ones_of_the_twin(level: int | None, twirling: str) -> None:
    """Twirled readout errors are those of the mean of both: only where nothing is read twirled they are the twin's."""
    request = asked()
    options = RuntimeOptions(shots=4096, resilience_level=level, twirling=twirling)  # type: ignore[arg-type]
    result = made(options).run([request], seed=3)[0]
    if twirling in ("off", "gates") and (level is None or twirling == "off"):
        # What a constant term adds has no error.
        assert (np.abs(result.values - exact(request)) <= 5 * result.standard_errors + 1e-12).all()
    else:
        # Twirled, asymmetric readout errors are averaged, and standard errors are those of the randomisations.
        assert np.abs(result.values - exact(request)).max() < 0.1
    assert result.values.shape == (4, 5)
    assert (result.standard_errors > 0).all()


def test_readout_mitigation_removes_the_readout_error() -> None:
    request = asked()
    true = TwinExecutor(TARGET, dtype=torch.float64, readout_error=False).run([request])[0].values
    result = made(RuntimeOptions(shots=8192, resilience_level=1)).run([request], seed=3)[0]
    assert np.abs(result.values - true).max() < 0.05
    assert np.abs(exact(request) - true).max() > 0.05


def test_observables_with_x_and_y_take_a_resilience_level() -> None:
    request = asked(observables=(SparsePauliOp("XIY"), SparsePauliOp("ZZZ")))
    with pytest.raises(UsageError, match="resilience level"):
        made(RuntimeOptions()).run([request])
    result = made(RuntimeOptions(shots=4096, resilience_level=0)).run([request], seed=1)[0]
    expected = TwinExecutor(TARGET, dtype=torch.float64, readout_error=True).run([request])[0].values
    assert (np.abs(result.values - expected) <= 5 * result.standard_errors).all()


def test_the_density_matrix_has_the_statistics_of_what_the_runtime_picks(monkeypatch: pytest.MonkeyPatch) -> None:
    request = asked(batch=8)
    options = RuntimeOptions(shots=8192)
    ours = made(options).run([request], seed=1)[0]
    monkeypatch.setattr("backends.runtime.local._DENSITY_MATRIX_WIRES", 0)
    theirs = made(options).run([request], seed=2)[0]
    spread = np.hypot(ours.standard_errors, theirs.standard_errors)
    assert (np.abs(ours.values - theirs.values) <= 5 * spread).all()
    assert not np.array_equal(ours.values, theirs.values)


def test_same_seed_same_bytes() -> None:
    ledgers = [MemoryLedger() for _ in range(3)]
    results = [
        made(RuntimeOptions(shots=256), ledger).run([asked()], seed=seed)[0]
        for ledger, seed in zip(ledgers, (1, 1, 2), strict=True)
    ]
    kept = [ledger.result(ledger.jobs()[0]) for ledger in ledgers]
    assert kept[0] == kept[1] != kept[2]
    np.testing.assert_array_equal(results[0].values, results[1].values)
    np.testing.assert_array_equal(results[0].standard_errors, results[1].standard_errors)
    assert not np.array_equal(results[0].values, results[2].values)


@pytest.mark.parametrize("limits", [JobLimits(), JobLimits(circuits=1)])
@pytest.mark.parametrize("level", [None, 0])
def test_samples_are_independent(limits: JobLimits, level: int | None) -> None:
    """Rows of a PUB, PUBs of a job and jobs of a call, with the same circuit and parameters."""
    request = asked(batch=1)
    rows = 40 if limits == JobLimits() else 20  # where each is a job of its own
    same = replace(request, inputs=np.repeat(request.inputs, rows, axis=0))
    other = replace(request, circuit=replace(COMPILED, circuit=extended(COMPILED.circuit)))
    options = RuntimeOptions(shots=1024, resilience_level=level)
    first, second = made(options, limits=limits).run([same, other], seed=1)
    ratio = first.values.std(axis=0, ddof=1) / first.standard_errors.mean(axis=0)
    assert (ratio > 0.6).all()
    assert (ratio < 1.6).all()
    assert not np.array_equal(first.values[0], second.values[0])


def extended(circuit: QuantumCircuit) -> QuantumCircuit:
    """The same, with a gate more that does nothing."""
    longer = circuit.copy()
    longer.rz(0.0, 0)
    return longer


def test_seeds_of_any_size() -> None:
    assert made(RuntimeOptions(shots=16)).run([asked()], seed=2**62 + 1)[0].values.shape == (4, 5)


def test_requests_share_a_job_and_other_qubits_have_their_own() -> None:
    other = compile_ansatz(generator(2, reps=1), TARGET.backend, seed=9)
    assert other.physical_qubits != COMPILED.physical_qubits
    second = Request(other, single_z(2), np.ones((2, 2)), np.ones(len(other.weights)))
    ledger = MemoryLedger()
    requests = [asked(), second, asked(batch=0), asked(batch=1, seed=5)]
    results = made(RuntimeOptions(shots=4096), ledger).run(requests, seed=1)
    assert [job.circuits for job in ledger.jobs()] == [5, 2]
    assert [len(result.metadata["job_ids"]) for result in results] == [1, 1, 0, 1]
    for request, result in zip(requests, results, strict=True):
        true = (
            TwinExecutor(TARGET, dtype=torch.float64).run([request])[0].values if len(request.inputs) else result.values
        )
        assert (np.abs(result.values - true) <= 5 * result.standard_errors + 1e-12).all()


@pytest.mark.parametrize("level", [None, 0])
def test_a_job_is_split_by_limits_and_joined(level: int | None) -> None:
    request, ledger = asked(batch=7), MemoryLedger()
    options = RuntimeOptions(shots=2048, resilience_level=level)
    result = made(options, ledger, limits=JobLimits(circuits=2)).run([request, asked(batch=1)], seed=1)[0]
    assert [job.circuits for job in ledger.jobs()] == [2, 2, 2, 2]
    assert (np.abs(result.values - exact(request)) <= 5 * result.standard_errors + 1e-12).all()
    by_shots = MemoryLedger()
    made(options, by_shots, limits=JobLimits(executions=3 * 2048)).run([request], seed=1)
    assert [job.circuits for job in by_shots.jobs()] == [2, 2, 3]
    with pytest.raises(UsageError, match="2048 shots"):
        made(options, limits=JobLimits(executions=2047)).run([request])


@pytest.mark.parametrize("level", [None, 0])
def test_a_circuit_without_parameters(level: int | None) -> None:
    circuit = QuantumCircuit(2)
    circuit.sx(0)
    circuit.x(1)
    fixed = CompiledCircuit(Ansatz("fixed", circuit, (), ()), circuit, (), (), (0, 1), (0, 1), (0, 1), 1, 0, {})
    request = Request(fixed, single_z(2), np.zeros((3, 0)), np.zeros(0))
    result = made(RuntimeOptions(shots=4096, resilience_level=level)).run([request], seed=1)[0]
    assert result.values.shape == (3, 2)
    assert np.abs(result.values - [0.0, -1.0]).max() < 0.12
    assert len(set(result.values[:, 0])) == 3


def test_a_parameter_that_the_compiler_removed() -> None:
    kept, gone = Parameter("kept"), Parameter("gone")
    circuit = QuantumCircuit(1)
    circuit.sx(0)
    circuit.rz(kept, 0)
    circuit.sx(0)
    one = CompiledCircuit(
        Ansatz("one", circuit, (gone, kept), ()), circuit, (gone, kept), (), (0,), (0,), (0,), 3, 0, {}
    )
    request = Request(one, single_z(1), np.array([[9.0, 0.0], [9.0, np.pi]]), np.zeros(0))
    values = made(RuntimeOptions(shots=4096)).run([request], seed=1)[0].values
    assert values[0, 0] < -0.9
    assert values[1, 0] > 0.9


def test_the_mode_and_what_is_ignored_are_said() -> None:
    said: list[tuple[str, str]] = []
    context = RuntimeContext(
        RuntimeOptions(shots=16, dynamical_decoupling="XY4"),
        Access(mode="batch", max_qpu_seconds=1.0, detach=True),
        tell=lambda title, text: said.append((title, text)),
    )
    executor = RuntimeExecutor(TARGET, context)
    with executor:
        result = executor.run([asked()], seed=1)[0]
        executor.run([asked()], seed=2)
    about = result.metadata
    assert about["mode"] == "batch"
    assert about["local"] is True
    assert about["qpu_seconds"] == 0.0
    assert about["dynamical_decoupling"] == "XY4"
    assert any("dynamical_decoupling" in entry for entry in about["ignored"])
    assert len(said) == 1
    assert "max_execution_time" in said[0][1]


class Killed(LocalClient):
    """Dies before it runs a job."""

    def submit(self, part: object, place: object) -> str:
        raise KeyboardInterrupt


def test_a_local_job_that_a_kill_cut_short_is_run_again() -> None:
    ledger = MemoryLedger()
    with labelled("train"), pytest.raises(KeyboardInterrupt):
        made(RuntimeOptions(shots=64), ledger, client=Killed(TARGET)).run([asked()], seed=1)
    assert [job.state for job in ledger.jobs()] == ["sending"]
    with labelled("train"):
        result = made(RuntimeOptions(shots=64), ledger).run([asked()], seed=1)[0]
    assert [job.state for job in ledger.jobs()] == ["done"]
    with labelled("train"):
        again = made(RuntimeOptions(shots=64), ledger, client=Killed(TARGET)).run([asked()], seed=1)[0]
    np.testing.assert_array_equal(result.values, again.values)


# Replay


def kept(ledger: MemoryLedger) -> dict[str, Job]:
    return {job.request: job for job in ledger.jobs() if job.state == "done"}


@pytest.mark.parametrize("limits", [JobLimits(), JobLimits(circuits=2)])
@pytest.mark.parametrize("level", [None, 1])
def test_a_replay_gives_the_same_numbers_and_sends_nothing(limits: JobLimits, level: int | None) -> None:
    ledger, options = MemoryLedger(), RuntimeOptions(shots=128, resilience_level=level)
    requests = [asked(batch=5), asked(batch=2, seed=3)]
    results = made(options, ledger, limits=limits).run(requests, seed=4)
    jobs = kept(ledger)
    replay = ReplayExecutor(TARGET, options, lambda digest: ledger.result(jobs[digest]) if digest in jobs else None)
    assert isinstance(replay, Executor)
    with replay:
        again = replay.run(requests, seed=4)
        for first, second in zip(results, again, strict=True):
            np.testing.assert_array_equal(first.values, second.values)
            np.testing.assert_array_equal(first.standard_errors, second.standard_errors)
        with pytest.raises(QrunError, match="no result is kept"):
            replay.run(requests, seed=5)


def test_a_replay_refuses_another_jobs_result() -> None:
    ledger, options = MemoryLedger(), RuntimeOptions(shots=128)
    made(options, ledger).run([asked(batch=5)], seed=4)
    (job,) = ledger.jobs()
    replay = ReplayExecutor(TARGET, options, lambda digest: ledger.result(job))
    with pytest.raises(QrunError, match="none of what was asked"):
        replay.run([asked(batch=4)], seed=4)


# The engine by name


def test_make_executor() -> None:
    context = RuntimeContext(RuntimeOptions(shots=7))
    ledger = MemoryLedger()
    executor = make_executor("runtime", TARGET, runtime=context, ledger=ledger)
    assert isinstance(executor, RuntimeExecutor)
    assert isinstance(executor, Executor)
    assert not executor.differentiable
    executor.run([asked()], seed=1)
    assert ledger.jobs()[0].shots == 7
    assert make_executor("runtime", TARGET).shots == 1024
    assert make_executor("runtime", TARGET, shots=5, runtime=context).shots == 5


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"idle_noise": True}, "idle noise"),
        ({"readout_error": False}, "readout"),
        ({"shots": 0}, "shots"),
        ({"shots": True}, "shots"),
    ],
)
def test_what_the_engine_does_not_take(options: dict[str, object], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        make_executor("runtime", TARGET, **options)


def test_ideal_is_refused() -> None:
    with pytest.raises(UsageError, match="ideal"):
        make_executor("runtime", get_target("ideal"))
