"""CIDs: known ones, the strict parser, and files read back from hostile blocks."""

from __future__ import annotations

import hashlib
import string
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.cid import CHUNK, DAG_PB, RAW, WIDTH, Cid, build, cid_of, from_binary, of_block, parse_cid
from contracts.dag import MAX_BLOCK, read_file
from contracts.errors import ContentError

# The first three are what `ipfs add --cid-version=1 --raw-leaves` gives; the larger ones were compared with js-ipfs.
KNOWN = {
    b"": "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku",
    b"hello world": "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e",
}
HELLO_V0 = "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o"
HELLO_V0_BLOCK = b"\x0a\x12\x08\x02\x12\x0chello world\n\x18\x0c"
EMPTY_FOLDER = "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn"

digests = st.binary(min_size=32, max_size=32)


@pytest.mark.parametrize(("data", "text"), KNOWN.items())
def test_known_files(data: bytes, text: str) -> None:
    assert str(cid_of(data)) == text


def test_a_file_of_one_chunk_is_its_sha256_and_a_larger_one_is_not() -> None:
    data = bytes(CHUNK)
    assert cid_of(data) == Cid(RAW, hashlib.sha256(data).digest())
    larger = cid_of(data + b"x")
    assert larger.codec == DAG_PB
    assert str(larger) == "bafybeihny4fdeqw4k2twhj77h7iojp6wnkmpb6yrwzonlsd7hc5p4qoea4"


@pytest.mark.parametrize(("count", "depth"), [(1, 0), (2, 1), (WIDTH, 1), (WIDTH + 1, 2)])
def test_the_tree_grows_a_level_beyond_174_chunks(count: int, depth: int) -> None:
    data = bytes(range(256)) * 8 * count
    parts = list(build(data, chunk=2048))
    root, nodes = parts[-1][0], [cid for cid, _ in parts if cid.codec == DAG_PB]
    # One node above up to 174 leaves; with one leaf more, two of them and a root.
    assert len(nodes) == (0, 1, 3)[depth]
    assert len(parts) - len(nodes) == count
    assert read_file(root, dict(parts).__getitem__, max_bytes=len(data)) == data


def test_version_0_is_read() -> None:
    cid = parse_cid(HELLO_V0)
    assert (cid.version, cid.codec, str(cid)) == (0, DAG_PB, HELLO_V0)
    assert cid.matches(HELLO_V0_BLOCK)
    assert read_file(cid, lambda _: HELLO_V0_BLOCK, max_bytes=100) == b"hello world\n"
    assert cid.v1.digest == cid.digest
    assert cid.v1.version == 1


def test_a_folder_is_no_file() -> None:
    cid = parse_cid(EMPTY_FOLDER)
    assert cid.matches(b"\x0a\x02\x08\x01")
    with pytest.raises(ContentError, match="no file"):
        read_file(cid, lambda _: b"\x0a\x02\x08\x01", max_bytes=100)


@given(digests, st.sampled_from([RAW, DAG_PB]))
def test_text_and_bytes_go_round(digest: bytes, codec: int) -> None:
    cid = Cid(codec, digest)
    assert parse_cid(str(cid)) == cid
    assert from_binary(cid.binary) == cid


@given(digests)
def test_version_0_goes_round(digest: bytes) -> None:
    cid = Cid(DAG_PB, digest, 0)
    assert parse_cid(str(cid)) == cid


GOOD = KNOWN[b"hello world"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "b",
        "Qm",
        GOOD[:-1],
        GOOD + "a",
        GOOD.upper(),
        "B" + GOOD[1:].upper(),
        " " + GOOD[:-1],
        GOOD[:-1] + "1",
        GOOD[:-1] + "\n",
        GOOD[:-1] + "ſ",  # upper-cased it is an S
        GOOD[:-1] + ("f" if GOOD[-1] == "e" else "e"),  # the last character has an unused bit
        "bagaaiera" + GOOD[9:],
        HELLO_V0[:-1] + "0",
        HELLO_V0[:-1] + "é",
        "QmzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzZ",
        "../../../../../../../../../../../../../../etc/passwd/aaaaaa",
        "b" + "=" * 58,
        "\x00" * 59,
        "bafkrei" * 100_000,
    ],
)
def test_what_is_no_cid_is_refused(text: str) -> None:
    with pytest.raises(ContentError):
        parse_cid(text)


@given(st.one_of(st.text(max_size=80), st.text(string.ascii_lowercase + "234567", min_size=58, max_size=58)))
def test_any_text_is_refused_or_its_own_cid(text: str) -> None:
    for candidate in (text, "b" + text):
        try:
            cid = parse_cid(candidate)
        except ContentError:
            continue
        assert str(cid) == candidate


@given(st.binary(max_size=300), st.integers(1, 20), st.integers(2, 5))
def test_files_of_any_shape_are_read_back(data: bytes, chunk: int, width: int) -> None:
    parts = list(build(data, chunk=chunk, width=width))
    assert all(cid.matches(block) for cid, block in parts)
    blocks = dict(parts)
    assert read_file(parts[-1][0], blocks.__getitem__, max_bytes=len(data)) == data
    if data:
        with pytest.raises(ContentError, match="larger than"):
            read_file(parts[-1][0], blocks.__getitem__, max_bytes=len(data) - 1)


@given(st.binary(max_size=200))
def test_a_hostile_node_gives_a_content_error_or_a_file(block: bytes) -> None:
    cid = of_block(DAG_PB, block)

    def fetch(asked: Cid) -> bytes:
        if asked != cid:
            raise ContentError("missing")
        return block

    with suppress(ContentError):
        assert len(read_file(cid, fetch, max_bytes=50)) <= 50


@given(st.data())
def test_any_changed_block_is_found(data: st.DataObject) -> None:
    parts = list(build(bytes(range(100)), chunk=9, width=3))
    victim = data.draw(st.integers(0, len(parts) - 1))
    cid, block = parts[victim]
    place = data.draw(st.integers(0, len(block) - 1))
    changed = block[:place] + bytes([block[place] ^ data.draw(st.integers(1, 255))]) + block[place + 1 :]
    blocks = {**dict(parts), cid: data.draw(st.sampled_from([changed, block[:place], block + b"x"]))}
    with pytest.raises(ContentError, match="damaged"):
        read_file(parts[-1][0], blocks.__getitem__, max_bytes=1000)


def _node(*links: Cid) -> bytes:
    body = b"".join(b"\x12\x28" + b"\x0a\x24" + link.binary + b"\x18\x00" for link in links)
    return body + b"\x0a\x02\x08\x02"


def test_a_bomb_of_shared_nodes_is_cut_off() -> None:
    """A hundred links to one node, ten levels deep, would be 10^20 empty leaves."""
    leaf = b"\x0a\x02\x08\x02"
    blocks = {of_block(DAG_PB, leaf): leaf}
    cid = of_block(DAG_PB, leaf)
    for _ in range(10):
        block = _node(*[cid] * 100)
        cid = of_block(DAG_PB, block)
        blocks[cid] = block
    fetched = 0

    def fetch(asked: Cid) -> bytes:
        nonlocal fetched
        fetched += 1
        return blocks[asked]

    with pytest.raises(ContentError, match="more blocks"):
        read_file(cid, fetch, max_bytes=1000)
    assert fetched < 2000


def test_a_chain_of_nodes_is_cut_off() -> None:
    block = b"\x0a\x02\x08\x02"
    blocks = {}
    for _ in range(40):
        cid = of_block(DAG_PB, block)
        blocks[cid] = block
        block = _node(cid)
    with pytest.raises(ContentError, match="more blocks"):
        read_file(cid, blocks.__getitem__, max_bytes=1000)


def test_a_block_is_bounded() -> None:
    with pytest.raises(ContentError, match="none has more"):
        read_file(cid_of(b"x"), lambda _: bytes(MAX_BLOCK + 1), max_bytes=10 * MAX_BLOCK)


def test_a_codec_or_digest_that_cannot_be() -> None:
    for codec, digest, version in ((0x71, bytes(32), 1), (RAW, bytes(31), 1), (RAW, bytes(32), 0), (RAW, bytes(32), 2)):
        with pytest.raises(ContentError):
            Cid(codec, digest, version)
    with pytest.raises(ContentError):
        parse_cid(b"bytes")  # type: ignore[arg-type]
