"""Run folders and their index: durable, locked, and honest about their state."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from circuits.errors import QrunError, UsageError
from runner.keys import load_or_create
from runner.store import RunIndex, RunStore, disk_errors, locked, on_disk, state_of, write_durably

MANIFEST = {"config": {"seed": 1}}


@pytest.fixture
def index(tmp_path: Path) -> RunIndex:
    return RunIndex(tmp_path / "home")


def test_names_in_use_get_a_number(index: RunIndex) -> None:
    names = [index.create("nsl-kdd-00", None, MANIFEST).run for _ in range(3)]
    assert names == ["nsl-kdd-00", "nsl-kdd-00.2", "nsl-kdd-00.3"]
    assert [r.run for r in index.list()] == ["nsl-kdd-00", "nsl-kdd-00.2", "nsl-kdd-00.3"]


def test_a_run_is_found_by_its_beginning(index: RunIndex) -> None:
    index.create("nsl-kdd-0a", None, MANIFEST)
    index.create("nsl-kdd-1b", None, MANIFEST)
    assert index.find("nsl-kdd-1").run == "nsl-kdd-1b"
    with pytest.raises(UsageError, match="ambiguous"):
        index.find("nsl")
    with pytest.raises(UsageError, match="no run 'x'"):
        index.find("x")
    with pytest.raises(UsageError, match="no run ''"):
        index.find("")
    with pytest.raises(UsageError, match="no run"):
        index.find("nsl-kdd-1", exact=True)


def test_an_exact_name_wins_over_longer_ones(index: RunIndex) -> None:
    index.create("a", None, MANIFEST)
    index.create("a", None, MANIFEST)
    assert index.find("a").run == "a"


def test_out_must_be_new_or_empty(index: RunIndex, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="not an empty folder"):
        index.create("a", tmp_path / "full", MANIFEST)
    assert index.list() == []
    assert index.create("a", tmp_path / "new" / "deep", MANIFEST).path == (tmp_path / "new" / "deep").absolute()


def test_that_the_folder_of_a_run_is_gone_is_said(index: RunIndex, tmp_path: Path) -> None:
    run = index.create("a", tmp_path / "out", MANIFEST)
    with pytest.raises(UsageError, match=r"not an empty folder.*qrun runs resume a`"):
        index.create("a", tmp_path / "out", MANIFEST)
    shutil.rmtree(run.path)
    with pytest.raises(UsageError, match=r"run a, which is gone.*qrun runs rm a`"):
        index.create("a", tmp_path / "out", MANIFEST)
    index.remove(run)
    assert index.create("a", tmp_path / "out", MANIFEST).run == "a"


def test_removing_a_run_leaves_other_files_alone(index: RunIndex, tmp_path: Path) -> None:
    run = index.create("a", tmp_path / "out", MANIFEST)
    RunStore(run.run, run.path).close()
    (run.path / "config.json").write_text("{}")
    (run.path / ".keys.json.4711").write_text("what a kill leaves behind")
    (run.path / "blocks").mkdir()
    (run.path / "notes.txt").write_text("mine")
    with locked(run.path), pytest.raises(QrunError, match="another process"):
        index.remove(index.find("a"))
    index.remove(index.find("a"))
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["notes.txt"]
    assert index.list() == []


def test_state(index: RunIndex) -> None:
    store = index.create("a", None, MANIFEST)
    assert state_of(store.path) == "interrupted"
    with locked(store.path):
        code = (
            "import sys; from pathlib import Path; from runner.store import state_of\n"
            "print(state_of(Path(sys.argv[1])))"
        )
        seen = subprocess.run([sys.executable, "-c", code, str(store.path)], capture_output=True, text=True, check=True)
        assert seen.stdout.strip() == "running"
    assert state_of(store.path) == "interrupted"
    (store.path / "result.json").write_text("{}")
    assert state_of(store.path) == "finished"
    assert state_of(store.path / "gone") == "missing"


def test_a_run_has_one_writer(index: RunIndex) -> None:
    store = index.create("a", None, MANIFEST)
    code = (
        "import sys; from pathlib import Path\nfrom runner.store import locked\n"
        "try:\n    locked(Path(sys.argv[1])).__enter__()\nexcept Exception as e: print(e)"
    )
    with locked(store.path):
        seen = subprocess.run([sys.executable, "-c", code, str(store.path)], capture_output=True, text=True, check=True)
    assert "another process works on the run" in seen.stdout


def test_facts_and_phases_are_kept(index: RunIndex) -> None:
    run = index.create("a", None, MANIFEST)
    store = RunStore(run.run, run.path)
    store.put("x", {"cid": "b", "losses": [1.5]})
    assert store.get("x") == {"cid": "b", "losses": [1.5]}
    assert store.get("y") is None
    for _ in range(2):
        with store.phase("training"):
            pass
    assert list(store.phases()) == ["training"]
    assert 0 <= store.phases()["training"] <= store.total()
    before = store.total()
    store.close()
    again = RunStore(run.run, run.path)
    assert again.total() == pytest.approx(before, abs=1), "earlier attempts are in the sum"
    assert again.phases() == store_phases(run.path)


def store_phases(path: Path) -> dict[str, float]:
    with sqlite3.connect(path / "state.sqlite") as db:
        return dict(db.execute("select name, seconds from phases").fetchall())


def test_a_run_can_be_played_from_its_line_alone(index: RunIndex) -> None:
    run = index.create("a", None, MANIFEST)
    assert index.manifest("a") == {**MANIFEST, "run": "a"}
    assert list(run.path.iterdir()) == []


def test_one_folder_is_one_runs(index: RunIndex, tmp_path: Path) -> None:
    index.create("a", tmp_path / "out", MANIFEST)
    with pytest.raises(UsageError, match="qrun runs resume a"):
        index.create("b", tmp_path / "out", MANIFEST)


def test_a_home_that_is_no_folder_names_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(QrunError, match="QRUN_HOME"):
        RunIndex(tmp_path / "file")


def test_only_the_runs_own_files_are_the_disks_trouble(tmp_path: Path) -> None:
    with pytest.raises(QrunError, match="cannot use"), on_disk(tmp_path):
        (tmp_path / "none" / "x").read_text()
    with pytest.raises(FileNotFoundError), on_disk(tmp_path):
        Path("/nowhere/at/all").read_text()
    with pytest.raises(BrokenPipeError), on_disk(tmp_path):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")


def test_durable_writes_are_whole_and_leave_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "f.json"
    write_durably(path, b"one")
    write_durably(path, b"two")
    assert path.read_bytes() == b"two"
    assert [p.name for p in tmp_path.iterdir()] == ["f.json"]


def test_keys_are_private_and_stable(tmp_path: Path) -> None:
    keys = load_or_create(tmp_path, 3)
    assert stat.S_IMODE((tmp_path / "keys.json").stat().st_mode) == 0o600
    assert load_or_create(tmp_path, 3) == keys
    assert keys.opener.hex() not in repr(keys)
    assert keys.nodes[0].chain.hex() not in repr(keys.nodes)
    other = tmp_path / "other"
    other.mkdir()
    assert load_or_create(other, 3) != keys
    with pytest.raises(QrunError, match="keys of 3 nodes"):
        load_or_create(tmp_path, 4)
    (tmp_path / "keys.json").write_text(json.dumps({"opener": "zz"}))
    with pytest.raises(QrunError, match="damaged"):
        load_or_create(tmp_path, 3)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "is full"),
        (OSError(errno.EACCES, os.strerror(errno.EACCES)), "cannot write"),
        (sqlite3.OperationalError("database or disk is full"), "is full"),
        (sqlite3.DatabaseError("file is not a database"), "cannot use"),
    ],
)
def test_disk_trouble_is_one_line_that_says_what_to_do(
    error: OSError | sqlite3.Error, said: str, tmp_path: Path
) -> None:
    shown = disk_errors(error, tmp_path)
    assert said in str(shown)
    assert "\n" not in str(shown)
    assert "--out" in shown.hint
