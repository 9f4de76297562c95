"""Snapshot files: the same device again, to the last bit; and what a hostile file gets."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qiskit_ibm_runtime.fake_provider import FakeKyiv, FakeManilaV2

from backends.catalog import canonical_name, get_target, save_target, show
from backends.observables import single_z
from backends.protocol import Request
from backends.snapshot_file import is_file_name, load, read, save
from backends.target import Target
from backends.twin.channels import Channels
from backends.twin.executor import TwinExecutor
from circuits.compile import compile_ansatz
from circuits.errors import QrunError, UsageError
from circuits.qgan import generator
from tests.backends.reference import draw


@pytest.mark.filterwarnings("ignore::circuits.errors.QrunWarning")
@pytest.mark.parametrize(
    "name", ["fake_kyiv", "fake_kingston", "fake_torino", "fake_almaden", "fake_fractional", "fake_burlington"]
)
def test_a_saved_device_is_the_same_device(name: str, tmp_path: Path) -> None:
    file, original = tmp_path / "device.json", get_target(name)
    saved = save_target(name, file)
    again = get_target(str(file))
    assert (again.kind, again.name, again.snapshot_sha256) == ("snapshot", name, saved.sha256)
    for field in ("calibration_date", "num_qubits", "native_gates"):
        assert getattr(again, field) == getattr(original, field)
    ours, theirs = again.backend.target, original.backend.target
    assert (ours.dt, ours.granularity, ours.pulse_alignment) == (theirs.dt, theirs.granularity, theirs.pulse_alignment)
    qubits = range(original.num_qubits or 0)
    loaded, known, compared = Channels(ours, qubits), Channels(theirs, qubits), 0
    for gate in original.native_gates:
        assert sorted(ours[gate]) == sorted(theirs[gate])
        for wires in theirs[gate]:
            mine, other = loaded.after(gate, wires), known.after(gate, wires)
            assert (mine is None) == (other is None)
            assert mine is None or np.array_equal(mine, other)
            compared += mine is not None
    assert compared >= 3 * len(qubits)
    assert all(loaded.readout(q) == known.readout(q) for q in qubits)
    assert all(np.array_equal(loaded.delay(q, 1e-6), known.delay(q, 1e-6)) for q in qubits)
    values, circuits, ansatz = [], [], generator(3, 1, "linear")
    for target in (again, original):
        circuit = compile_ansatz(ansatz, target.backend, seed=5)
        inputs, weights = draw(circuit, 2, 1)
        (result,) = TwinExecutor(target).run([Request(circuit, single_z(3), inputs, weights)])
        values.append(result.values)
        circuits.append((circuit.circuit, circuit.physical_qubits, circuit.final_layout))
    assert circuits[0] == circuits[1]
    assert np.array_equal(values[0], values[1])


class Remote:
    """A backend as the service gives it: objects with to_dict, dates as datetimes, no files."""

    name = "ibm_kyiv"

    def __init__(self) -> None:
        fake = FakeKyiv()
        self.configuration, self.properties = fake.configuration, fake.properties


def test_a_backend_of_the_service_is_saved_with_dates_and_zones(tmp_path: Path) -> None:
    backend = Remote()
    saved = save(backend, tmp_path / "kyiv.json")  # type: ignore[arg-type]
    document = json.loads((tmp_path / "kyiv.json").read_text())
    assert document["format"] == "qrun-snapshot-1"
    date = datetime.fromisoformat(document["properties"]["last_update_date"])
    assert date == datetime.fromisoformat("2025-02-26T11:02:56-05:00")
    assert date.tzinfo is not None
    assert datetime.fromisoformat(document["properties"]["qubits"][0][0]["date"]).tzinfo is not None
    again, original = load(tmp_path / "kyiv.json"), get_target("fake_kyiv")
    assert (again.name, again.calibration_date) == ("ibm_kyiv", saved.calibration_date)
    wires = next(iter(original.backend.target["ecr"]))
    ours, theirs = (Channels(t.backend.target, range(127)).after("ecr", wires) for t in (again, original))
    assert np.array_equal(ours, theirs)
    assert again.backend.target.dt == pytest.approx(original.backend.target.dt, rel=1e-15)


def test_a_backend_without_a_calibration_cannot_be_saved(tmp_path: Path) -> None:
    with pytest.raises(QrunError, match="fake_kyiv_sub2 has no configuration"):
        save(get_target("fake_kyiv").cut((0, 1)), tmp_path / "part.json")
    with pytest.raises(UsageError, match="ideal has no calibration"):
        save_target("ideal", tmp_path / "ideal.json")
    assert list(tmp_path.iterdir()) == []


def test_where_files_are_written(tmp_path: Path) -> None:
    file = tmp_path / "m.json"
    save(FakeManilaV2(), file)
    first = file.read_bytes()
    with pytest.raises(UsageError, match=r"m\.json exists.*--force"):
        save(FakeManilaV2(), file)
    save(FakeManilaV2(), file, overwrite=True)
    assert file.read_bytes() == first, "the same device gives the same bytes"
    save_target(str(file), tmp_path / "copy.json")
    assert (tmp_path / "copy.json").read_bytes() == first
    with pytest.raises(UsageError, match="does not end in"):
        save(FakeManilaV2(), tmp_path / "m.txt")
    with pytest.raises(UsageError, match=r"cannot write .*No such file or directory"):
        save(FakeManilaV2(), tmp_path / "nowhere" / "m.json")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["copy.json", "m.json"]


def test_names_and_figures_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(FakeManilaV2(), tmp_path / "Some Device.json")
    monkeypatch.chdir(tmp_path)
    assert [is_file_name(n) for n in ("x.json", "a/b", "X.JSON ", "fake_kyiv", "")] == [True, True, True, False, False]
    assert canonical_name("Some Device.json") == str(tmp_path / "Some Device.json")
    file, packaged = show("Some Device.json").to_dict(), show("fake_manila").to_dict()
    assert (file.pop("kind"), packaged.pop("kind")) == ("snapshot", "fake")
    assert file == packaged
    with pytest.raises(UsageError, match=r"there is no file .*gone\.json"):
        get_target("gone.json")
    with pytest.raises(UsageError, match="there is no file"):
        show("./")
    assert get_target("Some Device.json").snapshot_sha256 == read("Some Device.json").sha256


def test_a_file_is_read_anew(tmp_path: Path) -> None:
    file = tmp_path / "m.json"
    save(FakeManilaV2(), file)
    first = get_target(str(file))
    document = json.loads(file.read_text())
    document["properties"]["gates"][0]["parameters"][0]["value"] *= 2
    file.write_text(json.dumps(document))
    assert get_target(str(file)).snapshot_sha256 != first.snapshot_sha256


@pytest.fixture(scope="module")
def manila(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    file = tmp_path_factory.mktemp("manila") / "m.json"
    save(FakeManilaV2(), file)
    document: dict[str, Any] = json.loads(file.read_text())
    return document


def _set(*path: Any) -> Callable[[dict[str, Any]], Any]:
    *way, last, value = path

    def change(document: dict[str, Any]) -> None:
        place: Any = document
        for key in way:
            place = place[key]
        place[last] = value

    return change


CONF, PROPS = "configuration", "properties"
HOSTILE: list[tuple[Callable[[dict[str, Any]], Any], str]] = [
    (_set("format", "qrun-snapshot-9"), "format has to be 'qrun-snapshot-1'"),
    (_set("name", "../../etc/passwd"), "name has to be a plain name"),
    (_set(CONF, []), "configuration has to be an object"),
    (_set(CONF, "n_qubits", 10**9), "n_qubits has to be a whole number from 1 to 4096"),
    (_set(CONF, "n_qubits", True), "n_qubits has to be a whole number"),
    (_set(CONF, "n_qubits", 4), r"gates\[\d\].coupling_map has to be a whole number from 0 to 3"),
    (_set(CONF, "n_qubits", 6), "properties.qubits has 5 entries for the 6 qubits"),
    (_set(CONF, "basis_gates", ["sx", "__class__"]), "basis_gates has to be a plain name"),
    (_set(CONF, "basis_gates", ["sx", "warp"]), "gates that qiskit does not know: warp"),
    (_set(CONF, "basis_gates", ["ccx"] * 10**5), "has to be a list of at most 1000"),
    (_set(CONF, "gates", 0, "coupling_map", [[0, 0]]), "has to name distinct qubits"),
    (_set(CONF, "gates", 0, "coupling_map", [[0, 1, 2]]), "makes no device"),
    (_set(CONF, "dt", 0), "configuration.dt has to be a finite number from"),
    (_set(CONF, "dt", "1"), "configuration.dt has to be a finite number"),
    (_set(CONF, "timing_constraints", {"granularity": -1}), "timing_constraints.granularity has to be a whole number"),
    (_set(PROPS, None), "properties has to be an object"),
    (_set(PROPS, "last_update_date", "yesterday"), "last_update_date has to be a date in ISO 8601"),
    (_set(PROPS, "last_update_date", "2025-02-26T11:02:56"), "last_update_date has to have a time zone"),
    (_set(PROPS, "gates", 0, "qubits", [99]), r"gates\[0\].qubits has to be a whole number from 0 to 4"),
    (_set(PROPS, "gates", 0, "parameters", 0, "value", 1.5), r"gate_error has to be a finite number from 0 to 1"),
    (_set(PROPS, "gates", 0, "parameters", 0, "value", 10**400), "a number is too large"),
    (_set(PROPS, "gates", 0, "parameters", 0, "unit", "parsec"), "unit has to be an SI unit"),
    (_set(PROPS, "qubits", 0, 0, "value", -1.0), r"qubits\[0\].T1 has to be a finite number and not negative"),
    (_set(PROPS, "qubits", 0, 0, "value", None), r"qubits\[0\].T1 has to be a finite number"),
    (_set(PROPS, "qubits", 0, []), "makes no device"),
]


@pytest.mark.parametrize(("change", "says"), HOSTILE, ids=[says[:40] for _, says in HOSTILE])
def test_a_hostile_file_is_one_line(
    manila: dict[str, Any], change: Callable[[dict[str, Any]], Any], says: str, tmp_path: Path
) -> None:
    document, file = copy.deepcopy(manila), tmp_path / "hostile.json"
    change(document)
    file.write_text(json.dumps(document))
    with pytest.raises(QrunError, match=says) as caught:
        load(file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"[" * 10**6, "nested more than 16 deep"),
        (b'{"format": NaN}', "not JSON"),
        (b"[1, 2]", "the file has to be an object"),
        (b"9" * 10_000, "not JSON"),
    ],
)
def test_a_file_that_is_no_snapshot(content: bytes, says: str, tmp_path: Path) -> None:
    file = tmp_path / "no.json"
    file.write_bytes(content)
    with pytest.raises(QrunError, match=says):
        load(file)


def test_a_file_that_never_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(UsageError, match="there is no file"):
        load(tmp_path / "pipe.json")
    monkeypatch.setattr("backends.snapshot_file.MAX_BYTES", 1000)
    (tmp_path / "large.json").write_bytes(b" " * 2000)
    with pytest.raises(QrunError, match="more than 1000"):
        load(tmp_path / "large.json")


def test_a_snapshot_has_no_run(tmp_path: Path) -> None:
    save(FakeManilaV2(), tmp_path / "m.json")
    target = load(tmp_path / "m.json")
    assert isinstance(target, Target)
    with pytest.raises(QrunError, match="no run of its own"):
        target.backend.run(None)
