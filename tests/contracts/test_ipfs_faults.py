"""The daemon behind a server that spoils their answers: whatever it does, the store ends, in words."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from contracts.bounded_http import Patience
from contracts.cid import CHUNK, cid_of, parse_cid
from contracts.dag import links_of
from contracts.errors import ContentError, LedgerError, LedgerUnreachable
from contracts.store import BlockStore
from tests.contracts.faults import CID, DATA, QUICK, Faulty, StandIn, faulty_server, one_line, store_at
from tests.servers import free_port

BLOCK_FAULTS = {
    "slow": (ContentError, r"did not find block .* in time"),
    "slow headers": (ContentError, r"did not find block .* in time"),
    "silent": (ContentError, r"did not find block .* in time"),
    "cut": (LedgerUnreachable, "cut its answer off in the middle"),
    "cut headers": (ContentError, "damaged"),  # http.client takes the end for that of the headers
    "wrong": (ContentError, "damaged"),
    "empty": (ContentError, "damaged"),
    "500": (LedgerUnreachable, "HTTP status 500"),
    "403": (LedgerUnreachable, "HTTP status 403"),
    "endless": (ContentError, "more than 2097152 bytes"),
    "endless length": (ContentError, "more than 2097152 bytes"),
    "endless line": (LedgerUnreachable, "does not answer|not well"),
    "redirect": (ContentError, "redirects to .*which is not followed"),
    "gzip": (ContentError, "compressed"),
    "noise": (LedgerUnreachable, "does not answer|not well"),
}


@pytest.mark.parametrize("fault", BLOCK_FAULTS)
def test_a_spoilt_block_ends_in_words_and_goes_nowhere(
    tmp_path: Path, daemon: tuple[Faulty, StandIn], fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    server, stand_in = daemon
    stand_in.keep(DATA)
    store = store_at(tmp_path, server.url)
    server.spoil(fault, "block/get")
    kind, words = BLOCK_FAULTS[fault]
    began = time.monotonic()
    with pytest.raises(kind, match=words) as caught:
        store.get(CID, max_bytes=len(DATA))
    assert time.monotonic() - began < 8
    one_line(caught.value, server.url)
    assert not [record for record in caplog.records if record.levelname != "DEBUG"]
    assert not BlockStore(tmp_path).has(CID)
    assert server.sent < 32 << 20
    assert server.hops == 0
    server.spoil("none")
    assert store.get(CID, max_bytes=len(DATA)) == DATA


@pytest.mark.parametrize(
    "fault", ["slow", "cut", "500", "endless", "endless length", "redirect", "noise", "list", "empty"]
)
@pytest.mark.parametrize("at", ["add", "pin/ls"])
def test_a_spoilt_put_is_no_put_and_is_made_good(
    tmp_path: Path, daemon: tuple[Faulty, StandIn], fault: str, at: str
) -> None:
    server, stand_in = daemon
    store = store_at(tmp_path, server.url)
    server.spoil(fault, at)
    began = time.monotonic()
    with pytest.raises(LedgerError) as caught:
        store.put(DATA)
    assert time.monotonic() - began < 10
    one_line(caught.value, server.url)
    assert server.sent < 32 << 20
    assert server.hops == 0
    assert store.waiting == (CID,)
    assert BlockStore(tmp_path).get(CID, max_bytes=len(DATA)) == DATA
    server.spoil("none")
    other = store.put(b"the next one")
    assert store.waiting == ()
    assert stand_in.pins == {CID, other}


def test_a_passing_failure_passes(tmp_path: Path, daemon: tuple[Faulty, StandIn]) -> None:
    server, stand_in = daemon
    server.spoil("502 once")
    store = store_at(tmp_path / "a", server.url)
    assert store.put(DATA) == CID
    assert server.asked["add"] == server.asked["pin/ls"] == 2
    assert store_at(tmp_path / "b", server.url).get(CID, max_bytes=len(DATA)) == DATA
    assert stand_in.pins == {CID}


def test_a_file_that_drips_has_a_deadline_as_a_whole(tmp_path: Path, daemon: tuple[Faulty, StandIn]) -> None:
    """Every block comes in time, and the file would not."""
    server, stand_in = daemon
    data = os.urandom(CHUNK * 12)
    cid = stand_in.keep(data)
    honest = server.target

    def slow(method: str, path: str, headers: object, body: bytes) -> object:
        time.sleep(0.2 if "block/get" in path else 0)
        return honest(method, path, headers, body)  # type: ignore[arg-type]

    server.target = slow  # type: ignore[assignment]
    store = store_at(tmp_path, server.url, patience=Patience(block=1.0, file=1.5))
    began = time.monotonic()
    with pytest.raises(ContentError, match=r"in time \(1 s for a block, 1.5 s for its file\)"):
        store.get(cid, max_bytes=len(data))
    assert 1.0 < time.monotonic() - began < 6
    came = server.asked["block/get"] - 1
    assert came < 12
    assert store_at(tmp_path, server.url, patience=Patience()).get(cid, max_bytes=len(data)) == data
    assert server.asked["block/get"] <= 14, "what came was kept"


def test_a_daemon_that_forgets_its_pins_is_told(tmp_path: Path, daemon: tuple[Faulty, StandIn]) -> None:
    server, stand_in = daemon
    stand_in.keeps_pins = False
    store = store_at(tmp_path, server.url)
    with pytest.raises(ContentError, match="does not hold the pin"):
        store.put(DATA)
    assert server.asked["pin/add"] == 1
    assert store.waiting == (CID,)
    stand_in.keeps_pins = True
    assert store.push() == 1
    assert store.push() == 0


def test_a_pin_of_what_nobody_has(tmp_path: Path, daemon: tuple[Faulty, StandIn]) -> None:
    server, stand_in = daemon
    store = store_at(tmp_path, server.url)
    server.spoil("silent", "pin/add")
    with pytest.raises(ContentError, match=rf"did not find all of {CID} in time while pinning it"):
        store.pin(CID)
    server.spoil("none")
    store.pin(CID)
    assert stand_in.pins == {CID}


# -- the daemon away --------------------------------------------------------------------------------------------------


def test_what_was_put_while_the_daemon_was_away_is_pushed_when_it_is_back(tmp_path: Path) -> None:
    stand_in = StandIn()
    gone = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(LedgerUnreachable, match="connection refused"):
        store_at(tmp_path, gone)
    store = store_at(tmp_path, gone, away_ok=True)
    assert store.version is None
    cids = [store.put(os.urandom(100)) for _ in range(3)]
    assert list(store.waiting) == cids
    assert store.get(cids[0], max_bytes=100)
    with pytest.raises(LedgerUnreachable, match="connection refused"):
        store.push()
    with faulty_server(stand_in) as server:  # somewhere else, which a restart may well be
        again = store_at(tmp_path, server.url, away_ok=True)
        assert list(again.waiting) == cids, "an outbox survives its process"
        assert again.get(cids[0], max_bytes=100)
        assert again.waiting == ()
        assert stand_in.pins == set(cids)


def test_a_daemon_that_is_away_is_left_alone_for_a_while(tmp_path: Path, daemon: tuple[Faulty, StandIn]) -> None:
    server, _ = daemon
    store = store_at(tmp_path, server.url, away_ok=True)
    server.spoil("500")
    for _ in range(5):
        store.put(os.urandom(10))
    assert server.asked["add"] == QUICK.tries
    with pytest.raises(LedgerUnreachable, match="a moment ago"):
        store.get(CID, max_bytes=len(DATA))
    server.spoil("none")
    assert store.push() == 5, "asked for, it does not wait"


def test_a_put_that_was_killed_is_found_again(tmp_path: Path, daemon: tuple[Faulty, StandIn]) -> None:
    """After each of its steps: a file that is here is on the daemon soon, and one that is not is not missed."""
    server, stand_in = daemon
    store = store_at(tmp_path, server.url)
    begun, whole, halfway = b"begun" * 9, b"here" * 9, os.urandom(CHUNK + 1)
    store._outbox.begin(str(cid_of(begun)))
    store._outbox.begin(str(cid_of(whole)))
    BlockStore(tmp_path).put(whole)
    store._outbox.begin(str(cid_of(halfway)))
    BlockStore(tmp_path).put(halfway[:CHUNK])
    again = store_at(tmp_path, server.url)
    assert again.waiting == ()
    assert again.push() == 1
    assert stand_in.pins == {str(cid_of(whole))}
    assert again.put(begun) in stand_in.pins
    assert again.put(halfway) in stand_in.pins
    assert not list((tmp_path / "outbox").iterdir())


def test_a_waiting_file_that_was_lost_here_is_said_and_stops_no_other(
    tmp_path: Path, daemon: tuple[Faulty, StandIn]
) -> None:
    server, stand_in = daemon
    store = store_at(tmp_path, server.url)
    server.spoil("500", "add")
    for data in (b"lost" * 9, b"kept" * 9):
        with pytest.raises(LedgerUnreachable):
            store.put(data)
    lost, kept = store.waiting
    next(tmp_path.glob(f"??/{lost}")).write_bytes(b"torn")
    server.spoil("none")
    assert store.put(b"new") in stand_in.pins
    assert kept in stand_in.pins
    with pytest.raises(ContentError, match=rf"{lost} is not on the daemon.*Put the file again"):
        store.push()
    assert store.put(b"lost" * 9) == lost
    assert store.push() == 0


_PUTS = """
import sys
from pathlib import Path
from contracts.bounded_http import Patience
from contracts.ipfs import IpfsStore
from contracts.store import BlockStore
import random
store = IpfsStore(sys.argv[1], BlockStore(Path(sys.argv[2])), away_ok=True, patience=Patience(tries=1, pause=0.01))
for number in range(10**6):
    print(store.put(random.randbytes(random.choice((50, 300_000)))), flush=True)
"""


def test_a_process_that_is_killed_at_any_moment_loses_nothing(tmp_path: Path, daemon: tuple[Faulty, StandIn]) -> None:
    """kill -9 while files are put, by a daemon that fails now and then: what was acknowledged is pinned after a push,
    and so is whatever else is whole here."""
    server, stand_in = daemon
    acknowledged: list[str] = []
    for turn in range(4):
        command = [sys.executable, "-c", _PUTS, server.url, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for wanted in range(3 + turn):
                acknowledged.append(process.stdout.readline().strip())
                server.spoil("cut" if wanted % 2 else "none", "add")
            time.sleep(random.uniform(0, 0.05))
            process.kill()
            acknowledged += [line.strip() for line in process.stdout if line.endswith("\n")]
    server.spoil("none")
    store = store_at(tmp_path, server.url)
    store.push()
    assert store.waiting == ()
    assert set(acknowledged) <= stand_in.pins
    local = BlockStore(tmp_path)
    links = {str(link) for p in tmp_path.glob("??/bafybei*") for link in links_of(parse_cid(p.name), p.read_bytes())}
    roots = {path.name for path in tmp_path.glob("??/baf*")} - links
    halves = {cid for cid in roots if (tmp_path / "outbox" / f"{cid}.begun").exists()}
    assert not halves, "a file that is whole is no longer only begun"
    whole = {cid for cid in roots if local.has(cid) and len(local.get(cid, max_bytes=1 << 20)) in (50, 300_000)}
    assert whole <= stand_in.pins


@pytest.mark.parametrize("what", ["link", "file", "noise"])
def test_an_outbox_from_outside(tmp_path: Path, daemon: tuple[Faulty, StandIn], what: str) -> None:
    server, _ = daemon
    folder, elsewhere = tmp_path / "a", tmp_path / "b"
    folder.mkdir()
    elsewhere.mkdir()
    if what == "link":
        (folder / "outbox").symlink_to(elsewhere)
    elif what == "file":
        (folder / "outbox").write_bytes(b"x")
    else:
        (folder / "outbox").mkdir()
        (folder / "outbox" / "note").write_text("x")
        (folder / "outbox" / ("b" * 59)).write_text("x")
    store = store_at(folder, server.url)
    if what == "noise":
        assert store.put(DATA) == CID
        assert sorted(p.name for p in (folder / "outbox").iterdir()) == ["b" * 59, "note"]
        return
    with pytest.raises(LedgerError, match="outbox"):
        store.put(DATA)
    assert not list(elsewhere.iterdir())


def test_no_warning_reaches_the_user(tmp_path: Path, daemon: tuple[Faulty, StandIn]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store_at(tmp_path, daemon[0].url).put(DATA)
