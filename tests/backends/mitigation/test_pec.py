"""Probabilistic error cancellation: representations against Mitiq's and by algebra, the sampling, and what it gains."""

from __future__ import annotations

import itertools
from dataclasses import replace

import cirq
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mitiq.pec.representations import represent_operation_with_global_depolarizing_noise
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.circuit.library import CZGate, RZGate, SXGate, XGate
from qiskit.quantum_info import Operator
from qiskit.transpiler import InstructionProperties
from qiskit.transpiler import Target as QiskitTarget

from backends.catalog import get_target
from backends.mitigation.pec import Pec, represent, sample
from backends.mitigation.tokens import Token
from backends.mitigation.types import Asked, Context, MitigationOptions
from backends.observables import single_z
from backends.target import DeviceBackend, Target
from backends.twin.channels import Channels
from backends.twin.executor import TwinExecutor
from backends.twin.pauli import depolarising, product, ptm_of_unitary, thermal_relaxation
from circuits.errors import UsageError
from circuits.types import Ansatz, CompiledCircuit
from tests.backends.mitigation.devices import DEVICES, around, compiled, expand, noiseless, request, technique, twin

PAULIS = [ptm_of_unitary(Operator.from_label(letter).data) for letter in "IXYZ"]


def device(two: float | None, one: float | None, qubits: int = 2) -> Target:
    """Errors and nothing else: neither lengths nor relaxation."""
    table = QiskitTarget(num_qubits=qubits)
    each = {(q,): InstructionProperties(error=one) for q in range(qubits)}
    table.add_instruction(SXGate(), each)
    table.add_instruction(XGate(), dict(each))
    table.add_instruction(RZGate(Parameter("a")), {(q,): InstructionProperties(error=0.0) for q in range(qubits)})
    table.add_instruction(CZGate(), {(0, 1): InstructionProperties(error=two)})
    return Target.of_backend(DeviceBackend("plain", table))


def of(circuit: QuantumCircuit, physical: tuple[int, ...] = (0, 1)) -> CompiledCircuit:
    n, wires = circuit.num_qubits, tuple(range(circuit.num_qubits))
    return CompiledCircuit(Ansatz("hand", QuantumCircuit(n), (), ()), circuit, (), (), physical, wires, wires, 1, 1, {})


def pec(target: Target, **options: object) -> Pec:
    return Pec(Context(target, MitigationOptions(stack=("pec",), **options), exact=True))


def bell() -> QuantumCircuit:
    circuit = QuantumCircuit(2)
    circuit.sx(0)
    circuit.cz(0, 1)
    circuit.rz(0.3, 1)
    return circuit


def test_with_an_error_rate_alone_the_coefficients_are_mitiqs() -> None:
    r1, r2 = 0.004, 0.02
    found = pec(device(r2, r1)).representations(of(bell()))
    assert list(found) == [0, 1]
    # p = r d / (d - 1), and Mitiq's noise level is the probability of a Pauli other than I: (1 - 1/d^2) p.
    for place, level, width in ((0, 1.5 * r1, 1), (1, 1.25 * r2, 2)):
        gate = cirq.Circuit(Token(place, width).on(*cirq.LineQubit.range(width)))
        theirs = represent_operation_with_global_depolarizing_noise(gate, level)
        np.testing.assert_allclose(np.sort(found[place].coeffs), np.sort(theirs.coeffs), atol=1e-15)
        assert found[place].coeffs[0] == max(found[place].coeffs)
        assert found[place].norm == pytest.approx(theirs.norm)


@pytest.mark.parametrize("name", DEVICES)
def test_the_sum_undoes_the_paulis_of_the_devices_noise(name: str) -> None:
    circuit = compiled(name, 3)
    channels = Channels(get_target(name).backend.target, circuit.physical_qubits)
    found = technique(name, "pec").representations(circuit)
    noisy = [p for p, i in enumerate(circuit.circuit.data) if i.operation.name not in ("rz", "barrier")]
    assert list(found) == noisy
    for place, representation in found.items():
        instruction = circuit.circuit.data[place]
        wires = tuple(circuit.circuit.find_bit(qubit).index for qubit in instruction.qubits)
        noise = channels.after(instruction.operation.name, wires)
        terms = itertools.product(PAULIS, repeat=len(wires))
        undone = sum(c * product(paulis) for c, paulis in zip(representation.coeffs, terms, strict=True)) @ noise
        np.testing.assert_allclose(np.diag(undone), 1.0, atol=1e-12)
        assert sum(representation.coeffs) == pytest.approx(1.0)


@settings(max_examples=25)
@given(st.lists(st.floats(0.0, 0.3), min_size=2, max_size=4), st.integers(0, 10**6))
def test_samples_stand_for_the_rest_of_the_sum(strengths: list[float], seed: int) -> None:
    tokens = [Token(place, 1) for place in range(len(strengths))]
    channels = [
        thermal_relaxation(s, 1.0, 0.8) @ depolarising(s / 2, 1) for s in strengths
    ]  # relaxation pulls X, Y and Z apart
    found = [represent(c, t, "sx", (0,)) for c, t in zip(channels, tokens, strict=True)]
    sums = [each for each in found if each is not None]
    if not sums:
        return
    number = 4000
    draws, signs, kept, rest = sample(sums, number, np.random.default_rng(seed))
    assert draws.any(axis=1).all()
    assert kept == pytest.approx(np.prod([each.coeffs[0] for each in sums]))
    assert kept + rest == pytest.approx(np.prod([each.norm for each in sums]))
    # Each sum is 1 in all: so are the terms, with their signs.
    assert kept + rest * signs.mean() == pytest.approx(1.0, abs=6 * rest / np.sqrt(number) + 1e-12)
    terms = list(itertools.product(range(4), repeat=len(sums)))[1:]
    exact = np.array([np.prod([s.coeffs[t] for s, t in zip(sums, term, strict=True)]) for term in terms])
    keys = draws @ (4 ** np.arange(len(sums)))[::-1]
    shares = np.bincount(keys, minlength=4 ** len(sums))[1:] / number
    np.testing.assert_allclose(shares, np.abs(exact) / rest, atol=6 * 0.5 / np.sqrt(number))
    for term, coefficient in zip(terms, exact, strict=True):
        drawn = (draws == term).all(axis=1)
        assert (signs[drawn] == np.sign(coefficient)).all()


def test_enumerated_in_full_it_is_exact_for_depolarising_noise() -> None:
    target = device(0.05, 0.0)
    circuit, random = QuantumCircuit(2), np.random.default_rng(0)
    for layer in range(3):
        for wire in range(2):
            circuit.sx(wire)
            circuit.rz(random.uniform(0.5, 1.5), wire)
            circuit.sx(wire)
        if layer < 2:
            circuit.cz(0, 1)
    asked = compiled_request(circuit)
    engine = TwinExecutor(target, readout_error=False)
    technique_ = pec(target)
    found = technique_.representations(asked.circuit)
    one, other = found
    total = 0.0
    for a, b in itertools.product(range(16), repeat=2):
        coefficient = found[one].coeffs[a] * found[other].coeffs[b]
        each = of(technique_._insert(circuit, {one: a, other: b}))
        total = total + coefficient * engine.run([replace(asked, circuit=each)])[0].values
    np.testing.assert_allclose(total, noiseless(asked), atol=1e-12)
    assert np.abs(engine.run([asked])[0].values - noiseless(asked)).max() > 0.01


def compiled_request(circuit: QuantumCircuit):
    asked = request("ideal", 2, batch=1)
    return replace(asked, circuit=of(circuit), observables=single_z(2), inputs=np.zeros((1, 0)), weights=np.zeros(0))


@pytest.mark.parametrize(("name", "better"), [("fake_kyiv", 5.0), ("fake_torino", 8.0)])
def test_the_mean_over_seeds_is_near_the_ideal(name: str, better: float) -> None:
    asked = request(name, 4, batch=4)
    ideal = noiseless(asked)
    plain = np.abs(twin(name).run([asked])[0].values - ideal).mean()
    runs = [around(name, "pec", pec_samples=50, seed=seed).run([asked])[0] for seed in range(5)]
    values = np.array([run.values for run in runs])
    assert np.abs(values.mean(axis=0) - ideal).mean() < plain / better
    deviation = np.sqrt(values.var(axis=0, ddof=1).mean())
    said = np.mean([run.standard_errors for run in runs])
    assert 0.5 * deviation < said < 3.0 * deviation  # strata: what is said is an upper bound
    assert runs[0].metadata["circuits"] == 50 * 4


def test_more_samples_spread_less() -> None:
    asked = request("fake_kyiv", 2, batch=4, reps=2)

    def deviation(number: int) -> float:
        runs = [around("fake_kyiv", "pec", pec_samples=number, seed=s).run([asked])[0].values for s in range(8)]
        return float(np.sqrt(np.var(runs, axis=0, ddof=1).mean()))

    assert deviation(81) < 0.5 * deviation(6)


def test_shots_are_in_the_standard_error() -> None:
    asked = request("fake_kyiv", 2, batch=2, reps=1)
    runs = [around("fake_kyiv", "pec", shots=200, pec_samples=12, seed=1).run([asked], seed=s)[0] for s in range(30)]
    deviation = np.std([run.values for run in runs], axis=0, ddof=1)
    said = np.mean([run.standard_errors for run in runs], axis=0)
    assert (said > 0.6 * deviation).all()
    assert (said < 2.0 * deviation).all()
    two = around("fake_kyiv", "pec", shots=200, pec_samples=2).run([asked], seed=0)[0]
    assert (two.standard_errors > 0).all()


def test_what_is_run_is_fixed_by_the_seed_alone() -> None:
    asked = request("fake_torino", 3, reps=1)
    state = np.random.get_state()[1].copy()

    def drawn(seed: int) -> list[str]:
        return [
            str(part.circuit.circuit.data)
            for part in expand("fake_torino", "pec", asked, seed=seed, pec_samples=12).parts
        ]

    assert drawn(0) == drawn(0)
    assert drawn(0) != drawn(1)
    np.testing.assert_array_equal(np.random.get_state()[1], state)
    found = expand("fake_torino", "pec", asked, pec_samples=12)
    assert found.parts[0].circuit is asked.circuit
    for part in found.parts:
        before, after = asked.circuit.gate_counts, part.circuit.gate_counts
        assert all(after[name] == before[name] for name in ("cz", "sx"))
    assert all(str(p.circuit.circuit.data) != str(asked.circuit.circuit.data) for p in found.parts[1:])


def test_without_errors_nothing_is_changed() -> None:
    for target in (get_target("ideal"), device(0.0, None)):
        asked, found = compiled_request(bell()), pec(target)
        expansion = found.expand(Asked(asked.circuit, asked.observables, asked.inputs, asked.weights))
        assert [part.circuit for part in expansion.parts] == [asked.circuit]
        assert found.circuits(asked.circuit, 5) == 5
        assert found.overhead(asked.circuit) == 1.0


def test_the_overhead() -> None:
    found, circuit = pec(device(0.02, 0.0)), of(bell())
    p = 0.02 * 4 / 3
    assert found.overhead(circuit) == pytest.approx((1 + 15 / 8 * p / (1 - p)) ** 2)
    assert found.circuits(circuit, 3) == 300


@pytest.mark.parametrize(
    ("two", "one", "gate"),
    [(1.0, 0.0, "cz on qubits 0, 1"), (0.75, 0.0, "cz on qubits 0, 1"), (0.0, 0.5, "sx on qubit 0"), (0, 1, "sx")],
)
def test_an_error_that_has_no_inverse_is_refused(two: float, one: float, gate: str) -> None:
    asked = compiled_request(bell())
    for call in (pec(device(two, one)).overhead, lambda c: pec(device(two, one)).circuits(c, 1)):
        with pytest.raises(UsageError, match=f"pec cannot undo {gate}"):
            call(asked.circuit)


def test_a_broken_gate_of_a_real_device_is_refused() -> None:
    target = get_target("fake_kyiv")
    pair = min(pair for pair, entry in target.backend.target["ecr"].items() if entry.error == 1.0)
    circuit = QuantumCircuit(2)
    circuit.ecr(0, 1)
    with pytest.raises(UsageError, match=f"ecr on qubits {pair[0]}, {pair[1]}"):
        pec(target).overhead(of(circuit, pair))


@pytest.mark.parametrize("number", [1, 0, 2.5, True])
def test_a_number_of_samples_that_cannot_be(number: object) -> None:
    with pytest.raises(UsageError, match="pec_samples must be 2 or more"):
        technique("fake_kyiv", "pec", pec_samples=number)
