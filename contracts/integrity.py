"""Whether the file of an embedded chain is whole: what a flipped byte, a lost row or a spliced block breaks.

Checked, of all that the file holds: every value under a hash hashes to it (headers, nodes of tries, code); the
canonical headers link from the last one to the first, their numbers are consecutive, their times rise; transactions and
receipts are complete, and gas and bloom filters are the sums of the receipts; every account, storage slot and code that
any block's state names is there; the indexes say what the blocks say. Not checked is whether the EVM, run again, comes
to the same state: whoever may write the whole file can write another whole chain (docs/audit.md).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from eth_utils.crypto import keccak

from contracts import trie
from contracts.block_file import HEAD_KEY, NUMBER_KEY, BlockFile, number_key
from contracts.blocks import Account, Header, SignedTransaction, TransactionReceipt
from contracts.errors import LedgerBusy, LedgerError
from contracts.rlp import decode, encode, number

EMPTY_CODE = keccak(b"")
MAX_FINDINGS = 100
"""More are not told: the file is broken."""
_KNOWN = re.compile(rb"block-number-to-hash:|block-hash-to-score:|transaction-hash-to-block:|v1:")


@dataclass(frozen=True)
class Integrity:
    """What was found.

    Attributes:
        blocks: Canonical blocks, the first one included; 0 where not even the last one can be read.
        values: Rows of the file.
        findings: What is wrong, a plain statement each; empty where the file is whole.
    """

    blocks: int
    values: int
    findings: tuple[str, ...]


def check_file(path: Path) -> Integrity:
    """Check the file of an embedded chain.

    Raises:
        LedgerBusy: a process works on it.
        LedgerError: there is no such file.
    """
    try:
        file = BlockFile(path)
    except LedgerBusy:
        raise
    except LedgerError as error:
        if not path.is_file():
            raise
        return Integrity(0, 0, (error.message,))
    with file:
        return _Check(file).run()


class _Check:
    def __init__(self, file: BlockFile) -> None:
        self._file = file
        self._findings: list[str] = []
        self._hashed: dict[bytes, bytes] = {}
        self._named: dict[bytes, bytes] = {}
        self._broken: set[bytes] = set()
        self._blocks = 0

    def run(self) -> Integrity:
        try:
            for what in self._read():
                self._say(what)
            for what in self._check_chain():
                self._say(what)
        except LedgerError as error:
            self._say(error.message)
        except _EnoughError:
            pass
        values = len(self._hashed) + len(self._named)
        return Integrity(self._blocks, values, tuple(self._findings))

    def _say(self, what: str) -> None:
        self._findings.append(what)
        if len(self._findings) >= MAX_FINDINGS:
            self._findings.append(f"more than {MAX_FINDINGS} statements are false: no more are told")
            raise _EnoughError

    def _read(self) -> Iterator[str]:
        for key, value in self._file.rows():
            if not isinstance(key, bytes) or not isinstance(value, bytes):
                yield "a row of the file holds something else than bytes"
            elif len(key) == 32:
                self._hashed[key] = value
                if keccak(value) != key:
                    self._broken.add(key)
                    yield f"the value under 0x{key.hex()} does not hash to its key: its bytes were changed"
            else:
                self._named[key] = value
                if not _KNOWN.match(key):
                    yield f"a row under {key[:60]!a} belongs to no chain"

    def _node(self, digest: bytes) -> bytes:
        value = self._hashed.get(digest)
        if value is None:
            raise LedgerError(f"the value with the hash 0x{digest.hex()} is missing")
        if digest in self._broken:  # that was told; below it nothing can be said
            raise _BrokenError(f"the value with the hash 0x{digest.hex()} was changed")
        return value

    # -- blocks -------------------------------------------------------------------------------------------------------

    def _check_chain(self) -> Iterator[str]:
        head = self._named.get(HEAD_KEY, b"")
        try:
            last = Header.read(self._node(head))
        except LedgerError as error:
            yield f"the last block cannot be read: {error.message}"
            return
        seen: set[bytes] = set()
        listed: set[bytes] = set()
        expected = {HEAD_KEY: head}
        header: Header | None = None
        total = 0
        for block in range(last.number + 1):
            parent = header
            try:
                header = self._header(block)
                yield from self._check_links(header, parent)
                total += header.difficulty or block  # py-evm's: a score that rises where there is no difficulty
                expected[number_key(block)] = encode(header.hash)
                expected[b"block-hash-to-score:" + repr(header.hash).encode()] = encode(number(total))
                transactions = self._transactions(header, listed)
                for index, transaction in enumerate(transactions):
                    place = encode([number(block), number(index)])
                    expected[b"transaction-hash-to-block:" + repr(transaction).encode()] = place
                yield from self._check_receipts(header, len(transactions))
                yield from self._check_state(header, seen)
            except LedgerError as error:
                if not isinstance(error, _BrokenError):
                    yield f"block {block}: {error.message}"
                elif header is parent:
                    header = None
            self._blocks += 1
        if header is not None and header.hash != head:
            yield f"the last block is {last.number}, but another block has that number"
        gaps = encode([[], number(last.number + 1).rjust(32, b"\0")])
        expected |= {b"v1:chain_gaps": gaps, b"v1:header_chain_gaps": gaps}
        yield from self._check_indexes(expected)

    def _header(self, block: int) -> Header:
        entry = decode(self._named.get(number_key(block), b"\x80"))
        if not isinstance(entry, bytes) or len(entry) != 32:
            raise LedgerError("the index of blocks has none of that number")
        header = Header.read(self._node(entry))
        if header.number != block:
            raise LedgerError(f"the index of blocks leads to block {header.number}")
        return header

    @staticmethod
    def _check_links(header: Header, parent: Header | None) -> Iterator[str]:
        if parent is not None:
            if header.parent != parent.hash:
                yield f"block {header.number} does not follow block {parent.number}: it names another parent"
            if header.time <= parent.time:
                yield f"block {header.number} is not later than block {parent.number}"
        if header.gas_used > header.gas_limit:
            yield f"block {header.number} used more gas than a block may"

    def _transactions(self, header: Header, seen: set[bytes]) -> list[bytes]:
        """Hashes of a block's transactions, which can be read; none is in two blocks."""
        raw = trie.values(header.transactions_root, self._node, seen)
        return [SignedTransaction.read(transaction).hash for transaction in raw]

    def _check_receipts(self, header: Header, count: int) -> Iterator[str]:
        # No more are read than there are transactions: blocks may share receipts, and all might name one long list.
        receipts = [TransactionReceipt.read(r) for r in trie.values(header.receipts_root, self._node, most=count)]
        if len(receipts) != count:
            yield f"block {header.number} has {count} transactions and {len(receipts)} receipts"
        totals = [receipt.gas_total for receipt in receipts]
        if totals != sorted(totals) or (totals[-1] if totals else 0) != header.gas_used:
            yield f"block {header.number}: the gas of its receipts is not the gas of the block"
        bloom = 0
        for index, receipt in enumerate(receipts):
            own = 0
            for log in receipt.logs:
                for item in (log.address, *log.topics):
                    own |= _bloom(item)
            if own != receipt.bloom:
                yield f"block {header.number}, transaction {index}: the bloom filter is not that of its events"
            bloom |= own
        if bloom != header.bloom:
            yield f"block {header.number}: the bloom filter is not that of its events"

    def _check_state(self, header: Header, seen: set[bytes]) -> Iterator[str]:
        """That all which a block's state names is here; what an earlier block named too is not read again."""
        for _, raw in trie.walk(header.state_root, self._node, seen):
            account = Account.read(raw)
            if account.code_hash != EMPTY_CODE and account.code_hash not in seen:
                seen.add(account.code_hash)
                self._node(account.code_hash)
            for _ in trie.walk(account.storage_root, self._node, seen):
                pass
        yield from ()

    def _check_indexes(self, expected: dict[bytes, bytes]) -> Iterator[str]:
        for key, value in sorted(self._named.items()):
            if key not in expected:
                if _KNOWN.match(key):
                    yield f"the row {key[:60]!a} is of no block of this chain"
            elif expected[key] != value:
                yield f"the row {key[:60]!a} does not say what the blocks say"
        for key in sorted(expected.keys() - self._named.keys()):
            if not key.startswith(NUMBER_KEY):  # those were told with their blocks
                yield f"the row {key[:60]!a} is missing"


class _BrokenError(LedgerError):
    """A value that was told already."""


class _EnoughError(Exception):
    """More findings than are told."""


def _bloom(item: bytes) -> int:
    """The three bits of a log's address or topic (Yellow Paper, 4.3.1)."""
    digest = keccak(item)
    bits = 0
    for i in (0, 2, 4):
        bits |= 1 << (int.from_bytes(digest[i : i + 2], "big") & 2047)
    return bits
