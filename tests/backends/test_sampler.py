import copy
import pickle
from collections.abc import Callable

import numpy as np
import pytest
from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister
from qiskit.circuit import Parameter
from qiskit.primitives import StatevectorSampler
from qiskit.providers.fake_provider import GenericBackendV2
from qiskit.transpiler import generate_preset_pass_manager

from backends.catalog import get_target
from backends.twin.primitives.sampler import TwinSampler
from circuits.errors import UsageError
from tests.backends.isa import angles, encoder, reference, transpiled

LIMA = get_target("fake_lima").backend


def measured(isa: QuantumCircuit, qubits: int) -> QuantumCircuit:
    """The circuit with a measurement of each virtual qubit where it ends."""
    circuit = isa.copy()
    register = ClassicalRegister(qubits, "meas")
    circuit.add_register(register)
    circuit.measure(isa.layout.final_index_layout(), register)
    return circuit


def chi_square(counts: np.ndarray, probabilities: np.ndarray) -> float:
    expected = counts.sum() * probabilities
    return float(((counts - expected) ** 2 / expected).sum())


@pytest.mark.parametrize(
    ("device", "kind", "qubits", "readout_error"),
    [("fake_kyiv", "circular", 3, True), ("fake_torino", "linear", 3, False), ("fake_lima", "feature_map", 3, True)],
)
def test_draws_from_the_evolutions_distribution(device: str, kind: str, qubits: int, readout_error: bool) -> None:
    """Pearson's statistic of 40000 shots over 8 outcomes: chi-square with 7 degrees, beyond 35 with 1e-5.

    Three parameter sets on three devices make nine of them: a sound sampler fails with 1e-4. Seeds are fixed.
    """
    isa = transpiled(device, kind, qubits)
    rows = 0.4 * angles(isa, 3, 8)
    sampler = TwinSampler(get_target(device).backend, readout_error=readout_error, seed=2)
    data = sampler.run([(measured(isa, qubits), rows)], shots=40_000).result()[0].data.meas
    assert (data.shape, data.num_bits, data.num_shots) == ((3,), 3, 40_000)
    evolution = reference(device, isa, qubits, readout_error=readout_error)
    other = reference(device, isa, qubits, readout_error=not readout_error)
    seen = []
    for row, angle in enumerate(rows):
        counts = np.bincount([int(key, 2) for key in data[row].get_bitstrings()], minlength=8)
        assert chi_square(counts, evolution.probabilities(np.zeros(0), angle)) < 35
        seen.append(chi_square(counts, other.probabilities(np.zeros(0), angle)))
    assert max(seen) > 35, "the test sees readout errors"


@pytest.mark.filterwarnings("ignore::circuits.errors.QrunWarning")
@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0,), (1,)])
def test_shapes_are_those_of_qiskits_own_sampler(shape: tuple[int, ...]) -> None:
    """Several registers, one of more than eight bits, bits that are not measured, bits out of order."""
    noiseless = GenericBackendV2(4, noise_info=False, seed=1)
    isa = generate_preset_pass_manager(1, backend=noiseless, initial_layout=[0, 1, 2], seed_transpiler=1).run(
        encoder(3, 1)
    )
    wires = isa.layout.final_index_layout()
    first, second = ClassicalRegister(2, "first"), ClassicalRegister(11, "second")
    isa.add_register(first, second)
    isa.barrier()
    isa.measure([wires[0], wires[2], wires[1]], [second[9], first[1], second[0]])
    rows = np.random.default_rng(1).uniform(-3, 3, (*shape, isa.num_parameters))
    ours = TwinSampler(noiseless, seed=1).run([(isa, rows)], shots=3000).result()[0]
    theirs = StatevectorSampler(seed=1).run([(isa, rows)], shots=3000).result()[0]
    assert ours.data.shape == theirs.data.shape == shape
    assert ours.metadata["shots"] == 3000
    for name in ("first", "second"):
        mine, other = ours.data[name], theirs.data[name]
        assert (mine.shape, mine.num_bits, mine.num_shots) == (other.shape, other.num_bits, other.num_shots)
        assert mine.array.shape == other.array.shape
        for index in np.ndindex(*shape):
            for bit in range(mine.num_bits):
                shares = [sample[index].slice_bits(bit).get_int_counts().get(1, 0) / 3000 for sample in (mine, other)]
                # Two binomials of 3000 shots: 5 sigma is at most 5 sqrt(2 / 4 / 3000) = 0.065.
                assert abs(shares[0] - shares[1]) < 0.065
                assert shares[0] > 0 or (name, bit) not in {("first", 1), ("second", 0), ("second", 9)}
    for index in np.ndindex(*shape):
        together = [
            np.char.add(*(s.data[n][index].get_bitstrings() for n in ("first", "second"))) for s in (ours, theirs)
        ]
        known = sorted(set(together[0]) | set(together[1]))
        shares = [np.array([(bits == key).mean() for key in known]) for bits in together]
        assert np.abs(shares[0] - shares[1]).max() < 0.065, "registers are sampled together"


def test_bits_and_bytes() -> None:
    """A basis state tells every bit: qubit q in |1> where q is even."""
    circuit = QuantumCircuit(QuantumRegister(5), ClassicalRegister(3, "a"), ClassicalRegister(9, "b"))
    for qubit in (0, 2, 4):
        circuit.x(qubit)
    circuit.measure([0, 1, 2, 3, 4], [11, 0, 1, 4, 3])
    data = TwinSampler(LIMA, readout_error=False, default_shots=50).run([circuit]).result()[0].data
    top = {name: max(data[name].get_counts(), key=data[name].get_counts().get) for name in ("a", "b")}
    assert top == {"a": "010", "b": "100000001"}


def test_measured_qubits_without_a_gate_read_as_their_readout_errors_say() -> None:
    """measure_all on a whole device of 127 qubits, three of which have gates."""
    target = get_target("fake_kyiv")
    isa = transpiled("fake_kyiv", "linear", 3).copy()
    isa.measure_all()
    bound = isa.assign_parameters(angles(isa, 1)[0])
    data = TwinSampler(target.backend, seed=4).run([bound], shots=20_000).result()[0].data.meas
    assert data.num_bits == 127
    used = set(isa.layout.final_index_layout())
    shares = data.to_bool_array(order="little").mean(0)
    for qubit in set(range(127)) - used:
        p01, _ = target.readout_errors(qubit)
        assert abs(shares[qubit] - p01) < 5 * np.sqrt(max(p01, 1e-4) * (1 - p01) / 20_000)
    clean = TwinSampler(target, readout_error=False, seed=4).run([bound], shots=100).result()[0].data.meas
    assert not clean.to_bool_array(order="little")[:, sorted(set(range(127)) - used)].any()


def test_large_batches_go_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    isa = transpiled("fake_lima", "linear", 2)
    pub = measured(isa, 2), angles(isa, 7)
    whole = TwinSampler(LIMA, seed=1).run([pub], shots=20).result()[0].data.meas
    monkeypatch.setattr("backends.twin.primitives.sampler._CHUNK", 4 * 3)
    parts = TwinSampler(LIMA, seed=1).run([pub], shots=20).result()[0].data.meas
    assert np.array_equal(whole.array, parts.array)


def test_seeds_and_shots() -> None:
    isa = measured(transpiled("fake_lima", "linear", 2), 2)
    pub = isa, np.repeat(angles(isa, 1), 2, axis=0)

    def draw(seed: object) -> list[np.ndarray]:
        sampler = TwinSampler(LIMA, default_shots=60, seed=seed)  # type: ignore[arg-type]
        return [r.data.meas.array for _ in range(2) for r in sampler.run([pub, pub]).result()]

    first = draw(3)
    assert all(np.array_equal(a, b) for a, b in zip(first, draw(3), strict=True))
    assert not np.array_equal(first[0], draw(4)[0])
    rows = [row for pair in first for row in pair]
    assert all(not np.array_equal(a, b) for i, a in enumerate(rows) for b in rows[:i]), "rows, PUBs and runs differ"
    sampler = TwinSampler(LIMA, default_shots=60)
    shots = [r.metadata["shots"] for r in sampler.run([pub, (*pub, 5)]).result()]
    assert shots == [60, 5]
    assert sampler.run([pub], shots=9).result()[0].data.meas.num_shots == 9


def test_wrong_inputs() -> None:
    sampler, isa = TwinSampler(LIMA), transpiled("fake_lima", "linear", 2)
    with pytest.raises(UsageError, match=r"measures nothing. Add measurements"):
        sampler.run([(isa, angles(isa, 1))])
    strange = QuantumCircuit(2, 1)
    strange.h(0)
    strange.measure(0, 0)
    with pytest.raises(UsageError, match="not one for fake_lima: h on qubit 0"):
        sampler.run([strange])
    early = QuantumCircuit(2, 1)
    early.measure(0, 0)
    early.sx(0)
    with pytest.raises(UsageError, match="measures qubit 0 before the end"):
        sampler.run([early])
    for shots in (0, 1.5, True, 2**31):
        with pytest.raises(UsageError, match="shots must be a whole number from 1"):
            sampler.run([measured(isa, 2)], shots=shots)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="shots must be a whole number from 1"):
            TwinSampler(LIMA, default_shots=shots)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="number of values"):
        sampler.run([measured(isa, 2)])
    free = QuantumCircuit(1, 1)
    free.rz(Parameter("a"), 0)
    free.measure(0, 0)
    with pytest.raises(UsageError, match="is nan"):
        sampler.run([(free, [np.nan])]).result()


def test_options_are_what_they_say() -> None:
    for option in ("readout_error", "idle_noise"):
        with pytest.raises(UsageError, match=f"{option} must be True or False, not 'no'"):
            TwinSampler(LIMA, **{option: "no"})  # type: ignore[arg-type]
    for seed in (-1, 1.5, "a"):
        with pytest.raises(UsageError, match="the seed must be a whole number"):
            TwinSampler(LIMA, seed=seed)  # type: ignore[arg-type]


@pytest.mark.parametrize("again", [copy.deepcopy, lambda sampler: pickle.loads(pickle.dumps(sampler))])
def test_copies(again: Callable[[TwinSampler], TwinSampler]) -> None:
    """The same options; the draws go on from where they were, in each by itself."""
    isa = measured(transpiled("fake_lima", "linear", 2), 2)
    sampler, pub = TwinSampler(LIMA, seed=4, default_shots=60), (isa, angles(isa, 1))
    first = sampler.run([pub]).result()[0].data.meas.array
    twin = again(sampler)
    mine, its = (s.run([pub]).result()[0].data.meas.array for s in (sampler, twin))
    assert np.array_equal(mine, its)
    assert mine.shape[1] == 60
    assert not np.array_equal(mine, first)
