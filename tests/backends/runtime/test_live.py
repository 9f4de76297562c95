"""Real devices by name, as the stand-in for IBM's service shows them."""

import json
import time
from datetime import datetime

import pytest

from backends import live
from backends.catalog import canonical_name, get_target, save_target, show
from backends.live import devices, fetch, hardware_target, is_concrete, is_hardware_name, pick, plain_name
from backends.runtime import account
from backends.runtime.account import allowance, connect
from backends.runtime.cost import job_seconds, repetition_delay
from backends.runtime.errors import ServiceError
from backends.runtime.standin import Fault, StandIn
from backends.runtime.types import RuntimeOptions
from backends.snapshot_file import read
from circuits.compile import compile_ansatz
from circuits.errors import UsageError
from circuits.qgan import generator

WHAT = ("configuration", "properties")


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    account.disconnect()


@pytest.mark.parametrize(
    ("name", "plain", "concrete"),
    [
        ("ibm_torino", "ibm_torino", True),
        (" IBM-Torino ", "ibm_torino", True),
        ("least_busy", "least-busy", False),
        ("Best", "best", False),
    ],
)
def test_names(name: str, plain: str, concrete: bool) -> None:
    assert is_hardware_name(name)
    assert plain_name(name) == plain
    assert is_concrete(name) is concrete


@pytest.mark.parametrize(
    "name", ["fake_torino", "ideal", "ibm", "ibm_", "ibm_a/../b", "ibm.json", "ibmq", "bestest", ""]
)
def test_other_names(name: str) -> None:
    assert not is_hardware_name(name)


def test_devices_and_the_plan(runtime_standin: StandIn) -> None:
    runtime_standin.settings.plan, runtime_standin.settings.spent = "open", 120.0
    found = {device.name: device for device in devices()}
    assert {"ibm_kyiv", "ibm_torino"} <= set(found)
    assert found["ibm_torino"].operational
    assert (found["ibm_torino"].qubits, found["ibm_torino"].status) == (133, "online")
    plan = allowance(connect())
    assert (plan.plan, plan.limit, plan.consumed, plan.remaining) == ("open", 600.0, 120.0, 480.0)


def test_a_device_is_built_from_its_live_calibration(runtime_standin: StandIn, tmp_path) -> None:
    target = get_target("IBM Torino")
    assert (target.name, target.kind, target.num_qubits) == ("ibm_torino", "hardware", 133)
    packaged = get_target("fake_torino")
    ansatz, options = generator(4, 2), RuntimeOptions()
    real, fake = (compile_ansatz(ansatz, t.backend, seed=0) for t in (target, packaged))
    assert real.physical_qubits == fake.physical_qubits
    assert real.circuit == fake.circuit
    assert repetition_delay(target) == pytest.approx(250e-6)
    assert job_seconds(real, target, options, 9) == pytest.approx(job_seconds(fake, packaged, options, 9))
    for qubit in real.physical_qubits:
        assert target.readout_errors(qubit) == packaged.readout_errors(qubit)
    assert show("ibm_torino").median_error_2q == show("fake_torino").median_error_2q
    assert show("ibm_torino").kind == "hardware"


def test_the_same_calibration_gives_the_same_bytes_anywhere(
    runtime_standin: StandIn, monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    first = fetch("ibm_torino")
    monkeypatch.setenv("TZ", "Pacific/Auckland")  # the client turns dates into those of the place
    time.tzset()
    try:
        account.disconnect()
        assert fetch("ibm_torino").content == first.content
    finally:
        monkeypatch.delenv("TZ")
        time.tzset()
    assert first.calibration_date.endswith("+00:00")
    packaged = show(first.name.replace("ibm_", "fake_")).calibration_date
    assert packaged is not None
    assert datetime.fromisoformat(first.calibration_date) == datetime.fromisoformat(packaged)
    # It is a snapshot file: saved, read back and run on without a network.
    saved = save_target("ibm_torino", tmp_path / "torino.json")
    assert saved.sha256 == first.sha256
    again = hardware_target(read(tmp_path / "torino.json"))
    assert (again.kind, again.snapshot_sha256) == ("hardware", first.sha256)
    assert get_target(str(tmp_path / "torino.json")).kind == "snapshot"
    assert runtime_standin.settings.token not in first.content.decode()


def test_gates_that_need_asking_for_are_left_out(runtime_standin: StandIn) -> None:
    """Fractional gates (rzz, rx) are on Heron devices only for those who ask, and no circuit here does."""
    document = json.loads(fetch("ibm_fez").content)
    assert "rzz" not in document["configuration"]["basis_gates"]


def test_an_unknown_device_gets_a_suggestion(runtime_standin: StandIn) -> None:
    with pytest.raises(UsageError, match="Did you mean ibm_torino"):
        fetch("ibm_torini")
    with pytest.raises(UsageError, match="chosen for a circuit"):
        get_target("least-busy")
    assert canonical_name("least_busy") == "least-busy"


def test_least_busy(runtime_standin: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    found = devices()
    queues = {device.name: 10 + number for number, device in enumerate(found)}
    queues["ibm_kyiv"] = 2
    listed = [live.Device(d.name, d.qubits, d.operational, d.status, queues[d.name]) for d in found]
    monkeypatch.setattr(live, "devices", lambda: listed)
    name, why = pick("least-busy", generator(4, 1))
    assert name == "ibm_kyiv"
    assert "2 job(s) wait" in why
    offline = [live.Device(d.name, d.qubits, d.name != "ibm_kyiv", d.status, queues[d.name]) for d in found]
    monkeypatch.setattr(live, "devices", lambda: offline)
    assert pick("least-busy", generator(4, 1))[0] != "ibm_kyiv"
    with pytest.raises(UsageError, match="qubits"):
        pick("least-busy", generator(200, 1))
    monkeypatch.setattr(live, "devices", list)
    with pytest.raises(ServiceError, match="no device"):
        pick("best", generator(4, 1))


def test_best_weighs_fidelity_and_queue(runtime_standin: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    two = [live.Device("ibm_kyiv", 127, True, "online", 0), live.Device("ibm_fez", 156, True, "online", 9)]
    monkeypatch.setattr(live, "devices", lambda: two)
    told: list[tuple[str, int, int]] = []
    name, why = pick("best", generator(4, 4), progress=lambda *step: told.append(step))
    assert name == "ibm_fez"  # 0.92 against 0.85: not within 5 %, whatever the queue
    assert "0.9" in why
    assert told[0] == ("ibm_kyiv", 0, 2)


def test_few_requests_are_made(runtime_standin: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """One list of devices and one more of the client's own for each, and of each its configuration and properties."""
    service = connect()
    asked: list[str] = []
    session = service._active_api_client._session
    get = session.get
    monkeypatch.setattr(session, "get", lambda url, *rest, **more: asked.append(url) or get(url, *rest, **more))
    pick("best", generator(4, 1))
    named = [f"/backends/{device}/{what}" for device in ("ibm_fez", "ibm_kyiv", "ibm_torino") for what in WHAT]
    assert sorted(asked) == sorted(["/backends"] * 4 + named)


def test_a_service_in_trouble_is_told(runtime_standin: StandIn) -> None:
    connect()
    runtime_standin.faults.add(Fault("GET", r"/backends$", status=401, times=9))
    with pytest.raises(ServiceError, match="token is refused"):
        devices()


def test_what_the_service_lists_is_checked() -> None:
    good = {"name": "ibm_x", "qubits": 5, "status": {"name": "online"}, "queue_length": 3}
    assert live._device(good) == live.Device("ibm_x", 5, True, "online", 3)
    assert live._device({**good, "queue_length": "many"}) == live.Device("ibm_x", 5, True, "online", None)
    assert live._device({**good, "status": {"name": "x\x1b[31m"}}).status == "x31m"
    for bad in ({**good, "name": "ibm_x/.."}, {**good, "qubits": -1}, {**good, "is_simulator": True}, None, []):
        assert live._device(bad) is None
