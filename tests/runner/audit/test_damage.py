"""A good run holds, also from a copy and from a contract's address; every damage to it is found and named."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from circuits.errors import QrunError, UsageError
from contracts.block_file import BlockFile
from contracts.cid import RAW, Cid
from contracts.errors import LedgerError
from contracts.store import BlockStore
from runner.audit.audit import Audit, WithData
from runner.audit.carriage import export_store, import_store
from tests.runner.audit.conftest import Audits
from tests.runner.audit.support import told

pytestmark = pytest.mark.slow


def flipped(path: Path, place: int | None = None, bit: int = 1) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if place is None else place] ^= bit
    path.write_bytes(data)


def false_ids(audit: Audit) -> set[str]:
    return {check.id for check in audit.findings.of("false")}


def result_of(run: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((run / "result.json").read_text())
    return loaded


def block_file(run: Path, cid: str) -> Path:
    return run / "blocks" / cid[-3:-1] / cid


# -- what holds ---------------------------------------------------------------------------------------------------


def test_a_good_run_holds(run: Path, verified: Audits) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    found = verified(run)
    assert told(found.findings) == []
    assert found.sound
    counts = found.findings.counts()
    for subject in ("chain", "config", "feature map", "rounds", "models", "signatures", "aggregation", "grades",
                    "settlements", "end", "result", "files"):  # fmt: skip
        assert counts[subject]["holds"], subject
    assert {check.id for check in found.findings.of("not checked")} == {"metrics/all", "result/data"}
    assert len(found.findings.of("attested")) == 6 * 3 + 6
    assert json.loads(json.dumps(found.to_dict()))["sound"] is True
    # Nothing was written into the evidence.
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_with_the_data_metrics_and_grades_hold_too(run: Path, verified: Audits) -> None:
    found = verified(run, data=WithData())
    assert told(found.findings) == []
    assert found.findings.of("not checked") == []
    assert found.findings.counts()["metrics"]["holds"] == 6 + 2 + 3 + 2 + 9
    assert not [check for check in found.findings.of("attested") if check.id.startswith("grades/")]
    own = verified(run, data=WithData(node=1))
    assert told(own.findings) == []
    assert own.findings.counts()["metrics"]["holds"] == 2
    assert len([check for check in own.findings.of("attested") if check.id.startswith("grades/")]) == 4


def test_the_figures_in_detail_and_the_detector_are_held_to_the_record(run: Path, verified: Audits) -> None:
    from runner.detector import Detector

    good = result_of(run)
    cid = good["detection"]["detector_cid"]

    def lies(**change: Any) -> set[str]:
        body = json.loads(json.dumps(good))
        body["detection"].update(change)
        (run / "result.json").write_text(json.dumps(body, indent=2))
        found = verified(run, data=WithData())
        return {name for name in false_ids(found) if not name.startswith("end/")}

    parts = json.loads(json.dumps(good["detection"]["parts"]))
    parts["holdout"]["label_free"]["f1"] = 0.99
    assert lies(parts=parts) == {"result/detection/metrics", "metrics/final/detail"}
    parts = json.loads(json.dumps(good["detection"]["parts"]))
    parts["holdout"]["label_free"]["recall_by_family"]["DoS"] = 0.5
    assert lies(parts=parts) == {"metrics/final/detail"}
    assert lies(detector_cid=good["final"]["cid"]) == {"result/detection/detector", "metrics/final/detector"}
    store = BlockStore(run / "blocks")
    true = Detector.from_bytes(store.get(cid, max_bytes=1 << 26))
    other = Detector(
        **{**vars(true), "samples": true.samples + 0.5, "thresholds": {"label_free": 1.0, "validated": 1.0}}
    )
    assert lies(detector_cid=store.put(other.to_bytes())) == {"result/detection/thresholds", "metrics/final/detector"}
    other = Detector(**{**vars(true), "model": good["rounds"][0]["nodes"][0]["cid"]})
    assert lies(detector_cid=store.put(other.to_bytes())) == {"result/detection/detector"}


def test_a_copy_holds_with_the_chain_and_the_store_alone(run: Path, verified: Audits, tmp_path: Path) -> None:
    contract = result_of(run)["chain"]["contract"]
    export_store(str(run), tmp_path / "run.car")
    import_store(tmp_path / "run.car", str(tmp_path / "elsewhere" / "blocks"))
    found = verified(contract, chain=str(run / "chain.sqlite"), store=tmp_path / "elsewhere" / "blocks")
    assert told(found.findings) == []
    # The result is found in the store, by the digest that the nodes stated.
    assert found.findings.counts()["result"]["holds"] > 100
    for name in ("config.json", "result.json", "keys.json", "state.sqlite", "models", "convergence.png"):
        path = run / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert told(verified(run).findings) == []


def test_an_unfinished_run_is_audited_as_far_as_it_is(run: Path, verified: Audits) -> None:
    (run / "result.json").unlink()
    found = verified(run)  # the report is still in the store, and stated
    assert told(found.findings) == []
    report = next(path for path in (run / "blocks").glob("??/*") if b'"format": "qrun-result' in path.read_bytes()[:40])
    report.unlink()
    found = verified(run)
    assert told(found.findings) == []
    assert "end/report" in {check.id for check in found.findings.of("not checked")}


# -- bytes --------------------------------------------------------------------------------------------------------


def test_a_flipped_byte_anywhere_in_the_result_is_found(run: Path, verified: Audits) -> None:
    data = (run / "result.json").read_bytes()
    for place in range(0, len(data), max(1, len(data) // 40)):
        flipped(run / "result.json", place)
        found = verified(run)
        assert "end/0/report" in false_ids(found), place
        assert any("not the file that it stated" in text for text in told(found.findings))
        (run / "result.json").write_bytes(data)


def test_a_flipped_byte_anywhere_in_the_manifest_is_found(run: Path, verified: Audits) -> None:
    data = (run / "config.json").read_bytes()
    for place in range(0, len(data), max(1, len(data) // 20)):
        flipped(run / "config.json", place)
        ids = false_ids(verified(run))
        assert "result/manifest_sha256" in ids, place
        (run / "config.json").write_bytes(data)
    value = data.index(b'"seed": 0') + len(b'"seed": ')
    flipped(run / "config.json", value)
    assert {"config/file", "result/manifest_sha256"} <= false_ids(verified(run))


def test_a_flipped_byte_in_any_block_is_found_and_the_statement_named(run: Path, verified: Audits) -> None:
    result = result_of(run)
    node = result["rounds"][1]["nodes"][1]
    named = {
        str(Cid(RAW, bytes.fromhex(result["config_digest"]))): "config/store",
        result["feature_map"]["cid"]: "feature map/content",
        result["final"]["cid"]: "aggregation/final",
        node["cid"]: "models/2/1/bytes",
        node["signature"]: "signatures/2/1",
    }
    found = verified(run)
    start = next(check.where for check in found.findings if check.id == "models/0/start")
    named[start] = "models/0/start"
    blocks = sorted((run / "blocks").glob("??/*"))
    assert named.keys() < {path.name for path in blocks}
    for path in blocks:
        data = path.read_bytes()
        flipped(path)
        found = verified(run)
        ids = false_ids(found)
        assert f"files/blocks/{path.name}" in ids
        if path.name in named:
            assert named[path.name] in ids
            assert any("damaged" in text for text in told(found.findings))
            path.unlink()
            assert named[path.name] in false_ids(verified(run))
        path.write_bytes(data)
    assert verified(run).sound


def test_a_model_whose_bytes_changed_is_told_in_words(run: Path, verified: Audits) -> None:
    cid = result_of(run)["rounds"][1]["nodes"][1]["cid"]
    flipped(block_file(run, cid))
    assert any(
        text.startswith("round 2, node 1: the model in the store is the one on the chain: block")
        for text in told(verified(run).findings)
    )


def test_a_flipped_byte_in_each_kind_of_chain_value_is_found(run: Path, verified: Audits) -> None:
    chain = run / "chain.sqlite"
    with BlockFile(chain) as file:
        rows = [(k, v) for k, v in file.rows() if isinstance(k, bytes) and isinstance(v, bytes) and v]
        head = file.head()
        middle = file.header(20)
        account = file.account(head, bytes.fromhex(result_of(run)["chain"]["contract"][2:]))
    assert account is not None
    kinds = {
        "head": head.hash,
        "header": middle.hash,
        "transactions": middle.transactions_root,
        "receipts": middle.receipts_root,
        "state": head.state_root,
        "storage": account.storage_root,
        "code": account.code_hash,
        **{key.split(b":")[1 if key.startswith(b"v1") else 0].decode(): key for key, _ in rows if len(key) != 32},
    }
    assert len(kinds) >= 13
    values = dict(rows)
    for kind, key in kinds.items():
        for place in (0, len(values[key]) // 2, len(values[key]) - 1):
            value = bytearray(values[key])
            value[place] ^= 4
            _set(chain, key, bytes(value))
            found = verified(run)
            assert any(check.id.startswith("chain/whole") for check in found.findings.of("false")), (kind, place)
        _set(chain, key, values[key])
    assert verified(run).sound


def _set(chain: Path, key: bytes, value: bytes) -> None:
    sql = sqlite3.connect(chain)
    with sql:
        sql.execute("update state set value=? where key=?", (value, key))
    sql.close()


def test_a_flipped_byte_in_any_other_file_is_found(run: Path, verified: Audits) -> None:
    files = [*sorted((run / "models").iterdir()), run / "convergence.png", run / "keys.json"]
    assert len(files) == 6 + 2 + 2
    for path in files:
        data = path.read_bytes()
        for place in (len(data) // 3, len(data) - 5):
            flipped(path, place)
            ids = false_ids(verified(run))
            name = path.relative_to(run)
            assert f"files/{name}" in ids, (name, place)
            path.write_bytes(data)
    keys = (run / "keys.json").read_bytes()
    for place in range(0, len(keys), 23):
        for bit in (1, 0x20):
            flipped(run / "keys.json", place, bit)
            found = verified(run)
            assert not found.sound, place
            secret = json.loads(keys)["opener"]
            assert secret[:8] not in json.dumps(found.to_dict())
        (run / "keys.json").write_bytes(keys)


# -- lies that fit together ---------------------------------------------------------------------------------------


def test_another_model_in_result_and_copies_is_not_the_one_on_the_chain(run: Path, verified: Audits) -> None:
    result = result_of(run)
    node = result["rounds"][0]["nodes"][1]
    old = node["cid"]
    data = BlockStore(run / "blocks").get(old, max_bytes=1 << 24)
    other = BlockStore(run / "blocks").put(data.replace(b'"round":1', b'"round":2'))
    node["cid"] = other
    (run / "result.json").write_text(json.dumps(result, indent=2))
    shutil.copy(block_file(run, other), run / "models" / "round-001-node-01.json")
    false = told(verified(run).findings)
    assert any(
        "result.json says at rounds/1/nodes/1/cid what chain and store say" in text and other in text and old in text
        for text in false
    )
    assert any("node 0 states the digest of this result" in text for text in false)


@pytest.mark.parametrize(
    ("place", "value", "id_"),
    [
        (("metrics", "test", "auroc"), 0.999, "end/1/report"),
        (("rounds", 0, "nodes", 0, "metrics", "f1"), 0.999, "result/rounds/1/nodes/0/metrics"),
        (("rounds", 0, "nodes", 0, "grades", "1"), 7, "result/rounds/1/nodes/0/grades"),
        (("rounds", 0, "nodes", 0, "resources", "circuits"), 7, "result/rounds/1/nodes/0/resources"),
        (("rounds", 0, "nodes", 0, "fault"), "it was late", "result/rounds/1/nodes/0/fault"),
        (("rounds", 1, "settlement", "strong"), "?", "result/rounds/2/settlement/strong"),
        (("rounds", 1, "void"), True, "result/rounds/2/void"),
        (("rounds", 1, "base"), 0, "result/rounds/2/base"),
        (("rounds", 1, "absent"), [2], "result/rounds/2/absent"),
        (("nodes", 2, "reputation"), 100.5, "result/nodes/2/reputation"),
        (("nodes", 2, "address"), "0x" + "1" * 40, "result/nodes/2/address"),
        (("nodes", 2, "excluded"), True, "result/nodes/2/excluded"),
        (("chain", "gas_used"), 1, "result/chain/gas_used"),
        (("chain", "chain_id"), 1, "result/chain/chain_id"),
        (("chain", "head"), 10_000, "result/chain/head"),
        (("config", "seed"), 5, "result/config/seed"),
        (("dataset", "source"), "moon", "result/dataset/source"),
        (("rollbacks",), [{}], "result/rollbacks"),
        (("rounds",), [], "result/rounds"),
        (("spread", "holdout"), None, "result/spread"),
        (("final", "round"), 1, "result/final/round"),
        (("format",), "qrun-result/0", "result/form"),
    ],
)
def test_an_edited_figure_is_named(run: Path, verified: Audits, place: tuple[Any, ...], value: Any, id_: str) -> None:
    result = result_of(run)
    spot: Any = result
    for key in place[:-1]:
        spot = spot[key]
    spot[place[-1]] = value
    (run / "result.json").write_text(json.dumps(result, indent=2))
    assert id_ in false_ids(verified(run))


def test_a_hostile_result_gives_no_traceback(run: Path, verified: Audits) -> None:
    result = result_of(run)
    for key in result:
        for value in (None, 7, [[]], [{}], {"x": [None]}):
            (run / "result.json").write_text(json.dumps({**result, key: value}))
            assert not verified(run).sound
    for text in ("", "[]", "{", '{"a":' * 5000, "null"):
        (run / "result.json").write_text(text)
        assert not verified(run).sound


def test_metrics_that_nobody_got_are_found_with_the_data(run: Path, verified: Audits) -> None:
    result = result_of(run)
    result["metrics"]["holdout"]["auroc"] += 0.01
    result["rounds"][1]["aggregate"]["metrics"]["f1"] -= 0.01
    result["nodes"][0]["metrics"]["holdout"]["recall"] = 0.123
    result["backend"]["depth"] += 1
    result["nodes"][1]["records"]["train"] += 1
    (run / "result.json").write_text(json.dumps(result, indent=2))
    assert {
        "metrics/final/holdout",
        "metrics/2/aggregate",
        "metrics/final/0/holdout",
        "result/backend",
        "result/nodes/1/records",
    } <= false_ids(verified(run, data=WithData()))


def test_other_data_are_refused(run: Path, verified: Audits) -> None:
    result = result_of(run)
    result["dataset"]["sha256"] = dict.fromkeys(result["dataset"]["sha256"], "0" * 64)
    (run / "result.json").write_text(json.dumps(result, indent=2))
    with pytest.raises(QrunError, match="their hashes differ"):
        verified(run, data=WithData())


def test_a_stray_model_and_a_missing_one_are_told(run: Path, verified: Audits) -> None:
    (run / "models" / "extra.json").write_text("{}")
    (run / "models" / "final.json").unlink()
    assert {"files/models/extra.json", "files/models/final.json"} <= false_ids(verified(run))


def test_other_keys_are_found(run: Path, verified: Audits) -> None:
    keys = json.loads((run / "keys.json").read_text())
    keys["nodes"].reverse()
    (run / "keys.json").write_text(json.dumps(keys))
    false = told(verified(run).findings)
    assert any("the keys of 0, 2 are not those on the chain" in text for text in false)


# -- what is not there --------------------------------------------------------------------------------------------


def test_what_cannot_be_audited_is_told_in_a_line(run: Path, verified: Audits, tmp_path: Path) -> None:
    contract = result_of(run)["chain"]["contract"]
    with pytest.raises(UsageError, match="needs the chain"):
        verified(contract)
    with pytest.raises(UsageError, match="place of its files"):
        verified(contract, chain=str(run / "chain.sqlite"))
    with pytest.raises(UsageError, match="no such folder"):
        verified(contract, chain=str(run / "chain.sqlite"), store=tmp_path / "nowhere")
    with pytest.raises(UsageError, match="no run"):
        verified("nothing-of-that-name")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no run's folder"):
        verified(tmp_path / "empty")
    with pytest.raises(LedgerError, match="no chain"):
        verified(contract, chain=str(tmp_path / "nowhere"), store=run / "blocks")
    (run / "chain.sqlite").unlink()
    with pytest.raises(QrunError, match="has no chain"):
        verified(run)
    stranger = "0x" + "12" * 20
    (run / "chain.sqlite").write_bytes(b"")
    assert not verified(stranger, chain=str(run / "chain.sqlite"), store=run / "blocks").sound
