"""The block store: durable, and never believing its own files."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.cid import CHUNK, cid_of, parse_cid
from contracts.errors import ContentError, LedgerError
from contracts.store import BlockStore, ContentStore, open_store


def files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize("size", [0, 1, 5000, CHUNK, CHUNK + 1, 3 * CHUNK])
def test_what_is_put_is_got(tmp_path: Path, size: int) -> None:
    store = open_store(tmp_path)
    assert isinstance(store, ContentStore)
    data = os.urandom(size)
    cid = store.put(data)
    assert cid == str(cid_of(data))
    assert store.get(cid, max_bytes=size) == data
    assert open_store(tmp_path).has(cid)
    assert store.put(data) == cid


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=400))
def test_any_bytes_go_round(tmp_path: Path, data: bytes) -> None:
    store = BlockStore(tmp_path)
    assert store.get(store.put(data), max_bytes=400) == data


@pytest.mark.parametrize("size", [1000, 2 * CHUNK + 5])
def test_every_damaged_file_is_found_and_mended(tmp_path: Path, size: int) -> None:
    store = BlockStore(tmp_path)
    data = os.urandom(size)
    cid = store.put(data)
    for path in files(tmp_path):
        good = path.read_bytes()
        for bad in (good[:-1] + bytes([good[-1] ^ 1]), good[: len(good) // 2], b"", good + b"x"):
            path.write_bytes(bad)
            with pytest.raises(ContentError, match="damaged"):
                store.get(cid, max_bytes=size)
            assert not store.has(cid)
        path.unlink()
        with pytest.raises(ContentError, match="not in the store"):
            store.get(cid, max_bytes=size)
        path.write_bytes(b"torn")
        assert store.put(data) == cid
        assert store.get(cid, max_bytes=size) == data


def test_a_file_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    store = BlockStore(tmp_path)
    cid = store.put(bytes(10_000))
    with pytest.raises(ContentError, match="larger than the 9999 bytes"):
        store.get(cid, max_bytes=9_999)


@pytest.mark.parametrize("cid", ["", "../../secret", "QmX", "b" * 59, "/etc/passwd"])
def test_a_hostile_name_reaches_no_file(tmp_path: Path, cid: str) -> None:
    store = BlockStore(tmp_path)
    with pytest.raises(ContentError):
        store.get(cid, max_bytes=10)
    assert not store.has(cid)


def test_blocks_lie_in_folders_and_a_version_0_name_finds_them(tmp_path: Path) -> None:
    store = BlockStore(tmp_path)
    block = b"\x0a\x12\x08\x02\x12\x0chello world\n\x18\x0c"
    cid = parse_cid("QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o")
    store.put_block(cid, block)
    name = str(cid.v1)
    assert (tmp_path / name[-3:-1] / name).read_bytes() == block
    assert store.get(str(cid), max_bytes=100) == b"hello world\n"


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = BlockStore(tmp_path)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LedgerError, match=r"disk is full.*Make room"):
        store.put(b"model")
    monkeypatch.undo()
    assert files(tmp_path) == []
    assert not store.has(str(cid_of(b"model")))


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(LedgerError, match="cannot be written"):
        BlockStore(tmp_path / "file")


WRITER = """
import os, sys
from pathlib import Path
from contracts.store import BlockStore
store = BlockStore(Path(sys.argv[1]))
while True:
    print(store.put(os.urandom(400_000)), flush=True)
"""


def test_a_kill_loses_nothing_acknowledged_and_shows_nothing_torn(tmp_path: Path) -> None:
    moments = random.Random(5)
    acknowledged: list[str] = []
    for _ in range(4):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        acknowledged.append(process.stdout.readline().strip())
        time.sleep(moments.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read().splitlines(keepends=True)
        acknowledged += [line.strip() for line in rest if line.endswith("\n")]
        process.wait()
    store = BlockStore(tmp_path)
    assert len(acknowledged) > 4
    assert all(store.has(cid) for cid in acknowledged)
    for path in files(tmp_path):
        assert parse_cid(path.name).matches(path.read_bytes())


def test_a_store_that_is_only_read_is_left_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "blocks"
    cid = BlockStore(folder).put(b"a file")
    (folder / "tmp" / "half").write_bytes(b"of another process")
    before = sorted(folder.rglob("*"))
    store = BlockStore(folder, read_only=True)
    assert store.get(cid, max_bytes=100) == b"a file"
    with pytest.raises(LedgerError, match="reading only"):
        store.put(b"another")
    assert sorted(folder.rglob("*")) == before
    assert not BlockStore(tmp_path / "nowhere", read_only=True).has(cid)
    assert not (tmp_path / "nowhere").exists()


def test_tidying_up_removes_only_what_a_store_left(tmp_path: Path) -> None:
    temporary = tmp_path / "blocks" / "tmp"
    temporary.mkdir(parents=True)
    (temporary / "block-half").write_bytes(b"torn")
    (temporary / "thesis.txt").write_text("mine")
    (temporary / "block-folder").mkdir()
    (temporary / "block-link").symlink_to(temporary / "thesis.txt")
    BlockStore(tmp_path / "blocks")
    assert sorted(path.name for path in temporary.iterdir()) == ["block-folder", "block-link", "thesis.txt"]


def test_another_process_that_tidies_up_takes_no_block_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that is opened while a block is written takes the temporary file for one that was left."""
    store, replace, opened = BlockStore(tmp_path), os.replace, [0]

    def tidied(source: str, target: str) -> None:
        if opened[0] < 2:
            opened[0] += 1
            BlockStore(tmp_path)
        replace(source, target)

    monkeypatch.setattr(os, "replace", tidied)
    cid = store.put(b"somebody's model")
    assert store.get(cid, max_bytes=100) == b"somebody's model"
    assert opened == [2]
    opened[0] = -10
    with pytest.raises(LedgerError, match="cannot be written"):
        store.put(b"another")


@pytest.mark.parametrize("link", [".", "tmp", "two"])
def test_a_store_that_leads_elsewhere_is_not_written(tmp_path: Path, link: str) -> None:
    victim, folder = tmp_path / "victim", tmp_path / "blocks"
    victim.mkdir()
    for name in ("thesis.txt", "block-mine"):
        (victim / name).write_text("mine")
    folder.mkdir()
    if link == ".":
        folder.rmdir()
        folder.symlink_to(victim)
    else:
        (folder / (str(cid_of(b"model"))[-3:-1] if link == "two" else link)).symlink_to(victim)
    with pytest.raises(LedgerError, match="symbolic link"):
        BlockStore(folder).put(b"model")
    assert sorted(path.name for path in victim.iterdir()) == ["block-mine", "thesis.txt"]


def test_a_link_that_appears_later_is_not_followed(tmp_path: Path) -> None:
    store = BlockStore(tmp_path / "blocks")
    store.put(b"model")
    (tmp_path / "blocks" / "tmp").rmdir()
    (tmp_path / "blocks" / "tmp").symlink_to(tmp_path)
    with pytest.raises(LedgerError, match="symbolic link"):
        store.put(b"another")


@pytest.mark.parametrize("kind", ["fifo", "folder", "link", "device"])
def test_a_block_that_is_no_plain_file_is_not_read_and_not_waited_for(tmp_path: Path, kind: str) -> None:
    store = BlockStore(tmp_path)
    cid = store.put(b"model")
    path = next(p for p in files(tmp_path) if p.name == cid)
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        target = Path("/dev/zero")
        if kind == "link":
            target = tmp_path / "elsewhere"
            target.write_bytes(b"model")
        path.symlink_to(target)
    with pytest.raises(ContentError, match="no plain file"):
        store.get(cid, max_bytes=100)
    assert not store.has(cid)
    if kind == "folder":
        with pytest.raises(LedgerError, match="cannot be written"):
            store.put(b"model")
    else:  # it is replaced, not written through
        store.put(b"model")
        assert path.is_file()
        assert not path.is_symlink()
        assert store.get(cid, max_bytes=100) == b"model"


def test_blocks_are_not_read_through_a_linked_folder(tmp_path: Path) -> None:
    cid = BlockStore(tmp_path / "other").put(b"model")
    (tmp_path / "blocks").mkdir()
    (tmp_path / "blocks" / cid[-3:-1]).symlink_to(tmp_path / "other" / cid[-3:-1])
    assert not BlockStore(tmp_path / "blocks", read_only=True).has(cid)
