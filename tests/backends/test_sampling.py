import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.quantum_info import SparsePauliOp
from scipy.stats import chisquare

from backends.observables import pauli_sum
from backends.twin.density.evaluate import Density
from backends.twin.density.sampling import estimate, measurement_groups, sample
from circuits.compile import compile_ansatz
from circuits.errors import UsageError
from circuits.types import Ansatz
from tests.backends.test_density import both, density, paulis, reuploading, sums


def pair() -> Density:
    """cos(z/2 + pi/4) |00> + sin(z/2 + pi/4) |11> without noise; a Bell pair at z = 0."""
    z, circuit = Parameter("z"), QuantumCircuit(2)
    circuit.ry(z + np.pi / 2, 0)
    circuit.cx(0, 1)
    return density("ideal", compile_ansatz(Ansatz("pair", circuit, (z,), ()), None, seed=1))


def of(*labels: str):
    return tuple(pauli_sum(SparsePauliOp.from_list(list(_terms(label))), 2) for label in labels)


def _terms(label: str):
    for term in label.split("+"):
        yield (term[1:], -1.0) if term.startswith("-") else (term, 1.0)


BELL = (torch.zeros(5, 1), torch.zeros(0))


def test_a_bell_pairs_shots_agree() -> None:
    """Both qubits are read from the same shots: equal in Z and X, opposite in Y, and without spread together."""
    wanted = of("IZ", "ZI", "ZZ", "XX", "YY", "IX", "XI", "IZ+-ZI", "IZ+ZI", "II+XX")
    values, errors = estimate(pair(), wanted, *BELL, shots=200, rng=np.random.default_rng(4))
    z0, z1, zz, xx, yy, x0, x1, difference, total, shifted = values.T
    assert np.array_equal(z0, z1)
    assert np.array_equal(x0, x1)
    assert len(set(z0)) > 1  # rows have shots of their own
    for exactly, known in ((zz, 1.0), (xx, 1.0), (yy, -1.0), (difference, 0.0), (shifted, 2.0)):
        assert np.abs(exactly - known).max() < 1e-12
    assert np.abs(total - 2 * z0).max() < 1e-12
    assert np.abs(errors[:, [2, 3, 4, 7, 9]]).max() < 1e-12
    # Z0 + Z1 is +-2: twice the error of Z0, where independent qubits would have sqrt(2) times it.
    assert np.abs(errors[:, 8] - 2 * errors[:, 0]).max() < 1e-12
    assert np.abs(errors[:, 0] - np.sqrt((1 - z0**2) / 199)).max() < 1e-12


def test_groups_have_shots_of_their_own() -> None:
    values, errors = estimate(pair(), of("IZ", "IX", "IZ+IX"), *BELL, shots=100, rng=np.random.default_rng(4))
    assert not np.array_equal(values[:, 0], values[:, 1])
    assert np.abs(values[:, 2] - values[:, 0] - values[:, 1]).max() < 1e-12
    assert np.abs(errors[:, 2] ** 2 - errors[:, 0] ** 2 - errors[:, 1] ** 2).max() < 1e-12


@pytest.mark.parametrize("by_row", [False, True])
def test_estimates_scatter_as_their_errors_say(*, by_row: bool) -> None:
    """300 estimates of 3 observables on 2 rows: each mean within 5 sigma, each spread within 20 % (5 sigma)."""
    circuit, wanted = reuploading("fake_lima", 3, "full"), sums(paulis(3, 1))
    engine = density("fake_lima", circuit)
    z, w = (torch.tensor(x) for x in both(circuit, 2, 1, by_row=by_row))
    rng, repeats = np.random.default_rng(6), 300
    found = [estimate(engine, wanted, z, w, shots=400, rng=rng) for _ in range(repeats)]
    values, errors = (np.array(x) for x in zip(*found, strict=True))
    sigma = np.sqrt((errors**2).mean(0))
    assert sigma.min() > 1e-3
    assert np.abs((values.mean(0) - engine.values(wanted, z, w).numpy()) / sigma).max() < 5 / np.sqrt(repeats)
    assert np.abs(values.std(0, ddof=1) / sigma - 1).max() < 5 / np.sqrt(2 * repeats)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_counts_follow_the_joint_distribution(dtype: torch.dtype) -> None:
    """Chi-square over all bitstrings; each p-value above 1e-4 at this seed, where the right counts fail 1 in 1700."""
    circuit = reuploading("fake_kyiv", 3, "linear")
    engine = density("fake_kyiv", circuit, dtype=dtype)
    z, w = (torch.tensor(x) for x in both(circuit, 3, 2, by_row=False))
    for basis in (None, (1, 2, 3)):
        counts = sample(engine, z, w, shots=20_000, rng=np.random.default_rng(1), basis=basis)
        assert counts.dtype == np.int64
        assert (counts.sum(1) == 20_000).all()
        for row, expected in zip(counts, engine.probabilities(z, w, basis).double().numpy(), strict=True):
            assert chisquare(row, 20_000 * expected / expected.sum()).pvalue > 1e-4
            assert chisquare(row[::-1], 20_000 * expected / expected.sum()).pvalue < 1e-4  # bit order matters


def test_same_seed_same_shots() -> None:
    circuit, wanted = reuploading("fake_lima", 3, "full"), sums(paulis(3, 1))
    z, w = (torch.tensor(x) for x in both(circuit, 4, 1, by_row=True))
    first, second, other = (
        estimate(density("fake_lima", circuit), wanted, z, w, shots=100, rng=np.random.default_rng(seed))
        for seed in (5, 5, 6)
    )
    assert np.array_equal(first[0], second[0])
    assert np.array_equal(first[1], second[1])
    assert not np.array_equal(first[0], other[0])
    assert first[0].dtype == first[1].dtype == np.float64


def test_a_constant_one_shot_and_none() -> None:
    rng = np.random.default_rng(1)
    values, errors = estimate(pair(), (((1.5, ()), (0.5, ())), ()), *BELL, shots=1, rng=rng)
    assert (values == [2.0, 0.0]).all()
    assert not errors.any()
    values, errors = estimate(pair(), of("IZ", "II"), *BELL, shots=1, rng=rng)
    assert set(np.abs(values[:, 0])) == {1.0}
    assert np.isnan(errors[:, 0]).all()
    assert not errors[:, 1].any()
    empty = estimate(pair(), of("IZ", "XX"), BELL[0][:0], BELL[1], shots=10, rng=rng)
    assert empty[0].shape == empty[1].shape == (0, 2)
    for shots in (0, -5, 2.0, True):
        with pytest.raises(UsageError, match="shots"):
            estimate(pair(), of("IZ"), *BELL, shots=shots, rng=rng)  # type: ignore[arg-type]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), qubits=st.integers(1, 5))
def test_groups_hold_every_string_once_and_commute_qubit_by_qubit(seed: int, qubits: int) -> None:
    wanted = sums(paulis(qubits, seed))
    groups = measurement_groups(wanted, qubits)
    strings = [string for _, members in groups for string in members]
    assert sorted(strings) == sorted({factors for observable in wanted for _, factors in observable if factors})
    for basis, members in groups:
        assert len(basis) == qubits
        assert all(basis[qubit] == kind for string in members for qubit, kind in string)
    assert groups == measurement_groups(wanted, qubits)


def test_strings_of_z_are_one_group() -> None:
    assert measurement_groups(of("IZ", "ZI", "ZZ+II"), 2) == [((3, 3), (((0, 3),), ((1, 3),), ((0, 3), (1, 3))))]
