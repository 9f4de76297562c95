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
from backends.runtime.standin import StandIn, lone
from backends.runtime.standin.encoding import decode
from backends.runtime.standin.simulate import cut, item_seed, split


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
    assert len({item_seed(7, index) for index in range(100)}) == 100


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


def test_the_digest_is_of_what_defines_the_counts(sent: Any) -> None:
    from qiskit_ibm_runtime.executor_sampler.prepare import prepare
    from qiskit_ibm_runtime.options_models import SamplerOptions
    from qiskit_ibm_runtime.quantum_program.params_converters import QUANTUM_PROGRAM_PARAMS_CONVERTERS

    encode = QUANTUM_PROGRAM_PARAMS_CONVERTERS["v2.0"].encoder

    def of(circuit: QuantumCircuit, values: Any, shots: int, twirled: bool) -> bytes:
        options = SamplerOptions()
        options.twirling.enable_gates = twirled
        return decode(encode(*prepare([(circuit, values)], options, shots)).model_dump(mode="json")).digest

    base = (sent.wide, sent.values, 64, False)
    other = sent.wide.copy()
    other.barrier(0)
    digests = {
        of(*base),
        of(sent.wide, sent.values + 1e-9, 64, False),
        of(sent.wide, sent.values, 65, False),
        of(sent.wide, sent.values, 64, True),
        of(sent.wide, sent.values, 128, True),
        of(other, sent.values, 64, False),
    }
    assert len(digests) == 6
    assert of(*base) in digests


def test_cut_keeps_what_is_read() -> None:
    wide = QuantumCircuit(9, 2)
    wide.barrier()
    wide.sx(7)
    wide.ecr(7, 3)
    wide.barrier(3, 8)
    wide.barrier(0, 1)
    wide.delay(100, 5)
    wide.delay(50, 3)
    wide.x(1)
    wide.measure([3, 7], [1, 0])
    assert split(wide) == ((3, 7), ())
    narrow = cut(wide, (3, 7))
    where = [tuple(narrow.find_bit(q).index for q in entry.qubits) for entry in narrow.data]
    names = [entry.operation.name for entry in narrow.data]
    assert names == ["barrier", "sx", "ecr", "barrier", "delay", "measure", "measure"]
    assert where == [(0, 1), (1,), (1, 0), (0,), (0,), (0,), (1,)]
    assert [tuple(narrow.find_bit(c).index for c in entry.clbits) for entry in narrow.data[-2:]] == [(1,), (0,)]


def test_split_follows_lone_qubits_one_by_one_where_there_are_many() -> None:
    wide = QuantumCircuit(20, 20)
    wide.cz(3, 4)
    wide.cz(4, 9)
    wide.cz(0, 1)  # read by nobody
    wide.rx(0.3, 12)  # of a gate that only Aer follows
    wide.sx(13)
    for qubit in range(3, 20):
        wide.measure(qubit, qubit)
    joined, alone = split(wide)
    assert joined == (3, 4, 9, 12)
    assert alone == (5, 6, 7, 8, 10, 11, 13, 14, 15, 16, 17, 18, 19)


def test_lone_qubits_are_those_of_aer() -> None:
    """Probabilities of one qubit with a delay and a free angle, against Aer's density matrix and readout error."""
    from qiskit_aer import AerSimulator

    angle, values = Parameter("a"), np.linspace(-3.0, 3.0, 7, dtype=np.float64)[:, None]
    circuit = QuantumCircuit(3, 1)
    for gate in ("sx", "x", "id"):
        circuit.rz(2 * angle + 0.1, 1)
        getattr(circuit, gate)(1)
        circuit.rz(angle, 1)
        circuit.delay(200_000, 1, unit="dt")
        circuit.sx(1)
    circuit.measure(1, 0)
    suffered = lone.errors("fake_kyiv", 17)
    got = lone.probabilities(circuit, 1, values, suffered)

    narrow = cut(circuit, (1,)).remove_final_measurements(inplace=False)
    narrow.save_density_matrix()
    device = get_target("fake_kyiv").cut((17,))
    simulator = AerSimulator.from_backend(device, method="density_matrix")
    for row, value in zip(got, values, strict=True):
        rho = simulator.run(narrow.assign_parameters({angle: value[0]})).result().data()["density_matrix"].data
        one = float(rho[1, 1].real)
        assert row == pytest.approx((1 - one) * suffered.read[0] + one * suffered.read[1], abs=1e-9)
    assert suffered.read[0] > 0


def test_a_whole_device_is_read(service: Any) -> None:
    """Every qubit of 127, two of them joined: the shares of ones are those of the errors."""
    circuit = QuantumCircuit(127, 127)
    circuit.x(range(0, 127, 2))
    pair = min(get_target("fake_kyiv").backend.target["ecr"])  # type: ignore[union-attr]
    circuit.ecr(*pair)
    circuit.measure(range(127), range(127))
    begun = time.monotonic()
    bits = sampler(service.backend("ibm_kyiv")).run([circuit], shots=2000).result()[0].data.c
    assert time.monotonic() - begun < 20
    ones = np.array([bits.slice_bits([q]).bitcount().mean() for q in range(127)])
    for qubit in set(range(127)) - set(pair):
        p01, p10 = get_target("fake_kyiv").readout_errors(qubit)
        expected, spread = (p01 if qubit % 2 else 1 - p10), 0.02 + 5 * 0.5 / np.sqrt(2000)
        assert abs(ones[qubit] - expected) < spread, (qubit, ones[qubit], expected)


@pytest.mark.parametrize("sequence", ["XX", "XY4"])
def test_dynamical_decoupling(service: Any, sent: Any, sequence: str) -> None:
    remote = sampler(service.backend("ibm_kyiv"))
    remote.options.dynamical_decoupling.enable = True
    remote.options.dynamical_decoupling.sequence_type = sequence
    bits = remote.run([(sent.wide, sent.values)], shots=64).result()[0].data.meas
    assert bits.shape == (5,)
    assert 0 < bits.bitcount().mean() < 4
