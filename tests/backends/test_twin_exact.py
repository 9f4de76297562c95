import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from qiskit.quantum_info import SparsePauliOp

from backends.aer import AerExecutor
from backends.catalog import get_target
from backends.observables import single_z
from backends.protocol import DifferentiableExecutor, Executor, Request
from backends.twin.executor import TwinExecutor
from circuits.qgan import ENTANGLEMENTS
from tests.backends.reference import Evolution, compiled, draw, scattered

# ECR, CZ, CX, u1/u2/u3, rx/rzz and no device at all.
DEVICES = ("fake_kyiv", "fake_fez", "fake_torino", "fake_lima", "fake_almaden", "fake_fractional", "ideal")


def observables(qubits: int, seed: int) -> tuple[SparsePauliOp, ...]:
    """Z on each qubit, ZZ on a pair, and a weighted sum of random Z-strings with an identity."""
    random = np.random.default_rng(seed)
    strings = ["".join(random.choice(["I", "Z"], qubits)) for _ in range(4)]
    mixed = SparsePauliOp(["I" * qubits, *strings], random.normal(size=5))
    pair = SparsePauliOp.from_sparse_list([("ZZ", [0, qubits - 1], 1.0)], num_qubits=qubits)
    return (*single_z(qubits), pair, mixed)


def mixed_paulis(qubits: int, seed: int) -> SparsePauliOp:
    """A weighted sum of four random Pauli strings and the identity."""
    random = np.random.default_rng(seed)
    strings = ["".join(random.choice(["I", "X", "Y", "Z"], qubits)) for _ in range(4)]
    return SparsePauliOp(["I" * qubits, *strings], random.normal(size=5))


@settings(max_examples=30, deadline=None)
@given(
    device=st.sampled_from(DEVICES),
    qubits=st.sampled_from((2, 3, 4, 4, 5, 6)),
    reps=st.integers(0, 2),
    entanglement=st.sampled_from(ENTANGLEMENTS),
    readout_error=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_equals_the_evolution_of_quantum_info(
    *, device: str, qubits: int, reps: int, entanglement: str, readout_error: bool, seed: int
) -> None:
    if qubits > 4:
        reps = min(reps, 1)  # The reference takes seconds beyond.
    qubits = min(qubits, get_target(device).num_qubits or qubits)
    target, circuit = get_target(device), compiled(device, qubits, reps, entanglement, seed % 3)
    inputs, weights = draw(circuit, 2, seed)
    wanted = (*observables(qubits, seed), mixed_paulis(qubits, seed))
    evolution = Evolution(target, circuit, readout_error=readout_error)
    exact = np.array([evolution.values(wanted, row, weights) for row in inputs])
    request = Request(circuit, wanted, inputs, weights)
    scale = max(1.0, *(float(np.abs(o.coeffs).sum()) for o in wanted))
    for path in ("heisenberg", "density"):
        (got,) = TwinExecutor(target, readout_error=readout_error, path=path).run([request])
        assert got.metadata["path"] == path
        assert np.abs(got.values - exact).max() < 1e-11 * scale
        single = TwinExecutor(target, dtype=torch.float32, readout_error=readout_error, path=path)
        assert np.abs(single.run([request])[0].values - exact).max() < 1e-5 * scale


@settings(max_examples=10, deadline=None)
@given(
    device=st.sampled_from(DEVICES), reps=st.integers(1, 2), reuploads=st.integers(1, 2), seed=st.integers(0, 2**32 - 1)
)
def test_latents_encoded_again_equal_the_evolution(device: str, reps: int, reuploads: int, seed: int) -> None:
    """They stand after entangling gates, where the engine takes the density path."""
    target, circuit = get_target(device), compiled(device, 3, reps, "linear", reuploads=min(reuploads, reps))
    inputs, weights = draw(circuit, 2, seed)
    wanted = (*observables(3, seed), mixed_paulis(3, seed))
    evolution = Evolution(target, circuit)
    exact = np.array([evolution.values(wanted, row, weights) for row in inputs])
    (got,) = TwinExecutor(target).run([Request(circuit, wanted, inputs, weights)])
    assert got.metadata["path"] == "density"
    assert np.abs(got.values - exact).max() < 1e-11 * max(1.0, *(float(np.abs(o.coeffs).sum()) for o in wanted))


@pytest.mark.slow
def test_eight_qubits() -> None:
    target, circuit = get_target("fake_kyiv"), compiled("fake_kyiv", 8, 2, "reverse_linear")
    inputs, weights = draw(circuit, 1, 8)
    wanted = (*single_z(8), mixed_paulis(8, 1))
    exact = Evolution(target, circuit).values(wanted, inputs[0], weights)
    for path in ("heisenberg", "density"):
        (got,) = TwinExecutor(target, path=path).run([Request(circuit, wanted, inputs, weights)])
        assert np.abs(got.values[0] - exact).max() < 1e-10


@pytest.mark.parametrize(
    ("device", "qubits", "entanglement"),
    [
        ("fake_kyiv", 5, "circular"),
        ("fake_fez", 5, "circular"),
        ("fake_torino", 5, "full"),
        ("fake_lima", 5, "sca"),
        ("fake_kyiv", 5, "reverse_linear"),
    ],
)
def test_five_qubits_with_swaps(device: str, qubits: int, entanglement: str) -> None:
    target, circuit = get_target(device), compiled(device, qubits, 1, entanglement)
    inputs, weights = draw(circuit, 1, 5)
    wanted = observables(qubits, 5)
    exact = Evolution(target, circuit).values(wanted, inputs[0], weights)
    for path in ("heisenberg", "density"):
        (got,) = TwinExecutor(target, path=path).run([Request(circuit, wanted, inputs, weights)])
        assert np.abs(got.values[0] - exact).max() < 1e-11


def test_extra_wires_and_distant_gates_are_covered() -> None:
    """The cases above mean something only if they contain wires beyond the qubits, and blocks that are not adjacent."""
    from backends.twin.build import build_program
    from backends.twin.channels import Channels

    circuit, target, wanted = scattered("fake_almaden", (0, 2, 8, 6)), get_target("fake_almaden"), observables(4, 5)
    assert len(circuit.physical_qubits) > 4
    assert set(circuit.final_layout) != set(circuit.initial_layout)
    program = build_program(circuit, Channels(target.backend.target, circuit.physical_qubits))
    assert any(block.high - block.low > 1 for block in program.blocks)
    inputs, weights = draw(circuit, 1, 5)
    exact = Evolution(target, circuit).values(wanted, inputs[0], weights)
    for path in ("heisenberg", "density"):
        (got,) = TwinExecutor(target, path=path).run([Request(circuit, wanted, inputs, weights)])
        assert np.abs(got.values[0] - exact).max() < 1e-11


@settings(max_examples=12, deadline=None)
@given(
    device=st.sampled_from(DEVICES),
    qubits=st.integers(2, 5),
    entanglement=st.sampled_from(ENTANGLEMENTS),
    seed=st.integers(0, 2**32 - 1),
)
def test_equals_aers_density_matrix(device: str, qubits: int, entanglement: str, seed: int) -> None:
    target, circuit = get_target(device), compiled(device, qubits, 1, entanglement)
    inputs, weights = draw(circuit, 3, seed)
    request = Request(circuit, observables(qubits, seed), inputs, weights)
    (twin,), (aer,) = TwinExecutor(target).run([request]), AerExecutor(target, shots=None).run([request])
    scale = max(1.0, float(np.abs(request.observables[-1].coeffs).sum()))
    dropped = Evolution(target, circuit).dropped_by_aer()
    assert dropped < 1e-7  # else the comparison would say little
    assert np.abs(twin.values - aer.values).max() < scale * (1e-11 + dropped)


def test_one_qubit_and_rows_of_weights() -> None:
    target, circuit = get_target("fake_kyiv"), compiled("fake_kyiv", 1, 2, "full")
    inputs, _ = draw(circuit, 4, 1)
    rows = np.random.default_rng(2).normal(size=(4, len(circuit.weights)))
    rows[3] = rows[1]
    evolution = Evolution(target, circuit)
    exact = np.array([evolution.values(single_z(1), z, w) for z, w in zip(inputs, rows, strict=True)])
    for path in ("heisenberg", "density"):
        (got,) = TwinExecutor(target, path=path).run([Request(circuit, single_z(1), inputs, rows)])
        assert got.metadata["weight_vectors"] == 3
        assert np.abs(got.values - exact).max() < 1e-11
        assert not got.standard_errors.any()


def test_requests_come_back_in_order_and_alike() -> None:
    target = get_target("fake_lima")
    requests = []
    for qubits in (3, 2, 3):
        circuit = compiled("fake_lima", qubits, 1, "linear")
        requests.append(Request(circuit, single_z(qubits), *draw(circuit, qubits, qubits)))
    together = TwinExecutor(target).run(requests)
    assert [r.values.shape for r in together] == [(3, 3), (2, 2), (3, 3)]
    assert np.array_equal(together[0].values, together[2].values)
    for request, result in zip(requests, together, strict=True):
        assert np.array_equal(TwinExecutor(target).run([request])[0].values, result.values)


def test_large_batches_go_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    target, circuit = get_target("fake_kyiv"), compiled("fake_kyiv", 4, 1, "reverse_linear")
    request = Request(circuit, single_z(4), *draw(circuit, 50, 3))
    (whole,) = TwinExecutor(target, path="heisenberg").run([request])
    monkeypatch.setattr("backends.twin.heisenberg.evaluate._CHUNK", 4 * 16 * 7)  # seven samples at a time
    (parts,) = TwinExecutor(target, path="heisenberg").run([request])
    assert np.abs(whole.values - parts.values).max() < 1e-14


def test_is_what_the_protocol_asks() -> None:
    engine = TwinExecutor(get_target("ideal"))
    assert isinstance(engine, Executor)
    assert isinstance(engine, DifferentiableExecutor)
    assert engine.differentiable
