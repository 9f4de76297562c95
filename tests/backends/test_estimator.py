import copy
import math
import pickle
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.primitives import BackendEstimatorV2, BaseEstimatorV2, StatevectorEstimator
from qiskit.providers.fake_provider import GenericBackendV2
from qiskit.quantum_info import SparsePauliOp, Statevector, random_unitary
from qiskit.transpiler import generate_preset_pass_manager
from qiskit_aer import AerSimulator
from qiskit_aer.noise import NoiseModel

from backends.catalog import get_target
from backends.protocol import Request
from backends.twin.executor import TwinExecutor
from backends.twin.primitives.estimator import TwinEstimator, shots_for
from circuits.errors import UsageError
from tests.backends.isa import angles, encoder, exact, paulis, reference, transpiled

LIMA = get_target("fake_lima").backend


@pytest.mark.parametrize(
    ("device", "kind", "qubits", "readout_error"),
    [
        ("fake_kyiv", "circular", 4, True),
        ("fake_kyiv", "linear", 3, False),
        ("fake_kyiv", "feature_map", 3, True),
        ("fake_torino", "full", 3, True),
        ("fake_lima", "feature_map", 3, True),
    ],
)
def test_equals_the_evolution_through_a_whole_transpile(
    device: str, kind: str, qubits: int, readout_error: bool
) -> None:
    isa, wanted = transpiled(device, kind, qubits), paulis(qubits, 3)
    rows = angles(isa, 3, 4)
    estimator = TwinEstimator(get_target(device).backend, readout_error=readout_error)
    laid_out = [observable.apply_layout(isa.layout) for observable in wanted]
    result = estimator.run([(isa, [[o] for o in laid_out], rows)]).result()[0]
    there = exact(reference(device, isa, qubits, readout_error=readout_error), wanted, rows)
    assert isa.num_qubits == get_target(device).num_qubits
    assert np.abs(result.data.evs - there.T).max() < 1e-10
    assert not result.data.stds.any()
    assert result.metadata["shots"] is None
    assert result.metadata["engine"] == "twin"
    assert result.metadata["path"] in ("heisenberg", "density")
    assert result.metadata["why"]
    single = TwinEstimator(get_target(device), readout_error=readout_error, dtype="float32")
    rough = single.run([(isa, [[o] for o in laid_out], rows)]).result()[0]
    assert np.abs(rough.data.evs - there.T).max() < 3e-5


def test_waiting_qubits() -> None:
    """idle_noise is the engine's: the same as on the circuit that the layout gives, and not the same as without."""
    isa, rows = transpiled("fake_kyiv", "circular", 4), angles(transpiled("fake_kyiv", "circular", 4), 2)
    wanted, target = paulis(4, 3), get_target("fake_kyiv")
    pub = isa, [[o.apply_layout(isa.layout)] for o in wanted], rows
    circuit = reference("fake_kyiv", isa, 4).circuit
    (there,) = TwinExecutor(target, idle_noise=True).run([Request(circuit, wanted, np.zeros((2, 0)), rows)])
    waiting = TwinEstimator(target, idle_noise=True).run([pub]).result()[0].data.evs
    assert np.abs(waiting - there.values.T).max() < 1e-12
    assert np.abs(waiting - TwinEstimator(target).run([pub]).result()[0].data.evs).max() > 1e-4


@pytest.fixture(scope="module")
def noiseless() -> GenericBackendV2:
    return GenericBackendV2(5, noise_info=False, seed=1)


SHAPES = (
    ((), ()),
    ((3,), ()),
    ((), (2,)),
    ((3,), (3,)),
    ((3, 1), (2,)),
    ((3,), (2, 1)),
    ((2, 3), (2, 1)),
    ((1,), (4,)),
    ((0,), ()),
    ((0, 1), (2,)),
)


@pytest.mark.filterwarnings("ignore::circuits.errors.QrunWarning")
@settings(max_examples=25, deadline=None)
@given(shapes=st.sampled_from(SHAPES), seed=st.integers(0, 2**16), distinct=st.integers(1, 4))
def test_broadcasts_as_qiskits_own_estimator(
    noiseless: GenericBackendV2, shapes: tuple[tuple[int, ...], tuple[int, ...]], seed: int, distinct: int
) -> None:
    """Without noise the twin and qiskit's state vector agree in every shape, also where observables repeat."""
    manager = generate_preset_pass_manager(1, backend=noiseless, seed_transpiler=1)
    isa = manager.run(encoder(3, 1))
    random = np.random.default_rng(seed)
    pool = [o.apply_layout(isa.layout) for o in paulis(3, seed)][-distinct:]
    observables = np.empty(shapes[1], dtype=object)
    for index in np.ndindex(*shapes[1]):
        observables[index] = pool[random.integers(len(pool))]
    rows = random.uniform(-3, 3, (*shapes[0], isa.num_parameters))
    if len(shapes[0]) and shapes[0][0] > 1:
        rows[-1] = rows[0]
    chosen = observables.tolist() if shapes[1] else observables[()]
    pubs = [(isa, chosen, rows), (isa, pool[0], rows)]
    ours, theirs = TwinEstimator(noiseless).run(pubs).result(), StatevectorEstimator().run(pubs).result()
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.data.evs.shape == mine.data.stds.shape == other.data.evs.shape == mine.data.shape
        assert np.allclose(mine.data.evs, other.data.evs, atol=1e-12)
        assert mine.metadata["target_precision"] == 0.0


def test_the_order_of_parameters_is_the_pubs() -> None:
    """Bindings by name, in another order than the circuit's, and a parameter that is in the global phase alone."""
    a, b, phase = Parameter("a"), Parameter("b"), Parameter("a0")
    circuit = QuantumCircuit(5, global_phase=phase)
    circuit.sx(1)
    circuit.rz(a, 1)
    circuit.sx(1)
    circuit.rz(2 * b, 3)
    circuit.sx(3)
    estimator, z = TwinEstimator(LIMA), ["IIIZI", "IYIII"]
    pub = (circuit, z, {("b", "a"): [0.3, 0.7], "a0": 0.1})
    mixed = estimator.run([pub]).result()[0].data.evs
    plain = estimator.run([(circuit, z, [0.7, 0.1, 0.3])]).result()[0].data.evs  # a, a0, b
    assert np.array_equal(mixed, plain)
    bound = circuit.assign_parameters({a: 0.7, b: 0.3, phase: 0.1})
    assert np.abs(estimator.run([(bound, z)]).result()[0].data.evs - plain).max() < 1e-14


def test_observables_on_qubits_without_a_gate() -> None:
    circuit = QuantumCircuit(2)
    circuit.sx(0)
    p01, p10 = get_target("fake_lima").readout_errors(1)
    for precision, tolerance in ((0.0, 1e-14), (0.004, 0.02)):
        estimator = TwinEstimator(LIMA, default_precision=precision, seed=3)
        evs = estimator.run([(circuit, ["ZI", "XI", "II", {"ZI": 0.5, "II": 2.0}])]).result()[0].data.evs
        assert evs == pytest.approx([1 - 2 * p01, p10 - p01, 1.0, 2.5 - p01], abs=tolerance)


def test_many_pubs_of_one_circuit_are_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    isa = transpiled("fake_lima", "linear", 3)
    rows, wanted = angles(isa, 6, 1), [o.apply_layout(isa.layout) for o in paulis(3)]
    estimator, calls = TwinEstimator(LIMA), []
    engine = estimator.executor(None)
    monkeypatch.setattr(engine, "run", lambda asked, seed: calls.append(len(asked)) or type(engine).run(engine, asked))
    together = estimator.run([(isa, wanted, rows[:1])] + [(isa, o, row) for o in wanted for row in rows]).result()
    assert calls == [1]
    alone = estimator.run([(isa, wanted[1], rows[2])]).result()[0]
    assert np.abs(together[1 + 6 + 2].data.evs - alone.data.evs) < 1e-14
    # A diagonal of many cells is not worth the whole table.
    calls.clear()
    diagonal = estimator.run([(isa, wanted, rows[:4])]).result()[0]
    assert calls == [4]
    assert diagonal.data.evs[1] == pytest.approx(together[1 + 6 + 1].data.evs, abs=1e-14)


def z_scores(estimator: BaseEstimatorV2, pub: tuple[object, ...], values: np.ndarray, precision: float) -> np.ndarray:
    data = estimator.run([pub], precision=precision).result()[0].data
    return (data.evs - values) / data.stds


@pytest.mark.parametrize("kind", ["linear", "feature_map"])
def test_samples_scatter_about_the_exact_values(kind: str) -> None:
    """32 x 3 single Z: every one within 5 sigma (a sound sampler fails with 6e-5), the mean square near 1.

    The mean square of 96 z-scores, at least 32 of them independent (chi-square, 32 degrees), is between 0.4 and 2 but
    for 1e-3. Seeds are fixed.
    """
    isa = transpiled("fake_lima", kind, 3)
    rows, wanted = angles(isa, 32, 2), [[o.apply_layout(isa.layout)] for o in paulis(3)[:3]]
    estimator = TwinEstimator(LIMA, seed=5)
    there = estimator.run([(isa, wanted, rows)]).result()[0].data.evs
    scores = z_scores(estimator, (isa, wanted, rows), there, 1 / 64)
    assert np.abs(scores).max() < 5
    assert 0.4 < (scores**2).mean() < 2
    wrong = TwinEstimator(LIMA, readout_error=False, seed=5)
    assert np.abs(z_scores(wrong, (isa, wanted, rows), there, 1 / 256)).max() > 5, "the test sees readout errors"


def test_agrees_with_qiskits_estimator_on_aer() -> None:
    """BackendEstimatorV2 on Aer's noise model, 40000 shots, Z and ZZ, so that no rotation adds errors of its own.

    20 estimates within 5 of their sigma: a sound pair fails with about 1e-5. Its stds for sums of strings are bounds,
    hence single strings.
    """
    isa = transpiled("fake_lima", "linear", 3)
    rows = 0.3 * angles(isa, 5, 9)  # near |000>, where readout errors weigh most
    wanted = [[SparsePauliOp(s).apply_layout(isa.layout)] for s in ("IIZ", "ZII", "IZZ", "ZZZ")]
    aer = AerSimulator(noise_model=NoiseModel.from_backend(LIMA), method="density_matrix")
    stock = BackendEstimatorV2(backend=aer, options={"seed_simulator": 11})
    there = TwinEstimator(LIMA).run([(isa, wanted, rows)]).result()[0].data.evs
    assert np.abs(z_scores(stock, (isa, wanted, rows), there, 0.005)).max() < 5
    ideal = TwinEstimator(LIMA, readout_error=False).run([(isa, wanted, rows)]).result()[0].data.evs
    assert np.abs(z_scores(stock, (isa, wanted, rows), ideal, 0.005)).max() > 5, "the test sees readout errors"


def test_seeds() -> None:
    isa = transpiled("fake_lima", "linear", 2)
    pub = (isa, SparsePauliOp("ZZ").apply_layout(isa.layout), np.repeat(angles(isa, 1), 3, axis=0))

    def draw(seed: object) -> tuple[np.ndarray, np.ndarray]:
        estimator = TwinEstimator(LIMA, default_precision=0.05, seed=seed)  # type: ignore[arg-type]
        return tuple(np.concatenate([r.data.evs for r in estimator.run([pub, pub]).result()]) for _ in range(2))  # type: ignore[return-value]

    first, second = draw(3)
    assert np.array_equal(first, draw(3)[0])
    assert np.array_equal(second, draw(3)[1])
    assert np.array_equal(first, draw(np.random.default_rng(3))[0])
    assert not np.array_equal(first, second), "every run draws afresh"
    assert not np.array_equal(first, draw(4)[0])
    assert len(set(first)) > 3, "equal parameter sets and equal PUBs are sampled apart"


def test_precisions() -> None:
    isa = transpiled("fake_lima", "linear", 2)
    pub = isa, SparsePauliOp("ZZ").apply_layout(isa.layout), angles(isa, 1)[0]
    estimator = TwinEstimator(LIMA, default_precision=0.1, seed=1)
    runs = estimator.run([pub, (*pub, 0.0), (*pub, 0.5)]).result()
    assert [r.metadata["shots"] for r in runs] == [100, None, 4]
    assert [r.metadata["target_precision"] for r in runs] == [0.1, 0.0, 0.5]
    assert [r.data.evs.shape for r in runs] == [()] * 3
    assert TwinEstimator(LIMA, exact=True).run([pub], precision=0.1).result()[0].data.evs == runs[1].data.evs
    for shots in (1, 7, 1000, 4096):
        assert shots_for(1 / math.sqrt(shots) * (1 + 1e-12)) == shots
    for tiny in (1e-6, 1e-200):
        with pytest.raises(UsageError, match=r"would take .* shots. Take precision 0"):
            estimator.run([pub], precision=tiny)


def test_wrong_inputs_are_said_at_once() -> None:
    isa, estimator = transpiled("fake_lima", "linear", 2), TwinEstimator(LIMA)
    with pytest.raises(UsageError, match=r"not one for fake_lima: ry on qubit 0.*Transpile it for this device"):
        estimator.run([(encoder(2, 1), "ZZ", angles(encoder(2, 1), 1))])
    with pytest.raises(ValueError, match="number of qubits"):
        estimator.run([(isa, "ZZ", angles(isa, 1))])
    with pytest.raises(ValueError, match="number of values"):
        estimator.run([(isa, "Z" * 5)])
    with pytest.raises(UsageError, match="is nan"):
        estimator.run([(isa, "Z" * 5, np.full(isa.num_parameters, np.nan))]).result()
    with pytest.raises(UsageError, match="default_precision must be 0"):
        TwinEstimator(LIMA, default_precision=-1)
    for seed in (-1, 1.5, True):
        with pytest.raises(UsageError, match="the seed must be a whole number"):
            TwinEstimator(LIMA, seed=seed)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="threads must be 1 or more"):
        TwinEstimator(LIMA, threads=0)


def test_options_are_what_they_say() -> None:
    isa = transpiled("fake_lima", "linear", 2)
    for option in ("readout_error", "idle_noise", "exact"):
        for wrong in ("no", 0, None):
            with pytest.raises(UsageError, match=f"{option} must be True or False, not"):
                TwinEstimator(LIMA, **{option: wrong})  # type: ignore[arg-type]
    for wrong in (-1, math.nan, math.inf, "a", True, None):
        with pytest.raises(UsageError, match="default_precision must be 0"):
            TwinEstimator(LIMA, default_precision=wrong)  # type: ignore[arg-type]
    for wrong in (-1, math.nan, "a"):
        with pytest.raises(UsageError, match="precision must be 0"):
            TwinEstimator(LIMA).run([(isa, "Z" * 5, angles(isa, 1))], precision=wrong)  # type: ignore[arg-type]
    assert TwinEstimator(LIMA, default_precision=np.float32(0.5)).default_precision == 0.5


@pytest.mark.parametrize("again", [copy.deepcopy, lambda estimator: pickle.loads(pickle.dumps(estimator))])
def test_copies(again: Callable[[TwinEstimator], TwinEstimator]) -> None:
    """The same options; the draws go on from where they were, in each by itself."""
    isa = transpiled("fake_lima", "linear", 2)
    exact_, sampled = ((isa, "ZZZZZ", angles(isa, 2), precision) for precision in (0.0, 0.1))
    estimator = TwinEstimator(LIMA, seed=4, readout_error=False, idle_noise=True, default_precision=0.25)
    first = estimator.run([sampled, exact_]).result()
    twin = again(estimator)
    assert twin.default_precision == 0.25
    mine, its = (e.run([sampled, exact_]).result() for e in (estimator, twin))
    assert np.array_equal(mine[0].data.evs, its[0].data.evs)
    assert np.array_equal(mine[1].data.evs, its[1].data.evs)
    assert np.array_equal(mine[1].data.evs, first[1].data.evs)
    assert not np.array_equal(mine[0].data.evs, first[0].data.evs)
    assert twin.executor(None) is not estimator.executor(None)


def test_imports_nothing_of_qruns_machinery() -> None:
    code = (
        "import sys; from qrun import TwinEstimator, TwinSampler, TwinModule\n"
        "roots = {name.split('.')[0] for name in sys.modules}\n"
        "machinery = {'runner', 'contracts', 'experiments', 'web3', 'qiskit_aer', 'qiskit_ibm_runtime', 'mitiq'}\n"
        "assert not roots & (machinery | {'qiskit_machine_learning'}), roots & machinery\n"
        "from qrun import TwinEstimatorGradient\n"
        "roots = {name.split('.')[0] for name in sys.modules}\n"
        "assert not roots & machinery, roots & machinery\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_gates_of_ones_own_on_targets_that_take_any() -> None:
    circuit = QuantumCircuit(2)
    circuit.unitary(random_unitary(4, seed=1), [0, 1])
    for angle in (1.0, 2.0):
        inner = QuantumCircuit(1, name="mine")
        inner.rx(angle, 0)
        circuit.append(inner.to_gate(), [0])
    observable = SparsePauliOp(["ZZ", "XI", "IY"], [1.0, 0.5, 0.2])
    (result,) = TwinEstimator(get_target("ideal")).run([(circuit, observable)]).result()
    assert result.data.evs == pytest.approx(Statevector(circuit).expectation_value(observable).real, abs=1e-12)
