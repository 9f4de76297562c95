from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest

from circuits.errors import UsageError
from experiments.datasets import download as download_module
from experiments.datasets import fetch
from experiments.datasets.download import DownloadFailed, Patience, download
from experiments.datasets.official import TEST, TRAIN_20, TRAIN_FULL, Official
from experiments.datasets.parse import DataFileError

CONTENT = b"some bytes\n" * 20_000
SMALL = Official("Small+_20%.txt", 1, f"sha256:{hashlib.sha256(CONTENT).hexdigest()}")
BLOB = Official("Blob+.txt", 1, "git:" + hashlib.sha1(b"blob %d\0" % len(CONTENT) + CONTENT).hexdigest())

Answer = Callable[[BaseHTTPRequestHandler], None]


def sends(content: bytes, announced: int | None = None) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(announced if announced is not None else len(content)))
        request.end_headers()
        request.wfile.write(content)

    return answer


def not_found(request: BaseHTTPRequestHandler) -> None:
    request.send_error(404)


class Mirror:
    """A server on the loopback address that answers as told and remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers: dict[str, Answer] = {}
        self.ended = threading.Event()
        mirror = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                mirror.asked.append(self.path)
                name = unquote(self.path).rpartition("/")[2]
                mirror.answers.get(name, not_found)(self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/master/"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def hang(self, request: BaseHTTPRequestHandler) -> None:
        self.ended.wait(60)

    def close(self) -> None:
        self.ended.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    server = Mirror()
    yield server
    server.close()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mirror: Mirror) -> Path:
    """An empty cache, no QRUN_DATA, and the mirror in place of the public ones."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(fetch.ENVIRONMENT, raising=False)
    monkeypatch.setattr(download_module, "MIRRORS", (mirror.url,))
    return fetch.cache_folder()


def silent(text: str) -> None:
    pass


@pytest.mark.parametrize("official", [SMALL, BLOB], ids=["sha256", "git blob"])
def test_a_file_is_fetched_and_kept(mirror: Mirror, tmp_path: Path, official: Official) -> None:
    mirror.answers[official.name] = sends(CONTENT)
    path = download(official, tmp_path / "new" / "folder", Patience(), silent, [mirror.url])
    assert path.read_bytes() == CONTENT
    assert [item.name for item in path.parent.iterdir()] == [official.name]
    # Raw '+' and '%' in a path are read differently by servers: both are escaped.
    assert mirror.asked == [f"/master/{official.name.replace('%', '%25').replace('+', '%2B')}"]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (sends(CONTENT + b"x"), "another hash"),
        (sends(b""), "another hash"),
        (sends(b"<html>moved</html>"), "another hash"),
        (sends(CONTENT[:1000], announced=len(CONTENT)), "cut"),
        (not_found, "HTTP status 404"),
    ],
    ids=["edited", "empty", "web page", "cut", "404"],
)
def test_what_is_not_the_file_never_appears(mirror: Mirror, tmp_path: Path, answer: Answer, reason: str) -> None:
    mirror.answers[SMALL.name] = answer
    with pytest.raises(DownloadFailed, match=reason):
        download(SMALL, tmp_path, Patience(), silent, [mirror.url])
    assert list(tmp_path.iterdir()) == []


def test_the_next_mirror_is_asked(mirror: Mirror, tmp_path: Path) -> None:
    mirror.answers[SMALL.name] = sends(CONTENT)
    closed = "http://127.0.0.1:9/"
    said: list[str] = []
    assert download(SMALL, tmp_path, Patience(), said.append, [closed, mirror.url]).exists()
    assert [url in text for url, text in zip([closed, mirror.url], said, strict=True)] == [True, True]


def test_a_larger_file_than_any_is_given_up(mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download_module, "MAX_BYTES", 100_000)
    mirror.answers[SMALL.name] = sends(bytes(3_000_000))
    with pytest.raises(DownloadFailed, match="larger than any official file"):
        download(SMALL, tmp_path, Patience(), silent, [mirror.url])


def test_a_hanging_network_costs_the_patience_once(mirror: Mirror, tmp_path: Path) -> None:
    mirror.answers[SMALL.name] = mirror.hang
    patience = Patience(0.6)
    start = time.monotonic()
    with pytest.raises(DownloadFailed, match="no answer"):
        download(SMALL, tmp_path, patience, silent, [mirror.url] * 5)
    with pytest.raises(DownloadFailed, match="no answer"):
        download(SMALL, tmp_path, patience, silent, [mirror.url])
    assert 0.5 < time.monotonic() - start < 2
    assert list(tmp_path.iterdir()) == []


def test_headers_without_a_body_are_no_answer(mirror: Mirror, tmp_path: Path) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        sends(b"", announced=1000)(request)
        request.wfile.flush()
        mirror.hang(request)

    mirror.answers[SMALL.name] = answer
    start = time.monotonic()
    with pytest.raises(DownloadFailed, match="no answer"):
        download(SMALL, tmp_path, Patience(0.5), silent, [mirror.url])
    assert time.monotonic() - start < 2


def test_a_name_lookup_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    monkeypatch.setattr("socket.getaddrinfo", lambda *a, **k: released.wait(30))
    start = time.monotonic()
    with pytest.raises(DownloadFailed, match="no answer"):
        download(SMALL, tmp_path, Patience(0.5), silent, ["http://black.hole.invalid/"])
    assert time.monotonic() - start < 2
    released.set()


def test_a_download_that_crawls_is_given_up(mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download_module, "DURATION_S", 0.5)

    def drip(request: BaseHTTPRequestHandler) -> None:
        sends(bytes(2**17), announced=10**7)(request)
        mirror.hang(request)

    mirror.answers[SMALL.name] = drip
    with pytest.raises(DownloadFailed, match="not complete"):
        download(SMALL, tmp_path, Patience(), silent, [mirror.url])
    assert list(tmp_path.iterdir()) == []


def test_without_files_the_stand_in_is_loaded_and_said(cache: Path, mirror: Mirror) -> None:
    said: list[str] = []
    dataset = fetch.load(data=None, full=False, notify=said.append)
    assert (dataset.source, len(dataset.train), len(dataset.test)) == ("stand-in", 25_192, 22_544)
    assert len(mirror.asked) == 1
    assert "stand-in" in said[-1]
    assert "404" in said[-1]
    assert all("\n" not in text for text in said)


def test_offline_asks_nobody(cache: Path, mirror: Mirror) -> None:
    said: list[str] = []
    assert fetch.load(data=None, full=False, offline=True, notify=said.append).source == "stand-in"
    assert mirror.asked == []
    assert "not to be used" in said[-1]


def test_a_black_hole_ends_with_the_stand_in(cache: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror.answers = dict.fromkeys((TRAIN_20.name, TEST.name), mirror.hang)
    monkeypatch.setattr(fetch, "Patience", lambda: Patience(0.5))
    start = time.monotonic()
    assert fetch.load(data=None, full=False, notify=silent).source == "stand-in"
    assert time.monotonic() - start < 5


def test_an_unwritable_cache_ends_with_the_stand_in(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    said: list[str] = []
    assert fetch.load(data=None, full=False, notify=said.append).source == "stand-in"
    assert "cannot be kept in the cache" in said[-1]


def test_a_named_folder_has_to_hold_the_files(cache: Path, tmp_path: Path, mirror: Mirror) -> None:
    (tmp_path / TEST.name).touch()
    with pytest.raises(UsageError) as caught:
        fetch.load(data=tmp_path, full=True, notify=silent)
    assert TRAIN_FULL.name in caught.value.message
    assert f"official files there: {TEST.name}" in caught.value.message
    with pytest.raises(UsageError, match="is no folder"):
        fetch.load(data=tmp_path / "none", full=False, notify=silent)
    assert mirror.asked == []


def test_official_files_are_loaded_from_folder_environment_and_cache(
    data_dir: Path, cache: Path, mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = fetch.load(data=data_dir, full=False, notify=silent)
    assert (named.source, named.train.file, named.test.file) == ("official", TRAIN_20.name, TEST.name)
    assert {f"sha256:{digest}" for digest in named.sha256.values()} == {TRAIN_20.hash, TEST.hash}
    monkeypatch.setenv(fetch.ENVIRONMENT, str(data_dir))
    assert fetch.load(data=None, full=False, notify=silent).sha256 == named.sha256
    assert fetch.locate(None, False) == {name: data_dir / name for name in (TRAIN_20.name, TEST.name)}
    assert fetch.locate(tmp_path, False) == {TRAIN_20.name: None, TEST.name: None}

    monkeypatch.delenv(fetch.ENVIRONMENT)
    mirror.answers = {name: sends((data_dir / name).read_bytes()) for name in (TRAIN_20.name, TEST.name)}
    assert fetch.load(data=None, full=False, notify=silent).sha256 == named.sha256
    assert fetch.load(data=None, full=False, offline=True, notify=silent).sha256 == named.sha256
    assert len(mirror.asked) == 2

    (cache / TEST.name).write_bytes(b"torn")
    said: list[str] = []
    assert fetch.load(data=None, full=False, notify=said.append).source == "official"
    assert "damaged" in said[0]
    assert len(mirror.asked) == 3


def test_the_test_file_cannot_pass_for_the_training_file(data_dir: Path, tmp_path: Path) -> None:
    for name in (TRAIN_20.name, TEST.name):
        (tmp_path / name).write_bytes((data_dir / TEST.name).read_bytes())
    with pytest.raises(DataFileError, match="under the name of"):
        fetch.load(data=tmp_path, full=False, notify=silent)


def test_a_broken_file_in_a_named_folder_is_an_error_not_a_stand_in(cache: Path, tmp_path: Path) -> None:
    folder = tmp_path / "nsl-kdd"
    folder.mkdir()
    for name in (TRAIN_20.name, TEST.name):
        (folder / name).write_text("<html>")
    with pytest.raises(DataFileError, match="line 1, column 1"):
        fetch.load(data=tmp_path, full=False, notify=silent)
