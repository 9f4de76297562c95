import copy
import io
import pickle

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter, ParameterVector
from qiskit.primitives.containers.observables_array import ObservablesArray
from qiskit.quantum_info import Pauli, SparseObservable, SparsePauliOp

from backends.catalog import get_target
from backends.twin.primitives.module import TwinModule
from circuits.errors import UsageError
from tests.backends.isa import angles, exact, paulis, reference, transpiled

LIMA = get_target("fake_lima").backend


def module(kind: str, qubits: int = 2, **options: object) -> TwinModule:
    isa = transpiled("fake_lima", kind, qubits)
    inputs = [p for p in isa.parameters if not p.name.startswith("w")]
    laid_out = [o.apply_layout(isa.layout) for o in paulis(qubits, 3)]
    return TwinModule(isa, laid_out, LIMA, input_params=inputs, **{"dtype": "float64", **options})


@pytest.mark.parametrize("kind", ["linear", "feature_map"])
def test_values_and_gradients(kind: str) -> None:
    isa = transpiled("fake_lima", kind, 2)
    weights = np.linspace(-1, 1, isa.num_parameters - 2)
    layer = module(kind, initial_weights=weights)
    z = torch.tensor(angles(isa, 3)[:, :2], requires_grad=True)
    inputs = [p for p in isa.parameters if not p.name.startswith("w")]
    named = [*inputs, *(p for p in isa.parameters if p not in inputs)]
    order = [named.index(p) for p in isa.parameters]
    rows = np.concatenate([z.detach().numpy(), np.tile(weights, (3, 1))], 1)[:, order]
    assert np.abs(layer(z).detach().numpy() - exact(reference("fake_lima", isa, 2), paulis(2, 3), rows)).max() < 1e-10
    assert layer(z[1]).shape == (3,)
    assert (layer(z[1]) - layer(z)[1]).abs().max() < 1e-14
    assert (layer(z[1]) - layer(z)[0]).abs().max() > 1e-3
    assert torch.autograd.gradcheck(
        lambda x, w: torch.func.functional_call(layer, {"weight": w}, (x,)), (z, layer.weight), eps=1e-5, atol=1e-8
    )


def test_an_angle_that_mixes_inputs_and_weights() -> None:
    """rz(x w): the gradients by both through one gate, and w enters elsewhere, too."""
    x, w = Parameter("x"), ParameterVector("w", 2)
    circuit = QuantumCircuit(2)
    circuit.sx(0)
    circuit.rz(x * w[0] + w[1], 0)
    circuit.sx(0)
    circuit.cx(0, 1)
    circuit.rz(w[0], 1)
    circuit.sx(1)
    layer = TwinModule(circuit, ["IZ", "ZI", "XY"], LIMA, input_params=[x], dtype="float64", seed=1)
    z = torch.tensor([[0.4], [-1.2]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x, w: torch.func.functional_call(layer, {"weight": w}, (x,)), (z, layer.weight), eps=1e-5, atol=1e-8
    )


def test_as_a_layer() -> None:
    layer = module("linear", dtype="float32", seed=5)
    assert repr(layer) == "TwinModule(2 inputs, 8 weights, 3 outputs on fake_lima)"
    assert list(layer.state_dict()) == ["weight"]
    assert torch.equal(layer.weight, module("linear", dtype="float32", seed=5).weight)
    assert not torch.equal(layer.weight, module("linear", dtype="float32", seed=6).weight)
    saved = io.BytesIO()
    torch.save(layer.state_dict(), saved)
    saved.seek(0)
    other = module("linear", dtype="float32", seed=6)
    other.load_state_dict(torch.load(saved))
    z = torch.linspace(-1, 1, 8).reshape(4, 2)
    assert torch.equal(other(z), layer(z))
    assert layer(z).dtype == torch.float32
    assert layer(torch.zeros(0, 2)).shape == (0, 3)
    rough = layer(z)
    assert torch.allclose(layer.double()(z), rough.double(), atol=1e-5)
    assert layer(z).dtype == torch.float64
    assert (layer(z) - rough).abs().max() > 1e-12, "the engine follows the module's dtype"
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(z), layer(z))
        assert twin.weight is not layer.weight
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), module("linear", dtype="float32"), torch.nn.Linear(3, 1))
    model(torch.ones(2, 3)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_without_inputs() -> None:
    isa = transpiled("fake_lima", "linear", 2)
    z = SparsePauliOp("IZ").apply_layout(isa.layout)
    layer = TwinModule(isa, [z], LIMA, initial_weights=angles(isa, 1)[0])
    assert layer().shape == (1,)
    assert torch.equal(layer(torch.zeros(2, 0))[1], layer())
    layer().sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.abs().max() > 0.01


def test_an_empty_batch_has_gradients_of_zero() -> None:
    layer, z = module("linear"), torch.zeros(0, 2, requires_grad=True)
    values = layer(z)
    assert values.shape == (0, 3)
    values.sum().backward()
    assert z.grad is not None
    assert z.grad.shape == (0, 2)
    assert layer.weight.grad is not None
    assert torch.equal(layer.weight.grad, torch.zeros_like(layer.weight))
    assert module("linear")(torch.zeros(0, 2, dtype=torch.bfloat16)).dtype == torch.float64


@pytest.mark.parametrize("kind", ["linear", "feature_map"])
def test_autocast_leaves_it_alone(kind: str) -> None:
    layer, z = module(kind, dtype="float32"), torch.linspace(-1, 1, 8).reshape(4, 2)
    found = []
    for enabled in (False, True):
        layer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            values = layer(z)
        values.square().sum().backward()
        found.append((values.detach(), layer.weight.grad.clone()))
    assert found[1][0].dtype == torch.float32
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), layer, torch.nn.Linear(3, 1))
    with torch.autocast("cpu", torch.bfloat16):
        model(torch.ones(2, 3)).sum().backward()
    assert model[0].weight.grad.abs().max() > 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu() -> None:
    z = torch.linspace(-1, 1, 8).reshape(4, 2)
    for kind in ("linear", "feature_map"):
        here, there = module(kind), module(kind).to("cuda")
        assert there(z).device.type == "cuda"
        assert torch.allclose(there(z).cpu(), here(z), atol=1e-10)


def test_wrong_inputs() -> None:
    isa = transpiled("fake_lima", "linear", 2)
    z, p = SparsePauliOp("IZ").apply_layout(isa.layout), list(isa.parameters)
    for options, says in (
        ({"input_params": [Parameter("q")]}, "has no parameters q"),
        ({"input_params": p[:2], "weight_params": p[1:]}, "named twice"),
        ({"input_params": p[:2], "weight_params": p[3:]}, "neither inputs nor weights"),
        ({"initial_weights": [0.0]}, r"initial_weights have shape \(1,\)"),
        ({"initial_weights": np.full(10, np.inf)}, "finite numbers"),
        ({"dtype": "half"}, "unknown dtype"),
        ({"device": "abacus"}, "torch cannot compute on 'abacus'"),
        ({"seed": -1}, "the seed must be a whole number"),
        ({"seed": None}, "starts from a seed"),
        ({"input_params": ["x"]}, "input_params must be qiskit Parameters, and 'x' is none"),
        ({"input_params": "x"}, "input_params must be qiskit Parameters, and 'x' is none"),
        ({"weight_params": 3}, "weight_params must be qiskit Parameters, and 3 is none"),
        ({"initial_weights": "abc"}, "initial_weights must be 10 real numbers, not 'abc'"),
        ({"initial_weights": np.ones(10) * 1j}, "initial_weights must be 10 real numbers"),
        ({"initial_weights": [[1.0], [2.0, 3.0]]}, "initial_weights must be 10 real numbers"),
        ({"idle_noise": "no"}, "idle_noise must be True or False, not 'no'"),
        ({"readout_error": 0}, "readout_error must be True or False, not 0"),
    ):
        with pytest.raises(UsageError, match=says):
            TwinModule(isa, [z], LIMA, **options)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="needs observables"):
        TwinModule(isa, [], LIMA)
    layer = TwinModule(isa, [z], LIMA, input_params=p[:2])
    with pytest.raises(UsageError, match=r"inputs have shape \(4, 3\), the module takes \(batch, 2\)"):
        layer(torch.zeros(4, 3))
    with pytest.raises(UsageError, match=r"inputs\[0, 0\] is nan"):
        layer(torch.full((1, 2), torch.nan))
    with pytest.raises(UsageError, match=r"inputs must be a torch.Tensor, not list"):
        layer([[0.0, 0.0]])
    with pytest.raises(UsageError, match="inputs are complex"):
        layer(torch.zeros(1, 2, dtype=torch.complex64))
    with pytest.raises(UsageError, match="made of a QuantumCircuit, not of str"):
        TwinModule("isa", [z], LIMA)  # type: ignore[arg-type]


def test_observables_are_as_wide_as_the_circuit() -> None:
    """Not laid out, ZI would be read on the device's qubit 1, wherever the circuit's qubit 1 is."""
    isa, z = transpiled("fake_lima", "linear", 2), SparsePauliOp("ZI")
    for number, wrong in ((0, z), (1, "Z" * 6), (0, SparsePauliOp.from_sparse_list([("Z", [0], 1)], 200))):
        observables = [*["IIIIZ"] * number, wrong]
        with pytest.raises(UsageError, match=rf"observable {number} is on .*apply_layout\(circuit.layout\)"):
            TwinModule(isa, observables, LIMA)
    with pytest.raises(UsageError, match=r"observable 0 is on 2 qubits"):
        TwinModule(isa, z, LIMA)


def test_one_observable_is_one_whatever_its_form() -> None:
    isa, start = transpiled("fake_lima", "linear", 2), np.linspace(-1, 1, 10)

    def values(observables: object) -> torch.Tensor:
        return TwinModule(isa, observables, LIMA, initial_weights=start, dtype="float64")().detach()

    total = SparsePauliOp(["ZI", "IX"], [1.0, 0.5]).apply_layout(isa.layout)
    assert values(total).shape == (1,)
    assert torch.equal(values(total), values([total]))
    assert not torch.allclose(values(total), values(list(total))[0], atol=1e-3)
    label = SparsePauliOp("ZI").apply_layout(isa.layout).paulis[0].to_label()
    wanted = values([SparsePauliOp(label)])
    one = SparseObservable.from_label(label)
    for form in (label, Pauli(label), {label: 1.0}, one, ObservablesArray(label), ObservablesArray([label])):
        assert torch.equal(values(form), wanted), form
    assert torch.equal(values((Pauli(label), label)), wanted.repeat(2))
    nested = ObservablesArray([[label]])
    for strange in (3, None, [None], ["ZQ"], [SparsePauliOp(label, 1j)], nested, [SparsePauliOp(label, 0.0)]):
        with pytest.raises(UsageError, match="is no observable"):
            values(strange)
