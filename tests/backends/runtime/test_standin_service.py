"""The stand-in, seen through the real client: the account, the devices, use, and what is refused."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from qiskit_ibm_runtime.exceptions import IBMInputValueError, IBMNotAuthorizedError

from backends.catalog import get_target
from backends.runtime.standin import Settings, StandIn
from backends.runtime.standin.devices import device
from circuits.errors import QrunError, UsageError


def ask(service: StandIn, path: str, body: object = None, **headers: str) -> tuple[int, Any]:
    """A request without the client: status and JSON."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(service.url + path, data=data, headers=headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=10) as answer:
            content = answer.read()
            return answer.status, json.loads(content) if content else None
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_account_devices_and_use(service: Any, runtime_standin: StandIn) -> None:
    runtime_standin.settings.plan = "open"
    assert [b.name for b in service.backends()] == ["ibm_kyiv", "ibm_torino", "ibm_fez"]
    assert [i["crn"] for i in service.instances()] == [runtime_standin.settings.instance]
    assert service.active_instance() == runtime_standin.settings.instance
    usage = service.usage()
    assert usage["usage_remaining_seconds"] == 600
    assert usage["usage_consumed_seconds"] == 0


@pytest.mark.parametrize(("plan", "pricing"), [("open", "free"), ("premium", "paid"), ("flex", "paid")])
def test_the_plan_is_that_of_the_catalog(
    runtime_standin: StandIn, connect: Callable[[], Any], plan: Any, pricing: str
) -> None:
    runtime_standin.settings.plan = plan
    entry = connect().instances()[0]
    assert (entry["plan"], entry["pricing_type"]) == (plan, pricing)


@pytest.mark.parametrize("name", ["kyiv", "torino", "fez"])
def test_a_device_is_the_fake_one_under_its_own_name(service: Any, name: str) -> None:
    backend, fake = service.backend(f"ibm_{name}"), get_target(f"fake_{name}").backend
    assert fake is not None
    status = backend.status()
    assert (status.operational, status.status_msg, status.pending_jobs) == (True, "active", 0)
    assert backend.target.num_qubits == fake.target.num_qubits
    two = next(gate for gate in ("ecr", "cz") if gate in fake.target.operation_names)
    for gate in ("sx", two, "measure"):
        real = {where: (p.error, p.duration) for where, p in backend.target[gate].items() if p}
        assert real == {where: (p.error, p.duration) for where, p in fake.target[gate].items() if p}
        assert real
    assert backend.properties().backend_name == backend.configuration().backend_name == f"ibm_{name}"


def test_least_busy_goes_by_the_queue(service: Any, runtime_standin: StandIn, sent: Any) -> None:
    from qiskit_ibm_runtime.executor_sampler import Sampler

    runtime_standin.hold()
    Sampler(mode=service.backend("ibm_kyiv")).run([(sent.wide, sent.values[0])], shots=10)
    assert service.backend("ibm_kyiv").status().pending_jobs == 1
    assert service.least_busy().name == "ibm_torino"


def test_a_wrong_key_is_refused(
    monkeypatch: pytest.MonkeyPatch, connect: Callable[[], Any], runtime_standin: StandIn
) -> None:
    from qiskit_ibm_runtime.accounts.exceptions import InvalidAccountError

    monkeypatch.setenv("QISKIT_IBM_TOKEN", "wrong")
    with pytest.raises(InvalidAccountError, match="valid API token"):
        connect()
    assert not runtime_standin.accepted()


def test_a_key_that_is_taken_back_gives_401(service: Any, runtime_standin: StandIn) -> None:
    service._active_api_client._session.auth.tm.access_token = "a.b.c"
    with pytest.raises(IBMNotAuthorizedError, match="Invalid credentials"):
        service.usage()


def test_another_instance_is_not_ours(monkeypatch: pytest.MonkeyPatch, connect: Callable[[], Any]) -> None:
    monkeypatch.setenv("QISKIT_IBM_INSTANCE", "crn:v1:bluemix:public:quantum-computing:us-east:a/1:2::")
    with pytest.raises(IBMInputValueError, match="does not have access"):
        connect()


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer x.y.z"}, {"Authorization": "apikey secret"}])
def test_nothing_is_told_without_a_token(runtime_standin: StandIn, headers: dict[str, str]) -> None:
    status, body = ask(runtime_standin, "/backends", **headers)
    assert (status, body["errors"][0]["code"]) == (401, 1201)


def test_instance_header_is_checked(runtime_standin: StandIn) -> None:
    form = f"apikey={runtime_standin.settings.token}".encode()
    with urllib.request.urlopen(urllib.request.Request(runtime_standin.url + "/identity/token", form)) as answer:
        access = json.load(answer)["access_token"]
    right = {"Authorization": f"Bearer {access}", "Service-CRN": runtime_standin.settings.instance}
    assert ask(runtime_standin, "/backends", **right)[0] == 200
    assert ask(runtime_standin, "/api/v1/backends", **right)[0] == 200
    assert ask(runtime_standin, "/backends", **{**right, "Service-CRN": "crn:other"})[0] == 403
    assert ask(runtime_standin, "/backends/ibm_nowhere/status", **right)[0] == 404
    assert ask(runtime_standin, "/nowhere", **right)[0] == 404
    assert ask(runtime_standin, "/sessions", **right)[0] == 405
    assert ask(runtime_standin, "/jobs?limit=x", **right)[0] == 400
    assert ask(runtime_standin, "/jobs?created_after=x", **right)[0] == 400
    assert ask(runtime_standin, "/jobs", [1], **right)[0] == 400


def test_settings_that_cannot_be() -> None:
    with pytest.raises(UsageError, match="unknown device 'fake_nowhere'"):
        StandIn(Settings(devices=("fake_nowhere",)))
    with pytest.raises(UsageError, match="needs a device"):
        StandIn(Settings(devices=()))
    with StandIn() as first, pytest.raises(QrunError, match="cannot serve on port"):
        StandIn(port=int(first.url.rpartition(":")[2]))


def test_devices_have_their_files_numbers() -> None:
    made = device("fake_kyiv")
    assert (made.name, made.qubits, made.configuration["backend_name"]) == ("ibm_kyiv", 127, "ibm_kyiv")
    assert made.properties["backend_name"] == "ibm_kyiv"
