"""The noise of single gates, against Aer's own."""

import warnings
from dataclasses import replace
from typing import NoReturn

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.circuit import Measure
from qiskit.circuit.library import SXGate, XGate
from qiskit.providers.backend import QubitProperties
from qiskit.providers.fake_provider import GenericBackendV2
from qiskit.quantum_info import SuperOp, average_gate_fidelity
from qiskit.transpiler import InstructionProperties, Target
from qiskit_aer import AerSimulator
from qiskit_aer.noise import NoiseModel

from backends.catalog import get_target
from backends.target import DeviceBackend
from backends.twin.build import build_program
from backends.twin.channels import Channels
from backends.twin.pauli import average_infidelity, depolarising, ptm_of_unitary, thermal_relaxation
from circuits.compile import compile_ansatz
from circuits.errors import QrunError, QrunWarning
from circuits.qgan import generator
from circuits.types import CompiledCircuit
from tests.backends.reference import compiled

PAULIS = [np.eye(2), np.array([[0, 1], [1, 0]]), np.array([[0, -1j], [1j, 0]]), np.diag([1, -1])]


def ptm(error: SuperOp, qubits: int) -> np.ndarray:
    """By the definition: column-stacked superoperator in the basis of Pauli matrices."""
    basis = PAULIS if qubits == 1 else [np.kron(second, first) for first in PAULIS for second in PAULIS]
    columns = np.array([matrix.reshape(-1, order="F") for matrix in basis]).T
    return (columns.conj().T @ error.data @ columns).real / 2**qubits


FAMILIES = {
    "fake_kyiv": {"ecr"},
    "fake_kyoto": {"ecr"},  # every ecr is reported with an error of 1.0
    "fake_cairo": {"cx", "ecr"},
    "fake_washington": {"cx"},
    "fake_melbourne": {"cx"},
    "fake_kingston": {"cz"},  # one qubit has no T2 or T1, several gates are reported with an error of 1.0
    "fake_torino": {"cz"},
    "fake_prague": {"cz"},
    "fake_boston": {"cz"},
    "fake_almaden": {"cx"},  # u1, u2, u3
    "fake_burlington": {"cx"},  # the same, and no dt
    "fake_fractional": {"cx", "rzz"},  # and rx
    "fake_armonk": set(),  # one qubit
}


@pytest.mark.filterwarnings("ignore::circuits.errors.QrunWarning")
@pytest.mark.parametrize("name", FAMILIES)
def test_every_gate_has_aers_noise(name: str) -> None:
    target = get_target(name)
    incomplete = [q for q, p in enumerate(target.backend.target.qubit_properties) if None in (p.t1, p.t2)]
    assert bool(incomplete) == (name == "fake_kingston")
    qubits = tuple(sorted({*range(min(target.num_qubits or 0, 7)), *incomplete}))
    model, channels = NoiseModel.from_backend(target.cut(qubits)), Channels(target.backend.target, qubits)
    compared: dict[str, int] = {}
    for gate, by_wires in model._local_quantum_errors.items():
        if gate in ("reset", "delay", "reset_2", "measure_2"):
            continue
        for wires, error in by_wires.items():
            noise = channels.after(gate, wires)
            assert noise is not None
            assert np.abs(noise - ptm(SuperOp(error), len(wires))).max() < 1e-13
            compared[gate] = compared.get(gate, 0) + 1
    # Every gate that the device has on these qubits was there, or has no noise in either.
    part = target.cut(qubits).target
    for gate in target.native_gates:
        if gate in part.operation_names and gate not in compared:
            assert all(channels.after(gate, wires) is None for wires in part[gate])
    assert FAMILIES[name] == {gate for gate in compared if part.operation_from_name(gate).num_qubits == 2}
    assert sum(compared.values()) >= 3 * len(qubits)
    for wire in range(len(qubits)):
        p01, p10 = channels.readout(wire)
        assert np.allclose([[1 - p01, p01], [p10, 1 - p10]], model._local_readout_errors[(wire,)].probabilities)
    rotation = "rz" if "rz" in target.native_gates else "u1"
    assert channels.after(rotation, (0,)) is None


@pytest.mark.filterwarnings("ignore::circuits.errors.QrunWarning")
def test_delays_relax_as_in_aers_pass() -> None:
    from qiskit.circuit import Delay

    target = get_target("fake_kingston")
    qubits = (3, 146)  # the latter has neither T1 nor T2
    relaxation = NoiseModel.from_backend(target.cut(qubits))._custom_noise_passes[0]
    channels = Channels(target.backend.target, qubits)
    for duration, unit in ((1000, "dt"), (2.5, "us"), (1e-5, "s"), (700.0, "ns")):
        error = relaxation._thermal_relaxation_error(Delay(duration, unit), [0])
        noise = channels.delay(0, duration, unit)
        assert noise is not None
        assert np.abs(noise - ptm(SuperOp(error), 1)).max() < 1e-13
        assert relaxation._thermal_relaxation_error(Delay(duration, unit), [1]) is None
        assert np.array_equal(channels.delay(1, duration, unit), np.eye(4))
    assert channels.delay(0, 0.0) is None
    assert Channels(None, qubits).delay(0, 1.0) is None
    with pytest.raises(QrunError, match="no length of time"):
        channels.delay(0, 1.0, "h")


def test_a_gate_has_the_reported_error() -> None:
    target = get_target("fake_kyiv").backend.target
    wires = (5, 4)
    noise = Channels(target, range(127)).after("ecr", wires)
    assert noise is not None
    assert average_infidelity(noise) == pytest.approx(target["ecr"][wires].error, abs=1e-14)


def test_infidelity_is_qiskits() -> None:
    channel = SuperOp(np.eye(4)).compose(SuperOp(np.diag([1, 0.9, 0.9, 1])))
    assert average_infidelity(ptm(channel, 1)) == pytest.approx(1 - average_gate_fidelity(channel), abs=1e-14)
    assert average_infidelity(depolarising(1.0, 2)) == pytest.approx(0.75)


def test_relaxation_limits() -> None:
    assert np.array_equal(thermal_relaxation(1.0, None, None), np.eye(4))
    assert np.allclose(thermal_relaxation(1e9, 1.0, 1.0) @ [1, 0.3, 0.2, -1], [1, 0, 0, 1])
    assert np.array_equal(thermal_relaxation(1.0, 1.0, 5.0), thermal_relaxation(1.0, 1.0, 2.0))


def test_two_qubit_order() -> None:
    from qiskit.circuit.library import CXGate

    cx = ptm_of_unitary(CXGate().to_matrix())
    assert cx[4 * 1 + 1, 4 * 1 + 0] == pytest.approx(1)  # X on the control goes to XX
    assert cx[4 * 0 + 1, 4 * 0 + 1] == pytest.approx(1)  # X on the target stays
    assert cx[4 * 3 + 3, 4 * 0 + 3] == pytest.approx(1)  # Z on the target goes to ZZ


def test_a_gate_that_the_device_does_not_have() -> None:
    target = get_target("fake_kyiv").backend.target
    forward = next(iter(target["ecr"]))
    channels, back = Channels(target, range(127)), forward[::-1]
    for gate, wires, why in (
        ("ecr", back, f"it is calibrated in the other direction only, on {forward[0]}, {forward[1]}"),
        ("cz", forward, "its gates are ecr, id, rz, sx, x"),
        ("ecr", (0, 126), "they are not coupled by it"),
    ):
        with pytest.raises(QrunError, match=f"no gate {gate} on qubits {wires[0]}, {wires[1]}: {why}. Compile"):
            channels.after(gate, wires)
    with pytest.raises(QrunError, match="no gate sx on qubit 1: the calibration leaves this qubit out"):
        Channels(device(), (0, 1)).after("sx", (1,))
    assert Channels(None, (0, 1)).after("anything", (0, 1)) is None


def device(
    *, error: float | None = 0.01, duration: float | None = 5e-8, t1: float | None = 1e-4, t2: float | None = 1e-4
) -> Target:
    """Two qubits, of which the first has these figures and the second no gate."""
    target = Target(num_qubits=2, qubit_properties=[QubitProperties(t1=t1, t2=t2), QubitProperties(t1=1.0, t2=1.0)])
    target.add_instruction(SXGate(), {(0,): InstructionProperties(error=error, duration=duration)})
    target.add_instruction(XGate(), {(0,): None, (1,): InstructionProperties(error=0.1)})
    target.add_instruction(Measure(), {(0,): InstructionProperties(error=error)})
    return target


NAN = float("nan")


@pytest.mark.parametrize(
    ("figures", "says"),
    [
        ({"error": NAN}, "sx on qubit 0 has an error rate of nan"),
        ({"error": -0.1}, r"sx on qubit 0 has an error rate of -0\.1"),
        ({"error": 1.5}, r"sx on qubit 0 has an error rate of 1\.5"),
        ({"duration": NAN}, "sx on qubit 0 has a length of nan s"),
        ({"duration": -1e-8}, "sx on qubit 0 has a length of -1e-08 s"),
        ({"t1": 0.0}, r"qubit 0 has T1 = 0\.0 s"),
        ({"t2": -1e-5}, "qubit 0 has T2 = -1e-05 s"),
        ({"t1": NAN}, "qubit 0 has T1 = nan s"),
        ({"t1": None, "t2": NAN}, "qubit 0 has T2 = nan s"),
    ],
)
def test_figures_that_cannot_be_are_named(figures: dict[str, float | None], says: str) -> None:
    channels = Channels(device(**figures), (0,))
    with pytest.raises(QrunError, match=f"{says}.*Correct the calibration, or choose other qubits"):
        channels.after("sx", (0,))
    if "error" in figures:
        with pytest.raises(QrunError, match="the readout of qubit 0 has an error rate of"):
            channels.readout(0)
    if "t1" in figures or "t2" in figures:
        with pytest.raises(QrunError, match=says):
            channels.delay(0, 1e-6)


@pytest.mark.parametrize(
    ("figures", "gate", "says"),
    [
        ({"error": 1.0}, "sx", "sx on qubit 0 has an error of 1.0: .*out of order. Let circuits.compile"),
        ({}, "x", "x on qubit 0 has no calibration: it counts as free of errors"),
        ({"t1": None, "t2": None}, "sx", "qubit 0 has no T1 and no T2 in the calibration"),
        ({"t2": None}, "sx", "qubit 0 has no T2 in the calibration"),
    ],
)
def test_what_is_out_of_order_or_left_out_is_aers_and_warned_of(
    figures: dict[str, float | None], gate: str, says: str
) -> None:
    target = device(**figures)
    channels = Channels(target, (0,))

    def ask() -> np.ndarray | None:
        noise = channels.after(gate, (0,))
        channels.warn_uncalibrated()
        return noise

    with pytest.warns(QrunWarning, match=says) as told:
        noise = ask()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ask()  # told once
    assert len(told) == 1
    if gate == "x":
        assert noise is None
        assert (0,) not in NoiseModel.from_backend(Part(target))._local_quantum_errors["x"]
    else:
        error = NoiseModel.from_backend(Part(target))._local_quantum_errors[gate][(0,)]
        assert noise is not None
        assert np.abs(noise - ptm(SuperOp(error), 1)).max() < 1e-13
    if "error" in figures:
        with pytest.warns(QrunWarning, match="readout of qubit 0 has an error of 1.0"):
            assert channels.readout(0) == (1.0, 1.0)


class Part(DeviceBackend):
    """A device around a target."""

    def __init__(self, target: Target) -> None:
        super().__init__("part", target)


class Watched(dict[tuple[int, ...], object]):
    """Entries that say which were looked up, and that cannot be gone through."""

    def __init__(self, entries: dict[tuple[int, ...], object], seen: set[tuple[int, ...]]) -> None:
        super().__init__(entries)
        self.seen = seen

    def __getitem__(self, key: tuple[int, ...]) -> object:
        self.seen.add(key)
        return super().__getitem__(key)

    def get(self, key: tuple[int, ...], default: object = None) -> object:
        self.seen.add(key)
        return super().get(key, default)

    def _whole(self, *_: object) -> NoReturn:
        raise AssertionError("the whole table was read")

    __iter__ = keys = values = items = _whole


def test_only_the_qubits_in_use_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    circuit, whole = compiled("fake_kyiv", 4, 1, "linear"), get_target("fake_kyiv").backend.target
    seen: set[tuple[int, ...]] = set()

    class Properties(list[object]):
        def __getitem__(self, key: int) -> object:  # type: ignore[override]
            seen.add((key,))
            return super().__getitem__(key)

        __iter__ = Watched._whole

    class Whole:
        operation_names, dt = whole.operation_names, whole.dt
        qubit_properties = Properties(whole.qubit_properties)
        operation_from_name = staticmethod(whole.operation_from_name)

        def __getitem__(self, name: str) -> Watched:
            return Watched(whole[name], seen)

    def never(*_: object, **__: object) -> NoReturn:
        raise AssertionError("a noise model was built")

    for builder in ("from_backend", "from_backend_properties", "__init__"):
        monkeypatch.setattr(NoiseModel, builder, never)
    build_program(circuit, Channels(Whole(), circuit.physical_qubits))
    assert {q for where in seen for q in where} == set(circuit.physical_qubits)
    expected = build_program(circuit, Channels(whole, circuit.physical_qubits))
    got = build_program(circuit, Channels(Whole(), circuit.physical_qubits))
    assert all(np.array_equal(a.channel, b.channel) for a, b in zip(got.blocks, expected.blocks, strict=True))


def test_a_circuit_on_a_broken_gate_is_computed_and_warned_of() -> None:
    whole = get_target("fake_kyiv").backend.target
    broken = min(wires for wires, properties in whole["ecr"].items() if properties.error == 1.0)
    circuit = QuantumCircuit(2)
    circuit.sx(0)
    circuit.ecr(0, 1)
    compiled_ = replace(compiled("fake_kyiv", 2, 1, "linear"), circuit=circuit, physical_qubits=broken)
    says = f"ecr on qubits {broken[0]}, {broken[1]} has an error of 1.0"
    with pytest.warns(QrunWarning, match=says):
        program = build_program(compiled_, Channels(whole, broken))
    # With the error capped at 4/5, nothing but the relaxation of the maximally mixed state is left.
    (block,) = program.blocks
    assert np.abs(block.channel[:, 1:]).max() < 0.07
    avoided = compile_ansatz(generator(4, 1, "linear"), get_target("fake_kyiv").backend, seed=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build_program(avoided, Channels(whole, avoided.physical_qubits))


def bell(compiled_: CompiledCircuit, gates: tuple[str, ...] = ("sx", "rz", "sx")) -> CompiledCircuit:
    circuit = QuantumCircuit(2)
    for gate in gates:
        getattr(circuit, gate)(*((0.3, 0) if gate == "rz" else (0,)))
    circuit.cx(0, 1)
    return replace(compiled_, circuit=circuit, inputs=(), weights=(), physical_qubits=(0, 1), final_layout=(0, 1))


def test_what_is_left_out_is_told_in_one_warning() -> None:
    circuit = bell(compiled("ideal", 2, 1, "linear"))
    target = GenericBackendV2(3, noise_info=False).target
    with pytest.warns(QrunWarning) as told:
        build_program(circuit, Channels(target, (0, 1)))
    (message,) = (str(one.message) for one in told)
    # sx, rz and cx, and two readouts
    assert message.startswith("5 gates and readouts have no calibration, the first is sx on qubit 0: they count as")
    with pytest.warns(QrunWarning) as told:
        build_program(circuit, Channels(target, (0, 1)), readout_error=False)
    assert [str(one.message).split(",")[0] for one in told] == ["3 gates and readouts have no calibration"]
    with warnings.catch_warnings():  # a simulator has nothing to calibrate
        warnings.simplefilter("error")
        build_program(circuit, Channels(AerSimulator().target, (0, 1)))


@pytest.mark.parametrize("entry", [None, InstructionProperties(duration=1e-6)])
def test_a_readout_without_a_calibration_is_warned_of(entry: InstructionProperties | None) -> None:
    target = Target(num_qubits=2)
    target.add_instruction(SXGate(), {(q,): InstructionProperties(error=0.01) for q in range(2)})
    target.add_instruction(Measure(), {(0,): InstructionProperties(error=0.02), (1,): entry})
    channels = Channels(target, (0, 1))
    assert (channels.readout(0), channels.readout(1)) == ((0.02, 0.02), (0.0, 0.0))
    with pytest.warns(QrunWarning, match="the readout of qubit 1 has no calibration: it counts as free of errors"):
        channels.warn_uncalibrated()
