"""Symmetry verification: fewer errors under noise, nothing changed without, and a sentence where there is none."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.quantum_info import SparsePauliOp

from backends.aer import AerExecutor
from backends.catalog import get_target
from backends.mitigation.executor import MitigatedExecutor
from backends.mitigation.make import mitigated, techniques
from backends.mitigation.symmetry import MOST, Ratio, projector, readable
from backends.mitigation.types import Context, MitigationOptions, Part
from backends.observables import single_z
from backends.protocol import Executor, FloatArray, Request
from backends.twin.executor import TwinExecutor
from circuits.compile import compile_ansatz
from circuits.errors import QrunError, UsageError
from circuits.qgan import generator
from circuits.symmetry import PauliSymmetry, pauli_symmetries
from circuits.types import Ansatz, CompiledCircuit


def conserving(qubits: int, reps: int = 2) -> Ansatz:
    """Rotations that keep the parity of a state with every second qubit in 1."""
    z = ParameterVector("z", qubits - 1)
    w = ParameterVector("w", 2 * reps * (qubits - 1))
    circuit, left = QuantumCircuit(qubits), iter(w)
    circuit.x(range(0, qubits, 2))
    for k in range(qubits - 1):
        circuit.rxx(z[k], k, k + 1)
    for _ in range(reps):
        for k in range(qubits - 1):
            circuit.rzz(next(left), k, k + 1)
            circuit.ryy(next(left), k, k + 1)
    return Ansatz("conserving", circuit, tuple(z), tuple(w))


@cache
def asked(device: str, qubits: int = 3, observables: tuple[str, ...] = ()) -> Request:
    """For "ideal" a circuit of native gates too: the twin varies no rxx."""
    native = "fake_lima" if device == "ideal" else device
    circuit = compile_ansatz(conserving(qubits), get_target(native).backend, seed=1)
    random = np.random.default_rng(3)
    wanted = tuple(map(SparsePauliOp, observables)) or single_z(qubits)
    inputs = random.uniform(-np.pi, np.pi, (4, qubits - 1))
    return Request(circuit, wanted, inputs, random.uniform(-np.pi, np.pi, len(circuit.weights)))


def around(inner: Executor, device: str, *stack: str, exact: bool = True) -> MitigatedExecutor:
    found = mitigated(inner, get_target(device), MitigationOptions(stack=stack), exact=exact)
    assert isinstance(found, MitigatedExecutor)
    return found


def twin(device: str) -> TwinExecutor:
    return TwinExecutor(get_target(device))


def ideal(request: Request) -> FloatArray:
    values: FloatArray = twin("ideal").run([request])[0].values
    return values


def mean_error(values: FloatArray, request: Request) -> float:
    return float(np.abs(values - ideal(request)).mean())


@pytest.mark.parametrize("device", ["fake_kyiv", "fake_torino", "fake_lima"])
@pytest.mark.parametrize(
    ("stack", "times"), [(("symmetry",), 2), (("readout", "symmetry"), 2), (("symmetry", "zne"), 20)]
)
def test_the_error_falls(device: str, stack: tuple[str, ...], times: float) -> None:
    request, engine = asked(device), twin(device)
    plain = mean_error(engine.run([request])[0].values, request)
    verified = mean_error(around(engine, device, *stack).run([request])[0].values, request)
    assert verified < plain / times


def test_without_noise_nothing_changes() -> None:
    for observables in ((), ("ZZI", "XXI", "YYI", "IZZ"), ("ZZZ",)):
        request, engine = asked("ideal", observables=observables), twin("ideal")
        np.testing.assert_allclose(
            around(engine, "ideal", "symmetry").run([request])[0].values, engine.run([request])[0].values, atol=1e-12
        )


def test_it_is_the_projected_state() -> None:
    """Against Tr(O Pi rho) / Tr(Pi rho) of the density matrix, by way of the joint distribution."""
    request, engine = asked("fake_lima"), twin("fake_lima")
    shares = engine.probabilities(request.circuit, request.inputs, request.weights)
    index = np.arange(8)
    kept = shares * (np.bitwise_count(index) % 2 == 0)  # two qubits start in 1
    expected = np.stack([(kept @ (1 - 2 * (index >> q & 1))) / kept.sum(1) for q in range(3)], axis=1)
    np.testing.assert_allclose(around(engine, "fake_lima", "symmetry").run([request])[0].values, expected, atol=1e-12)


def test_one_call_as_many_circuits_and_no_more_observables_than_it_takes() -> None:
    (technique,) = techniques(Context(get_target("ideal"), MitigationOptions(stack=("symmetry",)), True))
    request = asked("ideal")
    expansion = technique.expand(request)  # type: ignore[arg-type]
    (part,) = expansion.parts
    assert part.circuit is request.circuit
    assert len(part.observables) == 3 + 1
    assert [len(each) for each in part.observables] == [2] * 4
    assert technique.circuits(request.circuit, 7) == 7


def test_gradients_go_through_the_ratio() -> None:
    request = asked("fake_lima")
    engine = around(twin("fake_lima"), "fake_lima", "symmetry")
    weights = torch.tensor(request.weights, requires_grad=True)
    inputs = torch.tensor(request.inputs)

    def total(at: torch.Tensor) -> torch.Tensor:
        return engine.expectations(request.circuit, request.observables, inputs, at).square().sum()

    (gradient,) = torch.autograd.grad(total(weights), weights)
    step, direction = 1e-4, torch.tensor(np.random.default_rng(0).normal(size=len(weights)))
    with torch.no_grad():
        slope = (total(weights + step * direction) - total(weights - step * direction)) / (2 * step)
    assert gradient.abs().max() > 0.01
    assert float(gradient @ direction) == pytest.approx(float(slope), rel=1e-6)


def test_standard_errors_are_those_of_repetitions() -> None:
    """300 runs of 400 shots: a standard deviation is known to 4 % then, and 5 of these are allowed."""
    request = asked("fake_lima")
    for stack in (("symmetry",), ("readout", "symmetry")):
        engine = around(AerExecutor(get_target("fake_lima"), shots=400), "fake_lima", *stack, exact=False)
        repeated = Request(request.circuit, request.observables, np.tile(request.inputs[:1], (300, 1)), request.weights)
        found = engine.run([repeated], seed=1)[0]
        seen, said = found.values.std(0), found.standard_errors.mean(0)
        assert (said > 0.8 * seen).all()
        # With readout below, the covariance is left out, and the error is stated too large.
        assert (said < (1.2 if stack == ("symmetry",) else 2.0) * seen).all()


def test_the_error_from_the_same_shots_is_that_of_the_shots_that_pass() -> None:
    """For a Pauli string r = N / D has the variance (1 - r^2) / (D shots), as a mean over D shots of them has."""
    part, shots = Part(asked("ideal").circuit, ()), 1000
    r, kept = np.array([0.9, -0.5, 1.0]), 0.7
    value = np.array([[*(r * kept), kept]])
    squares = np.array([[*(kept - (r * kept) ** 2), kept - kept**2]])
    error = np.sqrt(squares / shots)
    same = Ratio((part,), (0, 0, 0), (0.5,), (True,) * 3).spread([value], [error])
    np.testing.assert_allclose(same, np.sqrt((1 - r**2) / (kept * shots))[None], atol=1e-9)
    apart = Ratio((part,), (0, 0, 0), (0.5,), (False,) * 3).spread([value], [error])
    np.testing.assert_allclose(apart, np.sqrt(error[:, :3] ** 2 + (r * error[:, 3:]) ** 2) / kept)
    # Errors that cannot be those of the same shots are taken as they are.
    odd = Ratio((part,), (0,), (0.5,), (True,)).spread([np.array([[0.6, 0.7]])], [np.array([[0.001, 0.02]])])
    assert odd[0, 0] > 0.02


def test_the_readings_that_go_with_an_observable() -> None:
    bell = (PauliSymmetry("XX", 1), PauliSymmetry("ZZ", -1))
    assert list(map(str, readable(bell, SparsePauliOp("IZ")))) == ["-ZZ"]
    assert list(map(str, readable(bell, SparsePauliOp("XI")))) == []  # Z on the other qubit, X on this
    assert list(map(str, readable(bell, SparsePauliOp("XX")))) == ["+XX"]
    assert list(map(str, readable(bell, SparsePauliOp("YY")))) == ["+YY"]
    assert readable(bell, SparsePauliOp(["XI", "ZI"])) == ()
    np.testing.assert_allclose(
        projector(readable(bell, SparsePauliOp("IZ"))).to_matrix(), np.diag([0, 1, 1, 0]), atol=1e-15
    )


def test_no_more_symmetries_than_strings_can_be_had() -> None:
    plus = tuple(PauliSymmetry("I" * (7 - k) + "Z" + "I" * k, (-1) ** k) for k in range(8))
    found = readable(plus, SparsePauliOp("I" * 8))
    assert len(found) == MOST
    assert len(projector(found)) == 2**MOST


def test_an_observable_that_goes_with_none_stays_as_it_is() -> None:
    request, engine = asked("fake_lima", observables=("IIX", "IIZ")), twin("fake_lima")
    plain, verified = engine.run([request])[0].values, around(engine, "fake_lima", "symmetry").run([request])[0].values
    np.testing.assert_array_equal(plain[:, 0], verified[:, 0])
    assert (plain[:, 1] != verified[:, 1]).all()


def test_no_symmetry_is_said() -> None:
    engine = around(twin("ideal"), "ideal", "symmetry")
    circuit = compile_ansatz(generator(2, 1), None, seed=0)
    request = Request(circuit, single_z(2), np.zeros((1, 2)), np.zeros(len(circuit.weights)))
    with pytest.raises(UsageError, match=r"has no Pauli symmetry.*rzz, rxx and ryy.*Leave symmetry out"):
        engine.run([request])
    request = asked("ideal", observables=("IIX",))
    with pytest.raises(UsageError, match=r"no Pauli symmetry of conserving can be read.*\+ZZZ"):
        engine.run([request])


@pytest.mark.parametrize("other", ["pec", "cdr"])
def test_techniques_that_run_other_states_are_refused(other: str) -> None:
    options = MitigationOptions(stack=("readout", "symmetry", other))
    with pytest.raises(UsageError, match=rf"symmetry and {other} do not go together.*Take readout\+{other}"):
        techniques(Context(get_target("fake_lima"), options, True))


def test_nothing_left_to_verify_is_said() -> None:
    circuit: CompiledCircuit = asked("ideal").circuit
    ratio = Ratio((Part(circuit, ()),), (0, 1), (0.5,), (True, False))
    good = ratio.combine([torch.tensor([[0.3, 0.2, 0.6]], dtype=torch.float64)])
    np.testing.assert_allclose(good.numpy(), [[0.5, 0.2]])
    for bad in (0.1, -0.3, float("nan")):
        with pytest.raises(QrunError, match=r"is left with .*50\.0% would pass"):
            ratio.combine([torch.tensor([[0.3, 0.2, bad]])])


def test_the_ansatz_of_these_tests_has_the_parity_alone() -> None:
    assert list(map(str, pauli_symmetries(conserving(3)))) == ["+ZZZ"]
