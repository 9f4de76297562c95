"""The embedded chain's file: whole as it is written, and broken by one byte anywhere."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from eth_account import Account
from eth_utils.crypto import keccak
from hypothesis import given
from hypothesis import strategies as st

from contracts import rlp, trie
from contracts.block_file import TABLE, BlockFile
from contracts.chain import connect
from contracts.errors import LedgerBusy, LedgerError
from contracts.integrity import check_file
from contracts.records import TaskSpec
from contracts.rounds import FederatedRounds


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chain with a contract, its events, and plain transfers."""
    path = tmp_path_factory.mktemp("chain") / "chain.sqlite"
    opener, *nodes = [Account.from_key(bytes([i]) * 32) for i in range(1, 5)]
    with connect(path, [a.address for a in (opener, *nodes)]) as chain:
        task = TaskSpec("test", b"c" * 32, "stand-in", 2, tuple(a.address for a in nodes))
        contract = FederatedRounds.deploy(chain, opener, task)
        for i, account in enumerate(nodes):
            contract.register(account, bytes([i + 1]) * 32)
        for account in nodes:
            contract.agree_map(account, b"m" * 32)
    return path


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(whole, tmp_path / "chain.sqlite"))


def rows(path: Path) -> list[tuple[bytes, bytes]]:
    with BlockFile(path) as file:
        return sorted((k, v) for k, v in file.rows() if isinstance(k, bytes) and isinstance(v, bytes))


def change(path: Path, statement: str, *values: object) -> None:
    sql = sqlite3.connect(path)
    sql.execute("pragma synchronous=off")
    with sql:
        assert sql.execute(statement, values).rowcount == 1
    sql.close()


def test_what_the_chain_writes_is_whole(whole: Path) -> None:
    found = check_file(whole)
    assert found.findings == ()
    assert found.blocks == 8
    assert found.values == len(rows(whole))


def test_reading_leaves_nothing_behind(copy: Path) -> None:
    before = copy.read_bytes()
    check_file(copy)
    assert copy.read_bytes() == before
    assert os.listdir(copy.parent) == [copy.name]


def test_a_folder_that_may_not_be_written_is_read(copy: Path) -> None:
    copy.chmod(0o444)
    copy.parent.chmod(0o555)
    try:
        assert check_file(copy).findings == ()
    finally:
        copy.parent.chmod(0o755)


def test_a_byte_flipped_in_any_value_is_found(copy: Path) -> None:
    for count, (key, value) in enumerate(rows(copy)):
        damaged = bytearray(value or b"\0")  # the code of who has none is empty
        damaged[count % len(damaged)] ^= 1 << count % 8
        change(copy, "update state set value=? where key=?", bytes(damaged), key)
        assert check_file(copy).findings, key
        change(copy, "update state set value=? where key=?", value, key)
    assert check_file(copy).findings == ()


def test_a_byte_flipped_in_any_key_is_found(copy: Path) -> None:
    present = {key for key, _ in rows(copy)}
    for count, (key, value) in enumerate(rows(copy)):
        damaged = bytearray(key)
        damaged[count % len(key)] ^= 1 << count % 8
        if bytes(damaged) in present:
            continue  # block 1's row as block 0's: there is no room for it
        change(copy, "update state set key=? where key=?", bytes(damaged), key)
        assert check_file(copy).findings, key
        change(copy, "update state set key=? where key=?", key, bytes(damaged))
        assert dict(rows(copy))[key] == value


def test_a_row_that_a_block_needs_is_missed(copy: Path) -> None:
    missed, some = 0, rows(copy)[::3]
    for key, value in some:
        change(copy, "delete from state where key=?", key)
        missed += bool(check_file(copy).findings)
        change(copy, "insert into state values(?,?)", key, value)
    # Some nodes are of no block's state, but of one between two transactions: nothing names them.
    assert missed > 0.7 * len(some)
    with BlockFile(copy) as file:
        head = file.head()
        needed = {head.state_root, head.transactions_root, head.receipts_root, head.hash}
    for key in needed:
        value = dict(rows(copy))[key]
        change(copy, "delete from state where key=?", key)
        assert any("missing" in finding for finding in check_file(copy).findings)
        change(copy, "insert into state values(?,?)", key, value)


def test_a_chain_that_was_cut_back_is_found(copy: Path) -> None:
    with BlockFile(copy) as file:
        earlier = file.header(5).hash
    change(copy, "update state set value=? where key=?", earlier, b"v1:canonical_head_hash")
    assert any("of no block of this chain" in finding for finding in check_file(copy).findings)


def test_a_block_of_another_chain_is_found(copy: Path) -> None:
    with BlockFile(copy) as file:
        header = file.header(4)
    fields = rlp.decode(header.raw)
    assert isinstance(fields, list)
    fields[11] = rlp.number(header.time + 1)
    spliced = rlp.encode(fields)
    change(copy, "insert into state values(?,?)", keccak(spliced), spliced)
    change(copy, "update state set value=? where key=?", rlp.encode(keccak(spliced)), b"block-number-to-hash:4")
    findings = check_file(copy).findings
    assert any("block 5 does not follow block 4" in finding for finding in findings)


def test_what_is_no_chain_is_told_in_words(tmp_path: Path) -> None:
    path = tmp_path / "chain.sqlite"
    with pytest.raises(LedgerError, match="there is no chain"):
        check_file(path)
    path.write_bytes(b"no database" * 100)
    assert "is no chain, or is damaged" in check_file(path).findings[0]
    path.unlink()
    sqlite3.connect(path).execute("create table state(key, value)")
    assert check_file(path).findings


def test_pages_of_noise_are_found_without_a_traceback(whole: Path, tmp_path: Path) -> None:
    data = whole.read_bytes()
    for start in range(0, len(data), 4096):
        path = tmp_path / f"{start}.sqlite"
        path.write_bytes(data[:start] + bytes(range(256)) * 16 + data[start + 4096 :])
        assert check_file(path).findings, start


def test_a_chain_in_use_is_not_read(copy: Path) -> None:
    with connect(copy), pytest.raises(LedgerBusy, match="in use"):
        check_file(copy)


def test_blocks_read_without_the_evm_are_those_that_it_made(whole: Path, copy: Path) -> None:
    with connect(copy) as chain:
        blocks = [chain.w3.eth.get_block(n, full_transactions=True) for n in range(8)]
        receipts = [[chain.w3.eth.get_transaction_receipt(t["hash"]) for t in b["transactions"]] for b in blocks]
        code = chain.code(address := receipts[1][0]["contractAddress"])
    with BlockFile(whole) as file:
        for block, made in zip(blocks, receipts, strict=True):
            header = file.header(block["number"])
            assert (header.hash, header.time, header.gas_used) == (
                bytes(block["hash"]),
                block["timestamp"],
                block["gasUsed"],
            )
            transactions = file.transactions(header)
            for one, theirs in zip(transactions, block["transactions"], strict=True):
                assert one.hash == bytes(theirs["hash"])
                assert one.sender == bytes.fromhex(theirs["from"][2:])
                assert one.data == bytes(theirs["data"])
                assert (one.to or b"") == bytes.fromhex((theirs["to"] or "0x")[2:])
            for own, receipt in zip(file.receipts(header), made, strict=True):
                assert own.ok == bool(receipt["status"])
                assert [(log.data, *log.topics) for log in own.logs] == [
                    (bytes(log["data"]), *(bytes(topic) for topic in log["topics"])) for log in receipt["logs"]
                ]
        assert file.code(file.head(), bytes.fromhex(address[2:])) == code
        assert file.code(file.head(), bytes(20)) == b""


# -- files that are made to be read without end -----------------------------------------------------------------------

ZERO = bytes(32)


def header_of(block: int, *, parent: bytes = ZERO, **roots: bytes) -> bytes:
    state, transactions, receipts = (roots.get(n, trie.EMPTY_ROOT) for n in ("state", "transactions", "receipts"))
    number, gas_limit = rlp.number(block), b"\x01\0\0\0"
    head: list[rlp.Item] = [parent, ZERO, bytes(20), state, transactions, receipts, bytes(256), b"", number, gas_limit]
    return rlp.encode([*head, b"", rlp.number(block + 1), b"", ZERO, bytes(8)])


def forged(path: Path, nodes: Sequence[bytes], headers: Sequence[bytes]) -> Path:
    """A chain of these headers; every hash is right."""
    made = {keccak(value): value for value in (*nodes, *headers)}
    made |= {f"block-number-to-hash:{i}".encode(): rlp.encode(keccak(h)) for i, h in enumerate(headers)}
    made[b"v1:canonical_head_hash"] = keccak(headers[-1])
    sql = sqlite3.connect(path)
    sql.execute(TABLE)
    sql.executemany("insert into state values(?,?)", made.items())
    sql.commit()
    sql.close()
    return path


def branches(leaf: rlp.Item, depth: int) -> list[bytes]:
    """Nodes of which each names the one before it sixteen times; the last is the root."""
    made = [rlp.encode(leaf)]
    for _ in range(depth):
        made.append(rlp.encode((*[keccak(made[-1])] * 16, b"")))
    return made


@pytest.mark.parametrize("which", ["receipts", "transactions", "state"])
@pytest.mark.parametrize("depth", [3, 7, 60])
@pytest.mark.parametrize("leaf", [[b"\x20", b"v" * 40], [b""] * 17], ids=["values", "nothing"])
def test_a_trie_that_names_itself_sixteen_times_a_level_is_read_once(
    tmp_path: Path, which: str, depth: int, leaf: rlp.Item
) -> None:
    nodes = branches(leaf, depth)
    header = header_of(0, **{which: keccak(nodes[-1])})
    path = forged(tmp_path / "chain.sqlite", nodes, [header])
    begin = time.process_time()
    assert check_file(path).findings
    with BlockFile(path) as file, pytest.raises(LedgerError):
        file.values(keccak(nodes[-1]))
    assert time.process_time() - begin < 2


def test_headers_that_all_name_one_long_list_are_refused(tmp_path: Path) -> None:
    from trie import HexaryTrie

    nodes: dict[bytes, bytes] = {}
    made = HexaryTrie(nodes)
    for i in range(600):
        made[rlp.encode(rlp.number(i))] = rlp.encode([b"\x01", rlp.number(i + 1), bytes(256), []])
    headers: list[bytes] = []
    for i in range(200):
        headers.append(header_of(i, parent=keccak(headers[-1]) if headers else ZERO, receipts=made.root_hash))
    path = forged(tmp_path / "chain.sqlite", list(nodes.values()), headers)
    begin = time.process_time()
    assert any("more than the 0 that belong there" in finding for finding in check_file(path).findings)

    def read() -> None:
        with BlockFile(path) as file:
            for i in range(200):
                file.receipts(file.header(i))

    with pytest.raises(LedgerError, match="again and again"):
        read()
    assert time.process_time() - begin < 5


def test_a_transaction_in_two_blocks_is_found(copy: Path) -> None:
    with BlockFile(copy) as file:
        known, root = rows(copy), file.header(3).transactions_root
        headers = [file.header(i).raw for i in range(7)]
    headers.append(header_of(7, parent=keccak(headers[-1]), transactions=root))
    found = check_file(forged(copy.parent / "forged", [v for k, v in known if len(k) == 32], headers))
    assert any("block 7: a node stands twice" in finding for finding in found.findings)


@pytest.mark.parametrize(
    "schema",
    [
        "create view state as with recursive r(k, v) as (select key, value from t union all select k, v from r) "
        "select k as key, v as value from r",
        "create view state as with recursive r(k) as (select 1 union all select k + 1 from r) "
        "select k as key, k as value from r where k < 0",
        "create table state(key blob primary key, value blob as (zeroblob(1000000000)))",
        "create table state(key blob, value blob)",
        f"{TABLE}; create table other(a)",
        f"{TABLE}; create trigger x after insert on state begin select 1; end",
        f"{TABLE}; create index x on state(value)",
    ],
)
def test_what_is_no_plain_table_is_not_read(whole: Path, tmp_path: Path, schema: str) -> None:
    path = tmp_path / "chain.sqlite"
    sql = sqlite3.connect(path)
    sql.execute("create table t(key blob primary key, value blob)")
    sql.executemany("insert into t values(?,?)", rows(whole))
    for statement in schema.split("; ", 1):
        sql.execute(statement)
    if schema.startswith(TABLE) or "table state" in schema:
        sql.execute("drop table t")
    sql.commit()
    sql.close()
    begin = time.process_time()
    (finding,) = check_file(path).findings
    assert "none of qrun's" in finding
    with pytest.raises(LedgerError, match="none of qrun's"):
        BlockFile(path)
    assert time.process_time() - begin < 2


def test_pages_that_stand_in_many_places_end(tmp_path: Path) -> None:
    # An inner page whose every cell leads to the same leaf: more rows than the file can hold.
    path = tmp_path / "chain.sqlite"
    sql = sqlite3.connect(path)
    sql.execute("pragma page_size=4096")
    sql.execute(TABLE)
    sql.executemany("insert into state values(?,?)", [(i.to_bytes(32, "big"), bytes(300)) for i in range(2000)])
    sql.commit()
    (root,) = sql.execute("select rootpage from sqlite_master").fetchone()
    sql.close()
    data = bytearray(path.read_bytes())
    page = (root - 1) * 4096
    assert data[page] == 2  # the inner page of an index
    cells = int.from_bytes(data[page + 3 : page + 5], "big")
    for i in range(cells):  # all of them, and the rightmost, lead to the first one's child
        cell = page + int.from_bytes(data[page + 12 + 2 * i : page + 14 + 2 * i], "big")
        if i == 0:
            first = data[cell : cell + 4]
        data[cell : cell + 4] = first
    data[page + 8 : page + 12] = first
    path.write_bytes(data)
    begin = time.process_time()
    assert check_file(path).findings
    assert time.process_time() - begin < 5


def test_rows_that_are_more_than_the_file_are_refused(copy: Path) -> None:
    with BlockFile(copy) as file:
        file._size = 1000
        with pytest.raises(LedgerError, match="more in its rows than it is long"):
            list(file.rows())


@pytest.mark.parametrize("ending", ["-journal", "-wal", "-shm"])
@pytest.mark.parametrize("kind", ["link", "fifo", "folder"])
def test_what_lies_beside_a_chain_is_not_followed(copy: Path, ending: str, kind: str) -> None:
    victim, beside = copy.parent / "thesis.txt", copy.with_name(copy.name + ending)
    victim.write_text("mine")
    if kind == "link":
        beside.symlink_to(victim)
    elif kind == "fifo":
        os.mkfifo(beside)
    else:
        beside.mkdir()
    with pytest.raises(LedgerError, match="no plain file"):
        BlockFile(copy)
    assert victim.read_text() == "mine"


def test_a_journal_that_names_another_file_is_not_played_back(copy: Path) -> None:
    beside = copy.with_name(copy.name + "-journal")
    beside.write_bytes(bytes(600) + bytes.fromhex("d9d505f920a163d7"))
    with pytest.raises(LedgerError, match="names another file"):
        BlockFile(copy)


def test_numbers_that_cannot_be_shown_are_refused(tmp_path: Path) -> None:
    path = forged(tmp_path / "chain.sqlite", [], [header_of(1 << 60_000)])
    assert "a number of 7501 bytes" in check_file(path).findings[0]


# -- the encodings beneath --------------------------------------------------------------------------------------------

items = st.recursive(st.binary(max_size=80), lambda inner: st.lists(inner, max_size=5), max_leaves=20)


@given(items)
def test_rlp_of_anything_is_read_back_and_agrees_with_the_library(item: rlp.Item) -> None:
    import rlp as library

    assert rlp.encode(item) == library.encode(item)
    assert rlp.decode(rlp.encode(item)) == item


@given(st.binary(max_size=80))
def test_noise_is_no_rlp_or_is_in_its_one_form(noise: bytes) -> None:
    try:
        item = rlp.decode(noise)
    except rlp.RlpError:
        return
    assert rlp.encode(item) == noise


def test_rlp_nested_without_end_is_refused() -> None:
    item: rlp.Item = []
    for _ in range(40):
        item = [item]
    with pytest.raises(rlp.RlpError, match="nested"):
        rlp.decode(rlp.encode(item))


@given(st.dictionaries(st.binary(min_size=1, max_size=4), st.binary(min_size=1, max_size=40), max_size=30))
def test_tries_made_by_the_library_are_read(contents: dict[bytes, bytes]) -> None:
    from trie import HexaryTrie

    nodes: dict[bytes, bytes] = {}
    made = HexaryTrie(nodes)
    for key, value in contents.items():
        made[key] = value
    found = dict(trie.walk(made.root_hash, nodes.__getitem__))
    assert found == {trie.nibbles(key): value for key, value in contents.items()}
    assert list(found) == sorted(found)
    for key, value in contents.items():
        assert trie.find(made.root_hash, key, nodes.__getitem__) == value
        assert trie.find(made.root_hash, key + b"\x01", nodes.__getitem__) == contents.get(key + b"\x01")
