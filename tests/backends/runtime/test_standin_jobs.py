"""Jobs on the stand-in, sent by the real client."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.quantum_info import SparsePauliOp
from qiskit_ibm_runtime import Batch, Session
from qiskit_ibm_runtime.exceptions import (
    IBMRuntimeError,
    RuntimeInvalidStateError,
    RuntimeJobFailureError,
    RuntimeJobMaxTimeoutError,
    RuntimeJobNotFound,
)
from qiskit_ibm_runtime.executor_estimator import Estimator
from qiskit_ibm_runtime.executor_sampler import Sampler

from backends.catalog import get_target
from backends.runtime.standin import StandIn


def sampler(mode: Any, *tags: str, seconds: int | None = None) -> Any:
    made = Sampler(mode=mode)
    made.options.environment.job_tags = list(tags)
    made.options.max_execution_time = seconds
    return made


@pytest.mark.parametrize("twirled", [False, True])
@pytest.mark.parametrize("mode", ["job", "batch", "session"])
def test_counts_are_those_of_the_local_mode(
    service: Any, runtime_standin: StandIn, sent: Any, mode: str, twirled: bool
) -> None:
    """Shot by shot: what comes back over HTTP, and the Runtime's local testing mode on the cut-down device, given the
    same circuit on the qubits in use, the same parameters, and the seed that the stand-in took from the job."""
    backend = service.backend("ibm_kyiv")
    place = {"job": lambda: backend, "batch": lambda: Batch(backend), "session": lambda: Session(backend)}[mode]()
    remote = sampler(place, "one")
    remote.options.twirling.enable_gates = twirled
    job = remote.run([(sent.wide, sent.values)], shots=64)
    bits = job.result()[0].data.meas
    assert (bits.shape, bits.num_shots, bits.num_bits) == ((5,), 64, 4)

    (accepted,) = runtime_standin.accepted()
    local = Sampler(mode=get_target("fake_kyiv").cut(sent.compiled.physical_qubits))
    local.options.simulator.seed_simulator = accepted.seed
    local.options.twirling.enable_gates = twirled
    expected = local.run([(sent.narrow, sent.values)], shots=64).result()[0].data.meas
    assert np.array_equal(bits.array, expected.array)
    assert 0 < bits.bitcount().mean() < 4
    assert (accepted.job_id, accepted.tags, accepted.session_id is None) == (job.job_id(), ("one",), mode == "job")


def test_the_same_job_gives_the_same_counts_and_another_does_not(service: Any, sent: Any) -> None:
    def counts(name: str, values: Any) -> Any:
        # A new parameter object of the same name, as in another process: its UUID is not the same.
        angle = Parameter("a")
        circuit = QuantumCircuit(127, 1, name=name)
        circuit.rz(angle, 60)
        circuit.sx(60)
        circuit.rz(angle, 60)
        circuit.sx(60)
        circuit.measure(60, 0)
        job = sampler(service.backend("ibm_kyiv")).run([(circuit, values)], shots=256)
        return job.result()[0].data.c.array

    first = counts("one", [[0.4]])
    assert np.array_equal(first, counts("another", [[0.4]]))
    assert not np.array_equal(first, counts("one", [[0.41]]))


def test_two_pubs_do_not_share_their_shots(service: Any, sent: Any) -> None:
    pub = (sent.wide, sent.values[0])
    result = sampler(service.backend("ibm_kyiv")).run([pub, pub], shots=256).result()
    assert not np.array_equal(result[0].data.meas.array, result[1].data.meas.array)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_estimator(service: Any, sent: Any, level: int) -> None:
    """Against the local testing mode on the cut-down device: the same values within the standard errors of both."""
    target = get_target("fake_kyiv")
    paulis = [("Z", [0], 1.0), ("ZZ", [0, 2], 0.5)]
    plain = SparsePauliOp.from_sparse_list(paulis, num_qubits=4)
    wires = [sent.compiled.physical_qubits[wire] for wire in sent.compiled.final_layout]
    wide = sent.wide.remove_final_measurements(inplace=False)
    remote = Estimator(mode=service.backend("ibm_kyiv"))
    remote.options.resilience_level = level
    remote.options.default_shots = 2000
    job = remote.run([(wide, plain.apply_layout(wires, 127), sent.values)])
    data = job.result()[0].data
    assert data.evs.shape == data.stds.shape == (5,)

    local = Estimator(mode=target.cut(sent.compiled.physical_qubits))
    local.options.resilience_level = level
    local.options.default_shots = 2000
    local.options.simulator.seed_simulator = 1
    inner = plain.apply_layout(list(sent.compiled.final_layout), sent.compiled.circuit.num_qubits)
    expected = local.run([(sent.compiled.circuit, inner, sent.values)]).result()[0].data
    spread = np.hypot(data.stds, expected.stds)
    assert np.all(np.abs(data.evs - expected.evs) < 5 * spread), (data.evs, expected.evs, spread)
    assert np.all(spread > 0)


def test_usage_metrics_tags_logs(service: Any, runtime_standin: StandIn, sent: Any) -> None:
    job = sampler(service.backend("ibm_kyiv"), "run", "step").run([(sent.wide, sent.values)], shots=100)
    job.result()
    seconds = 2.0 + 5 * 100 * 250e-6
    assert job.usage() == pytest.approx(seconds)
    assert job.usage_estimation["quantum_seconds"] == pytest.approx(seconds)
    assert job.metrics()["usage"]["status"] == "final"
    assert service.usage()["usage_consumed_seconds"] == pytest.approx(seconds) == runtime_standin.spent()
    assert "Completed" in job.logs()
    assert set(job.update_tags(["run", "other"])) == {"run", "other"}
    assert [found.job_id() for found in service.jobs(job_tags=["other"])] == [job.job_id()]
    assert service.job(job.job_id()).tags == job.tags


def test_usage_may_come_later(service: Any, runtime_standin: StandIn, sent: Any) -> None:
    runtime_standin.settings.usage_late = 3600.0
    job = sampler(service.backend("ibm_kyiv")).run([(sent.wide, sent.values[0])], shots=10)
    job.result()
    assert (job.metrics()["usage"]["status"], job.usage()) == ("pending", 0)
    runtime_standin.settings.usage_late = 0.0
    assert job.usage() > 2.0


def test_a_job_is_fetched_again_by_id(service: Any, sent: Any) -> None:
    job = sampler(service.backend("ibm_kyiv")).run([(sent.wide, sent.values)], shots=50)
    again = service.job(job.job_id())
    assert np.array_equal(again.result()[0].data.meas.array, job.result()[0].data.meas.array)
    assert (again.status(), again.primitive_id, again.backend().name) == ("DONE", "executor", "ibm_kyiv")
    with pytest.raises(RuntimeJobNotFound):
        service.job("nothing")
    service.delete_job(job.job_id())
    with pytest.raises(RuntimeJobNotFound):
        service.job(job.job_id())


def test_lists(service: Any, runtime_standin: StandIn, sent: Any) -> None:
    runtime_standin.hold()
    backend, torino = service.backend("ibm_kyiv"), service.backend("ibm_torino")
    batch = Batch(backend)
    pub = (sent.wide, sent.values[0])
    ids = [sampler(backend if n % 2 else batch, "all", f"n{n}").run([pub], shots=10).job_id() for n in range(5)]
    assert [job.job_id() for job in service.jobs(limit=None)] == ids[::-1]
    assert [job.job_id() for job in service.jobs(limit=2, skip=1)] == ids[3:1:-1]
    assert [job.job_id() for job in service.jobs(descending=False)] == ids
    assert [job.job_id() for job in service.jobs(job_tags=["all", "n3"])] == [ids[3]]
    assert service.jobs(job_tags=["n3", "n4"]) == []
    assert [job.job_id() for job in service.jobs(session_id=batch.session_id)] == ids[4::-2]
    assert len(service.jobs(pending=True)) == 5
    assert service.jobs(pending=False) == service.jobs(backend_name=torino.name) == service.jobs(program_id="x") == []
    runtime_standin.release()
    service.job(ids[-1]).result()
    service.job(ids[0]).result()
    assert service.jobs(pending=True) == []


def test_cancel(service: Any, runtime_standin: StandIn, sent: Any) -> None:
    runtime_standin.hold()
    job = sampler(service.backend("ibm_kyiv")).run([(sent.wide, sent.values[0])], shots=10)
    assert job.status() == "QUEUED"
    job.cancel()
    assert service.job(job.job_id()).status() == "CANCELLED"
    with pytest.raises(RuntimeInvalidStateError, match="cancelled"):
        service.job(job.job_id()).cancel()
    with pytest.raises(RuntimeInvalidStateError, match="was cancelled"):
        service.job(job.job_id()).result()
    assert job.usage() == 0
    runtime_standin.settings.running = 30.0
    runtime_standin.release()
    running = sampler(service.backend("ibm_kyiv")).run([(sent.wide, sent.values[0])], shots=10)
    while running.status() == "QUEUED":
        time.sleep(0.02)
    assert running.status() == "RUNNING"
    running.cancel()
    begun = time.monotonic()
    while runtime_standin.accepted()[-1].charged == 0 and time.monotonic() - begun < 10:
        time.sleep(0.02)
    assert time.monotonic() - begun < 5  # it leaves the device at once
    assert service.job(running.job_id()).status() == "CANCELLED"


def test_a_job_waits_its_time(service: Any, runtime_standin: StandIn, sent: Any) -> None:
    runtime_standin.settings.queue = 0.4
    job = sampler(service.backend("ibm_kyiv")).run([(sent.wide, sent.values[0])], shots=10)
    assert job.status() == "QUEUED"
    begun = time.monotonic()
    job.wait_for_final_state(poll_interval=0.1)
    assert time.monotonic() - begun > 0.2
    assert job.done()


def test_max_execution_time(service: Any, runtime_standin: StandIn, sent: Any) -> None:
    job = sampler(service.backend("ibm_kyiv"), seconds=3).run([(sent.wide, sent.values)], shots=10_000)
    assert job.usage_estimation["quantum_seconds"] == 2 + 5 * 10_000 * 250e-6
    with pytest.raises(RuntimeJobMaxTimeoutError, match="1305"):
        job.result()
    assert job.usage() == 3
    assert sampler(service.backend("ibm_kyiv"), seconds=3).run([(sent.wide, sent.values)], shots=10).result()
    assert [entry.cost for entry in runtime_standin.accepted()] == [3, 3]


@pytest.mark.parametrize("gate", ["h", "ecr"])
def test_a_circuit_for_another_device_fails(service: Any, gate: str) -> None:
    circuit = QuantumCircuit(127, 1)
    if gate == "h":
        circuit.h(0)
    else:
        circuit.ecr(0, 100)
    circuit.measure(0, 0)
    job = sampler(service.backend("ibm_kyiv")).run([circuit], shots=10)
    with pytest.raises(RuntimeJobFailureError, match=f"instruction {gate} on qubits"):
        job.result()
    assert job.usage() == 0


def test_more_than_a_job_may_hold(service: Any, runtime_standin: StandIn, sent: Any) -> None:
    backend = service.backend("ibm_kyiv")
    with pytest.raises(IBMRuntimeError, match="10000005 executions in one job; at most 10000000"):
        sampler(backend).run([(sent.wide, sent.values)], shots=2_000_001)
    runtime_standin.settings.circuits = 4
    with pytest.raises(IBMRuntimeError, match="5 circuits in one job; at most 4"):
        sampler(backend).run([(sent.wide, sent.values)], shots=10)
    assert not runtime_standin.accepted()


def test_a_spent_allowance_lets_jobs_wait(service: Any, runtime_standin: StandIn, sent: Any) -> None:
    runtime_standin.settings.plan, runtime_standin.settings.spent = "open", 600.0
    with pytest.warns(UserWarning, match="met its usage limit"):
        job = sampler(service.backend("ibm_kyiv")).run([(sent.wide, sent.values[0])], shots=10)
    time.sleep(0.2)
    assert job.status() == "QUEUED"
    runtime_standin.settings.spent = 0.0
    runtime_standin.release()
    assert job.result()
