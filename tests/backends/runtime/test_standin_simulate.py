"""What the stand-in runs: the part of a circuit that matters, qubits one by one, and what counts follow from."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter

from backends.catalog import get_target
from backends.runtime.standin import lone
from backends.runtime.standin.encoding import decode
from backends.runtime.standin.replies import Refused
from backends.runtime.standin.simulate import cut, item_seed, split
from tests.backends.runtime.test_standin_jobs import sampler


def test_items_have_seeds_of_their_own() -> None:
    assert item_seed(7, 0) == 7
    assert len({item_seed(7, index) for index in range(100)}) == 100


@pytest.mark.parametrize(
    "params",
    [
        None,
        [],
        {},
        {"schema_version": "v1.0"},
        {"schema_version": "v2.0"},
        {"schema_version": "v2.0", "quantum_program": 1},
    ],
)
def test_what_is_no_program_is_refused(params: Any) -> None:
    with pytest.raises(Refused, match="Request validation of body failed, because: params") as refused:
        decode(params)
    assert (refused.value.status, refused.value.code) == (400, 1208)


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
