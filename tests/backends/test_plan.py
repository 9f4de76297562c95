"""The walk of observables back through a program: supports, and that no way of walking changes the result."""

import copy
import gc
import pickle
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.quantum_info import SparsePauliOp, Statevector

from backends.catalog import get_target
from backends.observables import pauli_sum, single_z
from backends.twin.build import build_program
from backends.twin.channels import Channels
from backends.twin.executor import TwinExecutor
from backends.twin.heisenberg import evaluate, plan, walk
from backends.twin.heisenberg.evaluate import plans_for
from backends.twin.heisenberg.plan import Apply, Join, Plan, make_plan
from backends.twin.modes import plain_modes
from backends.twin.program import Program
from circuits.compile import compile_ansatz
from circuits.errors import QrunError
from circuits.qgan import ENTANGLEMENTS
from circuits.types import Ansatz, CompiledCircuit
from tests.backends.reference import compiled, draw
from tests.backends.test_twin_exact import mixed_paulis


def program_of(device: str, qubits: int, reps: int, entanglement: str) -> Program:
    circuit, target = compiled(device, qubits, reps, entanglement), get_target(device)
    backend = target.backend
    return build_program(circuit, Channels(None if backend is None else backend.target, circuit.physical_qubits))


def light_cone(program: Program, start: set[int]) -> set[int]:
    for block in reversed(program.blocks):
        if {block.low, block.high} & start:
            start |= {block.low, block.high}
    return start


@settings(max_examples=40, deadline=None)
@given(
    device=st.sampled_from(("fake_kyiv", "fake_torino", "ideal")),
    qubits=st.integers(1, 6),
    reps=st.integers(0, 3),
    entanglement=st.sampled_from(ENTANGLEMENTS),
    seed=st.integers(0, 1000),
)
def test_supports_are_light_cones(device: str, qubits: int, reps: int, entanglement: str, seed: int) -> None:
    program = program_of(device, qubits, reps, entanglement)
    observables = [pauli_sum(o, qubits) for o in (*single_z(qubits), mixed_paulis(qubits, seed))]
    for number, observable in enumerate(observables):
        alone = make_plan(program, observables, [number])
        (end,) = alone.ends
        start = {program.outputs[qubit] for _, factors in observable for qubit, _ in factors}
        assert set(end.support) == light_cone(program, start)
        assert alone.is_chain
        assert all(step.elements <= 4 ** len(program.first) for step in alone.steps)
    together = make_plan(program, observables, range(len(observables)))
    assert sorted(row for end in together.ends for row in end.rows) == list(range(len(observables)))


def test_light_cones_spare_work() -> None:
    """Z on the last of eight qubits reaches one more with each layer of the ladder, from below."""
    program = program_of("fake_kyiv", 8, 4, "reverse_linear")
    plans, owners = plans_for(program, [pauli_sum(o, 8) for o in single_z(8)])
    assert owners == tuple(range(8))
    full = 8 * len(program.blocks) * 32 * 4**8
    # Fused blocks count twice their share here, for they cost it.
    assert sum(p.flops for p in plans) < 0.55 * full
    assert [len(p.ends[0].support) for p in plans] == [8, 8, 8, 8, 8, 7, 6, 5]


WAYS = {
    "as it is": {},
    "all apart": {(evaluate, "_APART"): 0},
    "joined late": {(plan, "_SMALL"): 0},
    "joined at once": {(plan, "_SMALL"): 2**40},
    "never fused": {(plan, "_WORTH_FUSING"): 2**40},
    "fused wherever possible": {(plan, "_WORTH_FUSING"): 0},
    "walked again": {(evaluate, "_KEEP"): 0, (evaluate, "_APART"): 0},
    "leased": {(walk, "_OWN"): 0},
}


@pytest.mark.parametrize(("qubits", "entanglement"), [(5, "reverse_linear"), (5, "linear"), (4, "full"), (6, "sca")])
def test_no_way_of_walking_changes_the_result(qubits: int, entanglement: str, monkeypatch: pytest.MonkeyPatch) -> None:
    circuit = compiled("fake_kyiv", qubits, 2, entanglement)
    observables = (*single_z(qubits), SparsePauliOp("Z" * qubits), mixed_paulis(qubits, 2), SparsePauliOp("I" * qubits))
    inputs, weights = draw(circuit, 3, 2)
    results, shapes = {}, {}
    for name, settings_ in WAYS.items():
        with monkeypatch.context() as patch:
            for (module, attribute), value in settings_.items():
                patch.setattr(module, attribute, value)
            engine = TwinExecutor(get_target("fake_kyiv"), path="heisenberg")
            z, w = torch.tensor(inputs, requires_grad=True), torch.tensor(weights, requires_grad=True)
            values = engine.expectations(circuit, observables, z, w)
            values.cos().sum().backward()
            results[name] = (values.detach(), z.grad, w.grad)
            (job,) = engine._jobs.all()
            shapes[name] = _kinds(job.plans)
    assert shapes["fused wherever possible"][0] > shapes["never fused"][0] == 0
    assert shapes["joined late"][1] == 0 < shapes["as it is"][2]
    assert shapes["all apart"][2] == len(observables)
    for name, result in results.items():
        for got, expected in zip(result, results["as it is"], strict=True):
            assert (got - expected).abs().max() < 1e-13, name


def _kinds(plans: tuple[Plan, ...]) -> tuple[int, int, int]:
    """Fused products, joins, and plans."""
    steps = [step for p in plans for step in p.steps]
    fused = sum(isinstance(step, Apply) and step.is_fused for step in steps)
    return fused, sum(isinstance(step, Join) for step in steps), len(plans)


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_do_not_change_a_bit(threads: int) -> None:
    circuit = compiled("fake_kyiv", 7, 1, "reverse_linear")
    inputs, weights = draw(circuit, 4, 1)
    results = []
    for count in (1, threads, threads):
        engine = TwinExecutor(get_target("fake_kyiv"), dtype=torch.float32, path="heisenberg", threads=count)
        z, w = (torch.tensor(x, dtype=torch.float32, requires_grad=True) for x in (inputs, weights))
        values = engine.expectations(circuit, single_z(7), z, w)
        values.square().sum().backward()
        results.append((values.detach(), z.grad, w.grad))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_an_error_in_a_thread_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    circuit = compiled("fake_kyiv", 7, 1, "reverse_linear")
    inputs, weights = draw(circuit, 4, 1)
    engine = TwinExecutor(get_target("fake_kyiv"), path="heisenberg", threads=2)

    def fails(*_: object) -> None:
        raise MemoryError("no more")

    monkeypatch.setattr(walk, "apply_block", fails)
    with pytest.raises(MemoryError, match="no more"):
        engine.expectations(circuit, single_z(7), torch.tensor(inputs), torch.tensor(weights))


def test_a_scaled_observable_and_one_without_terms() -> None:
    circuit, engine = compiled("fake_kyiv", 3, 1, "linear"), TwinExecutor(get_target("fake_kyiv"), path="heisenberg")
    inputs, weights = draw(circuit, 2, 1)
    observables = (SparsePauliOp("IZI"), SparsePauliOp("IZI", -2.5), SparsePauliOp("XZY", 0.0))
    values = engine.expectations(circuit, observables, torch.tensor(inputs), torch.tensor(weights)).numpy()
    assert np.allclose(values[:, 1], -2.5 * values[:, 0], rtol=0, atol=1e-15)
    assert not values[:, 2].any()


def test_a_step_leaves_nothing_behind() -> None:
    """Without the garbage collector's help: a cycle would keep every step's buffers."""
    circuit, engine = compiled("fake_kyiv", 4, 1, "linear"), TwinExecutor(get_target("fake_kyiv"), path="heisenberg")
    z, w = (torch.tensor(x, requires_grad=True) for x in draw(circuit, 8, 1))
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            engine.expectations(circuit, single_z(4), z, w).sum().backward()
        assert not [thing for thing in gc.get_objects() if isinstance(thing, evaluate._Call)]
    finally:
        gc.enable()


@pytest.mark.parametrize("path", ["heisenberg", "density"])
def test_modes_of_torch(path: str) -> None:
    """Inference mode leaves nothing in the engine that could not be differentiated; autocast changes nothing."""
    circuit = compiled("fake_kyiv", 3, 1, "linear")
    inputs, weights = draw(circuit, 4, 1)
    engine = TwinExecutor(get_target("fake_kyiv"), path=path)
    with torch.inference_mode():
        made_there = torch.tensor(inputs)
        before = engine.expectations(circuit, single_z(3), made_there, torch.tensor(weights)).clone()
    w = torch.tensor(weights, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        values = engine.expectations(circuit, single_z(3), made_there, w)
        assert values.dtype == torch.float64
    values.sum().backward()
    assert torch.equal(before, values.detach())
    assert torch.isfinite(w.grad).all()
    with torch.no_grad():
        assert not engine.expectations(circuit, single_z(3), made_there, w).requires_grad


@pytest.mark.parametrize("path", ["heisenberg", "density"])
def test_torchs_own_threads_are_left_out_and_come_back(path: str) -> None:
    circuit, before = compiled("fake_kyiv", 3, 1, "linear"), torch.get_num_threads()
    engine, seen = TwinExecutor(get_target("fake_kyiv"), path=path), []
    z, w = (torch.tensor(x, requires_grad=True) for x in draw(circuit, 4, 1))
    torch.set_num_threads(2)
    try:
        values = engine.expectations(circuit, single_z(3), z, w)
        values.register_hook(lambda _: seen.append(torch.get_num_threads()))
        values.sum().backward()
        assert torch.get_num_threads() == 2
        assert seen == [2]
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("path", ["heisenberg", "density"])
def test_an_empty_batch_can_be_differentiated(path: str) -> None:
    circuit, engine = compiled("fake_kyiv", 4, 1, "linear"), TwinExecutor(get_target("fake_kyiv"), path=path)
    z, w = torch.zeros(0, 4, requires_grad=True), torch.tensor(draw(circuit, 1, 1)[1], requires_grad=True)
    values = engine.expectations(circuit, single_z(4), z, w)
    assert values.shape == (0, 4)
    values.sum().backward()
    assert z.grad.shape == (0, 4)
    assert not w.grad.any()


def test_observables_in_a_new_tuple_are_known() -> None:
    circuit, engine = compiled("fake_kyiv", 3, 1, "linear"), TwinExecutor(get_target("fake_kyiv"), path="heisenberg")
    z, w = (torch.tensor(x) for x in draw(circuit, 2, 1))
    for _ in range(3):
        engine.expectations(circuit, single_z(3), z, w)
        engine.expectations(circuit, list(single_z(3)), z, w)
    assert len(engine._jobs.all()) == 1
    changing = [SparsePauliOp("IIZ")]
    first = engine.expectations(circuit, changing, z, w)
    changing[0] = SparsePauliOp("IIZ", 2.0)
    assert torch.equal(engine.expectations(circuit, changing, z, w), 2 * first)


def test_an_engine_can_be_copied() -> None:
    circuit, engine = compiled("fake_kyiv", 3, 1, "linear"), TwinExecutor(get_target("fake_kyiv"), threads=2)
    z, w = (torch.tensor(x) for x in draw(circuit, 2, 1))
    expected = engine.expectations(circuit, single_z(3), z, w)
    for again in (copy.deepcopy(engine), pickle.loads(pickle.dumps(engine))):
        assert again.threads == 2
        assert torch.equal(again.expectations(circuit, single_z(3), z, w), expected)


def test_a_large_batch_is_refused_before_it_is_tried() -> None:
    circuit, engine = compiled("fake_kyiv", 8, 1, "linear"), TwinExecutor(get_target("fake_kyiv"))
    inputs = torch.zeros(1, 8).expand(50_000_000, 8)
    with pytest.raises(QrunError, match=r"for 50000000 samples would take \d+\.\d GiB"):
        engine._heisenberg(engine._jobs.job(circuit, single_z(8)), len(inputs))


def chain_energy(qubits: int) -> SparsePauliOp:
    """A transverse-field Ising chain."""
    terms = [("ZZ", [q, q + 1], -1.0) for q in range(qubits - 1)] + [("X", [q], 0.7) for q in range(qubits)]
    return SparsePauliOp.from_sparse_list([*terms, ("", [], 0.25)], num_qubits=qubits)


def bricks(qubits: int) -> CompiledCircuit:
    """One layer of rotations and one of CX on neighbours: every wire meets one other."""
    circuit, angles = QuantumCircuit(qubits), ParameterVector("t", qubits)
    for qubit in range(qubits):
        circuit.ry(angles[qubit], qubit)
    for qubit in range(0, qubits - 1, 2):
        circuit.cx(qubit, qubit + 1)
    return compile_ansatz(Ansatz("bricks", circuit, (), tuple(angles)), None, seed=1)


def test_sums_with_small_cones_are_taken_apart() -> None:
    """Together the terms of a chain's energy reach all 8 wires, each alone at most 4."""
    circuit, wanted = bricks(8), (chain_energy(8), SparsePauliOp("IIIIIIIZ"))
    engine, dense = (TwinExecutor(get_target("ideal"), path=path) for path in ("heisenberg", "density"))
    results = []
    for which in (engine, dense):
        w = torch.linspace(0.1, 2.0, 8, dtype=torch.float64, requires_grad=True)
        values = which.expectations(circuit, wanted, torch.zeros(3, 0), w)
        (values * torch.tensor([1.0, 3.0])).sum().backward()
        results.append((values.detach(), w.grad))
    for got, expected in zip(*results, strict=True):
        assert (got - expected).abs().max() < 1e-13
    (job,) = engine._jobs.all()
    assert len(job.plans) > 2
    assert max(plan.largest for plan in job.plans) == 4**4


def test_a_chains_energy_on_thirty_qubits() -> None:
    """Far beyond any density matrix: what is not reached is not written down."""
    circuit, energy = bricks(30), (chain_energy(30),)
    w = torch.linspace(0.1, 2.0, 30, dtype=torch.float64)
    value = TwinExecutor(get_target("ideal")).expectations(circuit, energy, torch.zeros(1, 0), w)
    exact = Statevector(bricks(8).circuit.assign_parameters(w[:8].numpy())).expectation_value(
        SparsePauliOp.from_sparse_list([("ZZ", [q, q + 1], -1.0) for q in range(7)], num_qubits=8)
    )
    first = SparsePauliOp.from_sparse_list([("ZZ", [q, q + 1], -1.0) for q in range(7)], num_qubits=30)
    (part,) = TwinExecutor(get_target("ideal")).expectations(circuit, (first,), torch.zeros(1, 0), w)[0]
    assert abs(part.item() - exact.real) < 1e-13
    assert torch.isfinite(value).all()


def test_threads_are_fewer_where_each_holds_gigabytes() -> None:
    for qubits, threads in ((8, 4), (12, 1)):
        plans, _ = plans_for(program_of("fake_kyiv", qubits, 4, "reverse_linear"), [((1.0, ((0, 3),)),)] * 4)
        assert evaluate.shared(plans, 4, 4) == threads
    assert evaluate.shared(plans[:1], 4, 4) == 1


def test_several_threads_that_leave_torchs_own_alone() -> None:
    """The last one out puts back what was there, in each of them."""
    before, both, seen = torch.get_num_threads(), threading.Barrier(2, timeout=30), []

    def work() -> None:
        torch.set_num_threads(2)
        torch.get_num_threads()  # A thread takes its number at its first question.
        both.wait()
        with plain_modes(torch.device("cpu")):
            both.wait()
            seen.append(torch.get_num_threads())
            both.wait()
        seen.append(torch.get_num_threads())

    try:
        others = [threading.Thread(target=work) for _ in range(2)]
        for other in others:
            other.start()
        for other in others:
            other.join()
    finally:
        torch.set_num_threads(before)
    assert sorted(seen) == [1, 1, 2, 2]
