"""Records made to mislead or to break the audit: configs, folders, nodes behind a URL, and wrong questions."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from circuits.errors import UsageError
from contracts.build import load_artefact
from contracts.cid import Cid
from contracts.errors import ContentError, LedgerError
from contracts.history import read_chain
from contracts.interface import topic_of
from contracts.rounds import FederatedRounds
from runner.audit.audit import Audit, WithData, audit
from runner.audit.sources import Evidence, Reader, gather
from runner.audit.story import tell
from runner.cli import app
from runner.config import canonical
from runner.publishing import Publishing
from tests.runner.audit.conftest import Audits
from tests.runner.audit.support import forge, with_args
from tests.runner.small_federation import opened, small_config

CONFIG = small_config(3, 2)


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a federation that has ended, without a result."""
    folder = tmp_path_factory.mktemp("played") / "run"
    with opened(CONFIG, folder) as federation:
        federation.play()
        federation.store.put(CONFIG.canonical())
    return folder


@pytest.fixture
def run(played: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(played, tmp_path / "run"))


def called(*args: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in args])


def reasons(found: Audit, verdict: Any) -> dict[str, str]:
    return {check.id: check.reason for check in found.findings.of(verdict)}


# -- configs ----------------------------------------------------------------------------------------------------------


def with_config(evidence: Evidence, data: bytes, version: str | None) -> Evidence:
    """The record as it were had the task been opened with these bytes as its config, and all models been taken away."""
    digest = hashlib.sha256(data).digest()

    def place(cid: Cid) -> bytes:
        if cid.digest == digest:
            return data
        raise ContentError("gone")

    assert evidence.history is not None
    history = forge(
        evidence.history,
        "TaskOpened",
        lambda e: replace(
            e, args={**e.args, "configDigest": digest, "terms": {**e.args["terms"], "configDigest": digest}}
        ),
    )
    # A forger signs the opening anew, and so can make it fit: what is left is the config.
    call = replace(history.calls[0], data=history.calls[0].data.replace(CONFIG.digest, digest))
    history = replace(history, calls=(call, *history.calls[1:]), code=history.code.replace(CONFIG.digest, digest))
    named, _, commit = (version or "").partition(" ")
    versions = {"qrun": named, "git_commit": commit or None}
    manifest = None if version is None else json.dumps({"versions": versions}).encode()
    return replace(evidence, history=history, manifest=manifest, folder=None, store=Reader([place]))


UNKNOWN = canonical({**json.loads(CONFIG.canonical()), "zzz": 1})
FEWER = canonical({k: v for k, v in json.loads(CONFIG.canonical()).items() if k != "seed"})


@pytest.mark.parametrize(
    "data",
    [
        b"no JSON",
        b"[1]",
        b"7",
        b'{"a": 1}',
        UNKNOWN + b" ",
        CONFIG.canonical().replace(b'"seed":0', b'"seed":1e999'),
    ],
)
def test_bytes_that_are_no_config_are_false(played: Path, data: bytes) -> None:
    with gather(str(played)) as evidence:
        found = audit(with_config(evidence, data, "0.0.1"))
    assert "config/form" in reasons(found, "false")
    assert found.sound is False


@pytest.mark.parametrize("data", [UNKNOWN, FEWER])
def test_a_config_of_another_version_leaves_the_audit_open(played: Path, data: bytes) -> None:
    with gather(str(played)) as evidence:
        found = audit(with_config(evidence, data, "99.0"))
    false = {k: v for k, v in reasons(found, "false").items() if k not in ("config/file", "config/task/experiment")}
    assert false == {}
    assert "cannot be audited by this version" in reasons(found, "not checked")["config/form"]
    assert "made with qrun 99.0" in reasons(found, "not checked")["config/form"]
    assert {"config/form", "models/all"} <= {check.id for check in found.findings if check.withheld}


@pytest.mark.parametrize("version", [None, "1.0", "1.0 abc"])
def test_a_config_with_settings_that_its_own_version_does_not_have_is_false(
    played: Path, version: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runner.audit.models.package_version", lambda _: "1.0")
    monkeypatch.setattr("runner.audit.models.git_commit", lambda: "abc" if version and " " in version else None)
    with gather(str(played)) as evidence:
        found = audit(with_config(evidence, UNKNOWN, version))
        assert "zzz" in reasons(found, "false")["config/form"]
        # Another commit of the same version may have other settings.
        found = audit(with_config(evidence, UNKNOWN, "1.0 def"))
    assert "made with qrun 1.0 at commit def" in reasons(found, "not checked")["config/form"]


def test_what_the_record_hides_is_no_success(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from runner.audit.checks import Findings
    from runner.audit.view import show_audit

    findings = Findings()
    findings.test(True, "chain/whole", "holds")
    assert Audit("r", {}, findings).sound is True
    findings.skipped("metrics/all", "the metrics", "needs the data")
    assert Audit("r", {}, findings).sound is True
    show_audit(Audit("r", {}, findings))
    assert "Nothing is false; one statement was not checked." in capsys.readouterr().out
    findings.withheld("config/form", "the config", "of another version")
    found = Audit("r", {}, findings)
    assert found.sound is None
    assert found.to_dict()["sound"] is None
    assert found.to_dict()["not_checked"] == 2
    show_audit(found)
    out = capsys.readouterr().out
    assert "Nothing is false" not in out
    assert "cannot be audited: 2 statements were not checked, and the record itself keeps 1 of them" in out
    monkeypatch.setattr("runner.audit.audit.audit", lambda *_, **__: found)
    assert called("verify", run).exit_code == 2
    findings.false("chain/code", "the code", "it is another")
    assert Audit("r", {}, findings).sound is False
    assert called("verify", run).exit_code == 1


# -- folders ----------------------------------------------------------------------------------------------------------


def fifo(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def sparse(path: Path) -> None:
    path.unlink(missing_ok=True)
    with path.open("wb") as file:
        file.truncate(30 << 30)


@pytest.mark.parametrize("make", [fifo, sparse])
@pytest.mark.parametrize("name", ["config.json", "result.json"])
def test_a_special_file_in_a_runs_folder_is_refused_in_a_line(
    run: Path, make: Callable[[Path], None], name: str
) -> None:
    make(run / name)
    done = called("verify", run)
    assert done.exit_code == 1
    assert f"{name} rejected" in " ".join(done.stderr.split())


@pytest.mark.parametrize("make", [fifo, sparse])
def test_special_files_beside_the_record_are_false(run: Path, make: Callable[[Path], None]) -> None:
    from runner.audit.checks import Findings
    from runner.audit.files import check_artefacts, check_blocks, check_copies, check_keys

    models = run / "models"
    models.mkdir()
    block = next((run / "blocks").glob("??/*"))
    for path in (models / "final.json", run / "keys.json", run / "picture.png", block):
        make(path)
    result = {"feature_map": {"cid": "x"}, "final": {"cid": "y"}, "rounds": [], "artefacts": {"picture.png": "0" * 64}}
    findings = Findings()
    check_copies(findings, run, result)
    check_artefacts(findings, run, result)
    check_keys(findings, run, None)  # type: ignore[arg-type]
    check_blocks(findings, run)
    assert {"files/models/final.json", "files/keys.json", "files/picture.png", f"files/blocks/{block.name}"} <= {
        check.id for check in findings.of("false")
    }


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "", "..", "x" * 5000])
def test_names_that_no_file_has_are_no_crash(run: Path, name: str) -> None:
    from runner.audit.checks import Findings
    from runner.audit.files import check_artefacts

    findings = Findings()
    check_artefacts(findings, run, {"artefacts": {name: "0" * 64}})
    assert len(list(findings)) == 1
    assert not findings.of("holds")


def test_an_infinite_round_in_a_result_is_no_crash(run: Path, verified: Audits) -> None:
    for number in ("1e999", "-1e999", "9" * 400):
        (run / "result.json").write_text('{"rounds": [{"number": ' + number + "}]}")
        assert "result/form" in reasons(verified(run), "false")


# -- logs -------------------------------------------------------------------------------------------------------------


def test_a_whole_audit_survives_what_no_contract_logs(played: Path) -> None:
    lies: list[tuple[str, dict[str, Any]]] = [
        ("ModelSubmitted", {"node": 200}),
        ("ModelSubmitted", {"round": 0}),
        ("NodeRegistered", {"node": 2**200}),
        ("RoundSettled", {"reputation": []}),
    ]
    with gather(str(played)) as evidence:
        assert evidence.history is not None
        for name, changed in lies:
            forged = forge(evidence.history, name, with_args(**changed))
            found = audit(replace(evidence, history=forged))
            assert found.sound is False
            assert found.findings.counts()["models"]["holds"]


def test_a_round_that_is_said_to_start_from_itself_ends_no_process_in_a_circle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(CONFIG, tmp_path / "run") as federation:
        federation.play()
        publishing: Publishing = federation.publishing
        publishing._rounds.clear()
        for base in (2, 7, -1):
            monkeypatch.setattr(FederatedRounds, "base_of", lambda *_, base=base: base)
            for ask in (publishing.published, publishing.sources):
                with pytest.raises(LedgerError, match="does not come before it"):
                    ask(2)


def test_times_that_no_calendar_has_are_shown(played: Path) -> None:
    with gather(str(played)) as evidence:
        assert evidence.history is not None
        calls = tuple(replace(call, time=2**63) for call in evidence.history.calls)
        rows = tell(replace(evidence.history, calls=calls))
    assert rows[0]["time"] == f"{2**63} s"


# -- nodes behind a URL -----------------------------------------------------------------------------------------------


@contextmanager
def server(answers: dict[str, Any]) -> Iterator[str]:
    """A JSON-RPC node that gives the same answers to everybody."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            body = {"jsonrpc": "2.0", "id": asked["id"], "result": answers.get(asked["method"], "0x0")}
            data = json.dumps(body).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    node = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=node.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{node.server_address[1]}"
    finally:
        node.shutdown()
        node.server_close()
        thread.join()


HEAD = {"number": "0x10", "hash": "0x" + "11" * 32, "timestamp": "0x6000"}
LOG = {
    "address": "0x" + "12" * 20, "topics": [], "data": "0x", "blockNumber": "0x1", "logIndex": "0x0",
    "transactionHash": "0x" + "22" * 32, "blockHash": "0x" + "33" * 32, "transactionIndex": "0x0", "removed": False,
}  # fmt: skip


@pytest.mark.parametrize(
    ("block", "logs"),
    [
        ({}, []),
        ({"number": "zz"}, []),
        ({"number": 7}, []),
        ({**HEAD, "hash": None, "timestamp": {}}, []),
        (HEAD, [{}]),
        (HEAD, [7]),
        (HEAD, "0x"),
        (HEAD, [{**LOG, "topics": ["0x" + topic_of("TaskOpened").hex()]}]),
        ({**HEAD, "number": "0x" + "f" * 14}, []),
        ([], []),
        (None, None),
    ],
)
def test_what_a_node_makes_up_is_refused_in_a_line(block: Any, logs: Any) -> None:
    from contracts.chain import connect

    answers = {
        "eth_chainId": "0x1",
        "eth_blockNumber": "0x10",
        "eth_getCode": load_artefact()["deployed_bytecode"],
        "eth_getBlockByNumber": block,
        "eth_getLogs": logs,
        "eth_call": "0x" + "00" * 31 + "01",
    }
    with server(answers) as url, connect(url) as chain, pytest.raises(LedgerError) as caught:
        read_chain(chain, "0x" + "12" * 20)
    assert "\n" not in str(caught.value)


# -- questions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("node", [3, 99, 254])
def test_a_node_that_the_run_does_not_have_is_refused(played: Path, tmp_path: Path, node: int) -> None:
    with gather(str(played)) as evidence, pytest.raises(UsageError, match=f"--node {node}: the run has no such node"):
        audit(evidence, data=WithData(tmp_path, node))
    done = called("verify", played, "--data", tmp_path, "--node", node)
    assert done.exit_code == 2
    assert "0 to 2" in done.stderr


@pytest.mark.parametrize("name", ["", " "])
def test_a_name_that_is_empty_is_named(name: str) -> None:
    for command in (("verify", name), ("chain", "show", name)):
        done = called(*command)
        assert done.exit_code == 2
        assert "no run is named" in done.stderr
