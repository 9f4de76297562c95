import dataclasses
from functools import cache
from itertools import combinations, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.circuit.library import efficient_su2
from qiskit.quantum_info import SparsePauliOp

from backends.catalog import get_target
from backends.observables import PauliSum, pauli_sum, single_z
from backends.twin.build import build_program
from backends.twin.channels import Channels
from backends.twin.density import evaluate as density_module
from backends.twin.density import readings as readings_module
from backends.twin.density import walk as walk_module
from backends.twin.density.evaluate import Density
from circuits.compile import compile_ansatz
from circuits.errors import QrunError
from circuits.types import Ansatz, CompiledCircuit
from tests.backends.reference import Evolution, compiled, draw, scattered

DEVICES = ("fake_kyiv", "fake_fez", "fake_torino", "fake_lima", "fake_almaden", "fake_fractional", "ideal")
LAYERS = ("linear", "reverse_linear", "circular", "full", "pairwise", "sca")


@cache
def reuploading(device: str, qubits: int, entanglement: str, seed: int = 7) -> CompiledCircuit:
    """Inputs, a layer, the other inputs, a layer: every parameter in one gate."""
    inputs, circuit = ParameterVector("z", 2 * qubits), QuantumCircuit(qubits)
    weights = []
    for part in range(2):
        for qubit in range(qubits):
            circuit.ry(inputs[part * qubits + qubit], qubit)
        layer = efficient_su2(qubits, ["ry", "rx"], entanglement=entanglement, reps=1, parameter_prefix=f"w{part}")
        circuit.compose(layer, inplace=True)
        weights += layer.parameters
    ansatz = Ansatz(f"again-{qubits}-{entanglement}", circuit, tuple(inputs), tuple(weights))
    return compile_ansatz(ansatz, get_target(device).backend, seed=seed)


def paulis(qubits: int, seed: int) -> tuple[SparsePauliOp, ...]:
    """Sums of random Pauli strings with an identity, one with a single factor, one with all."""
    random = np.random.default_rng(seed)
    labels = ["".join(random.choice(list("IXYZ"), qubits)) for _ in range(5)]
    mixed = SparsePauliOp(["I" * qubits, *labels], random.normal(size=6))
    return mixed, *single_z(qubits)[:1], SparsePauliOp("".join(random.choice(list("XYZ"), qubits)))


def density(
    device: str, circuit: CompiledCircuit, *, dtype: torch.dtype = torch.float64, readout_error: bool = True
) -> Density:
    backend = get_target(device).backend
    channels = Channels(None if backend is None else backend.target, circuit.physical_qubits)
    program = build_program(circuit, channels, readout_error=readout_error)
    return Density(program, n_inputs=len(circuit.inputs), n_weights=len(circuit.weights), dtype=dtype)


def sums(observables: tuple[SparsePauliOp, ...]) -> tuple[PauliSum, ...]:
    return tuple(pauli_sum(observable, observable.num_qubits) for observable in observables)


def both(circuit: CompiledCircuit, batch: int, seed: int, *, by_row: bool) -> tuple[np.ndarray, np.ndarray]:
    """Inputs (batch, ni), and weights (batch, nw) or (nw,)."""
    inputs, weights = draw(circuit, batch, seed)
    shift = np.random.default_rng(seed + 1).normal(size=(batch, len(weights)))
    return inputs, weights + shift if by_row else weights


def exact(device: str, circuit: CompiledCircuit, observables: tuple[SparsePauliOp, ...], z: np.ndarray, w: np.ndarray):
    evolution = Evolution(get_target(device), circuit)
    rows = np.broadcast_to(w, (len(z), w.shape[-1]))
    return np.array([evolution.values(observables, a, b) for a, b in zip(z, rows, strict=True)])


@settings(max_examples=20, deadline=None)
@given(
    device=st.sampled_from(DEVICES),
    qubits=st.integers(2, 4),
    entanglement=st.sampled_from(LAYERS),
    again=st.booleans(),
    by_row=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_equals_the_evolution(
    *, device: str, qubits: int, entanglement: str, again: bool, by_row: bool, seed: int
) -> None:
    circuit = reuploading(device, qubits, entanglement) if again else compiled(device, qubits, 2, entanglement)
    z, w = both(circuit, 2, seed, by_row=by_row)
    observables = paulis(qubits, seed)
    expected = exact(device, circuit, observables, z, w)
    got = density(device, circuit).values(sums(observables), torch.tensor(z), torch.tensor(w))
    assert np.abs(got.numpy() - expected).max() < 1e-11
    rough = density(device, circuit, dtype=torch.float32)
    single = rough.values(sums(observables), torch.tensor(z), torch.tensor(w))
    assert single.dtype == torch.float32
    scale = max(1.0, float(np.abs(observables[0].coeffs).sum()))
    assert np.abs(single.numpy() - expected).max() < 1e-5 * scale


@pytest.mark.parametrize(("device", "entanglement"), [("fake_kyiv", "sca"), ("fake_lima", "full")])
def test_five_qubits(device: str, entanglement: str) -> None:
    circuit = reuploading(device, 5, entanglement)
    z, w = both(circuit, 2, 3, by_row=True)
    got = density(device, circuit).values(sums(paulis(5, 3)), torch.tensor(z), torch.tensor(w))
    assert np.abs(got.numpy() - exact(device, circuit, paulis(5, 3), z, w)).max() < 1e-11


def test_routing_through_other_qubits() -> None:
    circuit = scattered("fake_almaden", (0, 2, 8, 6))
    assert len(circuit.physical_qubits) > 4
    z, w = both(circuit, 1, 5, by_row=False)
    engine = density("fake_almaden", circuit)
    assert any(block.high - block.low > 1 for block in engine.program.blocks)
    assert any(step.order is not None for step in engine.walk.steps)
    got = engine.values(sums(paulis(4, 5)), torch.tensor(z), torch.tensor(w))
    assert np.abs(got.numpy() - exact("fake_almaden", circuit, paulis(4, 5), z, w)).max() < 1e-11
    expected = Evolution(get_target("fake_almaden"), circuit).probabilities(z[0], w, (1, 2, 3, 3))
    read = engine.probabilities(torch.tensor(z), torch.tensor(w), (1, 2, 3, 3))
    assert np.abs(read.numpy()[0] - expected).max() < 1e-11


@pytest.mark.parametrize(
    ("device", "qubits", "entanglement"), [("fake_lima", 3, "full"), ("fake_fez", 4, "pairwise"), ("ideal", 2, "full")]
)
def test_every_pauli_string_of_the_state(device: str, qubits: int, entanglement: str) -> None:
    circuit = reuploading(device, qubits, entanglement)
    z, w = both(circuit, 2, 8, by_row=True)
    strings = tuple(SparsePauliOp("".join(letters)) for letters in product("IXYZ", repeat=qubits))
    engine = density(device, circuit, readout_error=False)
    got = engine.values(sums(strings), torch.tensor(z), torch.tensor(w)).numpy()
    evolution = Evolution(get_target(device), circuit)
    for row in range(2):
        state = evolution.state(z[row], w[row])
        places = list(circuit.final_layout)
        expected = [state.expectation_value(string, places).real for string in strings]
        assert np.abs(got[row] - expected).max() < 1e-11


def separate(device: str) -> CompiledCircuit:
    """Two entangled pairs and a qubit alone; one rotation of the pairs comes last."""
    z, w, circuit = ParameterVector("z", 3), ParameterVector("w", 3), QuantumCircuit(5)
    for qubit in range(3):
        circuit.ry(z[qubit], qubit)
    circuit.cx(0, 3)
    circuit.rx(w[0], 3)
    circuit.cx(2, 4)
    circuit.ry(w[1], 1)
    circuit.rz(w[2], 4)
    circuit.h(4)
    return compile_ansatz(Ansatz("separate", circuit, tuple(z), tuple(w)), get_target(device).backend, seed=1)


@pytest.mark.parametrize("device", ["ideal", "fake_kyiv"])
def test_what_no_gate_joins_stays_apart(device: str) -> None:
    circuit = separate(device)
    z, w = both(circuit, 2, 5, by_row=False)
    engine = density(device, circuit)
    if device == "ideal":
        assert sorted(len(positions) for _, positions in engine.walk.finals) == [1, 2, 2]
    got = engine.values(sums(paulis(5, 2)), torch.tensor(z), torch.tensor(w))
    assert np.abs(got.numpy() - exact(device, circuit, paulis(5, 2), z, w)).max() < 1e-11
    evolution = Evolution(get_target(device), circuit)
    read = engine.probabilities(torch.tensor(z), torch.tensor(w), (2, 1, 3, 1, 2)).numpy()
    assert np.abs(read[1] - evolution.probabilities(z[1], w, (2, 1, 3, 1, 2))).max() < 1e-11


def test_one_qubit_no_blocks_and_no_rows() -> None:
    circuit = compiled("fake_kyiv", 1, 2, "full")
    engine, wanted = density("fake_kyiv", circuit), (SparsePauliOp("X"), SparsePauliOp("Z"), SparsePauliOp("I", 2.5))
    z, w = both(circuit, 3, 1, by_row=True)
    got = engine.values(sums(wanted), torch.tensor(z), torch.tensor(w)).numpy()
    assert np.abs(got - exact("fake_kyiv", circuit, wanted, z, w)).max() < 1e-11
    none = torch.tensor(z[:0], requires_grad=True)
    for weights in (torch.tensor(w[:0]), torch.tensor(w[0])):
        values = engine.values(sums(wanted), none, weights)
        assert values.shape == (0, 3)
        values.sum().backward()
        assert engine.probabilities(none, weights).shape == (0, 2)
    unentangled = compiled("fake_lima", 3, 0, "full")
    z, w = both(unentangled, 2, 2, by_row=False)
    got = density("fake_lima", unentangled).values(sums(paulis(3, 2)), torch.tensor(z), torch.tensor(w)).numpy()
    assert np.abs(got - exact("fake_lima", unentangled, paulis(3, 2), z, w)).max() < 1e-11


def test_parameters_that_nothing_depends_on_have_no_gradient() -> None:
    engine = density("ideal", compiled("ideal", 2, 1, "full"))
    z, w = torch.zeros(2, 2, requires_grad=True), torch.zeros(8, requires_grad=True)
    engine.values([((3.0, ()),)], z, w).sum().backward()
    assert not z.grad.any()
    assert not w.grad.any()


@pytest.mark.parametrize(
    ("device", "entanglement", "by_row"),
    [("fake_kyiv", "circular", False), ("fake_lima", "full", True), ("ideal", "sca", True)],
)
def test_gradient_equals_parameter_shift(*, device: str, entanglement: str, by_row: bool) -> None:
    circuit, wanted = reuploading(device, 3, entanglement), paulis(3, 4)
    z, w = both(circuit, 2, 6, by_row=by_row)
    pull = np.random.default_rng(3).normal(size=(2, len(wanted)))
    inputs, weights = torch.tensor(z, requires_grad=True), torch.tensor(w, requires_grad=True)
    values = density(device, circuit).values(sums(wanted), inputs, weights)
    (values * torch.tensor(pull)).sum().backward()

    def shifted(by_z: np.ndarray, by_w: np.ndarray) -> np.ndarray:
        up = exact(device, circuit, wanted, z + by_z, w + by_w)
        down = exact(device, circuit, wanted, z - by_z, w - by_w)
        return (pull * (up - down)).sum(1) / 2

    largest = 0.0
    for column in (0, 4, 5):  # inputs 3 to 5 come after the entangling gates
        by_row_of_z = shifted(np.pi / 2 * np.eye(6)[column], np.zeros(24))
        assert np.abs(inputs.grad.numpy()[:, column] - by_row_of_z).max() < 1e-10
        largest = max(largest, float(np.abs(by_row_of_z).min()))
    for column in (0, 8, 13, 21):
        slope = shifted(np.zeros(6), np.pi / 2 * np.eye(24)[column])
        got = weights.grad.numpy()[..., column]
        assert np.abs(got - (slope if by_row else slope.sum())).max() < 1e-10
    assert largest > 0.01


@pytest.mark.parametrize("by_row", [False, True])
@pytest.mark.parametrize("make", [lambda: reuploading("fake_lima", 3, "full"), lambda: separate("ideal")])
def test_gradcheck(make, *, by_row: bool) -> None:
    circuit = make()
    device = "ideal" if circuit.num_qubits == 5 else "fake_lima"
    engine, wanted = density(device, circuit), sums(paulis(circuit.num_qubits, 1))
    z, w = (torch.tensor(x, requires_grad=True) for x in both(circuit, 2, 4, by_row=by_row))
    assert torch.autograd.gradcheck(lambda a, b: engine.values(wanted, a, b), (z, w))


def gradients(circuit: CompiledCircuit, device: str, w: np.ndarray, z: np.ndarray, dtype=torch.float64):
    engine = density(device, circuit, dtype=dtype)
    inputs, weights = (torch.tensor(x, dtype=dtype, requires_grad=True) for x in (z, w))
    values = engine.values(sums(paulis(circuit.num_qubits, 9)), inputs, weights)
    found = [torch.autograd.grad(values.square().sum(), (inputs, weights), retain_graph=True) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))  # a graph may be walked again
    return [x.detach().double().numpy() for x in (values, *found[0])]


@pytest.mark.parametrize("by_row", [False, True])
def test_gradient_in_single_precision(*, by_row: bool) -> None:
    circuit = reuploading("fake_fez", 4, "reverse_linear")
    z, w = both(circuit, 4, 4, by_row=by_row)
    for rough, fine in zip(
        gradients(circuit, "fake_fez", w, z, torch.float32), gradients(circuit, "fake_fez", w, z), strict=True
    ):
        assert np.abs(rough - fine).max() < 1e-5 * max(1.0, np.abs(fine).max())


@pytest.mark.parametrize("by_row", [False, True])
@pytest.mark.parametrize("states", [2, 4, 8, 1000])
def test_what_is_computed_again_is_the_same(monkeypatch: pytest.MonkeyPatch, *, by_row: bool, states: int) -> None:
    """Rows in parts, a few rows at a time, and registers recomputed from checkpoints: nothing of it shows."""
    circuit = reuploading("fake_kyiv", 4, "sca")
    z, w = both(circuit, 7, 4, by_row=by_row)
    plain = gradients(circuit, "fake_kyiv", w, z)
    monkeypatch.setattr(density_module, "_BUDGET", states * 4**4 * 8)
    monkeypatch.setattr(walk_module, "_BLOCK_BYTES", 2 * 4**4 * 8)
    engine = density("fake_kyiv", circuit)
    assert engine._keeps(7) == (states == 1000)
    pieces = len(engine.walk.segments(engine._limit(1)))
    assert pieces > 1 or states > 4
    monkeypatch.setattr(density_module, "_PART", 5 * 8 * (4**4 + 1024 * len(engine.walk.steps)))
    assert [part.stop - part.start for part in engine._parts(7)] == [5, 2]
    for a, b in zip(plain, gradients(circuit, "fake_kyiv", w, z), strict=True):
        assert np.abs(a - b).max() < 1e-13


def test_graphs_that_live_at_once_do_not_disturb_each_other() -> None:
    circuit, wanted = reuploading("fake_lima", 3, "linear"), sums(paulis(3, 1))
    engine = density("fake_lima", circuit)
    z, w = (torch.tensor(x, requires_grad=True) for x in both(circuit, 2, 1, by_row=False))
    alone = torch.autograd.grad(engine.values(wanted, z, w).sum(), w)[0]
    held = engine.values(wanted, z, w)
    engine.values(wanted, z, w + 1.0).sum().backward()
    with torch.no_grad():
        engine.values(wanted, z, w - 1.0)
    assert torch.equal(torch.autograd.grad(held.sum(), w)[0], alone)


@settings(max_examples=12, deadline=None)
@given(
    device=st.sampled_from(DEVICES),
    qubits=st.integers(1, 4),
    basis=st.lists(st.integers(1, 3), min_size=4, max_size=4),
    by_row=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_probabilities(*, device: str, qubits: int, basis: list[int], by_row: bool, seed: int) -> None:
    circuit = reuploading(device, qubits, "linear") if qubits > 1 else compiled(device, 1, 1, "full")
    z, w = both(circuit, 2, seed, by_row=by_row)
    evolution, measured = Evolution(get_target(device), circuit), tuple(basis[:qubits])
    rows = np.broadcast_to(w, (2, w.shape[-1]))
    for dtype, allowed in ((torch.float64, 1e-11), (torch.float32, 1e-5)):
        engine = density(device, circuit, dtype=dtype)
        for wanted in (measured, None):
            got = engine.probabilities(torch.tensor(z), torch.tensor(w), wanted)
            expected = [evolution.probabilities(a, b, wanted) for a, b in zip(z, rows, strict=True)]
            assert np.abs(got.numpy() - np.array(expected)).max() < allowed
            assert float(got.min()) >= 0.0
            assert float((got.sum(1) - 1.0).abs().max()) < 1e-6


def test_a_matrix_that_is_no_channel_is_noticed() -> None:
    engine = density("ideal", compiled("ideal", 2, 1, "linear"))
    blocks = tuple(dataclasses.replace(block, channel=1.1 * block.channel) for block in engine.program.blocks)
    broken = dataclasses.replace(engine.program, blocks=blocks)
    with pytest.raises(QrunError, match="off by"):
        Density(broken, n_inputs=2, n_weights=8, dtype=torch.float64).probabilities(torch.zeros(1, 2), torch.zeros(8))


def test_bytes_needed_covers_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    circuit = reuploading("fake_kyiv", 4, "linear")
    engine = density("fake_kyiv", circuit)
    z, w = (torch.tensor(x, requires_grad=True) for x in both(circuit, 40, 1, by_row=True))
    engine.values(sums(single_z(4)), z, w).sum().backward()
    leased = 8 * max(engine.pool.idle())
    needed = engine.bytes_needed(40, gradient=True)
    assert leased < needed
    assert engine.bytes_needed(40, gradient=False) < needed < engine.bytes_needed(80, gradient=True)
    monkeypatch.setattr(density_module, "_BUDGET", 2**18)
    assert engine.bytes_needed(40, gradient=True) < needed


def test_readout_errors_that_differ_by_state() -> None:
    """On the devices above P(1|0) and P(0|1) are alike, so these are given, and worked out from the plain evolution."""
    circuit = reuploading("fake_lima", 3, "full")
    z, w = both(circuit, 1, 3, by_row=False)
    plain = density("fake_lima", circuit, readout_error=False)
    p01, p10 = np.array([0.02, 0.07, 0.11]), np.array([0.09, 0.01, 0.05])  # of the virtual qubits
    readout = np.tile([0.0, 1.0], (len(circuit.physical_qubits), 1))
    readout[list(plain.program.outputs)] = np.stack([p10 - p01, 1 - p01 - p10], 1)
    program = dataclasses.replace(plain.program, readout=readout)
    engine = Density(program, n_inputs=6, n_weights=len(circuit.weights), dtype=torch.float64)
    evolution = Evolution(get_target("fake_lima"), circuit, readout_error=False)
    arrays = torch.tensor(z), torch.tensor(w)
    for basis in ((3, 3, 3), (1, 2, 3), (2, 3, 1)):
        expected = evolution.probabilities(z[0], w, basis).reshape(2, 2, 2)  # axes: qubit 2, 1, 0
        for qubit in range(3):
            confusion = [[1 - p01[qubit], p10[qubit]], [p01[qubit], 1 - p10[qubit]]]
            expected = np.moveaxis(np.tensordot(confusion, expected, axes=(1, 2 - qubit)), 0, 2 - qubit)
        expected = expected.reshape(-1)
        assert np.abs(engine.probabilities(*arrays, basis).numpy()[0] - expected).max() < 1e-11
        signs = 1.0 - 2.0 * (np.arange(8)[:, None] >> np.arange(3) & 1)
        strings = [((1.0, tuple((q, basis[q]) for q in support)),) for support in ((0,), (1,), (2,), (0, 2), (0, 1, 2))]
        wanted = [expected @ signs[:, [q for q, _ in string[0][1]]].prod(1) for string in strings]
        assert np.abs(engine.values(strings, *arrays).numpy()[0] - wanted).max() < 1e-11


def test_many_strings_are_read_together_and_few_by_themselves() -> None:
    few = [frozenset({0}), frozenset({1}), frozenset({0, 1}), frozenset({4})]
    assert readings_module._supports(few) == [frozenset({0, 1}), frozenset({4})]
    triples = [frozenset(triple) for triple in combinations(range(5), 3)]
    assert readings_module._supports(triples[:2]) == triples[:2]
    pairs_of_four = [frozenset(pair) for pair in combinations(range(3), 2)] + [frozenset({0, 1, 2})]
    assert readings_module._supports(pairs_of_four) == [frozenset({0, 1, 2})]
    assert readings_module._supports([frozenset(four) for four in combinations(range(5), 4)]) == [frozenset(range(5))]
    # Either way the values are those of the evolution.
    circuit = reuploading("ideal", 4, "linear")
    z, w = both(circuit, 1, 3, by_row=False)
    labels = ["".join(letters) for letters in product("IXYZ", repeat=4)]
    for wanted in ((SparsePauliOp(labels, np.arange(1, 257) / 256),), tuple(SparsePauliOp(x) for x in labels[1:20])):
        got = density("ideal", circuit).values(sums(wanted), torch.tensor(z), torch.tensor(w))
        scale = max(1.0, float(np.abs(wanted[0].coeffs).sum()))
        assert np.abs(got.numpy() - exact("ideal", circuit, wanted, z, w)).max() < 1e-12 * scale


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("by_row", [False, True])
def test_on_a_gpu(*, by_row: bool) -> None:
    circuit, wanted = reuploading("fake_kyiv", 4, "sca"), sums(paulis(4, 1))
    here = density("fake_kyiv", circuit)
    there = Density(here.program, n_inputs=8, n_weights=len(circuit.weights), dtype=torch.float64, device="cuda")
    found = []
    for engine in (here, there):
        z, w = (torch.tensor(x, requires_grad=True) for x in both(circuit, 5, 1, by_row=by_row))
        values = engine.values(wanted, z, w)
        values.square().sum().backward()
        read = engine.probabilities(z, w, (1, 2, 3, 3))
        assert values.device.type == read.device.type == engine.device.type
        found.append([x.detach().cpu() for x in (values, z.grad, w.grad, read)])
    for a, b in zip(*found, strict=True):
        assert (a - b).abs().max() < 1e-11
