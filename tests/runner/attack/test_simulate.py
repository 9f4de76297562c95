"""The slice of the attack table that CI runs, on the real data or its stand-in: one core, about a minute."""

from __future__ import annotations

from pathlib import Path

import pytest

from circuits.errors import UsageError
from runner.attack.attacks import ATTACKS
from runner.attack.cells import Cell, Line
from runner.attack.pool import Job, play, play_all
from runner.attack.run import QUICK, request, tabulate
from runner.attack.simulate import simulate
from runner.attack.world import World
from runner.node import Peer
from runner.update import quantise


def asked(**changes: object) -> object:
    values = {"bad": 3, "seeds": 1, "jobs": 1, "file": None, **changes}
    return request("nsl-kdd", values.pop("options", {}), **values)


@pytest.mark.slow
def test_the_slice_finds_hostile_nodes_and_keeps_honest_ones(data_dir: Path, tmp_path: Path) -> None:
    names = ("none", "sign-flip", "scaled", "stale-aggregate", "poisoned", "colluding-flip")
    given = asked(
        options={"rounds": 4}, attacks=names, partitions=("iid",), aggregations=("reputation", "mean"), seeds=1
    )
    seen: list[Line | None] = []
    out = tmp_path / "cells.jsonl"
    table = tabulate(given, data=data_dir, out=out, progress=lambda done, total, line: seen.append(line))
    rows = {row.attack: row for row in table.rows}
    assert set(rows) == set(names)
    for name, row in rows.items():
        assert row.honest_excluded == 0, name
        assert row.refused == 0, name
        assert row.points["reputation"].mean > -1.5, name
        if name != "none":
            assert row.hostile == 3
            assert row.flag == (1, 1), name
            assert row.excluded == 1.0, name
    assert rows["scaled"].points["mean"].mean < -10
    assert rows["poisoned"].points["mean"].mean < -4
    # Nothing is computed twice, and the table comes out the same.
    again = tabulate(given, data=data_dir, out=out, progress=lambda done, total, line: seen.append(line))
    assert again == table
    assert sum(line is not None for line in seen) == len(given.cells)


@pytest.mark.slow
def test_made_up_records_in_round_0_find_no_quorum(data_dir: Path) -> None:
    for partition in ("iid", "dirichlet:0.5"):
        config = asked(options={"rounds": 1}).config
        data = config.data.model_copy(update={"partition": partition})
        world = World.build(config.model_copy(update={"data": data}), data_dir)
        hostile = frozenset({7, 8, 9})
        votes = {name: world.under(ATTACKS[name], hostile)[1] for name in ("none", "moments", "moments-heavy")}
        assert votes["none"] >= 9
        assert 3 * votes["moments"] <= 2 * 10
        assert 3 * votes["moments-heavy"] <= 2 * 10


SMALL = {"nodes": 3, "rounds": 2, "qubits": 2, "steps_per_epoch": 2, "backend": "ideal"}


def small(data_dir: Path) -> tuple[Job, World]:
    config = asked(options=SMALL, bad=1).config
    return Job(config, 1, data_dir), World.build(config, data_dir)


def test_a_simulated_peer_trains_as_a_peer_does(data_dir: Path) -> None:
    job, world = small(data_dir)
    share = world.study.shares[1]
    peer = Peer(1, job.config.seed, "", share, world.model)
    peer.use_map(world.feature_map, "map")
    alone = quantise(peer.train(1, world.start).parameters)
    mine = world.train(world.peers(job.config.federation)[1], 1, world.start)
    assert {k: v.tolist() for k, v in alone.items()} == {k: v.tolist() for k, v in mine.items()}


def test_every_attack_plays_and_twice_the_same(data_dir: Path) -> None:
    _, world = small(data_dir)
    for name, attack in ATTACKS.items():
        if attack.claims > 1:  # hundreds of thousands of records; the slice has them
            continue
        one = simulate(world, attack, frozenset({2}), "reputation")
        assert 0 <= one.auroc <= 1, name
        assert len(one.settlements) == 2
    _, fresh = small(data_dir)
    assert simulate(fresh, attack, frozenset({2}), "reputation") == one


def test_ways_of_joining_without_grades_settle_nothing(data_dir: Path) -> None:
    _, world = small(data_dir)
    for method in ("mean", "median", "trimmed-mean", "krum"):
        outcome = simulate(world, ATTACKS["sign-flip"], frozenset({2}), method)
        assert outcome.settlements == ()
        assert outcome.flagged == {}


def test_mitigation_is_checked_and_told_before_anything_is_played(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    played: list[object] = []
    monkeypatch.setattr("runner.attack.run.play_all", lambda *what: played.append(what))
    told: list[tuple[str, str]] = []

    def tabulated(table: dict[str, object]) -> None:
        options = {**SMALL, "backend": "fake_manila", "reps": 1, "mitigation": table}
        given = asked(options=options, bad=1, attacks=("none",), aggregations=("mean",), seeds=1)
        tabulate(given, data=data_dir, out=tmp_path / "cells.jsonl", tell=lambda *what: told.append(what))

    with pytest.raises(UsageError, match=r"zne takes 3 circuits for each unmitigated one, and the budget is 2"):
        tabulated({"stack": "zne", "budget": 2})
    assert not played
    assert not told
    (tmp_path / "cells.jsonl").unlink(missing_ok=True)
    with pytest.raises(KeyError):  # nothing was played, so that there is nothing to sum up
        tabulated({"stack": "zne"})
    assert played
    ((title, text),) = told
    assert title == "Mitigation"
    assert "On fake_manila: zne with exact values" in text


@pytest.mark.slow
def test_workers_give_what_one_process_gives(data_dir: Path) -> None:
    job, _ = small(data_dir)
    cells = [Cell("iid", seed, "sign-flip", "reputation") for seed in (0, 1)]
    found: list[Line] = []
    play_all(job, cells, 2, found.append)
    assert {line.cell: line.auroc for line in found} == {cell: play(job, cell).auroc for cell in cells}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"bad": 5}, "--bad 5: of 10 nodes"),
        ({"bad": 0}, "--bad 0"),
        ({"bad": 11}, "Take 1 to 4"),
        ({"options": {"nodes": 2}, "bad": 1}, "Take more --nodes"),
        ({"seeds": 0}, "--seeds 0"),
        ({"jobs": 0}, "--jobs 0"),
        ({"attacks": ("sign-flop",)}, "Did you mean 'sign-flip'"),
        ({"partitions": ("even",)}, "Unknown partition"),
        ({"aggregations": ("bulyan",)}, "unknown aggregation 'bulyan'"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        asked(**changes)


def test_the_file_of_values_wins_over_the_table_s_own_defaults(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("nodes = 7\n[model]\nqubits = 3\n")
    given = asked(file=file)
    assert (given.config.nodes, given.config.model.qubits, given.config.rounds) == (7, 3, 10)
    assert asked(file=file, options={"nodes": 9}).config.nodes == 9
    assert set(QUICK["attacks"]) <= set(ATTACKS)
