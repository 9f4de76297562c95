"""Files in blocks that link to each other in every way: read, listed and surveyed in time that the blocks bound."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.cid import DAG_PB, RAW, Cid, _field, build, of_block
from contracts.dag import MAX_BLOCK, broken_files, distinct_blocks, read_file
from contracts.errors import ContentError


class Blocks:
    """Blocks under their CIDs, and how often one was asked for."""

    def __init__(self) -> None:
        self.blocks: dict[Cid, bytes] = {}
        self.fetched = 0

    def add(self, codec: int, block: bytes) -> Cid:
        cid = of_block(codec, block)
        self.blocks[cid] = block
        return cid

    def node(self, links: Sequence[Cid], data: bytes | None = None) -> Cid:
        content = b"" if data is None else _field(2, data)
        body = b"".join(_field(2, _field(1, link.binary)) for link in links) + _field(1, b"\x08\x02" + content)
        return self.add(DAG_PB, body)

    def fetch(self, cid: Cid) -> bytes:
        self.fetched += 1
        try:
            return self.blocks[cid.v1]
        except KeyError:
            raise ContentError(f"block {cid} is nowhere.") from None


def seconds(action: Callable[[], object]) -> float:
    begin = time.process_time()
    action()
    return time.process_time() - begin


def test_a_node_with_its_data_a_million_times_over_is_refused_in_linear_time() -> None:
    blocks = Blocks()
    twice = blocks.add(DAG_PB, _field(1, b"\x08\x02" + b"\x12\x01a" * 2))
    many = blocks.add(DAG_PB, _field(1, b"\x08\x02" + b"\x12\x01a" * (MAX_BLOCK // 3 - 10)))
    bodies = blocks.add(DAG_PB, _field(1, b"\x08\x02") * 2)
    for root in (twice, bodies):
        with pytest.raises(ContentError, match="more than once"):
            read_file(root, blocks.fetch, max_bytes=100)

    def read() -> None:
        with pytest.raises(ContentError, match="more than once"):
            read_file(many, blocks.fetch, max_bytes=16 << 20)

    assert seconds(read) < 5


def test_data_beside_links_is_read_before_them() -> None:
    blocks = Blocks()
    leaves = [blocks.add(RAW, b"b"), blocks.node([], b"c")]
    assert read_file(blocks.node(leaves, b"a"), blocks.fetch, max_bytes=3) == b"abc"


def test_the_blocks_of_files_come_parents_first_and_are_all_of_them() -> None:
    blocks = Blocks()
    blocks.blocks = dict(build(bytes(range(256)) * 3 * 1024))
    *_, root = blocks.blocks
    found = list(distinct_blocks([root, root], blocks.fetch))
    assert found[0][0] == root
    assert dict(found) == blocks.blocks
    assert blocks.fetched == len(found) == len(blocks.blocks)


def test_a_damaged_block_is_not_listed() -> None:
    blocks = Blocks()
    root = blocks.node([leaf := blocks.add(RAW, b"leaf")])
    blocks.blocks[leaf] = b"other"
    with pytest.raises(ContentError, match="does not hash"):
        list(distinct_blocks([root], blocks.fetch))
    assert "does not hash" in broken_files([root], blocks.fetch, max_bytes=10)[root]


def test_a_file_of_a_thousandfold_block_is_surveyed_by_its_blocks() -> None:
    blocks = Blocks()
    leaf = blocks.add(RAW, bytes(1 << 20))
    roots = [blocks.node([leaf] * 1000, bytes([i])) for i in range(200)]
    assert broken_files(roots, blocks.fetch, max_bytes=1001 << 20) == {}
    assert blocks.fetched == 201
    small = broken_files(roots, blocks.fetch, max_bytes=999 << 20)
    assert list(small) == roots
    assert "larger than" in small[roots[0]]


def test_depth_that_multiplies_is_refused_at_once() -> None:
    blocks = Blocks()
    root = blocks.add(RAW, b"")
    for _ in range(2000):
        root = blocks.node([root] * 16)
    assert "too deep" in broken_files([root], blocks.fetch, max_bytes=1 << 30)[root]
    assert blocks.fetched == 2001


def test_what_one_missing_block_breaks_is_found_in_one_pass() -> None:
    blocks = Blocks()
    missing = of_block(RAW, b"elsewhere")
    shared = blocks.node([blocks.node([blocks.add(RAW, bytes([i]))]) for i in range(100)] + [missing])
    roots = [blocks.node([shared], bytes([i])) for i in range(250)]
    whole = blocks.add(RAW, b"whole")
    broken = broken_files([*roots, whole], blocks.fetch, max_bytes=1 << 20)
    assert list(broken) == roots
    assert str(missing) in broken[roots[-1]]
    assert blocks.fetched < 500


def test_what_is_fetched_is_bounded() -> None:
    blocks = Blocks()
    roots = [blocks.add(RAW, bytes([i])) for i in range(10)]
    assert broken_files(roots, blocks.fetch, max_bytes=10, most=10 * 1024) == {}
    with pytest.raises(ContentError, match="far more blocks"):
        broken_files(roots, blocks.fetch, max_bytes=10, most=9 * 1024)


@given(st.lists(st.tuples(st.lists(st.integers(0, 30), max_size=4), st.binary(max_size=3)), max_size=12), st.data())
def test_a_survey_says_what_reading_says(shape: list[tuple[list[int], bytes]], data: st.DataObject) -> None:
    blocks = Blocks()
    made = [blocks.add(RAW, b"leaf")]
    for links, content in shape:
        made.append(blocks.node([made[i % len(made)] for i in links], content))
    for gone in data.draw(st.lists(st.sampled_from(made), max_size=2)):
        blocks.blocks.pop(gone, None)
    broken = broken_files(made, blocks.fetch, max_bytes=1 << 20)
    for root in made:
        try:
            read_file(root, blocks.fetch, max_bytes=1 << 20)
        except ContentError:
            assert root in broken
        else:
            assert root not in broken
