import json
import math
import statistics
import subprocess
import sys

import pytest
from qiskit.circuit import Gate
from qiskit_ibm_runtime import fake_provider
from qiskit_ibm_runtime.fake_provider.fake_backend import FakeBackendV2

from backends.catalog import get_target, list_targets, show
from circuits.errors import QrunError, UsageError

SHIPPED = {
    kind.backend_name: kind
    for kind in vars(fake_provider).values()
    if isinstance(kind, type) and issubclass(kind, FakeBackendV2) and kind is not FakeBackendV2
}


def test_lists_every_device_that_the_runtime_ships() -> None:
    names = [summary.name for summary in list_targets()]
    assert names[0] == "ideal"
    assert names[1:] == sorted(SHIPPED)
    assert len(SHIPPED) >= 68


def _median(errors: list[float | None]) -> float | None:
    kept = [error for error in errors if error is not None and error < 1.0]
    return statistics.median(kept) if kept else None


@pytest.mark.parametrize(
    "name",
    ["fake_kyiv", "fake_fez", "fake_torino", "fake_lima", "fake_almaden", "fake_armonk", "fake_cairo", "fake_kyoto"],
)
def test_figures_are_those_of_the_device(name: str) -> None:
    summary, backend = show(name), SHIPPED[name]()
    target, properties = backend.target, backend.properties()
    assert summary.qubits == target.num_qubits
    gates = {n for n in target.operation_names if n != "delay" and isinstance(target.operation_from_name(n), Gate)}
    assert set(summary.native_gates) == gates
    one = "sx" if "sx" in gates else "u2"
    assert summary.median_error_1q == pytest.approx(_median([p.error for p in target[one].values()]), rel=1e-12)
    if summary.two_qubit_gate is None:
        assert target.num_qubits == 1
    else:
        pairs = target[summary.two_qubit_gate].values()
        expected = _median([p.error for p in pairs])
        assert (summary.median_error_2q is None) == (expected is None) == (name == "fake_kyoto")
        assert expected is None or summary.median_error_2q == pytest.approx(expected, rel=1e-12)
    readout = _median([p.error for p in target["measure"].values()])
    assert summary.median_error_readout == pytest.approx(readout, rel=1e-12)
    assert summary.median_t1 == pytest.approx(statistics.median(q.t1 for q in target.qubit_properties), rel=1e-12)
    assert summary.median_t2 == pytest.approx(statistics.median(q.t2 for q in target.qubit_properties), rel=1e-12)
    assert summary.calibration_date is not None
    assert summary.calibration_date[:10] == properties.to_dict()["last_update_date"].isoformat()[:10]


def test_every_summary_is_plausible_and_goes_to_json() -> None:
    for summary in list_targets()[1:]:
        again = json.loads(json.dumps(summary.to_dict(), allow_nan=False))
        assert again["name"] == summary.name
        assert again["native_gates"] == list(summary.native_gates)
        assert 0 < summary.median_error_1q < 0.05
        assert 0 < summary.median_error_readout < 0.5
        assert 1e-6 < summary.median_t1 < 1e-2
        assert summary.median_error_2q is None or 0 < summary.median_error_2q < 0.1
        assert (summary.median_error_2q is None) == (summary.name in ("fake_armonk", "fake_kyoto"))


def test_ideal_has_no_errors() -> None:
    summary = show("ideal").to_dict()
    assert summary["kind"] == "ideal"
    assert [key for key, value in summary.items() if value] == ["name", "kind"]
    target = get_target("Ideal")
    assert (target.backend, target.num_qubits, target.calibration_date) == (None, None, None)
    assert target.readout_errors(3) == (0.0, 0.0)
    with pytest.raises(QrunError, match="no device"):
        target.cut([0])


@pytest.mark.parametrize("name", ["fake_kyiv", "FAKE-KYIV", " kyiv ", "FakeKyiv", "Fake Kyiv"])
def test_names_are_forgiving(name: str) -> None:
    target = get_target(name)
    assert target is get_target("fake_kyiv")
    assert (target.name, target.kind, target.num_qubits) == ("fake_kyiv", "fake", 127)
    assert target.native_gates == ("ecr", "id", "rz", "sx", "x")
    assert target.calibration_date == "2025-02-26T11:02:56-05:00"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("fake_kiev", "Did you mean fake_kyiv? `qrun backends list`"),
        ("torin", "Did you mean fake_torino?"),
        ("idea", "Did you mean ideal?"),
        ("qasm", "`qrun backends list` shows all"),
        ("", "unknown backend ''"),
        ("ibm_kyiv", "token"),
        ("IBM Kyiv", "the noisy twin of its packaged calibration: fake_kyiv"),
        ("ibm_nowhere", "`qrun login`"),
        ("least-busy", "chooses among real devices"),
    ],
)
def test_unknown_names(name: str, says: str, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.delenv("QISKIT_IBM_TOKEN", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # nor a saved account
    for ask in (get_target, show):
        with pytest.raises(UsageError) as caught:
            ask(name)
        assert says in str(caught.value)


def test_a_cut_has_the_calibration_of_its_qubits() -> None:
    target = get_target("fake_kyiv")
    cut = target.cut((41, 53, 60))
    full = target.backend.target
    assert cut.target.num_qubits == 3
    for pair, properties in cut.target["ecr"].items():
        physical = tuple((41, 53, 60)[w] for w in pair)
        assert properties.error == full["ecr"][physical].error
    assert math.isclose(target.readout_errors(53)[0], full["measure"][(53,)].error)
    with pytest.raises(QrunError, match="no run of its own"):
        cut.run(None)
    for wrong in ((1, 1), (0, 127), (-1,)):
        with pytest.raises(QrunError, match="cannot be cut"):
            target.cut(wrong)


def test_separate_readout_errors_are_taken_where_the_target_has_them() -> None:
    from qiskit.circuit import Measure
    from qiskit.transpiler import InstructionProperties, Target

    from backends.target import readout_errors

    class Both(InstructionProperties):
        prob_meas1_prep0, prob_meas0_prep1 = 0.02, 0.05

    target = Target(num_qubits=2)
    target.add_instruction(Measure(), {(0,): Both(error=0.035)})
    assert readout_errors(target, 0) == (0.02, 0.05)
    assert readout_errors(target, 1) == (0.0, 0.0)


@pytest.mark.slow
def test_a_list_needs_neither_qiskit_nor_torch() -> None:
    script = (
        "import sys\nfrom backends.catalog import list_targets, show\nlist_targets()\nshow('fake_fez')\n"
        "print(sorted({'qiskit', 'torch', 'qiskit_ibm_runtime'} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
