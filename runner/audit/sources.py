"""Where the evidence about a run is: its folder here or a copy of it, or a contract on a chain and a content store."""

from __future__ import annotations

import re
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circuits.errors import QrunError, UsageError
from circuits.hostile import NoSuchFileError, load_json, read_regular
from contracts.cid import Cid, parse_cid
from contracts.dag import read_file as read_blocks
from contracts.errors import ContentError, LedgerBusy, LedgerError
from contracts.history import History, find_contract, read_chain, read_file
from contracts.integrity import Integrity, check_file
from contracts.store import BlockStore
from runner.places import Places
from runner.run_folder import MAX_BYTES

_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
_PARTS = ("config.json", "result.json", "chain.sqlite", "blocks")
"""What tells a run's folder from any other."""

GetBlock = Callable[[Cid], bytes]


class Reader:
    """A content store that is only read: several places, tried in order. What each gives is hashed.

    It has the reading half of contracts.store.ContentStore, and `put`, which keeps nothing but gives the CID.
    """

    kind = "reader"

    def __init__(self, places: Sequence[GetBlock]) -> None:
        self._places = places

    def get(self, cid: str, *, max_bytes: int) -> bytes:
        """A file, every block of it hashed.

        Raises:
            ContentError: no place has it undamaged, or it is larger than `max_bytes`.
        """
        return read_blocks(parse_cid(cid), self.get_block, max_bytes=max_bytes)

    def get_block(self, cid: Cid) -> bytes:
        """A block from the first place that has it undamaged; a damaged one where no place has a better."""
        problem: ContentError | None = None
        damaged: bytes | None = None
        for place in self._places:
            try:
                block = place(cid)
            except ContentError as error:
                problem = problem or error
                continue
            if cid.matches(block):
                return block
            damaged = block
        if damaged is not None:
            return damaged
        raise problem or ContentError(f"block {cid} is nowhere: no store was given.")

    def has(self, cid: str) -> bool:
        """Whether the whole file is there, undamaged."""
        try:
            self.get(cid, max_bytes=MAX_BYTES)
        except ContentError:
            return False
        return True

    def put(self, data: bytes) -> str:
        """The CID that the file has; it is not kept."""
        from contracts.cid import cid_of

        return str(cid_of(data))

    def close(self) -> None:
        """Nothing is held open."""


@dataclass(frozen=True)
class Evidence:
    """What there is of a run.

    Attributes:
        name: How the run is called here.
        folder: Its folder; None where there is only a contract.
        history: The task's log; None where the chain's file cannot be read.
        problem: Why not.
        integrity: Of the chain's file; None for a JSON-RPC node.
        store: Where files are read from.
        manifest: Bytes of config.json, if there are any.
        result: Bytes of result.json, if there are any.
    """

    name: str
    folder: Path | None
    history: History | None
    problem: str
    integrity: Integrity | None
    store: Reader
    manifest: bytes | None
    result: bytes | None


def run_folder(target: str) -> Path:
    """The folder of a run: a folder that looks like one, or that of a run's name (or an unambiguous beginning).

    Raises:
        UsageError: neither.
        QrunError: the run's folder is gone.
    """
    from runner.store import RunIndex

    path = Path(target)
    if not target.strip():
        raise UsageError(
            "no run is named: the name is empty.", "Give a run's name, its folder, or a contract's address."
        )
    if path.is_dir() and any((path / part).exists() for part in _PARTS):
        return path
    index = RunIndex()
    try:
        info = index.find(target)
    except UsageError:
        if path.exists():
            raise UsageError(f"{target} is no run's folder: it has none of {', '.join(_PARTS)}.") from None
        raise
    finally:
        index.close()
    if info.state == "missing":
        raise QrunError(f"the folder of run {info.run} ({info.path}) is gone.", f"`qrun runs rm {info.run}`.")
    return info.path


@contextmanager
def gather(
    target: str, *, chain: str | None = None, ipfs: str | None = None, store: Path | None = None
) -> Iterator[Evidence]:
    """The evidence about a run, open for reading.

    Args:
        target: A run's name, a folder, or a contract's address.
        chain: URL of a JSON-RPC node, or the file of an embedded chain; needed with an address, else the run's own.
        ipfs: Address of an IPFS daemon that has the run's files.
        store: A folder of blocks that has them.

    Raises:
        UsageError: nothing of that name, or an address without chain or store.
        QrunError: the run has nothing on a chain.
        LedgerError: the chain is in use, is gone, or does not answer.
    """
    where = Places(chain=chain if chain and "://" in chain else None, ipfs=ipfs)
    if store is not None and not store.is_dir():
        raise UsageError(
            f"--store {store}: no such folder.", "Give a folder of blocks (`qrun store import` makes one)."
        )
    with ExitStack() as stack:
        if _ADDRESS.fullmatch(target):
            if chain is None:
                raise UsageError("a contract's address needs the chain it is on.", "Add --chain URL.")
            if ipfs is None and store is None:
                raise UsageError("a contract's address needs a place of its files.", "Add --ipfs URL or --store DIR.")
            reader = Reader(_places(stack, None, store, where.ipfs))
            yield _evidence(target, None, chain, target, reader)
            return
        folder = run_folder(target)
        blocks = folder / "blocks"
        reader = Reader(_places(stack, blocks if blocks.is_dir() else None, store, where.ipfs))
        yield _evidence(folder.name, folder, chain or _chain_of(folder), None, reader)


@dataclass(frozen=True)
class Task:
    """A task's log, and where it was read.

    Attributes:
        name: How the run is called here.
        history: The log.
        file: The embedded chain's file; None for a JSON-RPC node.
    """

    name: str
    history: History
    file: Path | None


def read_task(target: str, chain: str | None = None) -> Task:
    """A task's log alone; arguments and errors as for `gather`, and a damaged chain is an error.

    Raises:
        LedgerError: the chain's file is damaged.
    """
    if _ADDRESS.fullmatch(target):
        if chain is None:
            raise UsageError("a contract's address needs the chain it is on.", "Add --chain URL.")
        folder, address, name = None, target, target
    else:
        folder = run_folder(target)
        address, name = None, folder.name
    where = chain or _chain_of(folder or Path())
    if "://" in where:
        return Task(name, _ask_node(name, where, address or _address_of(folder, _bytes(folder, "result.json"))), None)
    found = address or find_contract(Path(where))
    if found is None:
        raise QrunError(f"run {name} has nothing on its chain yet.", f"`qrun runs resume {name}`.")
    return Task(name, read_file(Path(where), found), Path(where))


def _ask_node(name: str, url: str, address: str | None) -> History:
    from contracts.chain import connect

    Places(chain=url)  # refuses what is no URL of a node
    if address is None:
        raise QrunError(f"run {name} has nothing on a chain yet.", f"`qrun runs resume {name}`.")
    with connect(url) as chain:
        return read_chain(chain, address)


def _places(stack: ExitStack, blocks: Path | None, store: Path | None, ipfs: str | None) -> list[GetBlock]:
    out: list[GetBlock] = [BlockStore(f, read_only=True).get_block for f in (blocks, store) if f is not None]
    if ipfs is not None:
        from contracts.ipfs import IpfsStore

        # What the daemon sends is kept beside the evidence, never in it.
        kept = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="qrun-")))
        daemon = IpfsStore(ipfs, BlockStore(kept))
        stack.callback(daemon.close)
        out.append(daemon.get_block)
    return out


def _chain_of(folder: Path) -> str:
    """The chain of a run: the file in its folder, or the URL that its config.json names."""
    file = folder / "chain.sqlite"
    if file.exists():
        return str(file)
    url = None
    try:
        manifest = load_json(_bytes(folder, "config.json") or b"", max_bytes=MAX_BYTES, what="config.json")
        url = manifest["places"]["chain"]
    except (QrunError, KeyError, TypeError):
        pass
    if not isinstance(url, str):
        raise QrunError(f"the run in {folder} has no chain: there is no chain.sqlite.", "Name its node with --chain.")
    if "***" in url:
        raise UsageError(f"the run's --chain address {url} held a key, which is not kept.", "Give --chain again.")
    return url


def _evidence(name: str, folder: Path | None, chain: str, address: str | None, reader: Reader) -> Evidence:
    manifest, result = (_bytes(folder, part) for part in ("config.json", "result.json"))
    history, problem, integrity = None, "", None
    if "://" in chain:
        history = _ask_node(name, chain, address or _address_of(folder, result))
    else:
        integrity = check_file(Path(chain))
        try:
            contract = address or find_contract(Path(chain)) or _address_of(folder, result)
            if contract is None:
                raise QrunError(f"run {name} has nothing on its chain yet.", f"`qrun runs resume {name}`.")
            history = read_file(Path(chain), contract)
        except LedgerBusy:
            raise
        except LedgerError as error:
            problem = error.message
    return Evidence(name, folder, history, problem, integrity, reader, manifest, result)


def _bytes(folder: Path | None, name: str) -> bytes | None:
    """A file of the run's folder; None where there is none."""
    if folder is None:
        return None
    try:
        return read_regular(folder / name, max_bytes=MAX_BYTES, what=name)
    except NoSuchFileError:
        return None


def _address_of(folder: Path | None, result: bytes | None) -> str | None:
    """The contract's address as the run's own files have it."""
    found: Any = None
    try:
        if result is not None:
            found = load_json(result, max_bytes=MAX_BYTES, what="result.json")["chain"]["contract"]
        elif folder is not None and (folder / "state.sqlite").is_file():
            found = _fact(folder / "state.sqlite", "contract")["address"]
    except (QrunError, LedgerError, KeyError, TypeError, sqlite3.Error):
        return None
    return found if isinstance(found, str) and _ADDRESS.fullmatch(found) else None


def _fact(file: Path, key: str) -> Any:
    """What a run's state has under a key; None where there is nothing."""
    from contracts.sqlite_file import check_companions, restrict
    from runner.store import TABLES

    check_companions(file)
    sql = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=1)
    try:
        restrict(sql, file, TABLES)
        row = sql.execute("select value from facts where key=?", (key,)).fetchone()
    finally:
        sql.close()
    return None if row is None else load_json(str(row[0]).encode(), max_bytes=MAX_BYTES, what=file.name)
