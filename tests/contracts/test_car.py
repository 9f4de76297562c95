"""CARv1: vectors that another implementation wrote, both ways; hostile files; a real daemon."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.car import MAX_HEADER, MAX_ROOTS, _header, _varint, read_car, write_car
from contracts.cid import CHUNK, DAG_PB, RAW, Cid, build, of_block
from contracts.dag import MAX_BLOCK
from contracts.errors import ContentError

VECTORS: dict[str, Any] = json.loads(Path(__file__).with_name("car_vectors.json").read_text())
"""Written by the PyPI package ipld_car 0.0.1 (with dag-cbor and multiformats), from blocks that the tests make anew."""


def written(roots: Sequence[Cid], blocks: Sequence[tuple[Cid, bytes]]) -> bytes:
    file = io.BytesIO()
    write_car(file, roots, blocks)
    return file.getvalue()


def read(data: bytes) -> tuple[tuple[Cid, ...], list[tuple[Cid, bytes]]]:
    car = read_car(io.BytesIO(data))
    return car.roots, list(car.blocks)


def small() -> tuple[Cid, bytes]:
    return next(iter(build(b"qrun")))


def good() -> bytes:
    cid, block = small()
    return written([cid], [(cid, block)])


def vector_parts(name: str) -> tuple[list[Cid], list[tuple[Cid, bytes]]]:
    tree = list(build(bytes(i % 251 for i in range(600)), chunk=256, width=2))
    root = tree[-1][0]
    old = Cid(DAG_PB, root.digest, 0)
    return {
        "one-block": ([small()[0]], [small()]),
        "a-tree": ([root], tree),
        "version-0": ([old, small()[0]], [(old, tree[-1][1]), small()]),
        "no-blocks": ([root], []),
        "thirty-roots": ([of_block(RAW, bytes([i])) for i in range(30)], []),
    }[name]


@pytest.mark.parametrize("name", sorted(VECTORS))
def test_another_implementation_writes_and_we_read_the_same_bytes(name: str) -> None:
    theirs = base64.b64decode(VECTORS[name]["car"])
    roots, blocks = vector_parts(name)
    assert written(roots, blocks) == theirs
    assert read(theirs) == (tuple(roots), blocks)


@given(st.lists(st.binary(max_size=300), max_size=8), st.integers(0, 300))
def test_what_is_written_is_read(contents: list[bytes], extra: int) -> None:
    blocks = [(of_block(RAW, c), c) for c in dict.fromkeys(contents)]
    roots = [cid for cid, _ in blocks] + [of_block(DAG_PB, i.to_bytes(2, "big")) for i in range(extra)]
    assert read(written(roots, blocks)) == (tuple(roots), blocks)


def test_a_block_that_comes_twice_is_written_once() -> None:
    cid, block = small()
    file = io.BytesIO()
    assert write_car(file, [cid], [(cid, block), (cid, block)]) == 1
    assert read(file.getvalue())[1] == [(cid, block)]


def test_as_many_roots_as_may_be_written_are_read_and_no_more() -> None:
    roots = [Cid(DAG_PB, i.to_bytes(32, "big")) for i in range(MAX_ROOTS)]
    assert read(written(roots, [])) == (tuple(roots), [])
    with pytest.raises(ContentError, match=f"{MAX_ROOTS + 1} files are more"):
        written([*roots, roots[0]], [])
    old = [Cid(DAG_PB, bytes(32), 0)] * (MAX_ROOTS + 1)
    header = _header(old)
    with pytest.raises(ContentError, match="more than"):
        read(_varint(len(header)) + header)


def test_writing_refuses_a_block_under_another_cid() -> None:
    with pytest.raises(ContentError, match="do not hash"):
        written([], [(small()[0], b"other")])


def test_every_flipped_byte_is_refused_or_changes_what_is_read() -> None:
    data = good()
    before = read(data)
    for position in range(len(data)):
        for bit in (1, 0x80):
            damaged = bytearray(data)
            damaged[position] ^= bit
            try:
                after = read(bytes(damaged))
            except ContentError:
                continue
            # Only a root, which is a name, can become another one; no block can.
            assert after[0] != before[0]
            assert after[1] == before[1]


def test_every_cut_is_refused() -> None:
    data = good()
    whole = len(written([small()[0]], []))  # cut behind the header: a file with no blocks
    for length in range(len(data)):
        if length == whole:
            continue
        with pytest.raises(ContentError):
            read(data[:length])


@given(st.binary(max_size=200))
def test_noise_is_refused_in_words(noise: bytes) -> None:
    for data in (noise, good() + noise):
        try:
            read(data)
        except ContentError:
            continue
        assert data == good()


HEADER = good()[1 : 1 + good()[0]]
CID_ITEM = b"\xd8\x2a\x58\x25\x00" + small()[0].binary


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "begins with nothing"),
        (b"\x00", "begins with nothing"),
        (b"\xff" * 12, "length of its header"),
        (b"\x80" * 9 + b"\x01", "length of its header"),
        (b"\x81\x00" + HEADER, "shortest form"),
        (_varint(MAX_HEADER + 1) + bytes(2 * MAX_HEADER), f"a header of {MAX_HEADER + 1} bytes"),
        (b"\xff\xff\xff\xff\x7f", "a header of"),
        (b"\x0a\xa1\x67version\x02", "CARv2"),
        (b"\x0a\xa1\x67version\x01", "not dag-cbor of"),
        (b"\x11\xa2\x65roots\x80\x67version\x02", "not version 1"),
        (b"\x18\xa3\x65roots\x80\x65extra\x01\x67version\x01", "not dag-cbor of"),
        (b"\x11\xa2\x67version\x01\x65roots\x80", "not dag-cbor of"),
        (b"\x12\xa2\x65roots\x98\x00\x67version\x01", "not version 1"),
        (bytes([17 + 41]) + b"\xa2\x65roots\x82" + CID_ITEM + b"\x67version\x01", "not version 1"),
        (b"\x12\xa2\x65roots\x80\x67version\x01\x00", "not version 1"),
        (good() + b"\x00", "has 0 bytes with its CID"),
        (good() + b"\x21" + bytes(33), "has 33 bytes"),
        (good() + b"\xff\xff\xff\x7f", "bytes with its CID"),
        (good() + b"\x24\x01\x71" + small()[0].binary[2:], "no kind that is read"),
        (good() + b"\x28" + small()[0].binary + b"qrum", "do not hash"),
    ],
)  # fmt: skip
def test_hostile_files_are_refused_with_the_reason(data: bytes, words: str) -> None:
    with pytest.raises(ContentError, match=words):
        read(data)


def test_no_more_is_read_than_a_length_allows() -> None:
    class Greedy(io.BytesIO):
        asked = 0

        def read(self, size: int | None = -1) -> bytes:
            assert size is not None
            assert 0 <= size <= MAX_BLOCK + 36
            return super().read(size)

    with pytest.raises(ContentError):
        read_car(Greedy(b"\xff\xff\xff\xff\xff\xff\x7f" + bytes(100)))
    car = read_car(Greedy(good() + b"\xff\xff\xff\xff\xff\xff\x7f" + bytes(100)))
    with pytest.raises(ContentError, match="bytes with its CID"):
        list(car.blocks)


@pytest.mark.server
def test_a_daemon_takes_what_is_written_and_gives_what_is_read(ipfs_daemon: str) -> None:
    import requests

    data = bytes(range(256)) * (2 * CHUNK // 256) + b"tail"
    blocks = list(build(data))
    root = blocks[-1][0]
    car = written([root], blocks)
    answer = requests.post(
        f"{ipfs_daemon}/api/v0/dag/import",
        params={"pin-roots": "true"},
        files={"file": ("run.car", car, "application/vnd.ipld.car")},
        timeout=60,
    )
    assert answer.ok, answer.text
    assert requests.post(f"{ipfs_daemon}/api/v0/cat", params={"arg": str(root)}, timeout=60).content == data
    exported = requests.post(f"{ipfs_daemon}/api/v0/dag/export", params={"arg": str(root)}, timeout=60)
    assert exported.ok, exported.text
    roots, got = read(exported.content)
    assert roots == (root,)
    assert dict(got) == dict(blocks)
