"""Where the evidence about a run is: its folder here or a copy of it, or a contract on a chain and a content store."""

from __future__ import annotations

import re
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from contracts.chain import Chain

_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
_PARTS = ("config.json", "result.json", "chain.sqlite", "blocks", "report.json")
"""What tells the folder of a run, or of a node, from any other."""

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
        report: Bytes of report.json, a node's own, if there are any.
        chain: The JSON-RPC node, open; None where the chain is a file.
    """

    name: str
    folder: Path | None
    history: History | None
    problem: str
    integrity: Integrity | None
    store: Reader
    manifest: bytes | None
    result: bytes | None
    report: bytes | None = None
    chain: Chain | None = None

    @property
    def block_hash(self) -> Callable[[int], str] | None:
        """Asks the JSON-RPC node for the hash of a block by its number; None where the chain is a file."""
        if self.chain is None:
            return None
        from contracts.told import Node

        return Node(self.chain).block_hash

    @property
    def of_node(self) -> bool:
        """Whether the folder is that of one node, which played for itself."""
        alone = self.folder is not None and self.manifest is None and self.result is None
        return alone and (self.report is not None or _owner(self.folder) is not None)


def run_folder(target: str) -> Path:
    """The folder of a run or of a node: one that looks like it, or that of a run's name (or an unambiguous beginning).

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
    if path.is_dir() and (any((path / part).exists() for part in _PARTS) or _owner(path) is not None):
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
        chain: URL of a JSON-RPC node, or the file of an embedded chain; needed with an address and with the folder of
            a node that played for itself, else the run's own.
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
            yield _evidence(stack, target, chain, reader, address=target)
            return
        folder = run_folder(target)
        blocks = folder / "blocks"
        reader = Reader(_places(stack, blocks if blocks.is_dir() else None, store, where.ipfs))
        yield _evidence(stack, folder.name, chain or _chain_of(folder), reader, folder=folder)


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
        with ExitStack() as stack:
            found = address or _address_of(folder, _bytes(folder, "result.json"))
            return Task(name, _ask_node(stack, name, where, found)[1], None)
    found = address or find_contract(Path(where))
    if found is None:
        raise QrunError(f"run {name} has nothing on its chain yet.", f"`qrun runs resume {name}`.")
    return Task(name, read_file(Path(where), found), Path(where))


def _ask_node(stack: ExitStack, name: str, url: str, address: str | None) -> tuple[Chain, History]:
    """A node, open, and the task's log as it tells it."""
    from contracts.chain import connect

    Places(chain=url)  # refuses what is no URL of a node
    if address is None:
        raise QrunError(f"run {name} has nothing on a chain yet.", f"`qrun runs resume {name}`.")
    chain = stack.enter_context(connect(url))
    return chain, read_chain(chain, address)


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


def _evidence(
    stack: ExitStack, name: str, chain: str, reader: Reader, *, folder: Path | None = None, address: str | None = None
) -> Evidence:
    manifest, result, report = (_bytes(folder, part) for part in ("config.json", "result.json", "report.json"))
    history, problem, integrity, node = None, "", None, None
    if "://" in chain:
        node, history = _ask_node(stack, name, chain, address or _address_of(folder, result))
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
    return Evidence(name, folder, history, problem, integrity, reader, manifest, result, report, node)


def _bytes(folder: Path | None, name: str) -> bytes | None:
    """A file of the run's folder; None where there is none."""
    if folder is None:
        return None
    try:
        return read_regular(folder / name, max_bytes=MAX_BYTES, what=name)
    except NoSuchFileError:
        return None


def _address_of(folder: Path | None, result: bytes | None) -> str | None:
    """The contract's address as the files of the run, or of the node, have it."""
    found: Any = None
    try:
        if result is not None:
            found = load_json(result, max_bytes=MAX_BYTES, what="result.json")["chain"]["contract"]
        elif folder is not None and (folder / "state.sqlite").is_file():
            known = _fact(folder / "state.sqlite", "contract")
            found = _owner(folder) if known is None else known["address"]
        elif (report := _bytes(folder, "report.json")) is not None:
            found = load_json(report, max_bytes=MAX_BYTES, what="report.json")["task"]["contract"]
    except (QrunError, LedgerError, KeyError, TypeError, sqlite3.Error):
        return None
    return found if isinstance(found, str) and _ADDRESS.fullmatch(found) else None


def _owner(folder: Path | None) -> Any:
    """The task of the node whose folder it is; None where it is no node's."""
    if folder is None or not (folder / "state.sqlite").is_file():
        return None
    try:
        known = _fact(folder / "state.sqlite", "owner")
        return None if known is None else known["task"]
    except (QrunError, LedgerError, KeyError, TypeError, sqlite3.Error):
        return None


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
