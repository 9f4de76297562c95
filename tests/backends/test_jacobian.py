"""The Jacobian from one sweep, against one backward pass an observable through density matrices."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter, ParameterVector
from qiskit.quantum_info import SparsePauliOp
from qiskit_machine_learning.gradients import ParamShiftEstimatorGradient

from backends.catalog import get_target
from backends.observables import single_z
from backends.twin.density.evaluate import Density
from backends.twin.executor import TwinExecutor
from backends.twin.heisenberg import jacobian
from backends.twin.heisenberg.jacobian import Jacobian
from backends.twin.primitives.estimator import TwinEstimator
from backends.twin.primitives.gradient import TwinEstimatorGradient
from backends.twin.primitives.isa import from_isa, leading_parameters
from circuits.errors import QrunError
from circuits.qgan import ENTANGLEMENTS
from circuits.types import CompiledCircuit
from tests.backends.isa import paulis, transpiled
from tests.backends.reference import Evolution, compiled, draw, scattered
from tests.backends.test_plan import bricks, chain_energy
from tests.backends.test_twin_exact import DEVICES, mixed_paulis, observables

Arrays = tuple[np.ndarray, ...]


def some(qubits: int, seed: int = 1) -> tuple[SparsePauliOp, ...]:
    """Z-strings, general Pauli sums, X and Y alone, and the identity alone."""
    alone = [SparsePauliOp.from_sparse_list([(p, [0], 0.7)], num_qubits=qubits) for p in "XY"]
    general = [mixed_paulis(qubits, seed), mixed_paulis(qubits, seed + 1)]
    pairs = observables(qubits, seed) if qubits > 1 else single_z(1)
    return (*alone, *pairs, SparsePauliOp("I" * qubits, 0.3), *general)


def both(
    device: str, circuit: CompiledCircuit, wanted: tuple[SparsePauliOp, ...], z: np.ndarray, w: np.ndarray
) -> float:
    """The largest difference between the two ways; each is seen to be taken."""
    target = get_target(device)
    with sweeps() as seen:
        found = TwinExecutor(target).jacobian(circuit, wanted, z, w)
        assert [samples for _, samples in seen] == [len(z)]
        expected = TwinExecutor(target, path="density").jacobian(circuit, wanted, z, w)
        assert len(seen) == 1
    shapes = [(len(z), len(wanted)), (len(z), len(wanted), z.shape[1]), (len(z), len(wanted), w.shape[-1])]
    assert [array.shape for array in found] == [array.shape for array in expected] == shapes
    assert all(array.dtype == np.float64 for array in found)
    scale = max(1.0, *(float(np.abs(o.coeffs).sum()) for o in wanted))
    return far(found, expected) / scale


@contextmanager
def sweeps() -> Iterator[list[tuple[Jacobian, int]]]:
    """Which sweeps are made meanwhile, with their numbers of samples."""
    seen: list[tuple[Jacobian, int]] = []
    sweep = Jacobian.__call__

    def note(self: Jacobian, inputs: torch.Tensor, weights: torch.Tensor) -> object:
        seen.append((self, len(inputs)))
        return sweep(self, inputs, weights)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Jacobian, "__call__", note)
        yield seen


def far(one: Arrays, other: Arrays) -> float:
    return max(float(np.abs(a - b).max(initial=0.0)) for a, b in zip(one, other, strict=True))


@settings(max_examples=30, deadline=None)
@given(
    device=st.sampled_from(DEVICES),
    qubits=st.integers(1, 5),
    reps=st.integers(0, 2),
    entanglement=st.sampled_from(ENTANGLEMENTS),
    batch=st.sampled_from((1, 2, 7, 20)),
    seed=st.integers(0, 2**32 - 1),
)
def test_equals_a_backward_pass_for_every_observable(
    *, device: str, qubits: int, reps: int, entanglement: str, batch: int, seed: int
) -> None:
    circuit = compiled(device, qubits, reps, entanglement, seed % 3)
    z, w = draw(circuit, batch, seed)
    assert both(device, circuit, some(qubits, seed % 1000), z, w) < 1e-12


@pytest.mark.parametrize("batch", [1, 30])
def test_routing_wires_and_distant_blocks(batch: int) -> None:
    circuit = scattered("fake_almaden", (0, 2, 8, 6))
    assert both("fake_almaden", circuit, some(4), *draw(circuit, batch, 5)) < 1e-12


@pytest.mark.parametrize(("qubits", "reps"), [(1, 2), (3, 0), (4, 2)])
def test_few_and_no_samples(qubits: int, reps: int) -> None:
    """One qubit, no blocks; one sample, none."""
    circuit = compiled("fake_kyiv", qubits, reps, "linear")
    z, w = draw(circuit, 1, 2)
    assert both("fake_kyiv", circuit, some(qubits), z, w) < 1e-12
    assert both("fake_kyiv", circuit, single_z(qubits)[:1], z, w) < 1e-12
    empty = TwinExecutor(get_target("fake_kyiv")).jacobian(circuit, some(qubits), z[:0], w)
    m = len(some(qubits))
    assert [array.shape for array in empty] == [(0, m), (0, m, z.shape[1]), (0, m, len(w))]


def test_ten_observables_of_narrow_cones() -> None:
    """Few samples, so that the derivatives are applied to the states; a wire that no observable reads in the end."""
    circuit = compiled("fake_fez", 6, 1, "linear")
    wanted = (*single_z(6)[:2] * 4, *some(6)[:2])
    for batch in (2, 40):
        assert both("fake_fez", circuit, wanted, *draw(circuit, batch, 7)) < 1e-12


@pytest.mark.parametrize(
    ("device", "qubits", "entanglement"),
    [("fake_kyiv", 3, "circular"), ("fake_fez", 3, "linear"), ("fake_fractional", 2, "full"), ("ideal", 3, "sca")],
)
def test_equals_parameter_shift_on_the_exact_evolution(device: str, qubits: int, entanglement: str) -> None:
    target, circuit = get_target(device), compiled(device, qubits, 1, entanglement)
    z, w = draw(circuit, 1, 9)
    wanted, quarter = some(qubits, 9), np.pi / 2
    evolution, ni = Evolution(target, circuit), z.shape[1]
    values, by_inputs, by_weights = TwinExecutor(target).jacobian(circuit, wanted, z, w)
    columns = []
    for move in quarter * np.eye(ni + len(w)):
        up = evolution.values(wanted, z[0] + move[:ni], w + move[ni:])
        down = evolution.values(wanted, z[0] - move[:ni], w - move[ni:])
        columns.append((up - down) / 2)
    slopes = np.stack(columns, 1)
    assert np.abs(values[0] - evolution.values(wanted, z[0], w)).max() < 1e-10
    assert np.abs(np.concatenate([by_inputs, by_weights], 2)[0] - slopes).max() < 1e-10
    assert np.abs(slopes[:, -qubits:]).max() > 0.01  # the last angles count, for X and Y


def test_parts_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of the observables, and parts of the batch."""
    target, circuit = get_target("fake_kyiv"), compiled("fake_kyiv", 5, 2, "circular")
    z, w = draw(circuit, 20, 1)
    whole = TwinExecutor(target).jacobian(circuit, some(5), z, w)
    for name in ("_KEEP", "_STATES"):
        with monkeypatch.context() as patch:
            patch.setattr(jacobian, name, 8 * 3 * 4**5)
            parts = TwinExecutor(target).jacobian(circuit, some(5), z, w)
        assert far(whole, parts) < 1e-13


def test_samples_with_the_same_weights_go_together() -> None:
    """And where every sample has its own, the density path takes them all at once."""
    target, circuit = get_target("fake_lima"), compiled("fake_lima", 3, 1, "linear")
    z, _ = draw(circuit, 12, 1)
    rows = np.random.default_rng(2).normal(size=(12, len(circuit.weights)))
    three, one, all_but_one = [0, 1, 0, 2, 1, 0, 0, 1, 2, 0, 1, 2], [3] * 12, [*range(11), 0]
    for which, expected in ((three, [5, 4, 3]), (one, [12]), (all_but_one, [])):
        with sweeps() as seen:
            found = TwinExecutor(target).jacobian(circuit, some(3), z, rows[which])
        assert sorted((samples for _, samples in seen), reverse=True) == expected
        assert far(found, TwinExecutor(target, path="density").jacobian(circuit, some(3), z, rows[which])) < 1e-12


def test_too_large_a_sweep_goes_by_density_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    target, circuit = get_target("fake_lima"), compiled("fake_lima", 3, 1, "linear")
    z, w = draw(circuit, 4, 1)
    expected = TwinExecutor(target, path="density").jacobian(circuit, some(3), z, w)
    monkeypatch.setattr(Jacobian, "bytes_needed", lambda self, batch: 2**50)
    assert far(TwinExecutor(target).jacobian(circuit, some(3), z, w), expected) == 0.0


@pytest.mark.parametrize("path", ["auto", "density"])
def test_whatever_torch_is_set_to(path: str) -> None:
    target, circuit = get_target("fake_lima"), compiled("fake_lima", 3, 1, "linear")
    z, w = draw(circuit, 4, 1)
    expected = TwinExecutor(target, path=path).jacobian(circuit, some(3), z, w)
    engine = TwinExecutor(target, path=path)
    for mode in (torch.inference_mode, torch.no_grad):
        with mode():
            assert far(engine.jacobian(circuit, some(3), z, w), expected) == 0.0


def test_single_precision() -> None:
    circuit = compiled("fake_fez", 4, 4, "reverse_linear")
    z, w = draw(circuit, 8, 4)
    one, other = (
        TwinExecutor(get_target("fake_fez"), dtype=dtype).jacobian(circuit, some(4), z, w)
        for dtype in (torch.float32, torch.float64)
    )
    assert 0 < far(one, other) < 1e-5


def test_what_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where an earlier call has made the matrices; each way for itself."""
    circuit, engine = compiled("fake_lima", 2, 1, "linear"), TwinExecutor(get_target("fake_lima"))
    dense = TwinExecutor(get_target("fake_lima"), path="density")
    (z, w), wanted = draw(circuit, 2, 1), single_z(2)
    for each in (engine, dense):
        each.jacobian(circuit, wanted, z, w)
    monkeypatch.setattr("backends.twin.memory.available", lambda device: 1000)
    with pytest.raises(QrunError, match="2 observables over 2 qubits for 1 samples would take"):
        engine.jacobian(circuit, wanted, z, w)
    with pytest.raises(QrunError, match="2 observables over 2 qubits for 2 samples would take"):
        TwinExecutor(get_target("fake_lima"), path="heisenberg").expectations(
            circuit, wanted, torch.tensor(z), torch.tensor(w)
        )
    with pytest.raises(QrunError, match="2 density matrices of 2 qubits would take"):
        dense.jacobian(circuit, wanted, z, w)


@pytest.mark.parametrize("by_row", [False, True])
def test_one_value_at_a_time_where_nothing_else_fits(by_row: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    circuit, target = compiled("fake_lima", 3, 1, "linear"), get_target("fake_lima")
    z, w = draw(circuit, 4, 1)
    rows = np.random.default_rng(2).normal(size=(4, len(w))) if by_row else w
    expected = TwinExecutor(target, path="density").jacobian(circuit, some(3), z, rows)
    engine = TwinExecutor(target)
    monkeypatch.setattr(Jacobian, "bytes_needed", lambda self, batch: 2**60)
    monkeypatch.setattr(Density, "bytes_needed", lambda self, batch, *, gradient: 2**60)
    assert far(engine.jacobian(circuit, some(3), z, rows), expected) < 1e-12
    empty = engine.jacobian(circuit, some(3), z[:0], w)
    assert [part.shape for part in empty] == [(0, *part.shape[1:]) for part in expected]


def test_a_wide_chains_energy_has_derivatives() -> None:
    """Seventy qubits, two at a time: neither a sweep nor a density matrix fits any machine."""
    circuit, engine = bricks(70), TwinExecutor(get_target("ideal"))
    w = np.linspace(0.1, 2.0, 70)
    values, by_inputs, by_weights = engine.jacobian(circuit, (chain_energy(70),), np.zeros((1, 0)), w)
    theta = torch.tensor(w, requires_grad=True)
    value = engine.expectations(circuit, (chain_energy(70),), torch.zeros(1, 0), theta)
    value.sum().backward()
    assert abs(values[0, 0] - value.item()) < 1e-12
    assert by_inputs.shape == (1, 1, 0)
    assert np.abs(by_weights[0, 0] - theta.grad.numpy()).max() < 1e-12
    assert np.abs(by_weights).max() > 0.1


def test_bytes_needed_covers_what_is_kept() -> None:
    circuit, engine = compiled("fake_kyiv", 5, 2, "circular"), TwinExecutor(get_target("fake_kyiv"))
    with sweeps() as seen:
        engine.jacobian(circuit, some(5), *draw(circuit, 30, 1))
    leased = 8 * sum(engine._pool.idle())
    assert 30 * 4**5 * 8 < leased < seen[0][0].bytes_needed(30) < 3 * leased


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**16), samples=st.integers(1, 9))
def test_a_network_takes_one_sweep(seed: int, samples: int) -> None:
    """EstimatorQNN asks observable by observable and sample by sample: it is one call, whatever comes twice."""
    random = np.random.default_rng(seed)
    isa, twin = transpiled("fake_lima", "linear", 3), TwinEstimator(get_target("fake_lima").backend)
    wanted = [o.apply_layout(isa.layout) for o in paulis(3, seed)]
    early = {parameter.name for parameter in leading_parameters(isa)}
    varies = np.array([parameter.name in early for parameter in isa.parameters])
    rows = np.where(varies, random.normal(size=(samples, len(varies))), random.normal(size=len(varies)))
    rows = rows[random.integers(samples, size=samples)]
    asked = [(isa, o, row) for o in wanted for row in rows]
    order = random.permutation(len(asked)).tolist() if seed % 2 else range(len(asked))
    circuits, several, values = ([asked[n][column] for n in order] for column in range(3))
    with sweeps() as seen:
        ours = TwinEstimatorGradient(twin).run(circuits, several, values).result().gradients
    assert [samples for _, samples in seen] == [len(np.unique(rows, axis=0))]
    few = slice(0, 6)
    stock = ParamShiftEstimatorGradient(twin).run(circuits[few], several[few], values[few]).result().gradients
    for mine, other in zip(ours, stock, strict=False):
        assert np.abs(mine - other).max() < 1e-10


def test_what_a_gradient_refuses_is_named_by_its_number() -> None:
    isa, gradient = transpiled("fake_lima", "linear", 2), TwinEstimatorGradient(get_target("fake_lima").backend)
    z, row, own = SparsePauliOp("IZ").apply_layout(isa.layout), np.zeros(isa.num_parameters), list(isa.parameters)
    with pytest.raises(ValueError, match="2-th observable"):
        gradient.run([isa] * 3, [z, z, SparsePauliOp("IZ")], [row] * 3, [own] * 3)
    with pytest.raises(ValueError, match="for the 1-th circuit"):
        gradient.run([isa] * 3, [z] * 3, [row, row[1:], row], [own] * 3)
    with pytest.raises(ValueError, match="The 2-th parameters contains"):
        gradient.run([isa] * 3, [z] * 3, [row] * 3, [own, own, [Parameter("another")]])
    with pytest.raises(ValueError, match=r"number of circuits \(3\) does not match the number of observables \(2\)"):
        gradient.run([isa] * 3, [z] * 2, [row] * 3, [own] * 3)


@pytest.mark.parametrize("inputs", [0, 2])
def test_circuits_without_weights_or_without_parameters(inputs: int) -> None:
    z, circuit = ParameterVector("z", 2), QuantumCircuit(2)
    for qubit in range(inputs):
        circuit.rz(z[qubit], qubit)
        circuit.sx(qubit)
    circuit.sx(1)
    circuit.cx(0, 1)
    compiled_circuit = from_isa(circuit, list(z)[:inputs])
    rows, none = np.random.default_rng(1).normal(size=(3, inputs)), np.zeros(0)
    assert both("fake_lima", compiled_circuit, some(2), rows, none) < 1e-12
    assert both("fake_lima", compiled_circuit, some(2), rows, np.zeros((3, 0))) < 1e-12


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu() -> None:
    circuit = compiled("fake_kyiv", 4, 2, "sca")
    z, w = draw(circuit, 5, 1)
    here, there = (
        TwinExecutor(get_target("fake_kyiv"), device=device).jacobian(circuit, some(4), z, w)
        for device in ("cpu", "cuda")
    )
    assert far(here, there) < 1e-11
