"""The live pages: what they show of runs in every state, and to whom."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from backends.runtime.ledger import Job
from circuits.errors import UsageError
from runner.config import build_config
from runner.dashboard.app import HEADERS, application, listen
from runner.ledger import RunLedger
from runner.places import Places
from runner.store import RunIndex, RunStore, locked, write_durably
from runner.versions import versions
from tests.browser import browser, chromium

SECRET = "sk-very-secret"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QRUN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("QISKIT_IBM_TOKEN", SECRET)
    monkeypatch.setenv("QRUN_CHAIN_KEY", SECRET)
    return tmp_path / "home"


def entered(seed: int = 0, rounds: int = 2) -> Path:
    """A run that has begun: its config, its keys, one settled round, a job on its way."""
    config = build_config({"experiment": "nsl-kdd", "rounds": 5, "seed": seed})
    places = Places(chain=f"http://user:{SECRET}@127.0.0.1:8545")
    manifest: dict[str, Any] = {
        "config": config.model_dump(mode="json"),
        "config_digest": config.digest.hex(),
        "places": places.to_json(),
        "device": "cpu",
        "versions": versions(),
    }
    index = RunIndex()
    info = index.create(f"made-up-{seed}", None, manifest)
    index.close()
    write_durably(info.path / "config.json", json.dumps({**manifest, "run": info.run}).encode())
    write_durably(info.path / "keys.json", json.dumps({"opener": SECRET}).encode(), 0o600)
    store = RunStore(info.run, info.path)
    for number in range(1, rounds + 1):
        store.put(f"told/{number}", _round(number))
    store.add_seconds("training", 12.5)
    job = Job(tag="qrun-1", key="train/1/0/0/0", request="0" * 64, backend="ibm_torino", mode="batch", local=False,
              circuits=96, shots=1024, reserve=60.0, estimate=31.5, state="sent", job_id="job-4711")  # fmt: skip
    RunLedger(store).write(job)
    store.close()
    return info.path


def _round(number: int) -> dict[str, Any]:
    metrics = {"accuracy": 0.9, "precision": 0.9, "recall": 0.9, "f1": 0.9, "auroc": 0.9 + number / 100, "threshold": 5}
    nodes = [
        {"id": i, "cid": f"bafkmodel{i}", "metrics": metrics, "grades": {"1": 100}, "reputation": 90.0 + i, "fault": ""}
        for i in range(3)
    ]
    reputation = {str(i): 90.0 + i for i in range(3)}
    settlement = {"reputation": reputation, "scores": {}, "flagged": [], "excluded": []}
    return {
        "number": number, "base": number - 1, "void": False, "nodes": nodes, "absent": [], "settlement": settlement,
        "aggregate": {"metrics": metrics},
    }  # fmt: skip


@pytest.fixture
def port(home: Path) -> Iterator[int]:
    listening = listen(0)
    config = uvicorn.Config(application(), log_level="warning", access_log=False, server_header=False, lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    yield int(listening.getsockname()[1])
    server.should_exit = True
    thread.join(30)
    listening.close()


def ask(port: int, path: str = "/", method: str = "GET", **headers: str) -> tuple[int, dict[str, str], str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read().decode()
    finally:
        connection.close()


def test_it_shows_runs_rounds_jobs_reputation_and_spend(port: int) -> None:
    path = entered()
    with locked(path):
        status, _, text = ask(port)
    assert status == 200
    for shown in ("made-up-0", "running", "fake_kyiv", "2 of 5", "0.9200", "90.0", "job-4711", "31.5", "QPU spent"):
        assert shown in text, shown
    status, _, text = ask(port, "/runs/made-up-0")
    assert status == 200
    for shown in ("2 of 5 rounds are settled", "bafkmodel2", "<svg", "qrun runs resume made-up-0", "training"):
        assert shown in text, shown


def test_nothing_secret_is_on_a_page(port: int) -> None:
    entered()
    for path in ("/", "/runs/made-up-0"):
        assert SECRET not in ask(port, path)[2]


def test_a_page_of_another_site_gets_nothing(port: int) -> None:
    entered()
    for host in ("evil.example", "evil.example:8765", "127.0.0.1.evil.example", "169.254.1.1", ""):
        status, _, text = ask(port, Host=host)
        assert status == 400, host
        assert "made-up" not in text
    for host in ("127.0.0.1", f"127.0.0.1:{port}", f"localhost:{port}"):
        assert ask(port, Host=host)[0] == 200
    _, headers, _ = ask(port, Origin="http://evil.example")
    assert not [name for name in headers if name.startswith("access-control")]
    assert all(headers[name.lower()] == value for name, value in HEADERS.items())


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_can_be_changed(port: int, method: str) -> None:
    for path in ("/", "/runs/x"):
        assert ask(port, path, method)[0] == 405


@pytest.mark.parametrize(
    "path", ["/runs/none", "/runs/..%2f..%2fetc%2fpasswd", "/runs/%3Cscript%3E", "/keys.json", "/runs/"]
)
def test_what_is_not_there_is_not_found(port: int, path: str) -> None:
    entered()
    status, _, text = ask(port, path)
    assert status == 404
    assert "<script>" not in text


def test_a_damaged_run_hides_no_other(port: int) -> None:
    first, second = entered(0), entered(1)
    (first / "config.json").write_text("{")
    (second / "state.sqlite").write_bytes(b"no database")
    status, _, text = ask(port)
    assert status == 200
    assert "made-up-0" in text
    assert "made-up-1" in text
    assert ask(port, "/runs/made-up-0")[0] == 200
    assert ask(port, "/runs/made-up-1")[0] == 200


def test_without_runs_there_is_a_page_all_the_same(port: int) -> None:
    assert "0 runs" in ask(port)[2]


def test_it_listens_on_the_loopback_address_alone() -> None:
    with listen(0) as listening:
        assert listening.getsockname()[0] == "127.0.0.1"
        with pytest.raises(UsageError, match="Take another with --port"):
            listen(listening.getsockname()[1])
    with pytest.raises(UsageError, match="0 to 65535"):
        listen(70_000)


@pytest.mark.browser
@pytest.mark.skipif(chromium() is None, reason="no Chromium here")
def test_the_pages_are_quiet_in_a_browser(port: int) -> None:
    entered()
    with browser() as page:
        for path in ("/", "/runs/made-up-0"):
            page.open(f"http://127.0.0.1:{port}{path}")
            assert page.said == []
            assert all(url.startswith((f"http://127.0.0.1:{port}", "data:")) for url in page.asked)
        page.open(f"http://127.0.0.1:{port}/")
        page.run("document.querySelector('#table-runs a').click()")
        page.run("new Promise(done => setTimeout(done, 500))")
        assert page.run("location.pathname") == "/runs/made-up-0"
