import inspect

from qiskit_ibm_runtime.fake_provider import FakeFez, FakeFractionalBackend

from circuits.targets import copy_target


def test_a_copy_has_the_same_calibrations() -> None:
    target = FakeFez().target
    copy = copy_target(target)
    assert set(copy.operation_names) == set(target.operation_names)
    assert list(copy.operation_names) == sorted(copy.operation_names)
    assert copy.dt == target.dt
    for name in target.operation_names:
        if not inspect.isclass(target.operation_from_name(name)):
            assert dict(copy[name]) == dict(target[name])
    for mine, theirs in zip(copy.qubit_properties, target.qubit_properties, strict=True):
        assert (mine.t1, mine.t2, mine.frequency) == (theirs.t1, theirs.t2, theirs.frequency)


def test_a_cut_renumbers() -> None:
    target = FakeFez().target
    qubits = (23, 22, 24)
    cut = copy_target(target, qubits=qubits)
    assert cut.num_qubits == 3
    assert set(cut["cz"]) == {(0, 1), (1, 0), (0, 2), (2, 0)}
    assert cut["cz"][(0, 2)].error == target["cz"][(23, 24)].error
    assert cut["sx"][(1,)].duration == target["sx"][(22,)].duration
    assert [q.t1 for q in cut.qubit_properties] == [target.qubit_properties[q].t1 for q in qubits]


def test_keep_leaves_out() -> None:
    copy = copy_target(FakeFez().target, keep=lambda name, where, _: not (name == "cz" and 3 in where))
    assert not any(3 in pair for pair in copy["cz"])
    assert (3,) in copy["sx"]


def test_angle_bounds_survive() -> None:
    target = FakeFractionalBackend().target
    copy = copy_target(target)
    assert copy.gate_has_angle_bounds("rzz")
    for angle in (0.1, 1.5, 1.6, -0.1):
        assert copy.supported_angle_bound("rzz", [angle]) == target.supported_angle_bound("rzz", [angle])
