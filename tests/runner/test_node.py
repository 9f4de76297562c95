"""A peer without chain and store: where it starts; its keys; what its circuits took; how a round is shown."""

from __future__ import annotations

import json
import stat
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from backends.protocol import Request, Result
from circuits.errors import QrunError
from contracts.records import SettlementRecord
from runner.keys import load_or_create
from runner.meter import Meter
from runner.node import Peer, Published
from runner.progress import NodeRound, RoundResult, Verdict, as_json, from_json
from runner.settings import FederationSettings
from runner.update import Input, Update
from runner.view_rounds import round_table

# -- where a round starts --------------------------------------------------------------------------------------------


def published(node: int, *values: int) -> Published:
    blocks = {"generator": np.array(values, dtype=np.int64)}
    return Published(f"cid{node}", Update("c", "m", 1, node, blocks, (), "s"))


def peer(index: int = 0, gated: Sequence[int] = (), **federation: Any) -> Peer:
    made = Peer(index, 0, "c", SimpleNamespace(), SimpleNamespace(), FederationSettings(**federation))  # type: ignore[arg-type]
    made.gated = set(gated)
    return made


LAST = {0: published(0, 0, 30), 1: published(1, 30, 0), 2: published(2, 90, 90), 3: Published("cid3", None, "refused")}


def test_models_weigh_what_the_contract_says() -> None:
    blocks, inputs = peer().start(LAST, {0: 1, 1: 2, 2: 0, 3: 9})
    assert blocks["generator"].tolist() == [20, 10]
    assert inputs == (Input("cid0", 1), Input("cid1", 2))


def test_who_is_gated_is_left_out() -> None:
    blocks, inputs = peer(gated=[1]).start(LAST, {0: 1, 1: 2, 2: 2})
    assert blocks["generator"].tolist() == [60, 70]
    assert inputs == (Input("cid0", 1), Input("cid2", 2))


def test_a_node_that_trusts_nobody_goes_on_alone() -> None:
    blocks, inputs = peer(0, gated=[1, 2]).start(LAST, {1: 2, 2: 2})
    assert (blocks["generator"].tolist(), inputs) == ([0, 30], (Input("cid0", 1),))


def test_a_node_without_a_model_trusts_all_the_same() -> None:
    _, inputs = peer(3, gated=[0, 1, 2]).start(LAST, {0: 5, 1: 2})
    assert inputs == (Input("cid0", 5), Input("cid1", 2))


def test_without_any_model_there_is_no_start() -> None:
    with pytest.raises(QrunError, match="node 3 has no model to go on from"):
        peer(3).start({3: LAST[3]}, {3: 1})


def test_other_ways_of_joining_heed_no_weights_but_zero() -> None:
    blocks, inputs = peer(aggregation="mean").start(LAST, {0: 1, 1: 2, 2: 0})
    assert blocks["generator"].tolist() == [15, 15]
    assert inputs == (Input("cid0", 1), Input("cid1", 2))


# -- keys ------------------------------------------------------------------------------------------------------------


def test_keys_are_made_once_and_kept_from_others(tmp_path: Path) -> None:
    keys = load_or_create(tmp_path, 2, signing=True)
    assert load_or_create(tmp_path, 2, signing=True) == keys
    assert stat.S_IMODE((tmp_path / "keys.json").stat().st_mode) == 0o600
    values = [keys.opener, *(v for n in keys.nodes for v in (n.chain, n.exchange, n.signing))]
    assert len(set(values)) == 7
    assert all(v is not None and len(v) == 32 for v in values)
    assert "\\x" not in repr(keys) + repr(keys.nodes[0])
    assert load_or_create(tmp_path, 2).nodes[0].signing is None


@pytest.mark.parametrize("damage", ["signing", "chain", "hex", "nodes", "json"])
def test_damaged_keys_are_told(damage: str, tmp_path: Path) -> None:
    load_or_create(tmp_path, 2, signing=True)
    path = tmp_path / "keys.json"
    body = json.loads(path.read_text())
    if damage in ("signing", "chain"):
        del body["nodes"][1][damage]
    if damage == "hex":
        body["nodes"][0]["signing"] = "zz"
    path.write_text("{" if damage == "json" else json.dumps(body))
    with pytest.raises(QrunError, match=r"keys\.json"):
        load_or_create(tmp_path, 3 if damage == "nodes" else 2, signing=True)


# -- what circuits take ----------------------------------------------------------------------------------------------


class Engine:
    """Says what it ran."""

    name, differentiable = "engine", False

    def __init__(self, **said: Any) -> None:
        self.said, self.is_open = said, False

    def __enter__(self) -> Engine:
        self.is_open = True
        return self

    def __exit__(self, *_: object) -> None:
        self.is_open = False

    def run(self, requests: Sequence[Request], *, seed: int | None = None) -> list[Result]:
        assert self.is_open
        assert seed == 7
        return [Result(np.zeros((5, 2)), np.zeros((5, 2)), dict(self.said)) for _ in requests]


@pytest.mark.parametrize(
    ("said", "wanted"),
    [({"shots": 100}, (10, 1000, 0.0)), ({"shots": None}, (0, 0, 0.0)), ({}, (0, 0, 0.0)),
     ({"shots": 1, "qpu_seconds": 2.5}, (10, 10, 5.0))],
)  # fmt: skip
def test_a_meter_counts_what_results_say(said: dict[str, Any], wanted: tuple[int, int, float]) -> None:
    engine = Engine(**said)
    meter = Meter(engine)
    request: Any = None
    with meter as same:
        assert same is meter
        assert len(meter.run([request, request], seed=7)) == 2
    assert not engine.is_open
    assert (meter.circuits, meter.shots, meter.qpu_seconds) == wanted
    meter.reset()
    assert (meter.circuits, meter.shots, meter.qpu_seconds) == (0, 0, 0.0)


# -- how it is shown -------------------------------------------------------------------------------------------------

TX = "0x" + "ab" * 32
METRICS = dict.fromkeys(("accuracy", "precision", "recall", "f1", "auroc", "threshold"), 0.5)
RECORD = SettlementRecord(
    round=4,
    scores=(90, 40, 10, 0, None),
    asymmetry=(0, 5, None, None, None),
    strong=True,
    reputation=(9000, 4000, 1000, 0, 2000),
    low=frozenset({2}),
    flagged=frozenset({1, 2, 3, 4}),
    excluded=frozenset({3}),
    tx=TX,
    block=9,
)


def a_round(**changed: Any) -> RoundResult:
    nodes = tuple(
        NodeRound(
            j, f"cid{j}", TX, METRICS, {k: 80 for k in range(4) if k != j}, 90.0, fault="" if j != 3 else "shapes"
        )
        for j in range(4)
    )
    return replace(RoundResult(4, 2, nodes, METRICS, "official", Verdict.of(RECORD), absent=(4,)), **changed)


def rows(result: RoundResult) -> list[str]:
    return [str(cell) for cell in round_table(result).columns[0].cells]


def test_a_round_shows_who_is_warned_low_excluded_refused_and_absent() -> None:
    assert rows(a_round()) == ["0", "1 warned", "2 low", "3 model refused", "4 absent, warned", "aggregate"]
    refused = a_round(nodes=tuple(replace(n, fault="") for n in a_round().nodes))
    assert rows(refused)[3] == "3 excluded"


def test_a_rounds_title_says_what_is_unusual() -> None:
    assert round_table(a_round(base=3)).title == "Round 4 (validation)"
    assert "from round 2" in str(round_table(a_round()).title)
    assert "taken back" in str(round_table(a_round(void=True)).title)
    assert "stand-in data" in str(round_table(a_round(source="stand-in")).title)
    weak = Verdict.of(replace(RECORD, strong=False))
    assert "weak settlement" in str(round_table(a_round(verdict=weak)).title)


def test_rounds_come_back_from_the_result() -> None:
    result = a_round(void=True)
    (body,) = json.loads(json.dumps(as_json([result])))
    assert from_json([body], "official") == [result]
