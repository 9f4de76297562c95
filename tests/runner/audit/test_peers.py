"""Tasks that peers played for themselves, proven from chain and store; what a node states otherwise is found."""

from __future__ import annotations

import copy
import json
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from circuits.errors import QrunError
from contracts.cid import Cid, parse_cid
from contracts.errors import ContentError
from contracts.event_log import Entry
from contracts.store import BlockStore
from runner.audit.audit import Audit, WithData, audit
from runner.audit.sources import Evidence, Reader, gather
from tests.contracts.fault_proxy import fault_proxy
from tests.runner.audit.support import forge
from tests.runner.audit.test_commands import called
from tests.runner.peers.together import NODES, Played, play_together, tiny
from tests.servers import anvil_node

pytestmark = [pytest.mark.server, pytest.mark.slow]
LIAR = 1


@pytest.fixture(scope="module", params=["sync", "async"])
def played(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    """A task that has ended, its reports in the store and not stated yet; for each schedule."""
    folder = tmp_path_factory.mktemp(request.param)
    with anvil_node(folder) as url:
        yield play_together(url, folder, tiny(request.param, rounds=3 if request.param == "async" else 2))


@pytest.fixture(scope="module")
def in_step(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    folder = tmp_path_factory.mktemp("in-step")
    with anvil_node(folder) as url:
        yield play_together(url, folder, tiny("sync", rounds=1))


def of_address(played: Played, *, witness: bool | None = False, data: WithData | None = None) -> Audit:
    with gather(played.address, chain=played.url, store=played.blocks) as evidence:
        return audit(evidence, data=data, witness=witness)


def ids(found: Audit, verdict: str = "false") -> set[str]:
    return {check.id for check in found.findings if check.verdict == verdict}


def reasons(found: Audit) -> dict[str, str]:
    return {check.id: f"{check.claim}: {check.reason}" for check in found.findings.of("false")}


# -- nothing but the truth --------------------------------------------------------------------------------------------


def test_what_peers_played_is_proven_from_its_address(played: Played) -> None:
    with played.stated():
        found = of_address(played, witness=None)
        assert reasons(found) == {}
        assert found.sound
        assert ids(found, "not checked") == {"metrics/all"}
        held = ids(found, "holds")
        assert {"chain/whole", "feature map/sums", "aggregation/final", "announcements/final/counts"} <= held
        for node in range(NODES):
            mine = {f"end/{node}/report", f"end/{node}/model"}
            parts = ("final/cid", "final/calibrated_by", "threshold", "config/seed", "witnessed", "metrics/holdout")
            assert mine | {f"result/node/{node}/{part}" for part in parts} <= held
            assert {f"result/node/{node}/seconds", f"metrics/final/{node}"} <= ids(found, "attested")
        assert "chain/network" in ids(found, "attested")
        not_executed = of_address(played, witness=False)
        assert ids(not_executed, "not checked") == {"metrics/all", "chain/whole"}


def test_the_data_give_the_metrics_of_reports_and_the_grades_of_windows(played: Played) -> None:
    with played.stated():
        found = of_address(played, data=WithData())
        assert reasons(found) == {}
        assert ids(found, "not checked") == {"chain/whole"}
        held = ids(found, "holds")
        assert {f"metrics/final/{i}/{part}" for i in range(NODES) for part in ("holdout", "test")} <= held
        assert {f"result/node/{i}/backend" for i in range(NODES)} | {"feature map/data"} <= held
        grades = {id_ for id_ in held if id_.startswith("grades/") and id_.endswith("/values")}
        assert len(grades) >= NODES
        alone = of_address(played, data=WithData(node=2))
        assert reasons(alone) == {}
        assert {"metrics/final/0", "metrics/final/2"} <= ids(alone, "not checked")


@contextmanager
def folder_of(played: Played, node: int, folder: Path, report: bytes | None) -> Iterator[Path]:
    """A copy of a node's folder."""
    copied = Path(shutil.copytree(played.folders[node], folder))
    if report is not None:
        (copied / "report.json").write_bytes(report)
    yield copied


def test_a_nodes_folder_says_which_task_it_is_of(played: Played, tmp_path: Path) -> None:
    with played.stated(), folder_of(played, 1, tmp_path / "node", played.report(1)) as folder:
        with gather(str(folder), chain=played.url, store=played.blocks) as evidence:
            found = audit(evidence, witness=False)
        assert reasons(found) == {}
        assert "files/report.json" in ids(found, "holds")
        assert ids(found, "not checked") == {"metrics/all", "chain/whole", "files/blocks"}
        (folder / "state.sqlite").unlink()
        with gather(str(folder), chain=played.url, store=played.blocks) as evidence:
            assert reasons(audit(evidence, witness=False)) == {}
        (folder / "report.json").write_bytes(played.report(1).replace(b"holdout", b"holdOut"))
        with gather(str(folder), chain=played.url, store=played.blocks) as evidence:
            assert ids(audit(evidence, witness=False)) == {"files/report.json"}
    with folder_of(played, 0, tmp_path / "unfinished", None) as folder:
        with gather(str(folder), chain=played.url, store=played.blocks) as evidence:
            found = audit(evidence, witness=False)
        assert reasons(found) == {}
        assert {"files/report.json", "end/all"} <= ids(found, "not checked")
        with pytest.raises(QrunError, match="--chain"), gather(str(folder)):
            pass


def test_the_command_proves_it_too(in_step: Played, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("QRUN_HOME", str(tmp_path))
    with in_step.stated():
        where = ["verify", in_step.address, "--chain", in_step.url, "--store", in_step.blocks]
        done = called(*where)
        assert done.exit_code == 0, done.output
        assert "Nothing is false; one statement was not checked." in done.stdout
        done = called(*where, "--no-witness", "--json")
        assert done.exit_code == 0
        assert "chain/whole" in {c["id"] for c in json.loads(done.stdout)["checks"] if c["verdict"] == "not checked"}


# -- reports ----------------------------------------------------------------------------------------------------------

Change = Callable[[dict[str, Any]], None]


def at(*path: Any, value: Any) -> Change:
    """Another value at a place of a report; made from the one that is there where it is a function."""

    def change(body: dict[str, Any]) -> None:
        *way, last = path
        for step in way:
            body = body[step]
        body[last] = value(body[last]) if callable(value) else value

    return change


def all_thresholds(body: dict[str, Any]) -> None:
    for part in body["metrics"].values():
        if part is not None:
            part["threshold"] += 0.01


REPORTS: dict[str, tuple[Change, set[str]]] = {
    "a figure": (at("metrics", "holdout", "auroc", value=lambda v: v - 0.01), {"metrics/holdout"}),
    "a part left out": (at("metrics", "holdout", value=None), {"metrics/holdout"}),
    "thresholds": (all_thresholds, {"threshold", "metrics/holdout", "metrics/test", "metrics/test_without_seen"}),
    "a threshold": (at("metrics", "holdout", "threshold", value=lambda v: v + 0.001), {"threshold"}),
    "another final": (at("final", "cid", value=str(Cid(0x55, bytes(32)))), {"final/cid"}),
    "another last round": (at("final", "round", value=7), {"final/round"}),
    "alone": (at("final", "calibrated_by", value=[LIAR]), {"final/calibrated_by"}),
    "a stranger": (at("final", "calibrated_by", value=[0, 1, 9]), {"final/calibrated_by"}),
    "its metrics": (at("models", 0, "metrics", "f1", value=0.5), {"models/0/metrics"}),
    "its model": (at("models", 0, "cid", value=str(Cid(0x55, bytes(32)))), {"models/0/cid"}),
    "a model more": (at("models", value=lambda v: [*v, v[0]]), {"models"}),
    "its reputation": (at("node", "reputation", value=lambda v: v + 1), {"node/reputation"}),
    "its address": (at("node", "address", value="0x" + "00" * 20), {"node/address"}),
    "the seed": (at("config", "seed", value=lambda v: v + 1), {"config/seed"}),
    "the digest": (at("config_digest", value="0" * 64), {"config_digest"}),
    "the map": (at("feature_map", "cid", value=str(Cid(0x55, bytes(32)))), {"feature_map/cid"}),
    "the chain": (at("task", "chain_id", value=1), {"task/chain_id"}),
    "the contract": (at("task", "contract", value="0x" + "00" * 20), {"task/contract"}),
    "the schedule": (at("task", "schedule", value="now and then"), {"task/schedule"}),
    "the source": (at("dataset", "source", value="hearsay"), {"dataset/source"}),
    "a block": (at("witnessed", "hash", value="0x" + "11" * 32), {"witnessed"}),
    "a block to come": (at("witnessed", "block", value=2**40), {"witnessed"}),
    "a key too many": (lambda b: b.update(comment=1), {"form"}),
    "a key too few": (lambda b: b.pop("versions") and None, {"form"}),
    "no number": (at("metrics", "holdout", "f1", value="0.9"), {"form"}),
    "a truth for a number": (at("metrics", "holdout", "f1", value=True), {"form"}),
    "a list": (at("node", value=[1]), {"form"}),
    "another format": (at("format", value="qrun-node/2"), {"form"}),
}


def lied(played: Played, change: Change) -> Callable[[int, str, str], tuple[str, str]]:
    def stating(node: int, model: str, report: str) -> tuple[str, str]:
        if node != LIAR:
            return model, report
        body = json.loads(played.report(node))
        change(body)
        return model, played.store.put(json.dumps(body, indent=2).encode())

    return stating


@pytest.mark.parametrize("kind", sorted(REPORTS))
def test_a_report_that_says_another_thing_is_false_there(kind: str, in_step: Played) -> None:
    change, wrong = REPORTS[kind]
    with in_step.stated(lied(in_step, change)):
        found = of_address(in_step)
    assert {id_ for id_ in ids(found) if not id_.endswith("test_without_seen")} == {
        f"result/node/{LIAR}/{part}" for part in wrong if part != "metrics/test_without_seen"
    }, reasons(found)


HOSTILE = {
    "nothing": b"",
    "no JSON": b"\xff\xfe{}",
    "deep": b"[" * 100_000,
    "a list": b"[]",
    "a number": b"1e400",
    "NaN": b'{"format": NaN}',
    "a result": b'{"format": "qrun-result/3"}',
}


@pytest.mark.parametrize("kind", sorted(HOSTILE))
def test_bytes_that_are_no_report(kind: str, in_step: Played) -> None:
    data = HOSTILE[kind]

    def stating(node: int, model: str, report: str) -> tuple[str, str]:
        return model, in_step.store.put(data) if node == LIAR else report

    with in_step.stated(stating):
        found = of_address(in_step)
    assert ids(found) == {f"result/node/{LIAR}/form"}
    assert "result/node/0/final/cid" in ids(found, "holds")


def test_another_nodes_report_another_model_and_a_report_that_is_nowhere(in_step: Played) -> None:
    def stating(node: int, model: str, report: str) -> tuple[str, str]:
        other = str(Cid(0x55, b"n" * 32))
        return [(model, in_step.kept[2]["cid"]), (other, report), (model, other)][node]

    with in_step.stated(stating):
        found = of_address(in_step)
    assert {"result/node/0/node/id", "result/node/0/node/address", "result/node/0/models/0/cid", "end/1/model"} <= ids(
        found
    )
    assert not any(id_.startswith(("result/node/1/", "result/node/2/")) for id_ in ids(found))
    assert "end/2/report" in ids(found, "not checked")


def test_a_lie_that_all_tell_alike_is_found_with_the_data(in_step: Played) -> None:
    def stating(node: int, model: str, report: str) -> tuple[str, str]:
        body = json.loads(in_step.report(node))
        body["metrics"]["holdout"]["recall"] += 0.1
        body["backend"]["depth"] += 1
        body["dataset"]["sha256"] = (
            {**body["dataset"]["sha256"], "more": "0"} if node == 2 else body["dataset"]["sha256"]
        )
        return model, in_step.store.put(json.dumps(body, indent=2).encode())

    with in_step.stated(stating), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert reasons(of_address(in_step)) == {}
        found = of_address(in_step, data=WithData())
    wanted = {f"metrics/final/{i}/holdout" for i in range(NODES)} | {f"result/node/{i}/backend" for i in range(NODES)}
    assert ids(found) == wanted | {"result/node/2/dataset/data"}


# -- sums -------------------------------------------------------------------------------------------------------------


def with_array(played: Played, nth: int, change: Callable[[Any], Any], evidence: Evidence) -> Evidence:
    """The evidence with another array announced, as whoever writes the chain could have it."""
    assert evidence.history is not None
    said = [e for e in evidence.history.entries if e.name == "Announced"][nth]
    old = played.store.get(str(Cid(int(said.args["codec"]), bytes(said.args["digest"]))), max_bytes=1 << 24)
    made = parse_cid(played.store.put(change(np.frombuffer(old, dtype="<u8").copy()).tobytes()))

    def lie(entry: Entry) -> Entry:
        return replace(entry, args={**entry.args, "digest": made.digest, "codec": made.codec})

    return replace(evidence, history=forge(evidence.history, "Announced", lie, nth))


def one_more(array: Any) -> Any:
    array[0] += np.uint64(1)
    return array


ARRAYS: dict[str, tuple[int, Callable[[Any], Any], str]] = {
    "made up": (0, lambda a: np.random.default_rng(1).integers(0, 2**64, a.shape, dtype=np.uint64), "feature map/sums"),
    "one record more": (0, one_more, "feature map/sums"),
    "one count more in the last stage": (5 * NODES - 1, one_more, "feature map/sums"),
    "another size": (1, lambda a: a[:-1], "announcements/counts/0/"),
    "one record more in the calibration": (5 * NODES, one_more, "announcements/final/counts"),
}


@pytest.mark.parametrize("kind", sorted(ARRAYS))
def test_an_array_that_was_swapped_does_not_add_up(kind: str, in_step: Played) -> None:
    nth, change, wrong = ARRAYS[kind]
    with in_step.stated(), gather(in_step.address, chain=in_step.url, store=in_step.blocks) as evidence:
        found = audit(with_array(in_step, nth, change, evidence), witness=False)
        executed = audit(with_array(in_step, nth, change, evidence), witness=True)
    false = ids(found)
    assert any(id_.startswith(wrong) for id_ in false), false
    # The signature says another digest, and so does the task when it is executed again.
    others = {id_ for id_ in false if not id_.startswith((wrong, "chain/content/", "result/node/"))}
    assert others == set()
    assert any(id_.startswith("chain/told/") for id_ in ids(executed))


def test_arrays_that_are_gone_are_not_checked(in_step: Played) -> None:
    with in_step.stated(), gather(in_step.address, chain=in_step.url, store=in_step.blocks) as evidence:
        assert evidence.history is not None
        gone = {bytes(e.args["digest"]) for e in evidence.history.entries if e.name == "Announced"}
        blocks = BlockStore(in_step.blocks, read_only=True)

        def place(cid: Cid) -> bytes:
            if cid.digest in gone:
                raise ContentError(f"{cid} is gone")
            return blocks.get_block(cid)

        found = audit(replace(evidence, store=Reader([place])), witness=False)
    assert reasons(found) == {}
    assert "feature map/sums" in ids(found, "not checked")
    assert {f"announcements/counts/0/{i}/array" for i in range(NODES)} <= ids(found, "not checked")


# -- the node behind the URL ------------------------------------------------------------------------------------------


def test_a_node_that_leaves_an_announcement_out_is_found(in_step: Played) -> None:
    def without(_: list[Any], answer: Any) -> Any:
        return [log for place, log in enumerate(copy.deepcopy(answer)) if place != 9] if len(answer) > 20 else answer

    with in_step.stated(), fault_proxy(in_step.url) as proxy:
        proxy.changes["eth_getLogs"] = without
        with gather(in_step.address, chain=proxy.url, store=in_step.blocks) as evidence:
            found = audit(evidence)
    assert any(id_.startswith("chain/whole/") for id_ in ids(found))


def test_a_long_task_is_executed_only_where_that_is_asked_for(in_step: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.audit.executed.MOST_BLOCKS", 3)
    with in_step.stated():
        found = of_address(in_step, witness=None)
        assert "add --witness" in next(c.reason for c in found.findings if c.id == "chain/whole")
        assert "chain/whole" in ids(of_address(in_step, witness=True), "holds")
