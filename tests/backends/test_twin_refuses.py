"""What the twin does not do, it says; and what it reads beyond compiled generators."""

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter, ParameterVector
from qiskit.quantum_info import SparsePauliOp, Statevector

from backends.catalog import get_target
from backends.observables import single_z
from backends.protocol import Request
from backends.twin.executor import TwinExecutor
from circuits.compile import compile_ansatz
from circuits.errors import QrunError, UsageError
from circuits.types import Ansatz, CompiledCircuit
from tests.backends.reference import compiled, draw

IDEAL = get_target("ideal")


def custom(circuit: QuantumCircuit, inputs: int, weights: int) -> CompiledCircuit:
    names = sorted(circuit.parameters, key=lambda p: p.name)
    return compile_ansatz(
        Ansatz("custom", circuit, tuple(names[:inputs]), tuple(names[inputs : inputs + weights])), None, seed=1
    )


def test_all_single_qubit_gates_and_affine_angles() -> None:
    a, b, c = (Parameter(name) for name in "abc")
    circuit = QuantumCircuit(3)
    circuit.rx(2 * a - 0.3, 0)
    circuit.u(b, a + b, 0.4 - b, 1)
    circuit.h(2)
    circuit.t(0)
    circuit.sdg(1)
    circuit.barrier()
    circuit.rzz(b / 2 + 1, 0, 2)
    circuit.p(-b, 0)
    circuit.swap(0, 1)
    circuit.cp(0.7, 1, 2)
    circuit.ry(c, 2)
    circuit.u(0.1, c, -c, 0)
    circuit.iswap(2, 0)
    circuit.rz(c * 3 + b, 1)
    circuit.rx(b, 1)
    compiled_ = custom(circuit, 0, 3)
    values = np.array([0.7, -1.1, 2.3])
    wanted = (*single_z(3), SparsePauliOp(["ZZI", "ZIZ", "III"], [0.5, -2.0, 3.0]))
    state = Statevector(circuit.assign_parameters(dict(zip((a, b, c), values, strict=True))))
    exact = [state.expectation_value(o).real for o in wanted]
    (got,) = TwinExecutor(IDEAL).run([Request(compiled_, wanted, np.zeros((1, 0)), values)])
    assert np.abs(got.values[0] - exact).max() < 1e-12


def test_inputs_after_an_entangler() -> None:
    z = ParameterVector("z", 2)
    circuit = QuantumCircuit(2)
    circuit.ry(z[0], 0)
    circuit.cx(0, 1)
    circuit.ry(z[1], 1)
    reuploading = custom(circuit, 2, 0)
    request = Request(reuploading, single_z(2), np.array([[0.3, 0.4]]), np.zeros(0))
    (got,) = TwinExecutor(IDEAL).run([request])
    assert got.metadata["path"] == "density"
    assert "after an entangling gate" in got.metadata["why"]
    exact = Statevector(circuit.assign_parameters([0.3, 0.4]))
    assert np.abs(got.values[0] - [exact.expectation_value(o).real for o in single_z(2)]).max() < 1e-14
    with pytest.raises(UsageError, match="inputs before the first entangling gate"):
        TwinExecutor(IDEAL, path="heisenberg").run([request])


def test_the_cheaper_path_is_taken_and_said() -> None:
    circuit, engine = compiled("ideal", 4, 1, "linear"), TwinExecutor(IDEAL)
    assert engine.explain(circuit, single_z(4), 1).startswith("density: for 4 observables and 1 samples")
    assert engine.explain(circuit, single_z(4), 64).startswith("heisenberg: for 4 observables and 64 samples")


def test_gates_and_angles_that_it_cannot_read() -> None:
    a, b = Parameter("a"), Parameter("b")
    cases = {}
    three = QuantumCircuit(3)
    three.ccx(0, 1, 2)
    cases["one or two qubits"] = custom(three, 0, 0)
    product = QuantumCircuit(1)
    product.rz(a * b, 0)
    cases["linear in the parameters"] = custom(product, 0, 2)
    controlled = QuantumCircuit(2)
    controlled.crx(a, 0, 1)
    cases["cannot vary the parameter"] = custom(controlled, 0, 1)
    measured = QuantumCircuit(1, 1)
    measured.measure(0, 0)
    cases["Leave measurements out"] = custom(measured, 0, 0)
    for says, circuit in cases.items():
        with pytest.raises(QrunError, match=says):
            TwinExecutor(IDEAL).run(
                [Request(circuit, single_z(circuit.num_qubits), np.zeros((1, 0)), np.zeros(len(circuit.weights)))]
            )


def test_a_circuit_compiled_for_another_device() -> None:
    circuit = compiled("fake_fez", 3, 1, "linear")
    with pytest.raises(QrunError, match="no gate cz on qubits"):
        TwinExecutor(get_target("fake_kyiv")).run([Request(circuit, single_z(3), *draw(circuit, 1, 1))])


def test_wrong_arrays_and_observables() -> None:
    circuit = compiled("ideal", 2, 1, "linear")
    z, w = draw(circuit, 2, 1)
    engine = TwinExecutor(IDEAL)
    bad = np.array(z)
    bad[1, 0] = np.nan
    infinite = np.array(w)
    infinite[3] = np.inf
    cases = [
        (Request(circuit, single_z(2), z[0], w), r"inputs have shape \(2,\)"),
        (Request(circuit, single_z(2), z[:, :1], w), r"inputs have shape \(2, 1\)"),
        (Request(circuit, single_z(2), z, w[:-1]), "weights have shape"),
        (Request(circuit, single_z(2), z, np.tile(w, (3, 1))), "weights have shape"),
        (Request(circuit, single_z(2), bad, w), r"request 1: inputs\[1, 0\] is nan"),
        (Request(circuit, single_z(2), z, infinite), r"weights\[3\] is inf"),
        (Request(circuit, single_z(3), z, w), "on 3 qubits, the circuit on 2"),
        (Request(circuit, (SparsePauliOp("ZZ", 1j),), z, w), "not a finite real"),
        (Request(circuit, (SparsePauliOp("ZZ", np.nan),), z, w), "not a finite real"),
        (Request(circuit, (), z, w), "no observables"),
    ]
    good = Request(circuit, single_z(2), z, w)
    for request, says in cases:
        with pytest.raises(QrunError, match=says):
            engine.run([good, request])
    with pytest.raises(UsageError, match="nan"):
        engine.expectations(circuit, single_z(2), torch.tensor(bad), torch.tensor(w))


def test_an_empty_batch_is_empty() -> None:
    circuit = compiled("ideal", 2, 1, "linear")
    (got,) = TwinExecutor(IDEAL).run([Request(circuit, single_z(2), np.zeros((0, 2)), np.zeros(len(circuit.weights)))])
    assert got.values.shape == (0, 2)


def test_wrong_options() -> None:
    cases = {
        "float32 or float64": {"dtype": torch.float16},
        "shots must be 1 or more": {"shots": 0},
        "threads must be 1 or more": {"threads": 0},
        "unknown path": {"path": "schroedinger"},
        "cannot compute on": {"device": "nowhere"},
    }
    for says, options in cases.items():
        with pytest.raises(UsageError, match=says):
            TwinExecutor(IDEAL, **options)


def test_more_memory_than_there_is() -> None:
    circuit = compiled("ideal", 16, 1, "linear")
    for path, says in (
        ("heisenberg", "observables over 16 qubits for 64 samples"),
        ("density", "density matrices of 16 qubits"),
    ):
        with pytest.raises(QrunError, match=rf"{says} would take \d+\.\d GiB"):
            TwinExecutor(IDEAL, path=path).run([Request(circuit, single_z(16), *draw(circuit, 64, 1))])
